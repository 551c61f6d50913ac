"""A try that fails: when it is repeated, where, how often, and what the client sees. All under four loops."""
import os
import signal
import subprocess

import pytest

from lib.checks import assert_refused
from lib.desk import folder_of_workers
from lib.load import Hey
from lib.wire import eventually


@pytest.fixture
def pair(penstock, scripted):
    """pair(...): (proxy, first, second): two backends, the first of which takes what it can."""
    def start(retry=None, **settings):
        first, second = scripted(), scripted()
        proxy = penstock(servers=[first, second], balance="first", retry={"backoff": 0, **(retry or {})}, threads=4,
                         **settings)
        return proxy, first, second
    return start


def retries(proxy, **labels):
    return proxy.metrics().value("penstock_retries_total", upstream="main", **labels)


def wait_ended(proxy, count):
    """Waits until so many requests have ended, and so are counted."""
    proxy.wait_metric(lambda metrics: metrics.value("penstock_requests_total") == count, f"{count} requests ended")


# ---- answers that are dropped


@pytest.mark.parametrize("on, status", [("5xx", "500 Oops"), ("gateway_error", "502 Bad Gateway"), (429, "429 Busy")])
def test_an_answer_whose_status_is_named_is_dropped_and_another_backend_asked(pair, on, status):
    proxy, first, second = pair({"on": [on]})
    client = proxy.connect().get("/x")
    first.next_request().respond("no", status)
    again = second.next_request()
    assert again.request.target == "/x"
    again.respond("yes")
    answer = client.read_response()
    assert (answer.status, answer.body) == (200, b"yes")
    wait_ended(proxy, 1)
    assert retries(proxy, outcome="succeeded") == 1 == retries(proxy)


def test_the_body_is_sent_again_whole(pair):
    proxy, first, second = pair({"on": ["5xx"], "idempotent": True})
    body = os.urandom(300_000)
    client = proxy.connect().post("/x", body)
    at_work = first.next_request()
    assert at_work.read_body()[0] == body
    at_work.respond("no", "503 Full")
    again = second.next_request()
    assert again.read_body()[0] == body
    again.respond("yes")
    assert client.read_response().body == b"yes"


def test_a_status_that_is_not_named_is_passed_on(pair):
    proxy, first, _ = pair({"on": ["gateway_error"]})
    client = proxy.connect().get()
    first.next_request().respond("no", "500 Oops")
    assert client.read_response().status == 500
    wait_ended(proxy, 1)
    assert retries(proxy) == 0


def test_the_last_answer_is_passed_on_when_all_attempts_are_used(pair):
    proxy, first, second = pair({"on": ["5xx"]})
    client = proxy.connect().get()
    first.next_request().respond("first", "500 Oops")
    second.next_request().respond("second", "503 Full")
    answer = client.read_response()
    assert (answer.status, answer.body) == (503, b"second")
    assert not answer["x-penstock-reason"], "it is the backend's answer"
    wait_ended(proxy, 1)
    assert retries(proxy, outcome="failed") == 1 == retries(proxy)


def test_a_post_whose_answer_is_an_error_is_not_sent_again(pair):
    proxy, first, second = pair({"on": ["5xx"]})
    client = proxy.connect().post("/", "x")
    at_work = first.next_request()
    at_work.read_body()
    at_work.respond("no", "500 Oops")
    assert client.read_response().status == 500
    assert second.requests_waiting() == 0


def test_an_answer_of_which_the_body_has_not_come_is_dropped_and_its_slot_held_until_it_has(pair):
    proxy, first, second = pair({"on": ["5xx"]}, concurrency=1)
    client = proxy.connect().get()
    at_work = first.next_request()
    at_work.send("HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nhe")
    second.next_request().respond("yes")
    assert client.read_response().body == b"yes"
    proxy.wait_in_flight(1)
    client.get("/next")
    second.next_request().respond("next")          # the first one is still at it
    assert client.read_response().body == b"next"
    at_work.send("llo")
    proxy.wait_in_flight(0)


def drop_in_two_sends(proxy, first, second, status, fields=""):
    """A request whose first answer is dropped at its head: the body is still to come, and comes later."""
    client = proxy.connect().get()
    at_work = first.next_request()
    at_work.send(f"HTTP/1.1 {status}\r\n{fields}Content-Length: 5\r\n\r\n")
    second.next_request().respond("yes")
    assert client.read_response().body == b"yes"
    at_work.send("sorry")
    proxy.wait_in_flight(0)


thresholds = {"consecutive_5xx": 2, "consecutive_local_errors": 2, "base_ejection_time": "1h", "max_ejection_time": "1h"}


@pytest.mark.parametrize("status, fields", [("429 Busy", ""), ("503 Busy", "Retry-After: 1\r\n")])
def test_a_dropped_answer_that_says_full_ejects_nobody_though_its_body_comes_later(pair, status, fields):
    proxy, first, second = pair({"on": [429, 503]}, outlier_detection=thresholds, concurrency=8)
    for _ in range(5):
        drop_in_two_sends(proxy, first, second, status, fields)
    facts = proxy.upstream()["backends"][0]
    assert (facts["state"], facts["ejections"]["by_reason"]) == ("ready", {})


@pytest.mark.parametrize("on_abandon", ["drain", "close"])
def test_a_dropped_5xx_counts_as_one_though_its_body_comes_later(pair, on_abandon):
    proxy, first, second = pair({"on": ["5xx"]}, outlier_detection=thresholds, on_abandon=on_abandon)
    drop_in_two_sends(proxy, first, second, "500 Oops")
    assert proxy.upstream()["backends"][0]["state"] == "ready"
    drop_in_two_sends(proxy, first, second, "500 Oops")
    facts = proxy.upstream()["backends"][0]
    assert (facts["state"], facts["ejections"]["by_reason"]) == ("resting", {"consecutive_5xx": 1})


# ---- what is never repeated


def test_nothing_is_repeated_after_a_1xx_was_passed_on(pair):
    proxy, first, second = pair({"on": ["5xx", "reset_before_response"]})
    client = proxy.connect().get()
    at_work = first.next_request().send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert client.read_head().status == 103
    at_work.respond("no", "500 Oops")
    assert client.read_response().status == 500
    assert second.requests_waiting() == 0


def test_nothing_is_repeated_after_the_answer_has_begun(pair):
    proxy, first, second = pair()
    client = proxy.connect().get()
    at_work = first.next_request().send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
    assert client.read_head().status == 200
    at_work.reset()
    assert client.read_to_end() in (b"", b"he")
    assert second.requests_waiting() == 0


def test_our_own_refusals_are_not_repeated(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, queue={"size": 0}, threads=4,
                     retry={"attempts": 5, "on": ["5xx", 429]})
    running = proxy.connect().get()
    at_work = backend.next_request()
    assert_refused(proxy.get(), 429, "queue_full")
    at_work.respond()
    running.read_response()
    wait_ended(proxy, 2)
    assert retries(proxy) == 0


# ---- where and when


def test_the_only_backend_is_asked_again(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], threads=4, retry={"on": ["5xx"], "attempts": 2})
    client = proxy.connect().get()
    backend.next_request().respond("1", "500 Oops")
    backend.next_request().respond("2", "500 Oops")
    backend.next_request().respond("3")
    assert client.read_response().body == b"3"


def test_each_try_goes_to_a_backend_that_was_not_tried_yet(penstock, scripted):
    backends = [scripted() for _ in range(4)]
    proxy = penstock(servers=backends, balance="first", threads=4, retry={"on": ["5xx"], "attempts": 3})
    client = proxy.connect().get()
    for backend in backends[:3]:
        backend.next_request().respond("no", "500 Oops")
    backends[3].next_request().respond("yes")
    assert client.read_response().body == b"yes"


@pytest.mark.parametrize("how", ["answer", "reset"])
def test_who_has_tried_the_only_primary_goes_to_the_backup_at_once(penstock, scripted, how):
    primary, backup = scripted(), scripted()
    proxy = penstock(servers=[primary.address, {"address": backup.address, "backup": True}], threads=4,
                     retry={"on": [503, "reset_before_response"], "backoff": 0}, queue={"timeout": "1h"})
    client = proxy.connect().get("/x")
    failing = primary.next_request()
    if how == "answer":
        failing.respond("no", "503 Bad")
    else:
        failing.close()
    backup.next_request().respond("yes")
    assert client.read_response().body == b"yes"


def test_a_retry_waits_for_a_busy_backend_but_not_for_ever_beside_one_that_is_idle(pair):
    proxy, first, second = pair({"on": [503]}, concurrency=1, queue={"timeout": "2s"})
    held = proxy.connect().get("/held")
    at_work = first.next_request()
    client = proxy.connect().get("/x")
    second.next_request().respond("no", "503 Bad")
    second.next_request().respond("yes")
    assert client.read_response().body == b"yes"
    line = proxy.wait_access(lambda line: line["target"] == "/x")
    assert line["queue_ms"] >= 990, line        # half of its time
    at_work.respond("held")
    assert held.read_response().status == 200


def test_a_retried_request_stands_before_those_who_came_after_it(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, threads=4, retry={"backoff": 0})
    first = proxy.connect().get("/first")
    at_work = backend.next_request()
    others = []
    for number in range(3):
        others.append(proxy.connect().get(f"/{number}"))
        proxy.wait_queue(number + 1)
    at_work.close()                                   # no answer; the server is there, so it is asked again
    order = []
    for _ in range(4):
        at_work = backend.next_request()
        order.append(at_work.request.target)
        at_work.respond()
    assert order == ["/first", "/0", "/1", "/2"]
    assert [client.read_response().status for client in [first, *others]] == [200] * 4


def test_one_deadline_covers_the_queue_and_all_tries(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], threads=4, timeouts={"request": "600ms"}, on_abandon="close",
                     retry={"attempts": 10, "per_try_timeout": "250ms", "backoff": 0})
    client = proxy.connect().get()
    assert_refused(client.read_response(), 504, "request_timeout")
    line = proxy.wait_access(lambda line: line["status"] == 504)
    assert line["attempts"] <= 3, line      # each takes a quarter of a second, or longer


def test_waiting_for_another_try_is_no_time_of_the_backend(penstock, scripted):
    first, second = scripted(), scripted()
    proxy = penstock(servers=[first, second], balance="first", concurrency=1, threads=4,
                     retry={"on": [503], "backoff": 0}, queue={"timeout": "1s"})
    client = proxy.connect().get("/tried")
    tried = first.next_request()
    other = proxy.connect().get("/other")
    at_work = second.next_request()
    tried.send("HTTP/1.1 503 Full\r\nContent-Length: 5\r\n\r\n")      # its slot stays taken, too
    answer = client.read_response()
    assert_refused(answer, 503, "queue_timeout")
    queue, backend = (float(part.split("dur=")[1]) for part in answer["server-timing"].split(", "))
    line = proxy.wait_access(lambda line: line["target"] == "/tried")
    assert queue >= 900 and queue + backend <= line["total_ms"] + 1
    assert line["queue_ms"] >= 900 and line["queue_ms"] + line["backend_ms"] <= line["total_ms"] + 1
    tried.send("sorry")
    at_work.respond("yes")
    assert other.read_response().body == b"yes"


def test_a_client_that_leaves_while_its_request_pauses_is_noticed(pair):
    proxy, first, second = pair({"backoff": "1h"})
    client = proxy.connect().get("/left")
    first.next_request().close()
    # Its slot is free while it pauses.
    proxy.wait_in_flight(0)
    client.close()
    line = proxy.wait_access(lambda line: line["status"] == 499)
    assert line["step"] == "backoff"
    assert proxy.upstream()["circuit_breaker"]["retries"]["now"] == 0
    assert second.requests_waiting() == 0


def test_a_pause_is_not_longer_than_the_deadline_allows(pair):
    proxy, first, second = pair({"backoff": "1h"}, timeouts={"request": "10s"})
    client = proxy.connect().get()
    first.next_request().close()
    second.next_request().respond("at once")
    assert client.read_response().body == b"at once"


# ---- the time of a try


def test_a_try_that_takes_too_long_is_given_up_and_its_slot_held_until_its_work_is_over(pair):
    proxy, slow, other = pair({"per_try_timeout": "2s"}, concurrency=1)
    client = proxy.connect().get("/x")
    at_work = slow.next_request()
    other.next_request().respond("in time")
    assert client.read_response().body == b"in time"
    wait_ended(proxy, 1)
    assert proxy.metrics().value("penstock_abandoned_in_flight", upstream="main") == 1
    for _ in range(2):
        client.get("/next")
        other.next_request().respond()
        assert client.read_response().status == 200
    at_work.respond("too late")
    proxy.wait_in_flight(0)
    assert retries(proxy, outcome="succeeded") == 1
    proxy.wait_metric(lambda m: m.value("penstock_wasted_backend_seconds_total", cause="per_try_timeout") > 0)


def test_504_per_try_timeout_is_sent_when_no_attempt_is_left(pair):
    proxy, first, second = pair({"per_try_timeout": "100ms"})
    client = proxy.connect().get()
    assert_refused(client.read_response(), 504, "per_try_timeout")
    assert first.next_request() and second.next_request(), "both were asked"


def test_a_post_that_takes_longer_than_a_try_may_is_not_sent_again(pair):
    proxy, first, second = pair({"per_try_timeout": "100ms"})
    client = proxy.connect().post("/", "x")
    assert_refused(client.read_response(), 504, "per_try_timeout")
    assert second.requests_waiting() == 0


def test_the_time_of_a_try_ends_with_the_first_byte_of_its_answer(pair):
    proxy, first, _ = pair({"per_try_timeout": "2s"})
    client = proxy.connect().get()
    at_work = first.next_request().send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
    assert client.read_head().status == 200
    # 504 for another request shows that the time of this one was over as well.
    other = proxy.connect().post("/", "x")
    assert_refused(other.read_response(), 504, "per_try_timeout")
    at_work.send("llo")
    assert client.read_exactly(5) == b"hello"


# ---- limits of retries


def fail_together(proxy, first, count):
    """Sends `count` requests to the first backend, which then closes all their connections at once."""
    clients = [proxy.connect().get(f"/{number}") for number in range(count)]
    at_work = [first.next_request() for _ in clients]
    first.stop_listening()
    for connection in at_work:
        connection.close()
    return clients


def refused_among(clients, count):
    """Waits until so many of the clients have an answer; returns (their answers, the other clients)."""
    eventually(lambda: sum(client.has_input() for client in clients) == count, f"{count} answers")
    answered = [client for client in clients if client.has_input()]
    return [client.read_response() for client in answered], [client for client in clients if client not in answered]


def test_no_more_than_max_retries_are_tried_again_at_once(pair):
    proxy, first, second = pair(circuit_breaker={"max_retries": 2})
    clients = fail_together(proxy, first, 7)
    again = [second.next_request(), second.next_request()]
    proxy.wait_metric(lambda metrics: metrics.value("penstock_circuit_open_total", limit="retries") == 5, "5 refused")
    refusals, waiting = refused_among(clients, 5)
    for answer in refusals:
        assert_refused(answer, 503, "circuit_open")
    circuit = proxy.upstream()["circuit_breaker"]["retries"]
    assert (circuit["limit"], circuit["now"], circuit["open"], circuit["refused"]) == (2, 2, True, 5)
    for connection in again:
        connection.respond("yes")
    assert [client.read_response().body for client in waiting] == [b"yes"] * 2
    assert second.requests_waiting() == 0, "two were sent again, and no more"
    wait_ended(proxy, 7)
    assert retries(proxy, outcome="refused") == 5
    assert retries(proxy, outcome="succeeded") == 2
    assert proxy.upstream()["circuit_breaker"]["retries"]["now"] == 0


def test_an_error_answer_is_passed_on_where_max_retries_is_reached(pair):
    proxy, first, second = pair({"on": ["5xx"]}, circuit_breaker={"max_retries": 1})
    clients = [proxy.connect().get(f"/{number}") for number in range(3)]
    for _ in clients:
        first.next_request().respond("no", "500 Oops")
    again = second.next_request()
    answers, waiting = refused_among(clients, 2)
    assert [answer.status for answer in answers] == [500, 500]
    again.respond("yes")
    assert waiting[0].read_response().body == b"yes"
    assert proxy.metrics().value("penstock_circuit_open_total", limit="retries") == 2


def test_a_retry_counts_until_its_answer_begins(pair):
    proxy, first, second = pair({"on": ["5xx"]}, circuit_breaker={"max_retries": 1})
    streaming = proxy.connect().get("/stream")
    first.next_request().respond("no", "500 Oops")
    stream = second.next_request().send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
    assert streaming.read_head().status == 200
    client = proxy.connect().get("/other")
    first.next_request().respond("no", "500 Oops")
    second.next_request().respond("yes")
    assert client.read_response().body == b"yes"
    stream.send("b")
    assert streaming.read_exactly(2) == b"ab"


def test_0_is_no_limit_and_then_the_budget_binds_above_three_at_once(pair):
    proxy, first, second = pair({"budget": "0%"}, circuit_breaker={"max_retries": 0})
    clients = fail_together(proxy, first, 8)
    again = [second.next_request() for _ in range(3)]
    refusals, waiting = refused_among(clients, 5)
    for answer in refusals:
        assert_refused(answer, 503, "circuit_open")
    for connection in again:
        connection.respond()
    assert [client.read_response().status for client in waiting] == [200] * 3
    assert second.requests_waiting() == 0
    assert proxy.metrics().value("penstock_circuit_open_total", limit="retry_budget") == 5


def test_a_budget_alone_decides_where_no_max_retries_is_given(pair):
    proxy, first, second = pair({"budget": "0%"})
    clients = fail_together(proxy, first, 5)
    again = [second.next_request() for _ in range(3)]
    refused_among(clients, 2)
    for connection in again:
        connection.respond()
    metrics = proxy.metrics()
    assert metrics.value("penstock_circuit_open_total", limit="retry_budget") == 2
    assert metrics.value("penstock_circuit_open_total", limit="retries") == 0


@pytest.mark.parametrize("settings", [{}, {"circuit_breaker": {"max_retries": 0}}])
def test_the_budget_is_a_share_of_what_was_answered(pair, settings):
    proxy, first, second = pair({"budget": "50%"}, **settings)
    for _ in range(8):
        client = proxy.connect().get()
        first.next_request().respond()
        client.read_response()
    # Eight answered and eight at work: eight may be tried again.
    clients = fail_together(proxy, first, 8)
    for _ in clients:
        second.next_request().respond("yes")
    assert [client.read_response().body for client in clients] == [b"yes"] * 8


# ---- workers that die


@pytest.fixture
def workers(penstock, desk):
    """workers(...): a proxy before workers of the desk, with a concurrency of 1."""
    def start(count=3, **settings):
        settings.setdefault("concurrency", 1)
        proxy = penstock({"upstreams": {"main": {
            "workers": desk.workers(count=count, restart={"backoff": "10ms", "max_backoff": "100ms"}), **settings}},
            "threads": 4})
        proxy.wait_status(lambda status: sum(worker["state"] == "ready" for worker
                                             in status["upstreams"]["main"]["workers"]) == count)
        return proxy
    return start


@pytest.mark.parametrize("backoff", ["0", "25ms"])
def test_a_request_that_killed_two_workers_is_not_given_a_third(workers, desk, backoff):
    proxy = workers(retry={"attempts": 5, "idempotent": True, "backoff": backoff})
    client = proxy.connect().post("/poison", "x")
    victims = set()
    for _ in range(2):
        job = desk.next_job()
        assert job["target"] == "/poison"
        victims.add(job["pid"])
        job.die(7)
    assert len(victims) == 2
    assert_refused(client.read_response(), 502, "backend_reset")
    client = proxy.connect().get("/good")
    job = desk.next_job()
    assert job["target"] == "/good", "the third worker never saw the other one"
    job.respond("still here")
    assert client.read_response().body == b"still here"


def test_a_worker_that_only_closed_the_connection_was_not_killed(workers, desk):
    proxy = workers(retry={"attempts": 5, "backoff": 0})
    client = proxy.connect().get("/x")
    for _ in range(4):
        desk.next_job().close_connection()
    desk.next_job().respond("at last")
    assert client.read_response().body == b"at last"
    assert proxy.metrics().value("penstock_worker_exits_total") == 0


# ---- one of three killed at 70 % load


class Servers:
    """Three uvicorn servers that nobody watches, 50 ms a request, counted like workers."""

    def __init__(self, desk):
        self.paths = [os.path.join(desk.folder.name, f"{number}.sock") for number in range(3)]
        environment = {**os.environ, "COUNTS": desk.counts_folder, "STUB_SECONDS": "0.05"}
        self.processes = [subprocess.Popen(["uvicorn", "stub:app", "--uds", path, "--log-level", "warning"],
                                           cwd=folder_of_workers, env=environment) for path in self.paths]
        for path in self.paths:
            eventually(lambda path=path: os.path.exists(path), "a server that listens")

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


def done(desk):
    return sum(seen["done"] for seen in desk.counts().values())


# Eight at a time before three times four slots; nothing waits, so nothing but the killed one can fail.
load = {"c": 8}
slots = 4


@pytest.mark.parametrize("method, idempotent", [("GET", False), ("POST", True), ("POST", False)],
                         ids=["GET", "idempotent POST", "POST"])
@pytest.mark.parametrize("whose", ["servers", "workers"])
def test_one_of_three_is_killed_at_70_percent_load(penstock, desk, lab, whose, method, idempotent):
    settings = {"concurrency": slots, "retry": {"idempotent": idempotent},
                "circuit_breaker": {"max_retries": slots}}
    if whose == "servers":
        servers = Servers(desk)
        lab.backends.append(servers)
        settings["servers"] = [{"address": f"unix:{path}", "concurrency": slots} for path in servers.paths]
    else:
        settings["workers"] = desk.stub(["uvicorn", "stub:app", "--uds", "${SOCKET}", "--log-level", "warning"],
                                        count=3, restart={"backoff": "10ms"}, environment={"STUB_SECONDS": "0.05"})
    proxy = penstock({"upstreams": {"main": settings}, "threads": 4})
    proxy.wait_status(lambda status: [backend["state"] for backend in status["upstreams"]["main"]["backends"]]
                      == ["ready"] * 3, "three ready")
    run = Hey(f"http://{proxy.address}/", 480, method=method, data=None if method == "GET" else "{}", **load)
    eventually(lambda: done(desk) > 100, "a hundred requests")
    if whose == "servers":
        victim = servers.processes[1].pid
    else:
        victim = proxy.upstream()["workers"][1]["pid"]
    before = desk.counts()[victim]["now"]
    os.kill(victim, signal.SIGKILL)
    result = run.result()

    assert result.errors == 0, "every request got an answer"
    if method == "GET" or idempotent:
        assert result.counts() == {200: 480}, f"{before} ran on the killed one"
    else:
        assert set(result.counts()) <= {200, 502}
        assert result.counts().get(502, 0) <= slots, "those that ran on the killed one"
    assert desk.most_at_once() <= slots
