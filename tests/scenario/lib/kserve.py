"""penstock-reference-worker as a backend, and what its clients send and get."""
import ctypes
import http.client
import json
import os
import random
import re
import signal
import subprocess
import threading

from lib import patience
from lib.proxy import Metrics, program
from lib.wire import dial

libc = ctypes.CDLL(None)


def worker_program():
    return os.path.join(os.path.dirname(os.path.abspath(program())), "penstock-reference-worker")


def image(seed):
    """768 numbers between 0 and 1, exact in a float."""
    source = random.Random(seed)
    return [source.randrange(256) / 256 for _ in range(768)]


def infer_body(*images, identity=None, name="image", nested=False):
    """The body of an inference for a batch of images."""
    data = [list(one) for one in images] if nested else [value for one in images for value in one]
    body = {"inputs": [{"name": name, "datatype": "FP32", "shape": [len(images), 3, 16, 16], "data": data}]}
    if identity is not None:
        body["id"] = identity
    return json.dumps(body).encode()


class ReferenceWorker:
    """A running worker. Settings become its flags: threads=4, delay="20ms", serial=True, faults=True."""

    def __init__(self, path=None, **settings):
        arguments = ["--listen", f"unix:{path}" if path else "127.0.0.1:0"]
        for name, value in settings.items():
            arguments += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
        self.path = path
        self.process = subprocess.Popen([worker_program(), *arguments], stdin=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True,
                                        preexec_fn=lambda: libc.prctl(1, signal.SIGKILL))
        self.said = self.process.stderr.readline()
        found = re.search(r"listening on (\S+),", self.said)
        assert found, self.said
        self.address = found.group(1)
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self.reader.start()

    def ask(self, path, method="GET", body=None):
        """(status, body) of a request past penstock."""
        connection = http.client.HTTPConnection("worker", timeout=patience)
        connection.sock = dial(self.address)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def counts(self):
        """What it has seen: its own /metrics. (Asking costs it a connection, which it counts.)"""
        status, body = self.ask("/metrics")
        assert status == 200
        return Metrics.parse(body.decode())

    def order(self, **faults):
        """fail_next=5, status=503, retry_after="3", ready=False, delay_ms=100, hold=True (nothing is begun until
        hold=False)"""
        status, body = self.ask("/faults", "POST", json.dumps(faults))
        assert status == 200, body

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(patience)
        self.reader.join(patience)
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(patience)
        self.process.stderr.close()
