"""Workers that register themselves by ZeroMQ. The peers are pyzmq and msgpack, as vLLM's own engines use them."""

import json
import socket
import time

import msgpack
import pytest
import zmq

from fake_engine import FakeEngine
from harness import free_port, run, wait_for
from test_serve_bytes import reply_completion, reply_prefill

BODY = {"model": "m", "prompt": "p", "max_tokens": 4}
ROUTE = "/v1/completions"


class Pings:
    """An engine's side: a DEALER whose identity is its zmq address."""

    def __init__(self, port):
        self.context = zmq.Context()
        self.port = port
        self.sockets = {}

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.context.destroy(linger=0)

    def socket(self, who):
        if who not in self.sockets:
            s = self.context.socket(zmq.DEALER)
            s.setsockopt_string(zmq.IDENTITY, who)
            s.connect(f"tcp://127.0.0.1:{self.port}")
            self.sockets[who] = s
        return self.sockets[who]

    def ping(self, kind, engine, zmq_address="127.0.0.1:21001", **more):
        http = engine.url[len("http://"):] if hasattr(engine, "url") else engine
        data = {"type": kind, "http_address": http, "zmq_address": zmq_address, **more}
        self.socket(zmq_address + http).send(msgpack.dumps(data))


def serve(pdctl, *flags):
    port = free_port()
    return pdctl("serve", "--pd-disaggregation", "--vllm-discovery-address", f"127.0.0.1:{port}", "--retry-initial-backoff-ms", 1, *flags), port


def names(router):
    return sorted(w["url"] for w in json.loads(router.admin("GET", "/workers")[2])["workers"])


@pytest.mark.parametrize("form", ["events", "threads"])
def test_they_join_and_leave(pdctl, form):
    """Traffic within a second of the first message; out 5 s after the last; back when they ping again."""
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router, port = serve(pdctl, "--io", form)
        assert router.get("/readiness")[0] == 503 and router.post(ROUTE, BODY)[0] == 503
        with Pings(port) as pings:
            begin = time.monotonic()
            pings.ping("P", p)
            pings.ping("D", d)
            wait_for("the first answer by both", lambda: router.post(ROUTE, BODY)[1]["X-Prefill-Worker"])
            first = time.monotonic() - begin
            assert router.get("/readiness")[0] == 200 and names(router) == sorted([p.url, d.url])
            wait_for("both to be taken out", lambda: names(router) == [], timeout=30)
            gone = time.monotonic() - begin
            assert gone >= 4.9, "5 s after the last message"
            assert router.post(ROUTE, BODY)[0] == 503
            pings.ping("P", p)
            pings.ping("D", d)
            wait_for("them to be back", lambda: router.post(ROUTE, BODY)[0] == 200)
        assert first < 10 and p.seen[0].json()["max_tokens"] == 1


def test_their_addresses_go_into_ids(pdctl):
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router, port = serve(pdctl, "--kv-connector", "P2pNcclConnector")
        with Pings(port) as pings:
            pings.ping("P", p, "10.0.0.1:21001", extra={"nested": [1, None, 2.5]})
            pings.ping("D", d, "10.0.0.2:22001")
            wait_for("both to serve", lambda: router.post(ROUTE, BODY)[1]["X-Prefill-Worker"])
            assert d.seen[-1].header("x-request-id").startswith("___prefill_addr_10.0.0.1:21001___decode_addr_10.0.0.2:22001_")
            # The engine was restarted with another port for KV: what it says last counts.
            pings.ping("D", d, "10.0.0.2:22999")
            wait_for("the new address", lambda: router.post(ROUTE, BODY)[0] == 200
                     and "decode_addr_10.0.0.2:22999" in d.seen[-1].header("x-request-id"))


def test_ranks(pdctl):
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router, port = serve(pdctl)
        with Pings(port) as pings:
            pings.ping("P", p, dp_size=2)
            pings.ping("D", d.url[len("http://"):] + "@3")
            want = sorted([p.url + "@0", p.url + "@1", d.url + "@3"])
            wait_for("each rank", lambda: names(router) == want)
            wait_for("both to serve", lambda: router.post(ROUTE, BODY)[1]["X-Prefill-Worker"])
            assert d.seen[-1].header("x-data-parallel-rank") == "3" and p.seen[-1].header("x-data-parallel-rank") in ("0", "1")


def test_what_is_no_registration_changes_nothing(pdctl):
    """Unknown types, no map, too long, half a message, another protocol: the listener lives on."""
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router, port = serve(pdctl)
        with Pings(port) as pings, socket.create_connection(("127.0.0.1", port)) as wrong:
            wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
            s = pings.socket("odd")
            for bad in (b"", b"\xff", b"\x81", msgpack.dumps([1, 2]), msgpack.dumps({"type": "X", "http_address": d.url[7:]}),
                        msgpack.dumps({"type": "P"}), msgpack.dumps({"type": "P", "http_address": "no port"}),
                        msgpack.dumps({"type": "P", "http_address": "a/b:1"}), msgpack.dumps({"type": "P", "http_address": "x:1" + "y" * 600}),
                        msgpack.dumps({"type": 7, "http_address": 8}), b"\xc1" * 100, b"\x91" * 5000, b"\xdf\xff\xff\xff\xff", b"\x81\xa1a\xdd\xdd\xdd\xdd\xdd"):
                s.send(bad)
            s.send_multipart([msgpack.dumps({"type": "P", "http_address": p.url[7:], "zmq_address": "x:1"}), b"a third frame", b""])
            pings.socket("big").send(b"x" * 100000)
            pings.ping("D", d)
            wait_for("the good ones", lambda: names(router) == sorted([p.url, d.url]))
            wait_for("the warning", lambda: "registration: found" in router.log())
        assert router.log().count("registration: found") == 1, "said once"


def test_beside_listed_workers(pdctl):
    """A worker that is listed stays when its registration ends."""
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router, port = serve(pdctl, "--prefill", p.url, "--decode", d.url)
        with Pings(port) as pings:
            other = FakeEngine(reply_completion)
            pings.ping("D", d)
            pings.ping("D", other)
            wait_for("the other one", lambda: names(router) == sorted([p.url, d.url, other.url]))
            wait_for("the other one to leave", lambda: names(router) == sorted([p.url, d.url]), timeout=30)
            assert router.post(ROUTE, BODY)[0] == 200
            other.close()


def test_a_wrong_address():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for address, code, want in (("nonsense", 2, "found 'nonsense', expected HOST:PORT"), ("127.0.0.1:99999", 2, "expected HOST:PORT"),
                                    ("", 2, "expected HOST:PORT"), (f"127.0.0.1:{port}", 3, "Address already in use")):
            done = run("serve", "--pd-disaggregation", "--port", 0, "--admin-port", -1, "--vllm-discovery-address", address)
            assert done.returncode == code and "--vllm-discovery-address: " in done.stderr and want in done.stderr, (address, done)
