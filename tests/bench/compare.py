"""CPU time per request: nginx and penstock, one process or data loop each, before the same backend (an nginx that
answers from memory), driven by wrk over kept connections. They run in turns, so that a machine that becomes slower or
faster during the run does so for all. Run by tests/bench/run."""
import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scenario"))

from lib.processes import cpu_seconds, descendants  # noqa: E402
from lib.proxy import Penstock, program  # noqa: E402

nginx_file = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log crit;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    {content}
}}
"""
backend_content = """
    server {{ listen 127.0.0.1:{port}; location / {{ default_type text/plain; return 200 "hello, world\\n"; }} }}
"""
# What nginx needs to keep its connections to the backend; it sets the header that penstock always sets.
proxy_content = """
    upstream backend {{ server 127.0.0.1:{backend}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nginx:
    def __init__(self, content, **values):
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-bench-")
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        text = nginx_file.format(folder=self.folder.name,
                                 content=content.format(port=self.port, **values))
        path = os.path.join(self.folder.name, "nginx.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        self.process = subprocess.Popen(["nginx", "-c", path, "-p", self.folder.name], stdin=subprocess.DEVNULL)
        wait_open(self.address, self.process)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def wait_open(address, process):
    host, _, port = address.partition(":")
    while True:
        try:
            socket.create_connection((host, int(port))).close()
            return
        except ConnectionRefusedError:
            if process.poll() is not None:
                sys.exit("nginx did not start")
            time.sleep(0.01)


def penstock(backend, **upstream):
    return Penstock({"upstreams": {"main": {"servers": [{"address": backend.address}], **upstream}},
                     "threads": 1, "access_log": {"format": "off"}})


def cpu_of(process):
    """Of the process and of all below it."""
    return sum(cpu_seconds(pid) for pid in [process.pid, *descendants(process.pid)])


def drive(proxy, seconds, connections):
    """(CPU microseconds a request, requests a second) of one run of wrk."""
    before = cpu_of(proxy.process)
    ended = subprocess.run(["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", f"http://{proxy.address}/"],
                           capture_output=True, text=True, check=True).stdout
    used = cpu_of(proxy.process) - before
    requests = int(re.search(r"(\d+) requests in", ended).group(1))
    if re.search(r"Non-2xx|Socket errors", ended):
        sys.exit(f"requests failed:\n{ended}")
    return used / requests * 1e6, requests / seconds


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--connections", type=int, default=64)
    options = options.parse_args()

    backend = Nginx(backend_content)
    proxies = {
        "nginx": Nginx(proxy_content, backend=backend.port),
        "penstock": penstock(backend),
        "penstock, slots and queue": penstock(backend, concurrency=options.connections),
    }
    print(f"{program()} and {subprocess.run(['nginx', '-v'], capture_output=True, text=True).stderr.strip()}; "
          f"{options.connections} connections, {options.rounds} rounds of {options.seconds} s each, in turns")
    measured = {name: [] for name in proxies}
    for proxy in proxies.values():
        drive(proxy, 1, options.connections)      # warm
    for number in range(options.rounds):
        order = list(proxies.items())
        for name, proxy in order if number % 2 == 0 else reversed(order):
            measured[name].append(drive(proxy, options.seconds, options.connections))
    print(f"\n{'':28}{'CPU us a request':>18}{'(all rounds)':>20}{'requests/s':>14}{'of nginx':>12}")
    base = statistics.median(cpu for cpu, _ in measured["nginx"])
    for name, rounds in measured.items():
        cpu = [cpu for cpu, _ in rounds]
        print(f"{name:28}{statistics.median(cpu):18.2f}{min(cpu):12.2f}-{max(cpu):.2f}"
              f"{statistics.median(rate for _, rate in rounds):16.0f}{statistics.median(cpu) / base:12.2f}")
    for proxy in [*proxies.values(), backend]:
        proxy.stop()


if __name__ == "__main__":
    main()
