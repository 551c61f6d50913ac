"""A connection that is reset in the same moment in which its last bytes come: no second event tells of the reset."""
import contextlib
import signal

import pytest

from lib.backends import ScriptedBackend
from lib.certificates import Authority
from lib.h2 import H2Client
from lib.h2_backend import H2Backend
from lib.wire import dial, reset_socket


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("ca")))


@contextlib.contextmanager
def at_once(proxy):
    """What is done inside is found by penstock all at once."""
    proxy.signal(signal.SIGSTOP)
    yield
    proxy.signal(signal.SIGCONT)


# ---- backends

@pytest.fixture(params=["h2c", "h2s"])
def behind(request, lab, authority):
    """(backend, penstock) with a backend that speaks HTTP/2 so."""
    context = authority.server_context(["h2"]) if request.param == "h2s" else None
    backend = lab.backend(H2Backend, context=context)
    more = {"tls": {"ca": authority.ca, "server_name": "localhost"}} if context else {}
    return backend, lab.penstock(servers=[backend], protocol="http2", retry={"attempts": 0}, threads=1, **more)


def test_a_reset_right_behind_a_part_of_an_answer_cuts_the_answer(behind):
    backend, proxy = behind
    client = proxy.connect().get("/")
    connection = backend.accept()
    number = connection.next_request()
    with at_once(proxy):
        connection.h2.send_headers(number, [(":status", "200")])
        connection.h2.send_data(number, b"a part")
        connection.flush()
        reset_socket(connection.sock)
    answer = client.read_response()
    assert answer.cut or answer.status == 502


def test_a_reset_right_behind_a_word_that_is_no_answer_is_a_502(behind):
    backend, proxy = behind
    client = proxy.connect().get("/")
    connection = backend.accept()
    connection.next_request()
    with at_once(proxy):
        connection.h2.ping(b"12345678")
        connection.flush()
        reset_socket(connection.sock)
    answer = client.read_response()
    assert (answer.status, answer["x-penstock-reason"]) == (502, "backend_reset")


def test_answers_that_came_whole_before_a_reset_arrive_whole(behind):
    backend, proxy = behind
    clients = [proxy.connect().get(f"/{number}") for number in range(4)]
    connection = backend.accept()
    numbers = {connection.heads[number][":path"]: number for number in (connection.next_request() for _ in clients)}
    with at_once(proxy):
        for target in range(3):
            connection.respond(numbers[f"/{target}"], b"x" * 12000)
        reset_socket(connection.sock)
    answers = [client.read_response() for client in clients]
    assert [len(answer.body) for answer in answers[:3]] == [12000] * 3
    assert answers[3].status == 502


# ---- clients

@pytest.fixture(params=["h1", "h1s", "h2c", "h2s"])
def before(request, lab, authority):
    """(penstock with one slot, which is taken, a connection to it that speaks so, how to send a request on it)"""
    backend = lab.backend(ScriptedBackend)
    secure = request.param.endswith("s")
    certificate, key = authority.certificate()
    listen = {"address": "127.0.0.1:0", **({"tls": {"certificate": certificate, "key": key}} if secure else {})}
    proxy = lab.penstock(servers=[backend], listen=[listen], concurrency=1, on_abandon="close", threads=1)
    context = authority.client_context(["h2" if request.param == "h2s" else "http/1.1"]) if secure else None

    def wrap(sock):
        return context.wrap_socket(sock, server_hostname="localhost") if context else sock

    kept = []

    def make():
        sock = wrap(dial(proxy.address))
        kept.append(sock)
        if request.param in ("h1", "h1s"):
            return sock, lambda target: sock.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target.encode())
        client = H2Client(sock)
        return sock, lambda target: client.start("GET", target)
    yield proxy, backend, make
    for sock in kept:
        sock.close()


def left(proxy, target):
    return proxy.wait_access(lambda line: line["target"] == target and line["status"] == 499, f"who left {target}")


def test_a_client_that_resets_right_behind_its_request_never_waits(before):
    proxy, backend, make = before
    _, ask = make()
    ask("/running")
    backend.next_request()
    sock, ask = make()
    with at_once(proxy):
        ask("/leaves")
        reset_socket(sock)
    left(proxy, "/leaves")
    proxy.wait_queue(0)


def test_a_client_that_resets_behind_further_bytes_leaves_the_queue(before):
    proxy, backend, make = before
    _, ask = make()
    ask("/running")
    backend.next_request()
    sock, ask = make()
    ask("/leaves")
    proxy.wait_queue(1)
    with at_once(proxy):
        ask("/too")
        reset_socket(sock)
    left(proxy, "/leaves")
    proxy.wait_queue(0)


def test_a_client_that_resets_behind_further_bytes_ends_the_work_that_it_has_asked_for(before):
    proxy, backend, make = before
    sock, ask = make()
    ask("/leaves")
    at_work = backend.next_request()
    with at_once(proxy):
        ask("/too")
        reset_socket(sock)
    left(proxy, "/leaves")
    at_work.expect_end()
