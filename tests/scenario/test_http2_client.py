"""Clients that speak HTTP/2, in clear and by prior knowledge, to HTTP/1.1 backends: what a request is on the other
side, and that streams share a connection without standing in each other's way."""
import hashlib
import re
import select
import signal
import subprocess
import threading
import time

import h2.errors
import pytest

from lib import patience
from lib.backends import ScriptedBackend
from lib.frames import DATA, GOAWAY, NO_ERROR, PING, Frames, headers, ping, request
from lib.h2 import H2Client
from lib.h2_backend import H2Backend
from lib.pairs import PairBackend, pattern
from lib.wire import dial, eventually


@pytest.fixture
def talk(lab):
    """A proxy before these servers, and connections to it."""
    made = []

    class Talk:
        def __init__(self, servers, **settings):
            self.proxy = lab.penstock(servers=servers, **settings)

        def client(self, **more):
            made.append(H2Client(dial(self.proxy.address), **more))
            return made[-1]

    yield Talk
    for client in made:
        client.close()


@pytest.fixture
def gives_back(lab):
    """A backend that sends a body back as it comes, at /echo."""
    return lambda: lab.backend(PairBackend)


# ---- real clients

def test_curl_by_prior_knowledge_sends_and_gets_bodies_of_every_size(talk, gives_back, tmp_path):
    table = talk([gives_back()])
    for size in (0, 1, 65536, 10 << 20):
        sent = tmp_path / "sent"
        sent.write_bytes(pattern(size))
        got = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "--data-binary", f"@{sent}", "-w",
                              "\n%{http_version} %{http_code}", f"http://{table.proxy.address}/echo"],
                             capture_output=True, timeout=patience, check=True)
        body, _, tail = got.stdout.rpartition(b"\n")
        assert tail == b"2 200"
        assert hashlib.sha256(body).digest() == hashlib.sha256(pattern(size)).digest(), size


def test_nghttp_fetches_many_at_once_over_one_connection(talk, echo):
    table = talk([echo()])
    urls = [f"http://{table.proxy.address}/many/{number}" for number in range(50)]
    got = subprocess.run(["nghttp", "-ns", *urls], capture_output=True, text=True, timeout=patience, check=True)
    assert len(re.findall(r" 200 ", got.stdout)) == 50, got.stdout
    assert table.proxy.metrics().value("penstock_connections_total", side="client") == 1


def test_h2load_has_no_error(talk, echo):
    table = talk([echo()], threads=4)
    got = subprocess.run(["h2load", "-n", "2000", "-c", "8", "-m", "16", f"http://{table.proxy.address}/"],
                         capture_output=True, text=True, timeout=patience, check=True)
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in got.stdout, got.stdout
    assert "status codes: 2000 2xx" in got.stdout, got.stdout


# ---- what a request becomes

def test_a_request_is_an_ordinary_one_to_an_http1_backend(talk, scripted):
    backend = scripted()
    table = talk([backend])
    stream = table.client().start("POST", "/p?q=1", [("cookie", "a=1"), ("x-a", "b"), ("cookie", "b=2"),
                                                       ("te", "trailers")], b"body", authority="shop.example")
    at_work = backend.next_request()
    head = at_work.request
    assert head.line == "POST /p?q=1 HTTP/1.1"
    assert head.get("host") == "shop.example"
    assert head.get("cookie") == "a=1; b=2"
    assert head.get("x-a") == "b"
    assert head.get("te") == "trailers"
    assert not [name for name in head.names() if name.startswith(":")]
    assert at_work.read_body()[0] == b"body"
    at_work.respond("answer", fields="X-Mixed-Case: Yes\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: 5\r\nX-Hop: 1\r\n")
    stream.wait_end()
    assert stream.status == 200 and bytes(stream.body) == b"answer"
    assert stream["x-mixed-case"] == "Yes" and stream["content-length"] == "6"
    assert not {"connection", "keep-alive", "x-hop", "transfer-encoding"} & {name for name, _ in stream.fields}
    assert table.proxy.wait_access(lambda line: line["status"] == 200)["protocol"] == "HTTP/2"


def test_trailers_pass_both_ways(talk, scripted):
    backend = scripted()
    table = talk([backend])
    stream = table.client().start("POST", "/", [("te", "trailers")], b"x" * 10, trailers=[("x-sum", "7")])
    at_work = backend.next_request()
    body, trailers = at_work.read_body()
    assert body == b"x" * 10
    at_work.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n"
                 b"3\r\nabc\r\n0\r\ngrpc-status: 0\r\n\r\n")
    stream.wait_end()
    assert bytes(stream.body) == b"abc" and stream.trailer("grpc-status") == "0"


def test_head_and_bodiless_answers_end_with_their_head(talk, scripted):
    backend = scripted()
    client = talk([backend]).client()
    head = client.start("HEAD", "/")
    at_work = backend.next_request()
    at_work.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
    head.wait_end()
    assert head.complete and head["content-length"] == "1234" and not head.body
    for status in ("204 No Content", "304 Not Modified"):
        stream = client.start("GET", "/")
        backend.next_request().send(f"HTTP/1.1 {status}\r\n\r\n".encode())
        stream.wait_end()
        assert stream.complete and stream.status == int(status[:3]) and not stream.body


def test_interim_answers_pass_and_expect_is_answered(talk, scripted):
    backend = scripted()
    client = talk([backend]).client()
    stream = client.start("POST", "/", [("expect", "100-continue"), ("content-length", "4")], end=False)
    client.pump(lambda: stream.interims, "100 Continue")
    assert [status for status, _ in stream.interims] == [100]
    stream.send(b"body").finish()
    at_work = backend.next_request()
    assert not at_work.request.has("expect")
    assert at_work.read_body()[0] == b"body"
    at_work.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
    client.pump(lambda: len(stream.interims) == 2, "103")
    at_work.respond("ok")
    stream.wait_end()
    assert stream.interims[1][0] == 103 and dict(stream.interims[1][1])["link"] == "</a.css>"
    assert stream.status == 200 and stream.complete


def test_plain_connect_is_refused(talk, echo):
    client = talk([echo()]).client(validate=False)
    stream = client.start("CONNECT", "", pseudo={":path": None, ":scheme": None}, authority="a:443")
    stream.wait_end()
    assert stream.status == 400 and "target_form" in stream["x-penstock-reason"]


# ---- streams beside each other

def test_a_hundred_streams_run_at_once_and_each_gets_its_own_bytes(talk, gives_back):
    client = talk([gives_back()], threads=4).client()
    bodies = [pattern(20_000 + number) for number in range(100)]
    streams = [client.start("POST", f"/echo?{number}", body=body) for number, body in enumerate(bodies)]
    for stream, body in zip(streams, bodies):
        stream.wait_end()
        assert stream.complete and hashlib.sha256(stream.body).digest() == hashlib.sha256(body).digest()


def test_a_client_that_takes_every_word_at_once_stalls_no_slot(talk, scripted):
    backend = scripted()
    table = talk([backend], concurrency=1, timeouts={"client_stall": "1ms"}, threads=1)
    stream = table.client(window=1 << 20).start("GET", "/words")
    at_work = backend.next_request().send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(5000):
        at_work.chunk(b"word")
        stream.client.pump(lambda: len(stream.body) == 4 * (number + 1), "the next word")
    at_work.last_chunk()
    stream.wait_end()
    assert stream.complete


def test_a_stream_that_is_not_read_stops_neither_the_others_nor_grows_memory(talk, scripted):
    backend = scripted()
    table = talk([backend], buffer={"response": "64KiB"})
    client = table.client(window=65535)
    stuck = client.start("GET", "/stuck").stop_reading()
    at_work = backend.next_request()
    at_work.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    at_work.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        while True:
            at_work.sock.sendall(b"x" * 65536)      # until nobody takes it any more
    client.pump(lambda: len(stuck.body) >= 65535, "its window to be full")
    for number in range(20):
        other = client.start("GET", f"/{number}")
        backend.next_request().respond("y" * 50000)
        other.wait_end()
        assert other.complete and len(other.body) == 50000
    assert table.proxy.status()["memory"]["reserved"] <= 4 << 20
    assert len(stuck.body) == 65535
    stuck.cancel()


def test_an_upload_that_nobody_takes_stops_neither_the_others_nor_grows_memory(talk, scripted):
    backend = scripted()
    table = talk([backend], concurrency=2, buffer={"request": "64KiB"})
    client = table.client()
    stuck = client.start("POST", "/stuck", body=b"x" * 8_000_000)
    held = backend.next_request()                   # and does not read its body
    at_work = None
    for number in range(20):
        other = client.start("POST", f"/{number}", body=b"y" * 30000).wait_sent()
        at_work = at_work or backend.accept()
        at_work.read_request()
        assert at_work.read_body()[0] == b"y" * 30000
        at_work.respond("ok")
        other.wait_end()
        assert other.complete
    assert len(stuck.out) > 1_000_000               # flow control holds it back
    assert table.proxy.status()["memory"]["reserved"] <= 4 << 20
    taken = []
    reader = threading.Thread(target=lambda: taken.append(held.read_body()[0]))
    reader.start()
    stuck.wait_sent()
    reader.join()
    assert taken == [b"x" * 8_000_000]
    held.respond("ok")
    assert stuck.wait_end().complete


def test_streams_beyond_the_limit_wait_at_the_client(talk, scripted):
    backend = scripted()
    table = talk([backend], limits={"max_concurrent_streams": 2})
    client = table.client()
    client.ping()
    assert client.h2.remote_settings.max_concurrent_streams == 2


def test_streams_opened_before_the_limit_was_known_are_refused_unprocessed(talk, scripted):
    backend = scripted()
    client = talk([backend], limits={"max_concurrent_streams": 2}).client()
    streams = [client.start("GET", f"/{number}") for number in range(5)]
    client.pump(lambda: sum(stream.reset is not None for stream in streams) == 3, "three refusals")
    assert {stream.reset for stream in streams} == {None, int(h2.errors.ErrorCodes.REFUSED_STREAM)}
    for _ in range(2):
        backend.next_request().respond("ok")
    assert sum(stream.wait_end().complete for stream in streams if stream.reset is None) == 2


# ---- how things end

def test_a_cancelled_request_gives_its_slot_back(talk, scripted):
    backend = scripted()
    table = talk([backend], concurrency=1, on_abandon="close")
    client = table.client()
    first = client.start("GET", "/first")
    at_work = backend.next_request()
    first.cancel()
    at_work.expect_end()
    at_work.close()
    second = client.start("GET", "/second")
    backend.next_request().respond("ok")
    assert second.wait_end().complete
    eventually(lambda: sorted(line["status"] for line in table.proxy.access_log()) == [200, 499], "two log lines")


def test_a_queued_request_that_is_cancelled_leaves_the_queue(talk, scripted):
    backend = scripted()
    table = talk([backend], concurrency=1)
    client = table.client()
    first = client.start("GET", "/first")
    at_work = backend.next_request()
    queued = client.start("GET", "/queued")
    table.proxy.wait_queue(1)
    queued.cancel()
    table.proxy.wait_queue(0)
    at_work.respond("ok")
    assert first.wait_end().complete
    assert backend.requests_waiting() == 0


def test_a_client_that_hangs_up_leaves_with_all_its_streams(talk, scripted):
    backend = scripted()
    table = talk([backend], on_abandon="close")
    client = table.client()
    for number in range(5):
        client.start("GET", f"/{number}")
    at_work = [backend.next_request() for _ in range(5)]
    client.close()
    for connection in at_work:
        connection.expect_end()
        connection.close()
    eventually(lambda: [line["status"] for line in table.proxy.access_log()] == [499] * 5, "five log lines")
    table.proxy.wait_metric(lambda m: m.value("penstock_connections", side="client") == 0)


def test_an_answer_before_the_upload_is_over_ends_the_upload_with_no_error(talk, scripted):
    backend = scripted()
    client = talk([backend]).client()
    stream = client.start("POST", "/", body=b"x" * 1000, end=False)
    at_work = backend.next_request()
    at_work.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge")
    stream.wait_end()
    assert stream.status == 413 and bytes(stream.body) == b"large" and stream.complete
    client.pump(lambda: stream.reset is not None, "a reset")
    assert stream.reset == int(h2.errors.ErrorCodes.NO_ERROR)


def test_a_backend_that_breaks_off_cuts_the_stream_alone(talk, scripted):
    backend = scripted()
    client = talk([backend]).client()
    stream = client.start("GET", "/")
    at_work = backend.next_request()
    at_work.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    stream.wait_body(4)
    at_work.close()
    stream.wait_end()
    assert not stream.complete and stream.reset == int(h2.errors.ErrorCodes.INTERNAL_ERROR)
    other = client.start("GET", "/")
    backend.next_request().respond("ok")
    assert other.wait_end().complete


def test_our_own_refusals_are_answers_with_a_reason(talk, scripted):
    backend = scripted()
    table = talk([backend], concurrency=1, queue={"size": 0}, limits={"body": "100KiB"})
    client = table.client()
    first = client.start("GET", "/first")
    at_work = backend.next_request()
    full = client.request("GET", "/second")
    assert full.status == 429 and full["x-penstock-reason"] == "queue_full" and int(full["retry-after"]) >= 1
    assert b'"reason":"queue_full"' in bytes(full.body)
    at_work.respond("ok")
    first.wait_end()
    large = client.start("POST", "/", [("content-length", "200000")], b"x" * 1000, end=False).wait_end()
    assert large.status == 413
    endless = client.start("POST", "/", body=b"x" * 200_000, end=False).wait_end()
    assert endless.status == 413, endless.fields


def test_a_draining_proxy_says_goodbye_and_finishes_what_runs(talk, scripted):
    backend = scripted()
    table = talk([backend])
    client = Frames(dial(table.proxy.address)).hello()
    client.send(headers(1, request("GET", "/1"), end=True))
    at_work = backend.next_request()
    table.proxy.process.terminate()
    first = client.next_frame(GOAWAY)
    assert (first.number(), first.number(4)) == (0x7fffffff, NO_ERROR)
    client.send(headers(3, request("GET", "/3"), end=True))         # it was on its way already
    client.next_frame(PING)
    client.send(ping(bytes(8), ack=True))
    last = client.next_frame(GOAWAY)
    assert (last.number(), last.number(4)) == (3, NO_ERROR)
    at_work.respond("last words")
    assert client.status(1) == 200
    assert client.next_frame(DATA, 1).payload == b"last words"
    backend.next_request().respond("very last words")
    assert client.status(3) == 200
    client.read_to_end()
    assert client.ended == "eof"
    client.close()
    assert table.proxy.wait_exit() == 0


def test_an_idle_connection_is_closed_with_goaway(talk, echo):
    client = talk([echo()], limits={"client_idle_timeout": "200ms"}).client()
    assert client.request("GET", "/").status == 200
    client.expect_end()
    assert client.goaway and client.goaway[1] == 0


def test_a_preface_without_a_request_is_closed_in_time(talk, echo):
    client = talk([echo()], limits={"client_header_timeout": "200ms"}).client()
    client.expect_end()


def test_a_head_that_does_not_come_to_its_end_ends_the_connection_in_time(talk, scripted):
    backend = scripted()
    table = talk([backend], limits={"client_header_timeout": "200ms"})
    table.proxy.signal(signal.SIGSTOP)      # so that the first head is there before its time begins
    client = Frames(dial(table.proxy.address)).hello()
    client.send(headers(1, request("GET", "/"), end=True))
    table.proxy.signal(signal.SIGCONT)
    backend.next_request().respond("ok")
    assert client.status(1) == 200
    client.send(headers(3, request("GET", "/"), end=True, done=False))
    assert client.goaway()[1] == NO_ERROR
    client.close()


def test_each_head_has_its_own_time(talk, echo):
    """However they lie in the reads: here each ends with the beginning of the next."""
    table = talk([echo()], limits={"client_header_timeout": "3s"})
    client = Frames(dial(table.proxy.address)).hello()
    until = time.monotonic() + 4
    heads = [headers(number, request("GET", "/", [("x", "y" * 200)]), end=True) for number in range(1, 1000, 2)]
    client.send(heads[0][:100])
    for at, number in enumerate(range(1, 999, 2)):
        client.send(heads[at][100:] + heads[at + 1][:100])
        assert client.status(number) == 200
        if time.monotonic() > until:
            break
        client.next_frame(DATA, number)
        select.select([], [], [], 0.1)          # slow, not stopped; all answers fit the first window
    assert not client.has_come(GOAWAY)
    client.close()


@pytest.mark.parametrize("speaks", ["http1", "http2"])
def test_heads_as_large_as_they_may_be_pass_both_ways(lab, speaks):
    backend = lab.backend(H2Backend if speaks == "http2" else ScriptedBackend)
    proxy = lab.penstock(servers=[backend], protocol=speaks, limits={"header_bytes": "256KiB"})
    client = H2Client(dial(proxy.address))
    client.h2.decoder.max_header_list_size = 1 << 20
    large = [(f"x-{number}", "y" * 2500) for number in range(80)]       # 200 KB
    stream = client.start("GET", "/", large)
    if speaks == "http2":
        connection = backend.accept()
        connection.h2.decoder.max_header_list_size = 1 << 20
        number = connection.next_request()
        assert all(connection.heads[number][name] == value for name, value in large)
        connection.respond(number, b"done", large)
    else:
        at_work = backend.next_request()
        assert all(at_work.request.get(name) == value for name, value in large)
        fields = "".join(f"{name}: {value}\r\n" for name, value in large)
        at_work.send(f"HTTP/1.1 200 OK\r\n{fields}Content-Length: 4\r\n\r\ndone")
    stream.wait_end()
    assert stream.status == 200 and bytes(stream.body) == b"done"
    assert all(stream[name] == value for name, value in large)
    client.close()


def test_an_upload_that_stops_coming_is_408_and_the_connection_goes_on(talk, echo):
    client = talk([echo()], limits={"client_body_timeout": "200ms"}).client()
    stopped = client.start("POST", "/", body=b"half", end=False).wait_end()
    assert (stopped.status, stopped["x-penstock-reason"]) == (408, "body_timeout")
    assert client.request("GET", "/").status == 200


def test_an_answer_that_a_client_stops_reading_is_reset_in_time_and_the_connection_goes_on(talk, gives_back):
    client = talk([gives_back()], limits={"client_write_timeout": "200ms"}).client(window=20000)
    stuck = client.start("GET", "/give/1000000").stop_reading().wait_end()
    assert stuck.reset == int(h2.errors.ErrorCodes.CANCEL) and len(stuck.body) == 20000
    assert client.request("GET", "/give/10").status == 200


def test_a_listener_without_http2_says_so(talk, echo):
    table = talk([echo()], listen=[{"address": "127.0.0.1:0", "protocols": ["http1"]}])
    client = table.proxy.connect()
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert client.read_response().status == 505


def test_a_listener_of_http2_alone_serves_it(talk, echo):
    table = talk([echo()], listen=[{"address": "127.0.0.1:0", "protocols": ["http2"]}])
    assert table.client().request("GET", "/").status == 200
    client = table.proxy.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    said = client.read_to_end()         # SETTINGS, and GOAWAY with PROTOCOL_ERROR
    assert b"HTTP/1.1" not in said and said.endswith(b"\0\0\0\1"), said


def test_the_preface_may_come_byte_by_byte(talk, gives_back):
    table = talk([gives_back()])
    sock = dial(table.proxy.address)
    real_send = sock.sendall

    class Drip:
        def __getattr__(self, name):
            return getattr(sock, name)

        def sendall(self, data):
            for at in range(len(data)):
                real_send(data[at:at + 1])

        def fileno(self):
            return sock.fileno()

    client = H2Client(Drip())
    stream = client.start("POST", "/echo", body=b"dripped")
    assert bytes(stream.wait_end().body) == b"dripped"
    client.close()
