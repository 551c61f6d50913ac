"""CPU time per request over kept HTTP/1.1 connections in clear, driven by wrk: penstock and nginx. See side_by_side.py.
Run by tests/bench/run.

    tests/bench/compare.py [--rounds 7] [--seconds 4] [--connections 64]
"""
from side_by_side import in_turns, make_backend, nginx, options, penstock, say, wrk


def main():
    given = options(__doc__, rounds=7, seconds=4, connections=64)
    backend = make_backend()
    proxies = {"nginx": nginx(backend), "penstock": penstock(backend),
               "penstock, slots and queue": penstock(backend, concurrency=given.connections)}
    say(given)
    in_turns("a request", proxies, lambda proxy, seconds: wrk(f"http://{proxy.address}/", seconds, given.connections),
             given.rounds, given.seconds)
    for proxy in [*proxies.values(), backend]:
        proxy.stop()


if __name__ == "__main__":
    main()
