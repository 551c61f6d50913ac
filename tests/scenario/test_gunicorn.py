"""Servers that serve one connection at a time: an idle connection of ours must never stand in their way. And the
HTTP/1.0 client ab. (pool.idle is an hour in these tests: a connection that blocks would block for good.)"""
import re
import subprocess

import pytest

from lib.desk import python
from lib.load import hey

one_connection_servers = {
    "gunicorn sync on a unix socket": ["gunicorn", "-w", "1", "-b", "unix:${SOCKET}", "flask_app:app"],
    "gunicorn sync on a port": ["gunicorn", "-w", "1", "-b", "127.0.0.1:${PORT}", "flask_app:app"],
    "http.server with keep-alive": [python, "plain.py", "${PORT}"],
}


@pytest.fixture(params=one_connection_servers.values(), ids=one_connection_servers)
def one_at_a_time(penstock, desk, request):
    """one_at_a_time(...): a proxy with four loops before `count` such servers."""
    def start(count=1, **settings):
        return penstock({"upstreams": {"main": {
            "workers": desk.stub(request.param, count=count), "concurrency": 1, "pool": {"idle": "1h"}, **settings}},
            "threads": 4})
    return start


def test_connections_that_fall_on_different_loops_never_block_each_other(one_at_a_time, desk):
    proxy = one_at_a_time()
    for _ in range(60):      # each on a connection of its own, so that the kernel gives it to some loop
        assert proxy.get("/").status == 200
    assert desk.most_at_once() == 1


def test_many_kept_connections_on_four_loops_are_all_served(one_at_a_time, desk):
    proxy = one_at_a_time(queue={"size": 100, "timeout": "1h"})
    clients = [proxy.connect() for _ in range(24)]
    for _ in range(5):
        for client in clients:
            client.get("/")
        assert [client.read_response().status for client in clients] == [200] * 24
    assert desk.most_at_once() == 1


def test_two_such_servers_are_both_used(one_at_a_time, desk):
    proxy = one_at_a_time(count=2, queue={"size": 100, "timeout": "1h"})
    proxy.wait_status(lambda status: sum(worker["state"] == "ready"
                                         for worker in status["upstreams"]["main"]["workers"]) == 2, "both ready")
    run = hey(f"http://{proxy.address}/", 200, c=8)
    assert run.counts() == {200: 200} and run.errors == 0
    counts = desk.counts()
    assert len(counts) == 2 and all(seen["done"] > 0 for seen in counts.values()), counts
    assert desk.most_at_once() == 1


def test_hang_ups_leave_such_a_server_usable(one_at_a_time, desk):
    proxy = one_at_a_time()
    for _ in range(20):
        client = proxy.connect().get("/")
        client.reset()
    proxy.wait_queue(0)
    assert proxy.get("/").status == 200
    assert desk.most_at_once() <= 1


def ab(url, *options):
    ended = subprocess.run(["ab", *options, url], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    numbers = {name: int(value) for name, value in re.findall(r"^([A-Z][\w\- ]+):\s+(\d+)", ended.stdout, re.M)}
    return numbers, ended.stdout


@pytest.mark.parametrize("options", [[], ["-k"]], ids=["ab", "ab -k"])
def test_ab_loses_nothing_with_and_without_keep_alive(penstock, desk, options):
    proxy = penstock({"upstreams": {"main": {
        "workers": desk.stub(["gunicorn", "-w", "1", "-b", "unix:${SOCKET}", "flask_app:app"], count=2),
        "concurrency": 1, "queue": {"timeout": "1h"}}}})
    numbers, output = ab(f"http://{proxy.address}/", "-n", "300", "-c", "10", "-l", *options)
    assert numbers["Complete requests"] == 300 and numbers["Failed requests"] == 0, output
    assert "Non-2xx" not in output, output
    if options:
        assert numbers["Keep-Alive requests"] == 300, output
    assert desk.most_at_once() == 1


@pytest.mark.parametrize("command", [
    ["gunicorn", "-w", "1", "--threads", "4", "-b", "unix:${SOCKET}", "flask_app:app"],
    [python, "flask_serve.py", "${PORT}"],
    ["uvicorn", "stub:app", "--port", "${PORT}", "--log-level", "warning"],
], ids=["gunicorn with threads", "flask's own server", "uvicorn on a port"])
def test_servers_that_take_several_at_once_get_as_many_as_the_configuration_says(penstock, desk, command):
    proxy = penstock({"upstreams": {"main": {
        "workers": desk.stub(command, environment={"STUB_SECONDS": "0.02"}), "concurrency": 4,
        "queue": {"timeout": "1h"}}}, "threads": 4})
    run = hey(f"http://{proxy.address}/", 240, c=12)
    assert run.counts() == {200: 240} and run.errors == 0
    assert desk.most_at_once() == 4
