"""Request lines and header fields: what is refused, and what passes as it is. No backend hears of a refused one."""
import pytest

from lib.checks import Table, echoed


@pytest.fixture(scope="module")
def table(shared_lab):
    return Table(shared_lab)


def with_field(line):
    return f"GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"


request_lines = {
    "two spaces before the target": "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces before the version": "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space after the version": "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a space before the method": " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tabs instead of spaces": "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "no target": "GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "no version, as HTTP 0.9": "GET /\r\n\r\n",
    "a version in lower case": "GET / http/1.1\r\nHost: a\r\n\r\n",
    "a version of one digit": "GET / HTTP/1\r\nHost: a\r\n\r\n",
    "a version with two digits before the dot": "GET / HTTP/11.1\r\nHost: a\r\n\r\n",
    "a version with two digits after the dot": "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    "bytes after the version": "GET / HTTP/1.1x\r\nHost: a\r\n\r\n",
    "another protocol": "GET / RTSP/1.0\r\nHost: a\r\n\r\n",
    "a method with a forbidden character": "G{T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a NUL before the method": "\0GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the path": "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab in the path": "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
    "a NUL in the path": "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a DEL in the path": "GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment in the path": "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment in the query": "GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n",
    "a letter beyond ASCII in the path": "GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the query": "GET /a?b c HTTP/1.1\r\nHost: a\r\n\r\n",
    "a control character in the query": "GET /a?b\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "only a query": "GET ?a HTTP/1.1\r\nHost: a\r\n\r\n",
    "an authority, but not CONNECT": "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    "another scheme than http": "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "an absolute target with a port that is no number": "GET http://a:x/ HTTP/1.1\r\nHost: a:x\r\n\r\n",
    "an absolute target with a broken IPv6 address": "GET http://[::1/ HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "a bare LF before it": "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a bare CR before it": "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "many empty lines before it": "\r\n" * 20 + "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "nothing but its line end, without a method": " \r\nHost: a\r\n\r\n",
    "a path without its slash": "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "an asterisk, but not OPTIONS": "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "user information in the target": "GET http://me:secret@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "an absolute target without a host": "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a bare LF at its end": "GET / HTTP/1.1\nHost: a\r\n\r\n",
    "a bare CR at its end": "GET / HTTP/1.1\rHost: a\r\n\r\n",
    "the bytes of a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
}

fields = {
    "there is no Host": "GET / HTTP/1.1\r\n\r\n",
    "there are two Hosts": "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "there are two equal Hosts": "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "the Host has a space": "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "the Host has a slash": "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "the Host has user information": "GET / HTTP/1.1\r\nHost: me@a\r\n\r\n",
    "the Host has a question mark": "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
    "the Host has a number sign": "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
    "the Host has a backslash": "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n",
    "the Host has a quote": "GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n",
    "the Host has a semicolon": "GET / HTTP/1.1\r\nHost: a;b\r\n\r\n",
    "the Host has an escape": "GET / HTTP/1.1\r\nHost: a%20b\r\n\r\n",
    "the Host has a letter beyond ASCII": "GET / HTTP/1.1\r\nHost: \xe9\r\n\r\n",
    "the Host has a tab inside": "GET / HTTP/1.1\r\nHost: a\tb\r\n\r\n",
    "the Host has a scheme": "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n",
    "the Host has a port beyond 65535": "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
    "the Host has a port below zero": "GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n",
    "the Host is only a port": "GET / HTTP/1.1\r\nHost: :80\r\n\r\n",
    "the Host has bytes behind its bracket": "GET / HTTP/1.1\r\nHost: [::1]b\r\n\r\n",
    "there are two Hosts, in HTTP/1.0 too": "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "the second Host hides behind a space": "GET / HTTP/1.1\r\nHost: a\r\nHost : b\r\n\r\n",
    "the second Host is on a folded line": "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "the Host is a list": "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "the Host has a port that is no number": "GET / HTTP/1.1\r\nHost: a:http\r\n\r\n",
    "the Host has two ports": "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
    "the Host has an open bracket": "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "a space stands before the colon": with_field("X-A : b"),
    "a tab stands before the colon": with_field("X-A\t: b"),
    "a space stands before the colon of Host": "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "a name is empty": with_field(": b"),
    "a name is only a space": with_field(" : b"),
    "a name has a space": with_field("X A: b"),
    "a name has a NUL": with_field("X\0A: b"),
    "a name has a bracket": with_field("X(A): b"),
    "a name has a quote": with_field('X"A: b'),
    "a name has a DEL": with_field("X\x7fA: b"),
    "a name has a bare CR": with_field("X\rA: b"),
    "a name has a bare LF": with_field("X\nA: b"),
    "a name has a letter beyond ASCII": with_field("X-\xe9: b"),
    "a line has no colon": with_field("X-A"),
    "a value goes on in the next line, after a space": with_field("X-A: b\r\n c"),
    "a value goes on in the next line, after a tab": with_field("X-A: b\r\n\tc"),
    "the first field begins with a space": "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "a value has a NUL": with_field("X-A: b\0c"),
    "a value has a bare CR": with_field("X-A: b\rc"),
    "a value has a bare CR before a name": with_field("X-A: b\rTransfer-Encoding: chunked"),
    "a value has a bare LF": with_field("X-A: b\nc"),
    "a value has a control character": with_field("X-A: b\x01c"),
    "a value has a DEL": with_field("X-A: b\x7fc"),
    "a field ends with a bare LF": "GET / HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n",
    "a field ends with two CRs": "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
    "a value has an escape of a terminal": with_field("X-A: \x1b[31m"),
    "a value has a vertical tab": with_field("X-A: b\x0bc"),
    "a value has a bare LF before a name": with_field("X-A: b\nTransfer-Encoding: chunked"),
    "all lines end with bare LFs": "GET / HTTP/1.1\nHost: a\n\n",
    "the head ends with a bare LF": "GET / HTTP/1.1\r\nHost: a\r\n\n",
    "the head ends with CR and something else": "GET / HTTP/1.1\r\nHost: a\r\n\rX",
    "a second version of a length hides behind a long name":
        with_field("Content-Length0" + "a" * 265 + ": 5\r\nContent-Length : 5"),
}


@pytest.mark.parametrize("raw", request_lines.values(), ids=request_lines.keys())
def test_a_request_line_is_refused_with_400_that_has(table, raw):
    table.refuses(raw)


paths = {
    "a broken escape": "/a%zz", "half an escape": "/a%2", "an escaped NUL": "/a%00b",
    "an escaped line end": "/a%0d%0ab",
    "a climb above the root": "/../a", "an escaped climb above the root": "/%2e%2e/a",
    "a climb behind an escaped slash": "/a/..%2fb", "a climb behind a backslash": "/a/..\\b",
}


@pytest.mark.parametrize("path", paths.values(), ids=paths.keys())
def test_a_path_is_refused_with_400_that_has(table, path):
    table.refuses(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")


def test_connect_is_refused_and_nothing_behind_it_goes_anywhere(table):
    table.refuses("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nGET /early HTTP/1.1\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize("method", ["FROBNICATE", "get", "Get", "GETT", "GE", "G-E.T!", "A" * 3000])
def test_a_method_that_nobody_knows_is_refused_with_501(table, method):
    table.refuses(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n", 501)


@pytest.mark.parametrize("target", ["a", "a:", ":80", "a:x", "me@a:80", "http://a:80/", "a:80/x", "/"])
def test_connect_is_refused_whatever_it_asks_for(table, target):
    table.refuses(f"CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n")


def test_connect_with_a_body_is_refused(table):
    table.refuses("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\nhello")


def test_a_field_name_that_is_longer_than_any_is_refused_with_431(table):
    table.refuses(with_field("a" * 2000 + ": b"), 431)


@pytest.mark.parametrize("expected", ["miracles", "100-continue, miracles", "200-ok", "",
                                      "100-continue\r\nExpect: miracles"])
def test_an_expectation_that_nobody_knows_is_refused_with_417(table, expected):
    table.refuses(f"GET / HTTP/1.1\r\nHost: a\r\nExpect: {expected}\r\n\r\n", 417)


@pytest.mark.parametrize("raw", fields.values(), ids=fields.keys())
def test_a_head_is_refused_with_400_when(table, raw):
    table.refuses(raw)


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/1.2", "HTTP/9.9"])
def test_versions_other_than_1_0_and_1_1_are_refused_with_505(table, version):
    table.refuses(f"GET / {version}\r\nHost: a\r\n\r\n", 505)


def test_a_refusal_comes_as_soon_as_the_broken_line_is_there(table):
    table.refuses("GET / HTTP/1.1\r\nHost: a\r\nX A: b\r\n")


def test_the_rule_that_was_broken_is_named_in_the_refusal(table):
    reasons = set()
    for raw in (fields["there is no Host"], fields["there are two Hosts"], fields["a name is empty"]):
        client = table.proxy.connect().send(raw)
        reasons.add(client.read_response()["x-penstock-reason"])
    assert len(reasons) == 3 and "bad_request" not in reasons, reasons


targets = [
    "/", "//a/b", "/a/b?c=d&e", "/a/%2e%2e/%2F?%00", "/a//b/./../c", "/?", "/a?b?c", "/;p=1,2!$&'()*+:@-._~",
    "/x|y\"<>[]{}^`",
]


@pytest.mark.parametrize("target", targets)
def test_a_target_reaches_the_backend_as_it_is(table, target):
    assert table.passes(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").line == f"GET {target} HTTP/1.1"


def test_an_absolute_target_reaches_the_backend_as_a_path_and_a_host(table):
    facts = table.passes("GET http://example.com:81/x?y=1 HTTP/1.1\r\nHost: example.com:81\r\n\r\n")
    assert facts.line == "GET /x?y=1 HTTP/1.1"
    assert facts.get("host") == ["example.com:81"]


@pytest.mark.parametrize("target, host, seen", [
    ("http://a", "a", "/"), ("http://a?b", "a", "/?b"), ("HTTP://A/x", "a", "/x"), ("http://a:80/x", "a", "/x"),
    ("http://a/x", "a:80", "/x"), ("https://a/x", "a", "/x"), ("https://a:443/x", "a", "/x"),
    ("http://[::1]:81/x", "[::1]:81", "/x"),
])
def test_an_absolute_target_reaches_the_backend_as_a_path(table, target, host, seen):
    facts = table.passes(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    assert facts.line == f"GET {seen} HTTP/1.1"
    assert len(facts.get("host")) == 1


def test_an_absolute_target_makes_up_for_the_host_that_http_1_0_does_not_send(table):
    client = table.proxy.connect().send("GET http://b.example/x HTTP/1.0\r\n\r\n")
    facts = echoed(client.read_response())
    assert (facts.line, facts.get("host")) == ("GET /x HTTP/1.1", ["b.example"])


@pytest.mark.parametrize("target, host", [
    ("http://real/x", "other"), ("http://a:81/x", "a"), ("http://a/x", "a:81"), ("https://a/x", "a:80"),
    ("http://a/x", ""), ("http://a.b/x", "a"),
])
def test_an_absolute_target_that_differs_from_the_host_is_refused(table, target, host):
    table.refuses(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")


@pytest.mark.parametrize("target", ["*", "http://a"])
def test_options_of_the_whole_server_passes(table, target):
    assert table.passes(f"OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n").line == "OPTIONS * HTTP/1.1"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "SEARCH"])
def test_a_method_reaches_the_backend_as_it_is(table, method):
    facts = table.passes(f"{method} /m HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    assert (facts.line, facts.body) == (f"{method} /m HTTP/1.1", "hi")


good_fields = {
    "without a space after the colon": ("X-A:b", ["b"]),
    "with spaces and tabs around its value": ("X-A: \t b \t ", ["b"]),
    "with an empty value": ("X-A:", [""]),
    "with a value of spaces": ("X-A:    ", [""]),
    "with spaces inside its value": ("X-A: b   c", ["b   c"]),
    "with a name of another case": ("x-a: b", ["b"]),
    "with a percent and a backslash": ("X-A: %0d%0a\\r\\n", ["%0d%0a\\r\\n"]),
    "with a colon in its value": ("X-A: b: c", ["b: c"]),
    "with every character that a name may have": ("!#$%&'*+-.^`|~09azAZ: b", None),
    "with bytes beyond ASCII in its value": ("X-A: \xe9\xff", ["\xe9\xff"]),
    "with tabs inside its value": ("X-A: b\tc", ["b\tc"]),
    "twice, in this order": ("X-A: 2\r\nX-B: 0\r\nX-A: 1", ["2", "1"]),
    "with a quoted list": ('X-A: "b, c", d', ['"b, c", d']),
}


@pytest.mark.parametrize("line, values", good_fields.values(), ids=good_fields.keys())
def test_a_field_reaches_the_backend_that_comes(table, line, values):
    facts = table.passes(with_field(line))
    if values is None:
        name, _, value = line.partition(": ")
        assert "." in name and facts.get(name) in ([value], [])    # may be dropped for its dot (see forwarding)
    else:
        assert facts.get("x-a") == values


def test_a_host_may_be_empty(table):
    assert table.passes("GET / HTTP/1.1\r\nHost:\r\n\r\n").get("host") == [""]


def test_empty_lines_before_a_request_are_passed_over(table):
    assert table.passes("\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n").line == "GET /x HTTP/1.1"


def test_a_host_may_be_an_ipv6_address_with_a_port(table):
    assert table.passes("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n").get("host") == ["[::1]:8080"]


def test_a_head_that_comes_byte_by_byte_means_the_same_as_at_once(table):
    raw = ("POST /drip?x=%20 HTTP/1.1\r\nHost: a.example:8080\r\nX-A:  b \r\nX-Empty:\r\nX-A: c\r\n"
           "x-request-id: fixed-1\r\nContent-Length: 5\r\n\r\nhello")
    at_once = table.passes(raw)
    client = table.proxy.connect().drip(raw)
    dripped = echoed(client.read_response())
    assert (dripped.raw, dripped.body) == (at_once.raw, at_once.body)


@pytest.mark.parametrize("raw", [*request_lines.values(), *fields.values()], ids=[*request_lines, *fields])
def test_a_head_that_comes_byte_by_byte_is_refused_the_same_when(table, raw):
    table.refuses_dripped(raw)


@pytest.mark.parametrize("step", [31_000, 1000, 17])
def test_a_head_that_is_larger_than_one_read_reaches_the_backend_whole(table, step):
    # The default limit is 32 KiB.
    lines = "".join(f"X-{number}: {'v' * 1000}\r\n" for number in range(30))
    raw = f"POST / HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: 5\r\n\r\nhello"
    facts = echoed(table.proxy.connect().drip(raw, step).read_response())
    assert facts.body == "hello"
    assert [facts.get(f"X-{number}") for number in range(30)] == [["v" * 1000]] * 30


def test_a_long_target_reaches_the_backend_whole(table):
    target = "/" + "p" * 8000 + "?" + "q" * 8000
    assert table.passes(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").line == f"GET {target} HTTP/1.1"
