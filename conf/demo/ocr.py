"""An OCR service as people write them: FastAPI under uvicorn, one model, one GPU. The GPU is played by a lock.

It is made like the real thing where that hurts. The model runs in a thread: a client that hangs up, or a proxy that
gives up on it, stops nothing, the GPU works on to the end. Kernels of several requests take turns, so that two at
once take twice as long each, and more: OCR_SLOWDOWN times more while more than one is inside.

    POST /process   runs the model on {"image": ...}; takes OCR_SECONDS on an idle GPU
    GET  /health    200 once the model is loaded
    GET  /stats     what this process has seen: requests inside now, the most that were inside at once, begun, done

Alone:             uvicorn ocr:app --port 9000
Behind penstock:   penstock exec --concurrency 1 --queue 5 -- uvicorn ocr:app --uds '${SOCKET}'
"""
import collections
import os
import threading
import time

from fastapi import Body, FastAPI

seconds_alone = float(os.environ.get("OCR_SECONDS", "1"))
slowdown = float(os.environ.get("OCR_SLOWDOWN", "1.2"))
kernels = 20      # turns on the GPU that a request takes


class Gpu:
    """Runs one kernel at a time, in the order of asking."""

    def __init__(self):
        self.guard = threading.Lock()
        self.busy = False
        self.waiting = collections.deque()

    def __enter__(self):
        with self.guard:
            if not self.busy:
                self.busy = True
                return
            turn = threading.Event()
            self.waiting.append(turn)
        turn.wait()

    def __exit__(self, *_):
        with self.guard:
            if self.waiting:
                self.waiting.popleft().set()
            else:
                self.busy = False


class Stats:
    """Enter around a request."""

    def __init__(self):
        self.lock = threading.Lock()
        self.inside = self.most_inside = self.begun = self.done = 0

    def __enter__(self):
        with self.lock:
            self.begun += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)

    def __exit__(self, *_):
        with self.lock:
            self.inside -= 1
            self.done += 1


app = FastAPI()
gpu = Gpu()
stats = Stats()


@app.post("/process")
def process(image: str = Body("", embed=True)):     # a plain def: FastAPI runs it in a thread, as theirs did
    began = time.monotonic()
    with stats:
        for _ in range(kernels):
            with gpu:
                time.sleep(seconds_alone / kernels * (slowdown if stats.inside > 1 else 1))
    return {"text": f"{len(image)} bytes of image, read", "seconds": round(time.monotonic() - began, 3),
            "worker": os.getpid()}


@app.get("/health")
async def health():
    return {"status": "ready"}


@app.get("/stats")
async def read_stats():
    return {"worker": os.getpid(), "inside": stats.inside, "most_inside": stats.most_inside,
            "begun": stats.begun, "done": stats.done}
