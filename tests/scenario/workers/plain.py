"""Python's http.server, as people use it for a quick service: HTTP/1.0 or 1.1 ($STUB_PROTOCOL), and one connection at
a time. A connection that stays open and silent blocks it for everyone: that is the point.

    plain.py PORT
"""
import http.server
import os
import sys
import time

from counts import Counts

counts = Counts()


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = os.environ.get("STUB_PROTOCOL", "HTTP/1.1")

    def do_GET(self):
        with counts:
            if self.path != "/health":
                time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
            body = f"{os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
