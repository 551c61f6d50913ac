"""Sizes and times that a client may not exceed, and clients that close one half of their connection. The times are
short here, so that the tests are; that a time is not cut short is shown by an exchange that goes on meanwhile."""

import os
import resource
import signal

import pytest

from lib.checks import Table, assert_refused, echoed
from lib.wire import eventually


@pytest.fixture(scope="module")
def table(shared_lab):
    return Table(shared_lab, limits={"header_bytes": "8KiB", "headers": 20, "body": "64KiB"})


def test_a_head_beyond_the_limit_is_refused_with_431(table):
    table.refuses("GET / HTTP/1.1\r\nHost: a\r\nX-A: " + "b" * 9000 + "\r\n\r\n", 431)


def test_a_head_of_many_small_fields_beyond_the_limit_is_refused_with_431(table):
    table.refuses("GET / HTTP/1.1\r\nHost: a\r\n" + "X-A: b\r\n" * 20 + "\r\n", 431)


def test_a_head_of_as_many_fields_as_allowed_passes(table):
    assert table.passes("GET / HTTP/1.1\r\nHost: a\r\n" + "X-A: b\r\n" * 19 + "\r\n").get("x-a") == ["b"] * 19


def test_a_head_of_nearly_the_size_allowed_passes(table):
    assert table.passes("GET / HTTP/1.1\r\nHost: a\r\nX-A: " + "b" * 7900 + "\r\n\r\n").get("x-a") == ["b" * 7900]


def test_a_field_name_beyond_all_measure_is_refused(table):
    client = table.proxy.connect().send("GET / HTTP/1.1\r\nHost: a\r\n" + "b" * 70_000 + ": c\r\n\r\n")
    assert client.read_response().status in (400, 431)


def test_a_head_without_end_is_refused_long_before_its_end(table):
    client = table.proxy.connect().send("GET / HTTP/1.1\r\nHost: a\r\n" + "X-A: b\r\n" * 100_000)
    assert client.read_response().status == 431


def test_a_target_beyond_the_limit_is_refused_with_414(table):
    table.refuses("GET /" + "a" * 9000 + " HTTP/1.1\r\nHost: a\r\n\r\n", 414)


def test_a_request_line_without_end_is_refused_with_414(table):
    client = table.proxy.connect().send("GET /" + "a" * 200_000)
    assert_refused(client.read_response(), 414, "bad_request")


def test_a_body_of_the_size_allowed_passes(table):
    body = "x" * 65536
    facts = table.passes(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    assert facts.body_size == 65536


def test_a_length_beyond_the_limit_is_refused_with_413_at_the_head(table):
    table.refuses("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", 413)


def test_chunks_beyond_the_limit_are_refused_with_413(penstock, echo):
    backend = echo()
    proxy = penstock(servers=[backend], concurrency=1, limits={"body": "64KiB"})
    client = proxy.connect().send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(5):
        client.chunk("x" * 16384)
    assert_refused(client.read_response(), 413, "bad_request")
    assert backend.seen == []


def test_chunks_of_the_size_allowed_pass(table):
    client = table.proxy.connect().send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(4):
        client.chunk("x" * 16384)
    assert echoed(client.last_chunk().read_response()).body_size == 65536


def test_chunks_beyond_the_limit_never_look_complete_to_the_backend(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], limits={"body": "64KiB"}).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").chunk("x" * 60_000)
    at_work = backend.next_request()
    assert sum(len(at_work.read_chunk()) for _ in range(1)) > 0
    client.chunk("x" * 6000).last_chunk()
    assert_refused(client.read_response(), 413, "bad_request")
    assert b"0\r\n\r\n" not in at_work.read_to_end()


# ---- what is left unread of a refused request

def test_the_short_rest_of_a_refused_request_is_discarded_and_the_connection_kept(penstock, echo):
    proxy = penstock(servers=[echo()], routes=[{"prefix": "/api/", "upstream": "main"}])
    hidden = "GET /api/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    client = proxy.connect().post("/other", hidden)
    answer = client.read_response()
    assert_refused(answer, 404, "no_route")
    client.get("/api/next")
    assert echoed(client.read_response()).line == "GET /api/next HTTP/1.1"


def test_the_body_of_a_refused_request_may_come_late_and_is_no_request(penstock, echo):
    backend = echo()
    proxy = penstock(servers=[backend], routes=[{"prefix": "/api/", "upstream": "main"}])
    hidden = "GET /api/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    client = proxy.connect().send(f"POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: {len(hidden)}\r\n\r\n")
    assert_refused(client.read_response(), 404, "no_route")
    client.send(hidden).get("/api/next")
    assert echoed(client.read_response()).line == "GET /api/next HTTP/1.1"
    assert backend.targets() == ["/api/next"]


def test_a_client_that_uploads_much_sees_the_refusal_and_no_reset(penstock, echo):
    proxy = penstock(servers=[echo()], routes=[{"prefix": "/api/", "upstream": "main"}])
    for _ in range(10):
        client = proxy.connect().post("/other", "x" * 500_000)
        assert_refused(client.read_response(), 404, "no_route")
        client.close()


# ---- slow clients

def test_a_head_that_does_not_come_in_time_is_answered_with_408(penstock, echo):
    backend = echo()
    proxy = penstock(servers=[backend], limits={"client_header_timeout": "200ms"})
    proxy.signal(signal.SIGSTOP)               # so that its beginning is there before its time begins
    client = proxy.connect().send("GET / HTTP/1.1\r\nHost: a\r\n")
    proxy.signal(signal.SIGCONT)
    answer = client.read_response()
    assert answer.status == 408 and "close" in answer.head.list("connection")
    client.expect_end()
    assert backend.seen == []


def test_a_head_that_comes_drop_by_drop_has_one_time_for_the_whole(penstock, echo):
    backend = echo()
    proxy = penstock(servers=[backend], limits={"client_header_timeout": "200ms"})
    proxy.signal(signal.SIGSTOP)
    client = proxy.connect().send("GET / HTTP/1.1\r\nHost: a\r\n")
    proxy.signal(signal.SIGCONT)
    client.sock.settimeout(0.01)
    while True:                                # a byte every 10 ms, until the answer comes
        try:
            client.pending += client.sock.recv(65536)
            break
        except TimeoutError:
            client.send("x")
            client.sock.settimeout(0.01)
    assert client.read_response().status == 408
    assert backend.seen == []


def test_the_second_head_of_a_connection_has_its_time_too(penstock, echo):
    proxy = penstock(servers=[echo()], limits={"client_header_timeout": "300ms"})
    proxy.signal(signal.SIGSTOP)               # so that the first head is there before its time begins
    client = proxy.connect().send("GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost:")
    proxy.signal(signal.SIGCONT)
    assert echoed(client.read_response()).line == "GET /one HTTP/1.1"
    answer = client.read_response()
    assert answer.status == 408
    client.expect_end()


def test_empty_lines_on_a_kept_connection_are_no_head_that_is_late(penstock, echo):
    proxy = penstock(servers=[echo()], limits={"client_idle_timeout": "200ms"})
    client = proxy.connect().get()
    assert client.read_response().status == 200
    client.send("\r\n").expect_end()


def test_a_connection_on_which_nothing_comes_is_closed(penstock, echo):
    proxy = penstock(servers=[echo()], limits={"client_header_timeout": "200ms", "client_idle_timeout": "200ms"})
    got = proxy.connect().read_to_end()
    assert got == b"" or got.startswith(b"HTTP/1.1 408 ")


def test_a_kept_connection_that_idles_is_closed_without_a_word(penstock, echo):
    proxy = penstock(servers=[echo()], limits={"client_idle_timeout": "200ms"})
    client = proxy.connect().get()
    assert client.read_response().status == 200
    client.expect_end()


@pytest.mark.parametrize("settings", [{}, {"concurrency": 1}], ids=["streaming", "collected"])
def test_a_body_that_stops_coming_is_answered_with_408(penstock, scripted, settings):
    backend = scripted()
    proxy = penstock(servers=[backend], limits={"client_body_timeout": "200ms"}, **settings)
    client = proxy.connect().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
    answer = client.read_response()
    assert answer.status == 408 and "close" in answer.head.list("connection")
    client.expect_end()
    # The slot, if it had one, is free.
    other = proxy.connect().get("/other")
    at_work = backend.next_request()
    if at_work.request.target != "/other":
        at_work.expect("hello").expect_gone()
        at_work = backend.next_request()
    at_work.respond("other")
    assert other.read_response().body == b"other"


def test_a_client_that_takes_no_bytes_is_cut_off(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], limits={"client_write_timeout": "200ms"})
    client = proxy.connect().get()
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    at_work.send(b"x" * 100_000_000)           # blocks, until the proxy gives up
    at_work.expect_gone()
    assert len(client.read_to_end()) < 100_000_000


def test_a_slow_backend_is_not_taken_for_a_slow_client(penstock, scripted):
    # The clock: another client, who is hung up after all the client timeouts have passed.
    backend = scripted()
    proxy = penstock(servers=[backend], threads=1, limits={
        "client_body_timeout": "100ms", "client_write_timeout": "100ms", "client_idle_timeout": "300ms"})
    client = proxy.connect().post("/slow", "hello")
    at_work = backend.next_request()
    at_work.read_body()
    clock = proxy.connect().get("/clock")
    backend.next_request().respond("tick")
    assert clock.read_response().body == b"tick"
    clock.expect_end()
    at_work.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").chunk("one")
    assert client.read_head().status == 200
    assert client.read_chunk() == b"one"
    clock = proxy.connect().get("/clock")
    backend.next_request().respond("tick")
    assert clock.read_response().body == b"tick"
    clock.expect_end()
    at_work.chunk("two").last_chunk()
    assert client.read_chunked() == (b"two", [])


# ---- no descriptors left

def test_accepting_pauses_when_descriptors_run_out_and_goes_on_when_there_are_some(penstock, echo):
    proxy = penstock(servers=[echo()], threads=1)
    assert proxy.get("/before").status == 200
    descriptors = f"/proc/{proxy.process.pid}/fd"
    before = len(os.listdir(descriptors))
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (before + 20, before + 20))
    crowd = [proxy.connect() for _ in range(100)]
    eventually(lambda: len(os.listdir(descriptors)) >= before + 10, "a crowd of open connections")
    late = proxy.connect().get("/late")
    for client in crowd:
        client.close()
    assert echoed(late.read_response()).line == "GET /late HTTP/1.1"


# ---- half-closed clients

def test_a_client_that_closes_its_half_has_hung_up_by_default(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    at_work = backend.next_request()
    client.half_close()
    at_work.expect_gone()
    assert client.read_to_end() == b""


@pytest.mark.parametrize("leave", ["close", "half_close", "reset"])
def test_a_client_that_leaves_right_behind_its_request_is_never_seen_by_a_backend(penstock, scripted, leave):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, threads=1)
    running = proxy.connect().get("/running")
    at_work = backend.next_request()
    leaving = proxy.connect().get("/known")
    proxy.wait_queue(1)                        # it is accepted; now its next request and its end come at once
    at_work.respond("ran")
    assert running.read_response().body == b"ran"
    at_work = backend.next_request()
    at_work.respond("known")
    assert leaving.read_response().body == b"known"
    running.get("/running")
    at_work = backend.next_request()
    proxy.signal(signal.SIGSTOP)
    leaving.get("/leaving")
    getattr(leaving, leave)()
    proxy.signal(signal.SIGCONT)
    staying = proxy.connect().get("/staying")
    proxy.wait_queue(1)
    at_work.respond("ran")
    at_work = backend.next_request()
    assert at_work.request.target == "/staying"
    at_work.respond("stayed")
    assert staying.read_response().body == b"stayed"


def test_a_client_that_closes_its_half_is_served_where_the_limits_say_so(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], limits={"half_close": "serve"}).connect().get()
    client.half_close()
    backend.next_request().respond("done")
    answer = client.read_response()
    assert (answer.status, answer.body) == (200, b"done")
    client.expect_end()


def test_a_client_that_closes_its_half_right_behind_its_request_is_served_where_the_limits_say_so(penstock, echo):
    proxy = penstock(servers=[echo()], limits={"half_close": "serve"})
    client = proxy.connect().post("/x", "hello").half_close()
    assert echoed(client.read_response()).body == "hello"


def test_a_half_closed_client_with_pipelined_requests_gets_all_answers(penstock, echo):
    proxy = penstock(servers=[echo()], limits={"half_close": "serve"})
    client = proxy.connect().get("/1").get("/2").get("/3").half_close()
    assert [echoed(client.read_response()).line.split(" ")[1] for _ in range(3)] == ["/1", "/2", "/3"]
    client.expect_end()


def test_a_half_close_on_a_unix_socket_is_no_hang_up(penstock, scripted, lab):
    backend = scripted()
    proxy = penstock(servers=[backend], listen=[{"address": f"unix:{lab.folder}/front.sock"}])
    client = proxy.connect(f"unix:{lab.folder}/front.sock").get()
    at_work = backend.next_request()
    client.half_close()
    at_work.respond("done")
    assert client.read_response().body == b"done"


def test_a_close_on_a_unix_socket_is_a_hang_up(penstock, scripted, lab):
    backend = scripted()
    proxy = penstock(servers=[backend], listen=[{"address": f"unix:{lab.folder}/front.sock"}])
    client = proxy.connect(f"unix:{lab.folder}/front.sock").get()
    at_work = backend.next_request()
    client.close()
    at_work.expect_gone()


@pytest.mark.parametrize("half_close", ["hangup", "serve"])
@pytest.mark.parametrize("part", ["GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n",
                                  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
                                  "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"],
                         ids=["line", "head", "body", "chunks"])
def test_a_request_that_ends_in_the_middle_is_never_complete(penstock, echo, half_close, part):
    backend = echo()
    proxy = penstock(servers=[backend], concurrency=1, limits={"half_close": half_close})
    client = proxy.connect().send(part).half_close()
    got = client.read_to_end()
    assert got == b"" or got.startswith(b"HTTP/1.1 4")
    proxy.get("/barrier")
    assert backend.targets() == ["/barrier"]


def test_a_client_that_resets_while_its_request_runs_frees_the_backend(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    at_work = backend.next_request()
    client.reset()
    at_work.expect_gone()


def test_a_client_that_leaves_the_queue_is_never_seen_by_a_backend(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1)
    running = proxy.connect().get("/running")
    at_work = backend.next_request()
    leaving = proxy.connect().get("/leaving")
    proxy.wait_queue(1)
    leaving.close()
    proxy.wait_queue(0)
    staying = proxy.connect().get("/staying")
    proxy.wait_queue(1)
    at_work.respond("ran")
    assert running.read_response().body == b"ran"
    then = backend.next_request()
    assert then.request.target == "/staying"
    then.respond("stayed")
    assert staying.read_response().body == b"stayed"
