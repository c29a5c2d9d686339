"""Requests and answers that end in odd places: half a body, a body that turns bad after megabytes, a prefill answer that stops half way.
Each must cost its own client only."""

import json
import socket
import time

from fake_engine import FakeEngine
from harness import wait_for

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def answer(seen, wire):
    wire.json({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})


def read_all(sock):
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def test_half_a_body_on_an_own_route_takes_no_place(pdctl):
    """Own routes do not pass the gate; when such a request never arrived whole, a place was given back that nobody had taken."""
    with FakeEngine(answer) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-concurrent-requests", 2, "--queue-size", 0)
        for path in ("/health", "/reload", "/v1/models", "/workers/x/drain"):
            with router.connect() as sock:
                sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf".encode())
                sock.shutdown(socket.SHUT_WR)
                read_all(sock)
        assert router.metric("pdctl_requests_in_work") == 0
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
        assert router.metric("pdctl_requests_in_work") == 0


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
        assert router.metric("vllm_router_running_requests") == 0
