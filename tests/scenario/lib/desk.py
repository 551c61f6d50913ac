"""Workers whose every step the test makes: each request that reaches workers/held.py waits at the test's desk.

    def test_a_request_reaches_a_spawned_worker(penstock, desk):
        proxy = penstock({"upstreams": {"main": {"workers": desk.workers(count=2)}}})
        client = proxy.connect().get("/hello")
        job = desk.next_job()                       # {"pid", "method", "target", "fields", "body_size"}
        job.respond("hi")
        assert client.read_response().body == b"hi"
"""
import json
import os
import queue
import socket
import sys
import tempfile
import threading

import pytest

from lib import patience
from lib.backends import stop_accepting
from lib.wire import TooSlow

folder_of_workers = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "workers")
sys.path.insert(0, folder_of_workers)

from counts import read_counts  # noqa: E402

python = "/usr/bin/python3"


class Job:
    """One event of a worker, which waits for an order about it."""

    def __init__(self, facts, line):
        self.facts = facts
        self.line = line

    def __getitem__(self, key):
        return self.facts[key]

    def order(self, **order):
        try:
            self.line.sendall(json.dumps(order).encode() + b"\n")
        except OSError:       # the worker was killed meanwhile
            pass
        self.line.close()

    def respond(self, body="", **more):
        """status="200 OK", fields="Name: value\\r\\n", then_close=True"""
        self.order(body=body, **more)

    def raw(self, text, **more):
        self.order(raw=text, **more)

    def close_connection(self):
        """The worker lives, the connection ends without an answer."""
        self.order(close=True)

    def die(self, code=1):
        self.order(exit=code)

    def go(self, **more):
        """Of a start: go on. say=[lines] prints them first, exit=N ends it."""
        self.order(**more)


class Desk:
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-desk-")
        self.path = os.path.join(self.folder.name, "desk")
        self.counts_folder = os.path.join(self.folder.name, "counts")
        os.mkdir(self.counts_folder)
        self.jobs = queue.Queue()
        self.starts = queue.Queue()
        self.answer_starts = {}              # the order every start gets; None: they come to next_start()
        self.answer_jobs = None              # likewise, for load: the order every request gets
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(4096)
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self):
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._receive, args=(line,), daemon=True).start()

    def _receive(self, line):
        said = line.makefile("rb").readline()
        if not said:
            line.close()
            return
        job = Job(json.loads(said), line)
        start = job["event"] == "start"
        order = self.answer_starts if start else self.answer_jobs
        if start:
            self.starts.put(job)
        elif order is None:
            self.jobs.put(job)
        if order is not None:
            job.order(**order)

    def next_job(self):
        """The next request that reached a worker."""
        try:
            return self.jobs.get(timeout=patience)
        except queue.Empty:
            raise TooSlow("no request reached a worker") from None

    def next_start(self):
        """The next worker that was started, whether it got its order already or not."""
        try:
            return self.starts.get(timeout=patience)
        except queue.Empty:
            raise TooSlow("no worker was started") from None

    def counts(self):
        """{pid: {"now", "most", "begun", "done"}} of every worker process that had a request."""
        return read_counts(self.counts_folder)

    def most_at_once(self):
        return max((seen["most"] for seen in self.counts().values()), default=0)

    def environment(self):
        return {"DESK": self.path, "COUNTS": self.counts_folder}

    def workers(self, command=None, **settings):
        """The `workers:` part of an upstream with held.py in it."""
        settings.setdefault("ready", {"path": "/health", "interval": "10ms"})
        settings["environment"] = {**self.environment(), **settings.get("environment", {})}
        return {"command": command or self.command(), **settings}

    def command(self, address="unix:${SOCKET}"):
        return [python, os.path.join(folder_of_workers, "held.py"), address]

    def stub(self, program, **settings):
        """The `workers:` part with another program of workers/, which counts in the same folder."""
        settings.setdefault("ready", {"path": "/health", "interval": "10ms"})
        settings["environment"] = {"COUNTS": self.counts_folder, **settings.get("environment", {})}
        return {"command": program, "directory": folder_of_workers, **settings}

    def close(self):
        stop_accepting(self.listener, self.thread)
        for waiting in (self.jobs, self.starts):
            while not waiting.empty():
                waiting.get().line.close()
        self.folder.cleanup()


@pytest.fixture
def desk(lab):
    made = Desk()
    lab.backends.append(made)      # closed after penstock has ended
    return made
