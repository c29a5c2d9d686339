"""What carries bench's requests besides plain HTTP/1.1: TLS with and without a look at the certificate, HTTP/2, proxies."""

import itertools
import json
import socket
import threading

import pytest
from certs import Authority
from fake_engine import FakeEngine
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from harness import run


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certs"), "Bench CA")


ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}


def answer(seen, wire):
    wire.json(ANSWER)


def bench(url, *args, code=0):
    done = run("bench", "--base-url", url, "--model", "m", "--num-prompts", 4, "--max-concurrency", 2, "--no-stream", "--json",
               "--save-detailed", *args)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.mark.parametrize("transport", ["pdctl", "curl"])
def test_certificates(ca, transport):
    pair = ca.issue(f"bench-{transport}", "IP:127.0.0.1")
    with FakeEngine(answer, tls=pair.server()) as engine:
        known = bench(engine.url, "--ca-file", ca.cert, "--transport", transport)
        assert known["completed"] == 4 and len(engine.seen) == 4
        stranger = bench(engine.url, "--transport", transport, code=1)
        assert stranger["completed"] == 0 and len(engine.seen) == 4, "no request goes to a server that nobody vouches for"
        assert any("certificate" in e for e in stranger["errors"]), stranger["errors"]
        assert bench(engine.url, "--insecure", "--transport", transport)["completed"] == 4 and len(engine.seen) == 8
    elsewhere = ca.issue(f"elsewhere-{transport}", "DNS:a.example")
    with FakeEngine(answer, tls=elsewhere.server()) as engine:
        assert bench(engine.url, "--ca-file", ca.cert, "--transport", transport, code=1)["completed"] == 0, "a certificate for another name"
        assert bench(engine.url, "--insecure", "--transport", transport)["completed"] == 4


class Http2Server:
    """Answers each request of a connection over HTTP/2, as python3-h2 speaks it; `seen` has a (connection, body) for each."""

    def __init__(self, context=None):
        self.seen, self.context, self.listener = [], context, socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.listener.getsockname()[1]}"

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        for number in itertools.count():
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client, number), daemon=True).start()

    def serve(self, client, number):
        bodies, pending = {}, True
        with self.context.wrap_socket(client, server_side=True) if self.context else client as client:
            h2 = H2Connection(H2Configuration(client_side=False))
            h2.initiate_connection()
            while pending:
                client.sendall(h2.data_to_send())
                pending = client.recv(65536)
                for event in h2.receive_data(pending):
                    if isinstance(event, DataReceived):
                        bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                    elif isinstance(event, StreamEnded):
                        self.seen.append((number, json.loads(bodies.pop(event.stream_id))))
                        h2.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/json")])
                        h2.send_data(event.stream_id, json.dumps(ANSWER).encode(), end_stream=True)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_http2(ca, scheme):
    context = None
    if scheme == "https":
        context = ca.issue("h2", "IP:127.0.0.1").server()
        context.set_alpn_protocols(["h2"])
    with Http2Server(context) as server:
        doc = bench(server.url, "--http2", "--transport", "curl", "--ca-file", ca.cert)
        assert doc["completed"] == 4 and [body["model"] for _, body in server.seen] == ["m"] * 4
        if context:
            assert len({connection for connection, _ in server.seen}) <= 2, "connections are used again"


def test_http2_that_the_server_does_not_speak(ca):
    with FakeEngine(answer, tls=ca.issue("h1", "IP:127.0.0.1").server()) as engine:
        doc = bench(engine.url, "--http2", "--transport", "curl", "--ca-file", ca.cert, code=1)
    assert doc["completed"] == 0 and set(doc["errors"]) == {"the server does not speak HTTP/2"}


def test_proxy(pdctl):
    """A proxy gets the whole URL as its target."""
    with FakeEngine(answer) as engine:
        doc = bench("http://server.invalid:81", "--proxy", engine.url, "--transport", "curl")
        assert doc["completed"] == 4
        assert {s.target for s in engine.seen} == {"http://server.invalid:81/v1/chat/completions"}
        assert {s.header("host") for s in engine.seen} == {"server.invalid:81"}


@pytest.mark.parametrize("flag", [("--http2",), ("--proxy", "http://127.0.0.1:1")])
def test_what_only_curl_can(flag):
    done = run("bench", "--base-url", "http://127.0.0.1:1", "--model", "m", "--num-prompts", 1, *flag)
    assert done.returncode == 2 and flag[0] in done.stderr and "--transport curl" in done.stderr, done.stderr
