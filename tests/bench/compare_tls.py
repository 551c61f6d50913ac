"""TLS 1.3: CPU time of a full handshake and of a resumed one, each with one small request and the end of the connection,
and of a request on a kept connection: penstock, nginx and HAProxy. See side_by_side.py. Handshakes are openssl s_time's,
one after the other; requests wrk's. What they agree on is printed first, and it is no comparison where that is not the
same for all.

    tests/bench/compare_tls.py [--rounds 5] [--seconds 2] [--connections 64]
"""
import os
import re
import subprocess
import sys
import tempfile

from side_by_side import (haproxy, in_turns, make_backend, make_certificate, nginx, options, output_of, penstock, say,
                          those_installed, wrk)


def one_connection(proxy, *more):
    """What openssl s_client says of a connection that makes the request of s_time."""
    said = subprocess.run(["openssl", "s_client", "-connect", proxy.address, "-tls1_3", "-ign_eof", *more],
                          input="GET / HTTP/1.0\r\n\r\n", capture_output=True, text=True, check=True).stdout

    def found(pattern):
        return re.search(pattern, said).group(1)

    tickets = said.count("New Session Ticket arrived")
    return found(r"(HTTP/1\.1 \d+)"), found(r"\n((?:New|Reused), TLS.*)"), \
        found(r"Server Temp Key: (.*)") + f", {found(r'Server public key is (.*)')}, {tickets} tickets"


def agreed(proxy, folder):
    session = os.path.join(folder, "session")
    facts = one_connection(proxy, "-sess_out", session) + one_connection(proxy, "-sess_in", session)
    if facts[0] != "HTTP/1.1 200" or facts[0] != facts[3] or not facts[4].startswith("Reused"):
        sys.exit(f"{proxy.process.args[0]} does not do what is to be measured: {facts}")
    return "; ".join(facts)


def handshakes(proxy, seconds, kind):
    said = output_of(["openssl", "s_time", "-connect", proxy.address, f"-{kind}", "-www", "/", "-time", str(seconds),
                      "-tls1_3"])
    # A letter a connection: r where it was resumed. With -reuse the first one makes the session.
    letters = re.findall(r"^[*rt3]+$", said, re.M)[-1]
    if set(letters) != {"r" if kind == "reuse" else "*"}:
        sys.exit(f"they are not all {kind}:\n{said}")
    return len(letters)


def main():
    given = options(__doc__, rounds=5, seconds=2, connections=64)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        backend = make_backend()
        proxies = those_installed({"nginx": nginx, "HAProxy": haproxy, "penstock": penstock}, backend=backend,
                                  certificate=make_certificate(folder))
        say(given)
        facts = {name: agreed(proxy, folder) for name, proxy in proxies.items()}
        if len(set(facts.values())) != 1:
            sys.exit(f"they do not do the same: {facts}")
        print(f"all: {facts['nginx']}")
        parts = {
            "full handshake, one request": lambda proxy, seconds: handshakes(proxy, seconds, "new"),
            "resumed, one request": lambda proxy, seconds: handshakes(proxy, seconds, "reuse"),
            f"request, {given.connections} kept connections":
                lambda proxy, seconds: wrk(f"https://{proxy.address}/", seconds, given.connections),
        }
        for part, drive in parts.items():
            in_turns(part, proxies, drive, given.rounds, given.seconds)
        for proxy in [*proxies.values(), backend]:
            proxy.stop()


if __name__ == "__main__":
    main()
