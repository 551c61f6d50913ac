"""TLS to backends: verification, names, our certificate, sessions, what fails and how that is told."""
import hashlib
import os
import socket
import ssl
import threading

import pytest

from lib import patience
from lib.backends import ScriptedBackend, address_of
from lib.certificates import Authority
from lib.wire import TooSlow, eventually


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("ca")))


class TlsBackend(ScriptedBackend):
    """A scripted backend behind TLS; `problems` are the handshakes that failed, `names` what SNI said."""

    def __init__(self, path, context):
        super().__init__(path)
        self.context = context
        self.names = []
        self.problems = []
        self.resumed = []
        context.sni_callback = lambda sock, name, _: self.names.append(name)

    def accept(self):
        while True:
            connection = super().accept()
            try:
                connection.sock = self.context.wrap_socket(connection.sock, server_side=True)
            except (ssl.SSLError, ConnectionError) as problem:
                self.problems.append(str(problem))
                self.connections.remove(connection)
                continue
            self.resumed.append(connection.sock.session_reused)
            return connection


@pytest.fixture
def secure(lab, authority):
    """secure(name, alternatives): a backend with such a certificate; context=... for one of another kind."""
    def make(name="backend", alternatives="DNS:localhost,IP:127.0.0.1", context=None, unix=False):
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*authority.certificate(name, alternatives))
            context.set_alpn_protocols(["http/1.1"])
        return lab.backend(TlsBackend, unix, context=context)
    return make


def ask(proxy, target="/"):
    client = proxy.connect()
    client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
    return client


def failures(proxy):
    return {dict(labels)["reason"]: int(number) for (name, labels), number in proxy.metrics().items()
            if name == "penstock_tls_failures_total" and dict(labels)["side"] == "backend" and number}


def accepting(backend):
    """Lets a backend whose handshakes fail see them."""
    def accept():
        try:
            backend.accept()
        except (TooSlow, OSError):
            pass
    threading.Thread(target=accept, daemon=True).start()


def test_a_request_goes_over_tls_to_a_backend_that_is_trusted(penstock, secure, authority):
    backend = secure()
    proxy = penstock(servers=[backend], tls={"ca": authority.ca})
    client = ask(proxy, "/secret")
    at_work = backend.next_request()
    assert at_work.request.target == "/secret"
    assert at_work.sock.selected_alpn_protocol() == "http/1.1"
    assert at_work.sock.version() == "TLSv1.3"
    at_work.respond("fine")
    assert client.read_response().body == b"fine"
    assert backend.names == [None]      # an address is no name
    assert failures(proxy) == {}


def test_the_server_is_asked_for_by_the_name_that_the_configuration_gives(penstock, secure, authority):
    backend = secure("named", "DNS:triton.test")
    proxy = penstock(servers=[backend], tls={"ca": authority.ca, "server_name": "triton.test"})
    client = ask(proxy)
    backend.next_request().respond("named")
    assert client.read_response().body == b"named"
    assert backend.names == ["triton.test"]


def test_a_unix_socket_needs_a_name_and_works_with_one(penstock, secure, authority):
    backend = secure("named", "DNS:triton.test", unix=True)
    proxy = penstock(servers=[backend], tls={"ca": authority.ca, "server_name": "triton.test"})
    client = ask(proxy)
    backend.next_request().respond("unix")
    assert client.read_response().body == b"unix"


@pytest.mark.parametrize("why, certificate, tls, words", [
    ("a foreign authority", "DNS:localhost,IP:127.0.0.1", {"ca": "other"}, "certificate verify failed"),
    ("another host", "DNS:elsewhere.test", {}, "IP address mismatch"),
    ("another name", "DNS:elsewhere.test", {"server_name": "here.test"}, "hostname mismatch"),
    ("the system's authorities", "DNS:localhost,IP:127.0.0.1", {"ca": None}, "certificate verify failed")])
def test_a_server_that_is_not_trusted_gets_no_request(penstock, secure, authority, tmp_path, why, certificate, tls,
                                                      words):
    backend = secure("wrong", certificate)
    settings = {"ca": authority.ca, **tls}
    if settings["ca"] == "other":
        settings["ca"] = Authority(str(tmp_path)).ca
    settings = {key: value for key, value in settings.items() if value}
    proxy = penstock(servers=[backend], tls=settings)
    accepting(backend)
    answer = ask(proxy).read_response()
    assert (answer.status, answer["x-penstock-reason"]) == (502, "connect_failure"), why
    assert words in proxy.wait_log(f"upstream main: server {backend.address}: TLS handshake: (.*)").group(1)
    assert failures(proxy)["certificate"] >= 1
    eventually(lambda: backend.problems, "an alert")
    assert "ALERT" in backend.problems[0].upper()


def test_an_expired_certificate_is_refused(penstock, secure, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("old", days=-1))
    backend = secure(context=context)
    proxy = penstock(servers=[backend], tls={"ca": authority.ca})
    accepting(backend)
    assert ask(proxy).read_response().status == 502
    proxy.wait_log("certificate has expired")


def test_verification_can_be_switched_off(penstock, secure, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(str(tmp_path)).certificate("whoever", "DNS:whoever"))
    backend = secure(context=context)
    proxy = penstock(servers=[backend], tls={"verify": False})
    client = ask(proxy)
    backend.next_request().respond("unverified")
    assert client.read_response().body == b"unverified"


def test_our_certificate_is_shown_to_a_server_that_asks_for_it(penstock, secure, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("strict"))
    context.load_verify_locations(authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    backend = secure(context=context)
    certificate, key = authority.certificate("penstock", "DNS:penstock")
    proxy = penstock(servers=[backend], tls={"ca": authority.ca, "certificate": certificate, "key": key})
    client = ask(proxy)
    at_work = backend.next_request()
    assert (("commonName", "penstock"),) in at_work.sock.getpeercert()["subject"]
    at_work.respond("known")
    assert client.read_response().body == b"known"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_next_connection_goes_on_with_the_session_of_the_last(penstock, secure, authority, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("resuming"))
    context.minimum_version = context.maximum_version = version
    backend = secure(context=context)
    proxy = penstock(servers=[backend], tls={"ca": authority.ca}, threads=1)
    for _ in range(4):
        client = ask(proxy)
        backend.next_request().respond("again", fields="Connection: close\r\n")
        assert client.read_response().status == 200
    assert backend.resumed == [False, True, True, True]
    metrics = proxy.metrics()
    assert metrics.value("penstock_tls_handshakes_total", side="backend", kind="resumed") == 3


def test_a_server_that_speaks_no_tls_is_a_connect_failure(penstock, scripted, authority):
    backend = scripted()
    proxy = penstock(servers=[backend], tls={"ca": authority.ca})
    client = ask(proxy)
    connection = backend.accept()
    connection.read_some(1)
    connection.send("HTTP/1.1 400 Bad Request\r\n\r\n")
    answer = client.read_response()
    assert (answer.status, answer["x-penstock-reason"]) == (502, "connect_failure")
    proxy.wait_log("TLS handshake: .*(wrong version number|http)")


def test_a_handshake_that_hangs_ends_with_the_time_to_connect(penstock, scripted, authority):
    backend = scripted()
    proxy = penstock(servers=[backend], tls={"ca": authority.ca}, timeouts={"connect": "300ms"}, retry={"attempts": 0})
    client = ask(proxy)
    backend.accept().read_some(1)
    answer = client.read_response()
    assert (answer.status, answer["x-penstock-reason"]) == (502, "connect_failure")
    proxy.wait_log("TLS handshake: not done in time")
    assert set(failures(proxy)) == {"timeout"}      # more than one where it was asked since whether it is up


def test_another_server_takes_what_the_untrusted_one_cannot(penstock, secure, authority):
    wrong, right = secure("wrong", "DNS:elsewhere.test"), secure("right")
    proxy = penstock(servers=[wrong, right], tls={"ca": authority.ca})
    accepting(wrong)
    for _ in range(4):
        client = ask(proxy)
        right.next_request().respond("right")
        assert client.read_response().body == b"right"


def test_bodies_of_10_mib_pass_whole_in_both_directions(penstock, secure, authority):
    backend = secure()
    proxy = penstock(servers=[backend], tls={"ca": authority.ca})
    client = proxy.connect()
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


def until_close(backend, client, end):
    at_work = backend.next_request()
    at_work.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it")
    client.read_until("half of it")
    end(at_work)


def test_a_body_that_ends_by_close_is_whole_where_tls_was_closed(penstock, secure, authority):
    backend = secure()
    proxy = penstock(servers=[backend], tls={"ca": authority.ca})
    client = ask(proxy)

    def say_goodbye(at_work):
        at_work.send(" and all")
        at_work.sock.settimeout(patience)
        at_work.sock.unwrap().close()
    until_close(backend, client, say_goodbye)
    client.read_until("0\r\n\r\n")
    proxy.wait_access(lambda line: line["status"] == 200 and "reason" not in line)


def test_a_body_that_ends_by_close_is_cut_where_tls_was_not_closed(penstock, secure, authority):
    backend = secure()
    proxy = penstock(servers=[backend], tls={"ca": authority.ca})
    client = ask(proxy)

    def vanish(at_work):
        sock = socket.socket(fileno=at_work.sock.detach())     # a FIN, and no close_notify
        sock.close()
    until_close(backend, client, vanish)
    assert b"0\r\n\r\n" not in client.read_to_end()
    proxy.wait_access(lambda line: line.get("reason") == "backend_reset")


def test_a_suspect_server_is_asked_over_tls_whether_it_is_up(penstock, lab, authority):
    """Nobody is there; then somebody who speaks no TLS, which is not up; then a server that does."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))     # nobody else's, and nobody there until it listens
    proxy = penstock(servers=[address_of(sock)], tls={"ca": authority.ca}, concurrency=1)
    assert ask(proxy).read_response().status in (502, 503)
    proxy.wait_log("server .* is down: connect")
    sock.listen()
    sock.settimeout(patience)
    clear, _ = sock.accept()
    clear.recv(1000)
    clear.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    clear.close()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("back"))
    probed, _ = sock.accept()
    tls = context.wrap_socket(probed, server_side=True)
    tls.recv(1)
    tls.close()
    proxy.wait_log("is up again")
    sock.close()


def test_a_health_check_asks_over_tls(penstock, secure, authority):
    backend = secure()
    proxy = penstock(servers=[backend], tls={"ca": authority.ca},
                     health_check={"path": "/health", "interval": "100ms", "timeout": "20s", "healthy": 1,
                                   "unhealthy": 1})
    at_work = backend.next_request()
    assert at_work.request.target == "/health"
    at_work.respond("fine")
    proxy.wait_metric(lambda metrics: metrics.value("penstock_health_checks_total", result="passed") >= 1)
