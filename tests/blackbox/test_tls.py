"""TLS on the listener and to workers: certificates, names, client certificates, reload, failures, streams and bytes."""

import hashlib
import http.client
import json
import os
import random
import signal
import socket
import ssl
import threading
import time

import pytest

import harness
from certs import Authority
from fake_engine import FakeEngine
from harness import wait_for

pytestmark = pytest.mark.both_forms

BODY = {"model": "m", "prompt": "p", "max_tokens": 4}
LOCAL = "DNS:localhost,IP:127.0.0.1"


class World:
    def __init__(self, folder):
        self.ca = Authority(folder, "Test CA")
        self.other = Authority(folder, "Other CA")
        self.a = self.ca.issue("a", LOCAL + ",DNS:a.example")
        self.b = self.ca.issue("b", LOCAL + ",DNS:b.example,DNS:*.b.example")
        self.expired = self.ca.issue("expired", LOCAL, -9, -2)
        self.future = self.ca.issue("future", LOCAL, 3, 9)
        self.elsewhere = self.ca.issue("elsewhere", "DNS:elsewhere.example,IP:10.1.2.3")
        self.client = self.ca.issue("client", "email:c@x.example")
        self.stranger = self.other.issue("stranger", LOCAL)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("certs"))


def ok(seen, wire):
    wire.json({"object": "text_completion", "choices": [{"text": "x"}]})


def start(pdctl, world, *args, pair=None, context=None, **kw):
    """A router that serves HTTPS."""
    router = pdctl("serve", "--admin-on-data-port", *(pair or world.a).args, *args, **kw)
    assert router.url.startswith("https://")
    router.context = context or world.ca.client()
    return router


def connect(router, context, name="localhost", **kw):
    return context.wrap_socket(socket.create_connection(("127.0.0.1", router.port), timeout=20), server_hostname=name, **kw)


def subject(conn):
    return dict(x[0] for x in conn.getpeercert()["subject"])["commonName"]


def ask(conn, path="/liveness", extra=""):
    """One GET on a connection: the raw answer's head and body."""
    conn.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode())
    got = b""
    while b"\r\n\r\n" not in got:
        piece = conn.recv(65536)
        assert piece, got
        got += piece
    head, body = got.split(b"\r\n\r\n", 1)
    length = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length"))
    while len(body) < length:
        body += conn.recv(65536)
    return head, body


def in_log(process, text):
    wait_for(f"'{text}' in the log", lambda: text in process.log())


# -- the listener --


def test_private_ca(pdctl, world):
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url)
        for _ in range(3):
            assert router.post_json("/v1/completions", BODY)["choices"][0]["text"] == "x"
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(router, world.other.client())
        in_log(router, "failed: the client does not trust our certificate's CA (alert: unknown CA)")
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(router, world.ca.client(), name="not.example")
        metrics = router.metrics()
        assert metrics["pdctl_tls_handshakes_total"] == 4 and metrics["pdctl_tls_handshake_failures_total"] == 2
        assert 19 * 86400 < metrics["pdctl_tls_certificate_expiry_timestamp_seconds"] - time.time() < 21 * 86400
        engine.check()


def test_sni(pdctl, world):
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, *world.b.args, "--worker-urls", engine.url)
        context = world.ca.client()
        for name, served in (("a.example", "a"), ("b.example", "b"), ("x.b.example", "b"), ("localhost", "a"), ("127.0.0.1", "a")):
            with connect(router, context, name) as conn:
                assert subject(conn) == served, name
                assert ask(conn)[0].startswith(b"HTTP/1.1 200")
        context.check_hostname = False
        with connect(router, context, "unknown.example") as conn:
            assert subject(conn) == "a"
        with context.wrap_socket(router.connect()) as conn:  # no name at all
            assert subject(conn) == "a"


def test_protocol_versions_and_alpn(pdctl, world):
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url)
        strict = start(pdctl, world, "--worker-urls", engine.url, "--tls-min-version", "1.3")
        context = world.ca.client()
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with connect(router, context) as conn:
            assert conn.version() == "TLSv1.2" and conn.selected_alpn_protocol() == "http/1.1"
            assert ask(conn)[0].startswith(b"HTTP/1.1 200")
        with pytest.raises(ssl.SSLError):
            connect(strict, context)
        in_log(strict, "failed: no TLS version in common with the peer")
        context = world.ca.client()
        with connect(strict, context) as conn:
            assert conn.version() == "TLSv1.3"
        context.set_alpn_protocols(["h2"])
        with pytest.raises(ssl.SSLError):
            connect(router, context)


def test_sessions_are_resumed(pdctl, world):
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url)
        context = world.ca.client()
        with connect(router, context) as first:
            ask(first)
            session = first.session
        with connect(router, context, session=session) as second:
            assert second.session_reused
            ask(second)
        assert router.metrics()["pdctl_tls_resumed_total"] == 1


@pytest.mark.parametrize("mode", ["required", "optional"])
@pytest.mark.parametrize("who, why", [("client", None), (None, "the client has no certificate, and one is required"),
                                      ("stranger", "certificate 'stranger' was issued by an unknown CA 'Other CA'"),
                                      ("expired", "certificate 'expired' has expired on 20")])
def test_client_certificates(pdctl, world, mode, who, why):
    with FakeEngine(ok) as engine:
        context = world.ca.client(who and getattr(world, who))
        router = start(pdctl, world, "--worker-urls", engine.url, "--tls-client-ca", world.ca.cert, "--tls-client-verify", mode,
                       context=context)
        if why is None or (who is None and mode == "optional"):
            assert router.post_json("/v1/completions", BODY)["choices"][0]["text"] == "x"
            return
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with connect(router, context) as conn:
                ask(conn)
        in_log(router, f"failed: {why}")
        assert engine.seen == []


@pytest.mark.parametrize("request_line", ["GET /liveness", "POST /v1/completions", "DELETE /x", "OPTIONS *"])
def test_plain_http_on_the_tls_port(pdctl, world, request_line):
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url)
        with router.connect() as s:
            s.sendall(f"{request_line} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".encode())
            got = b""
            while piece := s.recv(65536):
                got += piece
        assert got.startswith(b"HTTP/1.1 400 Bad Request\r\n"), got
        assert got.endswith(b"This port speaks HTTPS: use https:// instead of http://\n")
        in_log(router, "failed: the client speaks plain HTTP, not TLS")
        assert router.get("/liveness")[0] == 200


def test_a_failed_handshake_names_an_ipv4_client_as_such(pdctl, world):
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url, "--host", "::")
        with socket.create_connection(("127.0.0.1", router.port)) as s:
            s.sendall(b"GET / HTTP/1.1\r\n\r\n")
            address = "127.0.0.1:%d" % s.getsockname()[1]
            while s.recv(65536):
                pass
        in_log(router, f"TLS handshake with {address} failed")


def test_rubbish_and_slow_handshakes(pdctl, world):
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url, "--head-timeout-secs", 1)
        rng = random.Random(3)
        for n in (1, 5, 100, 5000):
            with router.connect() as s:
                s.sendall(bytes([22, 3, 1]) + rng.randbytes(n))
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
        slow = [router.connect() for _ in range(20)]
        began = time.monotonic()
        for s in slow:
            s.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
        assert router.get("/liveness")[0] == 200, "they hold up nobody"
        for s in slow:
            assert s.recv(100) == b""
            s.close()
        assert 0.8 < time.monotonic() - began < 60
        in_log(router, "the handshake timed out")
        wait_for("no connection to be left", lambda: router.metrics()["pdctl_connections"] <= 1)


# -- reload --


class Traffic:
    """Clients that never stop: half keep their connections, half make new ones. Every failure is kept."""

    def __init__(self, router, context, n=6):
        self.router, self.context = router, context
        self.stop, self.failures, self.done, self.names = threading.Event(), [], 0, set()
        self.threads = [threading.Thread(target=self.run, args=(i % 2 == 0,)) for i in range(n)]
        for t in self.threads:
            t.start()

    def run(self, keep):
        conn = None
        try:
            while not self.stop.is_set():
                conn = conn or http.client.HTTPSConnection("127.0.0.1", self.router.port, timeout=20, context=self.context)
                conn.request("POST", "/v1/completions", json.dumps(BODY), {"Content-Type": "application/json"})
                if not keep:
                    self.names.add(subject(conn.sock))
                answer = conn.getresponse()
                assert answer.status == 200 and json.loads(answer.read())["choices"]
                self.done += 1
                if not keep:
                    conn.close()
                    conn = None
        except Exception as error:
            self.failures.append(repr(error))

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join()


def test_reload_under_traffic(pdctl, world, tmp_path):
    cert, key = str(tmp_path / "live.pem"), str(tmp_path / "live.key")
    world.a.copy_to(cert, key)
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, "--tls-min-version", "1.2", "--worker-urls", engine.url,
                       pair=type(world.a)(cert, key, "live"))
        with connect(router, world.ca.client()) as old:
            assert subject(old) == "a"
            traffic = Traffic(router, world.ca.client())
            for i in range(10):
                before = traffic.done
                (world.b, world.a)[i % 2].copy_to(cert, key)
                if i % 3 == 0:
                    assert router.post("/reload", b"")[0] == 200
                else:
                    router.signal(signal.SIGHUP)
                    wait_for("the reload", lambda: router.metric("pdctl_reloads_total") == i + 1)
                with connect(router, world.ca.client()) as fresh:
                    assert subject(fresh) == ("b", "a")[i % 2]
                wait_for("some requests", lambda: traffic.done > before + 10 or traffic.failures)
            traffic.end()
            assert not traffic.failures, traffic.failures[:3]
            assert traffic.names == {"a", "b"} and traffic.done > 100
            assert ask(old)[0].startswith(b"HTTP/1.1 200"), "the first connection goes on"
        engine.check()


def test_failed_reload_keeps_the_old_certificate(pdctl, world, tmp_path):
    cert, key = str(tmp_path / "live.pem"), str(tmp_path / "live.key")
    workers = tmp_path / "workers.yaml"
    world.a.copy_to(cert, key)
    with FakeEngine(ok) as engine, FakeEngine(ok) as other:
        workers.write_text(f"workers: [{engine.url}]\n")
        router = start(pdctl, world, "--workers-file", workers, pair=type(world.a)(cert, key, "live"))
        bad = {
            "no key of its": (lambda: world.b.copy_to(cert, str(tmp_path / "x")), "does not belong to the certificate"),
            "rubbish": (lambda: open(cert, "w").write("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), "live.pem':1: damaged"),
            "gone": (lambda: os.remove(cert), "No such file"),
        }
        for spoil, why in bad.values():
            spoil()
            workers.write_text(f"workers: [{other.url}]\n")
            status, _, body = router.post("/reload", b"")
            assert status == 400 and why in body.decode() and "nothing was changed" in body.decode(), body
            in_log(router, "reload failed, nothing was changed: ")
            with connect(router, world.ca.client()) as conn:
                assert subject(conn) == "a"
            assert router.get_json("/list_workers")["urls"] == [engine.url], "neither did the workers"
        world.b.copy_to(cert, key)
        assert router.post("/reload", b"")[0] == 200
        assert router.get_json("/list_workers")["urls"] == [other.url]
        with connect(router, world.ca.client()) as conn:
            assert subject(conn) == "b"


# -- bytes and streams --


def test_events_come_one_by_one(pdctl, world):
    """The engine sends the next event only after the client has seen the last one: anything held back stops both. Certificates are
    read again under the stream."""
    seen_by_client = threading.Semaphore(0)

    def lockstep(seen, wire):
        wire.begin_stream()
        for i in range(200):
            wire.event({"choices": [{"text": f"t{i}"}]})
            assert seen_by_client.acquire(timeout=20)
        wire.event("[DONE]")
        wire.end_stream()

    with FakeEngine(lockstep, tls=world.a.server()) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url, "--worker-ca", world.ca.cert)
        conn = http.client.HTTPSConnection("127.0.0.1", router.port, timeout=30, context=router.context)
        conn.request("POST", "/v1/completions", json.dumps({**BODY, "stream": True}), {"Content-Type": "application/json"})
        answer = conn.getresponse()
        for i in range(200):
            assert json.loads(answer.readline()[6:])["choices"][0]["text"] == f"t{i}"
            assert answer.readline() == b"\n"
            if i % 50 == 25:
                router.signal(signal.SIGHUP)
                wait_for("the reload", lambda: router.metric("pdctl_reloads_total") == i // 50 + 1)
            seen_by_client.release()
        assert answer.read() == b"data: [DONE]\n\n"
        conn.close()
        engine.check()


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("sides", ["client", "worker", "both"])
def test_large_bodies_are_the_same_bytes(pdctl, world, sides, framing):
    noise = random.Random(5).randbytes(16 << 20)
    text = json.dumps({"model": "m", "prompt": noise.hex()[: 16 << 20]}).encode()

    def big(seen, wire):
        assert hashlib.sha256(seen.body).digest() == hashlib.sha256(text).digest()
        if framing == "length":
            wire.reply(200, noise, "application/octet-stream")
        elif framing == "chunked":
            wire.begin_stream("application/octet-stream")
            for i in range(0, len(noise), 99991):
                wire.chunk(noise[i: i + 99991])
            wire.end_stream()
        else:
            wire.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n\r\n" + noise)
            wire.keep = False
            if isinstance(wire.conn, ssl.SSLSocket):
                wire.conn.unwrap()

    with FakeEngine(big, tls=None if sides == "client" else world.a.server()) as engine:
        args = ["--worker-urls", engine.url, "--worker-ca", world.ca.cert]
        router = pdctl("serve", *args) if sides == "worker" else start(pdctl, world, *args)
        for _ in range(2):
            status, _, got = router.post("/v1/completions", text, {"Content-Type": "application/json"})
            assert status == 200 and hashlib.sha256(got).digest() == hashlib.sha256(noise).digest()
        engine.check()


def test_cut_answer_is_an_error(pdctl, world):
    """Without close_notify a body that ends with the connection may be half of it."""

    def cut(seen, wire):
        wire.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: {}\n\n")
        wire.conn.shutdown(socket.SHUT_RDWR)
        wire.keep = False

    with FakeEngine(cut, tls=world.a.server()) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url, "--worker-ca", world.ca.cert)
        status, _, body = router.post("/v1/completions", {**BODY, "stream": True})
        assert status == 200 and b"data: {}\n\n" in body and b'"error"' in body and b"upstream_error" in body
        engine.check()


@pytest.mark.parametrize("whole", [True, False])
def test_an_old_client_can_tell_the_end_from_a_cut(pdctl, world, whole):
    """HTTP/1.0 ends a stream by closing; with TLS the close_notify says whether that was the end."""

    def stream(seen, wire):
        wire.begin_stream()
        wire.event("a")
        if whole:
            wire.end_stream()
        else:
            wire.conn.shutdown(socket.SHUT_RDWR)
            wire.keep = False

    with FakeEngine(stream) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url, "--disable-retries")
        body = json.dumps({**BODY, "stream": True})
        with connect(router, router.context, suppress_ragged_eofs=False) as conn:
            conn.sendall(f"POST /v1/completions HTTP/1.0\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            got, ended = b"", False
            while not ended:
                piece = conn.recv(65536)
                got, ended = got + piece, not piece
        assert b"data: a" in got and (b"upstream_error" in got) != whole


def test_too_many_connections(pdctl, world):
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url, "--max-connections", 2)
        held = [connect(router, router.context) for _ in range(2)]
        with pytest.raises(ssl.SSLError, match="alert internal error"):
            connect(router, router.context)
        for conn in held:
            assert ask(conn)[0].startswith(b"HTTP/1.1 200")
            conn.close()


def test_an_idle_connection_ends_with_a_word(pdctl, world):
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url, "--client-idle-timeout-secs", 2)
        with connect(router, router.context, suppress_ragged_eofs=False) as conn:
            ask(conn)
            assert conn.recv(1) == b""


def test_slow_reader(pdctl, world):
    """A client that reads slowly gets everything; the router's writes are partial all the time."""
    noise = random.Random(6).randbytes(4 << 20)

    def big(seen, wire):
        wire.reply(200, noise, "application/octet-stream")

    with FakeEngine(big, tls=world.a.server()) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url, "--worker-ca", world.ca.cert)
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        raw.settimeout(30)
        raw.connect(("127.0.0.1", router.port))
        with world.ca.client().wrap_socket(raw, server_hostname="localhost") as conn:
            body = json.dumps(BODY)
            conn.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            got = b""
            while len(got.partition(b"\r\n\r\n")[2]) < len(noise):
                piece = conn.recv(30000)
                assert piece
                got += piece
                if random.random() < 0.1:
                    time.sleep(0.01)
        assert got.partition(b"\r\n\r\n")[2] == noise


def test_pipelined_and_split_requests(pdctl, world):
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url)
        body = json.dumps(BODY)
        message = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        with connect(router, router.context) as conn:
            conn.sendall(message * 20)  # many requests in one record
            got = b""
            while got.count(b"text_completion") < 20:
                piece = conn.recv(65536)
                assert piece
                got += piece
            for i in range(len(message)):  # one byte per record
                conn.sendall(message[i: i + 1])
            assert b"200 Whatever" in conn.recv(65536) or b"HTTP/1.1 200" in conn.recv(65536)


@pytest.mark.parametrize("how", ["close", "reset", "close_notify"])
@pytest.mark.parametrize("begin", ["silence", "stream"])
def test_a_client_that_leaves_is_noticed_at_once(pdctl, world, begin, how):
    started, gone = threading.Event(), threading.Event()

    def watch(seen, wire):
        if begin == "stream":
            wire.begin_stream()
            wire.event("first")
        started.set()
        wire.conn.settimeout(20)
        try:
            assert wire.conn.recv(1) == b""
        except (ConnectionResetError, ssl.SSLError):
            pass
        gone.set()
        wire.keep = False

    with FakeEngine(watch, tls=world.a.server()) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url, "--worker-ca", world.ca.cert)
        conn = connect(router, router.context)
        body = json.dumps({**BODY, "stream": True})
        conn.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        assert started.wait(20)
        if begin == "stream":
            assert b"200 OK" in conn.recv(4096)
        if how == "reset":
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if how == "close_notify":
            conn.settimeout(0.1)
            try:
                conn.unwrap()
            except (OSError, ssl.SSLError):
                pass
        conn.close()
        assert gone.wait(20)
        wait_for("the client to be counted", lambda: router.metric("pdctl_client_left_total") == 1)
        worker = router.get_json("/workers")["workers"][0]
        assert worker["state"] == "available" and worker["errors"] == 0
        engine.check()


# -- workers --


def test_workers_over_https(pdctl, world):
    with FakeEngine(ok, tls=world.a.server()) as engine:
        router = pdctl("serve", "--worker-urls", f"w={engine.url}/base", "--worker-ca", world.ca.cert, "--pool-idle-timeout-secs", 2,
                       "--threads", 1)
        for _ in range(20):
            assert router.post_json("/v1/completions", BODY)["choices"][0]["text"] == "x"
        posts = [s for s in engine.seen if s.method == "POST"]
        assert posts[0].target == "/base/v1/completions" and posts[0].header("host") == f"127.0.0.1:{engine.port}"
        wait_for("the first health check, which has a connection of its own", lambda: any(s.method == "GET" for s in engine.seen))
        before = len(engine.handshakes)
        assert router.metric("pdctl_upstream_connects_total") == 1 and router.metric("pdctl_upstream_reused_total") == 19
        wait_for("the connection to be too old", lambda: router.metric("pdctl_upstream_idle") == 0)
        router.post_json("/v1/completions", BODY)
        assert router.metric("pdctl_upstream_connects_total") == 2
        assert [h[0] for h in engine.handshakes[before:]] == [True], "the second connection resumes the session"
        engine.check()


def test_prefill_and_decode_over_https(pdctl, world):
    workers = [pdctl("worker", "--model", "m", "--role", role, "--strict", *world.a.args, "--kv-ca", world.ca.cert)
               for role in ("prefill", "decode")]
    plain = pdctl("worker", "--model", "m")
    router = start(pdctl, world, "--pd-disaggregation", "--prefill", workers[0].url, "--decode", workers[1].url,
                   "--worker-ca", world.ca.cert)
    for w in workers:
        w.context = world.ca.client()
    for stream in (False, True):
        body = {"model": "m", "prompt": "one two three " * 50, "max_tokens": 8, "stream": stream}
        status, headers, got = router.post("/v1/completions", body)
        assert status == 200, got
        assert headers["X-Prefill-Worker"] == workers[0].url and headers["X-Decode-Worker"] == workers[1].url
        assert b"length" in got
        if not stream:
            assert json.loads(got)["choices"][0]["text"] == plain.post_json("/v1/completions", body)["choices"][0]["text"]
    for w in workers:
        assert w.metric("pdctl_worker_protocol_mistakes_total") == 0
    assert workers[1].metric("pdctl_worker_kv_blocks_read_total") > 0


def test_questions_of_the_admin_port(pdctl, world):
    workers = [pdctl("worker", "--model", "m", *world.a.args) for _ in range(2)]
    router = pdctl("serve", "--worker-urls", *[w.url for w in workers], "--worker-ca", world.ca.cert, "--admin-on-data-port")
    assert router.post("/flush_cache", b"")[::2] == (200, b"Cache flushed on all servers")
    assert router.get_json("/v1/models")["data"][0]["id"] == "m"
    workers.append(pdctl("worker", "--model", "m", *world.expired.args))
    status, _, body = router.post("/workers", {"url": workers[2].url})
    assert status in (200, 201, 202), body
    in_log(router, f"worker {workers[2].url}: not healthy yet: TLS: certificate 'expired' has expired on 20")


def test_client_certificate_for_workers(pdctl, world):
    with FakeEngine(ok, tls=world.a.server(client_ca=world.ca.cert)) as engine:
        right = pdctl("serve", "--worker-urls", engine.url, "--worker-ca", world.ca.cert,
                      "--worker-cert", world.client.cert, "--worker-key", world.client.key, "--health-check-interval-secs", 0.1)
        assert right.post_json("/v1/completions", BODY)["choices"][0]["text"] == "x"
        assert all(h[1] for h in engine.handshakes)
        wait_for("a health check", lambda: engine.probes)
        assert right.get("/health")[2] == b"All servers healthy"
    worker = pdctl("worker", "--model", "m", *world.a.args, "--tls-client-ca", world.ca.cert)
    why = {
        (): "the server asks for a client certificate (alert: certificate required)",
        ("--worker-cert", world.stranger.cert, "--worker-key", world.stranger.key): "(alert: ",
        ("--worker-cert", world.expired.cert, "--worker-key", world.expired.key): "(alert: certificate expired)",
    }
    for args, text in why.items():
        router = pdctl("serve", "--worker-urls", worker.url, "--worker-ca", world.ca.cert, "--disable-retries",
                       "--health-check-interval-secs", 0.2, *args)
        status, _, body = router.post("/v1/completions", BODY)
        assert status == 502 and text in json.loads(body)["error"]["message"], body
        in_log(router, text)
        wait_for("the worker to be out", lambda: router.get("/health")[2].startswith(b"Unhealthy"))


@pytest.mark.parametrize("what, why", [
    ("expired", "certificate 'expired' has expired on 20"),
    ("future", "certificate 'future' is not valid before 20"),
    ("elsewhere", "certificate is for elsewhere.example, 10.1.2.3, expected 127.0.0.1"),
    ("stranger", "certificate 'stranger' was issued by an unknown CA 'Other CA'"),
])
def test_wrong_workers_are_refused(pdctl, world, what, why):
    with FakeEngine(ok, tls=getattr(world, what).server()) as engine:
        router = pdctl("serve", "--worker-urls", f"https://127.0.0.1:{engine.port}", "--worker-ca", world.ca.cert,
                       "--health-check-interval-secs", 0.2)
        for _ in range(3):
            status, _, body = router.post("/v1/completions", BODY)
            assert status in (502, 503) and engine.seen == []
            said = why.replace("127.0.0.1", "the worker")  # a client learns no address
            assert said in json.loads(body)["error"]["message"], "whether it was tried or is out already"
        in_log(router, f"worker https://127.0.0.1:{engine.port}: TLS: {why}")
        wait_for("the worker to be out", lambda: router.get("/health")[2].startswith(b"Unhealthy"))
        time.sleep(0.6)
        assert router.get("/health")[2].startswith(b"Unhealthy"), "its health checks fail as well"


def test_a_worker_that_speaks_plain_http(pdctl, world):
    worker = pdctl("worker", "--model", "m")
    router = pdctl("serve", "--worker-urls", f"https://127.0.0.1:{worker.port}", "--worker-ca", world.ca.cert, "--disable-retries")
    status, _, body = router.post("/v1/completions", BODY)
    assert status == 502 and b"the server does not speak TLS (is it http:// and not https://?)" in body, body


def test_a_worker_that_never_ends_its_handshake(pdctl, world):
    """It takes the connection and says nothing: the connect timeout ends it, another worker serves; a client that leaves ends it too."""
    mute = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{mute.getsockname()[1]}"
    with FakeEngine(ok, tls=world.a.server()) as engine:
        router = pdctl("serve", "--worker-urls", url, engine.url, "--worker-ca", world.ca.cert, "--policy", "round_robin",
                       "--connect-timeout-secs", 2)
        for _ in range(4):
            assert router.post_json("/v1/completions", BODY)["choices"][0]["text"] == "x"
        in_log(router, f"worker {url}: TLS: the handshake timed out")
    patient = pdctl("serve", "--worker-urls", url, "--worker-ca", world.ca.cert, "--health-check-interval-secs", 300,
                    "--connect-timeout-secs", 300)
    s = patient.connect()
    body = json.dumps(BODY)
    s.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    wait_for("the request to be in work", lambda: patient.metrics()["pdctl_requests_in_work"] == 1)
    s.close()
    wait_for("it to be over", lambda: patient.metrics()["pdctl_requests_in_work"] == 0)
    wait_for("it to be counted", lambda: patient.metric("pdctl_client_left_total") == 1)
    mute.close()


def test_a_renewed_worker_certificate_comes_back(pdctl, world):
    with FakeEngine(ok, tls=world.expired.server()) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--worker-ca", world.ca.cert, "--health-check-interval-secs", 0.1)
        wait_for("the worker to be out", lambda: router.get("/health")[2].startswith(b"Unhealthy"))
        in_log(router, "TLS: certificate 'expired' has expired on 20")
        engine.tls = world.a.server()
        wait_for("the worker to be back", lambda: router.get("/health")[2] == b"All servers healthy", timeout=20)
        assert router.post_json("/v1/completions", BODY)["choices"][0]["text"] == "x"


def test_insecure_is_never_silent(pdctl, world):
    with FakeEngine(ok, tls=world.expired.server()) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--worker-tls-insecure", "--health-check-interval-secs", 0.1)
        in_log(router, "--worker-tls-insecure: the certificates of workers are not verified")
        assert router.post_json("/v1/completions", BODY)["choices"][0]["text"] == "x"
        wait_for("a health check", lambda: engine.probes)
        assert router.get("/health")[2] == b"All servers healthy"


def test_worker_ca_is_reloaded(pdctl, world, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(open(world.other.cert, "rb").read())
    with FakeEngine(ok, tls=world.a.server()) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--worker-ca", ca, "--health-check-interval-secs", 0.1)
        assert router.post("/v1/completions", BODY)[0] in (502, 503)
        ca.write_bytes(open(world.ca.cert, "rb").read())
        router.signal(signal.SIGHUP)
        wait_for("the worker to be back", lambda: router.get("/health")[2] == b"All servers healthy", timeout=20)
        assert router.post_json("/v1/completions", BODY)["choices"][0]["text"] == "x"


def test_half_of_the_workers_are_wrong(pdctl, world):
    """Retries go to the worker whose certificate is right; clients see nothing."""
    with FakeEngine(ok, tls=world.elsewhere.server()) as bad, FakeEngine(ok, tls=world.a.server()) as good:
        router = pdctl("serve", "--worker-urls", bad.url, good.url, "--worker-ca", world.ca.cert, "--policy", "round_robin")
        for _ in range(20):
            assert router.post_json("/v1/completions", BODY)["choices"][0]["text"] == "x"
        assert bad.seen == [] and len(good.seen) == 20


# -- other commands, wrong usage --


def test_bench_over_https(pdctl, world):
    worker = pdctl("worker", "--model", "m", "--prefill-tokens-per-s", 0, "--decode-ms-per-token", 0, *world.a.args)
    router = start(pdctl, world, "--worker-urls", worker.url, "--worker-ca", world.ca.cert)
    done = harness.run("bench", "--base-url", router.url, "--ca-file", world.ca.cert, "--num-prompts", 20, "--output-len", 4, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["completed"] == 20
    done = harness.run("bench", "--base-url", router.url, "--num-prompts", 2, "--model", "m")
    assert done.returncode != 0
    done = harness.run("bench", "--base-url", router.url, "--ca-file", "/no/such")
    assert done.returncode == 2 and "--ca-file: cannot read '/no/such'" in done.stderr


def test_expired_certificate_of_our_own_is_named(pdctl, world):
    with FakeEngine(ok) as engine:
        router = start(pdctl, world, "--worker-urls", engine.url, pair=world.expired)
        in_log(router, "expired.pem' has expired on 20")


@pytest.mark.parametrize("args, why", [
    (["--tls-cert", "{missing}"], "--tls-cert: certificate: cannot open '{missing}': No such file"),
    (["--tls-cert", "{a.cert}"], "found only certificates, expected '-----BEGIN PRIVATE KEY-----'"),
    (["--tls-cert", "{a.cert}", "--tls-key", "{b.key}"], "does not belong to the certificate '{a.cert}'"),
    (["--tls-cert", "{a.key}", "--tls-key", "{a.key}"], "found only a private key, expected '-----BEGIN CERTIFICATE-----'"),
    (["--tls-cert", "{a.cert}", "--tls-cert", "{b.cert}", "--tls-key", "{a.key}"], "--tls-key: found 1, expected one for each of the 2 --tls-cert"),
    (["--tls-key", "{a.key}"], "--tls-key requires --tls-cert FILE"),
    (["--tls-client-ca", "{a.cert}"], "--tls-client-ca requires --tls-cert FILE"),
    (["--tls-cert", "{a.cert}", "--tls-key", "{a.key}", "--tls-client-verify", "required"], "--tls-client-verify required requires --tls-client-ca FILE"),
    (["--worker-ca", "{a.key}"], "--worker-ca: CA file '{a.key}': found only a private key"),
    (["--worker-ca", "{missing}"], "--worker-ca: CA file: cannot open '{missing}': No such file"),
    (["--worker-key", "{a.key}"], "--worker-key requires --worker-cert FILE"),
    (["--worker-ca", "{a.cert}", "--worker-tls-insecure"], "--worker-ca and --worker-tls-insecure cannot be combined"),
])
def test_wrong_files_and_options(world, tmp_path, args, why):
    def fill(text):
        return text.format(missing=tmp_path / "missing.pem", a=world.a, b=world.b)

    done = harness.run("serve", "--port", 0, "--prometheus-port", -1, "--worker-urls", "http://127.0.0.1:1", *map(fill, args))
    assert done.returncode == 2, done.stderr
    assert fill(why) in done.stderr
    assert done.stdout == ""


def test_reload_needs_something_to_reload(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--admin-on-data-port")
        status, _, body = router.post("/reload", b"")
        assert status == 400 and b"no --workers-file, no --client-api-keys, no --admin-api-key-file and no certificate" in body
