"""What the comparisons (compare*.py) have in common: penstock, nginx, HAProxy and nghttpx, one process, thread or data
loop each, before the same backend (an nginx that answers from memory, over HTTP/1.1 in clear), in clear or under TLS; and
how they are measured. They run in turns, so that a machine that becomes slower or faster during the run does so for all;
what is said of two of them is the middle of the ratios of the rounds, because neighbours in time have the same weather."""
import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "scenario"))

from lib.certificates import Authority  # noqa: E402
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
        listen 127.0.0.1:{port} {listen};
        {tls}
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
"""
haproxy_file = """
global
    nbthread 1
    maxconn 4096
    tune.ssl.default-dh-param 2048
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option forwardfor
frontend front
    bind 127.0.0.1:{port} {bind}
    default_backend back
backend back
    http-reuse always
    server one 127.0.0.1:{backend}
"""


@dataclass
class Certificate:
    path: str
    key: str
    both: str  # in one file


def make_certificate(folder):
    path, key = Authority(folder).certificate()
    both = os.path.join(folder, "both.pem")
    with open(both, "w", encoding="ascii") as file:
        for part in (path, key):
            with open(part, encoding="ascii") as source:
                file.write(source.read())
    return Certificate(path, key, both)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """A server that is one program; `make_arguments(folder, port)` writes its files and says how it is called."""

    def __init__(self, make_arguments):
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-bench-")
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        arguments = make_arguments(self.folder.name, self.port)
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                if self.process.poll() is not None:
                    sys.exit(f"{arguments[0]} did not start")
                time.sleep(0.01)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def written(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def nginx_with(content, **values):
    return Program(lambda folder, port: [
        "nginx", "-p", folder, "-c",
        written(folder, "nginx.conf",
                nginx_file.format(folder=folder, content=content.format(port=port, **values)))])


def make_backend():
    return nginx_with(backend_content)


def nginx(backend, http2=False, certificate=None):
    words = [*(["ssl"] if certificate else []), *(["http2"] if http2 else [])]
    tls = f"ssl_certificate {certificate.path}; ssl_certificate_key {certificate.key};" if certificate else ""
    return nginx_with(proxy_content, backend=backend.port, listen=" ".join(words),
                      tls=tls + " ssl_protocols TLSv1.2 TLSv1.3;" if tls else "")


def haproxy(backend, http2=False, certificate=None):
    bind = "proto h2" if http2 else ""
    if certificate:
        bind = f"ssl crt {certificate.both} alpn {'h2' if http2 else 'http/1.1'}"
    return Program(lambda folder, port: [
        "haproxy", "-db", "-f",
        written(folder, "haproxy.cfg", haproxy_file.format(port=port, backend=backend.port, bind=bind))])


def nghttpx(backend, http2=True, certificate=None):
    assert http2
    ends = [certificate.key, certificate.path] if certificate else []
    return Program(lambda folder, port: [
        "nghttpx", f"--conf={written(folder, 'empty.conf', '')}", "--workers=1", "--single-process",
        f"--frontend=127.0.0.1,{port}{'' if certificate else ';no-tls'}", f"--backend=127.0.0.1,{backend.port}",
        "--accesslog-file=/dev/null", "--errorlog-file=/dev/null", "--backend-keep-alive-timeout=60",
        "--frontend-http2-max-concurrent-streams=128", "--add-x-forwarded-for", *ends])


def penstock(backend, http2=False, certificate=None, **upstream):
    listen = {"address": "127.0.0.1:0", "protocols": ["http1", "http2"] if http2 else ["http1"]}
    if certificate:
        listen["tls"] = {"certificate": certificate.path, "key": certificate.key}
    return Penstock({"listen": [listen], "threads": 1, "access_log": {"format": "off"},
                     "upstreams": {"main": {"servers": [{"address": backend.address}], **upstream}}})


def those_installed(makers, **how):
    """{name: running proxy} of makers {name: function}; one whose program is not here is left out."""
    return {name: make(**how) for name, make in makers.items()
            if name.split(",")[0] == "penstock" or shutil.which(name.lower())}


# ---- measuring

def cpu_of(process):
    """Of the process and of all below it, in seconds."""
    return sum(cpu_seconds(pid) for pid in [process.pid, *descendants(process.pid)])


def output_of(arguments):
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def wrk(url, seconds, connections):
    """How many requests were answered."""
    said = output_of(["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", url])
    if re.search(r"Non-2xx|Socket errors", said):
        sys.exit(f"requests failed:\n{said}")
    return int(re.search(r"(\d+) requests in", said).group(1))


def h2load(url, seconds, connections, streams):
    said = output_of(["h2load", "-t", "1", "-c", str(connections), "-m", str(streams), "-D", str(seconds), url])
    total, bad = re.search(r"status codes: (\d+) 2xx, (\d+ 3xx, \d+ 4xx, \d+ 5xx)", said).groups()
    failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", said).groups()
    if "Application protocol: h2" not in said or bad != "0 3xx, 0 4xx, 0 5xx" or any(map(int, failed)):
        sys.exit(f"requests failed:\n{said}")
    return int(total)


def options(text, rounds, seconds, **more):
    parser = argparse.ArgumentParser(description=text)
    for name, value in {"rounds": rounds, "seconds": seconds, **more}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def in_turns(title, proxies, drive, rounds, seconds):
    """Prints what one unit of work costs each proxy; drive(proxy, seconds) does some and says how much."""
    costs = {name: [] for name in proxies}
    rates = {name: [] for name in proxies}
    for proxy in proxies.values():
        drive(proxy, 1)      # warm
    for number in range(rounds):
        order = list(proxies.items())
        for name, proxy in order if number % 2 == 0 else reversed(order):
            before = cpu_of(proxy.process)
            count = drive(proxy, seconds)
            costs[name].append((cpu_of(proxy.process) - before) / count * 1e6)
            rates[name].append(count / seconds)
    print(f"\n{title + ':':36}{'CPU us each':>12}{'(all rounds)':>20}{'a CPU second':>14}{'a second':>10}{'of nginx':>10}"
          f"{'(all rounds)':>14}")
    for name, rounds_of in costs.items():
        ratios = [mine / base for mine, base in zip(rounds_of, costs["nginx"])]
        middle = statistics.median(rounds_of)
        print(f"{name:36}{middle:12.2f}{f'{min(rounds_of):.2f}-{max(rounds_of):.2f}':>20}{1e6 / middle:14.0f}"
              f"{statistics.median(rates[name]):10.0f}{statistics.median(ratios):10.2f}"
              f"{f'{min(ratios):.2f}-{max(ratios):.2f}':>14}", flush=True)


def say(options_given):
    print(f"{program()} and {subprocess.run(['nginx', '-v'], capture_output=True, text=True).stderr.strip()}; "
          + ", ".join(f"{name} {value}" for name, value in vars(options_given).items()) + ", in turns", flush=True)
