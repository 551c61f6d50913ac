"""WebSocket with independent libraries at both ends: Upgrade from HTTP/1.1, extended CONNECT (RFC 8441) from HTTP/2,
to servers that speak HTTP/1.1."""
import asyncio
import base64
import hashlib
import re
import signal
import threading

import h2.events
import h2.settings
import pytest
import websockets
import wsproto.connection
import wsproto.events
from aiohttp import web

from lib import patience
from lib.h2 import H2Client
from lib.wire import dial

many = 100_000


class Server:
    """Runs coroutines in a thread of its own until close()."""

    def __init__(self, path=None):
        self.seen = []
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(patience)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.stopping = asyncio.Event()
        self.loop.run_until_complete(self._serve())
        self.loop.close()

    def close(self):
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(patience)


class WebsocketsServer(Server):
    """python3-websockets: echoes; keeps what the opening handshake said and how each connection ended."""

    async def _serve(self):
        async def echo(socket):
            self.seen.append(socket)
            try:
                async for message in socket:
                    await socket.send(message)
            except websockets.ConnectionClosed:
                pass
        async with websockets.serve(echo, "127.0.0.1", 0, ping_interval=None, compression=None, max_queue=None,
                                    subprotocols=["chat"], close_timeout=1) as server:
            self.address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
            self.ready.set()
            await self.stopping.wait()


class AiohttpServer(Server):
    """aiohttp: the same by another implementation."""

    async def _serve(self):
        async def echo(request):
            socket = web.WebSocketResponse(compress=False, protocols=["chat"])
            await socket.prepare(request)
            self.seen.append(socket)
            async for message in socket:
                if message.type.name == "TEXT":
                    await socket.send_str(message.data)
                else:
                    await socket.send_bytes(message.data)
            return socket
        application = web.Application()
        application.router.add_get("/{path:.*}", echo)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.address = "127.0.0.1:%d" % site._server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.stopping.wait()
        await runner.cleanup()


servers = {"websockets": WebsocketsServer, "aiohttp": AiohttpServer}


@pytest.fixture(params=servers.values(), ids=servers.keys())
def server(request, lab):
    return lab.backend(request.param)


class H2Socket:
    """A WebSocket on an HTTP/2 stream: python3-h2 carries what python3-wsproto makes of messages."""

    def __init__(self, client, path="/socket", fields=()):
        self.client = client
        self.stream = client.start(
            "CONNECT", path, [("sec-websocket-version", "13"), *fields], end=False, authority="a",
            pseudo=[(":protocol", "websocket"), (":scheme", "http")])
        self.stream.wait_head()
        self.frames = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)
        self.messages = []
        self.events = []
        self.text = ""

    def send(self, event):
        self.stream.send(self.frames.send(event))

    def take(self):
        if self.stream.body:
            data = bytes(self.stream.body)
            self.stream.body.clear()
            self.frames.receive_data(data)
            for event in self.frames.events():
                if isinstance(event, wsproto.events.TextMessage):
                    self.text += event.data
                    if event.message_finished:
                        self.messages.append(self.text)
                        self.text = ""
                else:
                    self.events.append(event)

    def wait(self, condition):
        def holds():
            self.take()
            return condition() or self.stream.over()
        self.client.pump(holds, "a message")
        assert condition(), (self.stream.reset, self.events)


@pytest.fixture
def over_h2(penstock):
    clients = []

    def connect(server, **settings):
        proxy = penstock(servers=[server.address], listen=[{"address": "127.0.0.1:0"}], **settings)
        client = H2Client(dial(proxy.address))
        clients.append(client)
        client.ping()
        return client, proxy
    yield connect
    for client in clients:
        client.close()


# ---- HTTP/1.1

def test_a_hundred_thousand_messages_come_back_over_http1(penstock, server):
    proxy = penstock(servers=[server.address], concurrency=1)

    async def talk():
        async with websockets.connect(f"ws://{proxy.address}/socket", subprotocols=["chat"], compression=None,
                                      ping_interval=None, max_queue=None) as socket:
            assert socket.subprotocol == "chat"

            async def send():
                for number in range(many):
                    await socket.send(f"message {number}")
            sending = asyncio.ensure_future(send())
            for number in range(many):
                assert await socket.recv() == f"message {number}"
            await sending
            pong = await socket.ping(b"still there?")
            await asyncio.wait_for(pong, patience)
    asyncio.run(talk())
    proxy.wait_in_flight(0)         # the slot was held throughout, and is free


# ---- HTTP/2

def switching(at_work):
    """The head that accepts the WebSocket that was asked for."""
    key = at_work.request.get("sec-websocket-key").encode()
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    return ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n")


def test_extended_connect_is_announced(over_h2, server):
    client, _ = over_h2(server)
    assert client.h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL) == 1


def test_a_hundred_thousand_messages_come_back_over_http2(over_h2, server):
    client, proxy = over_h2(server, concurrency=1)
    socket = H2Socket(client, fields=[("sec-websocket-protocol", "chat")])
    assert (socket.stream.status, socket.stream["sec-websocket-protocol"]) == (200, "chat")
    for hop in ("upgrade", "connection", "sec-websocket-accept"):
        assert socket.stream[hop] is None
    sent = 0
    while sent < many:
        batch = min(500, many - sent)
        socket.stream.send(b"".join(socket.frames.send(wsproto.events.TextMessage(f"message {number}"))
                                    for number in range(sent, sent + batch)))
        sent += batch
        socket.wait(lambda: len(socket.messages) >= sent - 2000)
    socket.wait(lambda: len(socket.messages) == many)
    assert socket.messages == [f"message {number}" for number in range(many)]
    socket.send(wsproto.events.Ping(b"still there?"))
    socket.wait(lambda: any(isinstance(event, wsproto.events.Pong) for event in socket.events))
    socket.send(wsproto.events.CloseConnection(code=1000))
    socket.wait(lambda: any(isinstance(event, wsproto.events.CloseConnection) for event in socket.events))
    socket.stream.finish()
    socket.stream.wait_end()
    assert socket.stream.complete
    proxy.wait_in_flight(0)
    assert client.request("GET", "/after").status is not None       # the connection goes on


def test_a_socket_over_http2_may_carry_more_than_a_body_may(over_h2, server):
    client, proxy = over_h2(server, limits={"body": "64KiB"})
    socket = H2Socket(client)
    for number in range(40):
        socket.send(wsproto.events.TextMessage(f"{number:4096}"))
        socket.wait(lambda: len(socket.messages) == number + 1)


def test_several_sockets_and_requests_share_a_connection(over_h2, server):
    client, _ = over_h2(server)
    sockets = [H2Socket(client) for _ in range(10)]
    for number, socket in enumerate(sockets):
        socket.send(wsproto.events.TextMessage(f"mine {number}"))
    for number, socket in enumerate(sockets):
        socket.wait(lambda: socket.messages)
        assert socket.messages == [f"mine {number}"]


def test_the_backend_gets_an_upgrade_with_a_key_of_its_own(over_h2, scripted):
    backend = scripted()
    client, _ = over_h2(backend, limits={"drain": "100ms"})
    stream = client.start("CONNECT", "/chat?x=1", [("sec-websocket-version", "13"), ("origin", "http://a")], end=False,
                          pseudo=[(":protocol", "websocket")])
    at_work = backend.next_request()
    head = at_work.request
    assert head.line == "GET /chat?x=1 HTTP/1.1"
    assert (head.get("upgrade"), head.get("origin"), head.get("host")) == ("websocket", "http://a", "a")
    assert "upgrade" in head.list("connection") and len(head.get("sec-websocket-key")) == 24
    assert not head.has("transfer-encoding") and not head.has("content-length")
    stream.send(b"too early")
    client.ping()
    assert not at_work.has_input()
    at_work.send(switching(at_work) + "first")
    assert stream.wait_body(5).status == 200 and bytes(stream.body) == b"first"
    at_work.expect("too early")


def test_each_direction_ends_for_itself(over_h2, scripted):
    backend = scripted()
    client, proxy = over_h2(backend)
    stream = client.start("CONNECT", "/", end=False, pseudo=[(":protocol", "websocket")])
    at_work = backend.next_request()
    at_work.send(switching(at_work))
    stream.wait_head().send(b"last words").finish()
    at_work.expect("last words").expect_end()
    at_work.send("and mine")
    assert bytes(stream.wait_body(8).body) == b"and mine"
    at_work.close()
    assert stream.wait_end().complete
    proxy.wait_in_flight(0)


@pytest.mark.parametrize("accept", [None, "", "x", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "almost"])
def test_a_101_that_does_not_accept_our_key_is_a_502(over_h2, scripted, accept):
    backend = scripted()
    client, _ = over_h2(backend, retry={"attempts": 0})
    stream = client.start("CONNECT", "/", end=False, pseudo=[(":protocol", "websocket")])
    at_work = backend.next_request()
    answer = switching(at_work)
    if accept == "almost":
        answer = answer.replace("=\r\n\r\n", "\r\n\r\n")
    elif accept is not None:
        answer = re.sub("Accept: .*\r\n", f"Accept: {accept}\r\n", answer)
    else:
        answer = re.sub("Sec-WebSocket-Accept: .*\r\n", "", answer)
    at_work.send(answer + "hello")
    assert (stream.wait_end().status, stream["x-penstock-reason"]) == (502, "bad_response")
    at_work.expect_end()


@pytest.mark.parametrize("answer, status", [
    ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502)], ids=["403", "200"])
def test_what_is_no_101_opens_no_tunnel(over_h2, scripted, answer, status):
    backend = scripted()
    client, proxy = over_h2(backend, threads=1)
    stream = client.start("CONNECT", "/", end=False, pseudo=[(":protocol", "websocket")])
    at_work = backend.next_request()
    stream.send(b"\x81\x85 early")
    client.ping()
    at_work.send(answer)
    assert stream.wait_end().status == status
    # Nothing of what was for the tunnel has reached the backend.
    other = client.start("GET", "/next")
    following = backend.next_request()
    assert following.request.target == "/next" and not (following is not at_work and at_work.pending)
    following.respond("next")
    assert bytes(other.wait_end().body) == b"next"


def test_other_protocols_than_websocket_are_not_spoken(over_h2, server):
    client, _ = over_h2(server)
    stream = client.start("CONNECT", "/", end=False, pseudo=[(":protocol", "connect-udp")]).wait_end()
    assert (stream.status, stream["x-penstock-reason"]) == (501, "bad_request; rule=method_unknown")


def test_a_silent_tunnel_is_cut_when_its_time_is_over(over_h2, server):
    client, proxy = over_h2(server, timeouts={"idle": "200ms"})
    socket = H2Socket(client)
    assert socket.stream.wait_end().reset is not None
    proxy.wait_access(lambda line: line.get("reason") == "idle_timeout" and line["step"] == "tunnel")
    proxy.wait_in_flight(0)


def test_a_tunnel_ends_with_the_drain(over_h2, server):
    client, proxy = over_h2(server, limits={"drain": "200ms"})
    socket = H2Socket(client)
    socket.send(wsproto.events.TextMessage("hello"))
    socket.wait(lambda: socket.messages)
    proxy.signal(signal.SIGTERM)
    client.pump_to_end()
    assert proxy.wait_exit() == 0


def test_a_client_that_resets_its_stream_ends_the_tunnel(over_h2, scripted):
    backend = scripted()
    client, proxy = over_h2(backend)
    stream = client.start("CONNECT", "/", end=False, pseudo=[(":protocol", "websocket")])
    at_work = backend.next_request()
    at_work.send(switching(at_work))
    stream.wait_head().cancel()
    at_work.expect_gone()
    at_work.close()
    proxy.wait_in_flight(0)


def test_a_backend_that_does_not_read_stops_the_client_not_the_memory(over_h2, scripted):
    backend = scripted()
    client, proxy = over_h2(backend, limits={"drain": "100ms"}, buffer={"request": "64KiB"})
    stream = client.start("CONNECT", "/", end=False, pseudo=[(":protocol", "websocket")])
    at_work = backend.next_request()
    at_work.send(switching(at_work))
    stream.wait_head().send(b"x" * (64 << 20))
    client.ping()
    client.ping()
    taken = (64 << 20) - len(stream.out)
    assert taken < 24 << 20                    # what sockets and the budget hold
    other = client.start("GET", "/beside")     # and nobody else is held up
    beside = backend.accept()
    beside.read_request()
    beside.respond("beside")
    assert bytes(other.wait_end().body) == b"beside"
