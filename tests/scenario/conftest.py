"""Fixtures of the scenario tests; `lib/__init__.py` shows how a test uses them."""
import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

pytest.register_assert_rewrite("lib.checks", "lib.wire", "lib.backends", "lib.proxy")

from lib.backends import EchoBackend, ScriptedBackend  # noqa: E402
from lib.desk import desk  # noqa: E402, F401 (a fixture)
from lib.kserve import ReferenceWorker  # noqa: E402
from lib.proxy import Penstock, one_upstream, program  # noqa: E402

def pytest_sessionstart(session):
    if not session.config.option.collectonly and not os.access(program(), os.X_OK):
        pytest.exit(f"{program()} is not there: build it, or set PENSTOCK to the program to test", 4)


class Lab:
    """Makes the things of a test, and ends them in the order that tells most: backends stay until penstock has
    ended, so that its exit is judged with them alive."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="penstock-lab-")
        self.running = []
        self.backends = []

    def penstock(self, config=None, servers=None, **settings):
        if servers is not None:
            config = one_upstream(servers, settings)
            settings = {}
        proxy = Penstock(config, **settings)
        self.running.append(proxy)
        return proxy

    def backend(self, kind, unix=False, **settings):
        path = os.path.join(self.folder, f"{len(self.backends)}.sock") if unix else None
        made = kind(path, **settings)
        self.backends.append(made)
        return made

    def end(self):
        problems = []
        for proxy in self.running:
            try:
                proxy.stop()
            except Exception as problem:      # the others are to be stopped all the same
                problems.append(problem)
            sys.stderr.write(f"--- log of penstock {proxy.process.pid}\n{proxy.log()}\n")
        for backend in self.backends:
            backend.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if problems:
            raise problems[0]


@pytest.fixture
def lab():
    made = Lab()
    yield made
    made.end()


@pytest.fixture(scope="module")
def shared_lab():
    """For tables: one penstock for all cases of a file."""
    made = Lab()
    yield made
    made.end()


@pytest.fixture
def penstock(lab):
    """penstock(config) or penstock(servers=[...], ...): a running Penstock, stopped and judged at the end."""
    return lab.penstock


@pytest.fixture
def scripted(lab):
    """scripted(unix=False, backlog=...): a new ScriptedBackend."""
    return lambda unix=False, **settings: lab.backend(ScriptedBackend, unix, **settings)


@pytest.fixture
def echo(lab):
    """echo(unix=False): a new EchoBackend."""
    return lambda unix=False: lab.backend(EchoBackend, unix)


@pytest.fixture
def reference_worker(lab):
    """reference_worker(unix=False, threads=4, ...): a new ReferenceWorker."""
    return lambda unix=False, **settings: lab.backend(ReferenceWorker, unix, **settings)
