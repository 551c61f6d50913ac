"""Sentences that many tests say."""
import json


def assert_refused(answer, status, reason):
    """An answer of penstock's own, complete: status, reason, Retry-After, and the JSON body."""
    assert answer.status == status, (answer.head.raw, answer.body)
    assert answer["x-penstock-reason"], answer.head.raw
    assert answer["x-penstock-reason"].split(" ")[0].strip(":;,") == reason, answer.head.raw
    retry_after = answer["retry-after"]
    assert retry_after is not None and retry_after.isdigit() and 1 <= int(retry_after) <= 4320, answer.head.raw
    assert answer["content-type"].split(";")[0] == "application/json", answer.head.raw
    error = json.loads(answer.body)["error"]
    assert error["reason"].startswith(reason) and error["message"], answer.body
    assert not answer.cut


def echoed(answer):
    """What an EchoBackend said that it received; the answer must be its."""
    assert answer.status == 200, (answer.head.raw, answer.body)
    facts = json.loads(answer.body)
    facts["names"] = [name.lower() for name, _ in facts["fields"]]
    facts["get"] = lambda name: [value for known, value in facts["fields"] if known.lower() == name.lower()]
    return facts
