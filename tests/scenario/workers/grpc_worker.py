"""A gRPC server (python3-grpcio, generic handlers: bytes in, bytes out) as a worker or, imported, as a test's backend.

    /test.Echo/Unary     the request comes back         /test.Echo/Count    as many messages as the request says
    /test.Echo/Join      all requests in one            /test.Echo/Chat     each request comes back at once
    /test.Echo/Fail      NOT_FOUND, no message          /test.Echo/Slow     answers when `release` is set
    /test.Echo/Deadline  the seconds that are left
    /grpc.health.v1.Health/Check   SERVING once `serving` is set; NOT_FOUND for the service "other"
"""
import sys
import threading
from concurrent import futures

import grpc


class Echo(grpc.GenericRpcHandler):
    def __init__(self):
        self.release = threading.Event()
        self.serving = threading.Event()
        self.began = threading.Event()
        self.joins = threading.Event()
        self.cancelled = threading.Event()
        self.metadata = []
        self.checks = 0

    def service(self, details):
        service, _, method = details.method.lstrip("/").partition("/")
        self.metadata = details.invocation_metadata
        if service == "grpc.health.v1.Health":
            return grpc.unary_unary_rpc_method_handler(self.check)
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Join": grpc.stream_unary_rpc_method_handler(self.join),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Slow": grpc.unary_unary_rpc_method_handler(self.slow),
            "Deadline": grpc.unary_unary_rpc_method_handler(self.deadline),
        }.get(method)

    def check(self, request, call):
        self.checks += 1
        if request == b"\x0a\x05other":
            call.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return b"\x08\x01" if self.serving.is_set() else b"\x08\x02"

    def unary(self, request, call):
        call.send_initial_metadata((("x-initial", "1"),))
        call.set_trailing_metadata((("x-trailing", "2"),))
        return request

    def count(self, request, call):
        for number in range(int(request)):
            yield b"%d" % number

    def join(self, requests, call):
        first = next(requests)
        self.joins.set()
        return first + b"".join(requests)

    def chat(self, requests, call):
        for request in requests:
            yield b"re: " + request

    def fail(self, request, call):
        call.abort(grpc.StatusCode.NOT_FOUND, "nothing here: 100% \u00e9")

    def slow(self, request, call):
        call.add_callback(lambda: None if self.release.is_set() else self.cancelled.set())
        self.began.set()
        while call.is_active() and not self.release.wait(0.02):
            pass
        return b"done"

    def deadline(self, request, call):
        left = call.time_remaining()
        return b"none" if left is None or left > 1e6 else b"%.3f" % left


def serve(address, echo, credentials=None):
    server = grpc.server(futures.ThreadPoolExecutor(32), handlers=[echo], options=[("grpc.so_reuseport", 0)])
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    return server, port


if __name__ == "__main__":
    worker = Echo()
    running, _ = serve(f"127.0.0.1:{sys.argv[1]}", worker)
    print("up", flush=True)
    if len(sys.argv) > 2:                   # serves once somebody has asked so often
        while worker.checks < int(sys.argv[2]):
            worker.began.wait(0.01)
    worker.serving.set()
    running.wait_for_termination()
