"""One connection, spoken by the test: bytes, heads, bodies, and how it ended."""
import fcntl
import select
import socket
import ssl
import struct
import termios
import time
from dataclasses import dataclass, field

from lib import patience


class Cut(AssertionError):
    """The other end closed or reset the connection where more was expected."""


class TooSlow(AssertionError):
    """Nothing came for as long as a test may wait."""


@dataclass
class Head:
    """The first line and the fields as they were on the wire, order and case kept."""
    raw: bytes
    line: str
    fields: list

    @staticmethod
    def parse(raw):
        lines = raw.decode("latin-1").split("\r\n")
        fields = []
        for line in lines[1:]:
            name, _, value = line.partition(":")
            fields.append((name, value.strip(" \t")))
        return Head(raw, lines[0], fields)

    def all(self, name):
        return [value for known, value in self.fields if known.lower() == name.lower()]

    def get(self, name, default=None):
        """The one value of a field. Two fields of a name are a failure: ask all() where that is legal."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else default

    def has(self, name):
        return bool(self.all(name))

    def names(self):
        return [name.lower() for name, _ in self.fields]

    def list(self, name):
        """The members of a comma-separated field, in lower case."""
        return [part.strip().lower() for value in self.all(name) for part in value.split(",") if part.strip()]

    # Of a request:
    @property
    def method(self):
        return self.line.split(" ")[0]

    @property
    def target(self):
        return self.line.split(" ")[1]

    # Of both:
    @property
    def version(self):
        return self.line.split(" ")[0] if self.line.startswith("HTTP/") else self.line.split(" ")[-1]

    # Of a response:
    @property
    def status(self):
        return int(self.line.split(" ")[1])


@dataclass
class Response:
    head: Head
    body: bytes = b""
    trailers: list = field(default_factory=list)
    interims: list = field(default_factory=list)     # the 1xx heads that came before
    framing: str = "none"                            # none | length | chunked | close
    cut: bool = False                                # the connection ended before the body did

    @property
    def status(self):
        return self.head.status

    def __getitem__(self, name):
        return self.head.get(name)


def wait_ready(reads, writes=(), timeout=None):
    """Those that can be read or written, after at most `timeout` seconds: as select(), for descriptors above 1023 too."""
    poll = select.poll()
    by_number = {sock.fileno(): sock for sock in (*reads, *writes)}
    for sock in reads:
        poll.register(sock, select.POLLIN)
    for sock in writes:
        poll.register(sock, select.POLLOUT)
    return [by_number[number] for number, _ in poll.poll(None if timeout is None else max(0, timeout) * 1000)]


def reset_socket(sock):
    """Closes it with a reset, without a word of TLS."""
    if isinstance(sock, ssl.SSLSocket):
        sock = socket.socket(fileno=sock.detach())
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def dial(address, before=patience):
    """Connects to 127.0.0.1:80, [::1]:80 or unix:/path."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(before)
        sock.connect(address[len("unix:"):])
        return sock
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host.strip("[]"), int(port)), timeout=before)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Wire:
    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(patience)
        self.pending = b""        # received and not yet asked for
        self.ended = None         # None | "eof" | "reset"

    # ---- sending

    def send(self, data):
        """All of it at once. A connection that the other end has let go of is no failure here: the test sees it
        when it reads."""
        if isinstance(data, str):
            data = data.encode("latin-1")
        try:
            self.sock.settimeout(patience)
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except TimeoutError:
            raise TooSlow("the other end does not take what is sent") from None
        return self

    def drip(self, data, step=1):
        """Byte by byte, each in a packet of its own."""
        if isinstance(data, str):
            data = data.encode("latin-1")
        for at in range(0, len(data), step):
            self.send(data[at:at + step])
        return self

    def chunk(self, data):
        if isinstance(data, str):
            data = data.encode("latin-1")
        return self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def last_chunk(self, trailers=""):
        return self.send(f"0\r\n{trailers}\r\n")

    def is_taken(self, within):
        """Whether the other end's kernel has all that was sent, or takes it in so many seconds."""
        until = time.monotonic() + within
        while struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0" * 4))[0]:
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        return True

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def close(self):
        self.sock.close()

    def reset(self):
        """Closes with a reset (RST), as a process that dies with unread bytes does."""
        reset_socket(self.sock)

    # ---- receiving

    def _more(self, before=None):
        """Waits for bytes or the end; False when it has ended."""
        if self.ended:
            return False
        self.sock.settimeout(before or patience)
        try:
            got = self.sock.recv(262144)
        except (ConnectionResetError, BrokenPipeError):
            self.ended = "reset"
            return False
        except TimeoutError:
            raise TooSlow(f"nothing more came; so far: {self.pending[:2000]!r}") from None
        if not got:
            self.ended = "eof"
            return False
        self.pending += got
        return True

    def read_until(self, mark):
        """Everything up to and with `mark`."""
        if isinstance(mark, str):
            mark = mark.encode("latin-1")
        looked = 0
        while True:
            at = self.pending.find(mark, max(0, looked - len(mark)))
            if at >= 0:
                break
            looked = len(self.pending)
            if not self._more():
                raise Cut(f"{self.ended} before {mark!r}; got {self.pending[:2000]!r}")
        got, self.pending = self.pending[:at + len(mark)], self.pending[at + len(mark):]
        return got

    def read_some(self, most):
        """At least one byte, at most so many."""
        if not self.pending and not self._more():
            raise Cut(f"{self.ended} where more was expected")
        got, self.pending = self.pending[:most], self.pending[most:]
        return got

    def read_exactly(self, size):
        parts, missing = [], size
        while missing:
            parts.append(self.read_some(missing))
            missing -= len(parts[-1])
        return b"".join(parts)

    def read_to_end(self):
        """All bytes until the other end closes (self.ended tells whether by reset)."""
        parts = [self.pending]
        self.pending = b""
        while self._more():
            parts.append(self.pending)
            self.pending = b""
        return b"".join(parts)

    def expect(self, data):
        if isinstance(data, str):
            data = data.encode("latin-1")
        got = self.read_exactly(len(data))
        assert got == data, f"expected {data!r}, got {got!r}"
        return self

    def expect_end(self):
        """A clean close, and not a byte before it."""
        rest = self.read_to_end()
        assert rest == b"", f"expected the end, got {rest[:2000]!r}"
        assert self.ended == "eof", "the connection was reset instead of closed"
        return self

    def expect_gone(self):
        """The end, clean or by reset, and not a byte before it."""
        rest = self.read_to_end()
        assert rest == b"", f"expected the end, got {rest[:2000]!r}"
        return self

    def has_input(self):
        """Whether bytes or the end have arrived by now. Only meaningful after an event that must have come later."""
        return bool(self.pending) or bool(wait_ready([self.sock], timeout=0))

    # ---- messages

    def read_head(self):
        return Head.parse(self.read_until(b"\r\n\r\n")[:-4])

    def read_chunk(self):
        """One chunk's bytes; empty for the last chunk, whose trailers are still to be read (read_trailers)."""
        size = int(self.read_until(b"\r\n")[:-2].split(b";")[0], 16)
        data = self.read_exactly(size)
        if size:
            self.expect(b"\r\n")
        return data

    def read_trailers(self):
        fields = []
        while True:
            line = self.read_until(b"\r\n")[:-2].decode("latin-1")
            if not line:
                return fields
            name, _, value = line.partition(":")
            fields.append((name, value.strip(" \t")))

    def read_chunked(self):
        """(body, trailers) of a chunked body."""
        parts = []
        while part := self.read_chunk():
            parts.append(part)
        return b"".join(parts), self.read_trailers()


class Client(Wire):
    """A client's connection to penstock."""

    def __init__(self, address):
        super().__init__(dial(address))
        self.address = address

    def get(self, target="/", fields="", version="1.1"):
        return self.send(f"GET {target} HTTP/{version}\r\nHost: a\r\n{fields}\r\n")

    def post(self, target="/", body=b"", fields=""):
        if isinstance(body, str):
            body = body.encode("latin-1")
        return self.send(f"POST {target} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode()
                         + body)

    def read_response(self, to="GET"):
        """The next final response to a request with the method `to`, read by its own framing."""
        interims = []
        while True:
            head = self.read_head()
            if head.status >= 200 or head.status == 101:
                break
            interims.append(head)
        answer = Response(head, interims=interims)
        if to == "HEAD" or head.status in (101, 204, 304):
            return answer
        try:
            if "chunked" in head.list("transfer-encoding"):
                answer.framing = "chunked"
                body = bytearray()
                try:
                    while part := self.read_chunk():
                        body += part
                    answer.trailers = self.read_trailers()
                finally:
                    answer.body = bytes(body)
            elif head.has("content-length"):
                answer.framing = "length"
                size = int(head.get("content-length"))
                body = bytearray()
                try:
                    while len(body) < size:
                        body += self.read_some(size - len(body))
                finally:
                    answer.body = bytes(body)
            else:
                answer.framing = "close"
                answer.body = self.read_to_end()
                answer.cut = self.ended == "reset"
        except Cut:
            answer.cut = True
        return answer


def deadline():
    return time.monotonic() + patience


def eventually(condition, what="the condition"):
    """Asks again until `condition` holds, and returns what it gave: for facts that can only be asked for (a metric,
    a process table). What can be waited for as an event should be."""
    until = deadline()
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > until:
            raise TooSlow(f"{what} did not come true; last: {got!r}")
        time.sleep(0.01)
