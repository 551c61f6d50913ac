"""A small ASGI service for load: answers after STUB_SECONDS, which it spends asleep, so that it can serve many at once.

    uvicorn stub:app --uds SOCKET

/?seconds=S takes S instead. /exit/N ends the process with N, at once. /health is 200. $COUNTS: see counts.py.
"""
import asyncio
import os
from urllib.parse import parse_qs

from counts import Counts

counts = Counts()
seconds = float(os.environ.get("STUB_SECONDS", "0.05"))


async def answer(send, status, body):
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-length", str(len(body)).encode()), (b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    path = scope["path"]
    if path == "/health":
        await answer(send, 200, b"ready\n")
        return
    if path.startswith("/exit/"):
        os._exit(int(path[len("/exit/"):]))
    asked = parse_qs(scope["query_string"].decode())
    size = 0
    with counts:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        # uvicorn lets a handler run on when its connection ends: so does this one.
        await asyncio.sleep(float(asked.get("seconds", [seconds])[0]))
    await answer(send, 200, f"{os.getpid()} read {size} bytes\n".encode())
