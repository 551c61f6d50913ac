"""What the grpc-status of an answer says of its backend: ejection, trying again, metrics. Over HTTP/2, where it stands
in the trailers, or in the head where there is nothing else ("trailers-only")."""
import pytest

from lib import patience
from lib.h2 import H2Client
from lib.h2_backend import H2Backend
from lib.wire import dial

message = b"\0\0\0\0\2hi"
grpc = ("content-type", "application/grpc")


def asked(client, target="/pkg.Service/Method"):
    return client.start("POST", target, [grpc, ("te", "trailers")], body=message)


def in_trailers(connection, number, status):
    connection.h2.send_headers(number, [(":status", "200"), grpc])
    connection.h2.send_data(number, message)
    connection.h2.send_headers(number, [("grpc-status", str(status))], end_stream=True)
    connection.flush()


def trailers_only(connection, number, status):
    connection.h2.send_headers(number, [(":status", "200"), grpc, ("grpc-status", str(status))], end_stream=True)
    connection.flush()


both_ways = pytest.mark.parametrize("says", [in_trailers, trailers_only])


@pytest.fixture
def world(lab):
    """world(backends, **upstream settings) -> (backends, penstock, a client of HTTP/2)"""
    clients = []

    def make(count=1, **more):
        backends = [lab.backend(H2Backend) for _ in range(count)]
        more.setdefault("retry", {"attempts": 0})
        proxy = lab.penstock(servers=[backend.address for backend in backends], protocol="http2", threads=1, **more)
        clients.append(H2Client(dial(proxy.address)))
        return backends, proxy, clients[-1]

    yield make
    for client in clients:
        client.close()


def exchange(client, backend, says, status):
    """One call, and what it got."""
    stream = asked(client)
    connection = backend.connections[0] if backend.connections else backend.accept()
    says(connection, connection.next_request(), status)
    stream.wait_end()
    return stream


def state(proxy):
    return proxy.upstream()["backends"][0]["state"]


gateway = {"consecutive_5xx": 0, "consecutive_gateway_errors": 2, "consecutive_local_errors": 0, "min_healthy": 0,
           "max_ejection_percent": 100, "base_ejection_time": "1h", "max_ejection_time": "1h"}


@both_ways
@pytest.mark.parametrize("status", [14, 4], ids=["UNAVAILABLE", "DEADLINE_EXCEEDED"])
def test_a_backend_that_says_twice_that_it_is_not_there_is_ejected(world, says, status):
    (backend,), proxy, client = world(outlier_detection=gateway)
    exchange(client, backend, says, status)
    assert state(proxy) == "ready"
    exchange(client, backend, says, status)
    assert proxy.upstream()["backends"][0]["ejections"]["by_reason"] == {"consecutive_gateway_errors": 1}
    assert state(proxy) == "resting"


@both_ways
@pytest.mark.parametrize("status", [2, 13, 15], ids=["UNKNOWN", "INTERNAL", "DATA_LOSS"])
def test_an_error_of_the_server_counts_as_5xx_and_not_as_a_gateway_error(world, says, status):
    (backend,), proxy, client = world(outlier_detection={**gateway, "consecutive_5xx": 3})
    for _ in range(2):
        exchange(client, backend, says, status)
    assert state(proxy) == "ready"
    exchange(client, backend, says, status)
    assert proxy.upstream()["backends"][0]["ejections"]["by_reason"] == {"consecutive_5xx": 1}


@both_ways
def test_a_backend_that_is_full_is_not_ejected_and_the_row_goes_on(world, says):
    (backend,), proxy, client = world(outlier_detection=gateway)
    exchange(client, backend, says, 14)
    for _ in range(5):
        exchange(client, backend, says, 8)
    assert state(proxy) == "ready"
    exchange(client, backend, says, 14)
    assert state(proxy) == "resting"


@both_ways
@pytest.mark.parametrize("status", [0, 1, 3, 5, 7, 12, 16])
def test_what_the_application_meant_to_say_is_a_success(world, says, status):
    (backend,), proxy, client = world(outlier_detection={**gateway, "consecutive_5xx": 2})
    exchange(client, backend, says, 14)
    exchange(client, backend, says, status)
    exchange(client, backend, says, 14)
    assert state(proxy) == "ready"


@both_ways
def test_the_status_of_every_call_is_counted(world, says):
    (backend,), proxy, client = world()
    for status in (0, 5, 14, 14):
        exchange(client, backend, says, status)
    for name, count in (("OK", 1), ("NOT_FOUND", 1), ("UNAVAILABLE", 2)):
        proxy.wait_metric(lambda m, name=name, count=count: m.value(
            "penstock_grpc_requests_total", upstream="main", grpc_status=name) == count)
    assert proxy.metrics().value("penstock_requests_total", upstream="main", code="200") == 4


def answer_first(backends, says, status):
    """The backend that is asked first says this; the other one."""
    for backend in backends:
        backend.listener.settimeout(0.05)
    while True:
        for at, backend in enumerate(backends):
            try:
                connection = backend.accept()
            except TimeoutError:
                continue
            says(connection, connection.next_request(), status)
            backends[1 - at].listener.settimeout(patience)
            return backends[1 - at]


@pytest.mark.parametrize("on", ["gateway_error", 503])
def test_a_call_that_a_backend_would_not_take_is_tried_at_another(world, on):
    backends, proxy, client = world(2, retry={"attempts": 1, "on": [on], "idempotent": True, "budget": "100%"})
    stream = asked(client)
    other = answer_first(backends, trailers_only, 14)
    connection = other.accept()
    in_trailers(connection, connection.next_request(), 0)
    stream.wait_end()
    assert dict(stream.trailers)["grpc-status"] == "0"
    proxy.wait_metric(lambda m: m.value("penstock_retries_total", upstream="main", outcome="succeeded") == 1)


@pytest.mark.parametrize("status", [8, 5, 13], ids=["RESOURCE_EXHAUSTED", "NOT_FOUND", "INTERNAL"])
def test_other_statuses_are_passed_on(world, status):
    backends, proxy, client = world(2, retry={"attempts": 1, "on": ["gateway_error"], "idempotent": True})
    stream = asked(client)
    answer_first(backends, trailers_only, status)
    assert dict(stream.wait_end().fields)["grpc-status"] == str(status)
    assert proxy.metrics().value("penstock_retries_total") == 0


def test_an_answer_that_has_begun_is_not_tried_again_whatever_its_trailers_say(world):
    backends, proxy, client = world(2, retry={"attempts": 1, "on": ["gateway_error"], "idempotent": True})
    stream = asked(client)
    answer_first(backends, in_trailers, 14)
    assert dict(stream.wait_end().trailers)["grpc-status"] == "14"
    assert proxy.metrics().value("penstock_retries_total") == 0
