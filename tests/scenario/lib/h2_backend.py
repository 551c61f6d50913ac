"""A backend that speaks HTTP/2 and is in the hands of the test: which connection answers what, and when."""
import h2.connection
import h2.errors
import h2.events

from lib import patience
from lib.backends import address_of, listening_socket
from lib.h2 import H2Wire
from lib.wire import Cut, TooSlow


class Connection(H2Wire):
    """One that penstock made; the test says what happens on its streams."""

    def __init__(self, sock, settings):
        self.requests = []      # numbers of streams whose head came and that nobody has taken yet
        self.heads = {}
        self.bodies = {}
        self.done = set()       # the request is complete
        self.resets = {}
        self.pings = 0
        super().__init__(sock, False, settings)

    def take(self, events):
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                self.requests.append(event.stream_id)
                self.heads[event.stream_id] = dict(event.headers)
                self.bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.done.add(event.stream_id)
            elif isinstance(event, h2.events.PingReceived):
                self.pings += 1
            elif isinstance(event, h2.events.StreamReset):
                self.resets[event.stream_id] = int(event.error_code)
        self.flush()

    def pump(self, until, what):
        while not until():
            if self.ended:
                raise Cut(f"the connection ended before {what}")
            if not self.has_input(patience):
                raise TooSlow(f"{what} did not come")
            self.take(self.receive())
        return self

    def next_request(self):
        """The number of the next stream, whose request is complete."""
        self.pump(lambda: self.requests and self.requests[0] in self.done, "a request")
        return self.requests.pop(0)

    def respond(self, number, body=b"", fields=()):
        self.h2.send_headers(number, [(":status", "200"), *fields])
        self.h2.send_data(number, body, end_stream=True)
        return self.flush()

    def reset(self, number, code):
        self.h2.reset_stream(number, code)
        return self.flush()

    def go_away(self, last):
        self.h2.close_connection(last_stream_id=last)
        self.flush()
        # h2 would say nothing more; but what was begun is to be finished.
        self.h2.state_machine.state = h2.connection.ConnectionState.SERVER_OPEN
        return self

    def expect_end(self):
        return self.pump(lambda: self.ended, "its end") if not self.ended else self


class H2Backend:
    def __init__(self, path=None, settings=None, context=None):
        self.listener = listening_socket(path)
        self.listener.settimeout(patience)
        self.address = address_of(self.listener)
        self.settings = settings
        self.context = context      # of TLS
        self.connections = []

    def accept(self):
        sock, _ = self.listener.accept()
        if self.context:
            sock = self.context.wrap_socket(sock, server_side=True)
        self.connections.append(Connection(sock, self.settings))
        return self.connections[-1]

    def none_waiting(self):
        """Only meaningful after an event that came later."""
        self.listener.settimeout(0)
        try:
            self.listener.accept()[0].close()
            return False
        except BlockingIOError:
            return True
        finally:
            self.listener.settimeout(patience)

    def close(self):
        self.listener.close()
        for connection in self.connections:
            connection.close()
