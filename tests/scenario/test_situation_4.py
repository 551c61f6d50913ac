"""Situation 4: one server or two, each held to a small share of a core (workers/share.py), and a thousand users who ramp up,
then 99. The configuration is the one that we ship (conf/two-servers.yaml).

What a server can do is small, so that neither the users nor penstock are what limits, and it is only compared with
itself: with one server, with fewer users, earlier and later in a run. $PENSTOCK_USERS_SECONDS=120 makes the runs as long
as one likes, -s shows their numbers."""
import os
import re
import signal
import subprocess
import sys
import tempfile

import pytest

from lib import patience
from lib.desk import folder_of_workers, python
from lib.load import percentile
from lib.proxy import repository
from lib.wire import Wire, dial, eventually

sys.path.insert(0, folder_of_workers)
from counts import read_counts  # noqa: E402

seconds = int(os.environ.get("PENSTOCK_USERS_SECONDS", "10"))      # with all users there
ramp = max(4, seconds // 4)
share = 10             # percent of a core, of each server
cpu_per_request = 0.005


class SlowServer:
    """workers/burner.py, held to its share."""

    def __init__(self, folder):
        self.folder = tempfile.mkdtemp(dir=folder)
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [python, os.path.join(folder_of_workers, "burner.py"), "0"], stdout=subprocess.PIPE, stderr=self.log,
            text=True, env={**os.environ, "STUB_CPU": str(cpu_per_request), "COUNTS": self.folder})
        self.address = self.process.stdout.readline().split()[-1]
        self.limiter = subprocess.Popen([python, os.path.join(folder_of_workers, "share.py"), str(share),
                                         str(self.process.pid)])

    def counts(self):
        """What it had inside: now, most, begun, done."""
        seen, = read_counts(self.folder).values()
        return seen

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def close(self):
        self.limiter.kill()
        self.limiter.wait()
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Run:
    """What the users saw, and what penstock logged of those it refused."""

    def __init__(self, rows, log):
        self.rows = rows                  # (began, took, status)
        self.log = log

    def rate(self, begin=ramp, end=ramp + seconds):
        """Good answers a second in a part of the run; without one, with all users there."""
        ends = [began + took for began, took, status in self.rows if status == 200]
        return sum(begin <= at < end for at in ends) / (end - begin)

    def took(self, status):
        """How long answers to what was asked with all users there took, sorted."""
        return sorted(took for began, took, known in self.rows if known == status and began >= ramp)

    def refusals_ms(self):
        """How long penstock had each refused request, by its own log, sorted."""
        return sorted(line["total_ms"] for line in self.log if line["status"] == 429)


@pytest.fixture
def pool(lab, penstock, tmp_path):
    """pool(count): penstock with conf/two-servers.yaml, before so many slow servers."""
    def start(count):
        with open(f"{repository}/conf/two-servers.yaml", encoding="utf-8") as file:
            text = file.read()
        servers = []
        for number in range(count):
            servers.append(SlowServer(tmp_path))
            lab.backends.append(servers[-1])
            text = text.replace(f"127.0.0.1:800{number + 1}", servers[-1].address)
        if count == 1:
            text = text.replace("      - {address: 127.0.0.1:8002}\n", "")
        assert "127.0.0.1:8002" not in text
        proxy = penstock(text.replace("127.0.0.1:8000", "127.0.0.1:0").replace("127.0.0.1:9901", "127.0.0.1:0"))
        return proxy, servers
    return start


def play(proxy, processes, threads):
    """So many users ramp up, stay, and leave all at once."""
    ended = subprocess.run([python, os.path.join(folder_of_workers, "users.py"), proxy.address, str(processes),
                            str(threads), str(ramp), str(seconds)], capture_output=True, text=True, check=True,
                           timeout=ramp + seconds + patience)
    assert ended.stderr == ""
    rows = [tuple(map(float, line.split(","))) for line in ended.stdout.splitlines()]
    # They left while some of them waited or were served: what was begun is finished, for nobody.
    proxy.wait_queue(0, "pool")
    proxy.wait_in_flight(0, "pool")
    return Run(rows, proxy.access_log())


def check_servers(proxy, servers):
    """They were never given more than two at a time, finished all that they began, and saw nobody hang up."""
    for server in servers:
        eventually(lambda: server.counts()["now"] == 0, "all work done")
        assert server.counts()["most"] == 2
        assert server.counts()["begun"] == server.counts()["done"]
    proxy.stop()
    for server in servers:
        assert server.said() == ""
    # Would it have said so? Somebody who does hang up on it:
    rude = Wire(dial(servers[0].address))
    rude.send("GET / HTTP/1.1\r\n\r\n").reset()
    eventually(lambda: re.search("BrokenPipeError|ConnectionResetError", servers[0].said()), "a hang-up in the log")


def test_a_thousand_users_two_servers_do_twice_as_much_as_one_and_hold_it_and_nobody_hangs_up_on_them(pool):
    rates = []
    for count in (1, 2):
        proxy, servers = pool(count)
        run = play(proxy, processes=10, threads=100)
        check_servers(proxy, servers)

        assert {status for _, _, status in run.rows} == {200, 429}, "no error: served, or told when to come again"
        half = ramp + seconds / 2
        first, second, refused = run.rate(ramp, half), run.rate(half), run.refusals_ms()
        print(f"1000 users, {count} servers: {first:.1f}/s, then {second:.1f}/s; served within "
              f"{percentile(run.took(200), 0.5):.1f} s (half), {percentile(run.took(200), 0.99):.1f} s (99 %); "
              f"{len(refused)} refused, 99 % of them within "
              f"{percentile(refused, 0.99):.2f} ms as penstock says, half within "
              f"{1000 * percentile(run.took(429), 0.5):.2f} ms as the users say")
        assert second > 0.8 * first, "the plateau is held"
        assert len(refused) > 500
        # In milliseconds, by penstock's own clock: long before any slot could have come free.
        assert percentile(refused, 0.99) < 1000 * min(took for _, took, status in run.rows if status == 200)
        rates.append(run.rate())
    print(f"1000 users: two servers do {rates[1] / rates[0]:.2f} times what one does")
    assert rates[1] >= 1.8 * rates[0]


def test_99_users_are_all_served_and_twice_as_fast_by_two_servers(pool):
    rates, times = [], []
    for count in (1, 2):
        proxy, servers = pool(count)
        run = play(proxy, processes=9, threads=11)
        check_servers(proxy, servers)

        assert {status for _, _, status in run.rows} == {200}
        rates.append(run.rate())
        times.append(percentile(run.took(200), 0.5))
        print(f"99 users, {count} servers: {rates[-1]:.1f}/s, half of them within {times[-1]:.2f} s")
    print(f"99 users: two servers do {rates[1] / rates[0]:.2f} times what one does")
    assert rates[1] >= 1.8 * rates[0]
    assert times[1] < times[0] / 1.5
