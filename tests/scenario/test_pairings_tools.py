"""The pairings with programs that others wrote: curl, nghttp, h2load and openssl before penstock, nghttpd behind it."""
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile

import pytest

from lib import patience
from lib.backends import unused_address
from lib.certificates import Authority
from lib.pairs import PairBackend, kinds, over_tls, pattern
from lib.wire import eventually

sizes = {"empty": 0, "one": 1, "64K": 64 << 10, "10M": 10 << 20}


class Nghttpd:
    """Serves the files of a folder, with a trailer behind each."""

    def __init__(self, path=None, folder=None, credentials=None):
        self.address = unused_address()
        port = self.address.rpartition(":")[2]
        tls = [credentials[1], credentials[0]] if credentials else []
        options = [] if credentials else ["--no-tls"]
        self.process = subprocess.Popen(["nghttpd", *options, "-d", folder, "--trailer", "x-end: yes", "--address=127.0.0.1",
                                         port, *tls], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(self.accepts, "nghttpd")

    def accepts(self):
        assert self.process.poll() is None, "nghttpd has ended"
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port))).close()
            return True
        except ConnectionRefusedError:
            return False

    def close(self):
        self.process.terminate()
        self.process.wait()


class House:
    def __init__(self, folder, lab):
        self.folder = folder
        self.authority = authority = Authority(folder)
        files = os.path.join(folder, "files")
        os.mkdir(files)
        for name, size in sizes.items():
            with open(os.path.join(files, name), "wb") as file:
                file.write(pattern(size))
        clear = lab.backend(Nghttpd, folder=files)
        secure = lab.backend(Nghttpd, folder=files, credentials=authority.certificate("nghttpd"))
        certificate, key = authority.certificate("front")
        upstreams = {"nghttpd-h2c": {"servers": [clear.address], "protocol": "http2"},
                     "nghttpd-h2s": {"servers": [secure.address], "protocol": "http2", "tls": {"ca": authority.ca}}}
        for kind in kinds:
            upstreams[kind] = lab.backend(PairBackend, speaks=kind, authority=authority).upstream()
        self.proxy = lab.penstock({
            "listen": [{"address": "127.0.0.1:0"},
                       {"address": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}}],
            "upstreams": upstreams,
            "routes": [{"prefix": f"/{name}/", "upstream": name, "strip_prefix": True} for name in upstreams]})

    def url(self, front, path):
        port = self.proxy.addresses[1 if over_tls[front] else 0].rpartition(":")[2]
        return f"{'https' if over_tls[front] else 'http'}://localhost:{port}{path}"


@pytest.fixture(scope="module")
def house(shared_lab):
    folder = tempfile.mkdtemp(prefix="penstock-tools-")
    yield House(folder, shared_lab)
    shutil.rmtree(folder, ignore_errors=True)


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, timeout=3 * patience, **more).stdout


def curl(house, front, path, *options, **more):
    """What it wrote."""
    speaks = {"h1": ["--http1.1"], "h1s": ["--http1.1"], "h2c": ["--http2-prior-knowledge"], "h2s": ["--http2"]}
    return run("curl", "-sS", "--noproxy", "*", "-4", "--cacert", house.authority.ca, *speaks[front], *options,
               house.url(front, path), **more)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("back", ["nghttpd-h2c", "nghttpd-h2s"])
@pytest.mark.parametrize("front", kinds)
def test_curl_gets_the_files_of_nghttpd(house, front, back):
    for name, size in sizes.items():
        assert sha256(curl(house, front, f"/{back}/{name}")) == sha256(pattern(size))
    head = curl(house, front, f"/{back}/64K", "-I").decode().lower()
    assert head.startswith("http/2 200" if front.startswith("h2") else "http/1.1 200")
    assert "content-length: 65536" in head
    assert "404" in curl(house, front, f"/{back}/nothing", "-o", "/dev/null", "-w", "%{http_code}").decode()


@pytest.mark.parametrize("back", kinds)
@pytest.mark.parametrize("front", kinds)
def test_curl_uploads_and_downloads(house, front, back):
    body = pattern(10 << 20)
    path = os.path.join(house.folder, "up")
    with open(path, "wb") as file:
        file.write(body)
    facts = json.loads(curl(house, front, f"/{back}/take", "-T", path))
    assert (facts["method"], facts["size"], facts["sha256"]) == ("PUT", len(body), sha256(body))
    # Without a length, and back again.
    with open(path, "rb") as file:
        back_again = curl(house, front, f"/{back}/echo", "-X", "POST", "-T", "-", stdin=file)
    assert sha256(back_again) == sha256(body)


@pytest.mark.parametrize("back", kinds)
@pytest.mark.parametrize("front", ["h2c", "h2s"])
def test_nghttp_fetches_many_at_once(house, front, back):
    urls = [house.url(front, f"/{back}/give/{65536 + number}") for number in range(30)]
    told = run("nghttp", "-ns", *urls).decode()
    assert told.count(" 200 ") == 30, told


@pytest.mark.parametrize("back", ["nghttpd-h2c", "nghttpd-h2s", *kinds])
@pytest.mark.parametrize("front", kinds)
def test_h2load_meets_no_error(house, front, back):
    path = f"/{back}/one" if back.startswith("nghttpd") else f"/{back}/give/1"
    h1 = ["--h1"] if front.startswith("h1") else []
    told = run("h2load", *h1, "-n", "600", "-c", "4", "-m", "1" if h1 else "32", house.url(front, path)).decode()
    assert re.search(r"requests: 600 total, 600 started, 600 done, 600 succeeded, 0 failed, 0 errored, 0 timeout", told), told


@pytest.mark.parametrize("back", kinds)
def test_openssl_speaks_http1_by_hand(house, back):
    port = house.proxy.addresses[1].rpartition(":")[2]
    asked = f"GET /{back}/give/5 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    told = run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", house.authority.ca, "-verify_return_error",
               "-quiet", "-ign_eof", "-alpn", "http/1.1", input=asked)
    assert told.startswith(b"HTTP/1.1 200 ") and told.endswith(b"\r\n\r\n" + pattern(5))
