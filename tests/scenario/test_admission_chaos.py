"""Strictness: any mixture of arrivals, hang-ups, timeouts and crashes, on four loops. No worker ever has more than its
concurrency inside (by its own count), and afterwards every slot is back.

The mixture is random; its seed is printed on failure and taken from $PENSTOCK_CHAOS_SEED."""
import os
import random
import signal
import threading
import time

import pytest

from lib.processes import alive
from lib.wire import Client, Cut

seed = int(os.environ.get("PENSTOCK_CHAOS_SEED", random.randrange(1 << 30)))


class Users(threading.Thread):
    """One of many: makes connections and does something rude or polite with each."""

    def __init__(self, proxy, number, rounds, behaviours):
        super().__init__(daemon=True)
        self.proxy = proxy
        self.random = random.Random(seed * 1000 + number)
        self.rounds = rounds
        self.behaviours = behaviours
        self.statuses = []
        self.failure = None

    def run(self):
        try:
            for _ in range(self.rounds):
                client = Client(self.proxy.address)
                try:
                    self.random.choice(self.behaviours)(self, client)
                except (Cut, OSError):       # a drained or refused connection
                    pass
                finally:
                    client.close()
        except BaseException as failure:     # told by the test
            self.failure = failure

    def pause(self, most):
        time.sleep(self.random.random() * most)

    def work(self):
        return f"/?seconds={self.random.random() * 0.03:.4f}"


def polite(user, client):
    for _ in range(user.random.randrange(1, 4)):
        user.statuses.append(client.get(user.work()).read_response().status)


def posts(user, client):
    body = b"x" * user.random.randrange(200_000)
    user.statuses.append(client.post(user.work(), body).read_response().status)


def hangs_up_at_once(user, client):
    client.get(user.work())


def hangs_up_soon(user, client):
    client.get(user.work())
    user.pause(0.03)


def resets_soon(user, client):
    client.post(user.work(), b"x" * user.random.randrange(50_000))
    user.pause(0.03)
    client.reset()


def leaves_in_the_middle_of_its_body(user, client):
    client.send(f"POST {user.work()} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + "x" * 5000)
    user.pause(0.01)


def drips_its_head(user, client):
    client.drip(f"GET {user.work()} HTTP/1.1\r\nHost: a\r\n\r\n", step=9)
    user.statuses.append(client.read_response().status)


def pipelines(user, client):
    client.get(user.work()).get(user.work()).get(user.work())
    for _ in range(user.random.randrange(4)):
        user.statuses.append(client.read_response().status)


def takes_longer_than_the_timeout(user, client):
    user.statuses.append(client.get("/?seconds=0.4").read_response().status)


def crashes_the_worker(user, client):
    if user.random.random() < 0.1:
        user.statuses.append(client.post("/exit/3").read_response().status)


everything = [polite, polite, polite, posts, hangs_up_at_once, hangs_up_soon, resets_soon,
              leaves_in_the_middle_of_its_body, drips_its_head, pipelines, takes_longer_than_the_timeout,
              crashes_the_worker]


def live_through(proxy, behaviours, users=24, rounds=15):
    crowd = [Users(proxy, number, rounds, behaviours) for number in range(users)]
    for user in crowd:
        user.start()
    for user in crowd:
        user.join()
        if user.failure:
            raise AssertionError(f"seed {seed}") from user.failure
    return [status for user in crowd for status in user.statuses]


def wait_calm(proxy, slots, killed=()):
    """Every slot is back and can be used."""
    status = proxy.wait_status(
        lambda status: all(backend["in_flight"] == 0 for backend in status["upstreams"]["main"]["backends"])
        and status["upstreams"]["main"]["queue"]["depth"] == 0 and status["upstreams"]["main"]["abandoned"] == 0
        and all(worker["state"] == "ready" and worker["pid"] not in killed
                for worker in status["upstreams"]["main"]["workers"]), f"calm; seed {seed}")
    assert sum(backend["slots"] for backend in status["upstreams"]["main"]["backends"]) == slots
    clients = [proxy.connect() for _ in range(slots)]
    for client in clients:
        client.get("/calm?seconds=0.01")
    assert [client.read_response().status for client in clients] == [200] * slots, f"seed {seed}"


def stubs(desk, count, concurrency, **settings):
    return {"upstreams": {"main": {
        "workers": desk.stub(["uvicorn", "stub:app", "--uds", "${SOCKET}", "--log-level", "warning"], count=count,
                             environment={"STUB_SECONDS": "0.02"},
                             restart={"backoff": "10ms", "max_backoff": "50ms"}),
        "concurrency": concurrency, "queue": {"size": 12, "timeout": "150ms"},
        "timeouts": {"request": "250ms"}, **settings}}, "threads": 4,
        "routes": [{"path": "/calm", "upstream": "main", "timeouts": {"request": "1h"}},
                   {"prefix": "/", "upstream": "main"}]}


@pytest.mark.parametrize("concurrency", [1, 3])
def test_hang_ups_timeouts_and_slow_bodies_never_put_more_than_the_concurrency_into_a_worker(penstock, desk,
                                                                                            concurrency):
    proxy = penstock(stubs(desk, 2, concurrency))
    statuses = live_through(proxy, [act for act in everything if act is not crashes_the_worker])

    assert set(statuses) <= {200, 408, 429, 503, 504} and 200 in statuses, f"seed {seed}"
    wait_calm(proxy, slots=2 * concurrency)
    assert desk.most_at_once() == concurrency, f"seed {seed}"
    assert len(desk.counts()) == 2, "no worker was restarted"


def test_with_crashes_too_no_slot_is_lost(penstock, desk):
    proxy = penstock(stubs(desk, 3, 2))
    done = threading.Event()

    killed = set()

    def kill_now_and_then():
        choose = random.Random(seed)
        while not done.wait(0.15):
            pids = [worker["pid"] for worker in proxy.upstream()["workers"] if worker["state"] == "ready"]
            if pids:
                victim = choose.choice(pids)
                killed.add(victim)
                os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill_now_and_then, daemon=True)
    killer.start()
    statuses = live_through(proxy, everything)
    done.set()
    killer.join()

    assert set(statuses) <= {200, 408, 429, 502, 503, 504} and 200 in statuses, f"seed {seed}"
    wait_calm(proxy, slots=6, killed=killed)
    assert desk.most_at_once() <= 2, f"seed {seed}"
    assert len(desk.counts()) > 3, "workers did die"
    living = [worker["pid"] for worker in proxy.upstream()["workers"]]
    assert all(alive(pid) for pid in living) and len(living) == 3


def test_with_on_abandon_restart_the_count_holds_as_well(penstock, desk):
    proxy = penstock(stubs(desk, 2, 2, on_abandon="restart", abandon_grace="100ms"))
    statuses = live_through(proxy, [polite, posts, hangs_up_soon, takes_longer_than_the_timeout, pipelines], users=12)

    assert set(statuses) <= {200, 408, 429, 502, 503, 504}, f"seed {seed}"
    wait_calm(proxy, slots=4)
    assert desk.most_at_once() <= 2, f"seed {seed}"
