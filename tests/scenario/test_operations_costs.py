"""What a warm keep-alive exchange may cost, counted: at most four data system calls (read the request, send it on,
read the response, send it back) and no allocation; and a connection under TLS. (Release build only: sanitizers allocate and call on their own.)"""
import os
import sys
from types import SimpleNamespace

import pytest

from lib.backends import EchoBackend
from lib.certificates import Authority
from lib.proxy import repository
from lib.wire import Wire, dial

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


def test_a_connection_under_tls_is_told_to_the_kernel_once_whoever_goes_on_with_it(lab, tmp_path):
    authority = Authority(str(tmp_path))
    certificate, key = authority.certificate()
    backend = lab.backend(EchoBackend)
    proxy = lab.penstock({"listen": [{"address": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}}],
                          "upstreams": {"main": {"servers": [{"address": backend.address}]}}, "threads": 1})

    class Connections:
        """Each request on a new one."""

        def get(self, target):
            made = authority.client_context(["http/1.1"]).wrap_socket(dial(proxy.address), server_hostname="localhost")
            self.wire = Wire(made).send(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

        def read_response(self):
            answer = self.wire.read_to_end()
            self.wire.close()
            return SimpleNamespace(status=int(answer.split()[1]))

    exchanges(Connections(), 5)
    calls = system_calls(proxy, Connections(), 100)
    assert calls["epoll_ctl"] <= 2 * 102, calls      # it comes, and it goes
    assert calls["sendmsg"] <= 4 * 102, calls        # hello; tickets; request; answer and goodbye
    assert "shutdown" not in calls, calls            # it said that it sends no more: nobody waits for its end
