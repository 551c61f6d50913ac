"""Rate limits: exact over all loops, by every key, with delay, cost and dry run; what the client, the log, /status and
/metrics say of them. Requests in flight are in test_rate_limits_in_flight.py."""
import re
import selectors
import signal
import socket
import time

import pytest

from lib.checks import assert_refused, echoed
from lib.wire import eventually

loops = 4


@pytest.fixture
def limited(penstock, echo):
    """limited(LIMIT, ..., KEY=VALUE): a penstock with these limits before an EchoBackend."""
    def make(*limits, **settings):
        backend = echo()
        named = [{"name": f"limit-{number}", **limit} for number, limit in enumerate(limits)]
        proxy = penstock(servers=[backend], rate_limits=named, threads=loops, **settings)
        proxy.backend = backend
        return proxy
    return make


def limit_of(proxy, name="limit-0"):
    return next(limit for limit in proxy.status()["rate_limits"] if limit["name"] == name)


def statuses(proxy, count, target="/", fields=""):
    return [proxy.get(target, fields).status for _ in range(count)]


# ---- exact

class Crowd:
    """Connections that each ask again as soon as they have their answer: (sent, received, status) of each request."""

    def __init__(self, address, connections):
        host, port = address.rsplit(":", 1)
        self.selector = selectors.DefaultSelector()
        self.answers = []
        for _ in range(connections):
            sock = socket.create_connection((host, int(port)))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(sock, selectors.EVENT_READ, {"bytes": b"", "sent": 0})

    def ask(self, key):
        key.data["sent"] = time.monotonic()
        key.fileobj.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    def run(self, seconds):
        for key in list(self.selector.get_map().values()):
            self.ask(key)
        until = time.monotonic() + seconds
        waiting = len(self.selector.get_map())
        while waiting:
            for key, _ in self.selector.select():
                got = key.fileobj.recv(65536)
                assert got, "penstock closed a connection"
                key.data["bytes"] += got
                head, found, body = key.data["bytes"].partition(b"\r\n\r\n")
                if not found:
                    continue
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                if len(body) < length:
                    continue
                now = time.monotonic()
                key.data["bytes"] = b""
                self.answers.append((key.data["sent"], now, int(head.split()[1])))
                if now < until:
                    self.ask(key)
                else:
                    waiting -= 1
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


def test_four_loops_and_64_connections_get_what_rate_and_burst_say_to_within_one(limited):
    rate, burst = 100, 20
    for _ in range(5):
        proxy = limited({"key": "global", "rate": f"{rate}/s", "burst": burst})
        crowd = Crowd(proxy.address, 64)
        crowd.run(3)
        answers = crowd.answers
        passed = [answer for answer in answers if answer[2] == 200]
        refused = [answer for answer in answers if answer[2] == 429]
        assert len(passed) + len(refused) == len(answers)
        # A refusal means that less than one unit was left; had nobody asked for as long as the burst lasts, some of
        # the rate would have been lost: then this run says nothing about the lower bound.
        refused.sort(key=lambda answer: answer[1])
        widest = max(later[1] - earlier[0] for earlier, later in zip(refused, refused[1:]))
        if widest < burst / rate:
            break
    else:
        pytest.fail("this machine paused for too long in each of five runs")

    # The first one that passed was let through between its sending and its answer; so was the last refusal decided.
    first_sent, first_answered = min(a[0] for a in answers), min(a[1] for a in passed)
    last_answered, last_refused_sent = max(a[1] for a in answers), max(a[0] for a in refused)
    most = burst + rate * (last_answered - first_sent)
    least = burst + rate * (last_refused_sent - first_answered) - 1
    print(f"{len(passed)} of {len(answers)} passed; between {least:.2f} and {most:.2f} would be right")
    assert least <= len(passed) <= most
    told = limit_of(proxy)
    assert (told["passed"], told["refused"]) == (len(passed), len(refused))
    metrics = proxy.metrics()
    assert metrics.value("penstock_rate_limited_total", limit="limit-0") == len(refused)
    assert metrics.value("penstock_rejections_total", reason="rate_limited") == len(refused)
    assert len(proxy.backend.seen) == len(passed)
    assert metrics.value("penstock_retries_total") == 0


def test_whoever_comes_again_after_retry_after_is_served(limited):
    proxy = limited({"key": "global", "rate": "1/s", "burst": 1})
    assert proxy.get().status == 200
    refused = eventually(lambda: (lambda answer: answer.status == 429 and answer)(proxy.get()), "one too many")
    assert_refused(refused, 429, "rate_limited")
    assert refused["retry-after"] == "1"
    answered = time.monotonic()
    while time.monotonic() < answered + 1:      # what is to be shown is that this time is enough
        time.sleep(answered + 1 - time.monotonic() + 0.001)
    assert proxy.get().status == 200


def test_all_limits_must_let_a_request_pass_or_none_counts_it(limited):
    proxy = limited({"key": "global", "rate": "10/h", "burst": 10}, {"key": "header:x-user", "rate": "1/h"})
    assert statuses(proxy, 5, fields="x-user: a\r\n") == [200] + [429] * 4
    assert statuses(proxy, 1, fields="x-user: b\r\n") == [200]
    assert limit_of(proxy)["passed"] == 2
    assert limit_of(proxy)["refused"] == 0
    assert limit_of(proxy, "limit-1")["refused"] == 4


# ---- keys

def test_a_header_is_a_key_and_a_request_without_it_is_not_limited(limited):
    proxy = limited({"key": "header:X-Api-Key", "rate": "1/h"})
    assert statuses(proxy, 2, fields="x-api-key: one\r\n") == [200, 429]
    assert statuses(proxy, 2, fields="X-API-KEY: two\r\n") == [200, 429]
    assert statuses(proxy, 3) == [200] * 3


def test_a_second_value_beside_it_makes_no_other_key(limited):
    """Whatever its backend goes by, the first, the last or all of them."""
    proxy = limited({"key": "header:x-api-key", "rate": "1/h"})
    assert statuses(proxy, 2, fields="x-api-key: me\r\n") == [200, 429]
    assert [proxy.get(fields=f"x-api-key: r{n}\r\nx-api-key: me\r\n").status for n in range(3)] == [200, 429, 429]
    assert [proxy.get(fields=f"x-api-key: me\r\nX-Api-Key: r{n}\r\n").status for n in range(3)] == [429, 429, 429]
    assert statuses(proxy, 1, fields="x-api-key: me\r\nx-api-key: me\r\n") == [429], "it says the same twice"
    assert statuses(proxy, 1, fields="x-api-key:\r\nx-api-key: me\r\n") == [429], "it says one thing"
    assert statuses(proxy, 2, fields="x-api-key: you\r\n") == [200, 429]


def test_a_second_cookie_beside_it_makes_no_other_key(limited):
    proxy = limited({"key": "cookie:sid", "rate": "1/h"})
    assert statuses(proxy, 2, fields="cookie: sid=me\r\n") == [200, 429]
    assert [proxy.get(fields=f"cookie: sid=r{n}; sid=me\r\n").status for n in range(3)] == [200, 429, 429]
    assert [proxy.get(fields=f"cookie: sid=me\r\ncookie: sid=r{n}\r\n").status for n in range(3)] == [429, 429, 429]
    assert statuses(proxy, 1, fields='cookie: sid=me; sid="me"; sid=\r\n') == [429]


def test_a_long_key_is_told_from_another_that_begins_alike(limited):
    proxy = limited({"key": "header:authorization", "rate": "1/h"})
    begin = "Bearer " + "x" * 8000
    assert statuses(proxy, 2, fields=f"authorization: {begin}1\r\n") == [200, 429]
    assert statuses(proxy, 2, fields=f"authorization: {begin}2\r\n") == [200, 429]


def test_a_cookie_is_a_key(limited):
    proxy = limited({"key": "cookie:sid", "rate": "1/h"})
    assert statuses(proxy, 2, fields="cookie: other=1; sid=one; more=2\r\n") == [200, 429]
    assert statuses(proxy, 2, fields="cookie: asid=one; sid=two\r\n") == [200, 429]
    assert statuses(proxy, 2, fields="cookie: sidx=one\r\n") == [200, 200]


def test_a_part_of_the_path_is_a_key(limited):
    proxy = limited({"key": "path:model", "rate": "1/h"},
                    routes=[{"path": "/m/{model}/infer", "upstream": "main"}, {"prefix": "/", "upstream": "main"}])
    assert statuses(proxy, 2, "/m/one/infer") == [200, 429]
    assert statuses(proxy, 1, "/m/%6fne/infer") == [429]      # the same model
    assert statuses(proxy, 2, "/m/two/infer") == [200, 429]
    assert statuses(proxy, 2, "/elsewhere") == [200, 200]


def test_a_part_of_the_path_of_its_own_match_is_a_key_too(limited):
    proxy = limited({"key": "path:user", "rate": "1/h", "match": {"path": "/u/{user}"}})
    assert statuses(proxy, 2, "/u/one") == [200, 429]
    assert statuses(proxy, 1, "/u/two") == [200]
    assert statuses(proxy, 2, "/") == [200, 200]


def test_each_route_can_have_its_own_rate(limited):
    proxy = limited({"key": "route", "rate": "1/h"},
                    routes=[{"prefix": "/a", "upstream": "main"}, {"prefix": "/", "upstream": "main"}])
    assert statuses(proxy, 2, "/a") == [200, 429]
    assert statuses(proxy, 2, "/b") == [200, 429]


def test_match_says_which_requests_are_limited(limited):
    proxy = limited({"key": "global", "rate": "1/h", "match": {"prefix": "/api/", "methods": ["GET"],
                                                               "headers": {"x-tier": "free"}}})
    assert statuses(proxy, 2, "/api/x", "x-tier: free\r\n") == [200, 429]
    assert statuses(proxy, 2, "/api/x", "x-tier: paid\r\n") == [200, 200]
    assert statuses(proxy, 2, "/other", "x-tier: free\r\n") == [200, 200]


def test_a_client_behind_a_trusted_proxy_is_known_by_its_own_address(limited):
    proxy = limited({"key": "client_ip", "rate": "1/h"})
    assert statuses(proxy, 2, fields="x-forwarded-for: 203.0.113.7\r\n") == [200, 429]
    # Only what the trusted proxy itself has added counts: the rest is said by the client.
    assert statuses(proxy, 1, fields="x-forwarded-for: 198.51.100.1, 203.0.113.7\r\n") == [429]
    assert statuses(proxy, 1, fields="x-forwarded-for: 203.0.113.8\r\n") == [200]


def test_a_client_that_is_no_trusted_proxy_cannot_choose_its_address(limited):
    proxy = limited({"key": "client_ip", "rate": "1/h"}, trusted_proxies=["10.0.0.0/8"])
    assert [proxy.get(fields=f"x-forwarded-for: 203.0.113.{n}\r\n").status for n in range(3)] == [200, 429, 429]


def test_the_addresses_of_one_ipv6_network_are_one_client(limited):
    proxy = limited({"key": "client_ip", "rate": "1/h"})
    assert statuses(proxy, 1, fields="x-forwarded-for: 2001:db8::1\r\n") == [200]
    assert statuses(proxy, 1, fields="x-forwarded-for: 2001:db8:0:0:ffff::2\r\n") == [429]
    assert statuses(proxy, 1, fields="x-forwarded-for: 2001:db8:0:1::1\r\n") == [200]


def test_with_ipv6_prefix_128_each_address_is_a_client_in_whatever_spelling(limited):
    proxy = limited({"key": "client_ip", "rate": "1/h", "ipv6_prefix": 128})
    assert statuses(proxy, 1, fields="x-forwarded-for: 2001:db8::1\r\n") == [200]
    assert statuses(proxy, 1, fields="x-forwarded-for: 2001:DB8:0::0:1\r\n") == [429]
    assert statuses(proxy, 1, fields="x-forwarded-for: 2001:db8::2\r\n") == [200]


def test_more_keys_than_are_remembered_push_out_who_would_be_free_first(limited):
    proxy = limited({"key": "header:k", "rate": "1/h", "keys": 2})
    for name in ("a", "b", "c"):
        assert statuses(proxy, 1, fields=f"k: {name}\r\n") == [200]
    told = limit_of(proxy)
    assert (told["keys"], told["forgiven"]) == (2, 1)
    assert statuses(proxy, 1, fields="k: c\r\n") == [429]
    assert statuses(proxy, 1, fields="k: b\r\n") == [429]
    assert statuses(proxy, 1, fields="k: a\r\n") == [200]
    assert proxy.metrics().value("penstock_rate_limit_forgiven_total", limit="limit-0") == 2


# ---- what it costs

def test_a_request_takes_as_many_units_as_its_header_says(limited):
    proxy = limited({"key": "global", "rate": "10/h", "burst": 10, "cost": "header:x-cost"})
    assert statuses(proxy, 1, fields="x-cost: 7\r\n") == [200]
    assert statuses(proxy, 1, fields="x-cost: 4\r\n") == [429]
    assert statuses(proxy, 1, fields="x-cost: 2\r\n") == [200]
    assert statuses(proxy, 2) == [200, 429]


@pytest.mark.parametrize("cost", ["x", "0", "-1", "1.5", "", "11", "99999999999999999999", "1\r\nx-cost: 1"])
def test_a_cost_that_is_none_or_could_never_pass_is_a_bad_request(limited, cost):
    proxy = limited({"key": "global", "rate": "10/h", "burst": 10, "cost": "header:x-cost"})
    answer = proxy.get(fields=f"x-cost: {cost}\r\n")
    assert_refused(answer, 400, "bad_request")
    assert "cost_invalid" in answer["x-penstock-reason"]
    assert limit_of(proxy)["passed"] == 0


# ---- delay

def test_what_is_too_early_is_held_back_until_its_turn(limited):
    proxy = limited({"key": "global", "rate": "2/s", "burst": 2, "delay": "10s"})
    clients = [proxy.connect() for _ in range(5)]
    began = time.monotonic()
    proxy.signal(signal.SIGSTOP)        # so that they all come at once
    for client in clients:
        client.get()
    proxy.signal(signal.SIGCONT)
    answered = []
    for client in clients:
        assert client.read_response().status == 200
        answered.append(time.monotonic() - began)
    answered.sort()
    # Two at once, then one every 500 ms: never early.
    for number, earliest in enumerate([0, 0, 0.5, 1, 1.5]):
        assert answered[number] >= earliest
    told = limit_of(proxy)
    assert (told["passed"], told["held"], told["refused"]) == (5, 3, 0)


def test_what_would_be_held_back_for_too_long_is_refused(limited):
    proxy = limited({"key": "global", "rate": "1/h", "burst": 1, "delay": "30m"})
    assert proxy.get().status == 200
    answer = proxy.get()
    assert_refused(answer, 429, "rate_limited")
    assert 1790 <= int(answer["retry-after"]) <= 1800


def test_nobody_is_held_back_beyond_the_time_that_his_request_has(limited):
    proxy = limited({"key": "global", "rate": "1/m", "burst": 1, "delay": "10m"}, timeouts={"request": "20s"})
    assert statuses(proxy, 2) == [200, 429]


def test_a_body_comes_whole_after_its_request_was_held_back(limited):
    proxy = limited({"key": "global", "rate": "1/s", "burst": 1, "delay": "10s"})
    first, second = proxy.connect(), proxy.connect()
    body = bytes(range(256)) * 2000
    first.get()
    assert first.read_response().status == 200
    second.post("/", body)
    facts = echoed(second.read_response())
    assert facts.body_size == len(body)
    second.get("/next")
    assert second.read_response().status == 200
    assert limit_of(proxy)["held"] >= 1


def test_a_client_that_leaves_while_it_is_held_back_is_logged_with_that_step(limited):
    proxy = limited({"key": "global", "rate": "1/h", "burst": 1, "delay": "1h"})
    assert proxy.get().status == 200
    client = proxy.connect()
    client.get("/held")
    proxy.wait_status(lambda status: status["rate_limits"][0]["held"] == 1)
    client.close()
    line = proxy.wait_access(lambda line: line["target"] == "/held")
    assert (line["status"], line["step"], line["ended_by"]) == (499, "rate_limit", "client")
    assert len(proxy.backend.seen) == 1


def test_a_request_that_is_held_back_does_not_outlive_a_drain(limited):
    proxy = limited({"key": "global", "rate": "1/h", "burst": 1, "delay": "1h"}, limits={"drain": "200ms"})
    assert proxy.get().status == 200
    client = proxy.connect()
    client.get("/held")
    proxy.wait_status(lambda status: status["rate_limits"][0]["held"] == 1)
    proxy.process.terminate()
    assert proxy.wait_exit() == 0


# ---- what is said

def test_answers_say_what_is_left_and_refusals_when_it_is_there_again(limited):
    proxy = limited({"key": "global", "rate": "60/h", "burst": 2}, {"key": "client_ip", "rate": "100/m", "burst": 50})
    answer = proxy.get()
    assert answer["ratelimit-policy"] == '"limit-0";q=60;w=3600, "limit-1";q=100;w=60'
    assert answer["ratelimit"] == '"limit-0";r=1;t=60, "limit-1";r=49;t=1'
    proxy.get()
    refused = proxy.get()
    assert_refused(refused, 429, "rate_limited")
    assert 50 <= int(refused["retry-after"]) <= 60
    assert refused["ratelimit-policy"] == answer["ratelimit-policy"]
    left = re.match(r'"limit-0";r=0;t=(\d+), "limit-1";r=4\d;', refused["ratelimit"])
    assert int(left.group(1)) == int(refused["retry-after"]) + 60


def test_no_more_is_left_of_a_quota_than_the_quota(limited):
    proxy = limited({"key": "global", "rate": "20/s", "burst": 30})
    answer = proxy.get()
    assert answer["ratelimit-policy"] == '"limit-0";q=40;w=2', "the rate, over periods that hold the burst"
    assert answer["ratelimit"] == '"limit-0";r=29;t=1'


def test_a_limit_can_keep_its_numbers_to_itself(limited):
    proxy = limited({"key": "global", "rate": "1/h", "headers": False})
    for _ in range(2):
        answer = proxy.get()
        assert answer["ratelimit"] is None and answer["ratelimit-policy"] is None
    assert answer.status == 429


def test_the_log_names_the_limit_that_refused(limited):
    proxy = limited({"key": "global", "rate": "100/s"}, {"key": "client_ip", "rate": "1/h"})
    assert statuses(proxy, 2) == [200, 429]
    line = proxy.wait_access(lambda line: line["status"] == 429)
    assert (line["reason"], line["limit"], line["ended_by"]) == ("rate_limited", "limit-1", "penstock")
    assert "limit" not in proxy.wait_access(lambda line: line["status"] == 200)


def test_a_dry_run_counts_and_refuses_nobody(limited):
    proxy = limited({"key": "global", "rate": "1/h", "burst": 2, "dry_run": True})
    for _ in range(5):
        answer = proxy.get()
        assert answer.status == 200 and answer["ratelimit"] is None
    assert (limit_of(proxy)["passed"], limit_of(proxy)["refused"]) == (2, 3)
    metrics = proxy.metrics()
    assert metrics.value("penstock_rate_limited_dry_run_total", limit="limit-0") == 3
    assert metrics.value("penstock_rate_limited_total") == 0
    assert metrics.value("penstock_rejections_total") == 0


def test_penstock_status_shows_the_limits_to_people(limited):
    import subprocess
    from lib.proxy import program
    proxy = limited({"key": "global", "rate": "1/h"})
    statuses(proxy, 3)
    shown = subprocess.run([program(), "status", "--admin", proxy.admin], capture_output=True, text=True, check=True)
    row = next(line.split() for line in shown.stdout.splitlines() if line.startswith("  limit-0"))
    assert row == ["limit-0", "1", "0", "1", "0", "2"]
