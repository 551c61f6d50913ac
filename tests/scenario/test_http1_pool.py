"""Backend connections that are kept: used again only when both messages ended cleanly and nothing was left over.
One loop, so that every request finds the same pool."""
import selectors

import pytest

from lib import patience
from lib.backends import ScriptedBackend
from lib.checks import assert_refused, echoed


@pytest.fixture
def one_loop(penstock, scripted):
    """start(**settings) -> (backend, proxy). Connections idle for long, so that a slow machine keeps them."""
    def start(unix=False, **settings):
        backend = scripted(unix)
        settings.setdefault("pool", {"idle": "60s"})
        return backend, penstock(servers=[backend], threads=1, **settings)
    return start


def serve(backend, client, body, **how):
    """One whole exchange; returns the backend's connection."""
    client.get(f"/{body}")
    at_work = backend.next_request()
    assert at_work.request.target == f"/{body}"
    at_work.respond(body, **how)
    assert client.read_response().body == body.encode()
    return at_work


def test_requests_of_one_client_share_a_backend_connection(one_loop):
    backend, proxy = one_loop()
    client = proxy.connect()
    first = serve(backend, client, "one")
    assert serve(backend, client, "two") is first
    assert serve(backend, client, "three") is first


def test_requests_of_different_clients_share_a_backend_connection(one_loop):
    backend, proxy = one_loop()
    first = serve(backend, proxy.connect(), "one")
    assert serve(backend, proxy.connect(), "two") is first


def test_a_client_that_leaves_after_its_answer_does_not_take_the_backend_connection_with_it(one_loop):
    backend, proxy = one_loop()
    client = proxy.connect()
    first = serve(backend, client, "one")
    client.close()
    assert serve(backend, proxy.connect(), "two") is first


def test_requests_at_the_same_time_have_connections_of_their_own_and_get_their_own_answers(one_loop):
    backend, proxy = one_loop()
    clients = [proxy.connect().get(f"/{number}") for number in range(20)]
    at_work = [backend.next_request() for _ in clients]
    assert len(set(at_work)) == 20
    for connection in reversed(at_work):
        connection.respond(connection.request.target)
    for number, client in enumerate(clients):
        assert client.read_response().body == f"/{number}".encode()


def test_an_idle_backend_connection_is_closed_after_its_time(one_loop):
    backend, proxy = one_loop(pool={"idle": "200ms"})
    serve(backend, proxy.connect(), "one").expect_end()


def test_no_connection_is_kept_where_the_pool_has_no_time(one_loop):
    backend, proxy = one_loop(pool={"idle": 0})
    client = proxy.connect()
    first = serve(backend, client, "one")
    first.expect_end()
    assert serve(backend, client, "two") is not first


def test_a_backend_of_http_1_0_that_says_keep_alive_is_used_again(one_loop):
    backend, proxy = one_loop()
    client = proxy.connect().get("/one")
    first = backend.next_request()
    first.send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\none")
    assert client.read_response().body == b"one"
    assert serve(backend, client, "two") is first


unclean = {
    "bytes after its length": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none!",
    "a second answer after its length": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
                                        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    "a line end after its length": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none\r\n",
    "bytes after its last chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n!",
    "a second answer after its last chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"
                                            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    "Connection: close": "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\none",
    "close among other options": "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 3\r\n\r\none",
    "the version HTTP/1.0": "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\none",
}


@pytest.mark.parametrize("raw", unclean.values(), ids=unclean.keys())
def test_a_backend_connection_is_not_used_again_after_an_answer_with(one_loop, raw):
    backend, proxy = one_loop()
    client = proxy.connect().get("/one")
    first = backend.next_request().send(raw)
    assert client.read_response().body == b"one"
    assert serve(backend, client, "two") is not first
    first.expect_gone()


bodiless = {
    "204": ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
    "204 that says a length": ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n"),
    "304": ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n"),
    "an answer to HEAD": ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"),
    "an answer to HEAD in chunks": ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
}


@pytest.mark.parametrize("method, raw", bodiless.values(), ids=bodiless.keys())
@pytest.mark.parametrize("left_over", ["poison", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"],
                         ids=["bytes", "an answer"])
def test_a_backend_connection_is_not_used_again_when_a_body_follows(one_loop, method, raw, left_over):
    backend, proxy = one_loop()
    client = proxy.connect().send(f"{method} /one HTTP/1.1\r\nHost: a\r\n\r\n")
    first = backend.next_request().send(raw + left_over)
    assert client.read_response(method).status in (200, 204, 304)
    assert serve(backend, client, "two") is not first


idle_events = {
    "bytes": lambda connection: connection.send("x"),
    "a line end": lambda connection: connection.send("\r\n"),
    "an answer that nobody asked for": lambda connection: connection.send(
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 6\r\n\r\npoison"),
    "an answer and a close": lambda connection: connection.send(
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").close(),
    "a close": lambda connection: connection.close(),
    "a half-close": lambda connection: connection.half_close(),
    "a reset": lambda connection: connection.reset(),
}


@pytest.mark.parametrize("event", idle_events.values(), ids=idle_events.keys())
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_next_request_is_unharmed_when_an_idle_connection_gets(one_loop, event, method):
    backend, proxy = one_loop()
    client = proxy.connect()
    first = serve(backend, client, "one")
    event(first)
    client.send(f"{method} /two HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    at_work = backend.next_request()
    assert at_work is not first and at_work.request.target == "/two"
    at_work.respond("two")
    answer = client.read_response()
    assert (answer.status, answer.body) == (200, b"two")


# ---- the race: the backend ends a kept connection just as a request goes out on it

@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_get_is_sent_once_more_on_a_fresh_connection_when_a_kept_one_ends_by(one_loop, ending, unix):
    backend, proxy = one_loop(unix)
    client = proxy.connect()
    first = serve(backend, client, "one")
    client.get("/two")
    assert backend.next_request() is first
    getattr(first, ending)()
    fresh = backend.next_request()
    assert fresh is not first and fresh.request.target == "/two"
    fresh.respond("two")
    assert client.read_response().body == b"two"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE"])
def test_an_idempotent_request_is_sent_once_more_too(one_loop, method):
    backend, proxy = one_loop()
    client = proxy.connect()
    first = serve(backend, client, "one")
    client.send(f"{method} /two HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    assert backend.next_request() is first
    assert first.read_body()[0] == b"abc"
    first.reset()
    fresh = backend.next_request()
    assert fresh is not first and fresh.request.line == f"{method} /two HTTP/1.1"
    assert fresh.read_body()[0] == b"abc"
    fresh.respond("")
    assert client.read_response(method).status == 200


def post_on_a_kept_connection(backend, client, **settings):
    """A POST that went out on a connection which was used before; returns that. One that idled for a second is not
    used for a POST: on a machine that stood still for so long, try again."""
    for _ in range(10):
        kept = serve(backend, client, "before")
        client.post("/two", b"abc")
        at_work = backend.next_request()
        if at_work is kept:
            return at_work
        at_work.respond("too late")
        assert client.read_response().body == b"too late"
    raise AssertionError("no POST went out on a kept connection")


def test_a_post_is_not_sent_twice(one_loop):
    backend, proxy = one_loop()
    client = proxy.connect()
    post_on_a_kept_connection(backend, client).reset()
    assert_refused(client.read_response(), 502, "backend_reset")
    # The next thing that a backend hears is the next request.
    serve(backend, client, "three")


def test_a_server_on_which_a_post_was_lost_is_asked_whether_it_lives_before_it_gets_the_next(one_loop):
    # It dies, one connection after the other: those that are still open there would each lose a request.
    backend, proxy = one_loop(concurrency=2)
    clients = [proxy.connect() for _ in range(2)]
    for client in clients:
        client.get("/")
    for at_work in [backend.next_request() for _ in clients]:
        at_work.respond()
    for client in clients:
        assert client.read_response().status == 200
    clients[0].post("/lost", b"abc")
    dying = backend.next_request()
    backend.listener.close()
    dying.reset()
    assert_refused(clients[0].read_response(), 502, "backend_reset")
    assert_refused(clients[1].post("/next", b"abc").read_response(), 503, "no_backend")


def test_a_body_that_was_let_go_of_is_not_sent_twice(one_loop):
    # More than the buffer holds: the beginning is gone when the connection ends.
    backend, proxy = one_loop(buffer={"request": "64KiB"})
    client = proxy.connect()
    first = serve(backend, client, "one")
    client.send("PUT /two HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + "x" * 250_000)
    assert backend.next_request() is first
    first.read_exactly(250_000)
    first.reset()
    assert_refused(client.read_response(), 502, "backend_reset")
    serve(backend, proxy.connect(), "three")


def test_a_body_in_chunks_is_sent_again_whole_with_its_trailers(one_loop):
    backend, proxy = one_loop()
    client = proxy.connect()
    first = serve(backend, client, "one")
    client.send("PUT /two HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").chunk("hello")
    assert backend.next_request() is first
    assert first.read_chunk() == b"hello"
    client.chunk(" there").last_chunk("X-Sum: 1\r\n")
    assert first.read_chunked() == (b" there", [("X-Sum", "1")])
    first.reset()
    fresh = backend.next_request()
    assert fresh.read_body() == (b"hello there", [("X-Sum", "1")])
    fresh.respond("two")
    assert client.read_response().body == b"two"


def test_a_request_that_is_not_complete_yet_is_sent_again_from_its_beginning(one_loop):
    backend, proxy = one_loop()
    client = proxy.connect()
    first = serve(backend, client, "one")
    client.send("PUT /two HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
    assert backend.next_request() is first
    first.expect("hello").reset()
    fresh = backend.next_request()
    fresh.expect("hello")
    client.send("there")
    fresh.expect("there").respond("two")
    assert client.read_response().body == b"two"


def test_a_post_is_sent_again_where_the_upstream_says_that_it_is_idempotent(one_loop):
    backend, proxy = one_loop(retry={"idempotent": True})
    client = proxy.connect()
    post_on_a_kept_connection(backend, client).reset()
    fresh = backend.next_request()
    assert fresh.request.line == "POST /two HTTP/1.1" and fresh.read_body()[0] == b"abc"
    fresh.respond("two")
    assert client.read_response().body == b"two"


def test_a_request_that_fails_on_every_connection_ends_in_502_after_two_or_three(one_loop):
    backend, proxy = one_loop()
    client = proxy.connect()
    serve(backend, client, "one")
    client.get("/two")
    for _ in range(2):
        failing = backend.next_request()
        assert failing.request.target == "/two"
        failing.reset()
    # The first was stale and is no attempt, so `retry.attempts: 1` may allow a third.
    watched = selectors.DefaultSelector()
    watched.register(client.sock, selectors.EVENT_READ)
    watched.register(backend.listener, selectors.EVENT_READ)
    if client.sock not in [key.fileobj for key, _ in watched.select(patience)]:
        backend.next_request().reset()
    assert_refused(client.read_response(), 502, "backend_reset")


def test_nothing_is_sent_again_when_a_part_of_the_answer_came(one_loop):
    backend, proxy = one_loop()
    client = proxy.connect()
    first = serve(backend, client, "one")
    client.get("/two")
    assert backend.next_request() is first
    first.send("HTTP/1.1 200 OK\r\nContent-Le").close()
    assert client.read_response().status == 502
    serve(backend, client, "three")


def test_nothing_is_sent_again_when_an_interim_answer_was_passed_on(one_loop):
    backend, proxy = one_loop()
    client = proxy.connect()
    first = serve(backend, client, "one")
    client.get("/two")
    assert backend.next_request() is first
    first.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    assert client.read_head().status == 103
    first.reset()
    assert client.read_response().status == 502
    serve(backend, client, "three")


def test_a_post_uses_no_connection_that_idled_a_second(one_loop):
    # What it would cost to find out that such a connection is stale is a POST that may not be sent again. The clock
    # of this test is another client, whom the proxy hangs up after 1100 ms.
    backend, proxy = one_loop(limits={"client_idle_timeout": "1100ms"})
    first = serve(backend, proxy.connect(), "one")
    clock = proxy.connect()
    assert serve(backend, clock, "two") is first
    clock.expect_end()
    client = proxy.connect().post("/three", b"abc")
    at_work = backend.next_request()
    assert at_work is not first
    at_work.respond("three")
    assert client.read_response().body == b"three"


# ---- exchanges that end badly

def test_a_connection_is_not_used_again_when_the_answer_came_before_the_whole_request(one_loop):
    backend, proxy = one_loop()
    client = proxy.connect().send("POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello")
    first = backend.next_request()
    first.respond("early")
    assert client.read_response().body == b"early"
    first.expect("hello").expect_gone()
    assert serve(backend, proxy.connect(), "two") is not first


def test_a_connection_is_not_used_again_when_the_client_leaves_in_the_middle_of_the_answer(one_loop):
    backend, proxy = one_loop()
    client = proxy.connect().get("/one")
    first = backend.next_request().send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    assert client.read_head().status == 200
    client.expect("hello").close()
    first.expect_gone()
    assert serve(backend, proxy.connect(), "two") is not first


def test_a_late_answer_to_a_request_that_timed_out_goes_to_nobody(one_loop):
    backend, proxy = one_loop(retry={"attempts": 0}, routes=[
        {"path": "/one", "upstream": "main", "timeouts": {"first_byte": "200ms"}}, {"prefix": "/", "upstream": "main"}])
    client = proxy.connect().get("/one")
    first = backend.next_request()
    assert client.read_response().status == 504
    first.respond("late")
    assert serve(backend, client, "two") is not first


def test_a_late_answer_goes_to_nobody_when_its_client_left_a_limited_backend(one_loop):
    # on_abandon: drain is the default here: the answer is read and thrown away, and the slot comes back with its end.
    backend, proxy = one_loop(concurrency=1)
    client = proxy.connect().get("/one")
    first = backend.next_request()
    client.close()
    proxy.wait_status(lambda status: status["upstreams"]["main"]["abandoned"] == 1)
    waiting = proxy.connect().get("/two")
    proxy.wait_queue(1)
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nla")
    proxy.wait_queue(1)
    first.send("te")
    at_work = backend.next_request()
    assert at_work.request.target == "/two"
    at_work.respond("two")
    assert waiting.read_response().body == b"two"


def test_a_worker_on_the_same_address_never_sees_a_connection_of_the_one_before_it(penstock, lab):
    old = lab.backend(ScriptedBackend, unix=True)
    proxy = penstock(servers=[old], threads=1)
    client = proxy.connect()
    serve(old, client, "one")
    old.close()
    new = ScriptedBackend(old.path)
    lab.backends.append(new)
    serve(new, client, "two")


def test_answers_of_a_hundred_exchanges_over_kept_connections_are_never_mixed_up(penstock, echo):
    backend = echo()
    proxy = penstock(servers=[backend], threads=1)
    clients = [proxy.connect() for _ in range(10)]
    for turn in range(10):
        for number, client in enumerate(clients):
            client.post(f"/{number}/{turn}", f"{number}-{turn}")
        for number, client in enumerate(clients):
            facts = echoed(client.read_response())
            assert (facts.line, facts.body) == (f"POST /{number}/{turn} HTTP/1.1", f"{number}-{turn}")
    assert backend.count <= 10
