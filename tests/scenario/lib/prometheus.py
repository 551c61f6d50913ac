"""A real Prometheus server (Debian's) with the configuration that we ship (conf/prometheus/), pointed at a penstock of
the test and scraping once a second."""
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.parse

from lib import patience
from lib.proxy import libc, repository
from lib.wire import TooSlow, eventually


class Prometheus:
    def __init__(self, target):
        self.folder = tempfile.mkdtemp(prefix="penstock-prometheus-")
        shutil.copytree(f"{repository}/conf/prometheus", self.folder, dirs_exist_ok=True)
        config = os.path.join(self.folder, "prometheus.yaml")
        with open(config, encoding="utf-8") as file:
            text = file.read()
        assert "127.0.0.1:9901" in text and "_interval: 5s" in text
        with open(config, "w", encoding="utf-8") as file:
            file.write(text.replace("127.0.0.1:9901", target).replace("_interval: 5s", "_interval: 1s"))
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.folder}/data",
             "--web.listen-address=127.0.0.1:0", "--log.level=info"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: libc.prctl(1, signal.SIGKILL))
        self.lines = []
        self.address = None
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(r'"Listening on" address=(127\.0\.0\.1:\d+)', line)
            if found:
                self.address = found.group(1)
                break
        assert self.address, "".join(self.lines)
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self.reader.start()
        eventually(lambda: self._get("/-/ready")[0] == 200, "Prometheus is ready")

    def _get(self, path):
        connection = http.client.HTTPConnection(self.address, timeout=patience)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def query(self, expression, time=None):
        """[{"metric": {label: value}, "value": [time, text] or "values": [...]}]"""
        asked = {"query": expression} | ({"time": repr(time)} if time else {})
        status, body = self._get("/api/v1/query?" + urllib.parse.urlencode(asked))
        answer = json.loads(body)
        assert status == 200 and answer["status"] == "success", answer
        return answer["data"]["result"]

    def values(self, expression, time=None, by="model"):
        """{label: value} of an instant query."""
        return {one["metric"].get(by): float(one["value"][1]) for one in self.query(expression, time)}

    def wait(self, expression, condition, what=None):
        """Asks until condition(values) holds; returns those values."""
        try:
            return eventually(lambda: (lambda values: condition(values) and values)(self.values(expression)),
                              what or expression)
        except TooSlow as late:
            raise TooSlow(f"{late}; it has {self.values(expression)}") from None

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self.reader.join(patience)
        self.process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)
