"""Running it: admin address, draining, logs that break, too few descriptors, systemd."""
import json
import os
import re
import signal
import socket
import stat as modes
import subprocess
import threading

import pytest

from lib import patience
from lib.checks import assert_refused
from lib.proxy import Penstock, program
from lib.wire import Client, Cut, eventually


@pytest.fixture
def one_slot(penstock, scripted):
    def start(**settings):
        backend = scripted()
        return penstock(servers=[backend], concurrency=1, **settings), backend
    return start


@pytest.fixture
def wrapped(monkeypatch, tmp_path):
    """wrapped(shell): from now on penstock is started by this line of sh, in which "$@" is the program."""
    def wrap(shell):
        script = tmp_path / "penstock"
        script.write_text(f"#!/bin/bash\nset -- '{program()}' \"$@\"\n{shell}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PENSTOCK", str(script))
    return wrap


# ---- what it says about itself


def test_healthz_readyz_status_and_metrics_are_on_the_admin_address_only(penstock, echo):
    proxy = penstock(servers=[echo()])
    assert proxy.ask_admin("/healthz")[0] == 200
    eventually(lambda: proxy.ask_admin("/readyz")[0] == 200, "readyz")
    status = proxy.status()
    assert status["listeners"] == [proxy.address] and status["admin"] == proxy.admin
    assert status["state"] == "ready" and status["version"]
    assert proxy.ask_admin("/nothing-here")[0] == 404
    assert json.loads(proxy.get("/status").body)["line"].startswith("GET /status "), "a path like any other"


def test_metrics_have_the_names_of_the_contract(one_slot):
    proxy, backend = one_slot(queue={"size": 0})
    client = proxy.connect().get("/")
    at_work = backend.next_request()
    assert_refused(proxy.get("/"), 429, "queue_full")
    busy = proxy.metrics()
    assert busy.value("penstock_in_flight", upstream="main", backend=backend.address) == 1
    assert busy.value("penstock_slots", upstream="main", backend=backend.address) == 1
    at_work.respond("hello")
    client.read_response()

    proxy.wait_metric(lambda metrics: metrics.value("penstock_requests_total", upstream="main", code="200") == 1)
    metrics = proxy.metrics()
    assert metrics.value("penstock_requests_total", code="429") == 1
    assert metrics.value("penstock_rejections_total", upstream="main", reason="queue_full") == 1
    assert metrics.value("penstock_in_flight") == 0
    assert metrics.value("penstock_request_duration_seconds_count", upstream="main") >= 1
    assert metrics.value("penstock_backend_duration_seconds_count", upstream="main") == 1
    assert metrics.value("process_start_time_seconds") > 0 and metrics.value("process_resident_memory_bytes") > 0
    assert metrics.value("process_open_fds") > 0 and metrics.value("process_max_fds") > 0
    for name in ("penstock_queue_depth", "penstock_queue_bytes", "penstock_queue_duration_seconds_bucket",
                 "penstock_first_byte_seconds_bucket", "penstock_connections", "penstock_connections_total",
                 "penstock_bytes_total", "penstock_backend_state", "penstock_abandoned_in_flight", "penstock_build_info",
                 "process_cpu_seconds_total"):
        assert name in metrics.names(), name


def test_the_json_access_log_has_one_line_a_request_and_whatever_a_client_sends_stays_in_its_field(penstock, echo):
    proxy = penstock(servers=[echo()])
    proxy.get('/a"b?x=1', 'User-Agent: evil", "status": 999, "\\u0000\r\n')
    line = proxy.wait_access(lambda line: "/a" in json.dumps(line))
    assert line["status"] == 200 and line["method"] == "GET"
    assert len(proxy.access_log()) == 1


def test_the_combined_access_log_looks_like_everybody_elses(penstock, echo, tmp_path):
    path = tmp_path / "access.log"
    proxy = penstock(servers=[echo()], access_log={"path": str(path), "format": "combined"})
    proxy.get("/page", "User-Agent: tester/1\r\nReferer: http://example.com/\r\n")
    text = eventually(lambda: path.exists() and path.read_text(), "the line")
    assert re.match(r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /page HTTP/1\.1" 200 \d+ '
                    r'"http://example\.com/" "tester/1"', text), text


def test_the_access_log_can_be_off(penstock, echo):
    proxy = penstock(servers=[echo()], access_log={"format": "off"})
    assert proxy.get("/").status == 200
    proxy.stop()
    assert proxy.logged == []


def test_usr1_opens_the_access_log_again_after_it_was_moved_away(penstock, echo, tmp_path):
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    proxy = penstock(servers=[echo()], access_log={"path": str(path)})
    proxy.get("/before")
    eventually(lambda: path.exists() and "/before" in path.read_text(), "the first line")
    path.rename(moved)
    proxy.signal(signal.SIGUSR1)
    eventually(path.exists, "a new file")
    proxy.get("/after")
    eventually(lambda: "/after" in path.read_text(), "the second line")
    assert "/after" not in moved.read_text()


# ---- logs that break


broken_logs = {
    "stdout is full": 'exec "$@" >/dev/full',
    "stdout is closed": 'exec "$@" >&-',
    "nobody reads stdout any more": 'exec "$@" > >(exec true)',
    "stdout is a pipe that nobody empties": 'exec "$@" >"$NOBODY_READS"',
}


@pytest.mark.parametrize("shell", broken_logs.values(), ids=broken_logs)
def test_an_access_log_that_cannot_be_written_never_stops_traffic(penstock, echo, wrapped, shell, tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    nobody = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setenv("NOBODY_READS", str(pipe))
    wrapped(shell)
    proxy = penstock(servers=[echo()])
    client = proxy.connect()
    for _ in range(2000):      # a megabyte of lines: more than any pipe holds
        assert client.get("/" + "x" * 300).read_response().status == 200
    proxy.stop()
    os.close(nobody)


def test_an_access_log_on_a_full_disk_never_stops_traffic(penstock, echo):
    proxy = penstock(servers=[echo()], access_log={"path": "/dev/full"})
    for _ in range(50):
        assert proxy.get("/").status == 200


class Unread(Penstock):
    """Nobody reads its stderr any more once its addresses are known, until listen_again is set."""

    def _read(self, stream, into):
        if stream is self.process.stdout:
            return super()._read(stream, into)
        self.listen_again = threading.Event()

        def until_it_listens():
            for line in stream:
                yield line
                if b"admin on" in line:
                    self.listen_again.wait()
        return super()._read(until_it_listens(), into)


def test_stderr_that_nobody_empties_never_stops_traffic(lab, desk):
    desk.answer_jobs = {"body": "ok"}
    noise = "i=0; while [ $i -lt 20000 ]; do echo a line of some length that fills the pipe; i=$((i+1)); done"
    proxy = Unread({"upstreams": {"main": {"workers": desk.workers(
        command=f"{noise}; exec {' '.join(desk.command())}")}}})
    lab.running.append(proxy)
    try:
        assert proxy.get("/").status == 200      # the worker could say all that, and start
        assert proxy.status()["state"] == "ready"
    finally:
        proxy.listen_again.set()


# ---- the end


def test_term_drains_no_request_that_was_accepted_is_lost(one_slot):
    proxy, backend = one_slot(limits={"drain": "1h"}, threads=4)
    running = proxy.connect().get("/running")
    at_work = backend.next_request()
    waiting = []
    for number in range(5):
        waiting.append(proxy.connect().get(f"/waiting/{number}"))
        proxy.wait_queue(number + 1)
    idle = proxy.connect().get("/refused-or-not")      # one more that waits, and then leaves its connection idle
    proxy.wait_queue(6)
    proxy.drain()
    assert proxy.ask_admin("/readyz")[0] == 503 and proxy.ask_admin("/healthz")[0] == 200
    at_work.respond("run")
    answer = running.read_response()
    assert answer.body == b"run" and "close" in answer.head.list("connection")
    for client in [*waiting, idle]:
        backend.next_request().respond("waited")
        assert client.read_response().body == b"waited"
        client.expect_end()
    assert proxy.wait_exit() == 0


def test_while_draining_nothing_new_is_taken(one_slot):
    proxy, backend = one_slot(limits={"drain": "1h"})
    kept = proxy.connect().get("/first")
    backend.next_request().respond()
    kept.read_response()
    running = proxy.connect().get("/running")
    at_work = backend.next_request()
    proxy.drain()

    with pytest.raises((OSError, Cut)):
        Client(proxy.address).get("/new").read_response()
    try:
        answer = kept.get("/on-a-kept-connection").read_response()      # refused, or closed while idle
        assert_refused(answer, 503, "draining")
        assert "close" in answer.head.list("connection")
    except Cut:
        pass
    at_work.respond("to the end")
    assert running.read_response().body == b"to the end"
    assert proxy.wait_exit() == 0


def test_what_is_still_running_at_the_drain_deadline_is_cut_and_the_exit_is_orderly(one_slot):
    proxy, backend = one_slot(limits={"drain": "100ms"})
    client = proxy.connect().get("/endless")
    backend.next_request()
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == 0
    client.read_to_end()


def test_a_second_signal_ends_it_at_once_with_its_workers(penstock, desk):
    proxy = penstock({"upstreams": {"main": {"workers": desk.workers(stop={"grace": "1h"})}},
                      "limits": {"drain": "1h"}})
    proxy.check_exit = False
    proxy.connect().get("/endless")
    worker = desk.next_job()["pid"]
    proxy.drain()
    proxy.signal(signal.SIGTERM)
    proxy.wait_exit()
    eventually(lambda: not os.path.exists(f"/proc/{worker}"), "the end of the worker")


def test_an_idle_penstock_ends_at_once_on_term_and_on_int(penstock, echo):
    for number in (signal.SIGTERM, signal.SIGINT):
        proxy = penstock(servers=[echo()], limits={"drain": "1h"})
        proxy.connect().get("/").read_response()      # an idle connection is no reason to wait
        proxy.signal(number)
        assert proxy.wait_exit() == 0


# ---- descriptors


def test_when_descriptors_run_out_accepting_pauses_and_resumes_and_everyone_is_served(penstock, echo, wrapped):
    wrapped('ulimit -n 80; exec "$@"')
    proxy = penstock(servers=[echo()], concurrency=2, queue={"size": 1000, "timeout": "1h"},
                     limits={"client_idle_timeout": "1h"})
    waiting = {client.sock: client for client in (proxy.connect().get("/") for _ in range(200))}
    served = 0
    while waiting:      # whoever has an answer makes room for another
        ready = eventually(lambda: [sock for sock in waiting if waiting[sock].has_input()], f"answers after {served}")
        for sock in ready:
            client = waiting.pop(sock)
            assert client.read_response().status == 200
            client.close()
            served += 1
    assert served == 200
    assert proxy.status()["state"] == "ready", "the admin address answers too"


# ---- listeners


def test_it_listens_on_unix_sockets_and_spreads_their_connections(penstock, echo, tmp_path):
    path = tmp_path / "http.sock"
    proxy = penstock({"listen": [{"address": "127.0.0.1:0"}, {"address": f"unix:{path}"}],
                      "upstreams": {"main": {"servers": [{"address": echo().address}]}}, "threads": 4})
    for _ in range(8):
        client = proxy.connect(f"unix:{path}").get("/over-unix")
        assert client.read_response().status == 200
    assert modes.S_ISSOCK(os.stat(path).st_mode)
    proxy.stop()
    assert not path.exists(), "it takes its socket with it"


def test_a_socket_file_that_a_killed_one_left_is_no_obstacle(penstock, echo, tmp_path):
    path = tmp_path / "http.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    proxy = penstock({"listen": [{"address": f"unix:{path}"}],
                      "upstreams": {"main": {"servers": [{"address": echo().address}]}}})
    assert proxy.connect(f"unix:{path}").get("/").read_response().status == 200


def test_an_address_in_use_is_named_and_nothing_is_spawned(tmp_path, desk):
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    address = "127.0.0.1:%d" % taken.getsockname()[1]
    config = tmp_path / "penstock.yaml"
    config.write_text(json.dumps({"listen": [{"address": address}], "admin": {"address": "127.0.0.1:0"},
                                  "upstreams": {"main": {"workers": desk.workers()}}}))
    ended = subprocess.run([program(), "run", str(config)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           timeout=patience)
    assert ended.returncode != 0
    assert address in ended.stderr and "use" in ended.stderr
    assert desk.starts.empty()


# ---- systemd


def test_systemd_is_told_when_it_is_ready_and_when_it_stops(penstock, echo, tmp_path, monkeypatch):
    path = tmp_path / "notify"
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(path))
    notify.settimeout(patience)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    proxy = penstock(servers=[echo()])
    assert b"READY=1" in notify.recv(4096)
    proxy.signal(signal.SIGTERM)
    while b"STOPPING=1" not in (said := notify.recv(4096)):
        assert said
    assert proxy.wait_exit() == 0


def test_the_unit_is_one_that_systemd_understands():
    unit = os.path.join(os.path.dirname(__file__), "..", "..", "systemd", "penstock.service")
    with open(unit, encoding="utf-8") as file:
        text = file.read()
    for line in ("Type=notify", "KillMode=mixed", "ExecReload=/bin/kill -HUP $MAINPID", "RuntimeDirectory=penstock"):
        assert line in text.splitlines(), line
