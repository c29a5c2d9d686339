"""Requests and answers that end in odd places: half a body, a body that turns bad after megabytes, a prefill answer that stops half way.
Each must cost its own client only."""

import json
import signal
import socket
import threading
import time

import pytest

from fake_engine import FakeEngine
from harness import free_port, run, wait_for

pytestmark = pytest.mark.both_forms

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def answer(seen, wire):
    wire.json({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})


def read_all(sock):
    parts = []
    try:
        while part := sock.recv(1 << 20):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_half_a_body_on_an_own_route_takes_no_place(pdctl):
    """Own routes do not pass the gate; when such a request never arrived whole, a place was given back that nobody had taken."""
    with FakeEngine(answer) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-concurrent-requests", 2, "--queue-size", 0)
        for path in ("/health", "/reload", "/v1/models", "/workers/x/drain"):
            with router.connect() as sock:
                sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf".encode())
                sock.shutdown(socket.SHUT_WR)
                read_all(sock)
        wait_for("it to be counted", lambda: router.metric("pdctl_requests_in_work") == 0)
        assert router.post("/v1/chat/completions", CHAT)[0] == 200
        with router.connect() as sock:  # a routed request of this kind gives its place back
            sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)
        wait_for("no request in work", lambda: router.metric("pdctl_requests_in_work") == 0)


def test_body_that_turns_bad_after_megabytes(pdctl):
    """The input buffer has moved by then; the refusal looked at the head where it had been."""
    with FakeEngine(answer) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(3):
            with router.connect() as sock:
                sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(64):
                    sock.sendall(chunk)
                sock.sendall(b"nonsense\r\n")
                assert read_all(sock).startswith(b"HTTP/1.1 400 ")
        assert router.alive()
        assert router.post("/v1/chat/completions", CHAT)[0] == 200
        wait_for("no request in work", lambda: router.metric("pdctl_requests_in_work") == 0)


def test_prefill_that_stops_in_its_answer_is_repeated_elsewhere(pdctl):
    """Silence inside the prefill answer is the worker's failure; it was taken for a client that had left, who got no answer at all."""
    def stops(seen, wire):
        wire.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(3)
        wire.keep = False

    def prefill(seen, wire):
        wire.json({"kv_transfer_params": {"remote_block_ids": [1]}, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})

    with FakeEngine(stops) as bad, FakeEngine(prefill) as good, FakeEngine(answer) as decode:
        router = pdctl("serve", "--prefill", bad.url, "--prefill", good.url, "--decode", decode.url, "--inter-token-timeout-secs", "0.3",
                       "--policy", "round_robin")
        for _ in range(4):
            status, _, body = router.post("/v1/chat/completions", CHAT)
            assert status == 200, body
            assert json.loads(body)["usage"]["prompt_tokens"] == 1
        assert bad.seen and len(decode.seen) == 4
        assert router.metric("pdctl_client_left_total") == 0
        wait_for("it to be counted", lambda: router.metric("vllm_router_running_requests") == 0)


def test_pause_of_the_client_is_not_the_workers_silence(pdctl):
    """While the client reads nothing nobody listens to the worker, so its limit between tokens must rest."""
    event = b"data: " + b"x" * 65000 + b"\n\n"

    def stream(seen, wire):
        wire.begin_stream()
        for _ in range(300):
            wire.chunk(event)
        wire.end_stream()

    with FakeEngine(stream) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--inter-token-timeout-secs", "0.3")
        with router.connect() as sock:
            body = json.dumps({**CHAT, "stream": True}).encode()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.sendall(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            time.sleep(1.5)
            assert read_all(sock).count(event) == 300
        assert router.metric("pdctl_stream_errors_total") == 0
        assert router.metric("pdctl_worker_errors_total") == 0


def test_half_an_event_in_a_chunk_of_its_own_is_not_passed_on(pdctl):
    """The last chunk alone looked like the end of an event, but with the one before it was only the end of a line: the error event of the
    router would have become part of the worker's."""
    def handler(seen, wire):
        wire.begin_stream()
        wire.event({"n": 1})
        time.sleep(0.1)
        wire.raw(b'd\r\ndata: {"n":2}\r\n1\r\n\n\r\n')
        time.sleep(0.3)
        wire.keep = False

    with FakeEngine(handler) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        status, _, body = router.post("/v1/chat/completions", {**CHAT, "stream": True})
        events = [e for e in body.split(b"\n\n") if e]
        assert status == 200 and len(events) == 2, body
        assert json.loads(events[0][6:]) == {"n": 1}
        assert json.loads(events[1][6:])["error"]["type"] == "upstream_error"


# What follows the first part (over 1 MiB) of an event, and whether it ends the event.
LARGE = b"x" * ((1 << 20) + 64)
TAILS = {
    "whole": ([b"y\n\n"], True),
    "a line end and an empty line apart": ([b"y\n", b"\n"], True),
    "crlf apart": ([b"y\r\n", b"\r\n"], True),
    "every byte apart": ([b"y", b"\r", b"\n", b"\r", b"\n"], True),
    "with the next event": ([b"y\n\ndata: {}\n\n"], True),
    "only a line": ([b"y\n"], False),
    "only a line end": ([b"\n"], False),
    "only crlf": ([b"\r\n"], False),
    "crlf in halves": ([b"\r", b"\n"], False),
    "half the next": ([b"y\n\ndata: {"], True),
    "half the next, at once": ([b"y\n\ndata: {"], True),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("after", [0, 1])
def test_a_failure_after_a_large_event(pdctl, tail, after):
    """An event above 1 MiB passes in parts. When it has ended, a failure is an error event again; within it the stream is cut."""
    parts, ends = list(TAILS[tail][0]), TAILS[tail][1]

    def handler(seen, wire):
        wire.begin_stream()
        wire.chunk(b"data: " + LARGE[100:])
        time.sleep(0.3)
        if "at once" in tail:  # what makes it too large to hold comes with its end
            wire.chunk(LARGE[:100] + parts.pop())
        else:
            wire.chunk(LARGE[:100])  # now it is above 1 MiB: all of it goes out
        for part in parts:
            time.sleep(0.05)
            wire.chunk(part)
        for n in range(after):
            time.sleep(0.05)
            wire.event({"n": n})
        time.sleep(0.3)
        wire.keep = False

    with FakeEngine(handler) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        with router.connect() as sock:
            body = json.dumps({**CHAT, "stream": True}).encode()
            sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            got = read_all_chunks(sock)
    if ends or after:  # the event after it ends it in any case
        events = [e for e in got.replace(b"\r\n", b"\n").split(b"\n\n") if e.strip()]
        assert json.loads(events[-1][6:])["error"]["type"] == "upstream_error", events[-1][-300:]
        assert events[0].startswith(b"data: " + LARGE)
    else:
        assert b"upstream_error" not in got and got.startswith(b"data: " + LARGE)


def read_all_chunks(sock):
    """The data of a chunked answer, as far as it goes."""
    rest, out = read_all(sock).split(b"\r\n\r\n", 1)[1], b""
    while b"\r\n" in rest:
        size, rest = rest.split(b"\r\n", 1)
        n = int(size, 16)
        out, rest = out + rest[:n], rest[n + 2:]
    return out


def test_metrics_while_the_router_starts(pdctl):
    """The metrics port answers before the router's own port is open; a scrape in between crashed it."""
    port, stop, pages = free_port(), threading.Event(), []

    def scrape():
        while not stop.is_set():
            try:
                # from another address: to a closed port of its own a socket can connect to itself
                with socket.create_connection(("127.0.0.1", port), timeout=5, source_address=("127.0.0.2", 0)) as sock:
                    sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                    pages.append(read_all(sock))
            except OSError:
                pass

    threads = [threading.Thread(target=scrape) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        for _ in range(12):
            router = pdctl("serve", "--worker-urls", f"http://127.0.0.1:{free_port()}", "--prometheus-port", port)
            wait_for("a page", lambda n=len(pages): any(b"pdctl_connections " in p for p in pages[n:]))
            router.stop()
    finally:
        stop.set()
        for t in threads:
            t.join()


def test_pooled_connection_that_the_worker_closed(pdctl):
    """A request that may not be sent twice does not trust a pooled connection just because it was in use a moment ago."""
    def once(seen, wire):
        answer(seen, wire)
        wire.keep = False  # and does not say so

    with FakeEngine(once) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        for i in range(20):
            status, _, body = router.post("/v1/rerank", {"query": "q"})
            assert status == 200, (i, body)
            time.sleep(0.004)
        assert len(engine.seen) == 20


def test_http_1_0_client_that_keeps_its_connection(pdctl):
    """Such a client waits for the end of the connection unless it is told that it stays open."""
    with FakeEngine(answer) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        body = json.dumps(CHAT).encode()
        with router.connect() as sock:
            for path in ("/v1/chat/completions", "/health", "/v1/chat/completions"):
                sock.sendall(b"POST %s HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
                             if path != "/health" else b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                head = b""
                while b"\r\n\r\n" not in head:
                    part = sock.recv(65536)
                    assert part, head
                    head += part
                head, _, rest = head.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ") and b"\r\nConnection: keep-alive" in head, head
                length = int(next(line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"Content-Length")))
                while len(rest) < length:
                    rest += sock.recv(65536)


def test_own_routes_insist_on_their_methods(pdctl):
    """DELETE of a worker said 200 and did nothing; HEAD of the models found none, because workers answer HEAD without a body."""
    with FakeEngine(answer) as engine:
        router = pdctl("serve", "--worker-urls", "w1=" + engine.url)
        one = "GET, HEAD, DELETE"
        for method, path, allow in (("PUT", "/workers/w1", "GET, HEAD, POST, DELETE"), ("PUT", "/workers", "GET, HEAD, POST"), ("POST", "/workers/w1", one),
                                    ("POST", "/v1/models", "GET, HEAD"), ("DELETE", "/workers/w1/drain", "POST"), ("PUT", "/flush_cache", "POST")):
            status, headers, _ = router.admin(method, path)
            assert status == 405 and headers["Allow"] == allow, (method, path, status)
        assert router.request("HEAD", "/v1/models")[0] == 200
        assert router.get("/workers/w1")[0] == 200
        assert router.get("/workers/w%31")[0] == 200
        assert not engine.seen


def test_request_ids_that_are_not_plain_text_are_replaced(pdctl):
    with FakeEngine(answer) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        for value, kept in (("abc-1 x", True), ("a\x9bb", False), ("a\tb", False), ("x" * 256, True), ("x" * 257, False)):
            status, headers, _ = router.post("/v1/chat/completions", CHAT, {"X-Request-Id": value})
            assert status == 200
            assert (headers["X-Request-Id"] == value) == kept
            assert engine.seen[-1].header("x-request-id") == headers["X-Request-Id"]


def test_health_path_must_be_a_path():
    done = run("serve", "--worker-urls", "http://127.0.0.1:1", "--port", 0, "--prometheus-port", -1, "--health-check-endpoint", "health")
    assert done.returncode == 2 and "--health-check-endpoint" in done.stderr


def test_stalled_refusal_does_not_delay_the_next_attempt(pdctl):
    """The body of an answer that is thrown away is not waited for."""
    answered, in_time = threading.Event(), []

    def refuses(seen, wire):
        wire.raw(b"HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
        in_time.append(answered.wait(20))
        wire.keep = False

    with FakeEngine(refuses) as bad, FakeEngine(answer) as good:
        router = pdctl("serve", "--worker-urls", bad.url, good.url, "--policy", "round_robin")
        for _ in range(2):
            assert router.post("/v1/chat/completions", CHAT)[0] == 200
        answered.set()
        wait_for("the refusing worker", lambda: in_time)
        assert all(in_time)


def test_models_of_a_worker_that_stalls_are_left_out(pdctl):
    """One that begins its list and goes silent does not hold the others' models for minutes."""
    gone = threading.Event()

    class Stalls(FakeEngine):
        def _answer(self, seen, wire):
            if seen.target == "/v1/models":
                wire.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
                gone.wait(60)
                wire.keep = False
            else:
                super()._answer(seen, wire)

    with Stalls() as bad, FakeEngine(models=("good",)) as good:
        router = pdctl("serve", "--worker-urls", bad.url, good.url)
        status, _, body = router.get("/v1/models")
        assert not gone.is_set()
        gone.set()
        assert status == 200 and [m["id"] for m in json.loads(body)["data"]] == ["good"]


def test_worker_names_in_answers_are_the_routers(pdctl):
    def boasts(seen, wire):
        wire.json({"choices": []}, headers=(("X-Worker", "http://evil"), ("x-decode-worker", "http://evil"), ("X-Prefill-Worker", "http://evil")))

    with FakeEngine(boasts) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        _, headers, _ = router.post("/v1/chat/completions", CHAT)
        assert headers.get_all("X-Worker") == [engine.url]
        assert headers.get_all("X-Decode-Worker") is None and headers.get_all("X-Prefill-Worker") is None


def test_end_while_workers_do_not_take_connections(pdctl):
    """SIGTERM while a request waits for a connection that nobody takes: no further worker is tried for it, and the exit is clean."""
    def silent():
        listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        fill = [socket.socket() for _ in range(4)]
        for s in fill:
            s.setblocking(False)
            s.connect_ex(listener.getsockname())
        return listener, fill

    silents = [silent() for _ in range(3)]
    urls = [f"http://127.0.0.1:{listener.getsockname()[1]}" for listener, _ in silents]
    router = pdctl("serve", "--worker-urls", *urls, "--connect-timeout-secs", 6, "--drain-timeout-secs", 0)
    with router.connect() as sock:
        body = json.dumps(CHAT).encode()
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        wait_for("the request", lambda: router.metric("pdctl_requests_in_work") == 1)
        router.signal(signal.SIGTERM)
        read_all(sock)
        assert router.wait(40) == 0
    assert "did not end" not in router.log()
