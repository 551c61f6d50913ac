"""A client that asks at a constant rate, whatever becomes of what it asked before (as vegeta does): each request at its
time, on an idle connection or a new one."""
import asyncio
from dataclasses import dataclass

from lib.load import Answer, percentile


@dataclass
class Attack:
    answers: list      # lib.load.Answer, in the order of their requests; status 0: no answer

    def counts(self):
        found = {}
        for answer in self.answers:
            found[answer.status] = found.get(answer.status, 0) + 1
        return found

    def seconds(self, *statuses):
        return sorted(answer.seconds for answer in self.answers if answer.status in statuses)

    def percentile(self, fraction, *statuses):
        return percentile(self.seconds(*statuses), fraction)


async def _ask(idle, host, port, request):
    if idle:
        reader, writer = idle.pop()
    else:
        reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    await reader.readexactly(int(fields[b"content-length"]))
    if fields.get(b"connection") == b"close":
        writer.close()
    else:
        idle.append((reader, writer))
    return int(head.split(b" ", 2)[1])


async def _attack(address, path, rate, seconds, bodies):
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.05
    idle, answers = [], []

    async def one(number):
        body = bodies[number % len(bodies)]
        request = (f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                   f"Content-Length: {len(body)}\r\n\r\n").encode() + body
        await asyncio.sleep(start + number / rate - loop.time())
        began = loop.time()
        try:
            status = await _ask(idle, host, int(port), request)
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        answers.append(Answer(loop.time() - began, status, began - start))

    await asyncio.gather(*(one(number) for number in range(int(rate * seconds))))
    for _, writer in idle:
        writer.close()
    return Attack(sorted(answers, key=lambda answer: answer.began))


def attack(address, path, rate, seconds, bodies):
    """POSTs these bodies in turn, `rate` a second for so many seconds, and waits for every answer."""
    return asyncio.run(_attack(address, path, rate, seconds, bodies))
