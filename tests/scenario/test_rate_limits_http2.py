"""Rate limits where many requests share a connection: each stream is a request of its own."""
import pytest

from lib.pairs import PairBackend, PairClient, pattern

loops = 4


@pytest.fixture
def limited(lab):
    """limited(LIMIT, backend KIND, KEY=VALUE): a penstock with this limit before a PairBackend."""
    clients = []

    def make(limit, speaks="h1", **settings):
        backend = lab.backend(PairBackend, speaks=speaks)
        proxy = lab.penstock({"upstreams": {"main": backend.upstream(**settings)},
                              "rate_limits": [{"name": "all", "key": "global", **limit}], "threads": loops})
        proxy.backend = backend
        client = PairClient("h2c", proxy.address)
        clients.append(client)
        return proxy, client
    yield make
    for client in clients:
        client.close()


def test_streams_of_one_connection_are_limited_one_by_one(limited):
    proxy, client = limited({"rate": "3/h", "burst": 3})
    streams = [client.start("GET", f"/give/{number}") for number in range(1, 9)]
    statuses = sorted(stream.wait_end().status for stream in streams)
    assert statuses == [200] * 3 + [429] * 5
    refused = client.request("GET", "/give/1")
    assert refused.status == 429
    assert refused["x-penstock-reason"] == "rate_limited"
    assert refused["ratelimit-policy"] == '"all";q=3;w=3600'
    assert refused["ratelimit"].startswith('"all";r=0;t=')
    assert 1190 <= int(refused["retry-after"]) <= 1200


@pytest.mark.parametrize("speaks", ["h1", "h2c"])
def test_a_body_that_comes_while_its_stream_is_held_back_arrives_whole(limited, speaks):
    proxy, client = limited({"rate": "2/s", "burst": 1, "delay": "10s"}, speaks)
    body = pattern(300_000)
    streams = [client.start("POST", "/echo", body=body) for _ in range(4)]
    for stream in streams:
        stream.wait_end()
        assert (stream.status, stream.body == body) == (200, True)
    assert 1 <= proxy.status()["rate_limits"][0]["held"] <= 3


def test_a_stream_that_is_reset_while_it_is_held_back_never_reaches_a_backend(limited):
    proxy, client = limited({"rate": "1/h", "burst": 1, "delay": "1h"})
    assert client.request("GET", "/give/1").status == 200
    held = client.start("GET", "/held")
    proxy.wait_status(lambda status: status["rate_limits"][0]["held"] == 1)
    held.cancel()
    client.h2.flush()
    line = proxy.wait_access(lambda line: line["target"] == "/held")
    assert (line["status"], line["step"]) == (499, "rate_limit")
    assert not proxy.backend.asked("/held")


@pytest.mark.parametrize("speaks", ["h1", "h2c"])
def test_a_stream_that_is_reset_counts_until_its_work_is_over(limited, speaks):
    proxy, client = limited({"concurrency": 1}, speaks)
    first = client.start("POST", "/hold", body=b"x")
    proxy.backend.wait_work("/hold")
    first.cancel()
    client.h2.flush()
    proxy.wait_status(lambda status: status["upstreams"]["main"]["abandoned"] == 1)
    assert client.request("GET", "/give/1").status == 429
    proxy.backend.release()
    proxy.wait_status(lambda status: status["rate_limits"][0]["in_flight"] == 0)
    assert client.request("GET", "/give/1").status == 200


def test_a_grpc_request_is_told_in_its_own_words(limited):
    proxy, client = limited({"rate": "1/h"})
    fields = [("content-type", "application/grpc"), ("te", "trailers")]
    client.request("POST", "/take", fields, b"\0\0\0\0\0")
    refused = client.request("POST", "/take", fields, b"\0\0\0\0\0")
    assert refused.status == 200
    assert refused["grpc-status"] == "8"
    assert refused["x-penstock-reason"] == "rate_limited"
    assert int(refused["retry-after"]) > 3590
