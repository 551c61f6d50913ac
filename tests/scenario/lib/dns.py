"""A nameserver for tests: answers A and AAAA over UDP as the test says, and counts what it was asked."""
import ipaddress
import socket
import struct
import threading

A, AAAA = 1, 28


class NameServer:
    """`names[name]` is a list of addresses; None: SERVFAIL; "silent": no answer; "truncated": the
    part of one that fits. A name that is not there: NXDOMAIN."""

    def __init__(self, **names):
        self.names = {name.replace("_", "."): addresses for name, addresses in names.items()}
        self.asked = []
        self.changed = threading.Condition()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.sock.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                packet, client = self.sock.recvfrom(4096)
            except OSError:
                return
            if not packet:
                return
            answer = self._answer(packet)
            if answer:
                self.sock.sendto(answer, client)

    def _answer(self, packet):
        labels, at = [], 12
        while packet[at]:
            labels.append(packet[at + 1:at + 1 + packet[at]].decode())
            at += 1 + packet[at]
        kind = struct.unpack("!H", packet[at + 1:at + 3])[0]
        question = packet[12:at + 5]                   # sent back as it came, letter case and all
        name = ".".join(labels).lower()
        with self.changed:
            self.asked.append((name, kind))
            self.changed.notify_all()
            known = self.names.get(name, "unknown")
        if known == "silent":
            return None
        code = {"unknown": 3}.get(known, 0) if isinstance(known, str) else 2 if known is None else 0
        records = b""
        count = 0
        flags = 0x8380 if known == "truncated" else 0x8180
        for text in known if isinstance(known, list) else ["127.0.0.9"] if known == "truncated" else []:
            address = ipaddress.ip_address(text)
            if (address.version == 4) == (kind == A):
                records += struct.pack("!HHHIH", 0xc00c, kind, 1, 60, len(address.packed)) + address.packed
                count += 1
        return packet[:2] + struct.pack("!HHHHH", flags | code, 1, count, 0, 0) + question + records

    def say(self, name, addresses):
        with self.changed:
            self.names[name] = addresses

    def forget(self, name):
        with self.changed:
            del self.names[name]

    def wait_asked(self, name, times, before=30):
        """Until it was asked so often for this name's A."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.asked.count((name, A)) >= times, before), self.asked

    def count(self, name):
        with self.changed:
            return self.asked.count((name, A))

    def close(self):
        port = self.sock.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", port))
        self.thread.join()
        self.sock.close()
