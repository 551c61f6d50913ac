"""What a gRPC request gets that penstock does not pass on: trailers-only answers, whatever carries them."""
import pytest

from lib.backends import unused_address

asking = "content-type: application/grpc\r\nte: trailers\r\n"


def ask(client, fields=""):
    return client.post("/pkg.Service/Method", b"\0\0\0\0\0", asking + fields)


def assert_grpc_refused(answer, status, reason):
    assert answer.status == 200, answer.head.raw
    assert answer["content-type"] == "application/grpc"
    assert answer["grpc-status"] == str(status), answer.head.raw
    assert answer["x-penstock-reason"] == reason
    assert answer["grpc-message"] and int(answer["retry-after"]) >= 1
    assert answer.body == b"" and not answer.cut


def test_a_full_queue_is_resource_exhausted_with_the_time_to_come_again(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, queue={"size": 0})
    first = ask(proxy.connect())
    at_work = backend.next_request()
    answer = ask(proxy.connect()).read_response()
    assert_grpc_refused(answer, 8, "queue_full")
    assert int(answer["grpc-retry-pushback-ms"]) == 1000 * int(answer["retry-after"])
    at_work.respond("", fields="content-type: application/grpc\r\ngrpc-status: 0\r\n")
    assert first.read_response()["grpc-status"] == "0"
    for name in ("RESOURCE_EXHAUSTED", "OK"):
        proxy.wait_metric(lambda m: m.value("penstock_grpc_requests_total", upstream="main", grpc_status=name) == 1)


def test_a_backend_that_is_not_there_is_unavailable(penstock):
    answer = ask(penstock(servers=[unused_address()], retry={"attempts": 0}).connect()).read_response()
    assert_grpc_refused(answer, 14, "connect_failure")
    assert not answer.head.has("grpc-retry-pushback-ms")


def test_no_route_is_unimplemented(penstock, scripted):
    proxy = penstock(servers=[scripted()], routes=[{"path": "/other", "upstream": "main"}])
    assert_grpc_refused(ask(proxy.connect()).read_response(), 12, "no_route")


def test_the_time_that_the_client_gives_is_the_deadline(penstock, scripted):
    backend = scripted()
    client = ask(penstock(servers=[backend]).connect(), "grpc-timeout: 100m\r\n")
    backend.next_request()
    assert_grpc_refused(client.read_response(), 4, "request_timeout")


def test_the_smaller_of_the_two_times_is_passed_on_less_what_the_queue_took(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, timeouts={"request": "50s"})
    first = ask(proxy.connect(), "grpc-timeout: 1H\r\n")
    at_work = backend.next_request()
    second = ask(proxy.connect(), "grpc-timeout: 20S\r\n")
    given = at_work.request.get("grpc-timeout")
    assert given.endswith("u") and 40_000_000 < int(given[:-1]) <= 50_000_000
    proxy.wait_queue(1)
    at_work.read_body()
    at_work.respond("")
    given = backend.next_request().request.get("grpc-timeout")
    assert given.endswith("u") and 5_000_000 < int(given[:-1]) < 20_000_000
    first.close()
    second.close()


@pytest.mark.parametrize("odd", ["1s", "123456789S", "-1S", "S"])
def test_a_grpc_timeout_that_nobody_understands_sets_no_deadline_and_passes(penstock, scripted, odd):
    backend = scripted()
    client = ask(penstock(servers=[backend]).connect(), f"grpc-timeout: {odd}\r\n")
    at_work = backend.next_request()
    assert at_work.request.get("grpc-timeout") == odd
    at_work.respond("")
    assert client.read_response().status == 200


def test_the_log_line_has_the_status_of_the_trailers(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend])
    client = ask(proxy.connect())
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "5\r\n\0\0\0\0\0\r\n0\r\ngrpc-status: 5\r\n\r\n")
    answer = client.read_response()
    assert ("grpc-status", "5") in answer.trailers
    line = proxy.wait_access(lambda line: "grpc_status" in line)
    assert (line["status"], line["grpc_status"]) == (200, "NOT_FOUND")
