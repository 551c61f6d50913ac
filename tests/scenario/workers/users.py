"""Virtual users: processes of threads, each with a connection of its own, who ask again and again. They come one after
the other, evenly over the ramp. Who is refused waits as long as Retry-After says. When the time is over all of them
leave at once, whatever they wait for.

    users.py IP:PORT PROCESSES THREADS RAMP SECONDS

One line a request on stdout: when it began (seconds since the start), how long it took, the status (0: no answer).
"""
import http.client
import os
import random
import sys
import threading
import time

address, processes, threads, ramp, seconds = sys.argv[1], *map(int, sys.argv[2:4]), *map(float, sys.argv[4:6])
host, port = address.rsplit(":", 1)
threading.stack_size(256 * 1024)


def user(start, number, log):
    time.sleep(max(0.0, start + ramp * number / (processes * threads) - time.monotonic()))
    connection = http.client.HTTPConnection(host, int(port), timeout=seconds + ramp)
    while True:
        began, status, pause = time.monotonic(), 0, 0.0
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            status, pause = answer.status, float(answer.getheader("Retry-After", 0))
        except (OSError, http.client.HTTPException):
            connection.close()
            pause = 1.0
        log.append(f"{began - start:.4f},{time.monotonic() - began:.4f},{status}\n")
        if pause:
            time.sleep(pause * random.uniform(1, 1.2))     # not all together


def process(start, first, out):
    log = []
    for i in range(threads):
        threading.Thread(target=user, args=(start, first + i, log), daemon=True).start()
    time.sleep(max(0.0, start + ramp + seconds - time.monotonic()))
    os.write(out, "".join(list(log)).encode())
    os._exit(0)


start = time.monotonic() + 0.5
pipes = []
for i in range(processes):
    into, out = os.pipe()
    if os.fork() == 0:
        process(start, i * threads, out)
    os.close(out)
    pipes.append(into)
for pipe in pipes:
    with os.fdopen(pipe) as lines:
        sys.stdout.write(lines.read())
