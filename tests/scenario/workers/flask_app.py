"""A Flask service: `gunicorn -w 1 -b unix:SOCKET flask_app:app` (sync: one connection at a time), or flask's own
server. Takes STUB_SECONDS; $COUNTS: see counts.py."""
import os
import time

import flask

from counts import Counts

app = flask.Flask(__name__)
counts = Counts()


@app.route("/health")
def health():
    return "ready\n"


@app.route("/", methods=["GET", "POST"])
def work():
    with counts:
        time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
        size = len(flask.request.get_data())
    return f"{os.getpid()} read {size} bytes\n"
