"""Servers that are given by name: their addresses come and go as a nameserver says."""
import errno
import http.client
import http.server
import socket
import threading

import pytest

from lib.dns import NameServer
from lib.wire import eventually


class Here:
    """A server on a loopback address of its own, so that several can have one port. Says which it is; a request
    for /hold is answered when the test says so."""

    def __init__(self, host, port=0):
        here = self
        self.served = 0
        self.held = threading.Event()
        self.go_on = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                here.served += 1
                if self.path == "/hold":
                    here.held.set()
                    here.go_on.wait(30)
                body = host.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True
            block_on_close = False

        self.server = Server((host, port), Handler)
        self.port = self.server.server_address[1]
        self.name = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def made():
    things = []
    yield lambda kind, *arguments, **named: things.append(kind(*arguments, **named)) or things[-1]
    for thing in things:
        thing.close()


def at_one_port(made, *hosts):
    """One on each of these addresses. A port that is free on the first may be taken on the others: then another."""
    while True:
        here = [made(Here, hosts[0])]
        try:
            return here + [made(Here, host, here[0].port) for host in hosts[1:]]
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


@pytest.fixture
def three(made):
    return at_one_port(made, "127.0.0.2", "127.0.0.3", "127.0.0.4")


def start(penstock, nameserver, port, resolve="100ms", name="gpu.test", resolver=None, **settings):
    server = {"address": f"{name}:{port}", "resolve": resolve, **settings.pop("server", {})}
    return penstock({"threads": 4, "resolver": {"nameservers": [nameserver.address], "timeout": "500ms",
                                                "attempts": 2, **(resolver or {})},
                     "upstreams": {"main": {"servers": [server], **settings}}})


def backends(running):
    return sorted(b["name"] for b in running.upstream()["backends"] if b["state"] == "ready")


def wait_backends(running, *names):
    eventually(lambda: backends(running) == sorted(names), f"backends {names}")


def who_serves(running, count=12):
    answers = [running.get("/") for _ in range(count)]
    assert all(answer.status == 200 for answer in answers), answers
    return {answer.body.decode() for answer in answers}


def test_every_address_of_a_name_is_a_backend(penstock, made, three):
    nameserver = made(NameServer, gpu_test=["127.0.0.2", "127.0.0.3"])
    running = start(penstock, nameserver, three[0].port, balance="round_robin")
    wait_backends(running, three[0].name, three[1].name)
    assert who_serves(running) == {"127.0.0.2", "127.0.0.3"}
    (name,) = running.upstream()["names"]
    assert name["name"] == f"gpu.test:{three[0].port}"
    assert sorted(name["addresses"]) == [three[0].name, three[1].name]


def test_requests_at_the_start_wait_for_the_first_look_up(penstock, made, three):
    nameserver = made(NameServer, gpu_test="silent")
    running = start(penstock, nameserver, three[0].port, resolver={"attempts": 100})
    client = running.connect()
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    running.wait_queue(1)
    assert running.upstream()["serving"] == "coming"
    nameserver.say("gpu.test", ["127.0.0.2"])           # the next attempt is answered
    assert client.read_response().status == 200


def test_an_ipv6_address_is_a_backend_too(penstock, made):
    try:
        server = made(Here, "::1")
    except OSError:
        pytest.skip("this machine has no ::1")
    nameserver = made(NameServer, gpu_test=["::1"])
    running = start(penstock, nameserver, server.port)
    wait_backends(running, server.name)
    assert who_serves(running) == {"::1"}


def test_addresses_that_come_join_and_those_that_go_leave(penstock, made, three):
    nameserver = made(NameServer, gpu_test=["127.0.0.2"])
    running = start(penstock, nameserver, three[0].port, balance="round_robin")
    wait_backends(running, three[0].name)
    nameserver.say("gpu.test", ["127.0.0.2", "127.0.0.3", "127.0.0.4"])
    wait_backends(running, *(one.name for one in three))
    assert who_serves(running) == {"127.0.0.2", "127.0.0.3", "127.0.0.4"}
    nameserver.say("gpu.test", ["127.0.0.4"])
    wait_backends(running, three[2].name)
    assert who_serves(running) == {"127.0.0.4"}
    # Gone altogether, once nothing is left of them.
    running.wait_status(lambda status: len(status["upstreams"]["main"]["backends"]) == 1)


def test_a_removed_address_drains_its_request_is_answered(penstock, made, three):
    nameserver = made(NameServer, gpu_test=["127.0.0.2"])
    running = start(penstock, nameserver, three[0].port)
    wait_backends(running, three[0].name)
    client = running.connect()
    client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
    assert three[0].held.wait(30)
    nameserver.say("gpu.test", ["127.0.0.3"])
    wait_backends(running, three[1].name)
    states = {b["name"]: b["state"] for b in running.upstream()["backends"]}
    assert states == {three[0].name: "draining", three[1].name: "ready"}
    assert who_serves(running) == {"127.0.0.3"}
    three[0].go_on.set()
    answer = client.read_response()
    assert (answer.status, answer.body) == (200, b"127.0.0.2")
    running.wait_status(lambda status: len(status["upstreams"]["main"]["backends"]) == 1)


def test_an_address_that_comes_back_while_it_drains_is_shown_once(penstock, made, three):
    nameserver = made(NameServer, gpu_test=["127.0.0.2"])
    running = start(penstock, nameserver, three[0].port)
    wait_backends(running, three[0].name)
    client = running.connect()
    client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
    assert three[0].held.wait(30)
    nameserver.say("gpu.test", ["127.0.0.3"])
    wait_backends(running, three[1].name)
    nameserver.say("gpu.test", ["127.0.0.2"])
    wait_backends(running, three[0].name)
    assert who_serves(running) == {"127.0.0.2"}
    eventually(lambda: [b["name"] for b in running.upstream()["backends"]] == [three[0].name], "one")
    assert running.metrics().value("penstock_in_flight", backend=three[0].name) == 1
    three[0].go_on.set()
    assert client.read_response().status == 200


@pytest.mark.parametrize("trouble", ["servfail", "nxdomain", "empty", "silent", "truncated"])
def test_a_failed_look_up_keeps_the_last_answer(penstock, made, three, trouble):
    nameserver = made(NameServer, gpu_test=["127.0.0.2", "127.0.0.3"])
    running = start(penstock, nameserver, three[0].port, balance="round_robin")
    wait_backends(running, three[0].name, three[1].name)
    if trouble == "nxdomain":
        nameserver.forget("gpu.test")
    else:
        nameserver.say("gpu.test", {"servfail": None, "empty": [], "silent": "silent",
                                    "truncated": "truncated"}[trouble])
    running.wait_log("gpu.test.* is not found: .*stay as they are")
    running.wait_metric(lambda metrics: metrics.value("penstock_resolutions_total", result="failed") >= 2)
    assert backends(running) == sorted([three[0].name, three[1].name])
    assert who_serves(running) == {"127.0.0.2", "127.0.0.3"}
    nameserver.say("gpu.test", ["127.0.0.3"])
    running.wait_log("found again")
    wait_backends(running, three[1].name)


def test_a_name_without_an_answer_refuses_at_once_and_is_tried_until_it_has_one(penstock, made, three):
    nameserver = made(NameServer)
    running = start(penstock, nameserver, three[0].port, resolve="10s")
    running.wait_log("gpu.test.* is not found: .*no backend yet")
    answer = running.get("/")
    assert (answer.status, answer["x-penstock-reason"]) == (503, "no_backend")
    (stand_in,) = running.upstream()["backends"]
    assert stand_in["name"] == f"gpu.test:{three[0].port}" and stand_in["state"] == "down"
    nameserver.say("gpu.test", ["127.0.0.2"])
    wait_backends(running, three[0].name)               # sooner than in 10 s
    assert who_serves(running) == {"127.0.0.2"}
    running.wait_status(lambda status: len(status["upstreams"]["main"]["backends"]) == 1)


def test_one_kind_of_address_may_fail_while_the_other_is_found(penstock, made, three):
    """Some nameservers do not answer AAAA at all."""
    nameserver = made(NameServer, gpu_test=["127.0.0.2"])
    answer = nameserver._answer
    nameserver._answer = lambda packet: answer(packet) if b"\0\0\x1c\0\1" not in packet else None
    running = start(penstock, nameserver, three[0].port)
    wait_backends(running, three[0].name)
    nameserver.say("gpu.test", ["127.0.0.3"])
    wait_backends(running, three[1].name)


def test_a_kind_of_address_that_a_name_has_no_longer_leaves(penstock, made):
    try:
        v6, v4 = at_one_port(made, "::1", "127.0.0.1")
    except OSError:
        pytest.skip("this machine has no ::1")
    nameserver = made(NameServer, gpu_test=["127.0.0.1", "::1"])
    running = start(penstock, nameserver, v6.port)
    wait_backends(running, v4.name, v6.name)
    nameserver.say("gpu.test", ["127.0.0.1"])           # AAAA: no error, and no address
    wait_backends(running, v4.name)
    nameserver.say("gpu.test", ["::1"])
    wait_backends(running, v6.name)


def test_names_of_etc_hosts_need_no_nameserver(penstock, made):
    server = made(Here, "127.0.0.1")
    nameserver = made(NameServer)
    running = start(penstock, nameserver, server.port, name="localhost", resolve="10s")
    wait_for = f"127.0.0.1:{server.port}"
    running.wait_status(lambda status: any(b["name"] == wait_for and b["state"] == "ready"
                                           for b in status["upstreams"]["main"]["backends"]))
    assert who_serves(running) == {"127.0.0.1"}


def test_without_resolve_a_name_is_looked_up_once(penstock, made, three):
    nameserver = made(NameServer, gpu_test=["127.0.0.2"], other_test=["127.0.0.3"])
    running = penstock({"resolver": {"nameservers": [nameserver.address], "timeout": "60s"}, "upstreams": {"main": {
        "servers": [{"address": f"gpu.test:{three[0].port}"},
                    {"address": f"other.test:{three[0].port}", "resolve": "20ms"}]}}})
    wait_backends(running, three[0].name, three[1].name)
    nameserver.wait_asked("other.test", 6)
    assert nameserver.count("gpu.test") == 1


def test_a_name_beside_addresses_and_workers_of_its_own_settings(penstock, made, three):
    nameserver = made(NameServer, gpu_test=["127.0.0.3", "127.0.0.2"])
    port = three[0].port
    running = penstock({"threads": 4, "resolver": {"nameservers": [nameserver.address]}, "upstreams": {"main": {
        "servers": [f"127.0.0.2:{port}",
                    {"address": f"gpu.test:{port}", "resolve": "1s", "concurrency": 3, "backup": True}]}}})
    wait_backends(running, three[0].name, three[1].name)   # 127.0.0.2 is there once
    running.wait_log("127.0.0.2.* is a backend already")
    slots = {b["name"]: (b["slots"], b["why"]) for b in running.upstream()["backends"]}
    assert slots == {three[0].name: (0, ""), three[1].name: (3, "backup")}


def test_keys_of_a_hash_stay_when_another_address_goes(penstock, made, three):
    nameserver = made(NameServer, gpu_test=["127.0.0.2", "127.0.0.3", "127.0.0.4"])
    running = start(penstock, nameserver, three[0].port, balance={"hash": {"header": "x-key"}})
    wait_backends(running, *(one.name for one in three))

    def homes():
        return {key: running.get("/", f"x-key: {key}\r\n").body.decode() for key in range(40)}

    before = homes()
    nameserver.say("gpu.test", ["127.0.0.2", "127.0.0.3"])
    wait_backends(running, three[0].name, three[1].name)
    after = homes()
    assert {key for key in before if before[key] != after[key]} == \
        {key for key in before if before[key] == "127.0.0.4"} != set()


def test_traffic_goes_on_while_addresses_change(penstock, made, three):
    nameserver = made(NameServer, gpu_test=["127.0.0.2"])
    running = start(penstock, nameserver, three[0].port, resolve="20ms", balance="round_robin")
    wait_backends(running, three[0].name)
    stop = threading.Event()
    failures, served = [], [0]

    def load():
        host, _, port = running.address.rpartition(":")
        client = http.client.HTTPConnection(host, int(port))
        while not stop.is_set():
            client.request("GET", "/")
            answer = client.getresponse()
            answer.read()
            served[0] += 1
            if answer.status != 200:
                failures.append(answer.status)
        client.close()

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(6):
            now = [f"127.0.0.{2 + i}" for i in range(3) if i != turn % 3]
            nameserver.say("gpu.test", now)
            wait_backends(running, *(f"{ip}:{three[0].port}" for ip in now))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures and served[0] > 0
