"""Backends that speak HTTP/2: how connections are shared and ended, what is tried again, when a slot is free."""
import h2.errors
import h2.settings
import pytest

from lib.certificates import Authority
from lib.h2_backend import H2Backend
from lib.pairs import pattern
from lib.wire import wait_ready


@pytest.fixture
def start(lab):
    """start(backend settings, **upstream and top-level settings) -> (backend, penstock): one loop before one backend"""
    def make(settings=None, **more):
        backend = lab.backend(H2Backend, settings=settings)
        more.setdefault("threads", 1)
        return backend, lab.penstock(servers=[backend.address], protocol="http2", **more)
    return make


def test_exchanges_share_one_connection(start):
    backend, proxy = start()
    clients = [proxy.connect().get(f"/{number}") for number in range(20)]
    connection = backend.accept()
    numbers = [connection.next_request() for _ in clients]
    heads = [connection.heads[number] for number in numbers]
    assert sorted(head[":path"] for head in heads) == sorted(f"/{number}" for number in range(20))
    for head in heads:
        assert (head[":method"], head[":scheme"], head[":authority"]) == ("GET", "http", "a")
        assert not {"host", "connection", "transfer-encoding", "upgrade", "keep-alive"} & set(head)
    for number in reversed(numbers):        # the last one first
        connection.respond(number, connection.heads[number][":path"].encode())
    for number, client in enumerate(clients):
        assert client.read_response().body == b"/%d" % number
    assert backend.none_waiting()


def test_requests_that_come_while_tls_shakes_hands_share_its_connection(lab, tmp_path):
    backend = lab.backend(H2Backend, context=Authority(str(tmp_path)).server_context(["h2"]))
    proxy = lab.penstock(servers=[backend], protocol="http2", tls={"verify": False}, threads=1,
                         timeouts={"connect": "20s"})
    clients = [proxy.connect() for _ in range(60)]
    for client in clients:              # turn by turn: some find the first one's connection with an unsent greeting
        client.get("/")
    connection = backend.accept()
    for _ in clients:
        connection.respond(connection.next_request())
    assert [client.read_response().status for client in clients] == [200] * 60
    assert backend.none_waiting()


def test_a_backend_that_allows_two_streams_gets_as_many_connections_as_it_takes(start):
    backend, proxy = start({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    first = proxy.connect().get("/first")
    connection = backend.accept()
    connection.respond(connection.next_request())
    first.read_response()                   # its settings are known from here on
    clients = [proxy.connect().get("/") for _ in range(5)]
    others = [backend.accept() for _ in range(2)]
    for each in (connection, *others):
        for _ in range(2 if each is not others[-1] else 1):
            each.respond(each.next_request())
    for client in clients:
        assert client.read_response().status == 200


def test_a_connection_carries_no_more_requests_than_it_may(start):
    backend, proxy = start(circuit_breaker={"max_requests_per_connection": 2})
    for turn in range(3):
        connection = None
        for number in range(2):
            client = proxy.connect().get("/")
            connection = connection or backend.accept()
            connection.respond(connection.next_request())
            assert client.read_response().status == 200
        connection.expect_end()
        assert connection.goaway is not None and connection.goaway[1] == 0


def test_an_idle_connection_is_closed_with_a_goodbye(start):
    backend, proxy = start(pool={"idle": "50ms"})
    client = proxy.connect().get("/")
    connection = backend.accept()
    connection.respond(connection.next_request())
    client.read_response()
    connection.expect_end()
    assert connection.goaway[1] == 0 and connection.ended == "eof"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_stream_is_asked_for_again_whatever_its_method(start, method):
    backend, proxy = start()
    client = proxy.connect()
    client.post("/", b"body") if method == "POST" else client.get("/")
    connection = backend.accept()
    connection.reset(connection.next_request(), h2.errors.ErrorCodes.REFUSED_STREAM)
    again = connection.next_request()
    assert connection.bodies[again] == (b"body" if method == "POST" else b"")
    connection.respond(again, b"done")
    assert client.read_response().body == b"done"


def test_what_comes_after_the_last_stream_of_a_goaway_goes_to_another_connection(start):
    backend, proxy = start()
    served = proxy.connect().post("/served", b"1")
    connection = backend.accept()
    first = connection.next_request()
    late = proxy.connect().post("/late", b"2")
    connection.next_request()
    connection.go_away(first)
    other = backend.accept()
    again = other.next_request()
    assert (other.heads[again][":path"], other.bodies[again]) == ("/late", b"2")
    other.respond(again, b"late")
    assert late.read_response().body == b"late"
    connection.respond(first, b"served")
    assert served.read_response().body == b"served"
    connection.expect_end()


def test_a_post_that_a_backend_reset_is_not_sent_again(start):
    backend, proxy = start()
    client = proxy.connect().post("/", b"body")
    connection = backend.accept()
    connection.reset(connection.next_request(), h2.errors.ErrorCodes.INTERNAL_ERROR)
    answer = client.read_response()
    assert (answer.status, answer["x-penstock-reason"]) == (502, "backend_reset")


def test_a_connection_that_dies_takes_all_its_streams_with_it(start):
    backend, proxy = start()
    clients = [proxy.connect().post(f"/{number}", b"x") for number in range(3)]
    connection = backend.accept()
    for _ in clients:
        connection.next_request()
    connection.close()
    for client in clients:
        answer = client.read_response()
        assert (answer.status, answer["x-penstock-reason"]) == (502, "backend_reset")
    proxy.wait_in_flight(0)


def test_a_backend_that_speaks_no_http2_is_a_502(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], protocol="http2", retry={"attempts": 0})
    client = proxy.connect().get("/")
    at_work = backend.accept()
    at_work.read_until(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    at_work.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    answer = client.read_response()
    assert (answer.status, answer["x-penstock-reason"]) == (502, "backend_reset")


def test_a_backend_that_measures_its_way_with_pings_keeps_its_connection(start):
    """As grpc-go does: a PING whenever DATA has come and none is under way; on a LAN that is for each request."""
    backend, proxy = start()
    client = proxy.connect()
    connection = None
    for _ in range(1500):
        client.post("/", b"body")
        connection = connection or backend.accept()
        connection.h2.ping(b"measures")
        connection.respond(connection.next_request(), b"done")
        assert client.read_response().body == b"done"
    assert backend.none_waiting() and connection.goaway is None


def test_work_that_is_to_end_at_once_is_over_when_the_backend_has_heard_of_it(start):
    backend, proxy = start(concurrency=1, on_abandon="close")
    client = proxy.connect().get("/")
    connection = backend.accept()
    number = connection.next_request()
    client.close()
    proxy.wait_status(lambda status: status["upstreams"]["main"]["abandoned"] == 1)
    # The reset and the question behind it lie in the socket; nobody has read them.
    assert proxy.upstream()["backends"][0]["in_flight"] == 1
    connection.pump(lambda: number in connection.resets, "the reset")
    assert connection.resets[number] == h2.errors.ErrorCodes.CANCEL
    proxy.wait_status(lambda status: status["upstreams"]["main"]["abandoned"] == 0 or connection.take(
        connection.receive() if connection.has_input(0) else []))
    proxy.wait_in_flight(0)
    proxy.wait_metric(lambda m: m.value("penstock_abandoned_total", upstream="main", outcome="closed") == 1)


def until_another_connection(backend, proxy, most=60):
    """Requests that nobody answers, until one comes over a connection that is not there yet."""
    for _ in range(most):
        client = proxy.connect().get("/lost")
        answer = client.read_response()
        assert (answer.status, answer["x-penstock-reason"]) == (504, "first_byte_timeout")
        if wait_ready([backend.listener], timeout=0):
            return
    raise AssertionError("all of them went over the connection that does not answer")


@pytest.mark.parametrize("on_abandon", ["close", "drain"])
def test_requests_leave_a_connection_that_does_not_answer_and_it_is_closed(start, on_abandon):
    backend, proxy = start(timeouts={"first_byte": "150ms"}, abandon_grace="2s", on_abandon=on_abandon, routes=[
        {"path": "/found", "upstream": "main", "timeouts": {"first_byte": "20s"}}, {"prefix": "/", "upstream": "main"}])
    client = proxy.connect().get("/found")
    dead = backend.accept()
    dead.respond(dead.next_request())
    assert client.read_response().status == 200
    until_another_connection(backend, proxy)        # from here on nobody reads that one
    alive = backend.accept()
    client = proxy.connect().get("/found")
    number = alive.next_request()
    while alive.heads[number][":path"] == "/lost":
        if number not in alive.resets:
            alive.respond(number)                   # it came first
        number = alive.next_request()
    alive.respond(number, b"found")
    assert client.read_response().body == b"found"
    proxy.wait_log("a connection has not answered for 2s")
    proxy.wait_in_flight(0)
    proxy.wait_metric(lambda m: m.value("penstock_connections", side="backend") == 1)


def test_a_connection_that_answers_is_kept_whatever_its_requests_do(start):
    backend, proxy = start(routes=[{"path": "/slow", "upstream": "main", "timeouts": {"first_byte": "100ms"}},
                                   {"prefix": "/", "upstream": "main"}])
    client = proxy.connect().get("/")
    connection = backend.accept()
    connection.respond(connection.next_request())
    assert client.read_response().status == 200
    for _ in range(5):
        client = proxy.connect().get("/slow")
        number = connection.next_request()
        answer = client.read_response()
        assert (answer.status, answer["x-penstock-reason"]) == (504, "first_byte_timeout")
        connection.pump(lambda: number in connection.resets, "the reset")
    client = proxy.connect().get("/fast")
    connection.respond(connection.next_request(), b"fast")
    assert client.read_response().body == b"fast"
    assert backend.none_waiting() and connection.goaway is None


@pytest.mark.parametrize("on_abandon", ["close", "drain"])
def test_no_ping_is_spent_on_what_is_cancelled(start, on_abandon):
    """gRPC servers count PINGs to which they have sent nothing, and end the connection at the fourth."""
    backend, proxy = start(on_abandon=on_abandon)
    connection = None
    for _ in range(6):
        client = proxy.connect().get("/")
        connection = connection or backend.accept()
        number = connection.next_request()
        client.close()
        if on_abandon == "close":
            connection.pump(lambda: number in connection.resets, "the reset")
        else:
            proxy.wait_status(lambda status: status["upstreams"]["main"]["abandoned"] == 1)
            connection.respond(number)
        proxy.wait_status(lambda status: status["upstreams"]["main"]["abandoned"] == 0 or connection.take(
            connection.receive() if connection.has_input(0) else []))
    assert connection.pings == 0 and backend.none_waiting()


def test_a_handshake_that_hangs_is_not_waited_for_by_the_next(lab, tmp_path):
    authority = Authority(str(tmp_path))
    backend = lab.backend(H2Backend, context=authority.server_context(["h2"]))
    proxy = lab.penstock({"threads": 1, "upstreams": {"main": {
        "servers": [{"address": backend.address}], "protocol": "http2", "tls": {"verify": False},
        "retry": {"attempts": 0}, "timeouts": {"connect": "20s"}}},
        "routes": [{"path": "/impatient", "upstream": "main", "timeouts": {"connect": "300ms"}},
                   {"prefix": "/", "upstream": "main"}]})
    patient = proxy.connect().get("/patient")
    hangs, _ = backend.listener.accept()
    answer = proxy.connect().get("/impatient").read_response()
    assert (answer.status, answer["x-penstock-reason"]) == (502, "connect_failure")
    backend.accept()                                # to see whether it is up
    proxy.wait_status(lambda status: status["upstreams"]["main"]["backends"][0]["state"] == "ready")
    following = proxy.connect().get("/following")
    connection = backend.accept()                   # one of its own
    connection.respond(connection.next_request(), b"done")
    assert following.read_response().body == b"done"
    hangs.close()
    assert patient.read_response().status == 502


def test_a_request_with_an_empty_host_has_no_authority(start):
    """RFC 9113 8.3.1: no :authority where there is nothing to put in."""
    backend, proxy = start()
    client = proxy.connect().send("GET / HTTP/1.1\r\nHost:\r\n\r\n")
    connection = backend.accept()
    connection.h2.config.validate_inbound_headers = False   # h2 asks for one of the two
    number = connection.next_request()
    assert ":authority" not in connection.heads[number] and "host" not in connection.heads[number]
    connection.respond(number, b"done")
    assert client.read_response().body == b"done"


def test_work_that_nobody_waits_for_holds_its_slot_until_its_answer_is_whole(start):
    backend, proxy = start(concurrency=1)           # and so on_abandon: drain
    client = proxy.connect().get("/")
    connection = backend.accept()
    number = connection.next_request()
    client.close()
    proxy.wait_status(lambda status: status["upstreams"]["main"]["abandoned"] == 1)
    waiting = proxy.connect().get("/next")
    proxy.wait_queue(1)
    # An answer of many windows is read to its end, and thrown away.
    connection.h2.send_headers(number, [(":status", "200")])
    rest = bytearray(pattern(4 << 20))
    while rest:
        connection.send_some(number, rest)
        connection.flush()
        if rest:
            connection.pump(lambda: connection.h2.local_flow_control_window(number) > 0, "credit")
    assert number not in connection.resets
    connection.h2.end_stream(number)
    connection.flush()
    following = connection.next_request()
    assert connection.heads[following][":path"] == "/next"
    connection.respond(following, b"next")
    assert waiting.read_response().body == b"next"
    proxy.wait_metric(lambda m: m.value("penstock_abandoned_total", upstream="main", outcome="completed") == 1)


@pytest.mark.parametrize("status, reasons", [("429", {}), ("500", {"consecutive_5xx": 1})])
def test_a_dropped_answer_counts_by_its_status_though_its_body_comes_later(lab, status, reasons):
    first, second = lab.backend(H2Backend), lab.backend(H2Backend)
    proxy = lab.penstock(servers=[first.address, second.address], protocol="http2", threads=1, balance="first",
                         retry={"on": [int(status)], "backoff": 0}, outlier_detection={
                             "consecutive_5xx": 2, "consecutive_local_errors": 2, "base_ejection_time": "1h",
                             "max_ejection_time": "1h"})
    connections = []
    for _ in range(2):
        client = proxy.connect().get("/")
        connections = connections or [first.accept()]
        dropped = connections[0].next_request()
        connections[0].h2.send_headers(dropped, [(":status", status)])
        connections[0].flush()
        if len(connections) == 1:
            connections.append(second.accept())
        connections[1].respond(connections[1].next_request(), b"yes")
        assert client.read_response().body == b"yes"
        connections[0].pump(lambda: dropped in connections[0].resets, "a reset: nobody wants the rest")
        proxy.wait_in_flight(0)
    assert proxy.upstream()["backends"][0]["ejections"]["by_reason"] == reasons


def test_a_slow_client_holds_up_its_own_stream_only(start):
    backend, proxy = start(buffer={"response": "64KiB"})
    slow = proxy.connect().get("/slow")
    connection = backend.accept()
    number = connection.next_request()
    connection.h2.send_headers(number, [(":status", "200")])
    rest = bytearray(pattern(64 << 20))
    sent = len(rest)
    # Until penstock gives no more credit; the socket's buffers take some too.
    while True:
        connection.send_some(number, rest)
        connection.flush()
        proxy.status()
        if not connection.has_input(0.2):
            break
        connection.take(connection.receive())
    assert sent - len(rest) < 24 << 20
    other = proxy.connect().get("/other")
    beside = connection.next_request()
    connection.respond(beside, b"other")
    assert other.read_response().body == b"other"
    slow.close()
    connection.pump(lambda: number in connection.resets, "the reset")


def test_an_upgrade_is_an_ordinary_request_to_a_backend_without_any(start):
    backend, proxy = start()
    client = proxy.connect().get("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
    connection = backend.accept()
    number = connection.next_request()
    assert "upgrade" not in connection.heads[number]
    connection.respond(number, b"plain", [("content-length", "5")])
    assert client.read_response().body == b"plain"
    client.get("/next")
    connection.respond(connection.next_request(), b"next")
    assert client.read_response().body == b"next"
