"""Keys: which clients come in, which key workers see, and that no key appears anywhere else."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from fake_engine import FakeEngine
from harness import free_port, parse_metrics, run, wait_for

BODY = {"model": "m", "prompt": "p"}
PATH = "/v1/completions"


def ok(seen, wire):
    wire.json({"object": "text_completion", "choices": [{"text": "x"}]})


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def keyfile(tmp_path, text):
    path = tmp_path / "keys"
    fresh = tmp_path / "fresh"
    fresh.write_text(text)
    os.replace(fresh, path)
    return path


def threads(n, call):
    """Runs call(i) n times at once and returns the results."""
    out = [None] * n

    def one(i):
        out[i] = call(i)

    all_ = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    for t in all_:
        t.start()
    for t in all_:
        t.join(60)
        assert not t.is_alive()
    return out


def metric(router, name):
    """From the port that asks for no key."""
    return parse_metrics(router.admin("GET", "/metrics")[2].decode())[name]


class Authority(FakeEngine):
    """A validation service: `good` keys get 200, others `bad`. `asked` are the keys in the order of the questions."""

    def __init__(self, good=(), bad=401):
        super().__init__()
        self.good, self.bad, self.asked, self.hold, self.drop = set(good), bad, [], None, False

    def _answer(self, seen, wire):
        key = seen.header("authorization")
        assert seen.method == "GET" and seen.target == "/check?x=1" and key.startswith("Bearer "), seen.head
        self.asked.append(key[7:])
        if self.hold:
            self.hold.wait(20)
        if self.drop:
            wire.keep = False
        elif key[7:] in self.good:
            wire.reply(200, b"{}")
        else:
            wire.reply(self.bad, b"no")

    @property
    def check_url(self):
        return self.url + "/check?x=1"


def test_only_known_keys_come_in(pdctl, tmp_path):
    path = keyfile(tmp_path, "# ours\nsk-one\n\n  sk-two#a  # of a team\r\n#sk-three\n")
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--client-api-keys", path)
        for key in ("sk-one", "sk-two#a"):
            assert router.post(PATH, BODY, bearer(key))[0] == 200
            assert router.post(PATH, BODY, {"x-api-key": key})[0] == 200
        assert router.post(PATH, BODY, {"Authorization": "bEARER   sk-one  "})[0] == 200
        assert len(engine.seen) == 5
        assert all(s.header("authorization") is None and s.header("x-api-key") is None for s in engine.seen), "the key ends here"
        wrong = [{}, bearer("sk-three"), bearer("sk-on"), bearer("sk-onee"), bearer("SK-ONE"), bearer("#"), bearer(""), bearer("sk-one sk-two"),
                 {"Authorization": "sk-one"}, {"Authorization": "Basic sk-one"}, {"Authorization": "Bearersk-one"}, {"x-api-key": "x"},
                 {**bearer("x"), "x-api-key": "sk-one"}, bearer("x" * 9000), {"api-key": "sk-one"}, {"Authorization": "Bearer\tsk-one"}]
        for fields in wrong:
            status, headers, body = router.post(PATH, BODY, fields)
            error = json.loads(body)["error"]
            assert (status, error["code"], error["type"]) == (401, 401, "authentication_error"), fields
            assert headers["WWW-Authenticate"].startswith("Bearer") and headers["Connection"] == "close"
            assert "sk-" not in error["message"]
        assert len(engine.seen) == 5
        status, _, page = router.get("/metrics", bearer("sk-one"))
        assert status == 200 and f"pdctl_unauthorized_total {len(wrong)}\n".encode() in page
        engine.check()


def test_which_routes_are_open(pdctl, tmp_path):
    path = keyfile(tmp_path, "sk-one\n")
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", "w=" + engine.url, f"http://127.0.0.1:{free_port()}", "--client-api-keys", path,
                       "--health-check-interval-secs", 0.1)
        for route in ("/health", "/liveness", "/readiness"):
            assert router.get(route)[0] in (200, 503), route
        for method, route in (("GET", "/metrics"), ("GET", "/workers"), ("GET", "/workers/w"), ("GET", "/list_workers"), ("GET", "/get_loads"),
                              ("GET", "/v1/models"), ("POST", "/reload"), ("POST", "/workers/w/undrain"), ("POST", PATH), ("GET", "/x"), ("OPTIONS", "*"),
                              ("GET", "/health/"), ("GET", "//health"), ("GET", "/health/../metrics"), ("GET", "/%68ealth"), ("GET", "/HEALTH"),
                              ("GET", "/readiness;x"), ("GET", "http://127.0.0.1:1/x")):
            assert router.request(method, route, None, {"Host": "127.0.0.1:1"})[0] == 401, (method, route)
            assert router.request(method, route, None, {"Host": "127.0.0.1:1", **bearer("sk-one")})[0] != 401, (method, route)
        assert router.get("/health?key=x")[0] in (200, 503)
        status, _, body = wait_for("the dead one to be out", lambda: (a := router.get("/health"))[2].startswith(b"Unhealthy") and a)
        assert body == b"Unhealthy servers: 1 of 2", "the open page does not name workers"


def test_a_refused_body_is_not_read(pdctl, tmp_path):
    """The answer comes with the head, and does not cost a place at the gate."""
    path = keyfile(tmp_path, "sk-one\n")
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--client-api-keys", path)
        with router.connect() as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\nExpect: 100-continue\r\n\r\n")
            assert s.recv(4096).startswith(b"HTTP/1.1 401 ")
            s.shutdown(socket.SHUT_WR)
            assert s.recv(4096) == b""
        assert b"pdctl_requests_in_work 0\n" in router.get("/metrics", bearer("sk-one"))[2]


def test_workers_see_the_routers_own_key(pdctl, tmp_path):
    secret = tmp_path / "worker-key"
    secret.write_text("sk-worker-from-file\nsecond line\n")
    with FakeEngine(ok) as engine:
        for flags, want in ((("--api-key", "sk-worker"), "Bearer sk-worker"), (("--api-key=sk-worker",), "Bearer sk-worker"),
                            (("--api-key-file", secret), "Bearer sk-worker-from-file")):
            engine.seen.clear(), engine.probes.clear()
            router = pdctl("serve", "--worker-urls", engine.url, *flags, "--health-check-interval-secs", 0.1)
            assert router.post(PATH, BODY, {**bearer("client"), "X-Api-Key": "client"})[0] == 200
            assert router.get("/v1/models")[0] == 200
            wait_for("a health check", lambda: any(s.target == "/health" for s in engine.probes))
            assert router.admin("POST", "/flush_cache")[0] == 200
            assert [s.header("authorization") for s in engine.seen] == [want] * 2 and engine.seen[0].header("x-api-key") is None
            assert {s.header("authorization") for s in engine.probes} == {want}
            with open(f"/proc/{router.proc.pid}/cmdline", "rb") as f:
                assert b"sk-worker" not in f.read(), "ps must not show it"
            router.stop()


def test_own_key_in_pd_mode(pdctl):
    def prefilled(seen, wire):
        wire.json({"choices": [], "kv_transfer_params": {"remote_block_ids": [1]}})

    with FakeEngine(prefilled) as prefill, FakeEngine(ok) as decode:
        router = pdctl("serve", "--prefill", prefill.url, "--decode", decode.url, "--api-key", "sk-worker")
        assert router.post(PATH, BODY, bearer("client"))[0] == 200
        assert [s.header("authorization") for s in prefill.seen + decode.seen] == ["Bearer sk-worker"] * 2


def test_forwarded_on_demand(pdctl, tmp_path):
    path = keyfile(tmp_path, "sk-one\n")
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--client-api-keys", path, "--forward-authorization")
        assert router.post(PATH, BODY, bearer("sk-one"))[0] == 200
        assert engine.seen[0].header("authorization") == "Bearer sk-one"


@pytest.mark.parametrize("text, place, found", [
    ("sk-good\nsk-secret1 sk-secret2\n", ":2:11:", "second word"),
    ("sk-good\n\n  sk-secr\u00e9t\n", ":3:10:", "visible ASCII"),
    ("sk-good\nsk-sec\x01ret\n", ":2:7:", "visible ASCII"),
    ("# y\nsk-secret\n# x\nsk-other\nsk-secret # again\n", ":5:1:", "duplicate key, first on line 2"),
    ("# nothing\n\n", ":1:1:", "no key"),
    ("", ":1:1:", "no key"),
    ("sk-secret" + "x" * 9000 + "\n", ":1:1:", "characters"),
])
def test_bad_files(pdctl, tmp_path, text, place, found):
    """At the start: exit 2 with the place. At a reload: the old keys stay. Never is it said what stands there."""
    path = keyfile(tmp_path, text)
    args = ("--worker-urls", "http://127.0.0.1:1", "--client-api-keys", path, "--port", 0, "--prometheus-port", -1)
    done = run("serve", *args)
    assert done.returncode == 2 and done.stdout == "" and str(path) + place in done.stderr and found in done.stderr, done.stderr
    assert "sk-sec" not in done.stderr
    keyfile(tmp_path, "sk-old\n")
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--client-api-keys", path)
        keyfile(tmp_path, text)
        status, _, body = router.admin("POST", "/reload")
        assert status == 400 and place in json.loads(body)["error"]["message"] and b"sk-sec" not in body
        assert router.post(PATH, BODY, bearer("sk-old"))[0] == 200 and router.post(PATH, BODY, bearer("sk-good"))[0] == 401
        wait_for("the log line", lambda: "reload failed" in router.log())
        assert "sk-sec" not in router.log()


def test_bad_flags(tmp_path):
    """Exit 2, the flag is named, the key is not shown."""
    empty = tmp_path / "empty"
    empty.write_text("\nsk-secret\n")
    cases = [
        (("--client-api-keys", tmp_path / "none"), "none"),
        (("--api-key", "sk-secret x"), "--api-key"),
        (("--api-key", ""), "--api-key"),
        (("--api-key", "sk-secr\u00e9t"), "--api-key"),
        (("--api-key", "sk-secret\r\nX-Evil: 1"), "--api-key"),
        (("--api-key-file", empty), "--api-key-file"),
        (("--api-key-file", tmp_path / "none"), "--api-key-file"),
        (("--api-key", "sk-secret", "--api-key-file", empty), "--api-key-file"),
        (("--api-key", "sk-secret", "--forward-authorization"), "--forward-authorization"),
        (("--forward-authorization",), "--forward-authorization"),
        (("--api-key-validation-urls", "ftp://sk-secret"), "--api-key-validation-urls"),
        (("--api-key-validation-urls", "http://"), "--api-key-validation-urls"),
        (("--api-key-validation-urls", "http://a/", "nothing"), "URL 2"),
        (("--api-key-validation-urls", *[f"http://a/{i}" for i in range(17)]), "--api-key-validation-urls"),
    ]
    for flags, found in cases:
        done = run("serve", "--worker-urls", "http://127.0.0.1:1", *flags, "--port", 0, "--prometheus-port", -1)
        assert done.returncode == 2 and found in done.stderr and "secr" not in done.stderr, (flags, done)


def test_reload_swaps_keys_under_load(pdctl, tmp_path):
    """One key stays, others come and go: the one that stays is never refused, and the others only when they are not in the file."""
    path = keyfile(tmp_path, "stays\nold0\n")
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--client-api-keys", path)
        stop, codes = threading.Event(), []

        def client():
            while not stop.is_set():
                codes.append(router.post(PATH, BODY, bearer("stays"))[0])

        clients = [threading.Thread(target=client) for _ in range(4)]
        for t in clients:
            t.start()
        try:
            for i in range(1, 30):
                keyfile(tmp_path, f"stays\nold{i}\n" + "".join(f"x{i}-{k}\n" for k in range(100 * (i % 3))))
                if i % 2:
                    assert router.admin("POST", "/reload")[0] == 200
                else:
                    router.signal(signal.SIGHUP)
                    wait_for("the reload", lambda i=i: router.post(PATH, BODY, bearer(f"old{i}"))[0] == 200)
                assert router.post(PATH, BODY, bearer(f"old{i}"))[0] == 200
                assert router.post(PATH, BODY, bearer(f"old{i - 1}"))[0] == 401
        finally:
            stop.set()
            for t in clients:
                t.join(30)
        assert set(codes) == {200} and len(codes) > 20


def test_a_hundred_thousand_keys(pdctl, tmp_path):
    path = keyfile(tmp_path, "".join(f"sk-{i:08d}-abcdefghijklmnopqrstuvwxyz\n" for i in range(100000)))
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--client-api-keys", path)
        for i in (0, 1, 50000, 99999):
            assert router.post(PATH, BODY, bearer(f"sk-{i:08d}-abcdefghijklmnopqrstuvwxyz"))[0] == 200
        assert router.post(PATH, BODY, bearer("sk-00100000-abcdefghijklmnopqrstuvwxyz"))[0] == 401
    keyfile(tmp_path, "".join(f"sk-{i}\n" for i in range(100001)))
    done = run("serve", "--worker-urls", "http://127.0.0.1:1", "--client-api-keys", path, "--port", 0, "--prometheus-port", -1)
    assert done.returncode == 2 and ":100001:1:" in done.stderr


# -- validation URLs


def asking(pdctl, engine, *authorities, flags=()):
    return pdctl("serve", "--worker-urls", engine.url, "--api-key-validation-urls", *[a.check_url for a in authorities], *flags)


def test_keys_are_asked_about_once(pdctl):
    """Fifty requests with one new key make one question; good and bad answers are remembered, for their time."""
    with FakeEngine(ok) as engine, Authority(["good"]) as who:
        router = asking(pdctl, engine, who, flags=("--api-key-validation-timeout-secs", 60))
        who.hold = threading.Event()
        done = []
        waiting = threading.Thread(target=lambda: done.extend(threads(50, lambda i: router.post(PATH, BODY, bearer("good"))[0])))
        waiting.start()
        wait_for("all to wait", lambda: metric(router, "pdctl_key_checks_waiting") == 50)
        who.hold.set()
        waiting.join(60)
        assert done == [200] * 50 and who.asked == ["good"]
        assert router.post(PATH, BODY, bearer("good"))[0] == 200 and who.asked == ["good"]
        assert [router.post(PATH, BODY, bearer("bad"))[0] for _ in range(5)] == [401] * 5 and who.asked == ["good", "bad"]
        who.good.clear()
        assert router.post(PATH, BODY, bearer("good"))[0] == 200 and who.asked == ["good", "bad"], "withdrawn, but still cached"
        assert all(s.header("authorization") is None for s in engine.seen)
        assert router.post(PATH, BODY)[0] == 401 and "" not in who.asked, "nothing is asked about no key"
        who.check()


def test_answers_about_keys_expire(pdctl):
    """A valid key that is withdrawn is refused after its time, an invalid one that becomes valid is let in after its own."""
    with FakeEngine(ok) as engine, Authority(["good"]) as who:
        router = asking(pdctl, engine, who, flags=("--api-key-valid-ttl-secs", 0.5, "--api-key-invalid-ttl-secs", 0.5))
        assert [router.post(PATH, BODY, bearer(key))[0] for key in ("good", "late")] == [200, 401]
        who.good.clear()
        who.good.add("late")
        wait_for("the withdrawn key to be refused", lambda: router.post(PATH, BODY, bearer("good"))[0] == 401)
        wait_for("the new key to be let in", lambda: router.post(PATH, BODY, bearer("late"))[0] == 200)
        who.check()


@pytest.mark.parametrize("first, second, want", [
    ("yes", "no", 200), ("no", "yes", 200), ("no", "no", 401), ("down", "yes", 200), ("down", "no", 503), ("no", "down", 503),
    ("500", "yes", 200), ("500", "no", 503), ("302", "no", 503), ("429", "no", 503), ("403", "404", 401), ("drop", "no", 503),
])
def test_two_authorities(pdctl, first, second, want):
    """One that says yes is enough; a no counts only when everybody answered."""
    def authority(kind):
        a = Authority(["k"] if kind == "yes" else [], int(kind) if kind.isdigit() else 401)
        a.drop = kind == "drop"
        if kind == "down":
            a.close()
            a.url = f"http://127.0.0.1:{free_port()}"
        return a

    with FakeEngine(ok) as engine, authority(first) as a, authority(second) as b:
        router = asking(pdctl, engine, a, b)
        status, headers, body = router.post(PATH, BODY, bearer("k"))
        assert status == want, body
        if want == 503:
            assert headers["Retry-After"] == "1" and json.loads(body)["error"]["code"] == 503
            asked = len(a.asked) + len(b.asked)
            assert router.post(PATH, BODY, bearer("k"))[0] == 503 and len(a.asked) + len(b.asked) > asked, "no answer is not remembered"
            assert metric(router, "pdctl_key_check_failures_total") == 2
        if first == "302":
            assert a.asked and not any(s.target != "/check?x=1" for s in a.seen), "redirects are not followed"


def test_file_and_urls_together(pdctl, tmp_path):
    path = keyfile(tmp_path, "sk-file\n")
    with FakeEngine(ok) as engine, Authority(["sk-url"]) as who:
        router = asking(pdctl, engine, who, flags=("--client-api-keys", path))
        assert [router.post(PATH, BODY, bearer(k))[0] for k in ("sk-file", "sk-url", "x")] == [200, 200, 401]
        assert who.asked == ["sk-url", "x"]


def test_slow_authority(pdctl):
    """It costs those who wait for it their time limit and nobody else anything; a client that leaves is not waited for."""
    with FakeEngine(ok) as engine, Authority(["good", "slow"]) as who:
        router = asking(pdctl, engine, who, flags=("--api-key-validation-timeout-secs", 5))
        assert router.post(PATH, BODY, bearer("good"))[0] == 200
        who.hold = threading.Event()
        leaver = router.connect()
        leaver.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer leaver\r\nContent-Length: 0\r\n\r\n")
        wait_for("it to wait", lambda: metric(router, "pdctl_key_checks_waiting") == 1)
        leaver.close()
        wait_for("it to be gone", lambda: metric(router, "pdctl_key_checks_waiting") == 0)
        began = time.monotonic()
        slow = []
        t = threading.Thread(target=lambda: slow.append(router.post(PATH, BODY, bearer("slow"))[0]))
        t.start()
        wait_for("it to wait", lambda: metric(router, "pdctl_key_checks_waiting") == 1)
        assert [router.post(PATH, BODY, bearer("good"))[0] for _ in range(20)] == [200] * 20
        assert not slow, "twenty others were served while one waited"
        t.join(60)
        assert slow == [503] and time.monotonic() - began > 4.9
        who.hold.set()
        wait_for("it to answer again", lambda: router.post(PATH, BODY, bearer("slow"))[0] == 200)


def test_invented_keys_push_nothing_out(pdctl):
    """A flood of bad keys costs questions, but the good ones stay remembered, and memory is bounded."""
    with FakeEngine(ok) as engine, Authority([f"good{i}" for i in range(4)]) as who:
        router = asking(pdctl, engine, who, flags=("--api-key-cache-size", 32, "--log-level", "warn"))
        for i in range(4):
            assert router.post(PATH, BODY, bearer(f"good{i}"))[0] == 200
        assert set(threads(8, lambda i: {router.post(PATH, BODY, bearer(f"bad{i}-{k}"))[0] for k in range(60)}.pop())) == {401}
        before = len(who.asked)
        for i in range(4):
            assert router.post(PATH, BODY, bearer(f"good{i}"))[0] == 200
        assert len(who.asked) == before


def test_too_many_keys_in_question(pdctl):
    """Above the bound the answer is 503 at once, and all is well again afterwards."""
    with FakeEngine(ok) as engine, Authority([]) as who:
        router = asking(pdctl, engine, who, flags=("--api-key-validation-timeout-secs", 30, "--max-connections", 2000))
        who.hold = threading.Event()
        held = []
        for i in range(512):
            s = router.connect()
            s.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k%d\r\n\r\n" % i)
            held.append(s)
        wait_for("all to wait", lambda: metric(router, "pdctl_key_checks_waiting") == 512, 30)
        status, _, body = router.post(PATH, BODY, bearer("one more"[:3]))
        assert status == 503 and b"too many key validations" in body
        who.hold.set()
        assert {s.recv(4096)[:12] for s in held} == {b"HTTP/1.1 401"}
        for s in held:
            s.close()
        assert router.post(PATH, BODY, bearer("one"))[0] == 401


def test_an_authority_that_cannot_prove_who_it_is_gets_no_key(pdctl, tmp_path):
    """https:// means that the certificate is checked, against the system's CAs."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True)
    context, got = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), []
    context.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(conn, server_side=True) as tls:
                    got.append(tls.recv(4096))
            except (ssl.SSLError, OSError) as error:
                got.append(error)

    threading.Thread(target=serve, daemon=True).start()
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--api-key-validation-urls", f"https://127.0.0.1:{listener.getsockname()[1]}/check")
        status, _, body = router.post(PATH, BODY, bearer("sk-mine"))
        assert status == 503 and b"cannot check the API key" in body and engine.seen == []
        wait_for("the reason in the log", lambda: "key validation URL 1 did not answer: SSL" in router.log())
        assert not any(isinstance(x, bytes) and x for x in got), got
    listener.close()


def test_end_while_a_key_is_in_question(pdctl):
    with FakeEngine(ok) as engine, Authority([]) as who:
        router = asking(pdctl, engine, who, flags=("--api-key-validation-timeout-secs", 60, "--drain-timeout-secs", 0.2))
        who.hold = threading.Event()
        s = router.connect()
        s.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n\r\n")
        wait_for("it to wait", lambda: metric(router, "pdctl_key_checks_waiting") == 1)
        router.signal(signal.SIGTERM)
        assert router.wait(15) == 0
        who.hold.set()
        s.close()


# -- secrets


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("mode", ["regular", "pd"])
def test_secrets_appear_nowhere(pdctl, tmp_path, mode, form):
    """Everything goes wrong that can, at log level debug; then every output is searched for every secret."""
    secrets = ["sk-FILE", "sk-WRONG", "sk-ASKED", "sk-BADASK", "sk-WORKER", "URLPASS", "COOKIEVAL", "PROXYAUTH", "sk-DOUBLE", "sk-BROKEN", "QUERYKEY"]
    path = keyfile(tmp_path, "sk-FILE\n")
    own = tmp_path / "own"
    own.write_text("sk-WORKER\n")
    outputs = []

    def fails(seen, wire):
        assert seen.header("authorization") == "Bearer sk-WORKER"
        wire.json({"error": "no"}, status=503)

    with FakeEngine(fails) as engine, Authority(["sk-ASKED"]) as who:
        url = who.check_url.replace("http://", "http://user:URLPASS@")
        dead = f"http://127.0.0.1:{free_port()}"
        pools = ("--prefill", engine.url, "--decode", dead) if mode == "pd" else ("--worker-urls", engine.url, dead)
        router = pdctl("serve", *pools, "--client-api-keys", path, "--api-key-file", own, "--log-level", "debug", "--log-format", form,
                       "--capture", tmp_path / "capture.db", "--capture-prompts", "--access-log", tmp_path / "access.log", "--access-log-format", form,
                       "--api-key-validation-urls", url, f"http://user:URLPASS@127.0.0.1:{free_port()}/x", "--retry-max-retries", 2,
                       "--health-check-interval-secs", 0.2)
        # curl sends the URL's user unless a key is given
        who._answer = lambda seen, wire: (who.asked.append(seen.head), wire.reply(200 if b"sk-ASKED" in seen.head else 401, b""))

        def see(answer):
            outputs.append(repr(answer[1].items()) + repr(answer[2]))

        extra = {"Cookie": "COOKIEVAL", "Proxy-Authorization": "Basic PROXYAUTH"}
        for key in ("sk-FILE", "sk-WRONG", "sk-ASKED", "sk-BADASK"):
            for where in (bearer(key), {"x-api-key": key}, {"Authorization": f"Basic {key}"}):
                for target in (PATH, "/x?api_key=QUERYKEY", "/workers", "/metrics", "/reload", "/get_loads", "/v1/models", "/health"):
                    see(router.request("POST" if target in (PATH, "/reload") else "GET", target, json.dumps(BODY), {**where, **extra}))
        for raw in (b"POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-DOUBLE\r\nAuthorization: Bearer sk-DOUBLE\r\n\r\n",
                    b"POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-BROKEN\n\r\n", b"sk-BROKEN\r\n\r\n",
                    b"GET /x HTTP/1.1\r\nHost: x\r\nsk-BROKEN\r\n\r\n", b"GET /sk-BROKEN HTTP/1.1\r\nHost: sk-BROKEN sk-BROKEN\r\n\r\n"):
            with router.connect() as s:
                s.sendall(raw)
                outputs.append(repr(s.recv(65536)))
        keyfile(tmp_path, "sk-FILE sk-BROKEN\n")
        see(router.admin("POST", "/reload"))
        router.signal(signal.SIGHUP)
        wait_for("the log", lambda: len(re.findall("reload[ _]failed", router.log())) >= 2)
        keyfile(tmp_path, "sk-FILE\n")
        for route in ("/metrics", "/workers", "/list_workers"):
            see(router.get(route, bearer("sk-FILE")))
        with open(f"/proc/{router.proc.pid}/cmdline", "rb") as f:
            assert b"sk-" not in f.read()
        router.signal(signal.SIGTERM)
        assert router.wait(30) == 0
        outputs += [router.log(), router.out()]
        outputs += [p.read_bytes().decode("latin-1") for p in tmp_path.glob("capture.db*")]
        assert len(outputs[-1]) > 4096
        outputs.append((tmp_path / "access.log").read_text())
        assert "401" in outputs[-1]
        router.said("told")  # it was really at work
        assert re.search('key validation URL 2|"key_validation_failed","url":2', router.log())
        for secret in secrets:
            for text in outputs:
                at = text.find(secret)
                assert at < 0, (secret, text[max(0, at - 200) : at + 100])


def test_help_shows_no_default_key():
    text = run("serve", "--help").stdout
    assert "--api-key KEY" in text and "sk-" not in text
