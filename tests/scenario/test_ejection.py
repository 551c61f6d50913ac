"""Outlier ejection, as seen by the client, the backends, /status, /metrics and the log; all with four loops."""
import re
import subprocess
import threading

import pytest

from lib.backends import FixedBackend, unused_address
from lib.checks import assert_refused
from lib.proxy import program
from lib.wire import eventually


@pytest.fixture
def server(lab):
    return lambda: lab.backend(FixedBackend)


def backend_of(proxy, server):
    address = server if isinstance(server, str) else server.address
    return next(backend for backend in proxy.upstream()["backends"] if backend["name"] == address)


def state(proxy, server):
    return backend_of(proxy, server)["state"]


def start(penstock, servers, detection, **settings):
    settings.setdefault("retry", {"attempts": 0})
    return penstock(servers=servers, threads=4, outlier_detection=detection, **settings)


def send_until_seen(proxy, server, count, target="/"):
    """Requests, one after the other, each on a connection (and so a loop) of its own, until the server has seen
    `count` of them."""
    while server.count() < count:
        proxy.get(target)


long = {"base_ejection_time": "1h", "max_ejection_time": "2h"}


def test_the_fifth_5xx_in_a_row_ejects_and_not_the_fourth(penstock, server):
    bad, good = server(), server()
    bad.says(500)
    proxy = start(penstock, [bad, good], {"consecutive_5xx": 5, **long})
    send_until_seen(proxy, bad, 4)
    assert state(proxy, bad) == "ready"
    send_until_seen(proxy, bad, 5)
    facts = backend_of(proxy, bad)
    assert (facts["state"], facts["why"]) == ("resting", "ejected: consecutive_5xx")
    assert facts["ejections"]["by_reason"] == {"consecutive_5xx": 1}
    assert 3590 < facts["until_seconds"] <= 3600

    before = good.count()
    for _ in range(20):
        assert proxy.get("/").status == 200
    assert bad.count() == 5 and good.count() == before + 20, "nothing goes to the ejected one"
    metrics = proxy.metrics()
    assert metrics.value("penstock_ejections_total", backend=bad.address, reason="consecutive_5xx") == 1
    assert metrics.value("penstock_ejections_total", backend=good.address) == 0
    assert metrics.value("penstock_backend_state", backend=bad.address, state="resting") == 1
    proxy.wait_log(rf"backend {re.escape(bad.address)} is ejected for 3600.000s: consecutive_5xx")


def test_at_once_on_all_loops_no_more_than_slots_and_five_reach_it(penstock, server):
    bad, good = server(), server()
    bad.says(500)
    proxy = start(penstock, [{"address": bad.address, "concurrency": 1}, {"address": good.address, "concurrency": 1}],
                  {"consecutive_5xx": 5, **long})
    clients = [threading.Thread(target=lambda: [proxy.get("/") for _ in range(10)]) for _ in range(16)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert bad.count() == 5, "one at a time: the fifth is the last"
    assert good.count() == 155


@pytest.mark.parametrize("status, fields", [(429, ""), (503, "Retry-After: 1\r\n"),
                                            (503, "x-penstock-reason: queue_full\r\n")])
def test_that_it_is_full_is_neither_a_failure_nor_a_success(penstock, server, status, fields):
    bad, good = server(), server()
    proxy = start(penstock, [bad, good], {"consecutive_5xx": 3, "consecutive_gateway_errors": 3, **long})
    bad.says(500)
    send_until_seen(proxy, bad, 2)
    bad.says(status, fields)
    send_until_seen(proxy, bad, 8)
    assert state(proxy, bad) == "ready"
    bad.says(500)
    send_until_seen(proxy, bad, 9)
    assert state(proxy, bad) == "resting", "and the row was not broken"


def test_a_4xx_is_a_success(penstock, server):
    bad, good = server(), server()
    proxy = start(penstock, [bad, good], {"consecutive_5xx": 3, **long})
    for seen, status in ((2, 500), (3, 404), (5, 500)):
        bad.says(status)
        send_until_seen(proxy, bad, seen)
    assert state(proxy, bad) == "ready"
    send_until_seen(proxy, bad, 6)
    assert state(proxy, bad) == "resting"


def test_503_without_retry_after_is_a_gateway_error_and_500_is_none(penstock, server):
    bad, good = server(), server()
    proxy = start(penstock, [bad, good], {"consecutive_5xx": 0, "consecutive_gateway_errors": 2, **long})
    for seen, status in ((1, 503), (2, 500), (3, 504)):
        bad.says(status)
        send_until_seen(proxy, bad, seen)
    assert state(proxy, bad) == "ready"
    bad.says(502)
    send_until_seen(proxy, bad, 4)
    assert backend_of(proxy, bad)["ejections"]["by_reason"] == {"consecutive_gateway_errors": 1}


def test_connections_that_end_without_an_answer_are_local_errors(penstock, server):
    bad, good = server(), server()
    bad.ends_connections()
    proxy = start(penstock, [bad, good], {"consecutive_local_errors": 3, **long})
    for count in (1, 2):
        send_until_seen(proxy, bad, count)
        proxy.wait_status(lambda _: state(proxy, bad) == "ready", "asked, and trusted again")
    send_until_seen(proxy, bad, 3)
    assert backend_of(proxy, bad)["ejections"]["by_reason"] == {"consecutive_local_errors": 1}


def test_refused_connections_are_local_errors(penstock, server):
    dead, good = unused_address(), server()
    proxy = start(penstock, [dead, good], {"consecutive_local_errors": 1, **long})
    answers = [proxy.get("/").status for _ in range(10)]
    assert answers.count(502) == 1 and set(answers) == {200, 502}
    assert backend_of(proxy, dead)["why"] == "ejected: consecutive_local_errors"


def test_answers_that_do_not_come_in_time_are_local_errors(penstock, scripted):
    slow, good = scripted(), scripted()
    proxy = start(penstock, [slow, good], {"consecutive_local_errors": 2, **long}, balance="first", routes=[
        {"path": "/late", "upstream": "main", "timeouts": {"first_byte": "300ms"}},
        {"prefix": "/", "upstream": "main"}])
    clients = [proxy.connect().get("/late") for _ in range(2)]
    assert [client.read_response().status for client in clients] == [504, 504]
    assert backend_of(proxy, slow)["ejections"]["by_reason"] == {"consecutive_local_errors": 1}
    client = proxy.connect().get("/next")
    good.next_request().respond("in time")
    assert client.read_response().status == 200


def test_neither_clients_that_leave_nor_our_own_refusals_are_held_against_a_backend(penstock, scripted):
    backend, other = scripted(), scripted()
    servers = [{"address": one.address, "concurrency": 1} for one in (backend, other)]
    proxy = start(penstock, servers,
                  {"consecutive_5xx": 1, "consecutive_gateway_errors": 1, "consecutive_local_errors": 1, **long},
                  queue={"size": 0}, on_abandon="drain")
    holding = [proxy.connect().get("/held"), proxy.connect().get("/held")]
    at_work = [backend.next_request(), other.next_request()]
    assert_refused(proxy.get("/refused"), 429, "queue_full")
    for client in holding:
        client.close()
    proxy.wait_status(lambda status: status["upstreams"]["main"]["abandoned"] == 2, "two abandoned")
    for connection in at_work:
        connection.respond("late", status="500 Too Late")
    proxy.wait_in_flight(0)
    assert [one["state"] for one in proxy.upstream()["backends"]] == ["ready", "ready"]


def test_it_is_back_after_exactly_its_time_through_one_probing_request(penstock, scripted):
    bad, other = scripted(), scripted()
    servers = [{"address": bad.address, "concurrency": 4}, {"address": other.address, "concurrency": 1}]
    proxy = start(penstock, servers, {"consecutive_5xx": 1, "base_ejection_time": "700ms", "max_ejection_time": "1h"})
    # The other's only slot is taken: everything else must go to the one that is, then, ejected.
    clients = [proxy.connect().get("/a"), proxy.connect().get("/b")]
    held = other.next_request()
    bad.next_request().respond(status="500 Bad")
    proxy.wait_log(rf"{re.escape(bad.address)} is ejected for 0.700s: consecutive_5xx")
    waiting = [proxy.connect().get(f"/waiting/{n}") for n in range(3)]

    probing = bad.next_request()
    rested = float(proxy.wait_log(r"gets one probing request, (\S+)s after its ejection").group(1))
    assert 0.7 <= rested
    proxy.wait_queue(2)         # one request, though four slots are free
    assert bad.requests_waiting() == 0
    assert backend_of(proxy, bad)["why"] == "its probing request is under way"
    probing.respond("well")
    bad.next_request().respond("well")
    bad.next_request().respond("well")
    assert [client.read_response().status for client in waiting] == [200, 200, 200]
    proxy.wait_log(rf"{re.escape(bad.address)} is back, ")
    held.respond("held")
    assert sorted(client.read_response().status for client in clients) == [200, 500]


def test_one_probing_request_at_a_time_even_when_its_client_leaves(penstock, scripted):
    bad, other = scripted(), scripted()
    servers = [{"address": bad.address, "concurrency": 4}, {"address": other.address, "concurrency": 1}]
    proxy = start(penstock, servers, {"consecutive_5xx": 1, "base_ejection_time": "300ms", "max_ejection_time": "1h"})
    clients = [proxy.connect().get("/a"), proxy.connect().get("/b")]
    held = other.next_request()
    bad.next_request().respond(status="500 Bad")
    proxy.wait_log(rf"{re.escape(bad.address)} is ejected for 0.300s: consecutive_5xx")
    leaving = proxy.connect().get("/leaving")
    hanging = bad.next_request()
    next_one = proxy.connect().get("/next")
    proxy.wait_queue(1)
    assert backend_of(proxy, bad)["why"] == "its probing request is under way"
    leaving.close()
    proxy.wait_log(rf"{re.escape(bad.address)} is ejected for 0.600s: probing_request")
    bad.next_request().respond("well")
    # None came beside the one that hangs, nor before its time.
    rested = float(proxy.wait_log(r"gets one probing request, (\S+)s after its ejection", skip=1).group(1))
    assert 0.6 <= rested
    assert next_one.read_response().body == b"well"
    hanging.respond("late")
    held.respond("held")
    assert sorted(client.read_response().status for client in clients) == [200, 500]


def test_a_probing_request_that_fails_makes_it_rest_for_longer(penstock, server):
    bad, good = server(), server()
    bad.says(500)
    proxy = start(penstock, [bad, good], {"consecutive_5xx": 2, "base_ejection_time": "100ms",
                                          "max_ejection_time": "250ms"})
    send_until_seen(proxy, bad, 2)
    for number, time in enumerate(("0.200", "0.250", "0.250")):
        send_until_seen(proxy, bad, 3 + number)
        proxy.wait_log(rf"is ejected for {time}s: probing_request \(ejection {number + 2} in a row\)")
    bad.says(200)
    send_until_seen(proxy, bad, 6)
    proxy.wait_log(rf"{re.escape(bad.address)} is back")
    assert proxy.metrics().value("penstock_ejections_total", backend=bad.address) == 4
    assert proxy.metrics().value("penstock_ejections_total", backend=bad.address, reason="probing_request") == 3


@pytest.mark.parametrize("balance", ["least_busy", "first"])
def test_the_first_request_after_its_rest_brings_it_back_though_the_policy_likes_another(penstock, server, balance):
    """One client, one connection: least_busy would stay with the idle connection, first with the first one."""
    one, other = server(), server()
    other.says(500)
    servers = [{"address": one.address, "concurrency": 1}, {"address": other.address, "concurrency": 4}]
    proxy = start(penstock, servers, {"consecutive_5xx": 2, "base_ejection_time": "300ms", "max_ejection_time": "1h"},
                  balance=balance)
    if balance == "first":
        gate = one.shuts("/held")
        held = proxy.connect().get("/held")
        proxy.wait_in_flight(1)
        assert [proxy.get("/").status for _ in range(2)] == [500, 500]
        gate.set()
        assert held.read_response().status == 200
    else:
        send_until_seen(proxy, other, 2)
    assert state(proxy, other) == "resting"
    other.says(200)
    client = proxy.connect()

    def ask():
        return client.get("/").read_response().status

    eventually(lambda: ask() == 200 and state(proxy, other) == "ready", "back with light traffic")
    # And so the next one that fails can be ejected.
    one.says(500)
    eventually(lambda: ask() and state(proxy, one) == "resting", "the next one ejected")
    one.says(200)           # its rest may be over already
    assert [ask() for _ in range(10)] == [200] * 10


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_in_a_pool_where_all_fail_the_last_one_stays_in_service(penstock, server, size):
    pool = [server() for _ in range(size)]
    for one in pool:
        one.says(500)
    proxy = start(penstock, pool, {"consecutive_5xx": 2, "max_ejection_percent": 100, **long})
    proxy.wait_status(lambda _: proxy.get("/").status == 500 and
                      sum(one["state"] == "ready" for one in proxy.upstream()["backends"]) == 1, "one in service")
    last = next(one for one in proxy.upstream()["backends"] if one["state"] == "ready")
    server_left = next(one for one in pool if one.address == last["name"])
    send_until_seen(proxy, server_left, server_left.count() + 4)
    facts = backend_of(proxy, server_left)
    assert facts["state"] == "ready" and facts["ejections"]["kept_by"]["min_healthy"] >= 1
    proxy.wait_log(rf"{re.escape(last['name'])} stays in service in spite of consecutive_5xx")
    assert proxy.metrics().value("penstock_ejections_prevented_total", limit="min_healthy") >= 1


def test_the_only_one_is_ejected_where_min_healthy_is_0(penstock, server):
    only = server()
    only.says(500)
    proxy = start(penstock, [only], {"consecutive_5xx": 2, "min_healthy": 0, **long},
                  queue={"start_timeout": "100ms"})
    assert [proxy.get("/").status for _ in range(2)] == [500, 500]
    assert_refused(proxy.get("/"), 503, "no_backend")
    assert only.count() == 2


def test_no_more_than_max_ejection_percent_are_ejected(penstock, server):
    pool = [server() for _ in range(4)]
    for one in pool:
        one.says(500)
    proxy = start(penstock, pool, {"consecutive_5xx": 2, "max_ejection_percent": 50, **long})
    proxy.wait_status(lambda _: proxy.get("/").status == 500 and
                      sum(one["ejections"]["kept_by"]["max_ejection_percent"] > 0
                          for one in proxy.upstream()["backends"]) == 2, "two are kept")
    assert sorted(one["state"] for one in proxy.upstream()["backends"]) == ["ready", "ready", "resting", "resting"]


def test_one_that_is_worse_than_the_others_is_ejected_as_the_interval_ends(penstock, server):
    pool = [server() for _ in range(3)]
    proxy = start(penstock, pool, {"consecutive_5xx": 0, "interval": "1s", **long,
                                   "success_rate": {"stdev_factor": 1, "min_backends": 3, "min_requests": 3}})
    pool[1].says(500)
    eventually(lambda: [proxy.get("/") for _ in range(15)] and state(proxy, pool[1]) == "resting", "it is ejected")
    assert backend_of(proxy, pool[1])["ejections"]["by_reason"] == {"success_rate": 1}
    assert state(proxy, pool[0]) == state(proxy, pool[2]) == "ready"


def test_a_failure_percentage_ejects(penstock, server):
    pool = [server() for _ in range(2)]
    proxy = start(penstock, pool, {"consecutive_5xx": 0, "interval": "1s", **long,
                                   "failure_percentage": {"threshold": 100, "min_backends": 2, "min_requests": 3}})
    pool[1].says(503)
    eventually(lambda: [proxy.get("/") for _ in range(15)] and state(proxy, pool[1]) == "resting", "it is ejected")
    assert backend_of(proxy, pool[1])["ejections"]["by_reason"] == {"failure_percentage": 1}


def test_a_worker_that_is_ejected_again_and_again_is_restarted(penstock, desk):
    desk.answer_jobs = None
    proxy = penstock({"upstreams": {"main": {
        "workers": desk.workers(count=2, restart={"backoff": "10ms", "after_ejections": 2}),
        "outlier_detection": {"consecutive_5xx": 1, "base_ejection_time": "10ms", "max_ejection_time": "1h"},
        "retry": {"attempts": 0}}}, "threads": 4})
    proxy.wait_status(lambda status: all(one["state"] == "ready" for one in status["upstreams"]["main"]["workers"]),
                      "both ready")
    bad = proxy.upstream()["workers"][0]["pid"]

    def restarted():
        client = proxy.connect().get("/")
        job = desk.next_job()
        job.respond(status="500 Bad" if job["pid"] == bad else "200 OK")
        client.read_response()
        return proxy.upstream()["workers"][0]["restarts"] == 1

    eventually(restarted, "the bad worker restarted")
    proxy.wait_log(rf"worker main/0 \(pid {bad}\) is stopped: ejected too often in a row")
    proxy.wait_status(lambda status: status["upstreams"]["main"]["workers"][0]["state"] == "ready", "the next one")
    metrics = proxy.metrics()
    assert metrics.value("penstock_worker_exits_total", reason="unhealthy") == 1
    assert metrics.value("penstock_ejections_total", backend="main/0") == 2


def test_status_tells_people_why_a_backend_gets_nothing(penstock, server):
    bad, good = server(), server()
    bad.says(500)
    proxy = start(penstock, [bad, good], {"consecutive_5xx": 1, **long})
    send_until_seen(proxy, bad, 1)
    told = subprocess.run([program(), "status", "--admin", proxy.admin], capture_output=True, text=True, check=True)
    line = next(line for line in told.stdout.splitlines() if line.strip().startswith(bad.address))
    assert "resting" in line and "ejected: consecutive_5xx, 60m left, 1 ejection" in line
