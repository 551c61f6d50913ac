"""A quick service on Python's http.server, with a thread a connection, whose requests cost CPU time: $STUB_CPU seconds
each, of which it may have a share only when something (share.py) holds it to one. What it has to say about clients that
hung up (BrokenPipeError, ConnectionResetError) it says on stderr, as http.server does.

    burner.py PORT            (0: any; it says which)
"""
import http.server
import os
import sys
import time

from counts import Counts

counts = Counts()
cpu = float(os.environ.get("STUB_CPU", "0.005"))


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        with counts:
            until = time.thread_time() + cpu
            while time.thread_time() < until:
                pass
            body = b"done\n"
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


server = Server(("127.0.0.1", int(sys.argv[1])), Service)
print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
