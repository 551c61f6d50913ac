"""CPU time per request over HTTP/2, in clear and under TLS, driven by h2load over 16 connections with 32 streams each:
penstock, nginx, HAProxy and nghttpx, those that are installed. See side_by_side.py.

    tests/bench/compare_h2.py [--rounds 5] [--seconds 3] [--connections 16] [--streams 32]
"""
import tempfile

from side_by_side import (h2load, haproxy, in_turns, make_backend, make_certificate, nghttpx, nginx, options, penstock,
                          say, those_installed)


def main():
    given = options(__doc__, rounds=5, seconds=3, connections=16, streams=32)
    at_once = given.connections * given.streams

    def with_slots(**how):
        return penstock(concurrency=64, queue={"size": at_once}, **how)

    say(given)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        for scheme, certificate in {"http": None, "https": make_certificate(folder)}.items():
            backend = make_backend()
            proxies = those_installed({"nginx": nginx, "HAProxy": haproxy, "nghttpx": nghttpx, "penstock": penstock,
                                       "penstock, slots and queue": with_slots},
                                      backend=backend, http2=True, certificate=certificate)

            def drive(proxy, seconds, scheme=scheme):
                return h2load(f"{scheme}://{proxy.address}/", seconds, given.connections, given.streams)

            in_turns(f"a request, {'h2 over TLS' if certificate else 'h2c'}", proxies, drive, given.rounds,
                     given.seconds)
            for proxy in [*proxies.values(), backend]:
                proxy.stop()


if __name__ == "__main__":
    main()
