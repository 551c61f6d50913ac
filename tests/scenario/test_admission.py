"""The queue and the slots: who runs, who waits, who is refused, and in which order."""
import pytest

from lib.backends import unused_address
from lib.checks import assert_refused
from lib.wire import eventually

kib, mib = 1024, 1024 * 1024


@pytest.fixture
def one_slot(penstock, scripted):
    """one_slot(...): (proxy, backend) with a concurrency of 1 on four loops."""
    def start(**settings):
        backend = scripted()
        settings.setdefault("threads", 4)
        return penstock(servers=[backend], concurrency=1, **settings), backend
    return start


def occupy(proxy, backend, target="/running"):
    """A request that runs: (its client, its connection at the backend)."""
    client = proxy.connect().get(target)
    at_work = backend.next_request()
    assert at_work.request.target == target
    return client, at_work


def line_up(proxy, targets):
    """Requests that wait, in this order for certain: each is in the queue before the next is sent."""
    before = proxy.upstream()["queue"]["depth"]
    clients = []
    for number, target in enumerate(targets, 1):
        clients.append(proxy.connect().get(target))
        proxy.wait_queue(before + number)
    return clients


# ---- order


def test_waiting_requests_are_served_in_the_order_of_their_arrival_across_four_loops(one_slot):
    proxy, backend = one_slot()
    running, at_work = occupy(proxy, backend)
    targets = [f"/{number}" for number in range(12)]
    clients = line_up(proxy, targets)

    at_work.respond("done")
    assert running.read_response().body == b"done"
    for target, client in zip(targets, clients):
        at_work = backend.next_request()
        assert at_work.request.target == target
        at_work.respond(target)
        assert client.read_response().body == target.encode()


def test_a_newcomer_never_overtakes_the_queue(one_slot):
    proxy, backend = one_slot()
    first, at_work = occupy(proxy, backend)
    waiting, = line_up(proxy, ["/waiting"])
    newcomer = proxy.connect()
    at_work.respond()
    first.read_response()
    newcomer.get("/newcomer")        # a slot was freed, and went to who waited

    at_work = backend.next_request()
    assert at_work.request.target == "/waiting"
    proxy.wait_queue(1)
    at_work.respond()
    assert waiting.read_response().status == 200
    at_work = backend.next_request()
    assert at_work.request.target == "/newcomer"
    at_work.respond()
    assert newcomer.read_response().status == 200


def test_requests_wait_for_the_pool_and_not_behind_one_slow_backend(penstock, scripted):
    slow, quick = scripted(), scripted()
    proxy = penstock(servers=[slow, quick], concurrency=1, threads=4)
    clients = [proxy.connect().get("/a"), proxy.connect().get("/b")]
    stuck, at_work = slow.next_request(), quick.next_request()
    waiting = line_up(proxy, [f"/{number}" for number in range(5)])

    for number in range(5):          # all five go to the quick one, in order, while the slow one is at work
        at_work.respond()
        at_work = quick.next_request()
        assert at_work.request.target == f"/{number}"
    at_work.respond()
    stuck.respond()
    assert [client.read_response().status for client in clients + waiting] == [200] * 7


def test_requests_are_spread_over_the_least_busy_backends(penstock, scripted):
    backends = [scripted() for _ in range(3)]
    proxy = penstock(servers=backends, concurrency=2, threads=4)
    for number in range(6):
        proxy.connect().get(f"/{number}")
        proxy.wait_in_flight(number + 1)
        busy = [backend["in_flight"] for backend in proxy.upstream()["backends"]]
        assert max(busy) - min(busy) <= 1, busy
    assert [backend["in_flight"] for backend in proxy.upstream()["backends"]] == [2, 2, 2]


def test_each_server_keeps_its_own_concurrency(penstock, scripted):
    small, large = scripted(), scripted()
    proxy = penstock(servers=[{"address": small.address, "concurrency": 1},
                              {"address": large.address, "concurrency": 3}])
    for number in range(6):
        proxy.connect().get(f"/{number}")
    proxy.wait_queue(2)
    slots = {backend["address"]: (backend["in_flight"], backend["slots"]) for backend in proxy.upstream()["backends"]}
    assert slots == {small.address: (1, 1), large.address: (3, 3)}


# ---- leaving the queue


def test_a_client_that_hangs_up_while_queued_leaves_the_queue_and_never_reaches_the_backend(one_slot):
    proxy, backend = one_slot()
    running, at_work = occupy(proxy, backend)
    leaving, staying = line_up(proxy, ["/leaves", "/stays"])
    leaving.close()
    proxy.wait_queue(1)

    at_work.respond()
    running.read_response()
    at_work = backend.next_request()
    assert at_work.request.target == "/stays"
    at_work.respond()
    assert staying.read_response().status == 200
    logged = proxy.wait_access(lambda line: line["status"] == 499, "the log line of who left")
    assert "/leaves" in str(logged)


def test_a_client_that_resets_while_queued_leaves_the_queue(one_slot):
    proxy, backend = one_slot()
    occupy(proxy, backend)
    leaving, = line_up(proxy, ["/leaves"])
    leaving.reset()
    proxy.wait_queue(0)


def test_a_place_in_the_queue_that_a_client_left_can_be_taken_at_once(one_slot):
    proxy, backend = one_slot(queue={"size": 1})
    occupy(proxy, backend)
    leaving, = line_up(proxy, ["/leaves"])
    assert_refused(proxy.get("/too-many"), 429, "queue_full")
    leaving.close()
    proxy.wait_queue(0)
    line_up(proxy, ["/now-there-is-room"])


def test_who_waited_too_long_is_told_so_and_never_reached_the_backend(one_slot):
    proxy, backend = one_slot(queue={"timeout": "50ms"})
    running, at_work = occupy(proxy, backend)
    assert_refused(proxy.get("/waits"), 503, "queue_timeout")

    at_work.respond()
    running.read_response()
    proxy.wait_in_flight(0)
    occupy(proxy, backend, "/next")      # and not /waits


def test_the_time_of_the_whole_request_counts_in_the_queue_too(one_slot):
    proxy, backend = one_slot(timeouts={"request": "100ms"})
    running, at_work = occupy(proxy, backend)
    waiting = proxy.connect().get("/waits")
    assert_refused(running.read_response(), 504, "request_timeout")
    assert waiting.read_response().status in (503, 504)
    assert backend.requests_waiting() == 0
    at_work.respond()


def test_status_says_with_which_code_a_full_queue_refuses(one_slot):
    proxy, backend = one_slot(queue={"size": 1}, status={"queue_full": 503})
    occupy(proxy, backend)
    line_up(proxy, ["/waits"])
    assert_refused(proxy.get(), 503, "queue_full")


def test_status_says_with_which_code_a_wait_that_was_too_long_ends(one_slot):
    proxy, backend = one_slot(queue={"timeout": "50ms"}, status={"queue_timeout": 408})
    occupy(proxy, backend)
    assert_refused(proxy.get(), 408, "queue_timeout")


# ---- refusals


def test_a_full_queue_refuses_at_once_and_nobody_else_is_hurt(one_slot):
    proxy, backend = one_slot(queue={"size": 2})
    running, at_work = occupy(proxy, backend)
    waiting = line_up(proxy, ["/1", "/2"])
    for _ in range(5):
        assert_refused(proxy.get("/too-many"), 429, "queue_full")    # while the one slot is taken all the time

    assert proxy.metrics().value("penstock_rejections_total", upstream="main", reason="queue_full") == 5
    at_work.respond()
    running.read_response()
    for client in waiting:
        backend.next_request().respond()
        assert client.read_response().status == 200


def test_without_a_queue_busy_is_refused_at_once(one_slot):
    proxy, backend = one_slot(queue={"size": 0})
    running, at_work = occupy(proxy, backend)
    assert_refused(proxy.get(), 429, "queue_full")
    at_work.respond()
    assert running.read_response().status == 200
    occupy(proxy, backend, "/idle-again")


def test_max_pending_requests_and_queue_size_bound_the_queue_the_smaller_one_wins(one_slot):
    proxy, backend = one_slot(queue={"size": 50}, circuit_breaker={"max_pending_requests": 1})
    occupy(proxy, backend)
    line_up(proxy, ["/1"])
    assert proxy.get().status in (429, 503)
    assert proxy.upstream()["queue"]["size"] == 1


def test_what_will_be_refused_is_refused_before_its_body_is_uploaded(one_slot):
    proxy, backend = one_slot(queue={"size": 0})
    occupy(proxy, backend)
    client = proxy.connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n")     # and not a byte of it
    assert_refused(client.read_response(), 429, "queue_full")

    careful = proxy.connect()
    careful.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n")
    answer = careful.read_response()
    assert_refused(answer, 429, "queue_full")
    assert answer.interims == [], "no 100: the body is not wanted"


def test_before_anything_was_measured_retry_after_is_half_of_the_queue_timeout(one_slot):
    proxy, backend = one_slot(queue={"size": 0, "timeout": "1000s"})
    occupy(proxy, backend)
    answer = proxy.get()
    assert_refused(answer, 429, "queue_full")
    assert 500 <= int(answer["retry-after"]) <= 601, "with up to a fifth added at random"


def test_a_backend_that_refuses_the_connection_costs_a_502_and_gives_its_slot_back(penstock):
    proxy = penstock(servers=[unused_address()], concurrency=1, retry={"attempts": 0})
    answer = proxy.get()
    assert answer.status in (502, 503)
    assert answer["x-penstock-reason"].split()[0].strip(":;,") in ("connect_failure", "no_backend")
    proxy.wait_in_flight(0)
    proxy.wait_queue(0)


# ---- bytes


def test_a_slow_uploader_holds_neither_the_slot_nor_a_place_in_the_queue(one_slot):
    proxy, backend = one_slot(queue={"size": 0})
    slow = proxy.connect()
    slow.send("POST /slow HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
    assert slow.read_head().status == 100              # its head was seen while the slot was free
    slow.send("x" * 500)
    quick, at_work = occupy(proxy, backend, "/quick")      # the slot is free, and the queue has no place at all
    at_work.respond()
    assert quick.read_response().status == 200

    slow.send("x" * 500)
    at_work = backend.next_request()
    assert at_work.request.target == "/slow"
    assert at_work.read_body()[0] == b"x" * 1000
    at_work.respond()
    assert slow.read_response().status == 200


def test_a_body_larger_than_the_buffer_streams_once_its_request_is_admitted(one_slot):
    proxy, backend = one_slot(buffer={"request": "64KiB"})
    client = proxy.connect()
    client.send(b"POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000)

    at_work = backend.next_request()                       # 800,000 bytes are still with the client
    assert at_work.read_exactly(100_000) == b"x" * 100_000
    client.send(b"x" * 800_000)
    assert len(at_work.read_exactly(900_000)) == 900_000
    at_work.respond("read")
    assert client.read_response().body == b"read"


def test_a_slow_reader_does_not_hold_the_slot(one_slot):
    proxy, backend = one_slot()
    slow, at_work = occupy(proxy, backend, "/slow")
    at_work.respond(b"x" * 900_000)                        # fits into buffer.response; its client reads nothing
    quick, at_work = occupy(proxy, backend, "/quick")
    at_work.respond("quick")
    assert quick.read_response().body == b"quick"
    assert slow.read_response().body == b"x" * 900_000


def test_the_bytes_of_waiting_bodies_are_bounded(one_slot):
    proxy, backend = one_slot(queue={"bytes": "1MiB"})
    occupy(proxy, backend)
    waiting = proxy.connect().post("/waits", b"x" * (700 * kib))
    proxy.wait_queue(1)
    assert proxy.upstream()["queue"]["bytes"] >= 700 * kib
    answer = proxy.connect().post("/too-much", b"x" * (700 * kib)).read_response()
    assert_refused(answer, 429, "queue_full")
    line_up(proxy, ["/small"])                             # there is room for a small one

    waiting.close()
    proxy.wait_queue(1)
    assert proxy.upstream()["queue"]["bytes"] < 700 * kib
    proxy.connect().post("/fits-now", b"x" * (700 * kib))
    proxy.wait_queue(2)


def test_no_more_bodies_are_taken_than_the_memory_limit_allows_and_their_room_comes_back(one_slot):
    proxy, backend = one_slot(limits={"memory": "8MiB"}, queue={"size": 100}, threads=1)
    occupy(proxy, backend)
    clients = [proxy.connect() for _ in range(12)]
    for number, client in enumerate(clients):              # each reserves a buffer of 1 MiB by its head alone
        client.send(f"POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {mib}\r\n\r\n")
    for client in clients:
        client.send(b"x" * mib)
    # Those with room wait in the queue, the others get their answer.
    eventually(lambda: sum(client.has_input() for client in clients) + proxy.upstream()["queue"]["depth"] == 12,
               "every client to wait or be answered")
    refused = [client for client in clients if client.has_input()]
    for client in refused:
        assert_refused(client.read_response(), 503, "memory_full")
    assert 4 <= len(refused) < 12
    memory = proxy.status()["memory"]
    assert memory["reserved"] <= memory["limit"] == 8 * mib

    for client in clients:
        client.close()
    proxy.wait_queue(0)
    proxy.wait_status(lambda status: status["memory"]["reserved"] < 2 * mib, "the room to come back")
    proxy.connect().post("/again", b"x" * mib)
    proxy.wait_queue(1)
