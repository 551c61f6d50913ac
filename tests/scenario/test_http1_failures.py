"""Backends that give no answer, or none in time: 502 and 504, and what becomes of the connections."""
import select
import socket
import threading
from types import SimpleNamespace

import pytest

from lib.backends import ScriptedBackend, unused_address
from lib.checks import assert_connection_is_not_used_again, assert_refused


@pytest.fixture(scope="module", params=["tcp", "unix"])
def table(shared_lab, request):
    """One penstock before one scripted backend. No retries, so that each case is one attempt."""
    backend = shared_lab.backend(ScriptedBackend, unix=request.param == "unix")
    proxy = shared_lab.penstock(servers=[backend], retry={"attempts": 0}, threads=1)
    return SimpleNamespace(backend=backend, proxy=proxy)


def post_and(table, ending):
    client = table.proxy.connect().post("/", b"hello")
    at_work = table.backend.next_request()
    at_work.expect("hello")
    getattr(at_work, ending)()
    return client, at_work


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_502_backend_reset_is_sent_when_the_backend_ends_without_an_answer_by(table, ending):
    client, at_work = post_and(table, ending)
    assert_refused(client.read_response(), 502, "backend_reset")
    assert_connection_is_not_used_again(table, client, at_work)


def test_502_connect_failure_is_sent_when_nobody_listens(penstock):
    proxy = penstock(servers=[unused_address()])
    assert_refused(proxy.get(), 502, "connect_failure")


def test_502_connect_failure_is_sent_when_the_unix_socket_is_not_there(penstock, lab):
    proxy = penstock(servers=[f"unix:{lab.folder}/nobody.sock"])
    assert_refused(proxy.get(), 502, "connect_failure")


def test_502_connect_failure_is_sent_when_connecting_takes_too_long(penstock, scripted):
    # A listener whose backlog is full does not answer to SYN.
    backend = scripted(backlog=0)
    crowd = []
    while True:
        one = socket.socket()
        one.setblocking(False)
        crowd.append(one)
        one.connect_ex(backend.listener.getsockname())
        if not select.select([], [one], [], 0.2)[1]:
            break
    proxy = penstock(servers=[backend], timeouts={"connect": "200ms"}, retry={"attempts": 0})
    assert_refused(proxy.get(), 502, "connect_failure")
    for one in crowd:
        one.close()


def test_a_unix_socket_whose_backlog_is_full_is_waited_for(penstock, scripted):
    backend = scripted(unix=True, backlog=0)
    proxy = penstock(servers=[backend], threads=1)
    clients = [proxy.connect().get(f"/{number}") for number in range(5)]
    proxy.wait_in_flight(5)
    for _ in clients:
        at_work = backend.next_request()
        at_work.respond(at_work.request.target)
    for number, client in enumerate(clients):
        assert client.read_response().body == f"/{number}".encode()


def test_504_idle_timeout_is_sent_when_the_backend_does_not_take_the_request(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], timeouts={"idle": "300ms"}, limits={"body": "1GiB"}, retry={"attempts": 0})
    client = proxy.connect().send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
    at_work = backend.next_request()
    sender = threading.Thread(target=client.send, args=(b"x" * 100_000_000,), daemon=True)
    sender.start()
    assert_refused(client.read_response(), 504, "idle_timeout")
    sender.join()
    assert len(at_work.read_to_end()) < 100_000_000


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"], ids=["length", "chunks"])
def test_a_backend_that_fails_while_its_client_uploads_ends_both_connections(table, framing):
    client = table.proxy.connect().send(f"POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nhello\r\n")
    at_work = table.backend.next_request()
    at_work.read_until("hello")
    at_work.reset()
    answer = client.read_response()
    assert_refused(answer, 502, "backend_reset")
    assert answer.head.list("connection") == ["close"]
    client.expect_end()


def test_a_client_connection_outlives_the_failure_of_a_backend(table):
    client, _ = post_and(table, "reset")
    assert client.read_response().status == 502
    client.get("/next")
    table.backend.next_request().respond("next")
    assert client.read_response().body == b"next"


def test_504_first_byte_timeout_is_sent_when_no_answer_begins_in_time(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], timeouts={"first_byte": "200ms"}).connect().get()
    at_work = backend.next_request()
    assert_refused(client.read_response(), 504, "first_byte_timeout")
    at_work.expect_gone()


def test_an_answer_that_stops_is_cut_after_the_idle_timeout(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], timeouts={"idle": "200ms"}).connect().get()
    at_work = backend.next_request().send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    answer = client.read_response()
    assert answer.cut and answer.body == b"hello"
    at_work.expect_gone()


def test_504_request_timeout_is_sent_when_the_whole_takes_too_long(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], timeouts={"request": "200ms"}).connect().get()
    backend.next_request()
    assert_refused(client.read_response(), 504, "request_timeout")


def test_the_status_for_a_timeout_is_the_configured_one(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], timeouts={"request": "200ms"}, status={"request_timeout": 408}).connect().get()
    backend.next_request()
    assert_refused(client.read_response(), 408, "request_timeout")
