"""Interim answers (1xx), and Expect: 100-continue."""
import pytest

from lib.checks import assert_refused, echoed

expecting = ("POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")


def hints(number):
    return f"HTTP/1.1 103 Early Hints\r\nLink: </{number}.css>; rel=preload\r\n\r\n"


# ---- Expect: 100-continue

def test_a_client_that_expects_it_gets_one_100_and_then_its_answer(penstock, echo):
    client = penstock(servers=[echo()]).connect().send(expecting)
    assert client.read_head().line.startswith("HTTP/1.1 100 ")
    client.send("hello")
    assert echoed(client.read_response()).body == "hello"


def test_a_client_that_expects_it_gets_one_100_even_when_the_backend_sends_one_too(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().send(expecting)
    assert client.read_head().status == 100
    client.send("hello")
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 100 Continue\r\n\r\n")
    at_work.expect("hello")
    at_work.respond("done")
    answer = client.read_response()
    assert (answer.status, answer.body, answer.interims) == (200, b"done", [])


def test_a_100_comes_while_the_request_will_only_be_queued(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1)
    running = proxy.connect().get("/running")
    at_work = backend.next_request()
    client = proxy.connect().send(expecting)
    assert client.read_head().status == 100
    client.send("hello")
    proxy.wait_queue(1)
    at_work.respond("ran")
    assert running.read_response().body == b"ran"
    then = backend.next_request()
    assert then.read_body()[0] == b"hello"
    then.respond("done")
    assert client.read_response().body == b"done"


def assert_refused_before_its_body(client, status, reason):
    """The first that the client hears is the refusal; then the connection ends, or understands a new request."""
    answer = client.read_response()
    assert_refused(answer, status, reason)
    assert answer.interims == []
    return answer


def test_a_request_that_finds_the_queue_full_is_refused_without_a_100(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, queue={"size": 0})
    running = proxy.connect().get("/running")
    at_work = backend.next_request()
    client = proxy.connect().send(expecting)
    answer = assert_refused_before_its_body(client, 429, "queue_full")
    if "close" in answer.head.list("connection"):
        client.expect_end()
    at_work.respond("ran")
    assert running.read_response().body == b"ran"
    proxy.connect().get("/barrier")
    assert backend.next_request().request.target == "/barrier"


def test_a_request_without_a_route_is_refused_without_a_100(penstock, echo):
    proxy = penstock(servers=[echo()], routes=[{"prefix": "/api/", "upstream": "main"}])
    assert_refused_before_its_body(proxy.connect().send(expecting), 404, "no_route")


def test_a_body_beyond_the_limit_is_refused_without_a_100(penstock, echo):
    backend = echo()
    proxy = penstock(servers=[backend], limits={"body": "1KiB"})
    client = proxy.connect().send(expecting.replace(": 5", ": 1025"))
    assert_refused_before_its_body(client, 413, "bad_request")
    assert backend.seen == []


def test_a_client_that_does_not_wait_for_the_100_is_served_too(penstock, echo):
    client = penstock(servers=[echo()]).connect().send(expecting + "hello")
    assert echoed(client.read_response()).body == "hello"
    client.get("/next")
    assert echoed(client.read_response()).line == "GET /next HTTP/1.1"


def test_a_client_that_expects_100_may_send_its_body_in_chunks(penstock, echo):
    client = penstock(servers=[echo()]).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.read_head().status == 100
    client.chunk("hel").chunk("lo").last_chunk()
    assert echoed(client.read_response()).body == "hello"


def test_a_request_that_finds_no_memory_is_refused_without_a_100(penstock, echo):
    backend = echo()
    proxy = penstock(servers=[backend], limits={"memory": "2MiB"}, buffer={"request": "8MiB"}, concurrency=1)
    client = proxy.connect().send(expecting.replace(": 5", ": 7000000"))
    assert_refused_before_its_body(client, 503, "memory_full")
    client.expect_end()
    assert backend.seen == []


def test_a_body_in_chunks_beyond_the_limit_is_refused_after_its_100(penstock, echo):
    backend = echo()
    client = penstock(servers=[backend], concurrency=1, limits={"body": "1KiB"}).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.read_head().status == 100
    client.chunk("x" * 1025)
    assert_refused(client.read_response(), 413, "bad_request")
    client.expect_end()
    assert backend.seen == []


def test_the_expectation_does_not_reach_the_backend_and_its_answer_not_the_client_twice(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], concurrency=1).connect().send(expecting)
    assert client.read_head().status == 100
    client.send("hello")
    at_work = backend.next_request()
    assert not at_work.request.has("expect")
    at_work.send("HTTP/1.1 100 Continue\r\n\r\n" * 3).respond("done")
    answer = client.read_response()
    assert (answer.interims, answer.body) == ([], b"done")


def test_every_request_of_a_connection_gets_its_own_100(penstock, echo):
    client = penstock(servers=[echo()]).connect()
    for _ in range(3):
        client.send(expecting)
        assert client.read_head().status == 100
        client.send("hello")
        assert echoed(client.read_response()).body == "hello"


def test_an_expectation_in_a_pipeline_is_met_in_its_place(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get("/first").send(expecting)
    first = backend.next_request()
    first.respond("first")
    assert client.read_response().body == b"first"
    assert client.read_head().status == 100
    client.send("hello")
    then = backend.next_request()
    assert then.read_body()[0] == b"hello"
    then.respond("done")
    assert client.read_response().body == b"done"


def test_a_client_that_never_sends_the_body_it_announced_gets_408(penstock, echo):
    backend = echo()
    client = penstock(servers=[backend], concurrency=1, limits={"client_body_timeout": "200ms"}).connect()
    client.send(expecting)
    assert client.read_head().status == 100
    assert_refused(client.read_response(), 408, "body_timeout")
    client.expect_end()
    assert backend.seen == []


def test_an_expectation_without_a_body_needs_no_100(penstock, echo):
    client = penstock(servers=[echo()]).connect()
    client.get("/x", "Expect: 100-continue\r\n")
    assert echoed(client.read_response()).line == "GET /x HTTP/1.1"


def test_an_http_1_0_client_gets_no_100_whatever_it_expects(penstock, echo):
    client = penstock(servers=[echo()]).connect()
    client.send("POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
    answer = client.read_response()
    assert answer.interims == [] and echoed(answer).body == "hello"


def test_a_client_that_leaves_instead_of_sending_its_body_leaves_nothing_behind(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1)
    client = proxy.connect().send(expecting)
    assert client.read_head().status == 100
    client.close()
    other = proxy.connect().get("/other")
    at_work = backend.next_request()
    assert at_work.request.target == "/other"
    at_work.respond("other")
    assert other.read_response().body == b"other"


def test_the_body_that_came_after_a_100_is_sent_again_with_a_retry(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], concurrency=1, retry={"idempotent": True}).connect().send(expecting)
    assert client.read_head().status == 100
    client.send("hello")
    first = backend.next_request()
    assert first.read_body()[0] == b"hello"
    first.reset()
    again = backend.next_request()
    assert again.read_body()[0] == b"hello"
    again.respond("done")
    answer = client.read_response()
    assert (answer.interims, answer.body) == ([], b"done")


# ---- interim answers

def test_three_103_and_then_200_reach_the_client_in_order(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    at_work = backend.next_request()
    for number in range(3):
        at_work.send(hints(number))
        head = client.read_head()           # each before the next is sent
        assert (head.status, head.get("link")) == (103, f"</{number}.css>; rel=preload")
    at_work.respond("done")
    answer = client.read_response()
    assert (answer.status, answer.body, answer.interims) == (200, b"done", [])


def test_a_100_three_103_and_a_200_in_one_packet_are_told_apart(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    backend.next_request().send("HTTP/1.1 100 Continue\r\n\r\n" + hints(1) + hints(2) + hints(3)
                                + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
    answer = client.read_response()
    assert (answer.status, answer.body) == (200, b"done")
    assert [head.get("link") for head in answer.interims if head.status == 103] == [
        f"</{number}.css>; rel=preload" for number in (1, 2, 3)]


def test_interim_answers_that_come_byte_by_byte_are_the_same(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    backend.next_request().drip(hints(1) + hints(2) + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
    answer = client.read_response()
    assert (answer.status, answer.body, len(answer.interims)) == (200, b"done", 2)


@pytest.mark.parametrize("fields", ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"])
def test_an_interim_answer_has_no_body_whatever_it_says(penstock, scripted, fields):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    backend.next_request().send(f"HTTP/1.1 103 Early Hints\r\n{fields}\r\n").respond("done")
    answer = client.read_response()
    assert [head.status for head in answer.interims] == [103]
    assert not answer.interims[0].has("content-length") and not answer.interims[0].has("transfer-encoding")
    assert answer.body == b"done"


def test_interim_answers_to_head_are_passed_on_too(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    backend.next_request().send(hints(1) + "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    answer = client.read_response("HEAD")
    assert (len(answer.interims), answer["content-length"]) == (1, "5")


@pytest.mark.parametrize("raw", ["HTTP/1.1 103 Early Hints\r\nX-A : b\r\n\r\n", "HTTP/1.1 103 Early\nHints\r\n\r\n",
                                 "HTTP/1.1 103 Early Hints\r\nLink: a\0\r\n\r\n",
                                 "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"],
                         ids=["space before a colon", "bare LF", "NUL", "two lengths"])
def test_a_broken_interim_answer_is_502(penstock, scripted, raw):
    backend = scripted()
    client = penstock(servers=[backend], retry={"attempts": 0}).connect().get()
    at_work = backend.next_request().send(raw).respond("poison")
    assert_refused(client.read_response(), 502, "bad_response")
    at_work.expect_gone()


def test_a_backend_that_dies_after_an_interim_answer_is_502(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    at_work = backend.next_request().send(hints(1))
    assert client.read_head().status == 103
    at_work.close()
    assert_refused(client.read_response(), 502, "backend_reset")


def test_an_interim_answer_does_not_stop_the_clock_of_the_first_byte(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], timeouts={"first_byte": "300ms"}, retry={"attempts": 0}).connect().get()
    at_work = backend.next_request().send(hints(1))
    answer = client.read_response()
    assert_refused(answer, 504, "first_byte_timeout")
    at_work.expect_gone()


@pytest.mark.parametrize("status", ["102 Processing", "110 Whatever", "199 Odd"])
def test_other_interim_answers_pass_as_well(penstock, scripted, status):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    at_work = backend.next_request().send(f"HTTP/1.1 {status}\r\nX-A: b\r\n\r\n")
    assert client.read_head().status == int(status[:3])
    at_work.respond("done")
    assert client.read_response().body == b"done"


def test_a_connection_is_kept_after_interim_answers(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], threads=1).connect().get("/one")
    first = backend.next_request().send(hints(1)).respond("one")
    assert client.read_response().body == b"one"
    client.get("/two")
    assert backend.next_request() is first


def test_an_interim_answer_loses_its_hop_by_hop_fields(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    backend.next_request().send("HTTP/1.1 103 Early Hints\r\nConnection: x-secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n"
                                "Link: </a>\r\n\r\n").respond("done")
    answer = client.read_response()
    assert answer.interims[0].get("link") == "</a>"
    assert not {"connection", "x-secret", "keep-alive"} & set(answer.interims[0].names())


def test_an_http_1_0_client_gets_no_interim_answer(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get(version="1.0")
    backend.next_request().send(hints(1) + hints(2)).respond("done")
    answer = client.read_response()
    assert (answer.interims, answer.status, answer.body) == ([], 200, b"done")


def test_eight_interim_answers_may_come_at_once(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    backend.next_request().send("".join(hints(number) for number in range(8))).respond("done")
    answer = client.read_response()
    assert (len(answer.interims), answer.body) == (8, b"done")


def test_thirty_two_interim_answers_may_come_one_after_the_other_and_no_more(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], retry={"attempts": 0}).connect().get()
    at_work = backend.next_request()
    for number in range(32):
        at_work.send(hints(number))
        assert client.read_head().get("link") == f"</{number}.css>; rel=preload"
    at_work.send(hints(32))
    assert_refused(client.read_response(), 502, "bad_response")
    at_work.expect_gone()


def test_a_flood_of_interim_answers_is_bounded(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], retry={"attempts": 0}).connect().get()
    at_work = backend.next_request()
    at_work.send(hints(1) * 5000).respond("done")
    answer = client.read_response()
    assert len(answer.interims) <= 32
    if answer.status != 200:
        assert_refused(answer, 502, "bad_response")


def test_a_101_while_an_expectation_is_pending_opens_no_tunnel(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], retry={"attempts": 0}).connect().send(expecting)
    assert client.read_head().status == 100
    client.send("hello")
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    assert_refused(client.read_response(), 502, "bad_response")
    at_work.read_to_end()
