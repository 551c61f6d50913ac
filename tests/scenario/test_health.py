"""Health checks, hung workers, and what is said about both; all with four loops."""
import os
import re
import signal
import threading

import pytest

from lib.backends import FixedBackend
from lib.certificates import Authority
from lib.checks import assert_refused
from lib.pairs import PairBackend
from lib.wire import eventually

fast = {"path": "/health", "interval": "20ms", "timeout": "20s", "healthy": 2, "unhealthy": 3}


@pytest.fixture
def server(lab):
    return lambda: lab.backend(FixedBackend)


def backend_of(proxy, name):
    return next(backend for backend in proxy.upstream()["backends"] if backend["name"] == name)


def wait_state(proxy, name, state):
    return eventually(lambda: (lambda one: one["state"] == state and one)(backend_of(proxy, name)), f"{name} {state}")


def checks(proxy, name, result):
    return proxy.metrics().value("penstock_health_checks_total", backend=name, result=result)


def test_three_failed_checks_take_a_backend_out_and_two_good_ones_bring_it_back(penstock, server):
    sick, well = server(), server()
    proxy = penstock(servers=[sick, well], threads=4, health_check=fast)
    eventually(lambda: checks(proxy, sick.address, "passed") >= 2, "checks")
    sick.says(500, to="/health")
    facts = wait_state(proxy, sick.address, "resting")
    assert facts["why"] == "unhealthy: GET /health -> 500"
    assert facts["health"]["healthy"] is False and facts["until_seconds"] is None
    assert checks(proxy, sick.address, "failed") >= 3
    proxy.wait_log(rf"backend {re.escape(sick.address)} is unhealthy: GET /health -> 500")

    before = sick.count("/")
    for _ in range(10):
        assert proxy.get("/").status == 200
    assert sick.count("/") == before, "it gets nothing but checks"
    sick.says(200, to="/health")
    wait_state(proxy, sick.address, "ready")
    proxy.wait_log(rf"backend {re.escape(sick.address)} is healthy again: GET /health -> 200")
    eventually(lambda: proxy.get("/").status == 200 and sick.count("/") > before, "requests again")


def test_requests_are_refused_at_once_when_all_are_unhealthy(penstock, server):
    only = server()
    only.says(503, to="/health")
    proxy = penstock(servers=[only], threads=4, health_check=fast)
    wait_state(proxy, only.address, "resting")
    assert_refused(proxy.get("/"), 503, "no_backend")
    assert only.count("/") == 0


def test_the_expected_status_is_the_only_good_one(penstock, server):
    one = server()
    one.says(204, to="/health")
    proxy = penstock(servers=[one], threads=4, health_check={**fast, "expect": 204})
    eventually(lambda: checks(proxy, one.address, "passed") >= 2, "checks")
    one.says(200, to="/health")
    assert wait_state(proxy, one.address, "resting")["why"] == "unhealthy: GET /health -> 200"


def test_tcp_checks_only_connect(penstock, server):
    one = server()
    proxy = penstock(servers=[one], threads=4, health_check={"tcp": True, "interval": "20ms", "unhealthy": 2})
    eventually(lambda: checks(proxy, one.address, "passed") >= 2, "checks")
    assert one.count() == 0
    one.close()
    assert wait_state(proxy, one.address, "resting")["why"].startswith("unhealthy: connect: ")


def test_a_check_takes_a_free_slot_and_is_skipped_when_there_is_none(penstock, scripted):
    one = scripted()
    proxy = penstock(servers=[{"address": one.address, "concurrency": 1}], threads=4,
                     health_check=fast)
    check = one.next_request()
    assert check.request.target == "/health"
    assert backend_of(proxy, one.address)["in_flight"] == 1
    client = proxy.connect().get("/work")
    proxy.wait_queue(1)
    check.respond("well")
    work = one.next_request()
    while work.request.target == "/health":     # one may have come in between
        work.respond("well")
        work = one.next_request()
    eventually(lambda: checks(proxy, one.address, "skipped") >= 3, "checks that were skipped")
    assert one.requests_waiting() == 0, "nothing beside the one request"
    work.respond("done")
    assert client.read_response().status == 200
    assert one.next_request().request.target == "/health"


def test_a_backend_of_one_slot_whose_connection_is_kept_is_checked_between_its_requests(penstock, server):
    one = server()
    proxy = penstock(servers=[one], threads=4, concurrency=1, pool={"idle": "1h"},
                     health_check={**fast, "interval": "100ms"})
    client = proxy.connect()
    for number in range(3):             # each leaves an idle connection, the only one that there may be
        assert client.get("/").read_response().status == 200
        before = checks(proxy, one.address, "passed")
        eventually(lambda: checks(proxy, one.address, "passed") > before, "a check")


def test_busy_is_not_dead(penstock, server):
    """While answers come, checks that get none in time take nobody out; when nothing comes any more, they do. So many
    of them that answers may fail to come for a while."""
    one = server()
    gate = one.shuts("/health")
    proxy = penstock(servers=[one], threads=4, health_check={**fast, "timeout": "50ms", "unhealthy": 30})
    stop = threading.Event()

    def work():
        while not stop.is_set():
            proxy.get("/work")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        eventually(lambda: checks(proxy, one.address, "busy") >= 45, "slow checks")
        assert backend_of(proxy, one.address)["state"] == "ready"
    finally:
        stop.set()
        worker.join()
    facts = wait_state(proxy, one.address, "resting")
    assert facts["why"] == "unhealthy: GET /health: no answer in 50ms"
    gate.set()
    wait_state(proxy, one.address, "ready")


@pytest.fixture
def at_work(penstock, server):
    """at_work(...): (proxy, server, client, gates): a server that computes one request, and nothing is heard of it,
    be it asked for its health or anything else, until the gates are opened."""
    def start(**settings):
        one = server()
        gates = [one.shuts("/work"), one.shuts("/health")]
        # So many that it is still in service when the request comes.
        proxy = penstock(servers=[{"address": one.address, "concurrency": 2}], threads=4, health_check={
            **fast, "timeout": "20ms", "unhealthy": 30}, **settings)
        client = proxy.connect().get("/work")
        eventually(lambda: one.count("/work") == 1, "the request at work")
        return proxy, one, client, gates
    return start


def test_a_backend_that_computes_and_says_nothing_until_it_is_done_is_busy(at_work):
    proxy, one, client, gates = at_work()
    eventually(lambda: checks(proxy, one.address, "busy") >= 45, "slow checks, more than take a backend out")
    assert backend_of(proxy, one.address)["state"] == "ready"
    for gate in gates:
        gate.set()
    assert client.read_response().status == 200
    eventually(lambda: checks(proxy, one.address, "passed") >= 3, "checks that are answered again")
    assert "unhealthy" not in proxy.log()


def test_a_backend_that_computes_for_longer_than_a_request_may_take_is_dead(at_work):
    proxy, one, client, gates = at_work(timeouts={"first_byte": "500ms"})
    assert_refused(client.read_response(), 504, "first_byte_timeout")
    assert wait_state(proxy, one.address, "resting")["why"] == "unhealthy: GET /health: no answer in 20ms"
    assert checks(proxy, one.address, "busy") >= 1
    for gate in gates:
        gate.set()
    wait_state(proxy, one.address, "ready")


def test_a_backend_at_work_that_answers_its_checks_with_an_error_is_not_well(at_work):
    proxy, one, client, gates = at_work()
    one.says(500, to="/health")
    gates[1].set()
    wait_state(proxy, one.address, "resting")
    gates[0].set()
    assert client.read_response().status == 200


def workers_of(desk, **restart):
    return desk.workers(count=1, stop={"grace": "100ms"}, restart={"backoff": "10ms", **restart})


def wait_ready(proxy):
    return eventually(lambda: (lambda one: one["state"] == "ready" and one)(proxy.upstream()["workers"][0]), "ready")


def test_a_worker_with_work_and_without_a_sign_of_life_is_hung_and_restarted(penstock, desk):
    proxy = penstock({"upstreams": {"main": {
        "workers": workers_of(desk, hung_after="2s"), "timeouts": {"client_stall": "100ms"}}}, "threads": 4})
    pid = wait_ready(proxy)["pid"]
    client = proxy.connect().post("/stuck", "x")
    desk.next_job()
    waiting = proxy.connect().get("/waiting")
    assert_refused(client.read_response(), 502, "backend_reset")
    proxy.wait_log(rf"worker main/0 \(pid {pid}\) is stopped: at work without a sign of life for too long")
    job = desk.next_job()
    assert job["target"] == "/waiting" and job["pid"] != pid
    job.respond("by the next one")
    assert waiting.read_response().body == b"by the next one"
    assert proxy.metrics().value("penstock_worker_exits_total", reason="hung") == 1


def test_a_stopped_process_is_hung_too(penstock, desk):
    proxy = penstock({"upstreams": {"main": {
        "workers": workers_of(desk, hung_after="2s"), "timeouts": {"client_stall": "100ms"}}}, "threads": 4})
    pid = wait_ready(proxy)["pid"]
    os.kill(pid, signal.SIGSTOP)
    client = proxy.connect().get("/safe")
    job = desk.next_job()           # a GET may be sent again: to the next one
    assert job["pid"] != pid
    job.respond("fine")
    assert client.read_response().body == b"fine"


def test_a_worker_that_sends_a_little_now_and_then_is_not_hung(penstock, desk):
    proxy = penstock({"upstreams": {"main": {
        "workers": workers_of(desk, hung_after="3s"), "timeouts": {"client_stall": "100ms"}, "concurrency": 2}},
        "threads": 4})
    pid = wait_ready(proxy)["pid"]
    long = proxy.connect().get("/long")
    held = desk.next_job()

    def short():
        client = proxy.connect().get("/short")
        desk.next_job().respond("short")
        client.read_response()
        return proxy.status()["up_seconds"] > begun + 4

    begun = proxy.status()["up_seconds"]
    eventually(short, "short requests, for longer than hung_after")
    held.respond("at last")
    assert long.read_response().body == b"at last"
    assert wait_ready(proxy)["pid"] == pid


def test_a_worker_that_stays_unhealthy_is_restarted_when_nothing_runs_on_it(penstock, desk):
    proxy = penstock({"upstreams": {"main": {
        "workers": workers_of(desk, unhealthy_after="100ms"),
        "health_check": {**fast, "path": "/sick", "timeout": "1s"}}}, "threads": 4})
    first = wait_ready(proxy)["pid"]
    desk.answer_jobs = {"status": "500 Sick", "body": ""}
    proxy.wait_log(r"backend main/0 is unhealthy: GET /sick -> 500")
    proxy.wait_log(rf"worker main/0 \(pid {first}\) is stopped: unhealthy for too long")
    desk.answer_jobs = {"body": "well"}
    eventually(lambda: wait_ready(proxy)["pid"] != first and checks(proxy, "main/0", "passed") >= 2, "the next one")
    assert proxy.metrics().value("penstock_worker_exits_total", reason="unhealthy") >= 1


def test_a_backend_that_is_unhealthy_and_ejected_has_to_be_neither(penstock, server):
    bad, good = server(), server()
    proxy = penstock(servers=[bad, good], threads=4, health_check=fast, retry={"attempts": 0},
                     outlier_detection={"consecutive_5xx": 1, "base_ejection_time": "1h", "max_ejection_time": "1h"})
    bad.says(500, to="/")
    eventually(lambda: proxy.get("/").status == 500, "a failure")
    assert backend_of(proxy, bad.address)["why"] == "ejected: consecutive_5xx"
    bad.says(500, to="/health")
    eventually(lambda: backend_of(proxy, bad.address)["why"] == "unhealthy: GET /health -> 500", "unhealthy")
    bad.says(200, to="/health")
    eventually(lambda: backend_of(proxy, bad.address)["health"]["healthy"], "healthy")
    facts = backend_of(proxy, bad.address)
    assert facts["state"] == "resting" and facts["why"] == "ejected: consecutive_5xx"
    assert facts["until_seconds"] > 3500


# ---- backends that speak HTTP/2

@pytest.fixture(params=["h2c", "h2s"])
def over_http2(request, lab, tmp_path):
    """over_http2(path, ...): (backend, penstock) where this path is asked for"""
    def make(path, **more):
        authority = Authority(str(tmp_path))
        backend = lab.backend(PairBackend, speaks=request.param, authority=authority)
        if request.param == "h2s":
            more["tls"] = {"ca": authority.ca}
        check = {**fast, "path": path, **more.pop("check", {})}
        return backend, lab.penstock(servers=[backend], threads=4, protocol="http2", health_check=check, **more)
    return make


@pytest.mark.parametrize("path", ["/give/0", "/give/5", "/give/300000", "/hints"])
def test_a_path_is_asked_for_over_http2(over_http2, path):
    backend, proxy = over_http2(path)
    eventually(lambda: checks(proxy, backend.address, "passed") >= 3, "good checks")
    assert checks(proxy, backend.address, "failed") == 0
    asked = backend.asked(path)[0]
    assert asked.method == "GET" and asked.get("user-agent") == ["penstock"]
    assert proxy.get("/give/1").status == 200


def test_an_answer_over_http2_that_does_not_end_is_judged_by_its_head(over_http2):
    backend, proxy = over_http2("/stall", check={"timeout": "2s"})
    eventually(lambda: checks(proxy, backend.address, "passed") >= 2, "good checks")
    assert checks(proxy, backend.address, "failed") == 0


@pytest.mark.parametrize("path, why", [("/empty", "GET /empty -> 204"), ("/reset", "GET /reset -> stream reset"),
                                       ("/silent", "GET /silent: no answer in 300ms")])
def test_a_backend_is_unhealthy_where_its_answer_over_http2_is_not_the_expected_one(over_http2, path, why):
    backend, proxy = over_http2(path, check={"timeout": "300ms"} if path == "/silent" else {})
    assert wait_state(proxy, backend.address, "resting")["why"].startswith(f"unhealthy: {why}")
    assert_refused(proxy.get("/"), 503, "no_backend")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")   # it cannot read the preface
def test_a_path_that_is_asked_for_over_http2_of_a_server_of_http1_says_so(penstock, echo):
    one = echo()
    proxy = penstock(servers=[one], protocol="http2", health_check=fast)
    assert "no HTTP/2 answer" in wait_state(proxy, one.address, "resting")["why"]


def worker_of_http2(lab, ready):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "workers", "http2.py")
    return lab.penstock({"upstreams": {"main": {"protocol": "http2", "workers": {
        "command": ["/usr/bin/python3", script, "${SOCKET}"], "count": 1, "ready": {"interval": "20ms", **ready}}}}})


def test_a_worker_that_speaks_http2_is_ready_when_its_path_says_so(lab):
    proxy = worker_of_http2(lab, {"path": "/give/2"})
    proxy.wait_log(r"worker main/0 .*ready")
    assert proxy.get("/give/1").status == 200


def test_a_worker_that_speaks_http2_is_not_ready_while_its_path_says_no(lab):
    proxy = worker_of_http2(lab, {"path": "/reset", "timeout": "2s"})
    proxy.wait_log(r"worker main/0 .*not ready after 2s: .*GET /reset -> stream reset")
