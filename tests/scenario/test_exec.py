"""`penstock exec`: the sidecar in one line."""
import json
import os
import signal
import subprocess

import pytest

from lib.desk import folder_of_workers, python
from lib.load import hey
from lib.processes import descendants, wait_gone
from lib.proxy import Penstock, program, repository


@pytest.fixture
def sidecar(lab):
    """sidecar(*arguments): penstock exec with these, started in the folder of the demo service."""
    def start(*arguments, **environment):
        # exec has no file: its addresses are flags.
        proxy = Penstock(None, arguments=["exec", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *arguments],
                         environment=environment)
        lab.running.append(proxy)
        return proxy
    return start


def only_upstream(proxy):
    upstream, = proxy.status()["upstreams"].values()
    return upstream


def test_the_one_line_sidecar_of_the_readme_serves_one_at_a_time_and_queues_five(sidecar):
    proxy = sidecar("--concurrency", "1", "--queue", "5", "--",
                    "uvicorn", "--app-dir", f"{repository}/conf/demo", "ocr:app", "--uds", "${SOCKET}",
                    OCR_SECONDS="0.5")
    proxy.wait_status(lambda status: all(one["serving"] == "serving" for one in status["upstreams"].values()))
    run = hey(f"http://{proxy.address}/process", 8, c=8, method="POST", data=json.dumps({"image": "page"}))

    assert run.counts() == {200: 6, 429: 2}, "one that runs, five that wait, two too many"
    stats = json.loads(proxy.get("/stats").body)
    assert stats["most_inside"] == 1


def test_exec_spawns_as_many_workers_as_it_is_told(sidecar, desk):
    proxy = sidecar("--count", "3", "--", *desk.command(), **desk.environment())
    started = [desk.next_start()["pid"] for _ in range(3)]

    clients = [proxy.connect().get(f"/{number}") for number in range(3)]
    jobs = [desk.next_job() for _ in range(3)]
    assert {job["pid"] for job in jobs} == set(started), "one each"
    for job in jobs:
        job.respond()
    assert [client.read_response().status for client in clients] == [200] * 3


def test_exec_gives_the_workers_the_gpus_it_is_told_in_turn(sidecar, desk):
    sidecar("--count", "3", "--gpus", "2,5", "--", *desk.command(), **desk.environment())
    starts = [desk.next_start() for _ in range(3)]
    seen = sorted(start["environment"]["CUDA_VISIBLE_DEVICES"] for start in starts)
    assert seen == ["2", "2", "5"]


def test_exec_can_give_a_port_instead_of_a_socket(sidecar):
    proxy = sidecar("--", python, os.path.join(folder_of_workers, "plain.py"), "${PORT}")
    answer = proxy.get("/")
    assert answer.status == 200 and int(answer.body) > 0


def test_the_timeout_of_exec_bounds_the_wait_in_the_queue_and_the_work(sidecar, desk):
    proxy = sidecar("--concurrency", "1", "--timeout", "300ms", "--", *desk.command(), **desk.environment())
    proxy.wait_status(lambda status: status["ready"], "a worker that can be sent a request at once")
    running = proxy.connect().get("/running")
    job = desk.next_job()
    queued = proxy.connect().get("/queued")

    assert queued.read_response().status in (503, 504)
    assert running.read_response().status == 504
    job.respond()


def test_a_signal_to_exec_ends_the_worker_and_exec_exits_with_0(sidecar, desk):
    proxy = sidecar("--", *desk.command(), **desk.environment())
    worker = desk.next_start()["pid"]
    below = descendants(proxy.process.pid)
    assert worker in below
    proxy.signal(signal.SIGINT)

    assert proxy.wait_exit() == 0
    wait_gone(below)


def run_exec(*arguments):
    return subprocess.run([program(), "exec", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_exec_without_a_command_says_how_it_is_used():
    ended = run_exec("--concurrency", "1")
    assert ended.returncode != 0
    assert "COMMAND" in ended.stderr or "command" in ended.stderr


@pytest.mark.parametrize("flag, value", [("--concurrency", "many"), ("--queue", "-1"), ("--timeout", "soon"),
                                         ("--count", "x"), ("--listen", "nowhere:at:all")])
def test_exec_refuses_a_value_that_it_does_not_understand_and_names_the_flag(flag, value):
    ended = run_exec(flag, value, "--", "true")
    assert ended.returncode != 0
    assert flag in ended.stderr or value in ended.stderr, ended.stderr


def test_workers_that_use_neither_socket_nor_port_are_refused_at_the_start():
    ended = run_exec("--listen", "127.0.0.1:0", "--", "sleep", "1000")
    assert ended.returncode != 0
    assert "${SOCKET}" in ended.stderr and "${PORT}" in ended.stderr
