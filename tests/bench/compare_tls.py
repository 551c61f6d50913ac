"""TLS 1.3 (P-256 certificates): CPU time of a full handshake and of a resumed one, each with one small request, and of a
request on a kept connection: penstock, nginx and HAProxy, one process, thread or data loop each, before the same backend
(an nginx that answers from memory, in clear). In turns, as compare.py. Handshakes are openssl s_time's, requests wrk's.

    tests/bench/compare_tls.py [--rounds 5] [--seconds 2] [--connections 64]
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

from compare import Nginx, Penstock, backend_content, cpu_of, proxy_content  # noqa: E402
from compare_h2 import Program  # noqa: E402
from lib.certificates import Authority  # noqa: E402

nginx_tls_content = proxy_content.replace(
    "listen 127.0.0.1:{port};",
    "listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}; "
    "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on; keepalive_timeout 75s;")

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
    bind 127.0.0.1:{port} ssl crt {both} alpn http/1.1
    default_backend back
backend back
    http-reuse always
    server one 127.0.0.1:{backend}
"""


def haproxy(both):
    def arguments(folder, port, backend):
        path = os.path.join(folder, "haproxy.cfg")
        with open(path, "w", encoding="utf-8") as file:
            file.write(haproxy_file.format(port=port, backend=backend, both=both))
        return ["haproxy", "-db", "-f", path]
    return arguments


def penstock(backend, certificate, key):
    return Penstock({"listen": [{"address": "127.0.0.1:0", "protocols": ["http1"],
                                 "tls": {"certificate": certificate, "key": key}}],
                     "upstreams": {"main": {"servers": [{"address": backend.address}]}},
                     "threads": 1, "access_log": {"format": "off"}})


def handshakes(proxy, seconds, kind):
    """CPU microseconds of one connection: handshake, one request, close."""
    before = cpu_of(proxy.process)
    said = subprocess.run(["openssl", "s_time", "-connect", proxy.address, f"-{kind}", "-www", "/", "-time", str(seconds),
                           "-tls1_3"], capture_output=True, text=True, check=True).stdout
    used = cpu_of(proxy.process) - before
    counted = [int(number) for number in re.findall(r"(\d+) connections in \d+ real seconds", said)]
    letters = re.search(r"starting\n([*rt]*)", said)
    if letters and kind == "reuse" and "*" in letters.group(1)[1:]:
        sys.exit(f"not all were resumed:\n{said}")
    return used / counted[-1] * 1e6


def requests(proxy, seconds, connections):
    before = cpu_of(proxy.process)
    said = subprocess.run(["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", f"https://{proxy.address}/"],
                          capture_output=True, text=True, check=True).stdout
    used = cpu_of(proxy.process) - before
    if re.search(r"Non-2xx|Socket errors", said):
        sys.exit(f"requests failed:\n{said}")
    return used / int(re.search(r"(\d+) requests in", said).group(1)) * 1e6


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=2)
    options.add_argument("--connections", type=int, default=64)
    options = options.parse_args()

    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        authority = Authority(folder)
        certificate, key = authority.certificate()
        both = os.path.join(folder, "both.pem")
        with open(both, "w", encoding="ascii") as file:
            for part in (certificate, key):
                with open(part, encoding="ascii") as source:
                    file.write(source.read())
        backend = Nginx(backend_content)
        proxies = {"nginx": Nginx(nginx_tls_content, backend=backend.port, certificate=certificate, key=key)}
        if shutil.which("haproxy"):
            proxies["HAProxy"] = Program(haproxy(both), backend)
        proxies["penstock"] = penstock(backend, certificate, key)
        parts = {
            "full handshake, one request": lambda proxy, seconds: handshakes(proxy, seconds, "new"),
            "resumed, one request": lambda proxy, seconds: handshakes(proxy, seconds, "reuse"),
            f"request, {options.connections} kept connections":
                lambda proxy, seconds: requests(proxy, seconds, options.connections),
        }
        print(f"{options.rounds} rounds of {options.seconds} s each, in turns")
        for part, measure in parts.items():
            measured = {name: [] for name in proxies}
            for proxy in proxies.values():
                measure(proxy, 1)      # warm
            for number in range(options.rounds):
                order = list(proxies.items())
                for name, proxy in order if number % 2 == 0 else reversed(order):
                    measured[name].append(measure(proxy, options.seconds))
            print(f"\n{part:36}{'CPU us each':>14}{'(all rounds)':>20}{'a CPU second':>14}{'of nginx':>12}")
            base = statistics.median(measured["nginx"])
            for name, rounds in measured.items():
                middle = statistics.median(rounds)
                print(f"{name:36}{middle:14.2f}{min(rounds):12.2f}-{max(rounds):<8.2f}{1e6 / middle:13.0f}"
                      f"{middle / base:12.2f}")
        for proxy in [*proxies.values(), backend]:
            proxy.stop()


if __name__ == "__main__":
    main()
