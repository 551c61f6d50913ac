"""PROXY headers, versions 1 and 2: who the client is then, what is refused, and that the header comes before TLS."""
import json
import signal
import socket
import struct
import subprocess

import pytest

from lib import patience
from lib.certificates import Authority
from lib.wire import Client, Wire, eventually

signature = b"\r\n\r\n\0\r\nQUIT\n"


def v1(source="192.0.2.1", port=443, family="TCP4", target="198.51.100.7"):
    return f"PROXY {family} {source} {target} 56324 {port}\r\n".encode()


def v2(source="192.0.2.1", port=443, command=0x21, tlvs=b""):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    target = "2001:db8::9" if ":" in source else "198.51.100.7"
    body = socket.inet_pton(family, source) + socket.inet_pton(family, target) + struct.pack(">HH", 56324, port) + tlvs
    return signature + bytes([command, 0x21 if ":" in source else 0x11]) + struct.pack(">H", len(body)) + body


request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def behind(penstock, echo):
    """behind(**settings): a penstock whose listener wants headers."""
    def start(**settings):
        listen = {"address": "127.0.0.1:0", "proxy_protocol": True, **settings.pop("listener", {})}
        return penstock(servers=[echo()], listen=[listen], **settings)
    return start


def fields(answer):
    assert answer.status == 200, answer
    return {name.lower(): value for name, value in json.loads(answer.body)["fields"]}


def errors(proxy):
    return {dict(labels)["reason"]: int(number) for (name, labels), number in proxy.metrics().items()
            if name == "penstock_proxy_header_failures_total" and number}


@pytest.mark.parametrize("header, client", [
    (v1(), "192.0.2.1"), (v1("2001:db8::1", family="TCP6", target="::2"), "2001:db8::1"),
    (v2(), "192.0.2.1"), (v2("2001:db8::1"), "2001:db8::1"), (v2(tlvs=b"\x04\0\x03xyz\x20\0\x01z"), "192.0.2.1"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.1"), (signature + b"\x20\0\0\0", "127.0.0.1"), (v2(command=0x20), "127.0.0.1")])
def test_the_header_says_who_the_client_is(behind, header, client):
    proxy = behind()
    connection = proxy.connect()
    connection.send(header + request)
    got = fields(connection.read_response())
    assert got["x-forwarded-for"] == client
    assert got["x-forwarded-port"] == ("443" if client != "127.0.0.1" else proxy.address.rpartition(":")[2])
    connection.send(request)                    # the next request of the connection has no header
    assert fields(connection.read_response())["x-forwarded-for"] == client
    proxy.wait_access(lambda line: line["client"] == client)
    assert errors(proxy) == {}


@pytest.mark.parametrize("header", [v1(), v2()], ids=["v1", "v2"])
def test_the_header_may_come_byte_by_byte(behind, header):
    connection = behind().connect()
    connection.drip(header)
    connection.send(request)
    assert fields(connection.read_response())["x-forwarded-for"] == "192.0.2.1"


def test_trusted_proxies_are_looked_up_by_what_the_header_says(behind):
    proxy = behind(trusted_proxies=["192.0.2.0/24"])
    for source, believed in [("192.0.2.1", True), ("203.0.113.1", False)]:
        connection = proxy.connect()
        connection.send(v1(source) + b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n")
        got = fields(connection.read_response())
        assert got["x-forwarded-for"] == (f"9.9.9.9, {source}" if believed else source)
        proxy.wait_access(lambda line, it="9.9.9.9" if believed else source: line["client"] == it)


@pytest.mark.parametrize("what", [request, b"PROXY TCP4 192.0.2.1 1.2.3.4 1\r\n", b"PROXY TCP4 999.0.2.1 1.2.3.4 1 2\r\n",
                                  signature + b"\x31\x11\0\x0c" + b"x" * 12, b"\x16\x03\x01\x02\0\x01"])
def test_a_connection_without_a_good_header_is_closed_and_counted(behind, what):
    proxy = behind()
    connection = proxy.connect()
    connection.send(what)
    connection.expect_gone()
    eventually(lambda: errors(proxy) == {"malformed": 1}, "one malformed header")


def test_a_header_that_does_not_end_is_cut_in_time(behind):
    proxy = behind(limits={"client_header_timeout": "300ms"})
    proxy.signal(signal.SIGSTOP)                # so that its beginning is there before its time begins
    slow = proxy.connect()
    slow.send("PROXY TCP4 ")
    proxy.signal(signal.SIGCONT)
    slow.expect_gone()
    eventually(lambda: errors(proxy) == {"timeout": 1}, "one that took too long")


def test_a_client_that_leaves_in_its_header_is_counted_and_one_that_says_nothing_is_not(behind):
    proxy = behind()
    proxy.connect().close()
    left = proxy.connect()
    left.send("PROXY").close()
    eventually(lambda: errors(proxy) == {"closed": 1}, "one that left")


def test_a_header_comes_before_tls(behind, tmp_path):
    authority = Authority(str(tmp_path))
    certificate, key = authority.certificate("front")
    proxy = behind(listener={"tls": {"certificate": certificate, "key": key}, "protocols": ["http1"]})
    plain = proxy.connect()
    plain.send(v2() + request)
    assert plain.read_response()["x-penstock-reason"] == "bad_request; rule=http_on_tls_port"
    for header in (v1(), v2()):
        connection = proxy.connect()
        connection.send(header)
        client = Client.__new__(Client)
        Wire.__init__(client, authority.client_context().wrap_socket(connection.sock, server_hostname="localhost"))
        proxy.clients.append(client)
        client.send(request)
        got = fields(client.read_response())
        assert (got["x-forwarded-for"], got["x-forwarded-proto"]) == ("192.0.2.1", "https")


def test_curl_speaks_it_to_either_protocol(behind):
    proxy = behind()
    for protocol in ("--http1.1", "--http2-prior-knowledge"):
        done = subprocess.run(["curl", "-sS", "--haproxy-protocol", protocol, f"http://{proxy.address}/"],
                              capture_output=True, check=True, timeout=patience)
        assert json.loads(done.stdout)["line"] == "GET / HTTP/1.1"
