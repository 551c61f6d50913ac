"""The real program, run with a configuration of the test."""
import ctypes
import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time

from lib import patience
from lib.wire import Client, TooSlow, eventually

repository = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
libc = ctypes.CDLL(None)

# What no run may print, whatever else happened in it.
broken = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehaviorSanitizer|runtime error:"
                    r"|[Aa]ssert(ion)?\b.*fail|terminate called|pure virtual", re.M)

top_level = {"listen", "admin", "threads", "limits", "trusted_proxies", "access_log", "upstreams", "devices", "routes",
             "rate_limits", "resolver"}


def program():
    return os.environ.get("PENSTOCK", os.path.join(repository, "build", "release", "penstock"))


def one_upstream(servers, settings):
    """A configuration with one upstream, `main`, before these servers (backends, addresses or whole entries)."""
    config = {key: settings.pop(key) for key in list(settings) if key in top_level}
    entries = []
    for server in servers:
        if not isinstance(server, (dict, str)):
            server = server.address
        entries.append({"address": server} if isinstance(server, str) else server)
    config.setdefault("upstreams", {})["main"] = {"servers": entries, **settings}
    return config


def fill_in(config):
    """What a test does not care about: ephemeral ports, few loops, a short drain."""
    config.setdefault("listen", [{"address": "127.0.0.1:0"}])
    config.setdefault("admin", {"address": "127.0.0.1:0"})
    config.setdefault("threads", int(os.environ.get("PENSTOCK_TEST_THREADS", "2")))
    limits = config.setdefault("limits", {})
    limits.setdefault("drain", "5s")
    return config


class Metrics(dict):
    """{(name, ((label, value), ...)): number}"""

    line = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \d+)?$')
    label = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')

    @staticmethod
    def parse(text):
        metrics = Metrics()
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            match = Metrics.line.match(line)
            assert match, f"not a line of the exposition format: {line!r}"
            name, labels, value = match.groups()
            metrics[name, tuple(sorted(Metrics.label.findall(labels or "")))] = float(value)
        return metrics

    def value(self, name, **labels):
        """The sum of the series with this name and (at least) these labels; 0 when there is none."""
        wanted = set(labels.items())
        return sum(number for (known, has), number in self.items() if known == name and wanted <= set(has))

    def names(self):
        return {name for name, _ in self}


class Penstock:
    """Runs `penstock run` until stop(). Attributes: address (of the first listener), addresses, admin, process."""

    def __init__(self, config, arguments=None, environment=None, check_exit=True):
        self.check_exit = check_exit
        self.stopped = False
        self.clients = []
        self.lines = []                   # of stderr
        self.logged = []                  # of stdout: access-log lines
        self.changed = threading.Condition()
        self.ended = 0                    # streams at their end
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-test-")
        self.config_path = os.path.join(self.folder.name, "penstock.yaml")
        expected = 1
        if config is not None:
            if not isinstance(config, str):
                config = fill_in(config)
                expected = len(config["listen"])
                config = json.dumps(config, indent=2)     # JSON is YAML
            with open(self.config_path, "w", encoding="utf-8") as file:
                file.write(config)
            arguments = arguments or ["run", self.config_path]
        self.process = subprocess.Popen(
            [program(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})}, cwd=self.folder.name,
            # A test run that is killed leaves nothing behind.
            preexec_fn=lambda: libc.prctl(1, signal.SIGKILL))
        self.readers = [threading.Thread(target=self._read, args=(self.process.stderr, self.lines), daemon=True),
                        threading.Thread(target=self._read, args=(self.process.stdout, self.logged), daemon=True)]
        for reader in self.readers:
            reader.start()
        try:
            self.admin = self.wait_log(r"admin on (\S+)").group(1)
            self.addresses = []
            for number in range(expected):
                self.addresses.append(self.wait_log(r"listening on (\S+)", skip=number).group(1))
        except BaseException:
            self.kill()
            raise
        self.address = self.addresses[0]

    def _read(self, stream, into):
        for line in stream:
            with self.changed:
                into.append(line.decode("utf-8", "replace").rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.ended += 1
            self.changed.notify_all()

    # ---- clients

    def connect(self, address=None):
        """A new client connection; closed by stop()."""
        client = Client(address or self.address)
        self.clients.append(client)
        return client

    def get(self, target="/", fields="", to="GET", version="1.1"):
        """One request on a connection of its own."""
        client = self.connect()
        client.send(f"{to} {target} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n{fields}\r\n")
        answer = client.read_response(to)
        client.close()
        return answer

    # ---- what it says about itself

    def ask_admin(self, path, method="GET", body=None):
        """(status, body) of a request to the admin address."""
        host, _, port = self.admin.rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=patience)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def status(self):
        code, body = self.ask_admin("/status")
        assert code == 200, (code, body)
        return json.loads(body)

    def upstream(self, name="main"):
        return self.status()["upstreams"][name]

    def metrics(self):
        code, body = self.ask_admin("/metrics")
        assert code == 200, (code, body)
        return Metrics.parse(body.decode())

    def wait_status(self, condition, what="a status"):
        """Asks /status until condition(status) holds; returns that status."""
        return eventually(lambda: (lambda status: condition(status) and status)(self.status()), what)

    def wait_queue(self, depth, upstream="main"):
        """Waits until exactly so many requests are in the queue."""
        self.wait_status(lambda status: status["upstreams"][upstream]["queue"]["depth"] == depth,
                         f"queue depth {depth} of {upstream}")

    def wait_in_flight(self, count, upstream="main"):
        """Waits until the backends of an upstream have exactly so many requests."""
        self.wait_status(lambda status: sum(backend["in_flight"]
                                            for backend in status["upstreams"][upstream]["backends"]) == count,
                         f"{count} in flight on {upstream}")

    def wait_metric(self, condition, what="a metric"):
        """Asks /metrics until condition(metrics) holds; returns those metrics."""
        return eventually(lambda: (lambda metrics: condition(metrics) and metrics)(self.metrics()), what)

    def wait_log(self, pattern, skip=0):
        """Waits for a line of stderr that matches, after `skip` others that do; returns the match."""
        return self._wait_line(self.lines, pattern, skip)

    def _wait_line(self, lines, pattern, skip):
        until = time.monotonic() + patience
        looked = found = 0
        with self.changed:
            while True:
                for line in lines[looked:]:
                    looked += 1
                    match = re.search(pattern, line)
                    if match:
                        found += 1
                        if found > skip:
                            return match
                if self.ended == 2:
                    raise AssertionError(f"penstock ended before it logged {pattern!r}:\n" + "\n".join(self.lines))
                if not self.changed.wait(until - time.monotonic()):
                    raise TooSlow(f"no log line {pattern!r}; the log:\n" + "\n".join(self.lines))

    def access_log(self):
        """The lines of the JSON access log so far (access_log to stdout, which is the default)."""
        with self.changed:
            return [json.loads(line) for line in self.logged if line.startswith("{")]

    def wait_access(self, condition, what="an access-log line"):
        """Waits for the first line of the access log for which condition(line) holds."""
        return eventually(lambda: next((line for line in self.access_log() if condition(line)), None), what)

    # ---- the end

    def signal(self, number):
        self.process.send_signal(number)

    def drain(self):
        """Asks it to end, and waits until every loop has heard of it. Something must be left to be finished."""
        self.signal(signal.SIGTERM)
        return self.wait_status(lambda status: status["state"] == "draining")

    def wait_exit(self):
        """The exit status; all output has been read after it."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise TooSlow("penstock does not exit") from None
        for reader in self.readers:
            reader.join(patience)
        return code

    def log(self):
        with self.changed:
            return "\n".join(self.lines)

    def stop(self):
        """Hangs up the clients, asks it to end, and judges how it did. A second call does nothing."""
        if self.stopped:
            return
        self.stopped = True
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.wait_exit()
        finally:
            self._clean_up()
        found = broken.search(self.log())
        assert not found, f"penstock reported {found.group(0)!r}:\n{self.log()}"
        if self.check_exit:
            assert code == 0, f"penstock exited with {code}:\n{self.log()}"

    def kill(self):
        """SIGKILL; the end is not judged then."""
        self.stopped = True
        self.process.kill()
        self.wait_exit()
        self._clean_up()

    def _clean_up(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()
        self.folder.cleanup()
