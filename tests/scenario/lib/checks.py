"""Sentences that many tests say."""
import json
import re
from types import SimpleNamespace

from lib.backends import EchoBackend


def assert_refused(answer, status, reason):
    """An answer of penstock's own, complete: status, reason, Retry-After, and the JSON body."""
    assert answer.status == status, (answer.head.raw, answer.body)
    assert re.match(reason + r"\b", answer["x-penstock-reason"] or ""), answer.head.raw
    retry_after = answer["retry-after"]
    assert retry_after is not None and retry_after.isdigit() and 1 <= int(retry_after) <= 4320, answer.head.raw
    assert (answer["content-type"] or "").split(";")[0] == "application/json", answer.head.raw
    error = json.loads(answer.body)["error"]
    assert error["reason"].startswith(reason) and error["message"], answer.body
    assert not answer.cut


def echoed(answer):
    """What an EchoBackend says that it received (the answer must be its), with .get(name) -> values."""
    assert answer.status == 200, (answer.head.raw, answer.body)
    facts = SimpleNamespace(**json.loads(answer.body))
    facts.names = [name.lower() for name, _ in facts.fields]
    facts.get = lambda name: [value for known, value in facts.fields if known.lower() == name.lower()]
    return facts


def assert_connection_is_not_used_again(table, client, at_work):
    """The client's next request is served, and on another backend connection."""
    client.get("/next")
    fresh = table.backend.next_request()
    assert fresh is not at_work and fresh.request.target == "/next"
    fresh.respond("next", fields="Connection: close\r\n")
    assert client.read_response().body == b"next"


class Table:
    """One penstock before an EchoBackend, for tables of raw requests."""

    def __init__(self, lab, **settings):
        self.backend = lab.backend(EchoBackend)
        self.proxy = lab.penstock(servers=[self.backend], **settings)
        self.barriers = 0

    def nothing_more_since(self, seen):
        """The backend got nothing since it had seen that many requests: one that is sent now is the next."""
        self.barriers += 1
        barrier = f"/barrier/{self.barriers}"
        echoed(self.proxy.get(barrier))
        assert self.backend.targets()[seen:] == [barrier]

    def refuses(self, raw, status=400, reason="bad_request"):
        """The request is answered with the status, its connection closed, and no backend hears of it."""
        seen = len(self.backend.seen)
        client = self.proxy.connect().send(raw)
        answer = client.read_response()
        assert_refused(answer, status, reason)
        assert "close" in answer.head.list("connection"), answer.head.raw
        client.expect_end()
        self.nothing_more_since(seen)

    def refuses_dripped(self, raw):
        """The same request byte by byte is answered with the same status and rule as at once."""
        reasons = []
        for step in (1, len(raw)):
            client = self.proxy.connect().drip(raw, step)
            answer = client.read_response()
            client.expect_end()
            reasons.append((answer.status, answer["x-penstock-reason"]))
        assert reasons[0] == reasons[1] and reasons[0][0] >= 400

    def passes(self, raw):
        """The request reaches the backend; returns what arrived there (as echoed())."""
        client = self.proxy.connect().send(raw)
        facts = echoed(client.read_response())
        # Whatever was sent has been understood as one request: the next one on the connection is itself.
        client.get("/next")
        assert echoed(client.read_response()).line == "GET /next HTTP/1.1"
        client.close()
        return facts
