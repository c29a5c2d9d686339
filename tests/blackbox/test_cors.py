"""Pages in browsers: the router answers preflights in every mode and under every setting, and speaks for its workers."""

import threading

import pytest

import harness
from fake_engine import FakeEngine

PAGE = "https://chat.example"
BODY = {"model": "m", "prompt": "p"}
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-stainless-os"}


def ok(seen, wire):
    """An engine with a CORS rule of its own, as vLLM has one."""
    wire.json({"choices": [{"text": "x"}]}, headers=[("Access-Control-Allow-Origin", "https://engine.example"), ("Vary", "Accept")])


def values(headers, name):
    return [v for n, v in headers.items() if n.lower() == name.lower()]


def preflight(router, headers=PREFLIGHT, path="/v1/chat/completions"):
    status, headers, raw = router.request("OPTIONS", path, None, headers)
    assert (status, raw, values(headers, "connection")) == (200, b"", [])
    return headers


def allows(headers):
    return values(headers, "access-control-allow-origin")


@pytest.mark.both_forms
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--pd-disaggregation"],
        ["--compat", "vllm-router"],
        ["--client-api-keys", "KEYS"],
        ["--max-concurrent-requests", "1", "--queue-size", "0"],
    ],
    ids=" ".join,
)
def test_a_preflight_is_answered_by_the_router(pdctl, tmp_path, words):
    (tmp_path / "keys").write_text("secret\n")
    router = pdctl("serve", *[str(tmp_path / "keys") if w == "KEYS" else w for w in words])
    for path in ("/v1/chat/completions", "/v1/models", "/nowhere", "/workers"):
        headers = preflight(router, path=path)
        assert allows(headers) == ["*"]
        assert "POST" in headers["Access-Control-Allow-Methods"] and headers["Access-Control-Max-Age"] == "3600"
        assert headers["Access-Control-Allow-Headers"] == PREFLIGHT["Access-Control-Request-Headers"]
    # What asks for nothing in particular is no preflight, and a body comes from no browser.
    if words == []:
        assert router.request("OPTIONS", "/v1/models", None, {"Origin": PAGE})[0] != 200
        assert router.request("OPTIONS", "/nowhere", b"x" * 9, PREFLIGHT)[0] == 503


@pytest.mark.both_forms
def test_a_preflight_needs_no_place_and_no_readiness(pdctl):
    go, there = threading.Event(), threading.Event()

    def slow(seen, wire):
        there.set()
        go.wait(60)
        ok(seen, wire)

    with FakeEngine(slow) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-concurrent-requests", 1, "--queue-size", 0, "--drain-delay-secs", 60)
        held = threading.Thread(target=router.post, args=("/v1/completions", BODY))
        held.start()
        try:
            assert there.wait(60)
            status, headers, _ = router.post("/v1/completions", BODY, {"Origin": PAGE})
            assert (status, allows(headers)) == (429, ["*"]), "the page can read why"
            assert allows(preflight(router)) == ["*"]
            router.proc.terminate()
            harness.wait_for("the drain", lambda: router.get("/readiness")[0] == 503)
            assert allows(preflight(router)) == ["*"]
        finally:
            go.set()
            held.join()
        router.proc.terminate()


@pytest.mark.both_forms
def test_every_answer_to_a_page_says_so_once(pdctl, tmp_path):
    (tmp_path / "keys").write_text("secret\n")

    def stream(seen, wire):
        wire.begin_stream(headers=[("access-control-allow-origin", "https://engine.example"), ("Access-Control-Allow-Credentials", "true")])
        wire.event({"choices": [{"text": "x"}]})
        wire.event("[DONE]")
        wire.end()

    with FakeEngine(lambda seen, wire: stream(seen, wire) if b"stream" in seen.body else ok(seen, wire)) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--client-api-keys", tmp_path / "keys")
        key = {"Authorization": "Bearer secret"}
        for body in (BODY, {**BODY, "stream": True}):
            status, headers, _ = router.post("/v1/completions", body, {**key, "Origin": PAGE})
            assert (status, allows(headers), values(headers, "access-control-allow-credentials")) == (200, ["*"], [])
            assert "X-Worker" in headers["Access-Control-Expose-Headers"]
        for path, more, want in (("/v1/models", key, 200), ("/health", {}, 200), ("/v1/models", {}, 401)):
            status, headers, _ = router.get(path, {**more, "Origin": PAGE})
            assert (status, allows(headers)) == (want, ["*"])
        # Without Origin nobody asks, and the worker's answer is passed on.
        status, headers, _ = router.post("/v1/completions", BODY, key)
        assert allows(headers) == ["https://engine.example"] and "Access-Control-Expose-Headers" not in headers
        # The next request of a connection does not inherit it.
        with router.connect() as conn:
            conn.sendall(b"GET /liveness HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\n\r\n")
            assert b"Access-Control-Allow-Origin: *\r\n" in conn.recv(4096)
            conn.sendall(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"Access-Control" not in conn.recv(4096)


@pytest.mark.both_forms
def test_refusals_of_the_server_itself_can_be_read_by_pages(pdctl):
    """Before a request is anybody's: a body that is too large, a head that breaks a rule behind its Origin, an expectation."""
    origin = b"Host: x\r\nOrigin: " + PAGE.encode() + b"\r\n"
    cases = [
        (413, b"POST /v1/completions HTTP/1.1\r\n" + origin + b"Content-Length: 2000\r\n\r\n"),
        (413, b"POST /v1/completions HTTP/1.1\r\n" + origin + b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n"),
        (400, b"POST /v1/completions HTTP/1.1\r\n" + origin + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n"),
        (400, b"POST /v1/completions HTTP/1.1\r\n" + origin + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        (417, b"POST /v1/completions HTTP/1.1\r\n" + origin + b"Expect: more\r\n\r\n"),
        (431, b"GET /v1/models HTTP/1.1\r\n" + origin + b"A: b\r\n" * 120 + b"\r\n"),
    ]
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-payload-size", 1000, "--cors-allowed-origins", PAGE)
        for status, request in cases:
            for with_origin in (True, False):
                with router.connect() as conn:
                    conn.sendall(request if with_origin else request.replace(b"Origin:", b"X-Other:"))
                    got = b""
                    while b"\r\n\r\n" not in got:
                        got += conn.recv(65536)
                assert got.startswith(b"HTTP/1.1 %d " % status), got
                assert (f"Access-Control-Allow-Origin: {PAGE}\r\n".encode() in got) == with_origin, got


@pytest.mark.parametrize("words, allowed", [
    ([], True), (["*"], True), (["https://other.example", PAGE], True), (["https://other.example"], False), ([PAGE + ":8443"], False), (["none"], False),
], ids=str)
def test_the_list_decides(pdctl, words, allowed):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--cors-allowed-origins", *words)
        listed = words not in ([], ["*"])
        want = ([PAGE] if listed else ["*"]) if allowed else []
        status, headers, _ = router.post("/v1/completions", BODY, {"Origin": PAGE})
        assert (status, allows(headers)) == (200, want)
        assert ("Origin" in ", ".join(values(headers, "vary"))) == listed
        headers = preflight(router)
        assert allows(headers) == want
        assert ("Access-Control-Allow-Headers" in headers) == allowed


@pytest.mark.parametrize("words, message", [
    (["chat.example"], "found 'chat.example', expected scheme://host[:port]"),
    (["https://chat.example/"], "found 'https://chat.example/', expected"),
    (["https://Chat.example"], "found 'https://Chat.example', expected"),
    (["none", "https://chat.example"], "found none among 2 words"),
])
def test_an_origin_that_no_browser_sends_is_refused(words, message):
    done = harness.run("serve", "--cors-allowed-origins", *words)
    assert (done.returncode, f"--cors-allowed-origins: {message}" in done.stderr) == (2, True), done.stderr


def test_a_page_still_cannot_change_the_fleet(pdctl):
    router = pdctl("serve", "--worker-urls", "http://127.0.0.1:1", "--admin-on-data-port")
    assert router.post("/remove_worker?url=http://127.0.0.1:1", None, {"Origin": PAGE})[0] == 403
    assert router.admin("OPTIONS", "/workers", None, PREFLIGHT)[0] == 403
