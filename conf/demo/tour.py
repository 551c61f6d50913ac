"""The tour of conf/demo/run: starts penstock, sends it real traffic, and shows what happened. Every number that it
prints was measured in this run; where something is not as promised it says so, and exits with 1.

    tour.py PENSTOCK [--keep]
"""
import collections
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

here = os.path.dirname(os.path.abspath(__file__))
page = json.dumps({"image": "page 1"})
broken_promises = []


def title(text):
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def say(text=""):
    print("   " + text.replace("\n", "\n   "), flush=True)


def promise(kept, text):
    say(f"{'[ok]' if kept else '[BROKEN]'} {text}")
    if not kept:
        broken_promises.append(text)


def free(address):
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
            return True
        except OSError:
            return False


def configuration():
    """The file that we ship; on other ports where somebody has taken its own."""
    path = os.path.join(here, "penstock.yaml")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    changed = text
    for address in ("127.0.0.1:8000", "127.0.0.1:9901"):
        if not free(address):
            changed = changed.replace(address, "127.0.0.1:0")
    if changed == text:
        return path
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
        file.write(changed)
    return file.name


class Demo:
    def __init__(self, program):
        config = configuration()
        self.command = [program, "run", config]
        self.log = tempfile.NamedTemporaryFile("w+", prefix="penstock-demo-", suffix=".log", delete=False)
        # From the root of the repository: `directory` in the configuration is meant from there.
        self.process = subprocess.Popen(self.command, cwd=os.path.join(here, "..", ".."), stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)
        try:
            self.address = self.logged(r"listening on (\S+)")
            self.admin = self.logged(r"admin on (\S+)")
            self.wait(lambda: all(worker["state"] == "ready" for worker in self.upstream()["workers"]), "ready workers")
        except BaseException:
            self.process.kill()
            raise

    def wait(self, condition, what):
        for _ in range(6000):
            if self.process.poll() is not None:
                sys.exit(f"penstock has ended; its log is {self.log.name}:\n" + open(self.log.name).read()[-3000:])
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        sys.exit(f"no {what} after two minutes; the log is {self.log.name}")

    def logged(self, pattern):
        return self.wait(lambda: re.search(pattern, open(self.log.name, errors="replace").read()), pattern).group(1)

    def ask(self, path):
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=20) as answer:
            return answer.read().decode()

    def upstream(self):
        return json.loads(self.ask("/status"))["upstreams"]["ocr"]

    def pids(self):
        return [worker["pid"] for worker in self.upstream()["workers"]]

    def stats(self):
        """What the workers say about themselves, asked past penstock."""
        found = []
        for backend in self.upstream()["backends"]:
            said = subprocess.run(["curl", "-s", "--unix-socket", backend["address"].removeprefix("unix:"),
                                   "http://worker/stats"], capture_output=True, check=True).stdout
            found.append(json.loads(said))
        return found

    def wait_idle(self):
        self.wait(lambda: self.upstream()["abandoned"] == self.upstream()["queue"]["depth"] == 0
                  and all(backend["in_flight"] == 0 for backend in self.upstream()["backends"]), "idle workers")

    def hey(self, *options, background=False):
        command = ["hey", "-o", "csv", *options, "-m", "POST", "-T", "application/json", "-d", page,
                   f"http://{self.address}/process"]
        say("$ " + " ".join(f"'{word}'" if "{" in word else word for word in command).replace("-o csv ", ""))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return process if background else answers_of(process)


def answers_of(process):
    output, _ = process.communicate()
    rows = csv.reader(line for line in output.splitlines() if line[:1].isdigit())
    answers = collections.defaultdict(list)
    for row in rows:
        answers[int(row[6])].append(float(row[0]))
    return answers


def show(answers):
    for status, seconds in sorted(answers.items()):
        say(f"  {status}: {len(seconds):3d} answers, after {min(seconds):.3f} s to {max(seconds):.3f} s")


def processes_below(pid):
    """Every process below this one."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children = collections.defaultdict(list)
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        children[parent].append(child)
    found, look = [], [pid]
    while look:
        below = children[look.pop()]
        found += below
        look += below
    return found


def one_request(demo):
    title("One request")
    command = ["curl", "-si", "--json", page, f"http://{demo.address}/process"]
    say(f"$ curl -si --json '{page}' http://{demo.address}/process")
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    say(answer.replace("\r", "").strip())
    promise(answer.startswith("HTTP/1.1 200"), "a worker that penstock spawned has read the page")


def what_they_can_do(demo):
    title("What two workers can do: a page takes each of them 0.6 s")
    answers = demo.hey("-n", "12", "-c", "2")
    show(answers)
    promise(set(answers) == {200}, "everyone is served")


def overload(demo):
    title("Thirty impatient users at once, for work that two workers can do")
    answers = demo.hey("-n", "90", "-c", "30")
    show(answers)
    refused, served = answers.get(429, []), answers.get(200, [])
    promise(set(answers) == {200, 429}, "each is served, or told at once that the queue is full (429, Retry-After)")
    promise(bool(refused and served) and sorted(refused)[len(refused) // 2] < min(served),
            "a refusal does not wait: it costs nobody time, and no GPU time at all")
    promise(max(stats["most_inside"] for stats in demo.stats()) == 1,
            "by the workers' own count there was never more than one request in any of them")


def hang_ups(demo):
    title("Users who hang up: their work goes on, uvicorn does not notice")
    show(demo.hey("-n", "8", "-c", "8", "-t", "1"))
    say("The others left after a second. Now somebody else comes:")
    answers = demo.hey("-n", "1", "-c", "1")
    show(answers)
    promise(set(answers) == {200}, "who comes next is served: those who left have left the queue too,")
    promise(max(stats["most_inside"] for stats in demo.stats()) == 1,
            "and the slot was given away only when the GPU had really finished")
    demo.wait_idle()
    wasted = re.findall(r"^penstock_wasted_backend_seconds_total\S* (\S+)", demo.ask("/metrics"), re.M)
    say(f"GPU seconds that went into answers that nobody waited for: {sum(map(float, wasted)):.2f}")


def crash(demo):
    title("kill -9 of a worker under load")
    load = demo.hey("-n", "24", "-c", "6", background=True)
    demo.wait(lambda: demo.upstream()["queue"]["depth"] > 0, "requests in the queue")
    victim = demo.pids()[0]
    say(f"$ kill -9 {victim}")
    os.kill(victim, signal.SIGKILL)
    answers = answers_of(load)
    show(answers)
    promise(sum(map(len, answers.values())) == 24, "every request got an answer")
    promise(set(answers) <= {200, 502} and len(answers.get(502, [])) <= 1,
            "only the one that ran on it could fail, with a 502 that says why")
    demo.wait(lambda: all(worker["state"] == "ready" for worker in demo.upstream()["workers"]), "ready workers")
    promise(victim not in demo.pids(), f"it was started again: {demo.pids()}")


def where_to_look(demo):
    title("Where to look")
    say(f"$ curl -s http://{demo.admin}/metrics | grep ...")
    wanted = r"penstock_(requests_total|rejections_total|in_flight|queue_depth|worker_starts_total|worker_exits_total)\b"
    say("\n".join(line for line in demo.ask("/metrics").splitlines() if re.match(wanted, line)))
    say()
    say(f"http://{demo.admin}/status    all of it, as JSON: queues, backends, workers")
    say(f"http://{demo.admin}/metrics   for Prometheus;  /healthz and /readyz for whoever starts you")
    say(f"{demo.log.name}    what penstock and the workers said in this run")
    say("conf/demo/penstock.yaml, conf/demo/ocr.py    what it was; conf/ has more examples")


def keep(demo):
    title(f"Left running at http://{demo.address}/process; Ctrl-C ends it")
    say("Its command was: " + " ".join(demo.command))
    try:
        demo.process.wait()
    except KeyboardInterrupt:
        pass      # the terminal sent it to penstock as well


def stop(demo):
    title("TERM: finish what was accepted, stop the workers, exit")
    below = processes_below(demo.process.pid) if demo.process.poll() is None else []
    demo.process.terminate()
    code = demo.process.wait()
    left = [pid for pid in below if os.path.exists(f"/proc/{pid}")]
    promise(code == 0 and not left, f"exit status {code}, {len(left)} of {len(below)} processes left")


def main():
    began = time.monotonic()
    title("Starting penstock and two workers")
    demo = Demo(os.path.abspath(sys.argv[1]))
    say("$ " + " ".join(demo.command))
    say(f"two uvicorn processes, ready after {time.monotonic() - began:.1f} s: {demo.pids()}")
    try:
        for step in (one_request, what_they_can_do, overload, hang_ups, crash, where_to_look):
            step(demo)
        if "--keep" in sys.argv:
            keep(demo)
        else:
            stop(demo)
    finally:
        if demo.process.poll() is None:
            demo.process.terminate()
            demo.process.wait()
    if broken_promises:
        title("Not as promised: " + "; ".join(broken_promises))
        sys.exit(1)
    print("\nAll as promised." + ("" if "--keep" in sys.argv else "  conf/demo/run --keep leaves it running."))


if __name__ == "__main__":
    main()
