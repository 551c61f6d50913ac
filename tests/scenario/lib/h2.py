"""HTTP/2 for tests, spoken by python3-h2 (hyper-h2): an independent implementation on both sides.

H2Client is a connection to penstock; its streams are started, fed and read one by one or all at once:

    client = H2Client(dial(proxy.address))
    answer = client.request("GET", "/hello")            # waits for the whole answer
    upload = client.start("POST", "/up", end=False)     # a stream that the test feeds itself
    upload.send(b"...").finish()
    upload.wait_end()

It is one thread: whatever waits pumps the connection for all streams. H2Wire, the part that both sides share, is
also what lib.pairs serves with.
"""
import ssl
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from lib import patience
from lib.wire import Cut, TooSlow, wait_ready


# RFC 9113 6.8: streams up to the last one named go on. h2 takes a GOAWAY for the end.
for side in (h2.connection.ConnectionState.CLIENT_OPEN, h2.connection.ConnectionState.SERVER_OPEN):
    h2.connection.H2ConnectionStateMachine._transitions[side, h2.connection.ConnectionInputs.RECV_GOAWAY] = (None, side)


class H2Wire:
    """A connection, its h2 state, and the bytes between them."""

    def __init__(self, sock, client_side, settings=None, validate=True):
        self.sock = sock
        sock.settimeout(patience)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=client_side, header_encoding="utf-8", validate_outbound_headers=validate,
            normalize_outbound_headers=validate, validate_inbound_headers=True))
        # Not update(): that would take effect here, and never be said.
        known = dict(self.h2.local_settings)
        self.h2.local_settings = h2.settings.Settings(client=client_side, initial_values={**known, **(settings or {})})
        self.ended = None           # None | "eof" | "reset"
        self.goaway = None          # (last stream id, error code)
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        data = self.h2.data_to_send()
        if data and not self.ended:
            try:
                self.sock.sendall(data)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
                self.ended = self.ended or "reset"
        return self

    def has_input(self, before, also=()):
        """Whether something can be read in this time (or from `also`, which are returned)."""
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return [self.sock]
        return wait_ready([self.sock, *also], timeout=before)

    def receive(self):
        """The events of the next bytes."""
        try:
            data = self.sock.recv(1 << 16)
        except (ConnectionResetError, ssl.SSLError):
            self.ended = "reset"
            return []
        if not data:
            self.ended = "eof"
            return []
        try:
            events = self.h2.receive_data(data)
        finally:
            self.flush()
        for event in events:
            if isinstance(event, h2.events.ConnectionTerminated):
                self.goaway = (event.last_stream_id, int(event.error_code))
        return events

    def send_some(self, number, out):
        """As much of `out` (a bytearray) on this stream as windows allow; true when it moved."""
        moved = False
        while out:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(out))
            if room <= 0:
                break
            self.h2.send_data(number, bytes(out[:room]))
            del out[:room]
            moved = True
        return moved

    def close(self):
        try:
            self.sock.close()
        except OSError:
            pass


class H2Stream:
    """One request of an H2Client and its answer."""

    def __init__(self, client, number):
        self.client = client
        self.number = number
        self.out = bytearray()
        self.out_trailers = None
        self.out_end = False        # END_STREAM is to follow `out`
        self.out_done = False       # it went out
        self.status = None
        self.fields = []
        self.interims = []          # (status, fields)
        self.body = bytearray()
        self.trailers = []
        self.complete = False
        self.reset = None           # the error code that the other end reset it with
        self.reads = True           # gives credit for what comes
        self.unacknowledged = 0

    def send(self, data):
        self.out += data
        self.client.push()
        return self

    def finish(self, trailers=None):
        self.out_end = True
        self.out_trailers = trailers
        self.client.push()
        return self

    def cancel(self, code=h2.errors.ErrorCodes.CANCEL):
        self.client.h2.reset_stream(self.number, code)
        self.client.flush()
        return self

    def stop_reading(self):
        self.reads = False
        return self

    def read_on(self):
        self.reads = True
        if self.unacknowledged and not self.over():
            self.client.h2.acknowledge_received_data(self.unacknowledged, self.number)
        self.unacknowledged = 0
        self.client.flush()
        return self

    def over(self):
        return self.complete or self.reset is not None

    def __getitem__(self, name):
        values = [value for known, value in self.fields if known == name]
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def trailer(self, name):
        return dict(self.trailers).get(name)

    @property
    def cut(self):
        return not self.complete

    # ---- waiting

    def wait_head(self):
        self.client.pump(lambda: self.status is not None or self.over(), "an answer's head")
        return self

    def wait_body(self, size):
        self.client.pump(lambda: len(self.body) >= size or self.over(), f"{size} bytes")
        return self

    def wait_sent(self):
        self.client.pump(lambda: self.out_done or self.over(), "all being sent")
        return self

    def wait_end(self):
        """Until it is complete or reset."""
        self.client.pump(self.over, "an answer's end")
        return self


class H2Client(H2Wire):
    def __init__(self, sock, settings=None, validate=True, window=1 << 20, scheme=None):
        settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
                    h2.settings.SettingCodes.ENABLE_PUSH: 0, **(settings or {})}
        self.streams = {}
        self.scheme = scheme or ("https" if isinstance(sock, ssl.SSLSocket) else "http")
        super().__init__(sock, True, settings, validate)
        self.h2.increment_flow_control_window((1 << 30) - 65535)    # of the connection: streams have their own
        self.flush()

    # ---- requests

    def start(self, method, path, fields=(), body=b"", end=True, authority="a", trailers=None, pseudo=()):
        """A new stream. `pseudo` adds or replaces pseudo-header fields; None leaves one out."""
        number = self.h2.get_next_available_stream_id()
        head = {":method": method, ":scheme": self.scheme, ":authority": authority, ":path": path}
        head.update(dict(pseudo))
        lines = [(name, value) for name, value in head.items() if value is not None] + list(fields)
        stream = self.streams[number] = H2Stream(self, number)
        stream.out += body
        stream.out_end = end
        stream.out_trailers = trailers
        stream.out_done = end and not body and not trailers
        self.h2.send_headers(number, lines, end_stream=stream.out_done)
        self.push()
        return stream

    def request(self, method, path, fields=(), body=b"", trailers=None, **more):
        return self.start(method, path, fields, body, trailers=trailers, **more).wait_end()

    # ---- moving

    def push(self):
        """Sends what windows allow, a frame a stream in turn."""
        moved = True
        while moved:
            moved = False
            for stream in list(self.streams.values()):
                if stream.out_done or stream.reset is not None:
                    continue
                room = min(self.h2.local_flow_control_window(stream.number), self.h2.max_outbound_frame_size,
                           len(stream.out))
                if room > 0:
                    self.h2.send_data(stream.number, bytes(stream.out[:room]))
                    del stream.out[:room]
                    moved = True
                if not stream.out and stream.out_end:
                    if stream.out_trailers:
                        self.h2.send_headers(stream.number, stream.out_trailers, end_stream=True)
                    else:
                        self.h2.end_stream(stream.number)
                    stream.out_done = moved = True
            self.flush()

    def pump(self, until, what="an event"):
        """Reads and writes until the condition holds."""
        before = time.monotonic() + patience
        while not until():
            if self.ended:
                raise Cut(f"the connection ended ({self.ended}, GOAWAY {self.goaway}) before {what}")
            if not self.has_input(max(0, before - time.monotonic())):
                raise TooSlow(f"{what} did not come")
            self.take(self.receive())
            self.push()
        return self

    def take(self, events):
        for event in events:
            stream = self.streams.get(getattr(event, "stream_id", None))
            if not stream:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                fields = list(event.headers)
                stream.status = int(dict(fields)[":status"])
                stream.fields = [line for line in fields if line[0] != ":status"]
            elif isinstance(event, h2.events.InformationalResponseReceived):
                stream.interims.append((int(dict(event.headers)[":status"]), list(event.headers)))
            elif isinstance(event, h2.events.DataReceived):
                stream.body += event.data
                size = event.flow_controlled_length
                if stream.reads and size:
                    self.h2.acknowledge_received_data(size, stream.number)
                else:
                    stream.unacknowledged += size
            elif isinstance(event, h2.events.TrailersReceived):
                stream.trailers = list(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                stream.complete = True
            elif isinstance(event, h2.events.StreamReset) and event.remote_reset is not False:
                stream.reset = int(event.error_code)
        self.flush()

    def ping(self):
        """A round trip: all that penstock had sent before has been taken when it returns."""
        self.h2.ping(b"12345678")
        self.flush()
        answered = []
        until = time.monotonic() + patience
        while not answered:
            if self.ended or not self.has_input(max(0, until - time.monotonic())):
                raise Cut("no answer to a PING")
            events = self.receive()
            answered = [e for e in events if isinstance(e, h2.events.PingAckReceived)]
            self.take(events)
        return self

    def expect_end(self):
        self.pump_to_end()
        assert self.ended == "eof", self.ended
        return self

    def pump_to_end(self):
        before = time.monotonic() + patience
        while not self.ended:
            if not self.has_input(max(0, before - time.monotonic())):
                raise TooSlow("the connection did not end")
            self.take(self.receive())
        return self
