"""A worker that does what the test says: each request goes to the test's desk (lib/desk.py) and waits there for an
order. Nothing but an order ends it: like a GPU, it does not notice that anyone hung up.

    held.py unix:/path/of/socket | held.py PORT

$DESK is the socket of the desk. $COUNTS, where set, is a folder in which each process keeps the file of counts.py.
GET /health is answered by the worker itself: 200.
"""
import json
import os
import socket
import sys
import threading

from counts import Counts

counts = Counts()


def ask_desk(facts):
    """Tells the desk and waits for its order. A desk that is gone means that the test is over."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        try:
            line.connect(os.environ["DESK"])
            line.sendall(json.dumps({"pid": os.getpid(), **facts}).encode() + b"\n")
            order = line.makefile("rb").readline()
        except OSError:
            order = b""
    if not order:
        os._exit(0)
    return json.loads(order)


def obey(order, connection):
    """True when the connection may be used on."""
    if "exit" in order:
        os._exit(order["exit"])
    if "close" in order:
        return False
    body = order.get("body", "").encode("latin-1")
    head = f"HTTP/1.1 {order.get('status', '200 OK')}\r\n{order.get('fields', '')}Content-Length: {len(body)}\r\n\r\n"
    connection.sendall(order.get("raw", "").encode("latin-1") or head.encode("latin-1") + body)
    return not order.get("then_close")


def serve(connection):
    reader = connection.makefile("rb")
    try:
        while True:
            first = reader.readline().decode("latin-1").split()
            if not first:
                return
            fields = {}
            while (field := reader.readline().decode("latin-1").rstrip("\r\n")):
                name, _, value = field.partition(":")
                fields[name.lower()] = value.strip()
            if first[1] == "/health":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            with counts:
                body = read_body(reader, fields)
                order = ask_desk({"event": "request", "method": first[0], "target": first[1], "fields": fields,
                                  "body_size": len(body)})
            if not obey(order, connection):
                return
    except OSError:      # the proxy has left: nothing that a GPU would notice
        pass
    finally:
        connection.close()


def read_body(reader, fields):
    if fields.get("transfer-encoding", "").lower() != "chunked":
        return reader.read(int(fields.get("content-length", "0")))
    body = b""
    while size := int(reader.readline().split(b";")[0], 16):
        body += reader.read(size)
        reader.readline()
    while reader.readline() not in (b"\r\n", b""):
        pass
    return body


def main():
    address = sys.argv[1]
    order = ask_desk({"event": "start", "argv": sys.argv, "environment": dict(os.environ),
                      "folder": os.getcwd(), "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))})
    for line in order.get("say", []):
        print(line, file=sys.stderr if order.get("stderr") else sys.stdout, flush=True)
    if "exit" in order:
        sys.exit(order["exit"])
    if address.startswith("unix:"):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(address[len("unix:"):])
    else:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(address)))
    listener.listen(1024)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
