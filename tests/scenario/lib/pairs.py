"""Clients and backends of four kinds (h1, h2c, h2s, h1s: HTTP/1.1 and HTTP/2, in clear and under TLS) with one face,
so that one test can be told of every pairing.

A PairBackend does what the path says; a query may follow. Everything that it was asked stands in `works`.

    /echo          the body comes back as it comes, with the request's trailers
    /take          JSON about the request: method, path, fields, size, sha256, trailers
    /give/N        N bytes (pattern(N)) with a content-length;  /stream/N without one, and with trailers
    /hints         103, then 200
    /early         answers at the request's head, and reads no body
    /hold          answers when the test says release()
    /silent        never answers;  /stall stops after the head and one byte
    /reset         resets stream or connection at the head;  /reset-half after 1,000 bytes of an answer, at release()
    /empty         204

A PairClient asks: request() waits for the whole answer, start() gives a stream (`.send .finish .cancel .wait_head
.wait_end`) and several may run at once, which over HTTP/1.1 takes a connection each."""
import hashlib
import json
import socket
import ssl
import struct
import threading

import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from lib import patience
from lib.backends import address_of, listening_socket, stop_accepting
from lib.h2 import H2Client, H2Wire
from lib.wire import Client, Cut, TooSlow, Wire, dial, eventually, reset_socket, wait_ready

kinds = ("h1", "h2c", "h2s", "h1s")
over_tls = {"h1": False, "h2c": False, "h2s": True, "h1s": True}
is_h2 = {"h1": False, "h2c": True, "h2s": True, "h1s": False}


def pattern(size):
    """Bytes in which a lost, doubled or moved block shows."""
    block = b"".join(struct.pack(">I", number) for number in range(0, min(size, 1 << 22) // 4 + 1))
    return (block * (size // len(block) + 1))[:size]


# ---- backends

class Work:
    """A request as a backend has it. The behaviours below call what answers: head, data, end, reset."""

    def __init__(self, method, path, fields):
        self.method = method
        self.path = path
        self.fields = fields
        self.trailers = []
        self.size = 0
        self.hash = hashlib.sha256()
        self.complete = False       # the request came to its end
        self.cancelled = None       # how the other side ended it: "reset CODE", "eof"
        self.answered = False
        self.released = False
        self.connection = None

    def get(self, name):
        return [value for known, value in self.fields if known.lower() == name]

    def facts(self):
        return {"method": self.method, "path": self.path, "fields": self.fields, "size": self.size,
                "sha256": self.hash.hexdigest(), "trailers": self.trailers}


def behave(work, event, data=b""):
    """What a backend does at the head, at each piece of data, at the end and at the release of a request."""
    name, _, number = work.path.partition("?")[0].lstrip("/").partition("/")
    if name == "echo":
        if event == "head":
            work.head(200, [("content-type", "application/octet-stream")])
        elif event == "data":
            work.data(data)
        elif event == "end":
            work.end(work.trailers)
    elif name == "early":
        if event == "head":
            work.head(200, [("content-length", "5")])
            work.data(b"early")
            work.end()
    elif name == "reset":
        if event == "head":
            work.reset()
    elif name == "reset-half":
        if event == "head":
            work.head(200, [("content-length", "100000")])
            work.data(pattern(1000))
        elif event == "released":
            work.reset()
    elif name == "stall":
        if event == "end":
            work.head(200, [("content-length", "10")])
            work.data(b"x")
    elif name == "hold":
        if event == "released":
            work.head(200, [("content-length", "4")])
            work.data(b"held")
            work.end()
    elif event != "end" or name == "silent":
        pass
    elif name == "take":
        answer(work, json.dumps(work.facts()).encode(), [("content-type", "application/json")])
    elif name == "give":
        answer(work, pattern(int(number)))
    elif name == "stream":
        body = pattern(int(number))
        work.head(200, [("trailer", "x-sha256")])
        if work.method != "HEAD":
            work.data(body)
        work.end([("x-sha256", hashlib.sha256(body).hexdigest())])
    elif name == "hints":
        work.interim(103, [("link", "</style.css>; rel=preload")])
        answer(work, b"hinted")
    elif name == "empty":
        work.head(204, [])
        work.end()
    else:
        answer(work, b"no such path\n", status=404)


def answer(work, body, fields=(), status=200):
    work.head(status, [*fields, ("content-length", str(len(body)))])
    if work.method != "HEAD":
        work.data(body)
    work.end()


class WorkH1(Work):
    """Answers on an HTTP/1.1 connection."""

    def __init__(self, wire, head):
        super().__init__(head.method, head.target, [(name.lower(), value) for name, value in head.fields])
        self.wire = wire
        self.chunked = False
        self.closes = False

    def head(self, status, fields):
        names = [name for name, _ in fields]
        self.chunked = "content-length" not in names and status != 204
        lines = [f"{name}: {value}" for name, value in fields]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        if self.path.startswith("/early"):
            lines.append("Connection: close")
            self.closes = True
        self.wire.send("\r\n".join([f"HTTP/1.1 {status} Whatever", *lines, "", ""]))

    def interim(self, status, fields):
        self.wire.send("\r\n".join([f"HTTP/1.1 {status} Wait", *(f"{n}: {v}" for n, v in fields), "", ""]))

    def data(self, data):
        if data:
            self.wire.send(b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data)

    def end(self, trailers=()):
        if self.chunked and self.method != "HEAD":
            self.wire.send("0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers) + "\r\n")
        self.answered = True

    def reset(self):
        reset_socket(self.wire.sock)
        self.answered = self.closes = True


class WorkH2(Work):
    """Answers on a stream."""

    def __init__(self, serving, number, lines):
        head = dict(line for line in lines if line[0].startswith(":"))
        super().__init__(head[":method"], head.get(":path", ""), [line for line in lines if line[0][0] != ":"])
        self.pseudo = head
        self.serving = serving
        self.number = number
        self.out = bytearray()
        self.out_end = False
        self.out_trailers = ()
        self.gone = False

    def head(self, status, fields):
        self.serving.h2.send_headers(self.number, [(":status", str(status)), *fields])

    interim = head

    def data(self, data):
        self.out += data

    def end(self, trailers=()):
        self.out_end = True
        self.out_trailers = list(trailers)

    def reset(self):
        self.serving.push()
        self.serving.h2.reset_stream(self.number, h2.errors.ErrorCodes.INTERNAL_ERROR)
        self.gone = True


class ServingH2(H2Wire):
    """One connection of a PairBackend that speaks HTTP/2."""

    def __init__(self, backend, sock, number):
        self.works = {}
        self.backend = backend
        self.number = number
        super().__init__(sock, False, backend.settings)
        self.h2.increment_flow_control_window((1 << 30) - 65535)
        self.flush()

    def serve(self, woken):
        while not self.ended:
            ready = self.has_input(None, [woken])
            if woken in ready:
                woken.recv(1)
                for work in self.works.values():
                    if not work.gone and self.backend.is_released(work):
                        work.released = True
                        behave(work, "released")
            if self.sock in ready:
                for event in self.receive():
                    self.take(event)
            self.push()
        for work in self.works.values():
            if not work.gone:
                work.cancelled = work.cancelled or self.ended

    def take(self, event):
        work = self.works.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RequestReceived):
            work = WorkH2(self, event.stream_id, list(event.headers))
            work.connection = self.number
            self.works[event.stream_id] = work
            self.backend.works.append(work)
            behave(work, "head")
            if self.backend.is_released(work):
                behave(work, "released")
        elif work is None:
            return
        elif isinstance(event, h2.events.DataReceived):
            work.size += len(event.data)
            work.hash.update(event.data)
            if event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if not work.gone:
                behave(work, "data", event.data)
        elif isinstance(event, h2.events.TrailersReceived):
            work.trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            work.complete = True
            if not work.gone:
                behave(work, "end")
        elif isinstance(event, h2.events.StreamReset):
            work.cancelled = f"reset {int(event.error_code)}"
            work.gone = True

    def push(self):
        moved = True
        while moved:
            moved = False
            for number, work in list(self.works.items()):
                if work.gone:
                    continue
                room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size,
                           len(work.out))
                if room > 0:
                    self.h2.send_data(number, bytes(work.out[:room]))
                    del work.out[:room]
                    moved = True
                if not work.out and work.out_end:
                    if work.out_trailers:
                        self.h2.send_headers(number, work.out_trailers, end_stream=True)
                    else:
                        self.h2.end_stream(number)
                    work.gone = work.answered = True
            self.flush()


class PairBackend:
    """A server of one kind. `works`: everything asked, in order."""

    def __init__(self, path=None, speaks="h1", authority=None, settings=None):
        self.kind = speaks
        self.authority = authority if over_tls[speaks] else None
        self.context = None
        if over_tls[speaks]:
            self.context = authority.server_context(["h2" if is_h2[speaks] else "http/1.1"], f"backend-{speaks}")
        self.settings = settings or {}
        self.listener = listening_socket(path)
        self.address = address_of(self.listener)
        self.works = []
        self.connections = []
        self.wakers = []
        self.releases = 0           # of /hold: how many may go on
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
            woken, waker = socket.socketpair()
            with self.lock:
                self.connections.append(sock)
                number = len(self.connections)
                self.wakers.append(waker)
            if is_h2[self.kind]:
                ServingH2(self, sock, number).serve(woken)
            else:
                self._serve_h1(sock, woken, number)
        except (Cut, TooSlow, OSError, ValueError, h2.exceptions.ProtocolError):
            pass
        finally:
            sock.close()

    def _serve_h1(self, sock, woken, number):
        wire = Wire(sock)
        sock.settimeout(None)
        while wire.pending or wire._more(before=3600):
            work = WorkH1(wire, wire.read_head())
            work.connection = number
            self.works.append(work)
            try:
                behave(work, "head")
                if not work.closes:
                    self._read_body(wire, work)
                    behave(work, "end")
                self._wait_for_release(work, wire, woken)
            except (Cut, OSError):
                work.cancelled = wire.ended or "eof"
                raise
            if work.closes:
                return

    def _read_body(self, wire, work):
        def take(data):
            work.size += len(data)
            work.hash.update(data)
            behave(work, "data", data)
        if "chunked" in work.get("transfer-encoding"):
            while part := wire.read_chunk():
                take(part)
            work.trailers = [(name.lower(), value) for name, value in wire.read_trailers()]
        else:
            left = int((work.get("content-length") or ["0"])[0])
            while left:
                part = wire.read_some(left)
                left -= len(part)
                take(part)
        work.complete = True

    def _wait_for_release(self, work, wire, woken):
        while not work.answered:
            if self.is_released(work):
                work.released = True
                behave(work, "released")
                continue
            ready = wait_ready([wire.sock, woken])
            if woken in ready:
                woken.recv(1)
            if wire.sock in ready and not wire._more(before=3600):
                raise Cut("gone")

    # ---- for the test

    def upstream(self, **settings):
        """What a configuration says of it."""
        says = {"servers": [{"address": self.address}], **settings}
        if is_h2[self.kind]:
            says["protocol"] = "http2"
        if self.authority:
            says["tls"] = {"ca": self.authority.ca}
        return says

    def is_released(self, work):
        if not work.path.startswith(("/hold", "/reset-half")) or work.released:
            return False
        with self.lock:
            if not self.releases:
                return False
            self.releases -= 1
        return True

    def release(self, count=1):
        """Lets so many requests to /hold go on, now or when they come."""
        with self.lock:
            self.releases += count
            wakers = list(self.wakers)
        for waker in wakers:
            try:
                waker.send(b"x")
            except OSError:
                pass

    def asked(self, path):
        return [work for work in self.works if work.path == path]

    def wait_work(self, path):
        """The newest request for this path, which must have begun."""
        return eventually(lambda: self.asked(path), f"a request for {path}")[-1]

    def close(self):
        stop_accepting(self.listener, self.thread)
        with self.lock:
            for sock in self.connections:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except (OSError, ValueError):
                    pass


# ---- clients

class SharedTls:
    """A TLS socket that one thread reads while another writes, which Python's own does not allow."""

    def __init__(self, sock):
        self.sock = sock
        self.lock = threading.Lock()
        self.family = sock.family
        self.timeout = patience
        sock.setblocking(False)

    def settimeout(self, timeout):
        self.timeout = timeout

    def _try(self, call):
        while True:
            reads, writes = [self.sock], []
            with self.lock:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLWantWriteError:
                    reads, writes = [], [self.sock]
                except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                    return b""
            if not wait_ready(reads, writes, self.timeout):
                raise TimeoutError()

    def recv(self, most):
        return self._try(lambda: self.sock.recv(most))

    def sendall(self, data):
        data = memoryview(data)
        while data:
            sent = self._try(lambda: self.sock.send(data[:16384]))
            if not sent:
                raise BrokenPipeError()
            data = data[sent:]

    def fileno(self):
        return self.sock.fileno()

    def detach(self):
        with self.lock:
            return self.sock.detach()

    def close(self):
        with self.lock:
            self.sock.close()


class StreamH1:
    """One request on an HTTP/1.1 connection of its own; a thread sends what it is given, so that an answer can be
    read meanwhile."""

    def __init__(self, sock, method, path, fields, body, end, trailers):
        self.wire = Client.__new__(Client)
        Wire.__init__(self.wire, sock)
        self.method = method
        self.status = None
        self.interims = []
        self.trailers = []
        self.fields = []
        self.body = b""
        self.complete = False
        known = end and not trailers
        self.chunked = not known
        lines = [f"{method} {path} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in fields)]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
            if trailers:
                lines.append("Trailer: " + ", ".join(name for name, _ in trailers))
        elif body or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        self.ready = threading.Condition()
        self.out = bytearray("\r\n".join([*lines, "", ""]).encode())
        self.ends = False
        self.out_done = False
        threading.Thread(target=self._send, daemon=True).start()
        if body:
            self.send(body)
        if end:
            self.finish(trailers)

    def _send(self):
        while True:
            with self.ready:
                self.ready.wait_for(lambda: self.out or self.ends)
                data = bytes(self.out)
                self.out.clear()
                last = self.ends
            try:
                self.wire.sock.sendall(data)
            except (OSError, ValueError):
                return
            if last:
                self.out_done = True
                return

    def _give(self, data, last=False):
        with self.ready:
            self.out += data
            self.ends |= last
            self.ready.notify_all()

    def send(self, data):
        self._give(b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data)
        return self

    def finish(self, trailers=None):
        end = b""
        if self.chunked:
            end = b"0\r\n" + b"".join(b"%s: %s\r\n" % (n.encode(), v.encode()) for n, v in trailers or ()) + b"\r\n"
        self._give(end, last=True)
        return self

    def cancel(self):
        self._give(b"", last=True)
        sock = self.wire.sock
        if isinstance(sock, SharedTls):
            sock = socket.socket(fileno=sock.detach())
        reset_socket(sock)
        return self

    def wait_head(self):
        if self.status is None:
            while True:
                head = self.wire.read_head()
                if head.status >= 200:
                    break
                self.interims.append((head.status, head.fields))
            self.status = head.status
            self.fields = [(name.lower(), value) for name, value in head.fields]
            self.head = head
        return self

    def wait_body(self, size):
        """Until so much of a body with a content-length has come; wait_end() sees it again."""
        self.wait_head()
        while len(self.wire.pending) < size and self.wire._more():
            pass
        return self

    def wait_end(self):
        """Reads to the end of the answer; what is cut leaves `complete` false."""
        if self.complete:
            return self
        try:
            self.wait_head()
            body = bytearray()
            try:
                if self.method == "HEAD" or self.status in (204, 304):
                    pass
                elif "chunked" in self.head.list("transfer-encoding"):
                    while part := self.wire.read_chunk():
                        body += part
                    self.trailers = [(name.lower(), value) for name, value in self.wire.read_trailers()]
                else:
                    size = int(self["content-length"])
                    while len(body) < size:
                        body += self.wire.read_some(size - len(body))
            finally:
                self.body = bytes(body)
            self.complete = True
        except (Cut, OSError):
            pass
        return self

    def trailer(self, name):
        return dict(self.trailers).get(name)

    def __getitem__(self, name):
        values = [value for known, value in self.fields if known == name]
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None


class PairClient:
    """A client of one kind. HTTP/2 kinds use one connection for all."""

    def __init__(self, kind, address, authority=None):
        self.kind = kind
        self.address = address
        self.authority = authority
        self.h2 = None
        self.streams = []

    def _dial(self):
        sock = dial(self.address)
        if not over_tls[self.kind]:
            return sock
        protocol = "h2" if is_h2[self.kind] else "http/1.1"
        sock = self.authority.client_context([protocol]).wrap_socket(sock, server_hostname="localhost")
        assert sock.selected_alpn_protocol() == protocol
        return sock

    def start(self, method, path, fields=(), body=b"", end=True, trailers=None):
        if is_h2[self.kind]:
            if self.h2 is None:
                self.h2 = H2Client(self._dial())
            return self.h2.start(method, path, fields, body, end, trailers=trailers)
        sock = self._dial()
        if over_tls[self.kind]:
            sock = SharedTls(sock)
        stream = StreamH1(sock, method, path, fields, body, end, trailers)
        self.streams.append(stream)
        return stream

    def request(self, method, path, fields=(), body=b"", trailers=None):
        return self.start(method, path, fields, body, trailers=trailers).wait_end()

    def close(self):
        if self.h2:
            self.h2.close()
        for stream in self.streams:
            stream._give(b"", last=True)
            stream.wire.close()
