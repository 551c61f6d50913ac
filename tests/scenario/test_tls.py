"""TLS to clients: certificates by name, protocols, tickets, client certificates, reload, and what breaks it. The clients
are curl, openssl s_client and Python's ssl; the certificates are made here."""
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import threading

import pytest

from lib import patience
from lib.certificates import Authority
from lib.frames import GOAWAY, frame, headers, preface, request, settings
from lib.wire import Client, Wire, dial, eventually


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("ca")))


@pytest.fixture(scope="module")
def files(authority):
    return dict(zip(("certificate", "key"), authority.certificate("front", "DNS:localhost,IP:127.0.0.1")))


def listening(tls, **more):
    return [{"address": "127.0.0.1:0", "protocols": ["http1"], "tls": tls, **more}]


def secured(sock, authority, name="localhost", context=None, session=None):
    context = context or authority.client_context(["http/1.1"])
    client = Client.__new__(Client)
    Wire.__init__(client, context.wrap_socket(sock, server_hostname=name, session=session,
                                              suppress_ragged_eofs=False))     # an end must be said
    return client


def connect(proxy, authority, **how):
    client = secured(dial(proxy.address), authority, **how)
    proxy.clients.append(client)
    return client


def get(client, target="/", fields=""):
    client.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
    return client.read_response()


def s_client(proxy, *arguments, text=b""):
    """What openssl s_client says, its exit status aside."""
    done = subprocess.run(["openssl", "s_client", "-connect", proxy.address, *arguments], input=text,
                          capture_output=True, timeout=patience)
    return (done.stdout + done.stderr).decode("latin-1")


def failures(proxy, side="client"):
    return {dict(labels)["reason"]: int(number) for (name, labels), number in proxy.metrics().items()
            if name == "penstock_tls_failures_total" and dict(labels)["side"] == side and number}


def wait_failures(proxy, side="client", **expected):
    eventually(lambda: failures(proxy, side) == expected, lambda: f"{expected}, not {failures(proxy, side)}")


def handshakes(proxy, kind, side="client"):
    return proxy.metrics().value("penstock_tls_handshakes_total", side=side, kind=kind)


# ---- what works

def test_a_request_over_tls_reaches_the_backend_which_learns_that_it_was_https(penstock, echo, authority, files):
    proxy = penstock(servers=[echo()], listen=listening(files))
    client = connect(proxy, authority)
    for _ in range(3):
        facts = json.loads(get(client).body)
        assert ["x-forwarded-proto", "https"] in [[name.lower(), value] for name, value in facts["fields"]]
    assert handshakes(proxy, "full") == 1
    assert failures(proxy) == {}


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_gets_its_answer_with_either_version(penstock, echo, authority, files, version):
    proxy = penstock(servers=[echo()], listen=listening(files))
    port = proxy.address.rpartition(":")[2]
    done = subprocess.run(["curl", "-sS", "--cacert", authority.ca, f"--tlsv{version}", "--tls-max", version,
                           f"https://localhost:{port}/curl"], capture_output=True, timeout=patience, check=True)
    assert json.loads(done.stdout)["line"] == "GET /curl HTTP/1.1"


def test_versions_before_1_2_and_weak_ciphers_are_refused(penstock, echo, files):
    proxy = penstock(servers=[echo()], listen=listening(files))
    assert "Cipher is (NONE)" in s_client(proxy, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in s_client(proxy, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA")
    wait_failures(proxy, version=1, cipher=1)


@pytest.mark.parametrize("offered, chosen", [
    (["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), ([], None)])
def test_the_protocol_is_agreed_upon_by_alpn(penstock, echo, authority, files, offered, chosen):
    proxy = penstock(servers=[echo()], listen=listening(files, protocols=["http1", "http2"]))
    sock = authority.client_context(offered).wrap_socket(dial(proxy.address), server_hostname="localhost")
    assert sock.selected_alpn_protocol() == chosen
    sock.close()


def test_a_client_that_shares_no_protocol_is_told_so_in_the_handshake(penstock, echo, authority, files):
    proxy = penstock(servers=[echo()], listen=listening(files))
    with pytest.raises(ssl.SSLError, match="no application protocol"):
        authority.client_context(["h2"]).wrap_socket(dial(proxy.address), server_hostname="localhost")
    wait_failures(proxy, application=1)


def test_the_name_that_a_client_asks_for_chooses_the_certificate(penstock, echo, authority):
    names = {"first": "DNS:first.test", "exact": "DNS:a.wild.test", "wild": "DNS:*.wild.test"}
    made = [dict(zip(("certificate", "key"), authority.certificate(name, alternatives)))
            for name, alternatives in names.items()]
    proxy = penstock(servers=[echo()], listen=listening({"certificates": made}))

    def shown(*asked):
        return re.search(r"subject=CN = (\w+)", s_client(proxy, *asked)).group(1)
    assert shown("-servername", "first.test") == "first"
    assert shown("-servername", "a.wild.test") == "exact"
    assert shown("-servername", "B.Wild.Test") == "wild"
    assert shown("-servername", "c.b.wild.test") == "first"
    assert shown("-servername", "nobody.test") == "first"
    assert shown("-noservername") == "first"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_is_good_on_every_loop(penstock, echo, authority, files, version):
    proxy = penstock(servers=[echo()], listen=listening(files), threads=4)
    context = authority.client_context(["http/1.1"])
    context.minimum_version = context.maximum_version = version
    client = connect(proxy, authority, context=context)
    get(client)
    # The kernel spreads 20 connections over four loops: one loop gets all of them once in 4^19 runs.
    for count in range(20):
        client = connect(proxy, authority, context=context, session=client.sock.session)
        get(client)
        assert client.sock.session_reused, count
    assert handshakes(proxy, "resumed") == 20
    assert handshakes(proxy, "full") == 1


# ---- client certificates

@pytest.fixture
def strict(penstock, echo, authority, files):
    return penstock(servers=[echo()], listen=listening({**files, "client_ca": authority.ca}))


def test_a_client_with_a_certificate_of_the_authority_is_served(strict, authority):
    context = authority.client_context(["http/1.1"])
    context.load_cert_chain(*authority.certificate("me", "DNS:me"))
    assert get(connect(strict, authority, context=context)).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_without_a_certificate_or_with_a_foreign_one_gets_an_alert(strict, authority, tmp_path, version):
    other = Authority(str(tmp_path))
    foreign = authority.client_context(["http/1.1"])
    foreign.load_cert_chain(*other.certificate("stranger", "DNS:stranger"))
    for context, alert in [(authority.client_context(["http/1.1"]), "(?i)certificate.required|handshake.failure"),
                           (foreign, "(?i)unknown.ca")]:
        context.minimum_version = context.maximum_version = version
        with pytest.raises(ssl.SSLError, match=alert):
            # With TLS 1.3 the client is done before the server has looked at its certificate.
            client = secured(dial(strict.address), authority, context=context)
            client.sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.sock.recv(1)
    wait_failures(strict, certificate=2)


# ---- what is no TLS, or not in time

def test_plain_http_on_a_tls_port_is_told_so_in_clear(penstock, echo, files):
    proxy = penstock(servers=[echo()], listen=listening(files))
    client = proxy.connect()
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = client.read_response()
    assert answer.status == 400
    assert answer["x-penstock-reason"] == "bad_request; rule=http_on_tls_port"
    assert "https://" in json.loads(answer.body)["error"]["message"]
    client.expect_end()
    wait_failures(proxy, plain_http=1)


def test_what_is_neither_is_closed_without_a_word(penstock, echo, files):
    proxy = penstock(servers=[echo()], listen=listening(files))
    client = proxy.connect()
    client.send(b"\x00\x01\x02\x03")
    client.expect_gone()
    wait_failures(proxy, protocol=1)


def test_rubbish_in_a_handshake_gets_an_alert(penstock, echo, files):
    proxy = penstock(servers=[echo()], listen=listening(files))
    client = proxy.connect()
    client.send(b"\x16\x03\x01\x00\x05hello")
    answer = client.read_to_end()
    assert answer[:3] == b"\x15\x03\x01" or answer[:1] == b"\x15", answer
    wait_failures(proxy, protocol=1)


def test_a_slow_handshake_is_cut_and_a_silent_one_too(penstock, echo, files):
    proxy = penstock(servers=[echo()], listen=listening(files), limits={"client_header_timeout": "300ms"})
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    proxy.signal(signal.SIGSTOP)            # so that the beginning is there before its time begins
    begun, silent = proxy.connect(), proxy.connect()
    begun.send(hello)
    proxy.signal(signal.SIGCONT)
    begun.expect_gone()
    silent.expect_gone()
    wait_failures(proxy, timeout=1)


def test_a_client_that_leaves_in_the_handshake_is_counted_and_a_balancers_look_is_not(penstock, echo, files):
    proxy = penstock(servers=[echo()], listen=listening(files))
    proxy.connect().close()
    left = proxy.connect()
    left.send(b"\x16\x03\x01\x02\x00\x01").close()
    wait_failures(proxy, closed=1)


def test_a_handshake_one_byte_at_a_time_succeeds(penstock, echo, authority, files):
    proxy = penstock(servers=[echo()], listen=listening(files))
    sock = dial(proxy.address)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = authority.client_context(["http/1.1"]).wrap_bio(incoming, outgoing, server_hostname="localhost")

    def step(call):
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    sock.sendall(bytes([byte]))
                incoming.write(sock.recv(100000))
    step(tls.do_handshake)
    tls.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    assert step(lambda: tls.read(100)).startswith(b"HTTP/1.1 200")
    sock.close()


# ---- bodies

def test_bodies_of_10_mib_pass_whole_in_both_directions(penstock, scripted, authority, files):
    backend = scripted()
    proxy = penstock(servers=[backend], listen=listening(files))
    client = connect(proxy, authority)
    data = os.urandom(1 << 20) * 10

    def serve():
        at_work = backend.next_request()
        body, _ = at_work.read_body()
        at_work.respond(body[::-1], fields=f"x-sha256: {hashlib.sha256(body).hexdigest()}\r\n")
    server = threading.Thread(target=serve)
    server.start()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data))
    client.send(data)
    answer = client.read_response()
    server.join()
    assert answer["x-sha256"] == hashlib.sha256(data).hexdigest()
    assert answer.body == data[::-1]


def test_many_small_records_make_one_body(penstock, scripted, authority, files):
    backend = scripted()
    proxy = penstock(servers=[backend], listen=listening(files))
    client = connect(proxy, authority)
    data = os.urandom(20000)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data))
    for at in range(0, len(data), 5):
        client.sock.send(data[at:at + 5])                 # a record each
    at_work = backend.next_request()
    assert at_work.read_body()[0] == data
    at_work.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(data), 50):
        at_work.chunk(data[at:at + 50])
    at_work.last_chunk()
    assert client.read_response().body == data


def test_a_slow_reader_costs_no_more_than_its_buffers(penstock, scripted, authority, files):
    backend = scripted()
    proxy = penstock(servers=[backend], listen=listening(files), buffer={"response": "256KiB"})
    client = connect(proxy, authority)
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    at_work = backend.next_request()
    size = 64 << 20
    at_work.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
    block = os.urandom(1 << 20)

    def serve():
        for _ in range(size // len(block)):
            at_work.send(block)
    server = threading.Thread(target=serve, daemon=True)
    server.start()
    head = client.read_until(b"\r\n\r\n")
    assert b"200 OK" in head
    # Until nothing moves any more: its buffers and the kernel's are full.
    before = -1.0
    while before != (before := proxy.metrics().value("penstock_bytes_total", side="backend", direction="in")):
        server.join(0.3)
    assert before < size / 2
    assert proxy.metrics().value("penstock_memory_reserved_bytes") <= 2 << 20
    read = len(client.pending)
    digest = hashlib.sha256(client.pending)
    client.pending = b""
    while read < size:
        part = client.read_some(1 << 20)
        digest.update(part)
        read += len(part)
    server.join()
    assert read == size
    expected = hashlib.sha256()
    for _ in range(size // len(block)):
        expected.update(block)
    assert digest.digest() == expected.digest()


def test_the_end_of_a_response_that_ends_by_close_is_said(penstock, scripted, authority, files):
    backend = scripted()
    proxy = penstock(servers=[backend], listen=listening(files))
    client = connect(proxy, authority)
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")
    at_work.close()
    assert client.read_to_end().endswith(b"\r\n\r\nall of it")
    assert client.ended == "eof"


def test_a_response_that_is_cut_does_not_look_like_its_end(penstock, scripted, authority, files):
    backend = scripted()
    proxy = penstock(servers=[backend], listen=listening(files))
    client = connect(proxy, authority)
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    client.read_until(b"half")
    at_work.reset()
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        while client.sock.recv(1000):
            pass
        raise AssertionError("that looked like an end")


def test_an_idle_connection_is_closed_with_a_goodbye(penstock, echo, authority, files):
    proxy = penstock(servers=[echo()], listen=listening(files), limits={"client_idle_timeout": "200ms"})
    client = connect(proxy, authority)
    assert get(client).status == 200
    client.expect_end()


def test_draining_serves_what_has_come_over_tls(penstock, scripted, authority, files):
    backend = scripted()
    proxy = penstock(servers=[backend], listen=listening(files))
    client = connect(proxy, authority)
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    at_work = backend.next_request()
    proxy.drain()
    at_work.respond("served")
    answer = client.read_response()
    assert (answer.body, answer["connection"]) == (b"served", "close")
    client.expect_end()
    assert proxy.wait_exit() == 0


def test_a_handshake_that_ends_while_draining_serves_what_came_with_it_and_no_more(penstock, scripted, authority,
                                                                                   files):
    backend = scripted()
    proxy = penstock(servers=[backend], listen=listening(files, protocols=["http1", "http2"]), limits={"drain": "20s"})
    sock = dial(proxy.address)
    hello = ssl.MemoryBIO()
    incoming = ssl.MemoryBIO()
    context = authority.client_context(["h2"])
    tls = context.wrap_bio(incoming, hello, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    sock.sendall(hello.read())
    incoming.write(sock.recv(1 << 16))              # it has begun
    proxy.drain()
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            sock.sendall(hello.read())
            incoming.write(sock.recv(1 << 16))
    assert tls.selected_alpn_protocol() == "h2"
    tls.write(preface + settings() + headers(1, request("GET", "/", scheme="https"), end=True))
    sock.sendall(hello.read())
    backend.next_request().respond("served")
    said = b""
    while True:
        got = sock.recv(1 << 16)
        if not got:
            break
        incoming.write(got)
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := tls.read(1 << 16):
                said += part
    assert b"served" in said
    assert frame(GOAWAY, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0") in said      # go away,
    assert frame(GOAWAY, 0, 0, b"\0\0\0\1\0\0\0\0") in said             # and this was the last
    sock.close()
    assert proxy.wait_exit() == 0


@pytest.mark.parametrize("proxy_protocol", [False, True])
def test_a_connection_on_which_nothing_has_come_does_not_hold_up_the_end(penstock, echo, files, proxy_protocol):
    listen = listening(files)
    listen[0]["proxy_protocol"] = proxy_protocol
    proxy = penstock(servers=[echo()], listen=listen, limits={"drain": "60s", "client_header_timeout": "60s"})
    silent = dial(proxy.address)
    proxy.wait_metric(lambda m: m.value("penstock_connections", side="client") == 1)
    proxy.signal(signal.SIGTERM)
    assert silent.recv(1) == b""
    assert proxy.wait_exit() == 0
    silent.close()


# ---- reload

def replace(made, *targets):
    """Each file in one step, as certbot does."""
    for source, target in zip(made, targets):
        shutil.copy(source, target + ".new")
        os.rename(target + ".new", target)


def serial_shown(proxy):
    shown = s_client(proxy, "-servername", "localhost")
    pem = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", shown, re.S).group(0)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def serial_of(path):
    with open(path, encoding="ascii") as file:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read())).hexdigest()


def test_a_hangup_signal_brings_new_certificates_and_drops_no_connection(penstock, echo, authority, tmp_path):
    certificate, key = str(tmp_path / "live.pem"), str(tmp_path / "live.key")
    replace(authority.certificate("one"), certificate, key)
    proxy = penstock(servers=[echo()], listen=listening({"certificate": certificate, "key": key}), threads=4)
    old = connect(proxy, authority)
    assert get(old).status == 200
    problems, served, stop = [], [0], threading.Event()

    def load():
        try:
            while not stop.is_set():
                client = secured(dial(proxy.address), authority)
                for _ in range(5):
                    if get(client).status != 200:
                        problems.append("not 200")
                    served[0] += 1
                client.close()
        except Exception as problem:
            problems.append(repr(problem))
    clients = [threading.Thread(target=load) for _ in range(4)]
    for thread in clients:
        thread.start()
    for turn, name in enumerate(["two", "three", "four"]):
        replace(authority.certificate(name), certificate, key)
        proxy.signal(signal.SIGHUP)
        proxy.wait_log("certificates are read again", skip=turn)
        eventually(lambda: serial_shown(proxy) == serial_of(certificate), "the new certificate")
        before = served[0]
        eventually(lambda: served[0] > before + 20, "more requests")
    stop.set()
    for thread in clients:
        thread.join()
    assert problems == []
    assert get(old).status == 200
    assert proxy.metrics().value("penstock_config_reloads_total", result="success") == 3


def test_files_that_are_no_good_are_named_and_the_old_certificate_stays(penstock, echo, authority, tmp_path):
    certificate, key = str(tmp_path / "live.pem"), str(tmp_path / "live.key")
    replace(authority.certificate("one"), certificate, key)
    proxy = penstock(servers=[echo()], listen=listening({"certificate": certificate, "key": key}))
    before = serial_shown(proxy)
    replace(authority.certificate("other")[:1], certificate)
    proxy.signal(signal.SIGHUP)
    proxy.wait_log(f"error reload: listen\\[0\\].tls.key: {key} is not the key of {certificate}")
    proxy.wait_log("certificates stay as they were")
    assert serial_shown(proxy) == before
    assert get(connect(proxy, authority)).status == 200
    proxy.wait_metric(lambda m: m.value("penstock_config_reloads_total", result="failure") == 1)


def test_a_ticket_is_good_after_a_reload(penstock, echo, authority, files):
    proxy = penstock(servers=[echo()], listen=listening(files))
    context = authority.client_context(["http/1.1"])
    client = connect(proxy, authority, context=context)
    get(client)
    proxy.signal(signal.SIGHUP)
    proxy.wait_log("certificates are read again")
    eventually(lambda: proxy.metrics().value("penstock_config_reloads_total", result="success") == 1, "a reload")
    again = connect(proxy, authority, context=context, session=client.sock.session)
    assert get(again).status == 200
    assert again.sock.session_reused


# ---- check

def checked(tmp_path, config):
    from lib.proxy import program
    path = tmp_path / "check.yaml"
    path.write_text(json.dumps(config, indent=1))
    done = subprocess.run([program(), "check", str(path)], capture_output=True, text=True, timeout=patience, check=False)
    return done.returncode, done.stdout + done.stderr


def config_with(front, **upstream):
    return {"listen": listening(front), "upstreams": {"main": {"servers": ["127.0.0.1:1"], **upstream}}}


def test_check_reads_the_files_and_points_at_what_is_wrong(authority, files, tmp_path):
    code, said = checked(tmp_path, config_with(files))
    assert code == 0, said
    other = authority.certificate("other-key")[1]
    code, said = checked(tmp_path, config_with({**files, "key": other}))
    assert code == 1
    assert re.search(r"check\.yaml:\d+:\d+: listen\[0\]\.tls\.key: .* is not the key of ", said), said
    code, said = checked(tmp_path, config_with({**files, "client_ca": "/nowhere.pem"}, tls={"ca": "/nobody.pem"}))
    assert code == 1
    assert "listen[0].tls.client_ca: /nowhere.pem cannot be read (No such file or directory)" in said, said
    assert "upstreams.main.tls.ca: /nobody.pem cannot be read" in said, said


def test_an_expired_certificate_is_a_warning(authority, tmp_path):
    old = dict(zip(("certificate", "key"), authority.certificate("old", days=-1)))
    code, said = checked(tmp_path, config_with(old))
    assert code == 0, said
    assert re.search(r"listen\[0\]\.tls\.certificate: .*has expired on \d{4}-\d\d-\d\d", said), said


def test_no_key_and_no_plaintext_is_in_a_log(penstock, echo, authority, files):
    proxy = penstock(servers=[echo()], listen=listening(files))
    client = connect(proxy, authority)
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer topsecret\r\nContent-Length: 9\r\n\r\nplaintext")
    assert client.read_response().status == 200
    s_client(proxy, "-tls1_1")
    proxy.wait_access(lambda line: line["target"] == "/x")
    with open(files["key"], encoding="ascii") as file:
        key = file.read().split("\n")[1]
    everything = proxy.log() + json.dumps(proxy.access_log())
    for secret in ("topsecret", "plaintext", key):
        assert secret not in everything
