"""HTTP/2 by hand, frame by frame: for what a library would never send, and for what it would not let us see.

    client = Frames(dial(proxy.address)).hello()
    client.send(headers(1, request("GET", "/"), end=True))
    head = client.next_frame(HEADERS, stream=1)
"""
import socket
import struct

import hpack

from lib import patience
from lib.wire import Cut, TooSlow

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_ERROR, PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 0, 1, 11


def frame(kind, stream=0, flags=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def encode(fields):
    """HPACK without any table, so that each block stands for itself and any bytes can be in it."""
    def text(value):
        value = value if isinstance(value, bytes) else value.encode("latin-1")
        size = len(value)
        if size < 127:
            return bytes([size]) + value
        size -= 127
        out = bytearray([127])
        while size >= 128:
            out.append(size % 128 + 128)
            size //= 128
        out.append(size)
        return bytes(out) + value

    return b"".join(b"\x00" + text(name) + text(value) for name, value in fields)


def request(method="GET", path="/", fields=(), scheme="http", authority="a"):
    head = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
    return [(name, value) for name, value in head if value is not None] + list(fields)


def headers(stream, fields, end=False, done=True):
    block = fields if isinstance(fields, bytes) else encode(fields)
    return frame(HEADERS, stream, (END_STREAM if end else 0) | (END_HEADERS if done else 0), block)


def continuation(stream, block=b"", done=True):
    return frame(CONTINUATION, stream, END_HEADERS if done else 0, block)


def data(stream, body=b"", end=False):
    return frame(DATA, stream, END_STREAM if end else 0, body)


def settings(values=(), ack=False):
    return frame(SETTINGS, 0, ACK if ack else 0, b"".join(struct.pack(">HI", *value) for value in values))


def reset(stream, code=8):
    return frame(RST_STREAM, stream, 0, struct.pack(">I", code))


def window_update(stream, by):
    return frame(WINDOW_UPDATE, stream, 0, struct.pack(">I", by))


def ping(payload=b"12345678", ack=False):
    return frame(PING, 0, ACK if ack else 0, payload)


class Frame:
    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload

    def number(self, at=0):
        return struct.unpack_from(">I", self.payload, at)[0]

    @property
    def ends(self):
        return bool(self.flags & END_STREAM) and self.kind in (DATA, HEADERS)


class Frames:
    """A connection. `frames` is all that has come."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(patience)
        self.pending = b""
        self.frames = []
        self.ended = None
        self.decoder = hpack.Decoder()

    def hello(self, values=()):
        return self.send(preface + settings(values))

    def send(self, bytes_):
        """All of it, or as much as they take before they close."""
        try:
            self.sock.sendall(bytes_)
        except (BrokenPipeError, ConnectionResetError):
            self.ended = self.ended or "reset"
        return self

    def flood(self, bytes_, most=1 << 26):
        """Again and again until the other side ends it, reading what comes meanwhile; how many bytes it took."""
        sent = 0
        self.sock.settimeout(0)
        try:
            while sent < most and not self.ended:
                try:
                    sent += self.sock.send(bytes_[sent % len(bytes_):])
                except BlockingIOError:
                    pass
                except (BrokenPipeError, ConnectionResetError):
                    break
                try:
                    got = self.sock.recv(1 << 16)
                    if not got:
                        self.ended = "eof"
                    self.pending += got
                except BlockingIOError:
                    pass
                except ConnectionResetError:
                    self.ended = "reset"
        finally:
            self.sock.settimeout(patience)
            self._parse()
        return sent

    def _parse(self):
        while len(self.pending) >= 9:
            size = int.from_bytes(self.pending[:3], "big")
            if len(self.pending) < 9 + size:
                return
            kind, flags = self.pending[3], self.pending[4]
            stream = int.from_bytes(self.pending[5:9], "big") & 0x7fffffff
            self.frames.append(Frame(kind, flags, stream, self.pending[9:9 + size]))
            self.pending = self.pending[9 + size:]
            if kind == HEADERS:
                self.frames[-1].fields = self.decoder.decode(self.frames[-1].payload)

    def read_some(self):
        try:
            got = self.sock.recv(1 << 16)
        except ConnectionResetError:
            self.ended = "reset"
            return
        except socket.timeout:
            raise TooSlow("no frame came") from None
        if not got:
            self.ended = "eof"
        self.pending += got
        self._parse()

    def next_frame(self, kind, stream=None, where=lambda frame: True):
        """Takes the first such frame, of those that have come or of those that will."""
        while True:
            for known in self.frames:
                if known.kind == kind and stream in (None, known.stream) and where(known):
                    self.frames.remove(known)
                    return known
            if self.ended:
                raise Cut(f"the connection ended ({self.ended}); came: {[(f.kind, f.stream) for f in self.frames]}")
            self.read_some()

    def has_come(self, kind, stream=None):
        return [known for known in self.frames if known.kind == kind and stream in (None, known.stream)]

    def read_to_end(self):
        while not self.ended:
            self.read_some()
        return self

    def goaway(self):
        """The last GOAWAY's (last stream, code), once the connection has ended."""
        self.read_to_end()
        found = self.has_come(GOAWAY)
        return (found[-1].number(), found[-1].number(4)) if found else None

    def status(self, stream):
        head = self.next_frame(HEADERS, stream)
        return int(dict(head.fields)[":status"])

    def close(self):
        self.sock.close()
