"""The circuit breaker: each limit exactly at its number, for the whole process, under four loops."""
import pytest

from lib.checks import assert_refused
from lib.load import Hey
from lib.wire import eventually


@pytest.fixture
def broken(penstock, scripted):
    """broken(...): (proxy, backend) with these limits and two places in the queue."""
    def start(queue=2, **limits):
        backend = scripted()
        return penstock(servers=[backend], circuit_breaker=limits, queue={"size": queue}, threads=4), backend
    return start


def refused(proxy, limit):
    return proxy.metrics().value("penstock_circuit_open_total", upstream="main", limit=limit)


@pytest.mark.parametrize("limit, key", [("connections", "max_connections"), ("requests", "max_requests")])
def test_so_many_run_two_wait_and_the_next_is_refused(broken, limit, key):
    proxy, backend = broken(**{key: 3})
    running = [proxy.connect().get(f"/{number}") for number in range(3)]
    at_work = [backend.next_request() for _ in running]
    waiting = []
    for number in range(2):
        waiting.append(proxy.connect().get(f"/waiting/{number}"))
        proxy.wait_queue(number + 1)
    for number in range(1, 5):
        assert_refused(proxy.get(), 503, "circuit_open")
        assert refused(proxy, limit) == number
    assert backend.requests_waiting() == 0 and len(backend.connections) == 3
    circuit = proxy.upstream()["circuit_breaker"][limit]
    assert (circuit["limit"], circuit["now"], circuit["open"], circuit["opened"]) == (3, 3, True, 1)
    proxy.wait_log(rf"upstream main: circuit breaker \({limit}, at most 3\) is open")

    for connection in at_work:
        connection.respond()
    for _ in waiting:
        backend.next_request().respond()
    assert [client.read_response().status for client in running + waiting] == [200] * 5
    proxy.wait_log(rf"upstream main: circuit breaker \({limit}, at most 3\) is closed again after .*; 4 refused")
    circuit = proxy.upstream()["circuit_breaker"][limit]
    assert (circuit["open"], circuit["closed"], circuit["refused"]) == (False, 1, 4)
    metrics = proxy.metrics()
    assert metrics.value("penstock_circuit_changes_total", limit=limit, to="open") == 1
    assert metrics.value("penstock_circuit_changes_total", limit=limit, to="closed") == 1
    assert metrics.value("penstock_circuit_state", limit=limit) == 0


def test_max_pending_requests_bounds_the_queue_and_is_what_refuses(broken):
    proxy, backend = broken(queue=100, max_connections=1, max_pending_requests=3)
    running = proxy.connect().get()
    at_work = backend.next_request()
    waiting = []
    for number in range(3):
        waiting.append(proxy.connect().get())
        proxy.wait_queue(number + 1)
    assert_refused(proxy.get(), 503, "circuit_open")
    assert (refused(proxy, "pending"), refused(proxy, "connections")) == (1, 0)
    at_work.respond()
    for _ in waiting:
        backend.next_request().respond()
    assert [client.read_response().status for client in [running, *waiting]] == [200] * 4


@pytest.mark.parametrize("most", [1, 3])
def test_a_connection_carries_no_more_than_max_requests_per_connection(penstock, echo, most):
    backend = echo()
    proxy = penstock(servers=[backend], circuit_breaker={"max_requests_per_connection": most}, threads=4)
    run = Hey(f"http://{proxy.address}/", 240, c=12).result()
    assert run.counts() == {200: 240}
    assert max(seen["turn"] for seen in backend.seen) == most


@pytest.mark.parametrize("key", ["max_connections", "max_requests"])
def test_under_load_there_is_never_one_more(penstock, desk, key):
    proxy = penstock({"upstreams": {"main": {
        "workers": desk.stub(["uvicorn", "stub:app", "--uds", "${SOCKET}", "--log-level", "warning"],
                             environment={"STUB_SECONDS": "0.01"}),
        "concurrency": 0, "circuit_breaker": {key: 5}, "queue": {"size": 100}}}, "threads": 4})
    eventually(lambda: proxy.upstream()["serving"] == "serving", "a worker")
    run = Hey(f"http://{proxy.address}/", 400, c=40).result()
    assert run.counts() == {200: 400}
    assert desk.most_at_once() == 5


def test_an_overflow_never_feeds_ejection(penstock, scripted):
    backend, other = scripted(), scripted()
    proxy = penstock(servers=[backend, other], balance="first", circuit_breaker={"max_requests": 1}, queue={"size": 0},
                     outlier_detection={"consecutive_5xx": 1, "consecutive_gateway_errors": 1,
                                        "consecutive_local_errors": 1}, threads=4)
    running = proxy.connect().get()
    at_work = backend.next_request()
    for _ in range(10):
        assert_refused(proxy.get(), 503, "circuit_open")
    assert proxy.metrics().value("penstock_ejections_total") == 0
    assert {b["state"] for b in proxy.upstream()["backends"]} == {"ready"}
    at_work.respond()
    assert running.read_response().status == 200


def test_a_suspect_server_is_asked_though_all_connections_are_in_use_elsewhere(penstock, scripted):
    first, second = scripted(), scripted()
    proxy = penstock(servers=[first, second], balance="first", threads=4, retry={"attempts": 0},
                     circuit_breaker={"max_connections": 1})
    failing = proxy.connect().get("/failing")
    at_work = first.next_request()
    client = proxy.connect().get("/next")
    proxy.wait_queue(1)
    at_work.close()
    assert_refused(failing.read_response(), 502, "backend_reset")
    held = second.next_request()        # it has the one connection
    proxy.wait_log(rf"backend {first.address} is suspect")
    eventually(lambda: proxy.upstream()["backends"][0]["state"] == "ready", "it is found alive all the same")
    held.respond("yes")
    assert client.read_response().body == b"yes"
