"""Limits on the requests of a key that are in flight: strict as the backends count, whatever clients do."""
import pytest

from lib.checks import assert_refused
from test_admission_chaos import everything, crashes_the_worker, live_through, seed

loops = 4


def in_flight(proxy):
    return proxy.status()["rate_limits"][0]["in_flight"]


def held(penstock, desk, most, **settings):
    """Workers with room for more than the limit allows, whose every step the test makes."""
    limit = {"name": "tenants", "key": "header:x-tenant", "concurrency": most}
    upstream = {"workers": desk.workers(count=1), "concurrency": 16, **settings}
    return penstock({"upstreams": {"main": upstream}, "rate_limits": [limit], "threads": loops})


def ask(proxy, tenant="a", target="/"):
    client = proxy.connect()
    client.get(target, f"x-tenant: {tenant}\r\n")
    return client


def test_so_many_requests_of_a_key_at_once_and_no_more(penstock, desk):
    proxy = held(penstock, desk, 3)
    clients, jobs = [], []
    for _ in range(3):
        clients.append(ask(proxy))
        jobs.append(desk.next_job())
    refused = ask(proxy).read_response()
    assert_refused(refused, 429, "rate_limited")
    assert refused["ratelimit-policy"] == '"tenants";q=3;qu="concurrent-requests"'
    assert refused["ratelimit"] == '"tenants";r=0'

    other = ask(proxy, "b")
    desk.next_job().respond()
    answer = other.read_response()
    assert (answer.status, answer["ratelimit"]) == (200, '"tenants";r=2')

    # Who has his answer can ask again at once, on any loop.
    for _ in range(20):
        jobs.pop(0).respond()
        assert clients.pop(0).read_response().status == 200
        clients.append(ask(proxy))
        jobs.append(desk.next_job())
    for job in jobs:
        job.respond()
    proxy.wait_status(lambda status: status["rate_limits"][0]["in_flight"] == 0)
    assert proxy.status()["rate_limits"][0]["keys"] == 0


def test_a_request_that_waits_in_the_queue_counts(penstock, desk):
    proxy = held(penstock, desk, 2, concurrency=1)
    ask(proxy)
    job = desk.next_job()
    waiting = ask(proxy)
    proxy.wait_queue(1)
    assert ask(proxy).read_response().status == 429
    waiting.close()
    proxy.wait_queue(0)
    last = ask(proxy)
    proxy.wait_queue(1)
    job.respond()
    desk.next_job().respond()
    assert last.read_response().status == 200


def test_work_that_its_client_has_left_counts_until_it_is_over(penstock, desk):
    proxy = held(penstock, desk, 1)
    client = ask(proxy)
    job = desk.next_job()
    client.close()
    proxy.wait_status(lambda status: status["upstreams"]["main"]["abandoned"] == 1)
    assert ask(proxy).read_response().status == 429
    job.respond()
    proxy.wait_status(lambda status: status["rate_limits"][0]["in_flight"] == 0)
    ask(proxy)
    desk.next_job().respond()


def test_work_of_a_worker_that_dies_is_over(penstock, desk):
    proxy = held(penstock, desk, 1, retry={"attempts": 0})
    client = ask(proxy)
    desk.next_job().die()
    assert client.read_response().status == 502
    proxy.wait_status(lambda status: status["rate_limits"][0]["in_flight"] == 0)


def test_a_request_that_is_tried_again_counts_once(penstock, desk):
    proxy = held(penstock, desk, 1)
    client = ask(proxy)
    desk.next_job().close_connection()
    again = desk.next_job()
    assert in_flight(proxy) == 1
    assert ask(proxy).read_response().status == 429
    again.respond()
    assert client.read_response().status == 200
    proxy.wait_status(lambda status: status["rate_limits"][0]["in_flight"] == 0)


def test_what_the_queue_refuses_counts_no_longer(penstock, desk):
    proxy = held(penstock, desk, 2, concurrency=1, queue={"size": 0})
    proxy.wait_status(lambda status: status["ready"])
    client = ask(proxy)
    job = desk.next_job()
    for _ in range(5):
        assert_refused(ask(proxy).read_response(), 429, "queue_full")
    assert in_flight(proxy) == 1
    job.respond()
    assert client.read_response().status == 200


@pytest.mark.parametrize("slots", [0, 8])
def test_whatever_clients_do_no_more_than_three_are_ever_in_the_workers(penstock, desk, slots):
    """uvicorn goes on with a request whose client has left; it counts for itself how many are inside."""
    workers = desk.stub(["uvicorn", "stub:app", "--uds", "${SOCKET}", "--log-level", "warning"], count=1,
                        environment={"STUB_SECONDS": "0.02"})
    proxy = penstock({
        "upstreams": {"main": {"workers": workers, "concurrency": slots, "timeouts": {"request": "250ms"}}},
        "rate_limits": [{"name": "all", "key": "global", "concurrency": 3}], "threads": loops})
    statuses = live_through(proxy, [act for act in everything if act is not crashes_the_worker], users=64, rounds=20)

    assert set(statuses) <= {200, 408, 429, 503, 504} and 200 in statuses and 429 in statuses, f"seed {seed}"
    proxy.wait_status(lambda status: status["rate_limits"][0]["in_flight"] == 0, f"all units back; seed {seed}")
    assert desk.most_at_once() == 3, f"seed {seed}"


def test_a_request_that_pauses_before_it_is_tried_again_counts_on(penstock, desk):
    proxy = held(penstock, desk, 1, retry={"attempts": 1, "backoff": "1h", "max_backoff": "1h"})
    ask(proxy)
    desk.next_job().close_connection()
    proxy.wait_status(lambda status: status["upstreams"]["main"]["backends"][0]["in_flight"] == 0)
    assert in_flight(proxy) == 1
    assert ask(proxy).read_response().status == 429
