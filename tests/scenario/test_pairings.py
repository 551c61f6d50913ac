"""Every pairing of client and backend (h1, h2c, h2s, h1s: HTTP/1.1 and HTTP/2, in clear and under TLS) does the same.
One penstock stands before four backends; the path's first part chooses."""
import hashlib
import json
import shutil
import tempfile

import pytest

from lib.backends import unused_address
from lib.certificates import Authority
from lib.pairs import PairBackend, PairClient, is_h2, kinds, over_tls, pattern
from lib.wire import eventually

sizes = {"0 B": 0, "1 B": 1, "64 KiB": 64 << 10, "10 MiB": 10 << 20}

# Upstreams of each backend: with these settings, under these names.
flavours = {
    "plain": {},
    "one": {"concurrency": 1, "queue": {"size": 1, "timeout": "20s"}},
    "quick": {"timeouts": {"first_byte": "150ms"}},
    "steady": {"timeouts": {"idle": "150ms"}},
    "short": {"timeouts": {"request": "150ms"}},
    "patient": {"concurrency": 1, "queue": {"size": 1, "timeout": "100ms"}},
    "stalls": {"timeouts": {"client_stall": "150ms"}, "concurrency": 1, "buffer": {"request": "16KiB"}},
}


class House:
    """One penstock, two listeners (in clear and TLS), four backends in all their flavours."""

    def __init__(self, folder, lab):
        self.authority = Authority(folder)
        self.folder = folder
        self.lab = lab
        self.backends = {kind: lab.backend(PairBackend, speaks=kind, authority=self.authority) for kind in kinds}
        self.proxy = lab.penstock(self.config(self.backends))
        self.clients = []

    def config(self, backends):
        certificate, key = self.authority.certificate("front")
        config = {"listen": [{"address": "127.0.0.1:0"},
                             {"address": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}}],
                  "upstreams": {}, "routes": []}
        for kind, backend in backends.items():
            for flavour, settings in flavours.items():
                name = f"{kind}-{flavour}"
                config["upstreams"][name] = backend.upstream(**settings)
                config["routes"].append({"prefix": f"/{name}/", "upstream": name, "strip_prefix": True})
            nobody = f"{kind}-nobody"
            config["upstreams"][nobody] = {**backend.upstream(retry={"attempts": 0}),
                                           "servers": [{"address": unused_address()}]}
            config["routes"].append({"prefix": f"/{nobody}/", "upstream": nobody, "strip_prefix": True})
        return config

    def connect(self, kind, proxy=None):
        address = (proxy or self.proxy).addresses[1 if over_tls[kind] else 0]
        client = PairClient(kind, address, self.authority)
        self.clients.append(client)
        return client


@pytest.fixture(scope="module")
def house(shared_lab):
    folder = tempfile.mkdtemp(prefix="penstock-pairs-")
    made = House(folder, shared_lab)
    yield made
    for client in made.clients:
        client.close()
    shutil.rmtree(folder, ignore_errors=True)


class Pair:
    def __init__(self, house, front, back):
        self.house = house
        self.front = front
        self.back = back
        self.backend = house.backends[back]
        self.client = house.connect(front)

    def path(self, rest, flavour="plain"):
        return f"/{self.back}-{flavour}{rest}"

    def request(self, method, rest, flavour="plain", **more):
        return self.client.request(method, self.path(rest, flavour), **more)

    def start(self, method, rest, flavour="plain", **more):
        return self.client.start(method, self.path(rest, flavour), **more)


@pytest.fixture(params=[(front, back) for front in kinds for back in kinds],
                ids=lambda pair: f"{pair[0]} to {pair[1]}")
def pair(request, house):
    made = Pair(house, *request.param)
    yield made
    made.client.close()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# ---- bodies

@pytest.mark.parametrize("size", sizes.values(), ids=sizes.keys())
def test_a_request_body_arrives_as_it_was_sent(pair, size):
    body = pattern(size)
    answer = pair.request("POST", "/take", body=body)
    assert answer.status == 200 and answer.complete
    facts = json.loads(answer.body)
    assert (facts["size"], facts["sha256"]) == (size, sha256(body))


@pytest.mark.parametrize("framing", ["give", "stream"])
@pytest.mark.parametrize("size", sizes.values(), ids=sizes.keys())
def test_a_response_body_arrives_as_it_was_sent(pair, size, framing):
    answer = pair.request("GET", f"/{framing}/{size}")
    assert answer.status == 200 and answer.complete
    assert (len(answer.body), sha256(answer.body)) == (size, sha256(pattern(size)))
    if framing == "give":
        assert answer["content-length"] == str(size)


def test_bodies_pass_both_ways_at_once(pair):
    body = pattern(10 << 20)
    answer = pair.request("POST", "/echo", body=body, trailers=[("x-sum", sha256(body))])
    assert answer.complete and sha256(answer.body) == sha256(body)
    assert answer.trailer("x-sum") == sha256(body)


def test_an_echo_comes_while_the_request_still_goes(pair):
    stream = pair.start("POST", "/echo", end=False)
    for turn in range(3):
        stream.send(b"turn %d;" % turn)
        eventually(lambda: pair.backend.asked("/echo") and pair.backend.asked("/echo")[-1].size == 7 * (turn + 1))
    stream.finish()
    assert bytes(stream.wait_end().body) == b"turn 0;turn 1;turn 2;"


# ---- what else a message has

def test_trailers_pass_in_both_directions(pair):
    answer = pair.request("POST", "/echo", body=b"abc", trailers=[("x-check", "one"), ("x-more", "two")])
    assert answer.complete and bytes(answer.body) == b"abc"
    assert (answer.trailer("x-check"), answer.trailer("x-more")) == ("one", "two")
    assert sorted(pair.backend.asked("/echo")[-1].trailers) == [("x-check", "one"), ("x-more", "two")]


def test_an_answer_to_head_has_its_length_and_no_body(pair):
    answer = pair.request("HEAD", "/give/12345")
    assert (answer.status, answer["content-length"], bytes(answer.body)) == (200, "12345", b"")
    assert answer.complete
    assert pair.request("GET", "/give/5").complete      # and the connections go on


def test_an_interim_answer_comes_before_the_final_one(pair):
    answer = pair.request("GET", "/hints")
    assert [status for status, _ in answer.interims] == [103]
    assert (answer.status, bytes(answer.body)) == (200, b"hinted")


def test_an_answer_without_a_body_is_one(pair):
    answer = pair.request("GET", "/empty")
    assert (answer.status, bytes(answer.body), answer.complete) == (204, b"", True)


def test_no_field_of_one_hop_reaches_the_other(pair):
    facts = json.loads(pair.request("GET", "/take", fields=[("x-kept", "1"), ("x-request-id", "mine-7")]).body)
    names = [name for name, _ in facts["fields"]]
    assert "x-kept" in names and names.count("x-request-id") == 1
    assert names.count("host") == (0 if is_h2[pair.back] else 1)
    for hop in ("connection", "keep-alive", "upgrade", "proxy-connection", "http2-settings"):
        assert hop not in names or not is_h2[pair.back]
    forwarded = dict(facts["fields"])
    assert forwarded["x-forwarded-proto"] == ("https" if over_tls[pair.front] else "http")
    assert forwarded["x-forwarded-for"] == "127.0.0.1"


def test_cookies_arrive_as_one_field_at_http1(pair):
    fields = [("cookie", "a=1"), ("cookie", "b=2")] if is_h2[pair.front] else [("cookie", "a=1; b=2")]
    facts = json.loads(pair.request("GET", "/take", fields=fields).body)
    cookies = [value for name, value in facts["fields"] if name == "cookie"]
    assert "; ".join(cookies) == "a=1; b=2"
    assert len(cookies) == 1 or is_h2[pair.back]


# ---- many at once

def test_a_hundred_streams_with_interleaved_bodies_do_not_mix(pair):
    bodies = [pattern(20000 + 97 * number)[number:] for number in range(100)]
    streams = [pair.start("POST", "/echo", end=False) for _ in bodies]
    step = 4096
    for at in range(0, max(map(len, bodies)), step):
        for stream, body in zip(streams, bodies):
            if at < len(body):
                stream.send(body[at:at + step])
    for stream in streams:
        stream.finish()
    for stream, body in zip(streams, bodies):
        stream.wait_end()
        assert stream.complete and sha256(stream.body) == sha256(body)


# ---- ends that are not the usual one

def test_an_early_answer_reaches_a_client_that_still_sends(pair):
    stream = pair.start("POST", "/early", end=False)
    stream.send(pattern(100))
    stream.wait_end()
    assert (stream.status, bytes(stream.body)) == (200, b"early")
    assert pair.request("GET", "/give/7").complete


def test_a_client_that_leaves_ends_the_work(pair):
    before = len(pair.backend.asked("/silent"))
    stream = pair.start("GET", "/silent")
    eventually(lambda: len(pair.backend.asked("/silent")) > before)
    work = pair.backend.asked("/silent")[-1]
    stream.cancel()
    eventually(lambda: work.cancelled, "the end of the work")
    line = pair.house.proxy.wait_access(lambda line: line["status"] == 499 and
                                        line["target"] == pair.path("/silent"))
    assert line["reason"] == "client_gone"


def test_a_backend_that_resets_before_its_answer_is_a_502(pair):
    answer = pair.request("POST", "/reset", body=b"x")
    assert (answer.status, answer["x-penstock-reason"]) == (502, "backend_reset")


def test_a_backend_that_resets_inside_its_answer_cuts_it(pair):
    answer = pair.start("POST", "/reset-half", body=b"x").wait_body(1000)
    pair.backend.release()
    answer.wait_end()
    assert answer.status == 200 and not answer.complete
    assert bytes(answer.body) == pattern(1000)


def test_a_backend_that_is_not_there_is_a_502(pair):
    answer = pair.request("GET", "/give/1", "nobody")
    # Another pairing may have found out just before.
    assert (answer.status, answer["x-penstock-reason"]) in ((502, "connect_failure"), (503, "no_backend"))


def test_a_backend_that_does_not_begin_to_answer_is_a_504(pair):
    answer = pair.request("GET", "/silent", "quick")
    assert (answer.status, answer["x-penstock-reason"]) == (504, "first_byte_timeout")
    eventually(lambda: pair.backend.asked("/silent")[-1].cancelled, "the end of the work")


def test_a_backend_that_stops_inside_its_answer_cuts_it(pair):
    answer = pair.request("GET", "/stall", "steady")
    assert answer.status == 200 and not answer.complete
    pair.house.proxy.wait_access(lambda line: line.get("reason") == "idle_timeout" and
                                 line["target"] == pair.path("/stall", "steady"))


def test_a_request_that_takes_too_long_in_all_is_a_504(pair):
    answer = pair.request("GET", "/silent", "short")
    assert (answer.status, answer["x-penstock-reason"]) == (504, "request_timeout")


def test_a_client_that_stops_inside_its_body_is_told_so(pair):
    stream = pair.start("POST", "/take", "stalls", end=False)
    stream.send(pattern(40000))
    stream.wait_end()
    assert (stream.status, stream["x-penstock-reason"]) == (408, "client_stall")


# ---- the queue

def test_a_full_queue_refuses_and_the_others_are_served_in_turn(pair):
    running = pair.start("GET", "/hold", "one")
    upstream = f"{pair.back}-one"
    pair.house.proxy.wait_in_flight(1, upstream)
    waiting = pair.start("GET", "/hold", "one")
    pair.house.proxy.wait_queue(1, upstream)
    refused = pair.request("GET", "/hold", "one")
    assert (refused.status, refused["x-penstock-reason"]) == (429, "queue_full")
    assert int(refused["retry-after"]) >= 1
    pair.backend.release(2)
    assert (bytes(running.wait_end().body), bytes(waiting.wait_end().body)) == (b"held", b"held")


def test_a_request_that_waits_too_long_is_a_503(pair):
    running = pair.start("GET", "/hold", "patient")
    pair.house.proxy.wait_in_flight(1, f"{pair.back}-patient")
    late = pair.request("GET", "/hold", "patient")
    assert (late.status, late["x-penstock-reason"]) == (503, "queue_timeout")
    pair.backend.release()
    assert bytes(running.wait_end().body) == b"held"


# ---- the end of penstock

def test_a_drain_lets_what_runs_finish_and_takes_nothing_new(pair, lab):
    backend = lab.backend(PairBackend, speaks=pair.back, authority=pair.house.authority)
    proxy = lab.penstock(pair.house.config({pair.back: backend}))
    client = pair.house.connect(pair.front, proxy)
    stream = client.start("GET", f"/{pair.back}-plain/hold")
    backend.wait_work("/hold")
    proxy.drain()
    if client.h2:
        client.h2.pump(lambda: client.h2.goaway is not None, "a GOAWAY")
    backend.release()
    assert bytes(stream.wait_end().body) == b"held"
    if client.h2:
        client.h2.expect_end()
    assert proxy.wait_exit() == 0
    client.close()
