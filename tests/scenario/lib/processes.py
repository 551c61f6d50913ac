"""Facts about processes, read from /proc."""
import os

from lib.wire import eventually


def stat(pid):
    """The fields of /proc/PID/stat after the name, or None when there is no such process (a zombie counts as gone)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields


def alive(pid):
    return stat(pid) is not None


def descendants(pid):
    """All processes below this one, children first."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat(int(name))
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(name))
    found, look_at = [], [pid]
    while look_at:
        children = parents.get(look_at.pop(), [])
        found += children
        look_at += children
    return found


def wait_gone(pids):
    eventually(lambda: not [pid for pid in pids if alive(pid)],
               f"the end of {[(pid, command_line(pid)) for pid in pids if alive(pid)]}")


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_descriptors(pid):
    """{number: what it is}"""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass
    return found


def cpu_seconds(pid):
    """User and system time of all threads of a process, and of the children that it waited for."""
    fields = stat(pid)
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
