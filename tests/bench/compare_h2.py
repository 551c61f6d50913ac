"""CPU time per request over HTTP/2 in clear: penstock, nginx, HAProxy and nghttpx, one process, thread or data loop
each, before the same backend (an nginx that answers from memory, over HTTP/1.1), driven by h2load over 16 connections
with 32 streams each. In turns, as compare.py. A proxy that is not installed is left out.

    tests/bench/compare_h2.py [--rounds 5] [--seconds 3] [--connections 16] [--streams 32]
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from compare import Nginx, backend_content, cpu_of, free_port, penstock, proxy_content, wait_open  # noqa: E402

nginx_h2_content = proxy_content.replace("listen 127.0.0.1:{port};", "listen 127.0.0.1:{port} http2;")

haproxy_file = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option forwardfor
frontend front
    bind 127.0.0.1:{port} proto h2
    default_backend back
backend back
    http-reuse always
    server one 127.0.0.1:{backend}
"""


class Program:
    """A proxy that is one program with arguments."""

    def __init__(self, make_arguments, backend):
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-bench-")
        self.address = f"127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(make_arguments(self.folder.name, self.address.split(":")[1], backend.port),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_open(self.address, self.process)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def haproxy(folder, port, backend):
    path = os.path.join(folder, "haproxy.cfg")
    with open(path, "w", encoding="utf-8") as file:
        file.write(haproxy_file.format(port=port, backend=backend))
    return ["haproxy", "-db", "-f", path]


def nghttpx(folder, port, backend):
    empty = os.path.join(folder, "empty.conf")
    open(empty, "w", encoding="utf-8").close()
    return ["nghttpx", f"--conf={empty}", "--workers=1", "--single-process", f"--frontend=127.0.0.1,{port};no-tls",
            f"--backend=127.0.0.1,{backend}", "--accesslog-file=/dev/null", "--errorlog-file=/dev/null",
            "--backend-keep-alive-timeout=60", "--frontend-http2-max-concurrent-streams=128", "--add-x-forwarded-for"]


def drive(proxy, options, seconds):
    """(CPU microseconds a request, requests a second) of one run of h2load."""
    before = cpu_of(proxy.process)
    said = subprocess.run(["h2load", "-t", "1", "-c", str(options.connections), "-m", str(options.streams),
                           "-D", str(seconds), f"http://{proxy.address}/"], capture_output=True, text=True,
                          check=True).stdout
    used = cpu_of(proxy.process) - before
    total, bad = re.search(r"status codes: (\d+) 2xx, (\d+ 3xx, \d+ 4xx, \d+ 5xx)", said).groups()
    failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", said).groups()
    if bad != "0 3xx, 0 4xx, 0 5xx" or int(failed[0]) + int(failed[1]) + int(failed[2]) > 0:
        sys.exit(f"requests failed:\n{said}")
    return used / int(total) * 1e6, int(total) / seconds


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=3)
    options.add_argument("--connections", type=int, default=16)
    options.add_argument("--streams", type=int, default=32)
    options = options.parse_args()

    backend = Nginx(backend_content)
    at_once = options.connections * options.streams
    proxies = {"nginx": Nginx(nginx_h2_content, backend=backend.port)}
    if shutil.which("haproxy"):
        proxies["HAProxy"] = Program(haproxy, backend)
    if shutil.which("nghttpx"):
        proxies["nghttpx"] = Program(nghttpx, backend)
    proxies["penstock"] = penstock(backend)
    proxies["penstock, slots and queue"] = penstock(backend, concurrency=64, queue={"size": at_once})
    measured = {name: [] for name in proxies}
    for proxy in proxies.values():
        drive(proxy, options, 1)      # warm
    for number in range(options.rounds):
        order = list(proxies.items())
        for name, proxy in order if number % 2 == 0 else reversed(order):
            measured[name].append(drive(proxy, options, options.seconds))
    print(f"h2load -c {options.connections} -m {options.streams}, {options.rounds} rounds of {options.seconds} s each, "
          f"in turns")
    print(f"{'':28}{'CPU us a request':>18}{'(all rounds)':>20}{'requests/s':>14}{'of nginx':>12}")
    base = statistics.median(cpu for cpu, _ in measured["nginx"])
    for name, rounds in measured.items():
        cpu = [cpu for cpu, _ in rounds]
        print(f"{name:28}{statistics.median(cpu):18.2f}{min(cpu):12.2f}-{max(cpu):.2f}"
              f"{statistics.median(rate for _, rate in rounds):16.0f}{statistics.median(cpu) / base:12.2f}")
    for proxy in [*proxies.values(), backend]:
        proxy.stop()


if __name__ == "__main__":
    main()
