"""Upgrade: a tunnel only after the backend's 101, bytes both ways, and its end."""
import hashlib
import signal
import threading
import time

import pytest

from lib.checks import assert_refused, echoed

asking = ("GET /socket HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
switching = ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


# A tunnel whose backend does not close lasts until the drain cuts it: short here, so that the end of a test is.
short_drain = {"drain": "100ms"}


@pytest.fixture
def tunnel(penstock, scripted):
    """open(**settings) -> (client, backend connection, proxy, backend), with the tunnel standing"""
    def open_one(**settings):
        backend = scripted()
        settings.setdefault("limits", short_drain)
        proxy = penstock(servers=[backend], **settings)
        client = proxy.connect().send(asking)
        at_work = backend.next_request()
        at_work.send(switching)
        assert client.read_head().status == 101
        return client, at_work, proxy, backend
    return open_one


def test_the_backend_is_asked_for_the_same_protocol(penstock, scripted):
    backend = scripted()
    penstock(servers=[backend]).connect().send(asking)
    request = backend.next_request().request
    assert request.get("upgrade") == "websocket"
    assert "upgrade" in request.list("connection")
    assert request.get("sec-websocket-key") == "dGhlIHNhbXBsZSBub25jZQ=="


def test_the_client_gets_the_101_with_its_fields(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], limits=short_drain).connect().send(asking)
    backend.next_request().send(switching)
    head = client.read_head()
    assert head.status == 101
    assert head.get("upgrade") == "websocket" and head.list("connection") == ["upgrade"]
    assert head.get("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert not head.has("content-length") and not head.has("transfer-encoding")


def test_bytes_pass_both_ways_at_once_and_as_they_are(tunnel):
    client, at_work, _, _ = tunnel()
    for turn in range(5):
        client.send(b"\x81\x85 ask\r\n\r\n%d" % turn)
        at_work.expect(b"\x81\x85 ask\r\n\r\n%d" % turn)
        at_work.send(b"HTTP/1.1 200 OK\r\n\r\n\0%d" % turn)
        client.expect(b"HTTP/1.1 200 OK\r\n\r\n\0%d" % turn)


def test_bytes_in_the_packet_of_the_101_reach_the_client(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], limits=short_drain).connect().send(asking)
    backend.next_request().send(switching + "first frame")
    assert client.read_head().status == 101
    client.expect("first frame")


def test_nothing_that_the_client_sends_early_is_passed_on_before_the_101(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], threads=1, limits=short_drain)
    client = proxy.connect().send(asking + "early data")
    at_work = backend.next_request()
    # Something that comes later on the same loop: had the early bytes been let through, they would be here by then.
    proxy.connect().get("/barrier")
    assert backend.next_request().request.target == "/barrier"
    assert not at_work.has_input()
    at_work.send(switching)
    at_work.expect("early data")
    assert client.read_head().status == 101


def test_early_data_of_an_upgrade_that_is_refused_never_reaches_the_backend_as_a_tunnel(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], threads=1)
    client = proxy.connect().send(asking + "\x00\x01\x02 not HTTP\r\n\r\n")
    at_work = backend.next_request()
    at_work.respond("no", "403 Forbidden")
    assert client.read_response().status == 403
    # It is the next request then, and a bad one.
    assert_refused(client.read_response(), 400, "bad_request")
    client.expect_end()
    proxy.connect().get("/barrier")
    assert backend.next_request().request.target == "/barrier"


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "426 Upgrade Required"])
def test_another_answer_than_101_is_no_tunnel_and_the_connection_goes_on(penstock, scripted, status):
    backend = scripted()
    client = penstock(servers=[backend], threads=1).connect().send(asking)
    backend.next_request().respond("plain", status)
    answer = client.read_response()
    assert (answer.status, answer.body) == (int(status[:3]), b"plain")
    client.get("/next")
    again = backend.next_request()
    assert again.request.target == "/next"
    again.respond("next")
    assert client.read_response().body == b"next"


odd = {
    "into another protocol": "Connection: Upgrade\r\nUpgrade: chat\r\n",
    "into no protocol": "Connection: Upgrade\r\n",
    "that Connection does not name": "Upgrade: websocket\r\n",
    "into several protocols": "Connection: Upgrade\r\nUpgrade: websocket, chat\r\n",
    "into HTTP/2": "Connection: Upgrade\r\nUpgrade: h2c\r\n",
}


@pytest.mark.parametrize("fields", odd.values(), ids=odd.keys())
def test_502_is_sent_for_a_101(penstock, scripted, fields):
    backend = scripted()
    client = penstock(servers=[backend], retry={"attempts": 0}).connect().send(asking)
    at_work = backend.next_request().send(f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\npoison")
    assert_refused(client.read_response(), 502, "bad_response")
    at_work.expect_gone()


def test_a_101_of_http_1_0_opens_no_tunnel(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], retry={"attempts": 0}).connect().send(asking)
    backend.next_request().send(switching.replace("HTTP/1.1", "HTTP/1.0"))
    assert_refused(client.read_response(), 502, "bad_response")


def test_interim_answers_may_come_before_the_101(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], limits=short_drain).connect().send(asking)
    at_work = backend.next_request().send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + switching)
    answer = client.read_response()
    assert (answer.status, [head.status for head in answer.interims]) == (101, [103])
    client.send("frame")
    at_work.expect("frame")


def test_a_101_that_comes_byte_by_byte_is_the_same(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], limits=short_drain).connect().drip(asking)
    at_work = backend.next_request().drip(switching + "frame")
    assert client.read_head().status == 101
    client.expect("frame").drip("more frames")
    at_work.expect("more frames")


def test_a_backend_that_dies_before_its_101_is_502(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], retry={"attempts": 0}).connect().send(asking + "early data")
    backend.next_request().close()
    assert_refused(client.read_response(), 502, "backend_reset")


def test_an_upgrade_waits_for_its_slot_as_every_request(penstock, scripted):
    backend = scripted()
    proxy = penstock(servers=[backend], concurrency=1, limits=short_drain)
    running = proxy.connect().get("/running")
    at_work = backend.next_request()
    client = proxy.connect().send(asking + "early data")
    proxy.wait_queue(1)
    at_work.respond("ran")
    assert running.read_response().body == b"ran"
    at_work = backend.next_request()
    assert at_work.request.get("upgrade") == "websocket"
    at_work.send(switching)
    at_work.expect("early data")
    assert client.read_head().status == 101


def test_a_request_pipelined_behind_an_upgrade_that_is_refused_is_served(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().send(asking + "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    backend.next_request().respond("plain")
    assert client.read_response().body == b"plain"
    backend.next_request().respond("next")
    assert client.read_response().body == b"next"


# ---- what is no upgrade

def test_h2c_is_not_asked_of_the_backend(penstock, echo):
    client = penstock(servers=[echo()]).connect()
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n")
    facts = echoed(client.read_response())
    assert "upgrade" not in facts.names and "http2-settings" not in facts.names
    assert "upgrade" not in ",".join(facts.get("connection")).lower()


def test_an_upgrade_that_connection_does_not_name_is_not_passed_on(penstock, echo):
    client = penstock(servers=[echo()]).connect()
    client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n")
    assert "upgrade" not in echoed(client.read_response()).names


@pytest.mark.parametrize("protocol", ["h2", "HTTP/2.0", "TLS/1.0", "websocket, h2c", "a b", ""])
def test_an_upgrade_that_is_no_tunnel_of_one_protocol_is_not_asked_of_the_backend(penstock, echo, protocol):
    client = penstock(servers=[echo()]).connect()
    client.send(f"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n")
    facts = echoed(client.read_response())
    assert "upgrade" not in facts.names and "upgrade" not in ",".join(facts.get("connection")).lower()


def test_an_upgrade_with_a_body_is_an_ordinary_request(penstock, echo):
    # Were it an upgrade, two readers could differ on where its body ends and the tunnel begins.
    client = penstock(servers=[echo()]).connect()
    client.send(asking.replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello"))
    facts = echoed(client.read_response())
    assert facts.body == "hello" and "upgrade" not in facts.names


def test_an_upgrade_in_http_1_0_is_not_passed_on(penstock, echo):
    client = penstock(servers=[echo()]).connect()
    client.send(asking.replace("HTTP/1.1", "HTTP/1.0"))
    assert "upgrade" not in echoed(client.read_response()).names


def test_a_101_for_a_request_that_asked_for_no_upgrade_is_502(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], retry={"attempts": 0}).connect().get()
    at_work = backend.next_request().send(switching + "poison")
    assert_refused(client.read_response(), 502, "bad_response")
    at_work.expect_gone()


# ---- the end of a tunnel

def test_a_client_that_ends_its_side_still_gets_the_rest(tunnel):
    client, at_work, _, _ = tunnel()
    client.send("last words").half_close()
    assert at_work.read_to_end() == b"last words"
    at_work.send("answer to them")
    client.expect("answer to them")
    at_work.close()
    client.expect_end()


def test_a_backend_that_ends_its_side_still_gets_the_rest(tunnel):
    client, at_work, _, _ = tunnel()
    at_work.send("last words").half_close()
    assert client.read_to_end() == b"last words"
    client.send("answer to them")
    at_work.expect("answer to them")
    client.close()
    at_work.expect_gone()


def test_a_client_that_resets_ends_the_tunnel(tunnel):
    client, at_work, _, _ = tunnel()
    client.reset()
    at_work.expect_gone()


def test_a_backend_that_resets_ends_the_tunnel(tunnel):
    client, at_work, _, _ = tunnel()
    at_work.reset()
    client.expect_gone()


def test_a_silent_tunnel_ends_after_the_idle_timeout(tunnel):
    client, at_work, _, _ = tunnel(timeouts={"idle": "200ms"})
    client.expect_gone()
    at_work.expect_gone()


def test_a_tunnel_goes_on_during_a_drain(tunnel):
    client, at_work, proxy, backend = tunnel(limits={"drain": "60s"})
    idle = proxy.connect().get("/idle")
    backend.next_request().respond("idle")
    assert idle.read_response().body == b"idle"
    proxy.signal(signal.SIGTERM)
    idle.expect_end().close()              # the drain has begun
    client.send("still here")
    at_work.expect("still here")
    at_work.send("yes")
    client.expect("yes")
    client.close()
    at_work.expect_gone()
    at_work.close()
    assert proxy.wait_exit() == 0


def test_a_drain_ends_tunnels_at_its_deadline_and_not_before(tunnel):
    client, at_work, proxy, _ = tunnel(limits={"drain": "300ms"})
    began = time.monotonic()
    proxy.signal(signal.SIGTERM)
    client.expect_gone()
    at_work.expect_gone()
    assert proxy.wait_exit() == 0
    assert time.monotonic() - began >= 0.3


def test_a_tunnel_holds_its_slot_until_it_ends(tunnel):
    client, at_work, proxy, backend = tunnel(concurrency=1)
    waiting = proxy.connect().get("/next")
    proxy.wait_queue(1)
    client.send("still here")
    at_work.expect("still here")
    client.close()
    at_work.expect_gone()
    at_work.close()
    then = backend.next_request()
    assert then.request.target == "/next"
    then.respond("next")
    assert waiting.read_response().body == b"next"


def test_a_connection_that_was_a_tunnel_is_not_used_again(tunnel):
    client, at_work, proxy, backend = tunnel(threads=1)
    client.close()
    at_work.expect_gone()
    proxy.connect().get("/next")
    assert backend.next_request() is not at_work


def test_large_data_passes_both_ways_at_once_unchanged(tunnel):
    client, at_work, _, _ = tunnel()
    size = 8 * 1024 * 1024
    pattern = hashlib.sha256(b"tunnel").digest() * (size // 32)
    got = {}

    def pump(name, wire):
        sender = threading.Thread(target=wire.send, args=(pattern,))
        sender.start()
        got[name] = hashlib.sha256(wire.read_exactly(size)).hexdigest()
        sender.join()

    pumps = [threading.Thread(target=pump, args=pair) for pair in (("client", client), ("backend", at_work))]
    for thread in pumps:
        thread.start()
    for thread in pumps:
        thread.join()
    assert got == {name: hashlib.sha256(pattern).hexdigest() for name in ("client", "backend")}
