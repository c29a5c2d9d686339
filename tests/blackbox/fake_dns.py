"""A name server on a free port of 127.0.0.1, UDP and TCP, with a table that tests change.

    with FakeDns() as dns:
        dns.a("vllm.test", "127.0.0.1", "127.0.0.2", ttl=1)
        dns.srv("_http._tcp.vllm.test", ("p0.vllm.test", 8000))
        dns.failing = "servfail" | "silent" | "garbage" | "truncated" | None
"""

import ipaddress
import socket
import struct
import threading

A, AAAA, SRV, CNAME = 1, 28, 33, 5


def name_of(text):
    return b"".join(bytes([len(x)]) + x.encode() for x in text.split(".") if x) + b"\0"


class FakeDns:
    def __init__(self):
        self.lock = threading.Lock()
        self.table, self.asked, self.failing, self.closing, self.brings = {}, [], None, False, True
        while True:
            self.tcp = socket.create_server(("127.0.0.1", 0))
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self.udp.bind(("127.0.0.1", self.tcp.getsockname()[1]))
                break
            except OSError:
                self.tcp.close()
                self.udp.close()
        self.address = f"127.0.0.1:{self.tcp.getsockname()[1]}"
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self.serve_udp, self.serve_tcp)]
        for t in self.threads:
            t.start()

    @property
    def flags(self):
        return ("--dns-server", self.address)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.closing = True
        self.udp.close()
        self.tcp.close()

    def a(self, name, *addresses, ttl=1):
        self.set(name, A, [(ttl, ipaddress.ip_address(x).packed) for x in addresses if ":" not in x])
        self.set(name, AAAA, [(ttl, ipaddress.ip_address(x).packed) for x in addresses if ":" in x])

    def cname(self, name, target, ttl=1):
        self.set(name, CNAME, [(ttl, name_of(target))])

    def srv(self, name, *targets, ttl=1):
        """(target, port[, priority]) each."""
        self.set(name, SRV, [(ttl, struct.pack("!HHH", (t[2:] or (0,))[0], 1, t[1]) + name_of(t[0])) for t in targets])

    def set(self, name, kind, records):
        with self.lock:
            self.table[name, kind] = records

    def count(self, name, kind):
        with self.lock:
            return self.asked.count((name, kind))

    # -- answers --

    def answer(self, query, tcp):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        name, kind = ".".join(labels), struct.unpack("!H", query[at + 1:at + 3])[0]
        question = query[12:at + 5]
        with self.lock:
            self.asked.append((name, kind))
            table, failing = dict(self.table), self.failing
        if failing == "silent":
            return None
        if failing == "garbage":
            return query[:2] + b"\x81\x80\0\x01\0\x09\0\0\0\0" + question + b"\xc0"
        if failing == "servfail":
            return query[:2] + b"\x81\x82\0\x01\0\0\0\0\0\0" + question
        if not any(n == name for n, _ in table):
            return query[:2] + b"\x81\x83\0\x01\0\0\0\0\0\0" + question
        records, owner = [], name
        while (owner, CNAME) in table and kind != CNAME:
            for ttl, data in table[owner, CNAME]:
                records.append((owner, CNAME, ttl, data))
                owner = ".".join(self.labels(data))
        records += [(owner, kind, ttl, data) for ttl, data in table.get((owner, kind), [])]
        more = []
        if kind == SRV and self.brings:
            for _, _, _, data in records:
                target = ".".join(self.labels(data[6:]))
                more += [(target, t, ttl, d) for t in (A, AAAA) for ttl, d in table.get((target, t), [])]
        body = b"".join((b"\xc0\x0c" if n == name else name_of(n)) + struct.pack("!HHIH", t, 1, ttl, len(d)) + d for n, t, ttl, d in records + more)
        flags = b"\x81\x80"
        if (failing == "truncated" or len(body) > 1100) and not tcp:
            flags, records, more, body = b"\x83\x80", [], [], b""
        return query[:2] + flags + struct.pack("!HHHH", 1, len(records), 0, len(more)) + question + body

    @staticmethod
    def labels(data):
        out, at = [], 0
        while data[at]:
            out.append(data[at + 1:at + 1 + data[at]].decode())
            at += 1 + data[at]
        return out

    def serve_udp(self):
        while not self.closing:
            try:
                query, peer = self.udp.recvfrom(4096)
                answer = self.answer(query, False)
                if answer:
                    self.udp.sendto(answer, peer)
            except OSError:
                return

    def serve_tcp(self):
        while not self.closing:
            try:
                c, _ = self.tcp.accept()
            except OSError:
                return
            with c:
                try:
                    while head := c.recv(2, socket.MSG_WAITALL):
                        answer = self.answer(c.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL), True)
                        if answer:
                            c.sendall(struct.pack("!H", len(answer)) + answer)
                except OSError:
                    pass
