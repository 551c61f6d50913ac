"""Where a request's body ends: everything on which two readers could disagree is refused, and no backend hears of it.
The upstream has a slot limit, so that a body is complete before a backend is asked for."""
import pytest

from lib.cases import bad_chunks
from lib.checks import Table, assert_refused, echoed


@pytest.fixture(scope="module")
def table(shared_lab):
    return Table(shared_lab, concurrency=4, limits={"body": "1MiB", "header_bytes": "16KiB"})


def post(fields, body=""):
    return f"POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}"


def chunked(body):
    return post("Transfer-Encoding: chunked", body)


smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

ambiguous = {
    "Content-Length and Transfer-Encoding": post("Content-Length: 5\r\nTransfer-Encoding: chunked", smuggled),
    "Transfer-Encoding and Content-Length": post("Transfer-Encoding: chunked\r\nContent-Length: 5", smuggled),
    "Transfer-Encoding and a Content-Length of 0": post("Transfer-Encoding: chunked\r\nContent-Length: 0", smuggled),
    "Transfer-Encoding and an empty Content-Length": post("Transfer-Encoding: chunked\r\nContent-Length:", smuggled),
    "an empty Transfer-Encoding": post("Transfer-Encoding:", smuggled),
    "an empty Transfer-Encoding and a Content-Length": post("Transfer-Encoding:\r\nContent-Length: 5", smuggled),
    "a Transfer-Encoding that is only a comma": post("Transfer-Encoding: ,", smuggled),
    "an unknown Transfer-Encoding": post("Transfer-Encoding: xchunked", smuggled),
    "a Transfer-Encoding of identity": post("Transfer-Encoding: identity", smuggled),
    "chunked that is not last": post("Transfer-Encoding: chunked, identity", smuggled),
    "chunked twice": post("Transfer-Encoding: chunked, chunked", smuggled),
    "two Transfer-Encodings, both chunked": post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", smuggled),
    "two Transfer-Encodings, the second unknown": post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", smuggled),
    "a quoted chunked": post('Transfer-Encoding: "chunked"', smuggled),
    "chunked with a parameter": post("Transfer-Encoding: chunked;q=1", smuggled),
    "a tab before chunked": post("Transfer-Encoding: \tchunked", smuggled),
    "a tab after chunked": post("Transfer-Encoding: chunked\t", smuggled),
    "chunked with a comma after it": post("Transfer-Encoding: chunked,", smuggled),
    "chunked with a comma before it": post("Transfer-Encoding: ,chunked", smuggled),
    "chunked with a space inside": post("Transfer-Encoding: chun ked", smuggled),
    "chunked after a NUL": post("Transfer-Encoding: \0chunked", smuggled),
    "chunked after a vertical tab": post("Transfer-Encoding: \x0bchunked", smuggled),
    "chunked before a form feed": post("Transfer-Encoding: chunked\x0c", smuggled),
    "chunked after a folded line": post("Transfer-Encoding:\r\n chunked", smuggled),
    "a space before the colon of Transfer-Encoding": post("Transfer-Encoding : chunked", smuggled),
    "a space before the name Transfer-Encoding": post("X-A: b\r\n Transfer-Encoding: chunked", smuggled),
    "Transfer-Encoding in HTTP/1.0": "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + smuggled,
    "two Content-Lengths that differ": post("Content-Length: 5\r\nContent-Length: 6", "hello!"),
    "two Content-Lengths that are equal": post("Content-Length: 5\r\nContent-Length: 5", "hello"),
    "a Content-Length that is a list": post("Content-Length: 5, 6", "hello!"),
    "a Content-Length that is a list of equals": post("Content-Length: 5, 5", "hello"),
    "an empty Content-Length": post("Content-Length:", "hello"),
    "a Content-Length of blanks": post("Content-Length: \t ", "hello"),
    "a tab before a Content-Length": post("Content-Length: \t5", "hello"),
    "a tab after a Content-Length": post("Content-Length: 5\t", "hello"),
    "a tab in Connection": post("Connection: \tclose\r\nContent-Length: 5", "hello"),
    "a quoted Content-Length": post('Content-Length: "5"', "hello"),
    "a Content-Length with a comma before it": post("Content-Length: ,5", "hello"),
    "a Content-Length with a semicolon": post("Content-Length: 5;a=b", "hello"),
    "a Content-Length in digits beyond ASCII": post("Content-Length: \xb2", "hello"),
    "a Content-Length on a folded line": post("Content-Length:\r\n 5", "hello"),
    "a second Content-Length on a folded line": post("Content-Length: 5\r\n 0", "hello"),
    "a space before the colon of Content-Length": post("Content-Length : 5", "hello"),
    "a Content-Length of 2 to the 63rd": post("Content-Length: 9223372036854775808", "hello"),
    "a Content-Length with a plus": post("Content-Length: +5", "hello"),
    "a Content-Length with a minus": post("Content-Length: -5", "hello"),
    "a negative Content-Length of zero": post("Content-Length: -0", ""),
    "a Content-Length in hexadecimal": post("Content-Length: 0x5", "hello"),
    "a Content-Length with a letter": post("Content-Length: 5a", "hello"),
    "a Content-Length with a space inside": post("Content-Length: 1 5", "hello"),
    "a Content-Length with a fraction": post("Content-Length: 5.0", "hello"),
    "a Content-Length with an exponent": post("Content-Length: 1e1", "hello"),
    "a Content-Length with an underscore": post("Content-Length: 1_0", "hello"),
    "a Content-Length after a vertical tab": post("Content-Length: \x0b5", "hello"),
    "a Content-Length with a comma after it": post("Content-Length: 5,", "hello"),
    "a Content-Length of 2 to the 64th": post("Content-Length: 18446744073709551616", "hello"),
    "a Content-Length of 2 to the 64th and 5": post("Content-Length: 18446744073709551621", "hello"),
    "a Content-Length of 400 digits": post("Content-Length: " + "9" * 400, "hello"),
}


@pytest.mark.parametrize("raw", ambiguous.values(), ids=ambiguous.keys())
def test_a_request_is_refused_with_400_that_has(table, raw):
    table.refuses(raw)


@pytest.mark.parametrize("codings", [
    "gzip, chunked", "identity, chunked", "x\r\nTransfer-Encoding: chunked", "gzip,deflate,chunked", "a;b=c, chunked",
])
def test_a_coding_that_nobody_here_can_undo_is_refused_with_501(table, codings):
    table.refuses(post(f"Transfer-Encoding: {codings}", smuggled), 501)


@pytest.mark.parametrize("body", bad_chunks.values(), ids=bad_chunks.keys())
def test_a_chunked_request_is_refused_with_400_that_has(table, body):
    table.refuses(chunked(body))


@pytest.mark.parametrize("raw", ambiguous.values(), ids=ambiguous.keys())
def test_a_request_that_comes_byte_by_byte_is_refused_the_same_that_has(table, raw):
    table.refuses_dripped(raw)


@pytest.mark.parametrize("body", bad_chunks.values(), ids=bad_chunks.keys())
def test_a_chunked_request_that_comes_byte_by_byte_is_refused_the_same_that_has(table, body):
    table.refuses_dripped(chunked(body))


def test_a_chunk_extension_without_end_is_refused(table):
    seen = len(table.backend.seen)
    client = table.proxy.connect().send(chunked("5;" + "a" * 100_000))
    answer = client.read_response()
    assert answer.status in (400, 413, 431), answer.head.raw
    assert answer["x-penstock-reason"].startswith("bad_request")
    table.nothing_more_since(seen)


def test_a_flood_of_small_chunk_extensions_is_refused(table):
    seen = len(table.backend.seen)
    client = table.proxy.connect().send(chunked(("1;" + "a" * 400 + "\r\nx\r\n") * 2000 + "0\r\n\r\n"))
    answer = client.read_response()
    assert answer.status in (400, 413, 431), answer.head.raw
    table.nothing_more_since(seen)


def test_trailers_without_end_are_refused(table):
    seen = len(table.backend.seen)
    client = table.proxy.connect().send(chunked("5\r\nhello\r\n0\r\n" + "X-A: b\r\n" * 10_000))
    answer = client.read_response()
    assert answer.status in (400, 413, 431), answer.head.raw
    table.nothing_more_since(seen)


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Host", "Authorization", "Connection",
                                  "Trailer", "X-Forwarded-For"])
def test_a_trailer_that_would_change_the_request_does_not_reach_the_backend(table, name):
    client = table.proxy.connect().send(chunked(f"5\r\nhello\r\n0\r\n{name}: 7\r\nX-Sum: 1\r\n\r\n"))
    answer = client.read_response()
    if answer.status != 400:
        facts = echoed(answer)
        assert facts.body == "hello"
        assert name.lower() not in [known.lower() for known, _ in facts.trailers]
        assert facts.get(name) != ["7"]


good_bodies = {
    "of a known length": (post("Content-Length: 5", "hello"), "hello"),
    "of length zero": (post("Content-Length: 0"), ""),
    "that is not there": (post("X-A: b"), ""),
    "whose length stands between blanks": (post("Content-Length:   5  ", "hello"), "hello"),
    "whose length has no blank before it": (post("Content-Length:5", "hello"), "hello"),
    "whose length has leading zeros": (post("Content-Length: 0005", "hello"), "hello"),
    "whose field of the length is written in capitals": (post("CONTENT-LENGTH: 5", "hello"), "hello"),
    "of a GET": ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello"),
    "of one chunk": (chunked("5\r\nhello\r\n0\r\n\r\n"), "hello"),
    "of several chunks": (chunked("1\r\nh\r\n4\r\nello\r\n0\r\n\r\n"), "hello"),
    "of no chunk": (chunked("0\r\n\r\n"), ""),
    "whose chunk size is in capitals": (chunked("A\r\n0123456789\r\n0\r\n\r\n"), "0123456789"),
    "whose chunk size has leading zeros": (chunked("0005\r\nhello\r\n000\r\n\r\n"), "hello"),
    "whose chunks have extensions": (chunked('5;a;b="c; d,=";e=f\r\nhello\r\n0;g\r\n\r\n'), "hello"),
    "whose coding is written in capitals": (post("Transfer-Encoding: CHUNKED", "5\r\nhello\r\n0\r\n\r\n"), "hello"),
    "whose coding stands between blanks": (post("Transfer-Encoding:   chunked  ", "5\r\nhello\r\n0\r\n\r\n"),
                                           "hello"),
    "of a GET in chunks": ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                           "hello"),
    "with a last chunk of many zeros": (chunked("5\r\nhello\r\n00000000\r\n\r\n"), "hello"),
    "that looks like chunks but has a length": (post("Content-Length: 10", "5\r\nhello\r\n"), "5\r\nhello\r\n"),
    "with line ends and zeros in it": (post("Content-Length: 9", "\r\n0\r\n\r\n\0\r"), "\r\n0\r\n\r\n\0\r"),
    "of an HTTP/1.0 request": ("POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
                               "hello"),
}


@pytest.mark.parametrize("raw, body", good_bodies.values(), ids=good_bodies.keys())
def test_a_body_reaches_the_backend_whole(table, raw, body):
    facts = table.passes(raw)
    assert facts.body == body
    # One framing, and one that the backend can trust.
    assert len(facts.get("content-length")) + len(facts.get("transfer-encoding")) <= 1


@pytest.mark.parametrize("raw, body", good_bodies.values(), ids=good_bodies.keys())
def test_a_body_that_comes_byte_by_byte_is_the_same(table, raw, body):
    client = table.proxy.connect().drip(raw)
    assert echoed(client.read_response()).body == body


def test_trailers_reach_the_backend_as_trailers(table):
    client = table.proxy.connect()
    client.send(post("TE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked",
                     "5\r\nhello\r\n0\r\nX-Sum: 42\r\nX-More: b\r\n\r\n"))
    facts = echoed(client.read_response())
    assert [tuple(field) for field in facts.trailers] == [("X-Sum", "42"), ("X-More", "b")]
    assert "x-sum" not in facts.names


def test_large_trailers_reach_the_backend(table):
    fields = [(f"X-{number}", "t" * 100) for number in range(50)]
    client = table.proxy.connect().send(chunked("5\r\nhello\r\n0\r\n"))
    for name, value in fields:
        client.send(f"{name}: {value}\r\n")
    facts = echoed(client.send("\r\n").read_response())
    assert [tuple(field) for field in facts.trailers] == fields


def test_bytes_behind_a_request_of_http_1_0_without_a_length_are_no_body_and_no_request(table):
    seen = len(table.backend.seen)
    client = table.proxy.connect().send("POST / HTTP/1.0\r\nHost: a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert echoed(client.read_response()).body == ""
    client.expect_end()
    table.nothing_more_since(seen + 1)


def test_a_broken_chunk_of_a_body_that_streams_never_looks_complete_to_the_backend(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    client.send(chunked("5\r\nhello\r\n"))
    at_work = backend.next_request()
    assert at_work.read_chunk() == b"hello"
    client.send("5\r\nhello!\r\n0\r\n\r\n")
    assert_refused(client.read_response(), 400, "bad_request")
    client.expect_end()
    rest = at_work.read_to_end()
    assert b"0\r\n\r\n" not in rest and b"!" not in rest


def test_a_body_shorter_than_its_length_never_looks_complete_to_the_backend(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    client.send(post("Content-Length: 10", "hello"))
    at_work = backend.next_request()
    at_work.expect("hello")
    client.close()
    at_work.expect_gone()
