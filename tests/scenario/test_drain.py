"""Work that nobody waits for any more: the slot belongs to the work, not to the connection."""
import signal

import pytest

from lib.checks import assert_refused
from lib.processes import alive, wait_gone


@pytest.fixture
def one_slot(penstock, scripted):
    def start(**settings):
        backend = scripted()
        return penstock(servers=[backend], concurrency=1, threads=4, **settings), backend
    return start


@pytest.fixture
def one_worker(penstock, desk):
    """one_worker(...): a proxy before one spawned worker of the desk, with a concurrency of 1."""
    def start(count=1, concurrency=1, workers=None, **settings):
        return penstock({"upstreams": {"main": {
            "workers": desk.workers(count=count, restart={"backoff": "10ms"}, **(workers or {})),
            "concurrency": concurrency, **settings}}, "threads": 4})
    return start


def wait_abandoned(proxy, count):
    return proxy.wait_status(lambda status: status["upstreams"]["main"]["abandoned"] == count, f"{count} abandoned")


def left_alone(proxy, desk, target="/left-alone"):
    """A request that a worker has, and whose client has gone."""
    client = proxy.connect().get(target)
    job = desk.next_job()
    client.close()
    return job


# ---- drain, the default where slots are limited


def test_a_client_that_leaves_does_not_make_the_backend_free(one_slot):
    proxy, backend = one_slot()
    leaving = proxy.connect().get("/left-alone")
    at_work = backend.next_request()
    leaving.close()
    wait_abandoned(proxy, 1)
    next_one = proxy.connect().get("/next")
    proxy.wait_queue(1)
    assert backend.requests_waiting() == 0

    at_work.respond("for nobody")
    at_work = backend.next_request()
    assert at_work.request.target == "/next"
    at_work.respond("for the next")
    assert next_one.read_response().body == b"for the next"
    wait_abandoned(proxy, 0)


def test_an_abandoned_response_is_read_to_its_end_however_long_it_is_and_kept_from_everyone(one_slot):
    proxy, backend = one_slot()
    leaving = proxy.connect().get("/left-alone")
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").chunk("begin")
    assert leaving.read_head().status == 200
    leaving.close()
    wait_abandoned(proxy, 1)
    next_one = proxy.connect().get("/next")
    proxy.wait_queue(1)
    for _ in range(300):
        at_work.chunk(b"x" * 65536)      # far more than any buffer: someone reads it
    assert proxy.upstream()["backends"][0]["in_flight"] == 1
    at_work.last_chunk()

    backend.next_request().respond("clean")
    assert next_one.read_response().body == b"clean"


def test_an_abandoned_request_ends_when_the_backend_closes_its_connection(one_slot):
    proxy, backend = one_slot()
    leaving = proxy.connect().get("/left-alone")
    at_work = backend.next_request()
    leaving.close()
    wait_abandoned(proxy, 1)
    at_work.close()
    wait_abandoned(proxy, 0)
    client = proxy.connect().get("/next")
    backend.next_request().respond()
    assert client.read_response().status == 200


def test_a_pipelined_second_request_is_never_begun_when_the_client_has_left(one_slot):
    proxy, backend = one_slot()
    leaving = proxy.connect().get("/first").get("/second")
    at_work = backend.next_request()
    leaving.close()
    wait_abandoned(proxy, 1)
    at_work.respond()
    wait_abandoned(proxy, 0)
    proxy.connect().get("/third")
    assert backend.next_request().request.target == "/third"


def test_the_seconds_that_were_wasted_are_counted_with_their_cause(one_slot):
    proxy, backend = one_slot()
    leaving = proxy.connect().get("/left-alone")
    at_work = backend.next_request()
    leaving.close()
    wait_abandoned(proxy, 1)
    assert proxy.metrics().value("penstock_abandoned_in_flight", upstream="main") == 1
    at_work.respond()
    wait_abandoned(proxy, 0)
    metrics = proxy.wait_metric(lambda metrics: metrics.value("penstock_wasted_backend_seconds_total") > 0)
    assert metrics.value("penstock_abandoned_total", upstream="main") == 1
    assert metrics.value("penstock_abandoned_in_flight", upstream="main") == 0


def test_work_that_outlives_the_abandon_limit_costs_a_worker_its_life(one_worker, desk):
    proxy = one_worker(abandon_limit="100ms")
    stuck = left_alone(proxy, desk)
    next_one = proxy.connect().get("/next")

    job = desk.next_job()              # never while the stuck one is alive
    assert not alive(stuck["pid"])
    assert job["pid"] != stuck["pid"] and job["target"] == "/next"
    job.respond()
    assert next_one.read_response().status == 200
    assert desk.most_at_once() == 1


def test_work_that_outlives_the_abandon_limit_on_a_server_of_others_gives_its_slot_up(one_slot):
    proxy, backend = one_slot(abandon_limit="100ms")
    leaving = proxy.connect().get("/stuck")
    stuck = backend.next_request()
    leaving.close()
    next_one = proxy.connect().get("/next")
    at_work = backend.next_request()       # after a probe found that it is alive
    assert at_work is not stuck and at_work.request.target == "/next"
    at_work.respond()
    assert next_one.read_response().status == 200


# ---- close


def test_with_close_the_backend_is_told_and_the_slot_comes_back_when_it_has_closed_too(one_slot):
    proxy, backend = one_slot(on_abandon="close")
    leaving = proxy.connect().get("/left-alone")
    at_work = backend.next_request()
    leaving.close()
    at_work.expect_end()               # a backend that listens for this can stop
    next_one = proxy.connect().get("/next")
    proxy.wait_queue(1)                # but that it was told proves nothing yet
    at_work.close()

    backend.next_request().respond()
    assert next_one.read_response().status == 200


def test_with_close_a_server_that_never_closes_gives_the_slot_up_after_the_grace(one_slot):
    proxy, backend = one_slot(on_abandon="close", abandon_grace="100ms")
    leaving = proxy.connect().get("/left-alone")
    at_work = backend.next_request()
    leaving.close()
    at_work.expect_end()
    next_one = proxy.connect().get("/next")
    backend.next_request().respond()
    assert next_one.read_response().status == 200


def test_where_nothing_is_limited_the_connection_of_a_client_that_left_is_closed(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend])
    leaving = proxy.connect().get("/left-alone")
    at_work = backend.next_request()
    leaving.close()
    at_work.expect_gone()


def test_a_request_that_was_not_fully_sent_is_closed_and_not_drained(one_slot):
    proxy, backend = one_slot(buffer={"request": "64KiB"})
    leaving = proxy.connect()
    leaving.send(b"POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000)
    at_work = backend.next_request()
    leaving.close()
    at_work.read_to_end()
    at_work.close()
    client = proxy.connect().get("/next")
    backend.next_request().respond()
    assert client.read_response().status == 200


# ---- restart


def test_with_restart_a_worker_that_works_on_for_nobody_is_replaced_after_the_grace(one_worker, desk):
    proxy = one_worker(on_abandon="restart", abandon_grace="100ms")
    first = left_alone(proxy, desk)
    waiting = proxy.connect().get("/waits")

    job = desk.next_job()
    assert job["target"] == "/waits" and job["pid"] != first["pid"] and not alive(first["pid"])
    job.respond("fresh")
    assert waiting.read_response().body == b"fresh"
    worker, = proxy.upstream()["workers"]
    assert worker["restarts"] == 1


def test_with_restart_work_that_ends_within_the_grace_costs_nobody_anything(one_worker, desk):
    proxy = one_worker(on_abandon="restart", abandon_grace="1h")
    job = left_alone(proxy, desk)
    wait_abandoned(proxy, 1)
    job.respond()
    wait_abandoned(proxy, 0)
    client = proxy.connect().get("/next")
    next_job = desk.next_job()
    assert next_job["pid"] == job["pid"]
    next_job.respond()
    assert client.read_response().status == 200


def test_before_a_restart_the_other_requests_of_the_worker_may_finish(one_worker, desk):
    proxy = one_worker(concurrency=2, on_abandon="restart", abandon_grace="100ms")
    staying = proxy.connect().get("/stays")
    at_work = desk.next_job()
    left = left_alone(proxy, desk)
    waiting = proxy.connect().get("/waits")        # no new grants to a worker that is stuck
    proxy.wait_queue(1)
    proxy.wait_status(lambda status: status["upstreams"]["main"]["backends"][0]["why"].startswith("to be restarted"),
                      "the worker to be set aside")
    assert alive(left["pid"])

    at_work.respond("in peace")
    assert staying.read_response().body == b"in peace"
    job = desk.next_job()
    assert job["target"] == "/waits" and job["pid"] != left["pid"]
    job.respond()
    assert waiting.read_response().status == 200


# ---- the end of penstock


def test_abandoned_work_is_not_waited_for_when_penstock_ends(one_worker, desk):
    proxy = one_worker(workers={"stop": {"grace": "1h"}})
    job = left_alone(proxy, desk)
    wait_abandoned(proxy, 1)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == 0
    wait_gone([job["pid"]])


def test_a_timeout_abandons_the_work_as_a_hang_up_does(one_worker, desk):
    proxy = one_worker(timeouts={"request": "150ms"}, queue={"timeout": "1h"})
    proxy.wait_status(lambda status: status["ready"], "a worker that can be sent a request at once")
    assert_refused(proxy.get("/too-slow"), 504, "request_timeout")
    wait_abandoned(proxy, 1)
    desk.next_job().respond()
    wait_abandoned(proxy, 0)
    assert desk.most_at_once() == 1
