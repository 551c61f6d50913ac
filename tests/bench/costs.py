"""What one warm keep-alive exchange costs penstock: system calls, by strace, and allocations, by a preloaded counter
(count_allocations.c). Printed by tests/bench/run; asserted by tests/scenario/test_operations_costs.py."""
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "scenario"))

from lib.backends import EchoBackend  # noqa: E402
from lib.proxy import Penstock  # noqa: E402
from lib.wire import eventually  # noqa: E402

data_calls = {"read", "readv", "recvfrom", "recvmsg", "recvmmsg", "write", "writev", "sendto", "sendmsg", "sendmmsg",
              "splice", "sendfile", "pread64", "pwrite64"}


def exchanges(client, count):
    """Requests one after the other on one connection, each a message of one piece, and its answer too."""
    for _ in range(count):
        client.get("/warm")
        assert client.read_response().status == 200


def system_calls(proxy, client, count):
    """{name: how many} of all threads while `count` exchanges went through."""
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as report:
        tracer = subprocess.Popen(["strace", "-f", "-c", "-o", report.name, "-p", str(proxy.process.pid)],
                                  stderr=subprocess.PIPE)
        # It names every thread that it has attached to; the last one may still be on its way when it says so.
        threads = len(os.listdir(f"/proc/{proxy.process.pid}/task"))
        eventually(lambda: traced_threads(proxy.process.pid) == threads, "strace to be attached")
        exchanges(client, count)
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()
        found = {}
        for line in report.read().splitlines():
            match = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
            if match and match.group(2) != "total":
                found[match.group(2)] = int(match.group(1))
        return found


def traced_threads(pid):
    traced = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as file:
            traced += "TracerPid:\t0\n" not in file.read()
    return traced


class CountedAllocations:
    """Environment for a program whose allocations are counted, and the count."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-allocations-")
        library = os.path.join(self.folder.name, "count.so")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-fno-builtin", "-o", library,
                        os.path.join(here, "count_allocations.c")], check=True)
        self.environment = {"LD_PRELOAD": library, "COUNT_ALLOCATIONS": self.folder.name}

    def of(self, pid):
        with open(os.path.join(self.folder.name, str(pid)), "rb") as file:
            return struct.unpack("q", file.read())[0]


def warm_proxy(environment=None, **upstream):
    backend = EchoBackend()
    proxy = Penstock({"upstreams": {"main": {"servers": [{"address": backend.address}], **upstream}}, "threads": 1,
                      "access_log": {"path": "access.log"}}, environment=environment)      # in its own folder
    client = proxy.connect()
    exchanges(client, 500)
    return backend, proxy, client


def main():
    count = 2000
    for name, upstream in {"unlimited": {}, "slots and queue": {"concurrency": 8}}.items():
        backend, proxy, client = warm_proxy(**upstream)
        calls = system_calls(proxy, client, count)
        data = sum(number for call, number in calls.items() if call in data_calls)
        print(f"\n{name}: {data / count:.2f} data system calls an exchange; all of them: "
              + ", ".join(f"{call} {number / count:.2f}" for call, number in
                          sorted(calls.items(), key=lambda item: -item[1]) if number > count / 100))
        proxy.stop()
        backend.close()

        allocations = CountedAllocations()
        backend, proxy, client = warm_proxy(allocations.environment, **upstream)
        before = allocations.of(proxy.process.pid)
        exchanges(client, count)
        print(f"{name}: {(allocations.of(proxy.process.pid) - before) / count:.3f} allocations an exchange")
        proxy.stop()
        backend.close()


if __name__ == "__main__":
    main()
