"""The floors of the house (src/README.md): an include only goes down, and pure floors stay pure.

Run by tests/run, or by hand: /usr/bin/python3 -m pytest tests/floors_test.py
"""
import pathlib
import re

root = pathlib.Path(__file__).resolve().parent.parent

# What each folder of src/ may include, itself included. A single file is named with its folder.
sees = {"base": {"base"}}
sees["http"] = {"http"} | sees["base"]
sees["policy"] = {"policy"} | sees["base"]                     # http and policy do not see each other
sees["codec"] = {"codec"} | sees["http"]
sees["config"] = {"config"} | sees["http"] | sees["policy"]
sees["net"] = {"net"} | sees["base"]
sees["proxy"] = {"proxy"} | sees["codec"] | sees["config"] | sees["net"]
sees["workers"] = {"workers", "proxy/upstream.h"} | sees["proxy"] - {"proxy"}
sees["app"] = {"app", "proxy"} | sees["workers"]
sees["reference_worker"] = {"reference_worker"} | sees["base"]     # a program of its own

# Floors that are tested with hand-made bytes and times: no socket, no thread, no clock may creep in. (base defines
# the one clock, and the log's sink.)
pure = ["http", "policy", "codec", "config"]
impure = re.compile(r"#include <(event2/|openssl/|sys/(socket|epoll|eventfd|poll|time)|netinet/|poll\.h|future>|ctime>)"
                    r"|\bstd::j?thread\b(?!::)"
                    r"|\bmonotonic_now\(|\b(system|steady|high_resolution)_clock\b|\bclock_gettime\b|\bsleep_for\b"
                    r"|\brandom_device\b|\brand\(\)")

include = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
comment = re.compile(r"//[^\n]*")


def sources(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix in (".h", ".cc", ".cu"))


def includes(path):
    return include.findall(path.read_text(encoding="utf-8"))


def allowed(floor, included):
    return included.split("/")[0] in sees[floor] or included in sees[floor]


def test_every_folder_of_src_is_a_floor_that_this_test_knows():
    folders = {path.name for path in (root / "src").iterdir() if path.is_dir() and sources(path)}
    assert folders <= set(sees)


def test_an_include_only_goes_down():
    broken = []
    for floor in sees:
        for path in sources(root / "src" / floor):
            for included in includes(path):
                if not allowed(floor, included):
                    broken.append(f"{path.relative_to(root)} includes {included}; {floor} sees {sorted(sees[floor])}")
    assert not broken, "\n".join(broken)


def test_an_include_names_its_floor_and_exists():
    broken = []
    for path in sources(root / "src"):
        for included in includes(path):
            if not (root / "src" / included).is_file():
                broken.append(f"{path.relative_to(root)}: {included} is no file under src/")
    assert not broken, "\n".join(broken)


def test_a_unit_test_of_a_floor_needs_nothing_above_it():
    broken = []
    for floor in sees:
        for path in sources(root / "tests" / "unit" / floor):
            for included in includes(path):
                inside = (root / "src" / included).is_file()     # others are the tests' own
                if inside and not allowed(floor, included):
                    broken.append(f"{path.relative_to(root)} includes {included}")
    assert not broken, "\n".join(broken)


def test_pure_floors_know_no_socket_no_thread_and_no_clock():
    broken = []
    for floor in pure:
        for path in sources(root / "src" / floor):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                found = impure.search(comment.sub("", line))
                if found:
                    broken.append(f"{path.relative_to(root)}:{number}: {found.group(0)}")
    assert not broken, "\n".join(broken)
