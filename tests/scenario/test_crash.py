"""kill -9: of a worker, under load, and of penstock itself."""
import os
import shutil
import signal

import pytest

from lib.checks import assert_refused
from lib.desk import folder_of_workers, python
from lib.load import Hey
from lib.processes import alive, descendants, wait_gone
from lib.wire import eventually


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def wait_ready(proxy, count, upstream="main"):
    proxy.wait_status(lambda status: sum(worker["state"] == "ready"
                                         for worker in status["upstreams"][upstream]["workers"]) == count,
                      f"{count} workers ready")


@pytest.fixture
def workers(penstock, desk):
    """workers(...): a proxy before workers of the desk, with a concurrency of 1."""
    def start(count=1, **settings):
        settings.setdefault("concurrency", 1)
        proxy = penstock({"upstreams": {"main": {
            "workers": desk.workers(count=count, restart={"backoff": "10ms", "max_backoff": "100ms"}), **settings}},
            "threads": 4})
        wait_ready(proxy, count)
        return proxy
    return start


# ---- a worker


def test_a_request_that_ran_on_the_killed_worker_gets_a_502_and_the_waiting_ones_are_served(workers, desk):
    proxy = workers(count=2)
    running = [proxy.connect().post("/running/0", "x"), proxy.connect().post("/running/1", "x")]
    jobs = {job["target"]: job for job in (desk.next_job(), desk.next_job())}
    waiting = []
    for number in range(4):
        waiting.append(proxy.connect().post(f"/waiting/{number}", "x"))
        proxy.wait_queue(number + 1)

    victim, survivor = jobs["/running/0"], jobs["/running/1"]
    kill(victim["pid"])
    assert_refused(running[0].read_response(), 502, "backend_reset")
    survivor.respond("unhurt")
    assert running[1].read_response().body == b"unhurt"
    for client in waiting:
        job = desk.next_job()
        assert job["pid"] != victim["pid"]
        job.respond(job["target"])
    assert [client.read_response().body.decode() for client in waiting] == [f"/waiting/{n}" for n in range(4)]
    proxy.wait_metric(lambda metrics: metrics.value("penstock_worker_exits_total", upstream="main") == 1)
    wait_ready(proxy, 2)
    assert desk.most_at_once() == 1


def test_requests_wait_for_the_only_worker_to_come_back(workers, desk):
    proxy = workers()
    running = proxy.connect().post("/running", "x")
    victim = desk.next_job()
    waiting = proxy.connect().get("/waiting")
    proxy.wait_queue(1)
    kill(victim["pid"])

    assert_refused(running.read_response(), 502, "backend_reset")
    job = desk.next_job()
    assert job["target"] == "/waiting" and job["pid"] != victim["pid"]
    job.respond("by the new one")
    assert waiting.read_response().body == b"by the new one"
    worker, = proxy.upstream()["workers"]
    assert worker["pid"] == job["pid"] != victim["pid"] and worker["restarts"] == 1


def test_a_request_that_may_be_repeated_and_was_not_answered_goes_to_another_worker(workers, desk):
    proxy = workers(count=2, retry={"attempts": 1})
    client = proxy.connect().get("/safe")
    victim = desk.next_job()
    kill(victim["pid"])
    second = desk.next_job()
    assert second["target"] == "/safe" and second["pid"] != victim["pid"]
    second.respond("the second time")
    assert client.read_response().body == b"the second time"


def test_a_post_is_never_repeated_by_itself(workers, desk):
    proxy = workers(count=2)
    client = proxy.connect().post("/once", "x")
    kill(desk.next_job()["pid"])
    assert_refused(client.read_response(), 502, "backend_reset")
    proxy.connect().get("/next")
    assert desk.next_job()["target"] == "/next"


def test_a_post_is_repeated_where_the_configuration_says_that_it_may_be(workers, desk):
    proxy = workers(count=2, retry={"attempts": 1, "idempotent": True})
    client = proxy.connect().post("/again", "body")
    kill(desk.next_job()["pid"])
    again = desk.next_job()
    assert (again["target"], again["body_size"]) == ("/again", 4), "the body is sent again, whole"
    again.respond("done")
    assert client.read_response().body == b"done"


def test_a_response_that_had_begun_is_cut_so_that_the_client_can_tell(workers, desk):
    proxy = workers()
    chunked = proxy.connect().get("/chunked")
    job = desk.next_job()
    job.raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    assert chunked.read_head().status == 200
    assert chunked.read_chunk() == b"hello"
    kill(job["pid"])
    rest = chunked.read_to_end()
    assert b"0\r\n\r\n" not in rest and rest in (b"",), "no last chunk"

    client = proxy.connect().get("/next")
    desk.next_job().respond("fine")
    assert client.read_response().body == b"fine"


def test_a_worker_that_ends_while_idle_is_replaced_and_nobody_notices(workers, desk):
    proxy = workers()
    first = desk.next_start()["pid"]
    kill(first)
    client = proxy.connect().get("/hello")
    job = desk.next_job()
    assert job["pid"] != first
    job.respond("hi")
    assert client.read_response().body == b"hi"


def test_a_worker_that_dies_of_every_request_hurts_only_those_requests(workers, desk):
    proxy = workers()
    for _ in range(6):
        client = proxy.connect().post("/poison", "x")
        desk.next_job().die(7)
        assert_refused(client.read_response(), 502, "backend_reset")
    client = proxy.connect().get("/good")
    desk.next_job().respond("still here")
    assert client.read_response().body == b"still here"


def test_kill_9_of_a_worker_under_load_fails_at_most_what_ran_on_it(penstock, desk):
    proxy = penstock({"upstreams": {"main": {
        "workers": desk.stub(["uvicorn", "stub:app", "--uds", "${SOCKET}", "--log-level", "warning"], count=2,
                             restart={"backoff": "10ms"}, environment={"STUB_SECONDS": "0.01"}),
        "concurrency": 2, "queue": {"size": 100, "timeout": "1h"}}}, "threads": 4})
    wait_ready(proxy, 2)
    load = Hey(f"http://{proxy.address}/", 600, c=20, method="POST", data="{}")
    killed = set()
    for rounds in (50, 200, 350):      # how many were done when the next one dies
        eventually(lambda: sum(seen["done"] for seen in desk.counts().values()) > rounds, f"{rounds} requests")
        victim = next(worker["pid"] for worker in proxy.upstream()["workers"] if worker["state"] == "ready")
        kill(victim)
        killed.add(victim)
    run = load.result()

    assert run.errors == 0, "every request got an answer"
    assert set(run.counts()) <= {200, 502}
    assert run.counts().get(502, 0) <= 2 * len(killed), "two could run on each"
    wait_ready(proxy, 2)
    assert desk.most_at_once() <= 2
    assert proxy.metrics().value("penstock_rejections_total", reason="backend_reset") == run.counts().get(502, 0)


# ---- penstock


def test_kill_9_of_penstock_leaves_no_worker(workers, desk):
    proxy = workers(count=3)
    proxy.connect().get("/running")
    desk.next_job()
    below = descendants(proxy.process.pid)
    assert len(below) >= 3
    proxy.kill()
    wait_gone(below)


families = {
    "gunicorn and its children": ["gunicorn", "-w", "2", "-b", "unix:${SOCKET}", "flask_app:app"],
    "a shell with children of its own":
        f"sleep 1000 & (sleep 1000; true) & {python} {folder_of_workers}/flask_serve.py unix:${{SOCKET}} & wait",
    "a worker that ignores TERM, INT and HUP":
        f"trap '' TERM INT HUP; {python} {folder_of_workers}/flask_serve.py unix:${{SOCKET}}; true",
}


@pytest.mark.parametrize("command", families.values(), ids=families)
def test_kill_9_of_penstock_leaves_no_process_of_any_family(penstock, desk, command):
    proxy = penstock({"upstreams": {"main": {"workers": desk.stub(command)}}})
    wait_ready(proxy, 1)
    assert proxy.get("/").status == 200
    below = descendants(proxy.process.pid)
    assert len(below) >= 2
    proxy.kill()
    wait_gone(below)


def test_a_process_that_left_its_workers_session_ends_with_penstock_as_well(penstock, desk):
    command = f"{shutil.which('setsid')} sleep 1000 & exec {python} {folder_of_workers}/flask_serve.py unix:${{SOCKET}}"
    proxy = penstock({"upstreams": {"main": {"workers": desk.stub(command)}}})
    wait_ready(proxy, 1)
    below = descendants(proxy.process.pid)
    proxy.kill()
    wait_gone(below)


@pytest.mark.parametrize("command", families.values(), ids=families)
def test_an_orderly_end_leaves_no_process_of_any_family_either(penstock, desk, command):
    proxy = penstock({"upstreams": {"main": {"workers": desk.stub(command, stop={"grace": "200ms"})}}})
    wait_ready(proxy, 1)
    below = descendants(proxy.process.pid)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == 0
    assert not [pid for pid in below if alive(pid)], "none is left when penstock has gone"


@pytest.mark.parametrize("command", families.values(), ids=families)
def test_kill_9_of_a_worker_takes_its_children_with_it_before_the_next_one_starts(penstock, desk, command):
    proxy = penstock({"upstreams": {"main": {"workers": desk.stub(command, restart={"backoff": "10ms"},
                                                             stop={"grace": "200ms"})}}})
    wait_ready(proxy, 1)
    worker, = proxy.upstream()["workers"]
    family = [worker["pid"], *descendants(worker["pid"])]
    kill(worker["pid"])
    proxy.wait_status(lambda status: status["upstreams"]["main"]["workers"][0]["generation"] > worker["generation"]
                      and status["upstreams"]["main"]["workers"][0]["state"] == "ready", "the next generation")
    assert not [pid for pid in family if alive(pid)]
    assert proxy.get("/").status == 200
