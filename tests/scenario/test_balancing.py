"""Which backend a request goes to, as clients and backends see it."""
import collections
import http.cookiejar
import http.cookies
import http.server
import json
import socket
import threading
import time
import urllib.request

import pytest

from lib.wire import eventually


def echoes(echo, count):
    return [echo() for _ in range(count)]


def servers(backends, **settings):
    """An entry a backend; a list in settings gives each its own value."""
    return [{"address": backend.address,
             **{key: value[i] if isinstance(value, list) else value for key, value in settings.items()}}
            for i, backend in enumerate(backends)]


def served_by(backends):
    """The order in which the backends have seen requests, by the number in the target."""
    seen = sorted((int(target.rpartition("/")[2]), number)
                  for number, backend in enumerate(backends) for target in backend.targets())
    return "".join("abcdefgh"[number] for _, number in seen)


def names(running):
    return [backend["name"] for backend in running.upstream()["backends"]]


# --- policies

def test_round_robin_is_nginx_s_sequence_as_the_backends_see_it(penstock, echo):
    backends = echoes(echo, 3)
    running = penstock(servers=servers(backends, weight=[5, 1, 1]), balance="round_robin", threads=1)
    for number in range(14):
        assert running.get(f"/{number}").status == 200
    assert served_by(backends) == "aabacaa" * 2


def test_round_robin_is_one_sequence_over_all_loops(penstock, echo):
    backends = echoes(echo, 3)
    running = penstock(servers=servers(backends, weight=[5, 1, 1]), balance="round_robin", threads=4)
    for number in range(70):                       # each on a connection of its own, on whichever loop
        assert running.get(f"/{number}").status == 200
    assert served_by(backends) == "aabacaa" * 10


@pytest.mark.parametrize("balance", ["least_busy", "random_two", {"hash": {"header": "x-key"}}])
def test_requests_follow_the_weights(penstock, echo, balance):
    backends = echoes(echo, 3)
    # Without idle connections, which win among equals.
    running = penstock(servers=servers(backends, weight=[2, 1, 1]), balance=balance, pool={"idle": 0}, threads=4)
    client = running.connect()
    for number in range(400):
        client.send(f"GET /{number} HTTP/1.1\r\nHost: a\r\nx-key: {number}\r\n\r\n")
        assert client.read_response().status == 200
    shares = [len(backend.seen) for backend in backends]
    if balance == "least_busy":                    # one at a time: in turn
        assert shares == [200, 100, 100]
    assert 150 <= shares[0] <= 250, shares
    assert 60 <= shares[1] <= 140 and 60 <= shares[2] <= 140, shares


def test_first_packs(penstock, scripted):
    backends = [scripted(), scripted(), scripted()]
    running = penstock(servers=servers(backends, concurrency=2), balance="first", threads=4)
    clients = [running.connect() for _ in range(5)]
    for client in clients:
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    held = [[backend.next_request() for _ in range(count)] for backend, count in zip(backends, (2, 2, 1))]
    assert [backend["in_flight"] for backend in running.upstream()["backends"]] == [2, 2, 1]
    for connections in held:
        for connection in connections:
            connection.respond()
    assert all(client.read_response().status == 200 for client in clients)


def test_least_busy_gives_to_who_has_least_for_its_weight(penstock, scripted):
    backends = [scripted(), scripted()]
    running = penstock(servers=servers(backends, weight=[3, 1]), threads=4)
    clients = [running.connect() for _ in range(8)]
    for client in clients:
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        sent = clients.index(client) + 1
        running.wait_in_flight(sent)
    assert [backend["in_flight"] for backend in running.upstream()["backends"]] == [6, 2]
    for backend, count in zip(backends, (6, 2)):
        for _ in range(count):
            backend.next_request().respond()
    assert all(client.read_response().status == 200 for client in clients)


# --- backup, max_connections

def test_a_backup_serves_only_while_no_other_is_ready(penstock, scripted, echo):
    primary, backup = scripted(), echo()
    address = primary.address
    running = penstock(servers=servers([primary, backup], backup=[False, True]), threads=4)
    client = running.connect()
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
    first = primary.next_request()
    first.respond()
    assert client.read_response().status == 200
    assert running.upstream()["backends"][1]["why"] == "backup"
    primary.close()
    for number in range(2, 6):
        assert running.get(f"/{number}").status == 200
    assert backup.targets() == ["/2", "/3", "/4", "/5"]
    assert address == running.upstream()["backends"][0]["address"]


def test_max_connections_of_a_server_holds_exactly_under_four_loops(penstock, counting):
    small, large = counting(), counting()
    running = penstock(servers=servers([small, large], max_connections=[3, 0]), balance="round_robin", threads=4)
    answers = collections.Counter()

    def load():
        client = running.connect()
        for _ in range(40):
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            answers[client.read_response().status] += 1
        client.close()

    together([load] * 32)
    assert answers == {200: 32 * 40}
    assert small.most_open == 3
    assert large.most_open > 3
    assert small.served > 0


def test_a_request_waits_where_every_server_has_max_connections(penstock, scripted):
    backend = scripted()
    running = penstock(servers=servers([backend], max_connections=1), threads=4)
    one, two = running.connect(), running.connect()
    one.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
    held = backend.next_request()
    two.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    running.wait_queue(1)
    assert running.upstream()["backends"][0]["why"] == "max_connections reached"
    held.respond()
    assert one.read_response().status == 200
    backend.next_request().respond()
    assert two.read_response().status == 200


# --- homes

def test_a_key_has_one_home_whoever_asks_and_however_the_file_is_ordered(penstock, echo):
    backends = echoes(echo, 4)
    homes = {}
    for order in (backends, backends[::-1]):
        running = penstock(servers=servers(order), balance={"hash": {"header": "x-session"}}, threads=4)
        for key in range(40):
            for _ in range(2):
                client = running.connect()
                client.send(f"GET /{key} HTTP/1.1\r\nHost: a\r\nX-Session: user-{key}\r\n\r\n")
                assert client.read_response().status == 200
                client.close()
            (home,) = [b for b in backends if f"/{key}" in b.targets()]
            assert homes.setdefault(key, home) is home
        running.stop()
    assert len({id(home) for home in homes.values()}) == 4


@pytest.mark.parametrize("key, request_of", [
    ({"cookie": "sid"}, lambda n: (f"/{n}", f"Cookie: a=b; sid={n}\r\n")),
    ({"query": "user"}, lambda n: (f"/x?a=1&user={n}", "")),
    ("path", lambda n: (f"/p{n}?{time.monotonic_ns()}", "")),
])
def test_a_key_can_come_from_cookie_query_or_path(penstock, echo, key, request_of):
    backends = echoes(echo, 3)
    running = penstock(servers=servers(backends), balance={"hash": key}, threads=4)
    client = running.connect()
    by_key = collections.defaultdict(set)
    for n in list(range(30)) * 2:
        target, fields = request_of(n)
        client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
        assert client.read_response().status == 200
        by_key[n].add(newest(backends))
    assert all(len(homes) == 1 for homes in by_key.values())
    assert len(set().union(*by_key.values())) == 3


def newest(backends):
    """Which of them has served what was not counted before."""
    for number, backend in enumerate(backends):
        counted = getattr(backend, "counted", 0)
        backend.counted = len(backend.seen)
        if backend.counted > counted:
            return number
    raise AssertionError("nobody has")


def test_a_client_address_behind_a_trusted_proxy_is_a_key(penstock, echo):
    backends = echoes(echo, 3)
    running = penstock(servers=servers(backends), balance={"hash": "client_ip"}, threads=4)
    by_key = collections.defaultdict(set)
    for n in list(range(30)) * 2:
        assert running.get("/", f"X-Forwarded-For: 10.1.2.{n}\r\n").status == 200
        by_key[n].add(newest(backends))
    assert all(len(homes) == 1 for homes in by_key.values())
    assert len(set().union(*by_key.values())) == 3


def test_when_a_backend_dies_only_its_keys_move(penstock, echo):
    backends = echoes(echo, 4)
    running = penstock(servers=servers(backends), balance={"hash": {"header": "x-key"}}, threads=4)

    def homes():
        found = {}
        client = running.connect()
        for n in range(60):
            client.send(f"GET / HTTP/1.1\r\nHost: a\r\nx-key: {n}\r\n\r\n")
            assert client.read_response().status == 200
            found[n] = newest(backends)
        client.close()
        return found

    before = homes()
    backends[2].close()
    client = running.connect()
    for _ in range(30):                                # whoever meets it first goes elsewhere
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().status == 200
    newest(backends)
    for backend in backends:
        backend.counted = len(backend.seen)
    after = homes()
    moved = {n for n in before if before[n] != after[n]}
    assert moved == {n for n in before if before[n] == 2}
    assert len({after[n] for n in moved}) > 1


def key_with_home(running, backend, backends):
    """A header value whose home is this backend."""
    for n in range(200):
        client = running.connect()
        client.send(f"GET / HTTP/1.1\r\nHost: a\r\nx-key: {n}\r\n\r\n")
        connection = next_of(backends)
        connection[1].respond()
        assert client.read_response().status == 200
        client.close()
        if connection[0] is backend:
            return n
    raise AssertionError("no key has this home")


def next_of(backends):
    """The next request at any of several scripted backends: (backend, connection)."""
    def look():
        for backend in backends:
            if backend.requests_waiting():
                return backend, backend.next_request()
        return None
    return eventually(look, "a request at one of the backends")


def test_a_busy_home_is_waited_for_as_long_as_patience_says(penstock, scripted):
    backends = [scripted(), scripted()]
    running = penstock(servers=servers(backends, concurrency=1), threads=4,
                       balance={"hash": {"header": "x-key"}, "patience": "300ms"})
    key = key_with_home(running, backends[0], backends)
    asking = f"GET / HTTP/1.1\r\nHost: a\r\nx-key: {key}\r\n\r\n"
    first, second = running.connect(), running.connect()
    first.send(asking)
    held = backends[0].next_request()
    began = time.monotonic()
    second.send(asking)
    backends[1].next_request().respond()                # patience is over
    assert time.monotonic() - began >= 0.3
    assert second.read_response().status == 200
    held.respond()
    assert first.read_response().status == 200


def test_who_waits_for_a_busy_home_lets_others_pass_and_is_served_there(penstock, scripted):
    backends = [scripted(), scripted()]
    running = penstock(servers=servers(backends, concurrency=1), threads=4, queue={"timeout": "1h"},
                       balance={"hash": {"header": "x-key"}, "patience": "1h"})
    key = key_with_home(running, backends[0], backends)
    asking = f"GET / HTTP/1.1\r\nHost: a\r\nx-key: {key}\r\n\r\n"
    first, second, other = running.connect(), running.connect(), running.connect()
    first.send(asking)
    held = backends[0].next_request()
    second.send(asking)
    running.wait_queue(1)
    other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")      # passes: it has no home
    backends[1].next_request().respond()
    assert other.read_response().status == 200
    held.respond()
    assert first.read_response().status == 200
    backends[0].next_request().respond()
    assert second.read_response().status == 200


def test_without_patience_a_busy_home_costs_no_waiting(penstock, scripted):
    backends = [scripted(), scripted()]
    running = penstock(servers=servers(backends, concurrency=1), threads=4, balance={"hash": {"header": "x-key"}})
    key = key_with_home(running, backends[0], backends)
    clients = [running.connect(), running.connect()]
    for client in clients:
        client.send(f"GET / HTTP/1.1\r\nHost: a\r\nx-key: {key}\r\n\r\n")
    for asked in [backend.next_request() for backend in backends]:  # both are at work at once
        asked.respond()
    assert all(client.read_response().status == 200 for client in clients)


# --- the sticky cookie

class Browser:
    """A real client with a cookie jar."""

    def __init__(self, running):
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        self.base = f"http://{running.address}"

    def get(self, target="/"):
        with self.opener.open(self.base + target) as answer:
            return answer.headers.get_all("Set-Cookie") or [], json.loads(answer.read())


def test_a_sticky_cookie_brings_a_client_back_to_where_it_was_served(penstock, echo):
    backends = echoes(echo, 3)
    running = penstock(servers=servers(backends), threads=4,
                       balance={"policy": "round_robin",
                                "sticky": {"cookie": "gpu", "same_site": "lax", "max_age": "1h"}})
    homes = set()
    for _ in range(6):
        browser = Browser(running)
        (cookie,), _ = browser.get()
        home = newest(backends)
        homes.add(home)
        value = http.cookies.SimpleCookie(cookie)["gpu"]
        assert value["path"] == "/" and value["httponly"] and value["samesite"] == "Lax"
        assert value["max-age"] == "3600" and not value["secure"]
        assert len(value.value) == 16 and backends[home].address.rpartition(":")[2] not in value.value
        for _ in range(5):
            again, facts = browser.get()
            assert again == []
            assert newest(backends) == home
            assert ["Cookie", f"gpu={value.value}"] in [[name.title(), text] for name, text in facts["fields"]]
    assert len(homes) == 3


def test_a_client_whose_backend_is_gone_gets_another_cookie(penstock, echo):
    backends = echoes(echo, 2)
    running = penstock(servers=servers(backends), threads=4,
                       balance={"sticky": {"cookie": "gpu", "secret": "some words"}})
    client = running.connect()
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    cookie = client.read_response().head.get("set-cookie").partition(";")[0]
    home = newest(backends)
    for stranger in ("gpu=0123456789abcdef", "gpu=", "gpu=../../x"):   # not one that we gave: as none
        client.send(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: {stranger}\r\n\r\n")
        assert client.read_response().head.get("set-cookie").startswith("gpu=")
    backends[home].close()
    client.send(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n")
    answer = client.read_response()
    assert answer.status == 200
    other = answer.head.get("set-cookie").partition(";")[0]
    assert other != cookie
    client.send(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: {other}\r\n\r\n")
    answer = client.read_response()
    assert answer.status == 200 and not answer.head.has("set-cookie")


def test_what_penstock_answers_itself_sets_no_cookie(penstock, scripted):
    backend = scripted()
    running = penstock(servers=[backend], threads=4, balance={"sticky": {"cookie": "gpu"}},
                       retry={"attempts": 0})
    backend.close()
    answer = running.get("/")
    assert answer.status == 502 and not answer.head.has("set-cookie")


# --- slow start

def test_slow_start_gives_a_returning_backend_a_growing_share(penstock, counting):
    steady, comes_back = counting(), counting()
    window = 3
    running = penstock(servers=[steady, comes_back], balance="round_robin", slow_start=f"{window}s", threads=4)

    def share_of_40():
        before = comes_back.served
        for _ in range(40):
            assert running.get("/").status == 200
        return comes_back.served - before

    assert share_of_40() == 20                           # both were there before penstock: at once
    comes_back.close()
    assert share_of_40() == 0
    running.wait_log("is down")
    stopped = time.monotonic()
    comes_back = counting(comes_back.address)
    running.wait_status(lambda status: status["upstreams"]["main"]["backends"][1]["state"] == "ready")
    ready = time.monotonic()                             # or up to `ready - stopped` before
    while time.monotonic() < ready + window:
        began = time.monotonic()
        share = share_of_40()
        # Its weight is the part of the window that has passed, between these two; and it may be one turn off.
        least, most = (min(1, passed / window) for passed in (began - ready, time.monotonic() - stopped))
        assert 40 * least / (1 + least) - 1.5 <= share <= 40 * most / (1 + most) + 1.5
        time.sleep(window / 8)
    assert share_of_40() == 20


# --- a backend that counts its connections

@pytest.fixture
def counting():
    """A backend that takes a moment for each request and knows how many connections it had at most."""
    made = []

    def make(address="127.0.0.1:0"):
        made.append(Counting(address))
        return made[-1]
    yield make
    for backend in made:
        backend.close()


class Counting:
    def __init__(self, address):
        outer = self
        self.lock = threading.Lock()
        self.open = set()
        self.most_open = self.served = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                with outer.lock:
                    # The others may have been closed already, and their threads not have noticed.
                    outer.open.add(self.request)
                    outer.most_open = max(outer.most_open, sum(not is_at_end(sock) for sock in outer.open))
                super().setup()

            def finish(self):
                with outer.lock:
                    outer.open.discard(self.request)
                super().finish()

            def do_GET(self):
                time.sleep(0.002)
                with outer.lock:
                    outer.served += 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True
            block_on_close = False

        self.server = Server(("127.0.0.1", int(address.rpartition(":")[2])), Handler)
        self.address = "127.0.0.1:%d" % self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        with self.lock:
            for sock in self.open:
                sock.shutdown(socket.SHUT_RDWR)


def is_at_end(sock):
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def together(jobs):
    failures = []

    def run(job):
        try:
            job()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
