"""Clients that leave, dawdle or speak old HTTP, and bodies of every size, in regular mode."""

import hashlib
import json
import os
import random
import socket
import threading
import time

import pytest

from fake_engine import FakeEngine
from harness import wait_for

pytestmark = pytest.mark.both_forms

BODY = {"model": "m", "prompt": "p", "max_tokens": 4}
LONG = os.environ.get("PDCTL_LONG") == "1"
ABORTS = int(os.environ.get("PDCTL_ABORTS", 10000 if LONG else 2000))


def ok(seen, wire):
    wire.json({"object": "text_completion", "choices": [{"text": "x"}]})


def head(body, path="/v1/completions", version="1.1", extra=""):
    return f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode()


def message(body=None, **kw):
    raw = json.dumps(body or BODY).encode()
    return head(raw, **kw) + raw


def read_answer(s):
    """One answer with Content-Length: (status, head, body)."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = s.recv(65536)
        assert piece, f"the connection ended after {got!r}"
        got += piece
    top, body = got.split(b"\r\n\r\n", 1)
    length = next(int(x.split(b":")[1]) for x in top.split(b"\r\n") if x.lower().startswith(b"content-length"))
    while len(body) < length:
        body += s.recv(65536)
    assert len(body) == length
    return int(top.split()[1]), top, body


def read_end(s):
    """Everything until the router ends the connection."""
    got = b""
    while True:
        try:
            piece = s.recv(65536)
        except ConnectionResetError:
            return got
        if not piece:
            return got
        got += piece


def idle(router):
    """True when nothing is counted as in work, anywhere in the router."""
    m = router.metrics()
    running = sum(v for k, v in m.items() if k.startswith("vllm_router_running_requests"))
    loads = sum(w["load"] for w in router.get_json("/get_loads")["workers"])
    return m["pdctl_requests_in_work"] == 0 and m["pdctl_requests_waiting"] == 0 and running == 0 and loads == 0


class Watcher:
    """An engine that starts an answer (or not) and then measures when the router leaves."""

    def __init__(self, begin):
        self.begin, self.started, self.gone, self.at = begin, threading.Event(), threading.Event(), None

    def __call__(self, seen, wire):
        if self.begin == "stream":
            wire.begin_stream()
            wire.event("first")
        elif self.begin == "body":
            wire.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        self.started.set()
        wire.conn.settimeout(20)
        try:
            assert wire.conn.recv(1) == b""
        except ConnectionResetError:
            pass
        self.at = time.monotonic()
        self.gone.set()
        wire.keep = False


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("begin", ["silence", "stream", "body"])
def test_a_client_that_leaves_is_noticed_at_once(pdctl, begin, how):
    watcher = Watcher(begin)
    with FakeEngine(watcher) as engine:
        router = pdctl("serve", "--worker-urls", "w0=" + engine.url, "--cb-failure-threshold", 1)
        s = router.connect()
        s.sendall(message({**BODY, "stream": begin != "body"}))
        assert watcher.started.wait(20)
        if begin == "stream":
            assert b"200 OK" in s.recv(4096)
        else:
            time.sleep(0.05)
        left = time.monotonic()
        if how == "reset":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.shutdown(socket.SHUT_WR) if how == "half-close" else s.close()
        assert watcher.gone.wait(20)
        took = watcher.at - left
        print(f"the worker saw the end after {took * 1e3:.1f} ms")
        assert took < 10, "no other limit ends it earlier than 30 s"
        s.close()
        wait_for("the counts to be zero", lambda: idle(router))
        worker = router.get_json("/workers")["workers"][0]
        assert worker["state"] == "available" and worker["errors"] == 0, "the worker is not to blame"
        wait_for("it to be counted", lambda: router.metric("pdctl_client_left_total") == 1)
        engine.check()


def test_half_close_may_be_allowed(pdctl):
    go = threading.Event()

    def late(seen, wire):
        go.wait(10)
        ok(seen, wire)

    with FakeEngine(late) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--half-close")
        with router.connect() as s:
            s.sendall(message())
            s.shutdown(socket.SHUT_WR)
            wait_for("the request", lambda: engine.seen)
            time.sleep(0.1)
            go.set()
            assert read_answer(s)[0] == 200


def test_a_client_that_leaves_stops_the_engine(pdctl):
    worker = pdctl.worker("--decode-ms-per-token", 50)
    router = pdctl("serve", "--worker-urls", worker.url)
    for stream in (True, False):
        s = router.connect()
        s.sendall(message({**BODY, "max_tokens": 2000, "stream": stream}))
        wait_for("the request to run", lambda: worker.metric("pdctl_worker_running") == 1)
        s.close()
        wait_for("the engine to stop", lambda: worker.metric("pdctl_worker_running") == 0, 40)  # alone it runs for 100 s
    assert worker.metric("pdctl_worker_aborted_requests_total") == 2


def test_slow_reader_is_dropped_at_the_stall_limit(pdctl):
    """A client that never reads: the worker is held back, then released; the router's memory stays bounded."""
    sent = [0]
    gone = threading.Event()

    def flood(seen, wire):
        wire.begin_stream()
        try:
            while True:
                wire.event("x" * 60000)
                sent[0] += 60000
        except OSError:
            gone.set()
            raise

    with FakeEngine(flood) as engine:
        router = pdctl("serve", "--worker-urls", "w0=" + engine.url, "--write-stall-timeout-secs", 1)
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", router.port))
        began = time.monotonic()
        s.sendall(message({**BODY, "stream": True}))
        assert gone.wait(25), "the worker was never released"
        assert time.monotonic() - began > 0.8
        assert sent[0] < 64 << 20, "buffers are bounded"
        wait_for("the counts to be zero", lambda: idle(router))
        assert router.metric("pdctl_write_stalls_total") == 1
        assert router.get_json("/workers")["workers"][0]["state"] == "available"
        s.close()


def test_a_reader_that_is_slow_but_reads_is_served(pdctl):
    with FakeEngine(lambda seen, wire: wire.reply(200, b"y" * 3000000, "application/octet-stream")) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--write-stall-timeout-secs", 2)
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        s.settimeout(20)
        s.connect(("127.0.0.1", router.port))
        s.sendall(message())
        got = 0
        while got < 3000000:
            piece = s.recv(200000)
            assert piece, f"cut after {got}"
            got += len(piece)
            time.sleep(0.1)
        s.close()


def test_slowloris(pdctl):
    """A head, and a body, that arrive byte by byte meet an absolute limit; others are served meanwhile."""
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--head-timeout-secs", 1, "--max-concurrent-requests", 2)
        slow = [router.connect() for _ in range(8)]
        stop = time.monotonic() + 40
        ended = {}
        while time.monotonic() < stop and len(ended) < len(slow):
            for i, s in enumerate(slow):
                if i in ended:
                    continue
                try:
                    s.sendall(b"G")
                    s.settimeout(0.001)
                    ended[i] = s.recv(4096)
                except TimeoutError:
                    pass
                except OSError:
                    ended[i] = b"reset"
            assert router.post("/v1/completions", BODY)[0] == 200
            time.sleep(0.1)
        assert len(ended) == len(slow), "a head may not take for ever"
        assert any(b" 408 " in v for v in ended.values())
        assert router.metric("pdctl_read_timeouts_total") == 8
        for s in slow:
            s.close()


def test_slow_body_gives_its_place_back(pdctl):
    """Half a body holds a place; when its client leaves, the place is free again."""
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-concurrent-requests", 1, "--queue-size", 0)
        with router.connect() as s:
            s.sendall(head(b"x" * 100) + b"x" * 50)
            wait_for("the place to be taken", lambda: router.metric("pdctl_requests_in_work") == 1)
            assert router.post("/v1/completions", BODY)[0] == 429
        wait_for("the place to be free", lambda: idle(router))
        assert router.post("/v1/completions", BODY)[0] == 200
        assert engine.seen and all(x.json() == BODY for x in engine.seen)


def test_body_limit_is_readable_by_a_client_that_still_sends(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-payload-size", 1000)
        for framing in ("length", "chunked"):
            with router.connect() as s:
                total = 8 << 20
                if framing == "length":
                    s.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {total}\r\n\r\n".encode())
                else:
                    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % total)
                s.sendall(b"x" * total)
                status, top, raw = read_answer(s)
                assert status == 413 and b"onnection: close" in top and "error" in json.loads(raw)
        assert engine.seen == []
        assert router.post("/v1/completions", BODY)[0] == 200


def test_pipelined_requests_are_answered_in_order(pdctl):
    def echo(seen, wire):
        wire.json({"n": seen.json()["n"]})

    with FakeEngine(echo) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        with router.connect() as s:
            s.sendall(b"".join(message({"n": i}) for i in range(20)))
            reader = s.makefile("rb")
            for i in range(20):
                assert reader.readline().startswith(b"HTTP/1.1 200")
                length = 0
                while (line := reader.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length"):
                        length = int(line.split(b":")[1])
                assert json.loads(reader.read(length)) == {"n": i}


def test_http_1_0_clients(pdctl):
    """No chunks for them: an answer of known length, and a stream that ends with the connection."""
    worker = pdctl.worker("--speedup", 100)
    router = pdctl("serve", "--worker-urls", worker.url)
    for stream in (False, True):
        with router.connect() as s:
            s.sendall(message({**BODY, "stream": stream}, version="1.0"))
            got = read_end(s)
        top, body = got.split(b"\r\n\r\n", 1)
        assert b"200 OK" in top and b"hunked" not in top and b"onnection: close" in top
        assert body.endswith(b"data: [DONE]\n\n") if stream else json.loads(body)["object"] == "text_completion"


def test_head_requests_carry_no_body(pdctl):
    def big(seen, wire):
        length = 123456 if seen.method == "HEAD" else 2
        wire.raw(f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n".encode())
        if seen.method != "HEAD":
            wire.raw(b"ok")

    with FakeEngine(big) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        with router.connect() as s:
            s.sendall(b"HEAD /files/1 HTTP/1.1\r\nHost: x\r\n\r\nGET /files/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            got = read_end(s)
        first, second = got.split(b"HTTP/1.1 200")[1:]
        assert b"Content-Length: 123456" in first and first.endswith(b"\r\n\r\n") and second.endswith(b"\r\n\r\nok")
        for path in ("/health", "/metrics"):
            status, headers, raw = router.request("HEAD", path)
            assert status == 200 and raw == b"" and int(headers["Content-Length"]) > 0


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 64 << 20])
def test_bodies_pass_byte_identical(pdctl, size):
    """Both ways, with bytes that no parser would like."""
    rng = random.Random(size)
    data = rng.randbytes(size)

    def echo(seen, wire):
        wire.reply(200, seen.body, "application/octet-stream")

    with FakeEngine(echo) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        began = time.monotonic()
        status, _, raw = router.request("POST", "/v1/audio/transcriptions", data, {"Content-Type": "application/octet-stream"})
        print(f"{size} bytes there and back in {time.monotonic() - began:.2f} s")
        assert status == 200 and len(raw) == size
        assert hashlib.sha256(raw).digest() == hashlib.sha256(data).digest()


def test_overload_is_refused_before_memory_is_spent(pdctl):
    """Twenty clients with 64 MB bodies for one place: the router never holds more than the ones it works on."""
    release = threading.Event()

    def hold(seen, wire):
        release.wait(20)
        ok(seen, wire)

    def rss():
        with open(f"/proc/{router.proc.pid}/status", encoding="ascii") as f:
            return next(int(x.split()[1]) for x in f if x.startswith("VmHWM")) << 10

    with FakeEngine(hold) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-concurrent-requests", 1, "--queue-size", 2)
        first = router.connect()
        first.sendall(message())
        wait_for("the place to be taken", lambda: engine.seen)
        before = rss()
        size = 64 << 20
        waiting = [router.connect() for _ in range(20)]
        for s in waiting:
            s.setblocking(False)
            s.send(head(b"x" * 0).replace(b"Content-Length: 0", b"Content-Length: %d" % size))
            try:
                while s.send(b"x" * 65536):
                    pass
            except BlockingIOError:
                pass
        wait_for("the refusals", lambda: router.metric("pdctl_queue_full_total") == 18)
        assert rss() - before < 48 << 20, "no body was read"
        release.set()
        for s in waiting:
            s.close()
        assert read_answer(first)[0] == 200
        first.close()
        wait_for("the counts to be zero", lambda: idle(router))


def abort_once(port, rng):
    """One request that is abandoned at a random moment: in the head, in the body, while waiting, in the stream."""
    raw = json.dumps({**BODY, "max_tokens": rng.randint(1, 30), "stream": rng.random() < 0.7, "user": str(rng.random())}).encode()
    data = head(raw) + raw
    moment = rng.choice(("head", "body", "wait", "stream", "stream", "end"))
    s = socket.create_connection(("127.0.0.1", port), timeout=30)
    try:
        if moment == "head":
            s.sendall(data[: rng.randint(1, len(data) - len(raw) - 1)])
        elif moment == "body":
            s.sendall(data[: rng.randint(len(data) - len(raw), len(data) - 1)])
        else:
            s.sendall(data)
        if moment == "wait":
            time.sleep(rng.random() * 0.005)
        elif moment == "stream":
            s.recv(rng.randint(1, 2000))
        elif moment == "end":
            s.settimeout(0.2)
            try:
                while s.recv(65536):
                    pass
            except TimeoutError:
                pass
        if rng.random() < 0.3:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    except OSError:
        pass
    finally:
        s.close()


def test_random_aborts_end_at_zero_everywhere(pdctl):
    workers = [pdctl.worker("--decode-ms-per-token", 2, "--speedup", 4, "--max-num-seqs", 16, "--log-level", "error") for _ in range(3)]
    router = pdctl(
        "serve", "--worker-urls", *[w.url for w in workers], "--max-concurrent-requests", 24, "--queue-size", 8, "--log-level", "error"
    )
    fds = len(os.listdir(f"/proc/{router.proc.pid}/fd"))

    def client(seed, n):
        rng = random.Random(seed)
        for _ in range(n):
            abort_once(router.port, rng)

    threads = [threading.Thread(target=client, args=(i, ABORTS // 40)) for i in range(40)]
    began = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print(f"{ABORTS} aborts in {time.monotonic() - began:.1f} s")
    wait_for("the router's counts to be zero", lambda: idle(router), 20)
    for w in workers:
        wait_for("the workers' counts to be zero", lambda: w.metric("pdctl_worker_running") == 0, 20)
    m = router.metrics()
    assert m["pdctl_connections"] == 1, "only the connection that asks"
    assert sum(v for k, v in m.items() if k.startswith("pdctl_client_left_total")) > 0
    for w in router.get_json("/workers")["workers"]:
        assert w["state"] == "available" and w["errors"] == 0, w
    wait_for("idle worker connections to be closed", lambda: len(os.listdir(f"/proc/{router.proc.pid}/fd")) <= fds + 2, 15)
    assert router.post("/v1/completions", BODY)[0] == 200
