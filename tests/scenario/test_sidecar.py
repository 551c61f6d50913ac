"""Workers: how they are started, watched, heard, replaced and ended."""
import os
import re
import signal

import pytest

from lib.checks import assert_refused
from lib.desk import folder_of_workers, python
from lib.processes import alive, open_descriptors, stat, wait_gone
from lib.wire import eventually


@pytest.fixture
def sidecar(penstock, desk):
    """sidecar(workers={...}, ...): a proxy before workers of the desk; `desk` as they are."""
    def start(workers=None, **upstream):
        return penstock({"upstreams": {"main": {
            "workers": desk.workers(**{"restart": {"backoff": "10ms", "max_backoff": "50ms"}, **(workers or {})}),
            **upstream}}, "threads": 4})
    return start


def wait_ready(proxy, count=1):
    return proxy.wait_status(lambda status: sum(worker["state"] == "ready"
                                                for worker in status["upstreams"]["main"]["workers"]) == count,
                             f"{count} workers ready")


def serve_one(proxy, desk, target="/"):
    """A request and the worker that it reached."""
    client = proxy.connect().get(target)
    job = desk.next_job()
    job.respond("done")
    assert client.read_response().body == b"done"
    return job


# ---- how they are started


def test_a_command_is_a_list_without_a_shell(sidecar, desk):
    sidecar({"command": [*desk.command(), "two words", "$HOME", "; true", "${INDEX}"]})
    assert desk.next_start()["argv"][2:] == ["two words", "$HOME", "; true", "0"]


def test_a_command_as_a_string_is_run_by_the_shell(sidecar, desk):
    proxy = sidecar({"command": " ".join(desk.command()) + ' "$((40 + 2))" $GREETING',
                     "environment": {"GREETING": "hello"}})
    assert desk.next_start()["argv"][2:] == ["42", "hello"]
    serve_one(proxy, desk)


def test_workers_can_listen_on_a_port_of_their_own(sidecar, desk):
    proxy = sidecar({"command": desk.command("${PORT}"), "count": 2})
    ports = {desk.next_start()["argv"][1] for _ in range(2)}
    assert len(ports) == 2
    wait_ready(proxy, 2)
    serve_one(proxy, desk)


def test_placeholders_stand_in_the_environment_too(sidecar, desk):
    proxy = sidecar({"command": f"{python} {folder_of_workers}/held.py $WHERE", "count": 2, "gpus": [3, 1],
                     "environment": {"WHERE": "unix:${SOCKET}", "NAME": "worker ${INDEX} on ${GPU}"}})
    starts = [desk.next_start() for _ in range(2)]
    assert sorted(start["environment"]["NAME"] for start in starts) == ["worker 0 on 3", "worker 1 on 1"]
    serve_one(proxy, desk)


def test_gpus_are_given_in_turn(sidecar, desk):
    sidecar({"count": 4, "gpus": [0, 2], "environment": {"NUMBER": "${INDEX}"}})
    starts = [desk.next_start()["environment"] for _ in range(4)]
    seen = {environment["NUMBER"]: environment["CUDA_VISIBLE_DEVICES"] for environment in starts}
    assert seen == {"0": "0", "1": "2", "2": "0", "3": "2"}


def test_a_worker_starts_in_its_directory_with_the_environment_of_penstock_and_its_own(sidecar, desk, tmp_path,
                                                                                       monkeypatch):
    monkeypatch.setenv("FROM_OUTSIDE", "kept")
    monkeypatch.setenv("OVERRIDDEN", "outside")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/systemd")
    sidecar({"directory": str(tmp_path), "environment": {"OVERRIDDEN": "inside"}})
    start = desk.next_start()
    assert start["folder"] == str(tmp_path)
    assert (start["environment"]["FROM_OUTSIDE"], start["environment"]["OVERRIDDEN"]) == ("kept", "inside")
    assert "NOTIFY_SOCKET" not in start["environment"], "systemd talks with penstock, not with its workers"


def test_no_descriptor_of_penstock_reaches_a_worker(sidecar, desk):
    proxy = sidecar({"count": 2})
    desk.next_start(), desk.next_start()
    wait_ready(proxy, 2)
    clients = [proxy.connect().get(f"/{number}") for number in range(8)]       # sockets that a late worker could get
    victim = desk.next_job()
    os.kill(victim["pid"], signal.SIGKILL)
    late = desk.next_start()
    assert set(late["descriptors"]) <= {0, 1, 2, 3}, "the fourth is the listing of the descriptors itself"
    streams = {number: what for number, what in open_descriptors(late["pid"]).items() if number < 3}
    assert streams[0] == "/dev/null" and streams[1].startswith("pipe:") and streams[2].startswith("pipe:")
    assert len(clients) == 8


def test_signals_are_as_a_new_process_expects_them(sidecar, desk):
    proxy = sidecar({"command": f"grep -E '^Sig(Ign|Blk)' /proc/self/status; exec {' '.join(desk.command())}"})
    for name in ("Ign", "Blk"):
        signals = int(proxy.wait_log(rf"Sig{name}:\s+([0-9a-f]+)").group(1), 16)
        assert signals & ~(0b11 << 31) == 0, "32 and 33 belong to the C library, whose posix_spawn ignores them"


# ---- until they are ready


def test_requests_wait_until_the_first_worker_is_ready(sidecar, desk):
    desk.answer_starts = None
    proxy = sidecar()
    start = desk.next_start()
    client = proxy.connect().get("/early")
    proxy.wait_queue(1)
    assert proxy.ask_admin("/readyz")[0] == 503
    assert proxy.upstream()["serving"] == "coming"
    start.go()

    desk.next_job().respond("worth the wait")
    assert client.read_response().body == b"worth the wait"
    eventually(lambda: proxy.ask_admin("/readyz")[0] == 200, "readyz")


def test_a_request_does_not_wait_longer_than_start_timeout_for_the_first_worker(sidecar, desk):
    desk.answer_starts = None
    proxy = sidecar(queue={"start_timeout": "100ms", "timeout": "1h"})
    desk.next_start()
    answer = proxy.get("/early")
    assert answer.status == 503 and int(answer["retry-after"]) >= 1
    assert answer["x-penstock-reason"].split()[0].strip(":;,") in ("no_backend", "queue_timeout")


def test_a_worker_that_never_becomes_ready_is_given_up_with_a_report_and_started_again(sidecar):
    proxy = sidecar({"command": "echo loading the model; echo model.onnx: no such file; exec sleep 1000 # ${SOCKET}",
                     "ready": {"path": "/health", "interval": "10ms", "timeout": "300ms"}})
    # Its own last words; one that had no time to say them is followed by others.
    report = proxy.wait_log(r"main/0 \(pid (\d+)\) not ready after 300ms: .*model.onnx: no such file")
    proxy.wait_log(r"main/0.* starts: ", skip=1)
    wait_gone([int(report.group(1))])


def test_the_report_says_what_the_worker_answered_when_it_was_asked_whether_it_is_ready(sidecar, desk):
    desk.answer_jobs = {"status": "500 Out Of Memory"}
    proxy = sidecar({"ready": {"path": "/broken", "interval": "10ms", "timeout": "2s"}})
    report = proxy.wait_log(r"main/0 .*not ready after 2s: (.*\b500\b.*)").group(1)
    assert "/broken" in report and re.search(r"\d+ tries", report), report


def test_a_worker_that_exits_while_starting_is_reported_with_its_status_and_its_own_last_lines(sidecar, desk):
    desk.answer_starts = {"say": ["Traceback (most recent call last):", "OSError: CUDA is not here"],
                          "stderr": True, "exit": 3}
    proxy = sidecar()
    proxy.wait_log(r"OSError: CUDA is not here")
    report = proxy.wait_log(r"main/0\b.*\b(status|code) 3\b").group(0)
    assert report
    assert proxy.upstream()["serving"] in ("coming", "none")


def test_a_command_that_does_not_exist_is_named_in_the_log(sidecar):
    proxy = sidecar({"command": ["/nonexistent/uvicorn", "${SOCKET}"]})
    proxy.wait_log(r"main/0.*/nonexistent/uvicorn.*No such file or directory")


def test_a_worker_that_is_given_up_leaves_requests_a_clear_answer(sidecar, desk):
    desk.answer_starts = {"exit": 1}
    proxy = sidecar({"restart": {"backoff": "1ms", "max_backoff": "2ms", "give_up_after": 3}})
    proxy.wait_status(lambda status: status["upstreams"]["main"]["serving"] == "none", "the end of all hope")
    assert_refused(proxy.get(), 503, "no_backend")
    assert proxy.metrics().value("penstock_worker_starts_total", upstream="main") == 3


def test_status_says_which_code_the_lack_of_backends_has(sidecar, desk):
    desk.answer_starts = {"exit": 1}
    proxy = sidecar({"restart": {"backoff": "1ms", "max_backoff": "2ms", "give_up_after": 1}},
                    status={"no_backend": 530})
    proxy.wait_status(lambda status: status["upstreams"]["main"]["serving"] == "none")
    assert_refused(proxy.get(), 530, "no_backend")


def test_a_worker_may_be_taken_as_ready_when_it_accepts_connections(sidecar, desk):
    proxy = sidecar({"command": desk.command("${PORT}"), "ready": {"tcp": True, "interval": "10ms"}})
    wait_ready(proxy)
    serve_one(proxy, desk)


# ---- what they say


def test_what_a_worker_prints_is_in_the_log_line_by_line_with_its_name(sidecar, desk):
    desk.answer_starts = {"say": ["first line", "second: ünïcödé", "x" * 300]}
    proxy = sidecar({"count": 2})
    for line in (r"first line$", r"second: ünïcödé", r"x{300}"):
        names = {proxy.wait_log(r"main/(\d)\b.*" + line, skip=number).group(1) for number in range(2)}
        assert names == {"0", "1"}


def test_a_worker_that_prints_without_end_is_never_blocked_by_it(sidecar, desk):
    script = "import sys; [print('noise ' * 50) for _ in range(20000)]; sys.stdout.write('no newline at the end')"
    proxy = sidecar({"command": f'{python} -c "{script}"; exec {" ".join(desk.command())}'})      # 6 MB
    serve_one(proxy, desk)


def test_a_binary_mess_in_a_workers_output_does_no_harm(sidecar, desk):
    proxy = sidecar({"command": f"head -c 300000 /dev/urandom; exec {' '.join(desk.command())}"})
    serve_one(proxy, desk)


def test_the_log_says_when_a_worker_dies_and_how(sidecar, desk):
    proxy = sidecar()
    job = desk.next_start()
    wait_ready(proxy)
    os.kill(job["pid"], signal.SIGSEGV)
    proxy.wait_log(r"main/0\b.*(signal 11|SIGSEGV|SEGV)")


# ---- how they are replaced and ended


def test_a_worker_is_recycled_after_so_many_requests_and_no_request_is_lost(sidecar, desk):
    desk.answer_jobs = {"body": "ok"}
    proxy = sidecar({"recycle": {"requests": 5, "jitter": "0%"}})
    client = proxy.connect()
    while len(desk.counts()) < 5:
        assert client.get().read_response().status == 200
    done = sorted(seen["done"] for seen in desk.counts().values())
    assert done[1] >= 5, "each but the last had its five"
    assert desk.most_at_once() == 1


def test_a_worker_that_grew_too_large_is_recycled(sidecar, desk):
    desk.answer_jobs = {"body": "ok"}
    proxy = sidecar({"count": 2, "recycle": {"rss": "64KiB", "jitter": "0%"}})
    first = {desk.next_start()["pid"], desk.next_start()["pid"]}
    later = {desk.next_start()["pid"], desk.next_start()["pid"]}
    assert not first & later
    assert proxy.get().status == 200


def test_a_worker_is_asked_to_stop_by_the_signal_of_the_configuration(sidecar, desk, tmp_path):
    seen = tmp_path / "seen"
    proxy = sidecar({"command": f"trap 'echo INT > {seen}; kill $!; exit 0' INT; trap 'echo TERM > {seen}' TERM; "
                                f"{' '.join(desk.command())} & wait; wait", "stop": {"signal": "INT", "grace": "10s"}})
    wait_ready(proxy)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == 0
    assert seen.read_text() == "INT\n"


def test_a_worker_that_does_not_stop_is_killed_after_the_grace(sidecar, desk):
    proxy = sidecar({"command": f"trap '' TERM; {' '.join(desk.command())} & while true; do wait; done",
                     "stop": {"grace": "100ms"}})
    wait_ready(proxy)
    worker, = proxy.upstream()["workers"]
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == 0
    assert not alive(worker["pid"])


def test_a_stopping_worker_finishes_the_request_that_it_has(sidecar, desk):
    proxy = sidecar({"recycle": {"requests": 1, "jitter": "0%"}}, concurrency=2)
    wait_ready(proxy)
    first, second = proxy.connect().get("/1"), proxy.connect().get("/2")
    jobs = sorted((desk.next_job(), desk.next_job()), key=lambda job: job["target"])
    jobs[0].respond("first")
    assert first.read_response().body == b"first"
    jobs[1].respond("second, although its worker is to be replaced")
    assert second.read_response().body.startswith(b"second")


def test_a_socket_of_a_worker_is_for_its_user_only_and_a_new_generation_has_a_new_one(sidecar, desk):
    proxy = sidecar()
    first = wait_ready(proxy)["upstreams"]["main"]["backends"][0]["address"].removeprefix("unix:")
    assert os.stat(os.path.dirname(first)).st_mode & 0o077 == 0
    os.kill(desk.next_start()["pid"], signal.SIGKILL)
    proxy.wait_status(lambda status: status["upstreams"]["main"]["backends"][0]["generation"] > 1)
    second = wait_ready(proxy)["upstreams"]["main"]["backends"][0]["address"].removeprefix("unix:")
    assert first != second and not os.path.exists(first)


def test_spawned_workers_and_servers_of_others_stand_together(penstock, desk, scripted):
    other = scripted()
    proxy = penstock({"upstreams": {"main": {"workers": desk.workers(), "servers": [{"address": other.address}],
                                             "concurrency": 1}}})
    wait_ready(proxy)
    clients = [proxy.connect().get("/a"), proxy.connect().get("/b")]
    desk.next_job().respond("spawned")
    other.next_request().respond("other")
    assert {client.read_response().body for client in clients} == {b"spawned", b"other"}


def test_the_workers_of_two_upstreams_are_kept_apart(penstock, desk):
    proxy = penstock({"upstreams": {"left": {"workers": desk.workers(environment={"SIDE": "left"})},
                                    "right": {"workers": desk.workers(environment={"SIDE": "right"})}},
                      "routes": [{"prefix": "/left", "upstream": "left"}, {"prefix": "/right", "upstream": "right"}]})
    sides = {start["pid"]: start["environment"]["SIDE"] for start in (desk.next_start(), desk.next_start())}
    for side in ("left", "right"):
        client = proxy.connect().get(f"/{side}/x")
        job = desk.next_job()
        assert sides[job["pid"]] == side
        job.respond()
        assert client.read_response().status == 200
    assert_refused(proxy.get("/elsewhere"), 404, "no_route")


def test_no_zombie_is_left_by_a_crash_loop(sidecar, desk):
    desk.answer_starts = {"exit": 1}
    proxy = sidecar({"restart": {"backoff": "1ms", "max_backoff": "5ms"}})
    for _ in range(15):
        desk.next_start()
    # A start later, those before have been reaped.
    zombies = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = open(f"/proc/{name}/stat", encoding="latin-1").read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] == "Z" and int(fields[1]) == proxy.process.pid:
                zombies.append(int(name))
    assert len(zombies) <= 1, zombies
    assert stat(proxy.process.pid)


def test_penstock_runs_many_workers(sidecar, desk):
    desk.answer_jobs = {"body": "ok"}
    proxy = sidecar({"count": 16})
    wait_ready(proxy, 16)
    names = {worker["name"] for worker in proxy.upstream()["workers"]}
    assert names == {f"main/{number}" for number in range(16)}
