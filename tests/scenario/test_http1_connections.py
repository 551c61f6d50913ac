"""Client connections: kept or closed, HTTP/1.0 and 1.1, and several requests in a row without waiting."""
import signal

import pytest

from lib.checks import Table, assert_refused, echoed


@pytest.fixture(scope="module")
def table(shared_lab):
    return Table(shared_lab)


# ---- kept or closed

def test_an_http_1_1_connection_is_kept(table):
    client = table.proxy.connect()
    for turn in range(5):
        answer = client.get(f"/{turn}").read_response()
        assert echoed(answer).line == f"GET /{turn} HTTP/1.1"
        assert "close" not in answer.head.list("connection")


def test_an_http_1_1_connection_is_closed_when_the_client_asks_for_it(table):
    client = table.proxy.connect().get("/x", "Connection: close\r\n")
    answer = client.read_response()
    assert answer.head.list("connection") == ["close"]
    client.expect_end()


def test_connection_options_are_read_whatever_their_case_and_company(table):
    client = table.proxy.connect().get("/x", "Connection: x, Close ,y\r\n")
    assert client.read_response().status == 200
    client.expect_end()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("fields", ["Connection: keep-alive, close\r\n", "Connection: close, keep-alive\r\n",
                                    "Connection: keep-alive\r\nConnection: close\r\n"])
def test_close_outweighs_keep_alive(table, version, fields):
    client = table.proxy.connect().get("/x", fields, version=version)
    assert client.read_response().head.list("connection") in (["close"], [])
    client.expect_end()


def test_an_http_1_0_connection_is_closed(table):
    client = table.proxy.connect().get("/x", version="1.0")
    answer = client.read_response()
    assert echoed(answer).line == "GET /x HTTP/1.1"
    assert "keep-alive" not in answer.head.list("connection")
    client.expect_end()


def test_an_http_1_0_connection_is_kept_when_the_client_asks_for_it(table):
    client = table.proxy.connect()
    for turn in range(3):
        answer = client.get(f"/{turn}", "Connection: Keep-Alive\r\n", version="1.0").read_response()
        assert echoed(answer).line == f"GET /{turn} HTTP/1.1"
        assert answer.head.list("connection") == ["keep-alive"]
        assert answer.framing == "length"
    client.get("/last", version="1.0").read_response()
    client.expect_end()


def test_an_answer_always_says_http_1_1(table):
    assert table.proxy.connect().get("/x", version="1.0").read_response().head.version == "HTTP/1.1"


def test_an_http_1_0_client_gets_no_chunks_but_a_close(table):
    client = table.proxy.connect().get("/x?chunked", "Connection: keep-alive\r\n", version="1.0")
    answer = client.read_response()
    assert answer.framing == "close" and not answer.head.has("transfer-encoding")
    assert "keep-alive" not in answer.head.list("connection")
    assert echoed(answer).line == "GET /x?chunked HTTP/1.1"
    assert client.ended == "eof"


def test_an_http_1_0_client_gets_an_answer_without_a_length_by_close(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get(version="1.0", fields="Connection: keep-alive\r\n")
    backend.next_request().send("HTTP/1.0 200 OK\r\n\r\nhello").close()
    answer = client.read_response()
    assert (answer.framing, answer.body, client.ended) == ("close", b"hello", "eof")


def test_an_http_1_0_client_sees_a_truncated_answer_in_chunks_as_a_reset(penstock, scripted):
    # There is no other way to tell it: its answer is delimited by the close.
    backend = scripted()
    client = penstock(servers=[backend]).connect().get(version="1.0")
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").chunk("hello")
    client.read_head()
    client.expect("hello")
    at_work.close()
    client.expect_gone()
    assert client.ended == "reset"


def test_trailers_are_not_sent_to_an_http_1_0_client(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get(version="1.0")
    backend.next_request().send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").chunk("hello") \
        .last_chunk("X-Sum: 1\r\n")
    assert client.read_response().body == b"hello"


def test_an_http_1_1_client_keeps_its_connection_when_the_backend_answers_by_close(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get("/one")
    backend.next_request().send("HTTP/1.0 200 OK\r\n\r\nhello").close()
    answer = client.read_response()
    assert (answer.body, answer.framing, answer.trailers) == (b"hello", "chunked", [])
    client.get("/two")
    backend.next_request().respond("two")
    assert client.read_response().body == b"two"


def test_a_drain_lets_a_running_request_finish_and_closes_the_connection(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], threads=1)
    client, idle = proxy.connect().get("/one"), proxy.connect().get("/idle")
    one, other = backend.next_request(), backend.next_request()
    at_work = {connection.request.target: connection for connection in (one, other)}
    at_work["/idle"].respond("idle")
    assert idle.read_response().body == b"idle"
    proxy.signal(15)
    idle.expect_end()                      # an idle connection is closed at once
    at_work["/one"].respond("one")
    answer = client.read_response()
    assert answer.body == b"one" and answer.head.list("connection") == ["close"]
    client.expect_end()
    client.close()
    idle.close()
    assert proxy.wait_exit() == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("known", [False, True], ids=["new", "kept"])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_a_request_that_comes_just_before_the_drain_is_served(penstock, echo, lab, threads, known, unix):
    address = f"unix:{lab.folder}/front.sock" if unix else "127.0.0.1:0"
    proxy = penstock(servers=[echo()], threads=threads, listen=[{"address": address}])
    clients = [proxy.connect() for _ in range(20)] if known else []
    for client in clients:
        assert client.get("/before").read_response().status == 200
    proxy.signal(signal.SIGSTOP)               # so that it finds all at once
    clients = clients or [proxy.connect() for _ in range(20)]
    for number, client in enumerate(clients):
        client.get(f"/{number}")
    proxy.signal(signal.SIGTERM)
    proxy.signal(signal.SIGCONT)
    for number, client in enumerate(clients):
        assert echoed(client.read_response()).line == f"GET /{number} HTTP/1.1"
        client.expect_end()
        client.close()
    assert proxy.wait_exit() == 0


# ---- pipelining

def test_pipelined_requests_are_answered_in_order(table):
    client = table.proxy.connect()
    client.send("".join(f"GET /{turn} HTTP/1.1\r\nHost: a\r\n\r\n" for turn in range(100)))
    for turn in range(100):
        assert echoed(client.read_response()).line == f"GET /{turn} HTTP/1.1"


def test_pipelined_requests_with_bodies_are_told_apart(table):
    client = table.proxy.connect()
    client.post("/1", "one").send("POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").chunk("two")
    client.last_chunk().get("/3").post("/4", "GET /5 HTTP/1.1\r\nHost: a\r\n\r\n")
    got = [echoed(client.read_response()) for _ in range(4)]
    assert [(facts.line.split(" ")[1], facts.body) for facts in got] == [
        ("/1", "one"), ("/2", "two"), ("/3", ""), ("/4", "GET /5 HTTP/1.1\r\nHost: a\r\n\r\n")]


def test_pipelined_requests_that_come_byte_by_byte_are_the_same(table):
    client = table.proxy.connect()
    client.drip("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
                "\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [echoed(client.read_response()).line for _ in range(3)] == [
        "POST /1 HTTP/1.1", "GET /2 HTTP/1.1", "GET /3 HTTP/1.1"]


def test_a_pipelined_request_reaches_the_backend_only_when_the_one_before_it_is_answered(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], threads=1)
    client = proxy.connect().get("/one").get("/two")
    first = backend.next_request()
    assert first.request.target == "/one"
    proxy.connect().get("/barrier")
    barrier = backend.next_request()
    assert barrier.request.target == "/barrier"
    barrier.respond("barrier")
    first.respond("one")
    assert client.read_response().body == b"one"
    second = backend.next_request()
    assert second.request.target == "/two"
    second.respond("two")
    assert client.read_response().body == b"two"


def test_an_error_in_the_middle_of_a_pipeline_is_answered_in_its_place_and_ends_it(table):
    seen = len(table.backend.seen)
    client = table.proxy.connect().send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"
                                        "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert echoed(client.read_response()).line == "GET /1 HTTP/1.1"
    assert_refused(client.read_response(), 400, "bad_request")
    client.expect_end()
    assert table.backend.targets()[seen:] == ["/1"]
    table.nothing_more_since(seen + 1)


def test_a_refusal_in_the_middle_of_a_pipeline_does_not_end_it(penstock, echo):
    proxy = penstock(servers=[echo()], routes=[{"prefix": "/api/", "upstream": "main"}])
    client = proxy.connect().get("/api/1").post("/2", "short").get("/api/3")
    assert echoed(client.read_response()).line == "GET /api/1 HTTP/1.1"
    assert_refused(client.read_response(), 404, "no_route")
    assert echoed(client.read_response()).line == "GET /api/3 HTTP/1.1"


def test_a_failure_of_the_backend_in_the_middle_of_a_pipeline_does_not_end_it(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get("/1").post("/2", "x").get("/3")
    backend.next_request().respond("one")
    assert client.read_response().body == b"one"
    backend.next_request().reset()
    assert_refused(client.read_response(), 502, "backend_reset")
    backend.next_request().respond("three")
    assert client.read_response().body == b"three"


def test_nothing_behind_connection_close_is_served(table):
    seen = len(table.backend.seen)
    client = table.proxy.connect().get("/last", "Connection: close\r\n").get("/behind")
    assert echoed(client.read_response()).line == "GET /last HTTP/1.1"
    client.expect_end()
    table.nothing_more_since(seen + 1)


def test_a_client_that_closes_with_one_request_queued_and_another_behind_it_takes_both_with_it(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, threads=1)
    running = proxy.connect().get("/running")
    at_work = backend.next_request()
    leaving = proxy.connect().get("/leaving").get("/behind")
    proxy.wait_queue(1)
    leaving.close()
    proxy.wait_queue(0)
    at_work.respond("ran")
    assert running.read_response().body == b"ran"
    proxy.connect().get("/barrier")
    assert backend.next_request().request.target == "/barrier"


def test_more_pipelined_bytes_than_are_kept_wait_in_the_socket(penstock, scripted):
    # At most one chunk is kept unparsed; the rest must neither be lost nor pile up in memory.
    backend = scripted()
    proxy = penstock(servers=[backend], threads=1)
    client = proxy.connect().get("/first")
    first = backend.next_request()
    many = "".join(f"GET /{turn} HTTP/1.1\r\nHost: a\r\nX-Filler: {'f' * 1000}\r\n\r\n" for turn in range(100))
    client.send(many)
    first.respond("first")
    assert client.read_response().body == b"first"
    for turn in range(100):
        at_work = backend.next_request()
        assert at_work.request.target == f"/{turn}"
        at_work.respond(str(turn))
        assert client.read_response().body == str(turn).encode()


def test_a_body_in_chunks_that_is_broken_ends_the_pipeline(table):
    seen = len(table.backend.seen)
    client = table.proxy.connect().get("/1")
    client.send("POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                "5\r\nhello!\r\n0\r\n\r\n").get("/3")
    assert echoed(client.read_response()).line == "GET /1 HTTP/1.1"
    assert_refused(client.read_response(), 400, "bad_request")
    client.expect_end()
    assert "/3" not in table.backend.targets()[seen:]


def test_a_request_behind_one_whose_answer_says_close_to_us_is_served(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get("/1").get("/2")
    backend.next_request().respond("one", fields="Connection: close\r\n").close()
    assert client.read_response().body == b"one"
    backend.next_request().respond("two")
    assert client.read_response().body == b"two"


def test_head_requests_in_a_pipeline_keep_it_in_step(table):
    client = table.proxy.connect()
    client.send("".join(f"{line} HTTP/1.1\r\nHost: a\r\n\r\n" for line in ("HEAD /1", "GET /2", "HEAD /3")))
    assert client.read_response("HEAD").status == 200
    assert echoed(client.read_response()).line == "GET /2 HTTP/1.1"
    assert client.read_response("HEAD").status == 200


# ---- refusals

@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_refusal_tells_its_reason_in_words_and_when_to_come_again(penstock, scripted, method):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, queue={"size": 0})
    proxy.connect().get("/running")
    backend.next_request()
    client = proxy.connect().send(f"{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    answer = client.read_response(method)
    if method == "HEAD":
        assert answer.status == 429 and answer["x-penstock-reason"] == "queue_full"
        assert int(answer["retry-after"]) >= 1
    else:
        assert_refused(answer, 429, "queue_full")
    # No harm is done to the connection.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert_refused(client.read_response(), 429, "queue_full")


def test_a_refusal_to_an_http_1_0_client_is_complete_and_ends_the_connection(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, queue={"size": 0})
    proxy.connect().get("/running")
    backend.next_request()
    client = proxy.connect().get(version="1.0")
    assert_refused(client.read_response(), 429, "queue_full")
    client.expect_end()
