"""What backends answer: bodies of every framing, truncation that the client can see, rubbish, resets."""
import signal
from types import SimpleNamespace

import pytest

from lib.backends import ScriptedBackend
from lib.cases import bad_chunks
from lib.checks import assert_connection_is_not_used_again, assert_refused

in_chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module", params=["tcp", "unix"])
def table(shared_lab, request):
    """One penstock before one scripted backend. No retries, so that each case is one attempt."""
    backend = shared_lab.backend(ScriptedBackend, unix=request.param == "unix")
    proxy = shared_lab.penstock(servers=[backend], retry={"attempts": 0}, threads=1,
                                pool={"idle": "60s"},
                                limits={"header_bytes": "16KiB", "headers": 50, "body": "64KiB"})
    return SimpleNamespace(backend=backend, proxy=proxy)


def one_exchange(table, answer, end=None, method="GET"):
    """Sends a request, lets the backend answer, and gives (client, backend connection)."""
    client = table.proxy.connect().send(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n")
    at_work = table.backend.next_request()
    at_work.send(answer)
    if end:
        getattr(at_work, end)()
    return client, at_work


# ---- framing

good = {
    "by length": ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", None),
    "of length zero": ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
    "by length between blanks": ("HTTP/1.1 200 OK\r\nContent-Length:   5  \r\n\r\nhello", None),
    "in chunks": (in_chunks + "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", None),
    "in no chunk": (in_chunks + "0\r\n\r\n", None),
    "in chunks with extensions": (in_chunks + '5;x;y="z; =";u=v\r\nhello\r\n0;w\r\n\r\n', None),
    "in chunks with leading zeros": (in_chunks + "0005\r\nhello\r\n000\r\n\r\n", None),
    "in chunks, in capitals": (in_chunks.replace("chunked", "CHUNKED") + "5\r\nhello\r\n0\r\n\r\n", None),
    "without a coding, said so": ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello", "close"),
    "by close": ("HTTP/1.1 200 OK\r\n\r\nhello", "close"),
    "by close, of HTTP/1.0": ("HTTP/1.0 200 OK\r\n\r\nhello", "close"),
    "by half-close": ("HTTP/1.1 200 OK\r\n\r\nhello", "half_close"),
    "by length, and a close": ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", "close"),
    "with a reason of several words": ("HTTP/1.1 200 Fine, thank you\r\nContent-Length: 5\r\n\r\nhello", None),
    "without a reason": ("HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", None),
    "without a reason and its space": ("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", None),
    "with a reason beyond ASCII": ("HTTP/1.1 200 \xe9t\xe9\r\nContent-Length: 5\r\n\r\nhello", None),
    "with the highest status": ("HTTP/1.1 999 Odd\r\nContent-Length: 5\r\n\r\nhello", None),
    "without a blank before the length": ("HTTP/1.1 200 OK\r\nContent-Length:5\r\n\r\nhello", None),
    "of HTTP/1.0, by length": ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "close"),
    "with nothing but a close": ("HTTP/1.1 200 OK\r\n\r\n", "close"),
    "with an unknown status": ("HTTP/1.1 299 Odd\r\nContent-Length: 5\r\n\r\nhello", None),
    "with an error of its own": ("HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nhello", None),
}


@pytest.mark.parametrize("raw, end", good.values(), ids=good.keys())
def test_the_client_gets_an_answer_that_comes(table, raw, end):
    client, _ = one_exchange(table, raw, end)
    answer = client.read_response()
    assert answer.status == int(raw[9:12])
    assert answer.body == (b"hello" if "o" in raw.partition("\r\n\r\n")[2] else b"")
    assert not answer.cut
    assert not answer.head.has("x-penstock-reason")
    assert len(answer.head.all("content-length")) + len(answer.head.all("transfer-encoding")) <= 1


@pytest.mark.parametrize("raw, end", good.values(), ids=good.keys())
def test_the_client_gets_the_same_from_a_backend_that_answers_byte_by_byte(table, raw, end):
    client = table.proxy.connect().get()
    at_work = table.backend.next_request().drip(raw)
    if end:
        getattr(at_work, end)()
    answer = client.read_response()
    at_once = one_exchange(table, raw, end)[0].read_response()
    assert (answer.status, answer.body, answer.cut) == (at_once.status, at_once.body, at_once.cut)


def test_the_reason_phrase_passes(table):
    client, _ = one_exchange(table, "HTTP/1.1 200 Fine, thank you\r\nContent-Length: 0\r\n\r\n")
    assert client.read_response().head.line == "HTTP/1.1 200 Fine, thank you"


def test_response_fields_pass_in_their_order(table):
    client, _ = one_exchange(table, "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nETag: \"x\"\r\nSet-Cookie: b=2\r\n"
                                    "X-Odd: \xe9\r\nContent-Length: 0\r\n\r\n")
    head = client.read_response().head
    assert head.all("set-cookie") == ["a=1", "b=2"]
    assert head.get("etag") == '"x"' and head.get("x-odd") == "\xe9"


@pytest.mark.parametrize("raw, end", [
    ("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + "x" * 200_000, None),
    (in_chunks + "30d40\r\n" + "x" * 200_000 + "\r\n0\r\n\r\n", None),
    ("HTTP/1.1 200 OK\r\n\r\n" + "x" * 200_000, "close"),
], ids=["by length", "in chunks", "by close"])
def test_the_limit_of_request_bodies_is_none_for_answers(table, raw, end):
    client, _ = one_exchange(table, raw, end)
    answer = client.read_response()
    assert (answer.status, len(answer.body), answer.cut) == (200, 200_000, False)


bodiless = {
    "to HEAD with a length": ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    "to HEAD in chunks": ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "to HEAD without a framing": ("HEAD", "HTTP/1.1 200 OK\r\nX-A: b\r\n\r\n"),
    "204": ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
    "204 in chunks": ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "204 with a length": ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
    "304": ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
    "304 with a length": ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    "304 in chunks": ("GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
}


@pytest.mark.parametrize("method, raw", bodiless.values(), ids=bodiless.keys())
def test_an_answer_without_a_body_leaves_both_connections_usable(table, method, raw):
    client, at_work = one_exchange(table, raw, method=method)
    answer = client.read_response(method)
    assert answer.status == int(raw.split(" ")[1])
    client.get("/next")
    again = table.backend.next_request()
    assert again is at_work
    again.respond("next")
    assert client.read_response().body == b"next"


def test_the_length_that_head_would_have_reaches_the_client(table):
    client, _ = one_exchange(table, "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n", method="HEAD")
    assert client.read_response("HEAD")["content-length"] == "12345"


def test_the_length_that_304_speaks_of_reaches_the_client(table):
    client, _ = one_exchange(table, "HTTP/1.1 304 Not Modified\r\nContent-Length: 12345\r\n\r\n")
    assert client.read_response()["content-length"] == "12345"


@pytest.mark.parametrize("fields", ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"],
                         ids=["nothing", "a length", "chunks"])
def test_204_reaches_the_client_without_a_framing_when_its_head_says(table, fields):
    client, _ = one_exchange(table, f"HTTP/1.1 204 No Content\r\n{fields}\r\n")
    head = client.read_response().head
    assert not head.has("content-length") and not head.has("transfer-encoding")


def test_trailers_reach_the_client_as_trailers(table):
    client = table.proxy.connect().get(fields="TE: trailers\r\n")
    table.backend.next_request().send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
                                      "5\r\nhello\r\n0\r\nX-Sum: 42\r\nX-More: b\r\n\r\n")
    answer = client.read_response()
    assert answer.body == b"hello"
    assert answer.trailers == [("X-Sum", "42"), ("X-More", "b")]
    assert not answer.head.has("x-sum")


def test_a_head_that_is_larger_than_one_read_reaches_the_client_whole(penstock, scripted):
    # The default limit is 32 KiB.
    lines = "".join(f"X-{number}: {'v' * 1000}\r\n" for number in range(30))
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    backend.next_request().drip("HTTP/1.1 200 OK\r\n" + lines + "Content-Length: 5\r\n\r\nhello", 700)
    answer = client.read_response()
    assert answer.body == b"hello"
    assert [answer[f"x-{number}"] for number in range(30)] == ["v" * 1000] * 30


def test_large_trailers_reach_the_client(table):
    fields = [(f"X-{number}", "t" * 100) for number in range(40)]
    client, at_work = one_exchange(table, in_chunks + "5\r\nhello\r\n0\r\n")
    for name, value in fields:
        at_work.send(f"{name}: {value}\r\n")
    at_work.send("\r\n")
    assert client.read_response().trailers == fields


@pytest.mark.parametrize("name", ["Connection", "Keep-Alive", "Upgrade", "Trailer", "Set-Cookie"])
def test_a_trailer_that_would_change_the_answer_does_not_reach_the_client(table, name):
    client, _ = one_exchange(table, in_chunks + f"5\r\nhello\r\n0\r\n{name}: 7\r\nX-Sum: 1\r\n\r\n")
    answer = client.read_response()
    assert (answer.body, answer.trailers) == (b"hello", [("X-Sum", "1")])


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Host"])
def test_an_answer_whose_trailers_speak_of_framing_does_not_end_cleanly(table, name):
    client, at_work = one_exchange(table, in_chunks + "5\r\nhello\r\n")
    assert client.read_head().status == 200
    assert client.read_chunk() == b"hello"
    at_work.send(f"0\r\n{name}: 7\r\n\r\n")
    assert client.read_to_end() == b""


# ---- truncation

@pytest.mark.parametrize("body", bad_chunks.values(), ids=bad_chunks.keys())
def test_an_answer_in_chunks_does_not_end_cleanly_that_has(table, body):
    client, at_work = one_exchange(table, in_chunks + body, "half_close")
    answer = client.read_response()
    assert answer.status == 502 and answer["x-penstock-reason"] in ("bad_response", "backend_reset") or answer.cut
    at_work.expect_gone()


def test_an_answer_shorter_than_its_length_is_cut_where_the_client_can_see_it(table):
    client, at_work = one_exchange(table, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    assert client.read_head().get("content-length") == "10"
    client.expect("hello")
    at_work.close()
    client.expect_gone()


cuts = {
    "ends early": lambda backend: backend.close(),
    "is reset": lambda backend: backend.reset(),
    "has a broken size": lambda backend: backend.send("xyz\r\nmore"),
    "has a chunk longer than its size": lambda backend: backend.send("2\r\nmore\r\n0\r\n\r\n"),
    "has a broken trailer": lambda backend: backend.send("0\r\nX-A\r\n\r\n"),
}


@pytest.mark.parametrize("cut", cuts.values(), ids=cuts.keys())
def test_the_client_gets_no_last_chunk_of_an_answer_that(table, cut):
    client, at_work = one_exchange(table, in_chunks + "5\r\nhello\r\n")
    assert client.read_head().status == 200
    assert client.read_chunk() == b"hello"
    cut(at_work)
    assert b"0\r\n" not in client.read_to_end()


@pytest.mark.parametrize("raw", ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", in_chunks + "5\r\nhello\r\n"],
                         ids=["by length", "in chunks"])
def test_an_answer_that_ends_early_in_one_piece_is_never_taken_for_a_whole_one(table, raw):
    client, _ = one_exchange(table, raw, "close")
    answer = client.read_response()
    assert answer.cut or answer.status == 502


@pytest.mark.parametrize("raw", ["HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
                                 in_chunks + "5\r\nhello\r\n", "HTTP/1.1 200 OK\r\n\r\nhello"],
                         ids=["in the head", "by length", "in chunks", "by close"])
def test_a_reset_that_comes_at_once_with_the_bytes_before_it_is_seen(penstock, scripted, raw):
    backend = scripted()
    proxy = penstock(servers=[backend], retry={"attempts": 0})
    client = proxy.connect().get()
    at_work = backend.next_request()
    proxy.signal(signal.SIGSTOP)           # so that it finds both at once
    at_work.send(raw).reset()
    proxy.signal(signal.SIGCONT)
    answer = client.read_response()
    assert answer.cut or answer.status == 502


def test_an_answer_ended_by_close_that_is_reset_does_not_look_complete(penstock, scripted):
    # Over TCP: a unix socket tells of a reset only where bytes of ours were left unread.
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\n\r\nhello")
    head = client.read_head()
    # In chunks, so that the client can tell; or by close, and then by a reset.
    if "chunked" in head.list("transfer-encoding"):
        assert client.read_chunk() == b"hello"
        at_work.reset()
        client.expect_gone()
    else:
        client.expect("hello")
        at_work.reset()
        client.expect_gone()
        assert client.ended == "reset"


def test_an_event_stream_whose_worker_dies_does_not_end_cleanly(table):
    client = table.proxy.connect().get()
    at_work = table.backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    at_work.chunk("data: 1\n\n")
    client.read_head()
    assert client.read_chunk() == b"data: 1\n\n"
    at_work.reset()
    assert client.read_to_end() == b""


# ---- rubbish

bad = {
    "is no HTTP": "hello world\r\n\r\n",
    "is another protocol": "ICY 200 OK\r\n\r\n",
    "is in lower case": "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "begins with an empty line": "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "begins with a space": " HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "begins with a NUL": "\0HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "has two spaces before its status": "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "has no space behind its status": "HTTP/1.1 200OK\r\nContent-Length: 0\r\n\r\n",
    "has a negative status": "HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",
    "says HTTP/0.9": "HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "says HTTP/1.2": "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "ends its lines with bare LFs": "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "ends a field with a bare LF": "HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 0\r\n\r\n",
    "ends a field with two CRs": "HTTP/1.1 200 OK\r\nX-A: b\r\r\nContent-Length: 0\r\n\r\n",
    "has a field name beyond all measure": "HTTP/1.1 200 OK\r\n" + "a" * 2000 + ": b\r\nContent-Length: 0\r\n\r\n",
    "has a bracket in a name": "HTTP/1.1 200 OK\r\nX(A): b\r\nContent-Length: 0\r\n\r\n",
    "has a control character in a value": "HTTP/1.1 200 OK\r\nX-A: \x1b[31m\r\nContent-Length: 0\r\n\r\n",
    "has a DEL in a value": "HTTP/1.1 200 OK\r\nX-A: \x7f\r\nContent-Length: 0\r\n\r\n",
    "has no status": "HTTP/1.1\r\n\r\n",
    "has a status of two digits": "HTTP/1.1 20 OK\r\n\r\n",
    "has a status of four digits": "HTTP/1.1 2000 OK\r\n\r\n",
    "has a status that is no number": "HTTP/1.1 2x0 OK\r\n\r\n",
    "has a status below 100": "HTTP/1.1 099 OK\r\n\r\n",
    "says HTTP/2.0": "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "has a NUL in its reason": "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
    "has a bare CR in its reason": "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    "has a space before a colon": "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "has a field without a colon": "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 0\r\n\r\n",
    "has an empty field name": "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n",
    "has a NUL in a value": "HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 0\r\n\r\n",
    "has a bare CR in a value": "HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "has a space in a name": "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 0\r\n\r\n",
    "has lengths that differ": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "has equal lengths": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "has a list of equal lengths": "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
    "has a tab before its length": "HTTP/1.1 200 OK\r\nContent-Length: \t5\r\n\r\nhello",
    "has a tab before its coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: \tchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "has a tab in Connection": "HTTP/1.1 200 OK\r\nConnection: \tclose\r\nContent-Length: 5\r\n\r\nhello",
    "has a length below zero": "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "has a length in hexadecimal": "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
    "has a length with a space inside": "HTTP/1.1 200 OK\r\nContent-Length: 1 5\r\n\r\nhello",
    "has an empty coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\nhello",
    "has an unknown coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "has a quoted coding": 'HTTP/1.1 200 OK\r\nTransfer-Encoding: "chunked"\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
    "has chunks that are not the last coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n"
                                               "5\r\nhello\r\n0\r\n\r\n",
    "has chunks twice": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "5\r\nhello\r\n0\r\n\r\n",
    "has a space before the colon of its coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n"
                                                  "5\r\nhello\r\n0\r\n\r\n",
    "has an identity and a length": "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "has no body and yet two framings": "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n"
                                        "Transfer-Encoding: chunked\r\n\r\n",
    "has a list of lengths that differ": "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
    "has a length with a sign": "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "has a length with a letter": "HTTP/1.1 200 OK\r\nContent-Length: 5a\r\n\r\nhello",
    "has an empty length": "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
    "has a length of 2 to the 64th": "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nhello",
    "has a length and chunks": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "5\r\nhello\r\n0\r\n\r\n",
    "has chunks and another coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "has a folded field": "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "has chunks in HTTP/1.0": "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "has a head beyond the limit": "HTTP/1.1 200 OK\r\nX-A: " + "a" * 40_000 + "\r\nContent-Length: 0\r\n\r\n",
    "has too many fields": "HTTP/1.1 200 OK\r\n" + "X-A: b\r\n" * 60 + "Content-Length: 0\r\n\r\n",
    "switches protocols unasked": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                                  "Upgrade: websocket\r\n\r\n",
}


@pytest.mark.parametrize("raw", bad.values(), ids=bad.keys())
def test_502_bad_response_is_sent_for_an_answer_that(table, raw):
    client, at_work = one_exchange(table, raw)
    assert_refused(client.read_response(), 502, "bad_response")
    at_work.expect_gone()
    assert_connection_is_not_used_again(table, client, at_work)


def test_a_head_that_ends_in_the_middle_is_502(table):
    client, at_work = one_exchange(table, "HTTP/1.1 200 OK\r\nContent-Le", "close")
    answer = client.read_response()
    assert_refused(answer, 502, "bad_response" if "bad" in answer["x-penstock-reason"] else "backend_reset")
    assert_connection_is_not_used_again(table, client, at_work)
