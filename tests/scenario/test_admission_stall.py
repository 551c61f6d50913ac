"""Clients that keep a slot waiting, and backends that keep their clients waiting."""
import threading

import pytest

from lib.checks import assert_refused

mib = 1024 * 1024
large = 64 * mib      # more than all buffers on the way: sockets', ours


@pytest.fixture
def one_slot(penstock, scripted):
    def start(**settings):
        backend = scripted()
        return penstock(servers=[backend], concurrency=1, threads=4, **settings), backend
    return start


def in_background(act):
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def test_a_client_that_stops_reading_is_cut_and_the_next_one_gets_the_slot(one_slot):
    proxy, backend = one_slot(timeouts={"client_stall": "200ms"}, limits={"client_write_timeout": "1h"})
    stalled = proxy.connect().get("/stalls")
    at_work = backend.next_request()
    sender = in_background(lambda: at_work.respond(b"x" * large))     # blocks when every buffer is full

    line = proxy.wait_access(lambda line: "client_stall" in str(line), "the log line of the stall")
    assert "/stalls" in str(line)
    sender.join()                      # drained to its end, or refused: either way the backend is free again
    next_one = proxy.connect().get("/next")
    backend.next_request().respond("next")
    assert next_one.read_response().body == b"next"
    answer = stalled.read_response()
    assert answer.cut and len(answer.body) < large, "the client can see that something is missing"


def test_a_client_that_stops_sending_once_it_was_admitted_is_told_408_and_the_backend_is_not_blamed(one_slot):
    proxy, backend = one_slot(timeouts={"client_stall": "200ms"}, buffer={"request": "64KiB"},
                              limits={"client_body_timeout": "1h"})
    stalled = proxy.connect()
    stalled.send(f"POST /stalls HTTP/1.1\r\nHost: a\r\nContent-Length: {mib}\r\n\r\n".encode() + b"x" * 200_000)
    at_work = backend.next_request()

    assert_refused(stalled.read_response(), 408, "client_stall")
    at_work.read_to_end()              # its request will never be whole, and it is told so
    at_work.close()
    client = proxy.connect().get("/next")
    backend.next_request().respond()
    assert client.read_response().status == 200


def test_where_slots_are_not_limited_no_time_in_all_is_set_to_a_client_that_is_slow(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], timeouts={"client_stall": "1ms"})
    client = proxy.connect()
    client.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {1000}\r\n\r\n")
    at_work = backend.next_request()
    for number in range(1000):         # one byte, when the last one has gone all the way
        client.send(b"x")
        assert at_work.read_exactly(1) == b"x"
    sender = in_background(lambda: at_work.respond(b"x" * large))
    answer = client.read_response()
    assert len(answer.body) == large and not answer.cut
    sender.join()


def test_a_slow_uploader_before_admission_is_cut_by_the_body_timeout_and_has_cost_nothing(one_slot):
    proxy, backend = one_slot(limits={"client_body_timeout": "100ms"})
    slow = proxy.connect()
    slow.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbegin")
    assert slow.read_response().status == 408
    slow.expect_gone()
    proxy.connect().get("/next")
    assert backend.next_request().request.target == "/next"


def test_a_backend_without_a_first_byte_costs_a_504_and_its_slot_stays_taken_until_it_has_finished(one_slot):
    proxy, backend = one_slot(routes=[{"path": "/never", "upstream": "main", "timeouts": {"first_byte": "100ms"}},
                                      {"prefix": "/", "upstream": "main"}])
    client = proxy.connect().get("/never")
    at_work = backend.next_request()
    assert_refused(client.read_response(), 504, "first_byte_timeout")

    waiting = proxy.connect().get("/waits")
    proxy.wait_queue(1)
    upstream = proxy.upstream()
    assert upstream["backends"][0]["in_flight"] == 1 and upstream["abandoned"] == 1
    assert backend.requests_waiting() == 0

    at_work.respond("too late for anyone")
    next_at_work = backend.next_request()
    assert next_at_work.request.target == "/waits"
    next_at_work.respond("mine")
    assert waiting.read_response().body == b"mine"


def test_a_stream_that_falls_silent_is_cut_after_the_idle_timeout(one_slot):
    proxy, backend = one_slot(timeouts={"idle": "100ms"})
    client = proxy.connect().get("/stream")
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ntoken\r\n")
    answer = client.read_response()
    assert answer.body == b"token" and answer.cut


def test_a_stream_that_goes_on_is_never_cut_by_a_total_time_that_nobody_set(one_slot):
    """Each token comes after the one before was seen. The clocks that are short have nothing to say here."""
    proxy, backend = one_slot(timeouts={"client_stall": "100ms"}, queue={"timeout": "100ms", "start_timeout": "100ms"},
                              limits={"client_body_timeout": "100ms", "client_write_timeout": "100ms"})
    client = proxy.connect().get("/stream")
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.read_head().status == 200
    for number in range(200):
        if number in (50, 100):        # who waits for the slot in vain shows that the time of each has passed
            assert_refused(proxy.get("/waits"), 503, "queue_timeout")
        at_work.chunk(f"data: {number}\n\n")
        assert client.read_chunk() == f"data: {number}\n\n".encode(), "each token passes before the next one exists"
    at_work.last_chunk()
    assert client.read_chunk() == b""


def test_the_time_in_which_a_backend_is_not_read_because_of_its_client_is_not_the_backends(penstock, scripted, lab):
    # The backend's whole answer is in the kernel's hands at once, and goes on from there by itself; it is more than
    # all buffers behind it hold. (Those of a unix socket are small.)
    backend, clock = scripted(), scripted()
    proxy = penstock({"upstreams": {
        "main": {"servers": [{"address": backend.address}], "concurrency": 1, "buffer": {"response": "64KiB"},
                 "timeouts": {"idle": "200ms", "client_stall": "1h"}},
        "clock": {"servers": [{"address": clock.address}], "timeouts": {"first_byte": "300ms"}}},
        "routes": [{"path": "/clock", "upstream": "clock"}, {"prefix": "/", "upstream": "main"}],
        "listen": [{"address": f"unix:{lab.folder}/front.sock"}], "limits": {"client_write_timeout": "1h"}})
    client = proxy.connect().get("/large")
    at_work = backend.next_request()
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    at_work.sock.setblocking(False)
    sent = at_work.sock.send(head + b"x" * large)
    at_work.half_close()
    for _ in range(3):      # each of these shows that more than the idle timeout has passed
        assert_refused(proxy.get("/clock"), 504, "first_byte_timeout")

    assert not at_work.is_taken(within=0)
    answer = client.read_response()
    assert len(answer.body) == sent - len(head) and not answer.cut
