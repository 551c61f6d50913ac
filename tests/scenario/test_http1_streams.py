"""Bodies on their way: events one by one, large ones whole and bounded in memory, small pieces, slow ends."""
import hashlib
import threading

import pytest

from lib.checks import echoed

MiB = 1024 * 1024
large = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(32 * 1024)) * 24    # 24 MiB


def sha(data):
    return hashlib.sha256(data).hexdigest()


def in_background(work, *arguments):
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


# ---- token by token

@pytest.mark.parametrize("settings", [{}, {"concurrency": 1}], ids=["unlimited", "limited"])
def test_server_sent_events_pass_one_by_one(penstock, scripted, settings):
    backend = scripted()
    client = penstock(servers=[backend], **settings).connect().get("/events", "Accept: text/event-stream\r\n")
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.read_head().get("content-type") == "text/event-stream"
    for number in range(50):
        event = b"data: token %d\n\n" % number
        at_work.chunk(event)
        assert client.read_chunk() == event
    at_work.last_chunk()
    assert client.read_chunked() == (b"", [])


def test_a_head_without_a_body_yet_passes_at_once(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    at_work = backend.next_request().send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert client.read_head().status == 200
    at_work.send("he")
    client.expect("he")
    at_work.send("llo")
    client.expect("llo")


def test_a_stream_delimited_by_close_passes_piece_by_piece(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    at_work = backend.next_request().send("HTTP/1.0 200 OK\r\n\r\n")
    chunked = "chunked" in client.read_head().list("transfer-encoding")
    for number in range(10):
        piece = b"piece %d" % number
        at_work.send(piece)
        assert (client.read_chunk() if chunked else client.read_exactly(len(piece))) == piece
    at_work.close()
    assert (client.read_chunked() if chunked else (client.read_to_end(), [])) == (b"", [])


def test_an_upload_to_an_unlimited_upstream_passes_piece_by_piece(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    at_work = backend.next_request()
    for number in range(10):
        client.chunk(f"piece {number}")
        assert at_work.read_chunk() == b"piece %d" % number
    client.last_chunk()
    assert at_work.read_chunked() == (b"", [])
    at_work.respond("done")
    assert client.read_response().body == b"done"


def test_an_upload_to_a_limited_upstream_holds_no_slot_before_it_is_complete(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, threads=1)
    slow = proxy.connect().send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
    quick = proxy.connect().get("/quick")
    at_work = backend.next_request()
    assert at_work.request.target == "/quick"
    at_work.respond("quick")
    assert quick.read_response().body == b"quick"
    slow.send("there")
    at_work = backend.next_request()
    assert (at_work.request.target, at_work.read_body()[0]) == ("/slow", b"hellothere")
    at_work.respond("slow")
    assert slow.read_response().body == b"slow"


def test_a_body_that_was_collected_goes_out_with_its_length(penstock, echo):
    client = penstock(servers=[echo()], concurrency=1).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").drip("hello")
    facts = echoed(client.read_response())
    assert (facts.get("content-length"), facts.body) == (["5"], "hello")


def test_a_body_beyond_the_buffer_of_a_limited_upstream_streams_once_it_has_a_slot(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], concurrency=1, buffer={"request": "64KiB"}).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + "x" * 150_000)
    at_work = backend.next_request()
    assert at_work.read_exactly(150_000) == b"x" * 150_000
    client.send("y" * 50_000)
    assert at_work.read_exactly(50_000) == b"y" * 50_000
    at_work.respond("done")
    assert client.read_response().body == b"done"


# ---- large

@pytest.mark.parametrize("settings", [{}, {"concurrency": 1}], ids=["unlimited", "limited"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_large_upload_arrives_unchanged(penstock, scripted, framing, settings):
    backend = scripted()
    client = penstock(servers=[backend], **settings).connect()

    def upload():
        if framing == "length":
            client.send(f"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(large)}\r\n\r\n").send(large)
        else:
            client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(large), 100_003):
                client.chunk(large[at:at + 100_003])
            client.last_chunk()

    sender = in_background(upload)
    at_work = backend.next_request()
    assert sha(at_work.read_body()[0]) == sha(large)
    at_work.respond("done")
    assert client.read_response().body == b"done"
    sender.join()


@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
def test_a_large_answer_arrives_unchanged(penstock, scripted, framing):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    at_work = backend.next_request()

    def answer():
        if framing == "length":
            at_work.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(large)}\r\n\r\n").send(large)
        elif framing == "chunks":
            at_work.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(large), 70_001):
                at_work.chunk(large[at:at + 70_001])
            at_work.last_chunk()
        else:
            at_work.send("HTTP/1.1 200 OK\r\n\r\n").send(large).close()

    sender = in_background(answer)
    got = client.read_response()
    sender.join()
    assert not got.cut and sha(got.body) == sha(large)


def test_an_answer_that_is_all_sent_arrives_whole_although_its_backend_resets(penstock, scripted, lab):
    # As a server does that answers, and closes with a part of the request unread. The proxy is not reading at that
    # moment, for its client does not either, and all buffers are full. (Those of a unix socket are small.)
    backend = scripted()
    proxy = penstock(servers=[backend], buffer={"response": "64KiB"}, timeouts={"client_stall": 0},
                     listen=[{"address": f"unix:{lab.folder}/front.sock"}])
    client = proxy.connect().get()
    at_work = backend.next_request().send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = got = 0
    while at_work.is_taken(within=0.2):
        at_work.chunk(large[:MiB])
        sent += MiB
    at_work.last_chunk()
    client.read_head()
    while not at_work.is_taken(within=0.01):
        got += len(client.read_chunk())
    at_work.reset()
    rest, _ = client.read_chunked()
    assert got + len(rest) == sent


def test_large_bodies_pass_both_ways_at_once(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    sender = in_background(lambda: client.send(f"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(large)}\r\n\r\n")
                           .send(large))
    at_work = backend.next_request()
    at_work.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(large)}\r\n\r\n")
    answerer = in_background(at_work.send, large[:-1])
    got = {}
    reader = in_background(lambda: got.update(answer=sha(client.read_response().body)))
    assert sha(at_work.read_exactly(len(large))) == sha(large)
    answerer.join()
    at_work.send(large[-1:])  # an answer that is complete before its request would end the request
    for thread in (sender, reader):
        thread.join()
    assert got["answer"] == sha(large)


def test_a_client_that_does_not_read_holds_the_backend_back_instead_of_filling_memory(penstock, scripted):
    # 200 MiB are offered, memory is 16 MiB: the rest stays with the backend and in sockets.
    backend = scripted()
    proxy = penstock(servers=[backend], limits={"memory": "16MiB"}, timeouts={"client_stall": 0})
    client = proxy.connect().get()
    at_work = backend.next_request()
    before = proxy.metrics().value("process_resident_memory_bytes")
    size = 200 * MiB
    at_work.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
    sender = in_background(lambda: [at_work.send(large[:8 * MiB]) for _ in range(size // (8 * MiB))])
    assert int(client.read_head().get("content-length")) == size
    most = count = 0
    while count < size:
        if count < 50 * MiB:               # by then, all that could pile up has
            most = max(most, proxy.metrics().value("process_resident_memory_bytes"))
        count += len(client.read_exactly(min(10 * MiB, size - count)))
    sender.join()
    assert 0 < most - before < 100 * MiB


# ---- small

def test_a_thousand_small_chunks_arrive_unchanged_both_ways(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    words = [b"%d;" % number for number in range(1000)]
    client.send(b"".join(b"%x\r\n%s\r\n" % (len(word), word) for word in words)).last_chunk()
    at_work = backend.next_request()
    assert at_work.read_body()[0] == b"".join(words)
    at_work.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for word in words:
        at_work.chunk(word)
    at_work.last_chunk()
    assert client.read_response().body == b"".join(words)


def test_a_whole_exchange_byte_by_byte_is_the_same_as_at_once(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], threads=1)
    request = ("POST /x HTTP/1.1\r\nHost: a\r\nx-request-id: fixed-1\r\nTransfer-Encoding: chunked\r\n\r\n"
               "5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n")
    answer = ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
              "HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n"
              "3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Sum: 2\r\n\r\n")

    def exchange(say):
        client = proxy.connect()
        say(client, request)
        at_work = backend.next_request()
        seen = (at_work.request.raw, at_work.read_body())
        say(at_work, answer)
        got = client.read_response()
        return seen, [head.raw for head in got.interims], got.status, got["x-a"], got.body, got.trailers

    assert exchange(lambda wire, raw: wire.drip(raw)) == exchange(lambda wire, raw: wire.send(raw))


@pytest.mark.parametrize("step", [2, 3, 7, 1000])
def test_a_body_in_pieces_of_any_size_arrives_unchanged(penstock, echo, step):
    body = large[:step * 500]
    client = penstock(servers=[echo()]).connect()
    client.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n").drip(body, step)
    facts = echoed(client.read_response())
    assert (facts.body_size, facts.body_sha256) == (len(body), sha(body))


def test_an_empty_answer_in_chunks_ends_at_once(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get()
    backend.next_request().send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    answer = client.read_response()
    assert (answer.status, answer.body, answer.cut) == (200, b"", False)


# ---- the slot and the slow reader

def test_a_slow_reader_does_not_hold_the_slot_once_the_backend_has_finished(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, threads=1)
    slow = proxy.connect().get("/slow")
    at_work = backend.next_request()
    body = large[:MiB - 65536]                 # fits into buffer.response
    at_work.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n").send(body)
    quick = proxy.connect().get("/quick")      # the slow one has read nothing yet
    at_work = backend.next_request()
    assert at_work.request.target == "/quick"
    at_work.respond("quick")
    assert quick.read_response().body == b"quick"
    assert slow.read_response().body == body


def test_a_client_that_stalls_with_a_slot_in_its_hands_is_cut(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, timeouts={"client_stall": "200ms"},
                     buffer={"response": "64KiB"}, on_abandon="close")
    slow = proxy.connect().get("/slow")
    at_work = backend.next_request()
    at_work.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(large)}\r\n\r\n").send(large)
    at_work.read_to_end()
    at_work.close()
    quick = proxy.connect().get("/quick")
    then = backend.next_request()
    assert then.request.target == "/quick"
    then.respond("quick")
    assert quick.read_response().body == b"quick"
    assert len(slow.read_to_end()) < len(large)
