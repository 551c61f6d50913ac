"""Two, five and twenty times what the workers can do. These runs are short; $PENSTOCK_OVERLOAD_SECONDS=30 makes them
as long as one likes, -s shows their numbers.

What the workers can do is measured in the same run: so many slots, each held so long by a request. So no speed of this
machine is asked for; that a slot stands empty while somebody waits is what would show."""
import os
import re
import subprocess
import time

import pytest

from lib.load import Hey, hey, percentile
from lib.processes import rss_bytes
from lib.proxy import program

seconds = int(os.environ.get("PENSTOCK_OVERLOAD_SECONDS", "5"))
work = 0.2
slots = 4
rate = slots / work      # requests a second that they could take if nothing cost time


def memory_bound(config_path):
    """What `penstock check` says that the process can need at most, in bytes."""
    ended = subprocess.run([program(), "check", config_path], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = re.search(r"memory.*?([\d.]+) ?(KiB|MiB|GiB)", ended.stdout + ended.stderr)
    assert found, ended.stdout
    return float(found.group(1)) * {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[found.group(2)]


def pace(run):
    """Good answers a second, from the first round of slots that ended to the last good answer."""
    ends = sorted(answer.began + answer.seconds for answer in run.answers if answer.status == 200)
    return (len(ends) - slots) / (ends[-1] - ends[slots - 1])


@pytest.fixture
def workers(penstock, desk):
    proxy = penstock({
        "upstreams": {"main": {
            "workers": desk.stub(["uvicorn", "stub:app", "--uds", "${SOCKET}", "--log-level", "warning"], count=2,
                                 environment={"STUB_SECONDS": str(work)}),
            "concurrency": slots // 2, "queue": {"size": 8, "timeout": "10s"}}},
        "limits": {"memory": "16MiB", "connections": 1000}})
    proxy.wait_status(lambda status: sum(backend["state"] == "ready" for backend
                                         in status["upstreams"]["main"]["backends"]) == 2, "both workers ready")
    return proxy


def overload(workers, times):
    """(what hey saw, how long a slot was held by a request, the most memory)"""
    clients = 10 * times
    before = workers.metrics()
    load = Hey(f"http://{workers.address}/", seconds=seconds, c=clients, q=rate * times / clients)
    rss = 0
    while load.process.poll() is None:
        rss = max(rss, rss_bytes(workers.process.pid))
        workers.status()                   # also while it is overloaded it answers who asks
        time.sleep(0.05)
    run = load.result()
    workers.wait_in_flight(0)
    workers.wait_queue(0)
    after = workers.metrics()
    held = "penstock_backend_duration_seconds"
    hold = ((after.value(held + "_sum") - before.value(held + "_sum"))
            / (after.value(held + "_count") - before.value(held + "_count")))
    return run, hold, rss


@pytest.mark.parametrize("times", [2, 5, 20])
def test_goodput_stays_at_capacity_refusals_cost_no_time_and_memory_stays_bounded(workers, desk, times):
    for _ in range(3):
        run, hold, rss = overload(workers, times)
        assert set(run.counts()) == {200, 429} and rss < memory_bound(workers.config_path)
        capacity, goodput = slots / hold, pace(run)
        facts = {
            "this was an overload": len(run.answers) / seconds > 1.5 * rate,
            "no slot stands empty": goodput >= 0.95 * capacity,
            # Refused at once: before a slot could possibly have come free for who came when it came.
            "a refusal waits for nothing": percentile(run.seconds(429), 0.99) < run.seconds(200)[0],
            "who was admitted waited for the eight before it at most, and not for the crowd":
                percentile(run.seconds(200), 0.95) < 2 * (8 / slots + 1) * hold}
        if all(facts.values()):
            break       # else the machine may have stood still for a moment
    print(f"{times}x: {goodput:.2f} good answers a second of {capacity:.2f} possible; refused {run.counts()[429]}, "
          f"half of them within {percentile(run.seconds(429), 0.5) * 1e3:.1f} ms, 99 % within "
          f"{percentile(run.seconds(429), 0.99) * 1e3:.1f} ms; at most {rss / 2**20:.0f} MiB resident of "
          f"{memory_bound(workers.config_path) / 2**20:.0f} MiB allowed")
    assert all(facts.values()), facts
    assert desk.most_at_once() == slots // 2


def test_after_an_overload_everything_is_as_before(workers):
    url = f"http://{workers.address}/"
    hey(url, seconds=2, c=100)
    workers.wait_in_flight(0)
    workers.wait_queue(0)
    assert hey(url, 20, c=slots).counts() == {200: 20}


def test_large_bodies_in_an_overload_stay_below_the_memory_limit(workers, tmp_path):
    url = f"http://{workers.address}/"
    body = tmp_path / "body"
    body.write_bytes(b"x" * 900_000)
    load = Hey(url, 400, c=60, method="POST", data_file=str(body))
    most_reserved = rss = 0
    while load.process.poll() is None:
        memory = workers.status()["memory"]
        most_reserved = max(most_reserved, memory["reserved"])
        rss = max(rss, rss_bytes(workers.process.pid))
        time.sleep(0.05)
    run = load.result()
    assert set(run.counts()) <= {200, 429, 503} and run.counts()[200] > 0
    assert 0 < most_reserved <= 16 << 20
    assert rss < memory_bound(workers.config_path)
