"""How many requests a worker process has inside: now, at most, begun, done. Kept in a file of $COUNTS named by the
process, mapped, so that it outlives a kill -9 and needs no request to be read."""
import mmap
import os
import struct
import threading

layout = struct.Struct("qqqq")


class Counts:
    """Enter around a request. Made lazily, so that a server which forks has one file a child."""

    def __init__(self):
        self.lock = threading.Lock()
        self.pid = None
        self.page = None

    def _change(self, by):
        folder = os.environ.get("COUNTS")
        if not folder:
            return
        with self.lock:
            if self.pid != os.getpid():
                self.pid = os.getpid()
                with open(os.path.join(folder, str(self.pid)), "w+b") as file:
                    file.truncate(layout.size)
                    self.page = mmap.mmap(file.fileno(), layout.size)
            now, most, begun, done = layout.unpack_from(self.page)
            now += by
            layout.pack_into(self.page, 0, now, max(most, now), begun + (by > 0), done + (by < 0))

    def __enter__(self):
        self._change(+1)

    def __exit__(self, *_):
        self._change(-1)


def read_counts(folder):
    """{pid: {"now", "most", "begun", "done"}} of all processes that ever counted there."""
    read = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            content = file.read()
        if len(content) == layout.size:
            read[int(name)] = dict(zip(("now", "most", "begun", "done"), layout.unpack(content)))
    return read
