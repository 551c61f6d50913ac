"""Situation 5: the six settings of the write-up's DestinationRule, each exactly at its number, as clients, the backend
and penstock's metrics see it, under four loops. The configuration is the one that we ship (conf/triton.yaml), its times
divided by `scale`; the backend is the reference worker, which holds inferences for as long as the test likes."""
import os
import re
import time

import pytest

from lib.checks import assert_refused
from lib.kserve import image, infer_body
from lib.proxy import repository
from lib.wire import eventually

# Of the times that a test waits for: 60 s become 600 ms, in which it asks ten times or so. A sanitizer makes that slow.
scale = 100 if not os.environ.get("PENSTOCK_SANITIZED") else 20
path = "/v2/models/resnet50/infer"
body = infer_body(image("situation 5"))
max_connections, max_pending, per_connection = 100, 50, 10


@pytest.fixture
def triton(penstock, reference_worker):
    """triton(servers, base=seconds, interval=seconds): penstock with conf/triton.yaml before so many workers, whose
    inferences take no time."""
    def start(servers, base=60, interval=30):
        with open(f"{repository}/conf/triton.yaml", encoding="utf-8") as file:
            text = file.read()
        workers = [reference_worker(model="resnet50", threads=4, faults=True) for _ in range(servers)]
        listed = "".join(f"      - {{address: {worker.address}}}\n" for worker in workers)
        text, count = re.subn(r"(    servers:\n)(?:      - .*\n)+", r"\g<1>" + listed, text)
        assert count == 1 and "threads: 4" in text
        text = text.replace("127.0.0.1:8000", "127.0.0.1:0").replace("127.0.0.1:9901", "127.0.0.1:0")
        assert "interval: 30s" in text and "base_ejection_time: 60s" in text
        text = text.replace("interval: 30s", f"interval: {round(1000 * interval)}ms")
        text = text.replace("base_ejection_time: 60s", f"base_ejection_time: {round(1000 * base)}ms")
        text = text.replace("timeout: 2s", "timeout: 60s").replace("request: 10s", "request: 120s")   # of slow machines
        return penstock(text), workers
    return start


def ask(proxy):
    """One inference on a connection of its own, whose answer is still to be read."""
    return proxy.connect().post(path, body)


def in_flight(workers):
    return sum(worker.counts().value("reference_in_flight") for worker in workers)


def statuses(clients):
    return [client.read_response().status for client in clients]


def test_max_connections_is_100_for_all_servers_and_loops_together(triton):
    proxy, workers = triton(2)
    for worker in workers:
        worker.order(hold=True)
    held = [ask(proxy) for _ in range(max_connections)]
    eventually(lambda: in_flight(workers) == max_connections, "a hundred inferences at the servers")
    more = ask(proxy)
    proxy.wait_queue(1, "triton")

    metrics = proxy.metrics()
    assert metrics.value("penstock_connections", side="backend") == max_connections
    assert metrics.value("penstock_in_flight", upstream="triton") == max_connections
    assert in_flight(workers) == max_connections, "the 101st waits in penstock"
    # (Each server counts the connection that asks, too.)
    assert sum(worker.counts().value("reference_connections") - 1 for worker in workers) == max_connections

    for worker in workers:
        worker.order(hold=False)
    assert statuses([*held, more]) == [200] * (max_connections + 1)


def test_max_connections_is_never_exceeded_while_connections_come_and_go(triton):
    proxy, (worker,) = triton(1)
    for _ in range(3):
        worker.order(hold=True)
        clients = [ask(proxy) for _ in range(max_connections + max_pending)]
        proxy.wait_queue(max_pending, "triton")
        eventually(lambda: in_flight([worker]) == max_connections, "a hundred inferences at the server")
        worker.order(hold=False)
        assert statuses(clients) == [200] * (max_connections + max_pending)
    # One more is the test's own, which asks.
    assert worker.counts().value("reference_connections_most") <= max_connections + 1
    assert worker.counts().value("reference_in_flight_most") == max_connections


def test_max_pending_requests_is_50_and_the_51st_is_refused_at_once(triton):
    proxy, workers = triton(2)
    for worker in workers:
        worker.order(hold=True)
    held = [ask(proxy) for _ in range(max_connections)]
    eventually(lambda: in_flight(workers) == max_connections, "a hundred inferences at the servers")
    waiting = [ask(proxy) for _ in range(max_pending)]
    proxy.wait_queue(max_pending, "triton")
    assert proxy.metrics().value("penstock_rejections_total") == 0

    for number in range(1, 4):      # refused while not one answer has come: nobody waits for anything
        assert_refused(ask(proxy).read_response(), 503, "circuit_open")
        metrics = proxy.metrics()
        assert metrics.value("penstock_rejections_total", upstream="triton", reason="circuit_open") == number
        assert metrics.value("penstock_circuit_open_total", upstream="triton") == number
        assert metrics.value("penstock_queue_depth", upstream="triton") == max_pending

    # One that leaves makes room for exactly one.
    waiting.pop().close()
    proxy.wait_queue(max_pending - 1, "triton")
    waiting.append(ask(proxy))
    proxy.wait_queue(max_pending, "triton")
    assert_refused(ask(proxy).read_response(), 503, "circuit_open")

    for worker in workers:
        worker.order(hold=False)
    assert statuses(held + waiting) == [200] * (max_connections + max_pending)
    assert sum(worker.counts().value("nv_inference_request_success") for worker in workers) == 150


def test_max_requests_per_connection_is_10(triton):
    proxy, (worker,) = triton(1)
    client = proxy.connect()
    for _ in range(3 * per_connection + 1):
        assert client.post(path, body).read_response().status == 200

    counts = worker.counts()
    assert counts.value("reference_requests_on_a_connection_most") == per_connection
    assert counts.value("reference_connections_total") == 4 + 1, "four for 31 requests, and the test's own"
    assert proxy.metrics().value("penstock_connections_total", side="backend") == 4


def test_max_requests_per_connection_holds_for_many_clients_on_all_loops(triton):
    proxy, (worker,) = triton(1)
    for _ in range(20):
        assert statuses([ask(proxy) for _ in range(30)]) == [200] * 30
    counts = worker.counts()
    assert counts.value("nv_inference_request_success") == 600
    assert counts.value("reference_requests_on_a_connection_most") == per_connection
    assert counts.value("reference_connections_total") - 1 == proxy.metrics().value("penstock_connections_total",
                                                                                      side="backend")


# --- ejection: two servers, so that one can be left out

def seen_by(worker):
    """How many inferences it was asked for: those that it was told to fail, and the others."""
    counts = worker.counts()
    return counts.value("nv_inference_request_success") + counts.value("nv_inference_request_failure")


def ask_until_seen(proxy, worker, count):
    """Inferences, one after the other, each on a connection (and so a loop) of its own, until this server has been
    asked for `count`; the statuses that the clients got."""
    got = []
    while seen_by(worker) < count:
        got.append(ask(proxy).read_response().status)
    return got


def state_of(proxy, worker):
    return next(backend["state"] for backend in proxy.upstream("triton")["backends"]
                if backend["name"] == worker.address)


def test_consecutive_5xx_errors_is_5(triton):
    proxy, (bad, good) = triton(2)
    bad.order(fail_next=1000, status=500)
    got = ask_until_seen(proxy, bad, 4)
    assert state_of(proxy, bad) == "ready"
    got += ask_until_seen(proxy, bad, 5)
    assert state_of(proxy, bad) == "resting"
    got += [ask(proxy).read_response().status for _ in range(20)]

    assert got.count(500) == 5 and set(got) == {200, 500}, "what the clients saw"
    assert bad.counts().value("nv_inference_request_failure") == 5, "what the server saw"
    assert good.counts().value("nv_inference_request_success") == got.count(200)
    metrics = proxy.metrics()
    assert metrics.value("penstock_requests_total", upstream="triton", model="resnet50", code="500") == 5
    assert metrics.value("penstock_ejections_total", backend=bad.address, reason="consecutive_5xx") == 1
    assert metrics.value("penstock_ejections_total") == 1
    assert metrics.value("penstock_backend_state", backend=bad.address, state="resting") == 1


def test_five_errors_that_are_not_in_a_row_eject_nobody(triton):
    proxy, (bad, _) = triton(2)
    for turn in range(1, 4):
        bad.order(fail_next=4, status=500)
        ask_until_seen(proxy, bad, turn * 5)      # the fifth is served
    assert bad.counts().value("nv_inference_request_failure") == 12
    assert state_of(proxy, bad) == "ready"
    assert proxy.metrics().value("penstock_ejections_total") == 0


def ejected_for(proxy, number):
    """The length of the ejection with this number, from 0, as the log says, in seconds."""
    return float(proxy.wait_log(r"is ejected for ([\d.]+)s: consecutive_5xx", skip=number).group(1))


def returned_after(proxy, number):
    """How long after its ejection a server got its probing request."""
    return float(proxy.wait_log(r"gets one probing request, ([\d.]+)s after its ejection", skip=number).group(1))


def test_base_ejection_time_is_60_s_and_twice_as_long_the_second_time(triton):
    base = 60 / scale
    proxy, (bad, good) = triton(2, base=base)
    for number, expected in enumerate((base, 2 * base)):
        failed = bad.counts().value("nv_inference_request_failure")
        bad.order(fail_next=5, status=500)
        ask_until_seen(proxy, bad, seen_by(bad) + 5)
        assert ejected_for(proxy, number) == pytest.approx(expected)
        seen = seen_by(bad)
        while seen_by(bad) == seen:
            assert ask(proxy).read_response().status == 200
        # By penstock's own clock: not a moment too early, and the first request after it is the one that tries.
        assert returned_after(proxy, number) >= expected
        eventually(lambda: state_of(proxy, bad) == "ready", "the server is back")
        proxy.wait_log("is back", skip=number)
        assert bad.counts().value("nv_inference_request_failure") == failed + 5
    assert proxy.metrics().value("penstock_ejections_total", backend=bad.address, reason="consecutive_5xx") == 2


def in_row(proxy, worker):
    return next(backend["ejections"]["in_row"] for backend in proxy.upstream("triton")["backends"]
                if backend["name"] == worker.address)


def test_an_interval_of_30_s_without_an_ejection_is_what_makes_the_next_one_short_again(triton):
    base, interval = 60 / scale, 3       # long enough to do the first part in
    proxy, (bad, _) = triton(2, base=base, interval=interval)
    for number in range(2):
        bad.order(fail_next=5, status=500)
        ask_until_seen(proxy, bad, seen_by(bad) + 5)
        seen = seen_by(bad)
        while seen_by(bad) == seen:
            asked_at = time.monotonic()
            ask(proxy).read_response()                       # the last one is its probing request
        proxy.wait_log("is back", skip=number)
    assert in_row(proxy, bad) == 2
    assert ejected_for(proxy, 1) == pytest.approx(2 * base), "no interval has passed since the first one"

    eventually(lambda: in_row(proxy, bad) == 0, "an interval without an ejection")
    assert time.monotonic() - asked_at >= interval
    bad.order(fail_next=5, status=500)
    ask_until_seen(proxy, bad, seen_by(bad) + 5)
    assert ejected_for(proxy, 2) <= 2 * base + 0.001, "and not three times"
