"""`penstock check`, `version`, and what is said about configurations that are wrong."""
import json
import re
import subprocess

import pytest

from lib import patience
from lib.proxy import program, repository


def ask(*arguments):
    return subprocess.run([program(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=patience)


@pytest.fixture
def check(tmp_path):
    """check(text or dict): the ended `penstock check` of a file penstock.yaml with that in it."""
    def run(config):
        path = tmp_path / "penstock.yaml"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        ended = ask("check", str(path))
        ended.said = ended.stdout + ended.stderr
        return ended
    return run


valid = """
listen:
  - address: 127.0.0.1:8000
limits: {memory: 64MiB}
upstreams:
  ocr:
    workers:
      command: [uvicorn, "ocr:app", --uds, "${SOCKET}"]
      count: 2
"""


def test_a_valid_file_is_0_and_says_what_was_understood_and_how_much_memory_it_can_take(check):
    ended = check(valid)
    assert ended.returncode == 0, ended.said
    assert "ocr" in ended.stdout and "127.0.0.1:8000" in ended.stdout
    assert re.search(r"memory.*?\d+(\.\d+)? ?(KiB|MiB|GiB)", ended.stdout), ended.stdout


def test_all_errors_are_reported_at_once_each_with_its_place_and_what_would_be_right(check):
    ended = check("""
listen:
  - adress: 127.0.0.1:8000
limits: {memory: lots, drain: 5}
upstreams:
  ocr:
    concurency: 1
    workers: {command: [uvicorn, "${SOCKET}"], count: none}
    timeouts: {first_byte: soon}
routes:
  - {prefix: /, upstream: orc}
""")
    assert ended.returncode != 0
    for place, key, hint in [(r"3:\d+", "adress", "address"), (r"4:\d+", "limits.memory", "MiB"),
                             (r"4:\d+", "limits.drain", "5s"), (r"7:\d+", "concurency", "concurrency"),
                             (r"8:\d+", "upstreams.ocr.workers.count", ""), (r"9:\d+", "first_byte", ""),
                             (r"11:\d+", "orc", "ocr")]:
        lines = [line for line in ended.said.splitlines() if re.search(rf"penstock\.yaml:{place}: ", line)
                 and key in line]
        assert lines and hint in lines[0], (place, key, hint, ended.said)


@pytest.mark.parametrize("text, line", [
    ("upstreams:\n  a: {servers: [{address: 'x:1'}]\n", r"penstock\.yaml:\d+:\d+: "),
    ("upstreams: [1, 2]\n", r"penstock\.yaml:1:\d+: upstreams"),
    ("", r"penstock\.yaml"),
], ids=["no YAML", "a list for a mapping", "an empty file"])
def test_a_file_that_cannot_be_understood_is_refused_with_its_place(check, text, line):
    ended = check(text)
    assert ended.returncode != 0 and re.search(line, ended.said), ended.said


def test_run_refuses_a_wrong_file_in_the_same_words(check, tmp_path):
    said = check("upstreams: {a: {serverss: []}}").said
    ended = ask("run", str(tmp_path / "penstock.yaml"))
    assert ended.returncode != 0
    complaint = next(line for line in said.splitlines() if "serverss" in line)
    assert complaint.split(": ", 1)[1] in ended.stdout + ended.stderr


def test_an_environment_variable_that_is_not_set_is_an_error_and_one_that_is_set_is_filled_in(check, monkeypatch):
    text = valid.replace("64MiB", '"${ROOM_FOR_BODIES}"')
    ended = check(text)
    assert ended.returncode != 0 and "ROOM_FOR_BODIES" in ended.said
    monkeypatch.setenv("ROOM_FOR_BODIES", "32MiB")
    assert check(text).returncode == 0


def test_a_file_that_is_not_there_is_named():
    ended = ask("check", "/nonexistent/penstock.yaml")
    assert ended.returncode != 0 and "/nonexistent/penstock.yaml" in ended.stdout + ended.stderr


def test_version_says_it_in_one_line():
    ended = ask("version")
    assert ended.returncode == 0 and re.fullmatch(r"penstock \d+\.\d+\.\d+.*\n", ended.stdout), ended.stdout


@pytest.mark.parametrize("arguments", [["rnu", "x"], [], ["run"]], ids=["an unknown word", "nothing", "no file"])
def test_a_command_line_that_is_wrong_says_how_it_would_be_right(arguments):
    ended = ask(*arguments)
    assert ended.returncode != 0
    assert "run" in ended.stdout + ended.stderr


@pytest.mark.parametrize("name", ["ocr.yaml", "ocr-two-at-once.yaml", "demo/penstock.yaml"])
def test_the_configurations_that_we_ship_are_valid(name):
    ended = ask("check", f"{repository}/conf/{name}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
