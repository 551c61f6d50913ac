"""What a warm keep-alive exchange may cost, counted: at most four data system calls (read the request, send it on,
read the response, send it back) and no allocation. (Release build only: sanitizers allocate and call on their own.)"""
import os
import sys

import pytest

from lib.backends import EchoBackend
from lib.proxy import repository

sys.path.insert(0, os.path.join(repository, "tests", "bench"))

from costs import CountedAllocations, data_calls, exchanges, system_calls  # noqa: E402

count = 1000
kinds = pytest.mark.parametrize("upstream", [{}, {"concurrency": 8}], ids=["unlimited", "with slots and a queue"])


@pytest.fixture
def warm(lab, tmp_path):
    """warm(environment, **upstream): (proxy, a client whose connection has seen many exchanges)"""
    def start(environment=None, **upstream):
        backend = lab.backend(EchoBackend)
        proxy = lab.penstock({"upstreams": {"main": {"servers": [{"address": backend.address}], **upstream}},
                              "threads": 1, "access_log": {"path": str(tmp_path / "access.log")}},
                             environment=environment)
        client = proxy.connect()
        exchanges(client, 500)
        return proxy, client
    return start


@kinds
def test_a_warm_exchange_makes_at_most_four_data_system_calls_and_none_to_manage_events(warm, upstream):
    proxy, client = warm(**upstream)
    calls = system_calls(proxy, client, count)
    # A hundredth more is left to what time brings: a log that is flushed, a timer.
    assert sum(number for name, number in calls.items() if name in data_calls) <= 4.01 * count, calls
    assert calls.get("epoll_ctl", 0) + calls.get("timerfd_settime", 0) <= count / 100, calls
    assert calls.get("futex", 0) <= count / 20, calls      # the writer of the log, woken now and then


@kinds
def test_a_warm_exchange_allocates_nothing(warm, upstream):
    allocations = CountedAllocations()
    proxy, client = warm(allocations.environment, **upstream)
    before = allocations.of(proxy.process.pid)
    exchanges(client, count)
    made = allocations.of(proxy.process.pid) - before
    assert made <= count / 100, f"{made} allocations in {count} exchanges"
