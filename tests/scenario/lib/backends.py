"""Backends for tests: one whose every step the test makes, one that answers with what it received."""
import hashlib
import json
import os
import selectors
import socket
import threading
import time

from lib import patience
from lib.wire import Cut, Head, TooSlow, Wire


def listening_socket(path=None, backlog=4096):
    if path:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(path)
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.bind(("127.0.0.1", 0))
    sock.listen(backlog)
    return sock


def stop_accepting(listener, thread):
    """Closes a socket at which a thread accepts, and ends that. After close() alone it would wait on, and after a
    signal (the process was stopped for a moment, say) at whoever has the number of the socket by then."""
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:       # closed already
        pass
    thread.join()
    listener.close()


def address_of(sock):
    if sock.family == socket.AF_UNIX:
        return "unix:" + sock.getsockname()
    host, port = sock.getsockname()[:2]
    return f"{host}:{port}"


def unused_address():
    """An address where nobody listens (and where, for a while, nobody will)."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    address = address_of(sock)
    sock.close()
    return address


class BackendConnection(Wire):
    """One connection that penstock made. `request` is the head of the latest request read from it."""

    def __init__(self, sock):
        super().__init__(sock)
        self.request = None

    def read_request(self):
        self.request = self.read_head()
        return self.request

    def read_body(self):
        """The body of the latest request, by its framing: (bytes, trailers)."""
        if "chunked" in self.request.list("transfer-encoding"):
            return self.read_chunked()
        return self.read_exactly(int(self.request.get("content-length", "0"))), []

    def respond(self, body="", status="200 OK", fields=""):
        if isinstance(body, str):
            body = body.encode("latin-1")
        return self.send(f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body)


class ScriptedBackend:
    """Listens; what happens on its connections is up to the test. Connections on which nothing is ever sent (a
    probe's) are passed over by next_request()."""

    def __init__(self, path=None, backlog=4096):
        self.listener = listening_socket(path, backlog)
        self.listener.settimeout(patience)
        self.address = address_of(self.listener)
        self.path = path
        self.connections = []

    def accept(self):
        """The next new connection, whether or not anything is sent on it."""
        try:
            sock, _ = self.listener.accept()
        except TimeoutError:
            raise TooSlow("no connection came") from None
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = BackendConnection(sock)
        self.connections.append(connection)
        return connection

    def next_request(self):
        """The connection, new or known, on which the next request begins; its head has been read into .request.
        Only the head: a body is read with read_body() or by hand."""
        connection = self.next_bytes()
        connection.read_request()
        return connection

    def next_bytes(self):
        """The connection, new or known, on which there are bytes to read."""
        until = time.monotonic() + patience
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ, None)
            for connection in self.connections:
                if connection.sock.fileno() >= 0 and not connection.ended:
                    if connection.pending:
                        return connection
                    selector.register(connection.sock, selectors.EVENT_READ, connection)
            while True:
                ready = selector.select(max(0, until - time.monotonic()))
                if not ready:
                    raise TooSlow("no request reached the backend")
                for key, _ in ready:
                    if key.data is None:
                        connection = self.accept()
                        selector.register(connection.sock, selectors.EVENT_READ, connection)
                    elif key.data._more():
                        return key.data
                    else:
                        selector.unregister(key.data.sock)

    def requests_waiting(self):
        """How many connections have bytes that nobody read yet. Only meaningful after an event that came later."""
        self.listener.settimeout(0)
        try:
            while True:
                self.accept()
        except BlockingIOError:
            pass
        finally:
            self.listener.settimeout(patience)
        waiting = 0
        for connection in self.connections:
            if connection.sock.fileno() >= 0 and not connection.ended:
                if connection.pending or (connection.has_input() and connection._more()):
                    waiting += 1
        return waiting

    def stop_listening(self):
        self.listener.close()
        if self.path and os.path.exists(self.path):
            os.unlink(self.path)

    def close(self):
        self.stop_listening()
        for connection in self.connections:
            connection.close()


class EchoBackend:
    """Answers every request with a JSON description of exactly what it received: {"line", "fields": [[name, value]],
    "raw": the head as text, "body_size", "body_sha256", "body" (as text, when it is under 4 KiB), "trailers",
    "connection": the number of the connection, "turn": the number of the request on it}. `seen` has them all.

    The query of the target may ask for more: `?fields=Name:value|Name:value` adds response fields, `?status=404`,
    `?close` ends the connection after the answer, `?chunked` answers in chunks."""

    def __init__(self, path=None):
        self.listener = listening_socket(path)
        self.address = address_of(self.listener)
        self.path = path
        self.seen = []
        self.open = set()
        self.lock = threading.Lock()
        self.count = 0
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.count += 1
                self.open.add(sock)
                number = self.count
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock, number):
        wire = BackendConnection(sock)
        sock.settimeout(None)
        turn = 0
        try:
            while True:
                turn += 1
                if not wire.pending and not wire._more(before=3600):
                    return
                head = wire.read_request()
                if "100-continue" in head.list("expect"):
                    wire.send("HTTP/1.1 100 Continue\r\n\r\n")
                body, trailers = wire.read_body()
                facts = {
                    "line": head.line, "fields": head.fields, "raw": head.raw.decode("latin-1"),
                    "body_size": len(body), "body_sha256": hashlib.sha256(body).hexdigest(),
                    "body": body.decode("latin-1") if len(body) < 4096 else None,
                    "trailers": trailers, "connection": number, "turn": turn,
                }
                with self.lock:
                    self.seen.append(facts)
                if self._answer(wire, head, facts):
                    return
        except (Cut, TooSlow, OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.open.discard(sock)
            sock.close()

    def _answer(self, wire, head, facts):
        query = head.target.partition("?")[2].split("&")
        asked = dict(part.partition("=")[::2] for part in query)
        extra = "".join(f.replace(":", ": ", 1) + "\r\n" for f in asked.get("fields", "").split("|") if f)
        closing = "close" in asked
        if closing:
            extra += "Connection: close\r\n"
        status = asked.get("status", "200")
        body = json.dumps(facts).encode()
        if status in ("204", "304"):
            wire.send(f"HTTP/1.1 {status} Status\r\n{extra}\r\n")
        elif "chunked" in asked:
            wire.send(f"HTTP/1.1 {status} Status\r\n{extra}Transfer-Encoding: chunked\r\n\r\n".encode()
                      + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        else:
            wire.send(f"HTTP/1.1 {status} Status\r\n{extra}Content-Type: application/json\r\n"
                      f"Content-Length: {len(body)}\r\n\r\n".encode() + (b"" if head.method == "HEAD" else body))
        return closing

    def heads(self):
        """What was seen so far, as Heads."""
        with self.lock:
            return [Head.parse(facts["raw"].encode("latin-1")) for facts in self.seen]

    def targets(self):
        return [head.target for head in self.heads()]

    def close(self):
        stop_accepting(self.listener, self.thread)
        if self.path and os.path.exists(self.path):
            os.unlink(self.path)
        with self.lock:
            for sock in self.open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class FixedBackend:
    """Answers every request with `answer`, a whole response, or ends the connection where it is None; a target in
    `answers` with its own, after `gate` of that target is open, where there is one. `seen`: the targets."""

    def __init__(self, path=None, answer="HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"):
        self.listener = listening_socket(path)
        self.address = address_of(self.listener)
        self.answer = answer
        self.answers = {}
        self.gates = {}
        self.seen = []
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(BackendConnection(sock),), daemon=True).start()

    def _serve(self, wire):
        wire.sock.settimeout(None)
        try:
            while wire.pending or wire._more(before=3600):
                head = wire.read_request()
                wire.read_body()
                with self.lock:
                    self.seen.append(head.target)
                    answer = self.answers.get(head.target, self.answer)
                    gate = self.gates.get(head.target)
                if gate:
                    gate.wait()
                if answer is None:
                    break
                wire.send(answer)
        except (Cut, TooSlow, OSError, ValueError):
            pass
        finally:
            wire.close()

    def says(self, status, fields="", to=None):
        answer = f"HTTP/1.1 {status} Status\r\n{fields}Content-Length: 0\r\n\r\n"
        with self.lock:
            if to:
                self.answers[to] = answer
            else:
                self.answer = answer

    def ends_connections(self):
        with self.lock:
            self.answer = None

    def shuts(self, target):
        """Requests for this target get no answer until the event that is returned is set."""
        with self.lock:
            self.gates[target] = threading.Event()
            return self.gates[target]

    def count(self, target=None):
        with self.lock:
            return len(self.seen) if target is None else self.seen.count(target)

    def close(self):
        stop_accepting(self.listener, self.thread)
        for gate in self.gates.values():
            gate.set()
