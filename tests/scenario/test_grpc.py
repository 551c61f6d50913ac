"""A real gRPC client and server (python3-grpcio) talk through penstock, in clear and over TLS."""
import os
import shutil
import tempfile
import threading

import grpc
import pytest

from lib.certificates import Authority
from lib.wire import eventually
from workers import grpc_worker

options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
worker_script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "workers", "grpc_worker.py")


class GrpcBackend:
    def __init__(self, path=None, authority=None):
        self.echo = grpc_worker.Echo()
        credentials = None
        if authority:
            certificate, key = authority.certificate("grpc")
            with open(certificate, "rb") as chain, open(key, "rb") as secret:
                credentials = grpc.ssl_server_credentials([(secret.read(), chain.read())])
        self.server, port = grpc_worker.serve("127.0.0.1:0", self.echo, credentials)
        self.address = f"127.0.0.1:{port}"

    def close(self):
        self.echo.release.set()
        self.server.stop(None).wait()


class Caller:
    """Calls /test.Echo/METHOD with bytes."""

    def __init__(self, address, authority=None):
        if authority:
            with open(authority.ca, "rb") as ca:
                self.channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read()), options)
        else:
            self.channel = grpc.insecure_channel(address, options)
        self.unary = lambda method: self.channel.unary_unary(f"/test.Echo/{method}")
        self.count = self.channel.unary_stream("/test.Echo/Count")
        self.join = self.channel.stream_unary("/test.Echo/Join")
        self.chat = self.channel.stream_stream("/test.Echo/Chat")

    def close(self):
        self.channel.close()


class World:
    def __init__(self, lab, authority):
        self.lab = lab
        self.authority = authority
        self.callers = []

    def start(self, upstream=None, **settings):
        """(caller, backend's Echo, penstock)"""
        backend = self.lab.backend(GrpcBackend, authority=self.authority)
        listen = {"address": "127.0.0.1:0"}
        main = {"servers": [{"address": backend.address}], "protocol": "http2", **(upstream or {})}
        if self.authority:
            certificate, key = self.authority.certificate("front")
            listen["tls"] = {"certificate": certificate, "key": key}
            main["tls"] = {"ca": self.authority.ca}
        proxy = self.lab.penstock({"listen": [listen], "upstreams": {"main": main}, **settings})
        caller = Caller(proxy.address, self.authority)
        self.callers.append(caller)
        return caller, backend.echo, proxy


@pytest.fixture(params=["clear", "tls"])
def world(request, lab):
    folder = tempfile.mkdtemp(prefix="penstock-grpc-")
    made = World(lab, Authority(folder) if request.param == "tls" else None)
    yield made
    for caller in made.callers:
        caller.close()
    shutil.rmtree(folder, ignore_errors=True)


def test_unary_calls_pass_with_metadata_at_both_ends(world):
    caller, echo, proxy = world.start()
    answer, call = caller.unary("Unary").with_call(b"hello", metadata=(("x-mine", "3"),))
    assert answer == b"hello" and call.code() == grpc.StatusCode.OK
    assert ("x-initial", "1") in call.initial_metadata() and ("x-trailing", "2") in call.trailing_metadata()
    seen = {key: value for key, value in echo.metadata}
    assert seen["x-mine"] == "3" and "x-forwarded-for" in seen
    large = bytes(range(256)) * 8192
    assert caller.unary("Unary")(large) == large
    proxy.wait_metric(lambda m: m.value("penstock_grpc_requests_total", upstream="main", grpc_status="OK") == 2)


def test_a_server_stream_passes(world):
    caller, _, _ = world.start()
    assert [int(message) for message in caller.count(b"5000")] == list(range(5000))


# With slots, too; and where these would wait for their clients no longer than this.
slots = pytest.mark.parametrize("upstream", [{}, {"concurrency": 1, "timeouts": {"client_stall": "1ms"}}],
                                ids=["unlimited", "slots"])


@slots
def test_a_client_stream_passes(world, upstream):
    caller, echo, proxy = world.start(upstream)
    parts = [b"%d;" % number * 1000 for number in range(100)]

    def say():
        yield parts[0]
        eventually(echo.joins.is_set)       # it is at work before there is a second message
        yield from parts[1:]
    assert caller.join(say()) == b"".join(parts)


def test_a_stream_between_two_messages_ends_by_the_idle_timeout_and_blames_nobody(world):
    caller, echo, proxy = world.start(
        {"concurrency": 1, "on_abandon": "close",
         "outlier_detection": {"consecutive_local_errors": 1, "min_healthy": 0}},
        routes=[{"path": "/test.Echo/Join", "upstream": "main", "timeouts": {"first_byte": "300ms"}},
                {"prefix": "/", "upstream": "main"}])
    forever = threading.Event()

    def say():
        yield b"hello"
        forever.wait()
    with pytest.raises(grpc.RpcError) as error:
        caller.join(say())
    forever.set()
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert proxy.status()["upstreams"]["main"]["backends"][0]["state"] == "ready"
    assert caller.unary("Unary")(b"hello") == b"hello"


@slots
def test_a_conversation_passes_word_by_word(world, upstream):
    caller, _, _ = world.start(upstream)
    may_go_on = threading.Semaphore(1)

    def say():
        for number in range(50):
            may_go_on.acquire()         # only when the answer to the last one is there
            yield b"%d" % number
    for number, answer in enumerate(caller.chat(say())):
        assert answer == b"re: %d" % number
        may_go_on.release()


def test_an_answer_of_nothing_but_trailers_keeps_status_and_message(world):
    caller, _, proxy = world.start()
    with pytest.raises(grpc.RpcError) as error:
        caller.unary("Fail")(b"")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    assert error.value.details() == "nothing here: 100% \u00e9"
    proxy.wait_access(lambda line: line.get("grpc_status") == "NOT_FOUND")
    with pytest.raises(grpc.RpcError) as error:
        caller.unary("NoSuchMethod")(b"")
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_callers_deadline_reaches_the_server_and_ends_the_call(world):
    caller, echo, proxy = world.start()
    assert 10 < float(caller.unary("Deadline")(b"", timeout=20)) <= 21      # gRPC rounds
    assert caller.unary("Deadline")(b"") == b"none"
    with pytest.raises(grpc.RpcError) as error:
        caller.unary("Slow")(b"", timeout=1)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(echo.cancelled.is_set)


def test_the_smaller_time_of_the_configuration_is_the_deadline(world):
    caller, echo, _ = world.start({"timeouts": {"request": "8s"}}, routes=[
        {"path": "/test.Echo/Slow", "upstream": "main", "timeouts": {"request": "1s"}},
        {"prefix": "/", "upstream": "main"}])
    assert 0 < float(caller.unary("Deadline")(b"", timeout=20)) <= 9
    with pytest.raises(grpc.RpcError) as error:
        caller.unary("Slow")(b"", timeout=20)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(echo.cancelled.is_set)


def test_a_call_that_its_caller_cancels_ends_at_the_server(world):
    caller, echo, proxy = world.start()
    call = caller.unary("Slow").future(b"")
    eventually(echo.began.is_set)
    call.cancel()
    eventually(echo.cancelled.is_set)
    proxy.wait_access(lambda line: line["status"] == 499 and line["grpc_status"] == "CANCELLED")
    proxy.wait_in_flight(0)


def test_a_full_queue_is_resource_exhausted(world):
    caller, echo, proxy = world.start({"concurrency": 1, "queue": {"size": 0}})
    first = caller.unary("Slow").future(b"")
    eventually(echo.began.is_set)
    with pytest.raises(grpc.RpcError) as error:
        caller.unary("Unary")(b"")
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.value.details() == "the queue is full"
    trailers = dict(error.value.trailing_metadata())
    assert trailers["x-penstock-reason"] == "queue_full" and int(trailers["grpc-retry-pushback-ms"]) >= 1000
    echo.release.set()
    assert first.result() == b"done"


def test_a_server_that_is_gone_is_unavailable(world):
    caller, _, proxy = world.start({"retry": {"attempts": 0}})
    assert caller.unary("Unary")(b"x") == b"x"
    for backend in world.lab.backends:
        backend.close()
    with pytest.raises(grpc.RpcError) as error:
        caller.unary("Unary")(b"x")
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_draining_penstock_finishes_the_call_that_runs(world):
    caller, echo, proxy = world.start()
    call = caller.unary("Slow").future(b"")
    eventually(echo.began.is_set)
    proxy.drain()
    echo.release.set()
    assert call.result() == b"done"
    assert proxy.wait_exit() == 0


# ---- as a worker

def spawned(lab, ready, arguments=()):
    return lab.penstock({"upstreams": {"main": {
        "protocol": "http2",
        "workers": {"command": ["/usr/bin/python3", worker_script, "${PORT}", *arguments], "count": 1, "ready": ready}}}})


def test_a_worker_is_ready_when_its_health_service_says_so(lab):
    proxy = spawned(lab, {"grpc": "", "interval": "20ms"}, ["3"])
    caller = Caller(proxy.address)
    assert caller.unary("Unary")(b"ready", timeout=30) == b"ready"
    caller.close()
    proxy.wait_log(r"worker main/0 .*ready")


def test_a_worker_whose_service_is_unknown_is_not_ready_and_the_log_says_why(lab):
    proxy = spawned(lab, {"grpc": "other", "interval": "20ms", "timeout": "3s"})
    proxy.wait_log(r"worker main/0 .*grpc.health.v1 Check other -> NOT_FOUND")


def test_a_server_that_says_it_does_not_serve_gets_no_calls(lab):
    good, bad = lab.backend(GrpcBackend), lab.backend(GrpcBackend)
    good.echo.serving.set()
    proxy = lab.penstock({"upstreams": {"main": {
        "protocol": "http2", "servers": [{"address": good.address}, {"address": bad.address}],
        "health_check": {"grpc": "ocr", "interval": "20ms", "timeout": "20s", "healthy": 1, "unhealthy": 1}}}})
    proxy.wait_metric(lambda m: m.value("penstock_backend_state", backend=bad.address, state="resting") == 1)
    caller = Caller(proxy.address)
    for number in range(10):
        assert caller.unary("Unary")(b"%d" % number) == b"%d" % number
    assert not bad.echo.metadata or "x-forwarded-for" not in dict(bad.echo.metadata)
    bad.echo.serving.set()
    proxy.wait_metric(lambda m: m.value("penstock_backend_state", backend=bad.address, state="ready") == 1)
    caller.close()
