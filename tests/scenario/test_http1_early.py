"""Final answers that come before the request is complete."""


def test_a_413_reaches_a_client_that_is_still_uploading(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], limits={"body": "1GiB"}).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000000\r\n\r\n" + "x" * 100_000)
    at_work = backend.next_request()
    at_work.respond("too much", "413 Content Too Large", "Connection: close\r\n").close()
    answer = client.read_response()
    assert (answer.status, answer.body) == (413, b"too much")
    assert not answer.head.has("x-penstock-reason")
    # What the client still sends is read for a while and thrown away: no reset on top of the answer.
    client.send("x" * 100_000)
    client.expect_end()


def test_a_413_reaches_a_client_that_uploads_all_before_it_reads(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n")
    backend.next_request().respond("too much", "413 Content Too Large", "Connection: close\r\n").close()
    client.send("x" * 400_000)
    answer = client.read_response()
    assert (answer.status, answer.body) == (413, b"too much")


def test_an_early_answer_that_streams_passes_while_the_client_has_stopped_sending(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").chunk("question")
    at_work = backend.next_request()
    assert at_work.read_chunk() == b"question"
    at_work.send("HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n").chunk("no")
    assert client.read_head().status == 401
    assert client.read_chunk() == b"no"
    at_work.chunk("never").last_chunk()
    assert client.read_chunked() == (b"never", [])


def test_an_answer_that_begins_before_the_request_ends_may_be_a_conversation(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.read_head().status == 200
    for word in ("one", "two", "three"):
        client.chunk(word)
        assert at_work.read_chunk() == word.encode()
        at_work.chunk(word.upper())
        assert client.read_chunk() == word.upper().encode()
    client.last_chunk()
    assert at_work.read_chunk() == b"" and at_work.read_trailers() == []
    at_work.last_chunk()
    assert client.read_chunked() == (b"", [])


def test_an_answer_behind_a_failed_write_is_found(penstock, scripted):
    # The backend answers and closes while the request is on its way: the proxy's write fails, yet a 413 lies readable.
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + "x" * 10)
    at_work = backend.next_request()
    at_work.respond("too much", "413 Content Too Large")
    at_work.half_close()
    client.send("x" * 2_000_000)
    answer = client.read_response()
    assert (answer.status, answer.body) == (413, b"too much")


def test_the_short_rest_of_a_request_is_passed_over_and_the_connection_kept(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    hidden = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    client.send(f"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {5 + len(hidden)}\r\n\r\nhello")
    at_work = backend.next_request()
    at_work.expect("hello")
    at_work.respond("early")
    answer = client.read_response()
    assert answer.body == b"early" and "close" not in answer.head.list("connection")
    client.send(hidden).get("/next")
    then = backend.next_request()
    assert then.request.target == "/next" and then is not at_work
    then.respond("next")
    assert client.read_response().body == b"next"


def test_the_long_rest_of_a_request_ends_the_connection_and_is_no_request(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], threads=1)
    client = proxy.connect()
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello")
    backend.next_request().expect("hello").respond("early")
    answer = client.read_response()
    assert (answer.body, answer.head.list("connection")) == (b"early", ["close"])
    client.get("/smuggled")
    client.expect_end()
    proxy.connect().get("/barrier")
    assert backend.next_request().request.target == "/barrier"


def test_a_request_in_chunks_that_was_answered_early_ends_the_connection(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").chunk("hello")
    at_work = backend.next_request()
    assert at_work.read_chunk() == b"hello"
    at_work.respond("early")
    answer = client.read_response()
    assert (answer.body, answer.head.list("connection")) == (b"early", ["close"])
    client.expect_end()
    at_work.expect_gone()


def test_an_early_answer_to_a_body_that_streams_gives_the_slot_back(penstock, scripted):
    # Beyond the buffer, so that it has its slot before it is complete.
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, buffer={"request": "64KiB"}, threads=1)
    client = proxy.connect().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + "x" * 200_000)
    at_work = backend.next_request()
    at_work.read_exactly(200_000)
    waiting = proxy.connect().get("/next")
    proxy.wait_queue(1)
    at_work.respond("early", "413 Content Too Large")
    answer = client.read_response()
    assert (answer.status, answer.body) == (413, b"early")
    then = backend.next_request()
    assert then.request.target == "/next" and then is not at_work
    then.respond("next")
    assert waiting.read_response().body == b"next"


def test_an_early_answer_without_an_end_is_cut_with_its_client(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect()
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello")
    at_work = backend.next_request()
    at_work.expect("hello").send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.read_head().status == 200
    client.close()
    at_work.expect_gone()
