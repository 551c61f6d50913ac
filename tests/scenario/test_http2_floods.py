"""What costs a client nothing and us work: each flood and each malformed request ends at a bound, is counted, and
leaves everybody else served as before. `Bound` says what the bound is: what the backend saw, memory, and the turns of
the loops, which are what CPU time is spent in."""
import contextlib
import os
import time

import pytest

from lib import frames
from lib.frames import (DATA, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING, PRIORITY, PROTOCOL_ERROR, RST_STREAM,
                        Frames, continuation, data, encode, frame, headers, ping, request, reset,
                        settings, window_update)
from lib.pairs import PairBackend
from lib.wire import Cut, dial, eventually

# Beside what any connection takes.
most_growth_kib = 24 * 1024 if not os.environ.get("PENSTOCK_SANITIZED") else 400 * 1024


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


class Bound:
    """A proxy with one echoing backend and four loops, and a bystander on a connection of its own."""

    def __init__(self, lab, backend, **more):
        self.backend = backend
        self.proxy = lab.penstock(servers=[backend], threads=4, **more)
        self.opened = []
        self.ask()
        self.before = rss_kib(self.proxy.process.pid)
        self.turns_before, self.bytes_before = self.turns()

    def connect(self):
        self.opened.append(Frames(dial(self.proxy.address)))
        return self.opened[-1]

    def ask(self):
        """A request of somebody else, over HTTP/2 and over HTTP/1."""
        client = self.connect().hello()
        client.send(headers(1, request("GET", "/bystander"), end=True))
        assert client.status(1) == 200
        client.close()
        assert self.proxy.get("/bystander").status == 200

    def bystanders(self):
        return sum(" /bystander " in line for line in self.lines())

    def lines(self):
        return [seen["line"] for seen in list(self.backend.seen)]

    def work(self):
        return len(self.lines()) - self.bystanders()

    def turns(self):
        """(turns of all data loops, bytes that they read from clients) so far"""
        metrics = self.proxy.metrics()
        return (metrics.value("penstock_loop_turns_total"),
                metrics.value("penstock_bytes_total", side="client", direction="in"))

    def check_turns(self):
        """Each turn has a cause that somebody paid for: bytes that came, a request (some four on both sides together),
        a deadline now and then. A loop that turned without any would have made tens of thousands by now."""
        turns, taken = self.turns()
        turns, taken = turns - self.turns_before, taken - self.bytes_before
        most = 200 + taken / 256 + 8 * len(self.lines())
        assert turns <= most, f"{turns} turns for {taken} bytes and {len(self.lines())} requests"

    def check(self, kind=None, most_work=None):
        self.ask()
        self.check_turns()
        if kind:
            self.proxy.wait_metric(lambda m: m.value("penstock_http2_floods_total", kind=kind) >= 1, f"a {kind} flood")
        if most_work is not None:
            assert self.work() <= most_work, self.work()
        grown = rss_kib(self.proxy.process.pid) - self.before
        assert grown < most_growth_kib, f"{grown} KiB more than before"
        assert self.proxy.status()["memory"]["reserved"] <= 8 << 20


@pytest.fixture
def bound(lab, echo):
    made = []

    def make(**more):
        made.append(Bound(lab, echo(), **more))
        return made[-1]

    yield make
    for one in made:
        for client in one.opened:
            client.close()


def expect_calm(client):
    with contextlib.suppress(Cut):
        client.read_to_end()
    told = client.has_come(GOAWAY)
    # A client that writes on may lose our last words to the reset of its own doing.
    assert client.ended == "reset" or told[-1].number(4) == ENHANCE_YOUR_CALM, (client.ended, told)


# ---- floods

def test_streams_opened_and_reset_at_once_are_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    burst = b"".join(headers(n, request("GET", f"/rapid/{n}"), end=True) + reset(n) for n in range(1, 20001, 2))
    client.send(burst)
    expect_calm(client)
    table.check("reset", most_work=250)


def test_streams_reset_a_moment_later_are_cut_off_too(bound):
    table = bound()
    client = table.connect().hello()
    number = 1
    with contextlib.suppress(Cut):
        for _ in range(200):
            batch = b"".join(headers(n, request("GET", f"/later/{n}"), end=True) for n in range(number, number + 20, 2))
            client.send(batch + ping())
            client.next_frame(PING)
            client.send(b"".join(reset(n) for n in range(number, number + 20, 2)))
            number += 20
            if client.ended:
                break
    # Those that were answered in time are not in vain, and not counted.
    table.check(most_work=2000)


def test_resets_that_we_are_made_to_send_are_cut_off(bound):
    table = bound(limits={"max_concurrent_streams": 100})
    client = table.connect().hello()
    client.flood(b"".join(headers(n, request("POST", f"/made/{n}")) + window_update(n, 0x7fffffff)
                          for n in range(1, 4001, 2)))
    expect_calm(client)
    table.check("provoked_reset", most_work=200)


def test_a_window_update_of_nothing_ends_the_connection(bound):
    table = bound()
    client = table.connect().hello()
    client.send(headers(1, request("POST", "/made")) + window_update(1, 0))
    assert client.goaway()[1] == PROTOCOL_ERROR
    table.check(most_work=1)


def test_heads_for_streams_that_are_over_are_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    client.flood(headers(1, request("GET", "/over"), end=True))
    client.read_to_end()
    assert client.ended
    table.check(most_work=1)


def test_bodies_of_a_wrong_length_are_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    wrong = request("POST", "/wrong", [("content-length", "5")])
    client.flood(b"".join(headers(n, wrong) + data(n, b"more than five", end=True) for n in range(1, 4001, 2)))
    expect_calm(client)
    table.check("provoked_reset", most_work=200)


def test_continuation_without_end_is_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    client.send(headers(1, request("GET", "/"), end=True, done=False))
    client.flood(continuation(1, encode([("x", "y" * 100)]), done=False))
    expect_calm(client)
    table.check("continuation", most_work=0)


def test_empty_continuation_is_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    client.send(headers(1, request("GET", "/"), end=True, done=False))
    client.flood(continuation(1, done=False))
    expect_calm(client)
    table.check("continuation", most_work=0)


def test_pings_are_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    client.flood(ping() * 1000)
    expect_calm(client)
    table.check("ping", most_work=0)


def test_a_ping_for_each_answer_is_no_flood(bound):
    """As grpc-go measures its way: one whenever DATA has come and none is under way."""
    table = bound()
    client = table.connect().hello()
    client.send(window_update(0, 1 << 30))
    for number in range(1, 6001, 2):
        client.send(headers(number, request("GET", "/measured"), end=True))
        client.next_frame(DATA, number)
        client.send(ping())
        client.next_frame(PING)
    client.send(headers(6001, request("GET", "/measured"), end=True))
    assert client.status(6001) == 200
    table.check(most_work=3001)
    assert not table.proxy.metrics().value("penstock_http2_floods_total", kind="ping")


def test_pings_whose_answers_nobody_reads_are_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.sock.sendall(ping() * 100_000)
    table.check("ping", most_work=0)


def test_settings_are_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    client.flood(settings([(3, 100)]) * 100)
    expect_calm(client)
    table.check("settings", most_work=0)


def test_settings_with_countless_entries_are_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    client.flood(settings([(0x99, 1)] * 2000))
    client.read_to_end()
    assert client.ended
    table.check(most_work=0)


def test_empty_data_frames_are_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    client.send(headers(1, request("POST", "/empty")))
    client.flood(data(1) * 100)
    expect_calm(client)
    table.check("empty_data", most_work=1)


def test_data_frames_of_padding_alone_are_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    client.send(headers(1, request("POST", "/padding")))
    client.flood(frame(DATA, 1, frames.PADDED, b"\x03" + bytes(3)) * 100)
    expect_calm(client)
    table.check("empty_data", most_work=1)


def test_priority_frames_are_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    client.flood(b"".join(frame(PRIORITY, n, 0, b"\0\0\0\0\x10") for n in range(1, 2001, 2)))
    expect_calm(client)
    table.check("priority", most_work=0)


def test_frames_of_unknown_kinds_keep_no_connection_open(bound):
    table = bound(limits={"client_header_timeout": "300ms"})
    client = table.connect().hello()
    client.flood(frame(0xbb, 0, 0, b"x") * 100, most=1 << 40)
    client.read_to_end()
    table.check(most_work=0)


def test_window_updates_are_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    client.flood(window_update(0, 1) * 100)
    expect_calm(client)
    table.check("window_update", most_work=0)


def test_a_head_that_grows_when_it_is_decoded_is_cut_off(bound):
    table = bound()
    client = table.connect().hello()
    # One large field into HPACK's table, then named by one byte, again and again.
    large = b"\x40" + encode([("a", "v" * 3000)])[1:]
    client.send(headers(1, encode(request("GET", "/")) + large + b"\xbe" * 12000, end=True))
    expect_calm(client)
    table.check("header_bomb", most_work=0)


def test_clients_that_never_open_their_window_hold_no_memory_and_are_reset(bound):
    table = bound(limits={"client_write_timeout": "300ms"})
    clients = []
    for _ in range(20):
        client = table.connect().hello([(4, 0)])        # SETTINGS_INITIAL_WINDOW_SIZE 0
        client.send(b"".join(headers(n, request("GET", f"/stalled/{n}"), end=True) for n in range(1, 101, 2)))
        clients.append(client)
    for client in clients:
        for n in range(1, 101, 2):
            assert client.status(n) == 200
        for n in range(1, 101, 2):
            client.next_frame(RST_STREAM, n)
    table.check(most_work=20 * 50)
    table.proxy.wait_in_flight(0)


def test_a_client_that_reads_nothing_at_all_is_closed(lab):
    backend = lab.backend(PairBackend)
    proxy = lab.penstock(servers=[backend], threads=4, limits={"client_write_timeout": "300ms"})
    client = Frames(dial(proxy.address)).hello([(4, (1 << 31) - 1)])
    client.send(window_update(0, 1 << 30))
    before = rss_kib(proxy.process.pid)
    # More than the kernel takes for a socket.
    client.send(b"".join(headers(n, request("GET", "/give/200000"), end=True) for n in range(1, 201, 2)))
    proxy.wait_metric(lambda m: m.value("penstock_connections_total", side="client") == 1)
    proxy.wait_metric(lambda m: m.value("penstock_connections", side="client") == 0, "its end")
    assert rss_kib(proxy.process.pid) - before < most_growth_kib + 100 * 200
    assert proxy.get("/give/1").status == 200
    client.close()


# ---- malformed requests: an answer of 400, or a reset; never at the backend

good = request("GET", "/malformed")


def with_field(name, value):
    return request("GET", "/malformed", [(name, value)])


malformed = {
    "an upper-case name": with_field("X-Upper", "a"),
    "a name with a space": with_field("x y", "a"),
    "a name with a colon": with_field("x:", "a"),
    "an empty name": with_field("", "a"),
    "CR LF in a value": with_field("x", "a\r\nevil: 1"),
    "LF in a value": with_field("x", "a\nevil: 1"),
    "NUL in a value": with_field("x", "a\0b"),
    "connection": with_field("connection", "close"),
    "transfer-encoding": with_field("transfer-encoding", "chunked"),
    "keep-alive": with_field("keep-alive", "1"),
    "proxy-connection": with_field("proxy-connection", "close"),
    "upgrade": with_field("upgrade", "h2c"),
    "te other than trailers": with_field("te", "gzip"),
    "host that differs": with_field("host", "evil"),
    "two hosts": request("GET", "/malformed", [("host", "a"), ("host", "a")]),
    "a space in the path": request("GET", "/malformed HTTP/1.1"),
    "CR LF in the path": request("GET", "/malformed HTTP/1.1\r\nevil: 1\r\n\r\n"),
    "NUL in the path": request("GET", "/malformed\0"),
    "an absolute path": request("GET", "http://evil/malformed"),
    "an empty path": request("GET", ""),
    "no path": [line for line in good if line[0] != ":path"],
    "no method": [line for line in good if line[0] != ":method"],
    "no scheme": [line for line in good if line[0] != ":scheme"],
    "no authority and no host": [line for line in good if line[0] != ":authority"],
    "two paths": good + [(":path", "/other")],
    "a pseudo-header field behind another": [("x", "y")] + good,
    "a status": request("GET", "/malformed") [:4] + [(":status", "200")],
    "an unknown pseudo-header field": good[:4] + [(":evil", "1")],
    "CR LF in the method": request("GET / HTTP/1.1\r\nevil: 1\r\n\r\n", "/malformed"),
    "a space in the method": request("GET /", "/malformed"),
    "CR LF in the authority": request("GET", "/malformed", authority="a\r\nevil: 1"),
    "userinfo in the authority": request("GET", "/malformed", authority="user@a"),
    "an odd scheme": request("GET", "/malformed", scheme="gopher"),
    "a length that is no number": with_field("content-length", "+5"),
    "two lengths": request("GET", "/malformed", [("content-length", "0"), ("content-length", "0")]),
    "a length and no body": with_field("content-length", "5"),
    "extended CONNECT that is none": good[:4] + [(":protocol", "websocket")],
    "plain CONNECT": [(":method", "CONNECT"), (":authority", "a:1")],
}


@pytest.fixture(scope="module")
def shared(shared_lab):
    from lib.backends import EchoBackend
    backend = shared_lab.backend(EchoBackend)
    made = Bound(shared_lab, backend)
    yield made
    for client in made.opened:
        client.close()


@pytest.mark.parametrize("fields", malformed.values(), ids=malformed.keys())
def test_a_malformed_request_never_reaches_a_backend(shared, fields):
    seen = shared.work()
    client = shared.connect().hello()
    client.send(headers(1, fields, end=True))
    client.send(headers(3, request("GET", "/bystander"), end=True))
    answer = client.next_frame(HEADERS, 3)      # the connection goes on
    assert dict(answer.fields)[":status"] == "200"
    client.send(ping())
    client.next_frame(PING)
    told = client.has_come(HEADERS, 1)
    if told:
        assert int(dict(told[0].fields)[":status"]) in (400, 501), told[0].fields
        assert "bad_request" in dict(told[0].fields)["x-penstock-reason"]
    else:
        assert client.has_come(RST_STREAM, 1)[0].number() == PROTOCOL_ERROR
    assert shared.work() == seen, shared.lines()[-3:]
    client.close()


def test_a_malformed_request_leaves_its_line_in_the_log_and_is_counted(bound):
    table = bound()
    client = table.connect().hello()
    for number, fields in enumerate(malformed.values()):
        # Some are answered, some are reset without a word of ours: nobody must look into the difference.
        client.send(headers(1 + 2 * number, [*fields, ("user-agent", f"case {number}")], end=True))
    client.send(ping())
    client.next_frame(PING)
    total = len(malformed)
    table.proxy.wait_metric(lambda m: m.value("penstock_requests_total", code="400") +
                            m.value("penstock_requests_total", code="501") == total, f"{total} refused requests")
    resets = table.proxy.metrics().value("penstock_http2_resets_total", side="client", error="protocol_error")
    assert 0 < resets == len(client.has_come(RST_STREAM))
    lines = eventually(lambda: (lambda lines: lines if len(lines) == total else None)(
        [line for line in table.proxy.access_log() if line.get("status") in (400, 501)]),
                       f"{total} log lines")
    assert {line["reason"] for line in lines} == {"bad_request"} and all(line["rule"] for line in lines), lines
    table.check(most_work=0)


def test_a_malformed_request_does_not_run_the_head_timeout_of_its_connection(bound):
    table = bound(limits={"client_header_timeout": "2s"})
    client = table.connect().hello()
    client.send(headers(1, with_field("connection", "close"), end=True))
    client.next_frame(RST_STREAM, 1)
    until = time.monotonic() + 3
    number = 1
    while time.monotonic() < until:
        number += 2
        client.send(headers(number, request("GET", "/bystander"), end=True))
        assert client.status(number) == 200
        client.send(headers(number + 2, with_field("connection", "close"), end=True))
        number += 2
        client.next_frame(RST_STREAM, number)
        time.sleep(0.1)


def test_a_body_that_is_not_as_long_as_it_said_is_logged_as_that(bound):
    table = bound()
    client = table.connect().hello()
    for number, body in ((1, b"four"), (3, b"sixsix")):
        client.send(headers(number, request("POST", f"/length/{number}", [("content-length", "5")])) +
                    data(number, body, end=True))
        assert client.next_frame(RST_STREAM, number).number() == PROTOCOL_ERROR
        line = table.proxy.wait_access(lambda line, number=number: line["target"] == f"/length/{number}")
        assert (line["status"], line["reason"], line["rule"]) == (400, "bad_request", "h2_body_differs")


def test_trailers_that_are_none_are_logged_as_that(bound):
    table = bound()
    client = table.connect().hello()
    client.send(headers(1, request("POST", "/trailers")) + data(1, b"body") + headers(1, [("x", "y")]))
    assert client.next_frame(RST_STREAM, 1).number() == PROTOCOL_ERROR
    line = table.proxy.wait_access(lambda line: line["target"] == "/trailers")
    assert (line["status"], line["reason"], line["rule"]) == (400, "bad_request", "h2_malformed")


def test_a_body_shorter_or_longer_than_it_said_never_becomes_a_whole_request(shared):
    seen = len(shared.lines())
    for body in (b"four", b"sixsix"):
        client = shared.connect().hello()
        client.send(headers(1, request("POST", "/length", [("content-length", "5")])) + data(1, body, end=True))
        assert client.next_frame(RST_STREAM, 1).number() == PROTOCOL_ERROR
        client.close()
    shared.ask()
    assert not [line for line in shared.lines()[seen:] if "/length" in line]


def test_a_head_over_its_limits_is_431(shared):
    for fields in ([("x", "y" * 40_000)], [(f"x-{n}", "y") for n in range(150)]):
        client = shared.connect().hello()
        block = encode(request("GET", "/large", fields))
        parts = [block[at:at + 16000] for at in range(0, len(block), 16000)]
        client.send(frame(HEADERS, 1, frames.END_STREAM | (frames.END_HEADERS if len(parts) == 1 else 0), parts[0]))
        for at, part in enumerate(parts[1:], 2):
            client.send(continuation(1, part, done=at == len(parts)))
        assert client.status(1) == 431
        client.close()


def test_bytes_that_are_no_http2_end_the_connection(shared):
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\xff" * 100):
        client = shared.connect().hello()
        client.send(rubbish * 10)
        client.read_to_end()
        assert client.ended
    shared.ask()
