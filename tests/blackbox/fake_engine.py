"""An engine that does exactly what a test says, byte for byte, and keeps the bytes it received.

    with FakeEngine(lambda seen, wire: wire.json({"ok": True})) as engine:
        ... engine.url ... engine.seen[0].body

The handler runs on the connection's thread, gets the request and a Wire to answer on, and may wait as long as it likes.
"""

import json
import socket
import threading


class Seen:
    """One request: method, target, headers as [(name, value)] in their order, the de-chunked body, the raw head."""

    def __init__(self, head, body):
        lines = head.decode("latin-1").split("\r\n")
        self.head = head
        self.method, self.target, self.version = lines[0].split(" ")
        self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:] if line]
        self.body = body

    def header(self, name):
        values = [v for n, v in self.headers if n.lower() == name.lower()]
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    def json(self):
        return json.loads(self.body)


class Wire:
    """Where a handler answers."""

    def __init__(self, conn):
        self.conn = conn
        self.keep = True

    def raw(self, data):
        self.conn.sendall(data)

    def reply(self, status, body, content_type="application/json", headers=()):
        extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        self.raw(head.encode("latin-1") + body)

    def json(self, value, status=200, headers=()):
        self.reply(status, json.dumps(value).encode(), headers=headers)

    def begin_stream(self, content_type="text/event-stream", headers=()):
        extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.raw(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n{extra}\r\n".encode())

    def chunk(self, data):
        self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, data):
        text = data if isinstance(data, str) else json.dumps(data)
        self.chunk(b"data: " + text.encode() + b"\n\n")

    def end_stream(self):
        self.raw(b"0\r\n\r\n")


class FakeEngine:
    def __init__(self, handler=None, models=("m",), tls=None, port=0):
        self.tls = tls  # an ssl.SSLContext: https
        self.handshakes = []  # (resumed, client certificate) of each connection
        self.handler = handler
        self.models = models
        self.metrics = None  # a function: the text of /metrics, None: 404
        self.seen = []  # requests that reached the handler
        self.probes = []  # health checks and the like, answered here
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self.conns = set()
        self.closed = False
        self.broken = []  # what went wrong on a connection's thread
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.closed = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # else a thread in accept keeps the port
        except OSError:
            pass
        self.listener.close()
        with self.lock:
            conns = list(self.conns)
        for conn in conns:
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.conns.add(conn)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        try:
            if self.tls:
                conn = self._handshake(conn)
            with conn, conn.makefile("rb") as reader:
                wire = Wire(conn)
                while wire.keep:
                    seen = self._read(reader)
                    if seen is None:
                        return
                    self._answer(seen, wire)
        except OSError:
            pass  # the router left; some tests make it
        except Exception as error:  # a wrong request or a wrong test: shown by check()
            self.broken.append(repr(error))
        finally:
            with self.lock:
                self.conns.discard(conn)

    def _handshake(self, raw):
        conn = self.tls.wrap_socket(raw, server_side=True)
        with self.lock:
            self.conns.discard(raw)
            self.conns.add(conn)
            self.handshakes.append((conn.session_reused, conn.getpeercert()))
        return conn

    @staticmethod
    def _read(reader):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = reader.readline()
            if not line:
                return None
            head += line
        seen = Seen(head[:-4], b"")
        coding = seen.header("transfer-encoding")
        if coding:
            assert coding == "chunked" and seen.header("content-length") is None, seen.head
            while True:
                size = int(reader.readline().split(b";")[0], 16)
                seen.body += reader.read(size)
                assert reader.read(2) == b"\r\n"
                if size == 0:
                    return seen
        length = int(seen.header("content-length") or 0)
        seen.body = reader.read(length)
        return seen if len(seen.body) == length else None

    def _answer(self, seen, wire):
        if seen.method == "GET" and seen.target == "/metrics" and self.metrics:
            text = self.metrics()
            wire.reply(200 if text is not None else 404, (text or "").encode(), "text/plain")
        elif seen.method == "GET" and seen.target in ("/health", "/metrics", "/load"):
            self.probes.append(seen)
            wire.reply(200, b"", "text/plain")
        elif seen.method == "GET" and seen.target == "/v1/models":
            self.probes.append(seen)
            wire.json({"object": "list", "data": [{"id": m, "object": "model"} for m in self.models]})
        else:
            self.seen.append(seen)
            self.handler(seen, wire)

    def check(self):
        assert not self.broken, self.broken
