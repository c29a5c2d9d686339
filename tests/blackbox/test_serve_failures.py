"""Regular mode when workers break: retries, breaker, ejection, stale connections, answers that end too early."""

import json
import socket
import threading
import time

import pytest

from fake_engine import FakeEngine
from harness import free_port, request, sse_events, wait_for

pytestmark = pytest.mark.both_forms

BODY = {"model": "m", "prompt": "p", "max_tokens": 4}
STREAM = {**BODY, "stream": True}
SESSIONS = [f"session-{i}" for i in range(24)]
QUICK = ("--retry-initial-backoff-ms", 5, "--retry-max-backoff-ms", 50)


def ok(seen, wire):
    wire.json({"object": "text_completion", "choices": [{"text": "x"}]})


def fail(status=500, headers=()):
    return lambda seen, wire: wire.json({"error": {"message": "on purpose"}}, status, headers)


def ask(router, session, body=None, status=200):
    got, headers, raw = router.post("/v1/completions", body or BODY, {"X-Session-Id": session})
    assert got == status, (got, raw[:500])
    return headers


def state(router, name):
    return next(w for w in router.get_json("/workers")["workers"] if w["name"] == name)


def named(*engines):
    return [f"w{i}={e.url}" for i, e in enumerate(engines)]


def test_sessions_of_a_failing_worker_move_to_the_next_on_the_ring(pdctl):
    """One of three always answers 500: nobody sees it, and its sessions go where the ring without it puts them."""
    with FakeEngine(fail()) as bad, FakeEngine(ok) as b, FakeEngine(ok) as c:
        urls = named(bad, b, c)
        reference = pdctl("serve", "--worker-urls", *urls[1:], "--policy", "consistent_hash")
        without = {s: ask(reference, s)["X-Worker"] for s in SESSIONS}
        router = pdctl("serve", "--worker-urls", *urls, "--policy", "consistent_hash", "--cb-failure-threshold", 3, "--health-check-interval-secs", 300, *QUICK)
        for turn in range(3):
            assert {s: ask(router, s)["X-Worker"] for s in SESSIONS} == without, turn
        assert len(bad.seen) == 3, "the breaker keeps requests away after three failures"
        assert state(router, "w0")["state"] == "open"
        assert router.get("/readiness")[0] == 200 and router.get("/health")[2].startswith(b"Unhealthy")


def test_each_attempt_goes_to_another_worker(pdctl):
    with FakeEngine(fail(503)) as a, FakeEngine(fail(502)) as b, FakeEngine(fail(500)) as c:
        router = pdctl("serve", "--worker-urls", a.url, b.url, c.url, "--retry-max-retries", 3, *QUICK)
        status, _, raw = router.post("/v1/completions", BODY, {"X-Session-Id": "s"})
        assert status in (500, 502, 503) and json.loads(raw)["error"]["message"] == "on purpose"
        assert [len(e.seen) for e in (a, b, c)] == [1, 1, 1]


def test_4xx_passes_as_it_is_and_never_opens_the_breaker(pdctl):
    with FakeEngine(fail(422, [("X-Why", "no")])) as engine:
        router = pdctl("serve", "--worker-urls", "w0=" + engine.url, "--cb-failure-threshold", 1)
        for _ in range(5):
            status, headers, raw = router.post("/v1/completions", BODY)
            assert (status, headers["X-Why"], json.loads(raw)) == (422, "no", {"error": {"message": "on purpose"}})
        assert len(engine.seen) == 5, "not retried"
        assert state(router, "w0")["state"] == "available"


def test_retry_budget_stops_multiplication(pdctl):
    """300 requests to a pool that is down cost 300 attempts, 100 saved retries and 30 earned ones; not 1,500 attempts."""
    with FakeEngine(fail()) as a, FakeEngine(fail()) as b:
        flags = ("--retry-initial-backoff-ms", 0, "--retry-budget", 0.1, "--disable-circuit-breaker", "--retry-max-retries", 5)
        router = pdctl("serve", "--worker-urls", a.url, b.url, *flags)
        for _ in range(300):
            assert router.post("/v1/completions", BODY)[0] == 500
        attempts = len(a.seen) + len(b.seen)
        assert 400 <= attempts <= 431, attempts
        assert router.metric("pdctl_retry_budget_exhausted_total") >= 170


def test_breaker_opens_lets_one_try_and_closes(pdctl):
    """Half-open: one trial at a time whatever the load, a failure opens again, successes close."""
    mode = {"now": "fail"}
    gate = threading.Event()
    running, most = [], []

    def engine_says(seen, wire):
        if mode["now"] == "fail":
            return fail()(seen, wire)
        running.append(1)
        most.append(len(running))
        gate.wait(20)
        running.pop()
        ok(seen, wire)

    with FakeEngine(engine_says) as engine:
        flags = ("--cb-failure-threshold", 2, "--cb-success-threshold", 2, "--cb-timeout-duration-secs", 2, "--panic-threshold", 0)
        router = pdctl("serve", "--worker-urls", "w0=" + engine.url, "--disable-retries", *flags)
        for _ in range(2):
            assert router.post("/v1/completions", BODY)[0] == 500
        status, headers, raw = router.post("/v1/completions", BODY)
        assert (status, len(engine.seen)) == (503, 2), raw
        assert int(headers["Retry-After"]) >= 1
        assert router.get("/readiness")[0] == 503
        # The trial fails: open again.
        reopened = 'vllm_router_cb_state_transitions_total{worker="%s",stage="regular",from="half_open",to="open"' % engine.url
        wait_for("half-open", lambda: state(router, "w0")["state"] == "half_open")
        assert router.post("/v1/completions", BODY)[0] == 500
        wait_for("open again", lambda: router.metric(reopened) == 1)
        # A trial that waits keeps everybody else out.
        mode["now"] = "ok"
        wait_for("half-open", lambda: state(router, "w0")["state"] == "half_open")
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(router.post("/v1/completions", BODY)[0])) for _ in range(12)]
        for t in threads:
            t.start()
        wait_for("all but the trial to be refused", lambda: len(answers) == 11)
        assert answers == [503] * 11 and len(running) == 1
        gate.set()
        for t in threads:
            t.join()
        assert answers.count(200) == 1 and max(most) == 1
        assert router.post("/v1/completions", BODY)[0] == 200
        wait_for("closed", lambda: state(router, "w0")["state"] == "available")
        assert router.metric('vllm_router_cb_state_transitions_total{worker="%s",stage="regular",from="half_open",to="closed"' % engine.url) == 1


def test_old_streams_say_nothing_about_a_half_open_breaker(pdctl):
    """Streams from before the breaker opened end while it is half-open: they neither close it nor let more trials in."""
    finish, trial = threading.Event(), threading.Event()
    trials = []

    def engine_says(seen, wire):
        kind = json.loads(seen.body)["prompt"]
        if kind == "old":
            wire.begin_stream()
            wire.event("a")
            finish.wait(20)
            wire.event("[DONE]")
            wire.end_stream()
        elif kind == "bad":
            fail()(seen, wire)
        else:
            trials.append(1)
            trial.wait(20)
            ok(seen, wire)

    def post(prompt, stream=False):
        return router.post("/v1/completions", {"model": "m", "prompt": prompt, "stream": stream})[0]

    with FakeEngine(engine_says) as engine:
        flags = ("--cb-failure-threshold", 1, "--cb-success-threshold", 2, "--cb-timeout-duration-secs", 0.2, "--disable-retries", "--panic-threshold", 0)
        router = pdctl("serve", "--worker-urls", "w0=" + engine.url, *flags)
        got = []
        old = [threading.Thread(target=lambda: got.append(post("old", True))) for _ in range(4)]
        for t in old:
            t.start()
        wait_for("old streams", lambda: len(engine.seen) == 4)
        assert post("bad") == 500
        wait_for("half-open", lambda: state(router, "w0")["state"] == "half_open")
        new = threading.Thread(target=lambda: got.append(post("new")))
        new.start()
        wait_for("the trial", lambda: trials)
        finish.set()
        for t in old:
            t.join()
        assert state(router, "w0")["state"] == "half_open"
        assert post("new") == 503 and len(trials) == 1, "the trial still runs"
        trial.set()
        new.join()
        assert got == [200] * 5


def test_dead_worker_is_out_at_once_and_back_soon(pdctl):
    worker = pdctl.worker("--speedup", 100)
    other = pdctl.worker("--speedup", 100)
    router = pdctl("serve", "--worker-urls", f"a={worker.url}", f"b={other.url}")
    homes = {s: ask(router, s)["X-Worker"] for s in SESSIONS}
    mine = next(s for s in SESSIONS if homes[s] == worker.url)
    assert router.get("/health")[2] == b"All servers healthy"
    worker.kill()
    assert ask(router, mine)["X-Worker"] == other.url, "nobody sees the failure"
    assert state(router, "a")["state"] == "ejected"
    assert router.get("/readiness")[0] == 200
    status, _, raw = router.get("/health")
    assert status == 200 and raw == b"Unhealthy servers: a (ejected)", "of the router: no probe should restart it"
    connects = router.metric('pdctl_upstream_connect_failures_total{worker="%s"' % worker.url)
    for s in SESSIONS:
        assert ask(router, s)["X-Worker"] == other.url
    assert router.metric('pdctl_upstream_connect_failures_total{worker="%s"' % worker.url) == connects, "not tried again"
    other.kill()
    assert router.post("/v1/completions", BODY)[0] in (502, 503)
    assert router.get("/readiness")[0] == 503
    pdctl("worker", "--model", "m", "--speedup", 100, port=worker.port)
    began = time.monotonic()
    wait_for("the worker to come back", lambda: state(router, "a")["state"] == "available", 15)
    print(f"back in the rotation after {time.monotonic() - began:.2f} s")
    assert ask(router, mine)["X-Worker"] == worker.url
    assert router.get("/readiness")[0] == 200


def test_refused_probe_ejects_without_traffic(pdctl):
    worker = pdctl.worker()
    router = pdctl("serve", "--worker-urls", f"a={worker.url}", "--health-check-interval-secs", 0.2)
    wait_for("the first probe", lambda: router.get("/health")[2] == b"All servers healthy")
    worker.kill()
    wait_for("the probe to see it", lambda: router.get("/readiness")[0] == 503)
    assert state(router, "a")["state"] == "ejected"


def test_failed_probes_take_a_worker_out_and_good_ones_bring_it_back(pdctl):
    worker = pdctl.worker()
    flags = ("--health-check-interval-secs", 0.05, "--health-failure-threshold", 2, "--health-success-threshold", 2)
    router = pdctl("serve", "--worker-urls", f"a={worker.url}", *flags)
    assert router.get("/readiness")[0] == 200
    assert worker.post("/pdctl/faults", {"unhealthy": True})[0] == 200
    wait_for("unhealthy", lambda: state(router, "a")["state"] == "unhealthy")
    assert router.get("/readiness")[0] == 503 and router.post("/v1/completions", BODY)[0] == 503
    worker.post("/pdctl/faults", {"unhealthy": False})
    wait_for("healthy", lambda: state(router, "a")["state"] == "available")
    assert router.post("/v1/completions", BODY)[0] == 200


def test_hanging_workers_are_probed_in_parallel(pdctl):
    """Workers that accept and say nothing: all are out after one probe's time, not after that of forty."""
    silent = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(40)]
    try:
        urls = [f"http://127.0.0.1:{s.getsockname()[1]}" for s in silent]
        flags = ("--health-check-timeout-secs", 1, "--health-failure-threshold", 1, "--health-check-interval-secs", 0.1)
        router = pdctl("serve", "--worker-urls", *urls, *flags)
        began = time.monotonic()
        wait_for("all to be unhealthy", lambda: router.get_json("/workers") and not any(w["is_healthy"] for w in router.get_json("/workers")["workers"]))
        assert time.monotonic() - began < 25
    finally:
        for s in silent:
            s.close()


def test_stale_connection_is_replaced_silently(pdctl):
    """The engine closes after each answer without saying so."""

    def closes(seen, wire):
        ok(seen, wire)
        wire.keep = False

    with FakeEngine(closes) as engine:
        router = pdctl("serve", "--worker-urls", "w0=" + engine.url, "--disable-retries", "--cb-failure-threshold", 1)
        for _ in range(50):
            assert router.post("/v1/completions", BODY)[0] == 200
        assert len(engine.seen) == 50, "each request arrived once"
        assert state(router, "w0")["errors"] == 0


def test_stale_connection_is_not_replaced_once_bytes_came(pdctl):
    """A pooled connection that gives half a head is a failed attempt: counted, and repeated by the retry rules only."""
    count = [0]

    def half(seen, wire):
        count[0] += 1
        if count[0] % 2:
            return ok(seen, wire)
        wire.raw(b"HTTP/1.1 200 OK\r\nContent-")
        wire.keep = False

    with FakeEngine(half) as engine:
        router = pdctl("serve", "--worker-urls", "w0=" + engine.url, "--disable-retries")
        assert router.post("/v1/completions", BODY)[0] == 200
        assert router.post("/v1/completions", BODY)[0] == 502
        assert count[0] == 2 and state(router, "w0")["errors"] == 1
        assert router.metric("pdctl_stale_connections_total") == 0


def test_unsafe_requests_are_not_sent_twice(pdctl):
    """A POST that we know nothing about and whose worker closed without an answer may have been done."""

    def closes(seen, wire):
        wire.keep = False

    with FakeEngine(closes) as a, FakeEngine(closes) as b:
        router = pdctl("serve", "--worker-urls", a.url, b.url, *QUICK)
        assert router.post("/v1/fine_tuning/jobs", {"x": 1})[0] == 502
        assert len(a.seen) + len(b.seen) == 1


def open_stream(router, body=None):
    raw = json.dumps(body or STREAM).encode()
    s = router.connect()
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: rid-1\r\nContent-Length: %d\r\n\r\n%s" % (len(raw), raw))
    return s


def read_all(s):
    got = b""
    while True:
        try:
            piece = s.recv(65536)
        except ConnectionResetError:
            return got, True
        if not piece:
            return got, False
        got += piece


def test_worker_that_dies_mid_stream_gives_an_error_event_and_a_clean_end(pdctl):
    worker = pdctl.worker("--close-mid-stream", 5, "--speedup", 50)
    router = pdctl("serve", "--worker-urls", worker.url)
    status, headers, raw = router.post("/v1/completions", {**STREAM, "max_tokens": 20}, {"X-Request-Id": "cut-1"})
    assert status == 200, "and http.client accepted the chunked end"
    events = sse_events(raw)
    error = json.loads(events[-1])["error"]
    assert error["type"] == "upstream_error" and error["code"] == 502
    assert len(events) == 6 and all("choices" in json.loads(e) for e in events[:-1])
    line = wait_for("the log line", lambda: [x for x in router.log().splitlines() if "stream cut" in x])[0]
    assert "request=cut-1" in line and "after 5 events" in line
    assert router.metric("pdctl_stream_errors_total") == 1


def test_half_an_event_is_never_passed_on(pdctl):
    def half(seen, wire):
        wire.begin_stream()
        wire.event("whole")
        wire.chunk(b"data: {\"half")
        time.sleep(0.2)
        wire.keep = False

    with FakeEngine(half) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        status, _, raw = router.post("/v1/completions", STREAM)
        assert status == 200 and b"half" not in raw
        assert sse_events(raw)[0] == "whole" and "error" in json.loads(sse_events(raw)[1])


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_a_cut_body_that_is_no_event_stream_is_visibly_cut(pdctl, framing):
    def cut(seen, wire):
        head = {"chunked": "Transfer-Encoding: chunked", "length": "Content-Length: 3000000", "close": "Connection: close"}[framing]
        wire.raw(f"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n{head}\r\n\r\n".encode())
        piece = b"x" * 2000000
        wire.chunk(piece) if framing == "chunked" else wire.raw(piece)
        if framing == "close":  # a reset, because an orderly close is this framing's proper end
            wire.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            time.sleep(0.3)
        wire.keep = False

    with FakeEngine(cut) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--disable-retries")
        with open_stream(router, BODY) as s:
            got, reset = read_all(s)
        assert got.startswith(b"HTTP/1.1 200")
        assert not got.endswith(b"\r\n0\r\n\r\n"), "no end of body"
        assert reset or b"Content-Length: 3000000" in got or b"ransfer-Encoding: chunked" in got
        wait_for("the log line", lambda: "stream cut" in router.log())


def test_time_limits_are_separate(pdctl):
    """First byte, silence inside a stream, and the whole request: each ends a request on its own."""
    over = threading.Event()

    def slow(seen, wire):
        kind = json.loads(seen.body)["prompt"]
        if kind == "silent":
            over.wait(15)
        wire.begin_stream()
        for i in range(60):
            wire.event({"choices": [{"text": str(i)}]})
            over.wait(15 if kind == "pause" else 0.1)
        wire.end_stream()

    def post(router, prompt):
        began = time.monotonic()
        status, _, raw = router.post("/v1/completions", {**STREAM, "prompt": prompt})
        return status, raw, time.monotonic() - began

    with FakeEngine(slow) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--disable-retries", "--first-byte-timeout-secs", 1, "--inter-token-timeout-secs", 2, "--request-timeout-secs", 4)
        status, raw, took = post(router, "silent")
        assert status == 504 and took < 14, (status, raw, took)
        status, raw, took = post(router, "pause")
        assert status == 200 and json.loads(sse_events(raw)[-1])["error"]["code"] == 504 and took < 14
        status, raw, took = post(router, "steady")
        events = sse_events(raw)
        assert status == 200 and "time limit" in json.loads(events[-1])["error"]["message"] and 2 < len(events) < 60
    with FakeEngine(slow) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--disable-retries", "--request-timeout-secs", 1)
        status, raw, took = post(router, "pause")
        assert "error" in sse_events(raw)[-1] and took < 14, "the whole request's limit holds in a pause too"
        over.set()


def test_proxy_environment_is_ignored(pdctl):
    env = {k: f"http://127.0.0.1:{free_port()}" for k in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")}
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", "w0=" + engine.url, "--health-check-interval-secs", 0.1, env=env)
        ask(router, "s")
        wait_for("probes", lambda: len(engine.probes) >= 3)
        assert state(router, "w0")["state"] == "available"


def test_two_hundred_workers(pdctl):
    """One engine under 200 names: all are probed at once and all serve."""
    with FakeEngine(ok) as engine:
        urls = [f"w{i:03}={engine.url}/base{i}" for i in range(200)]
        router = pdctl("serve", "--worker-urls", *urls, "--policy", "round_robin", "--health-check-endpoint", "/v1/models")
        for _ in range(200):
            assert router.post("/v1/completions", BODY)[0] == 200
        used = {s.target for s in engine.seen if s.method == "POST"}
        assert len(used) == 200
        assert router.get_json("/workers")["total"] == 200
        assert request(router.url, "GET", "/metrics")[0] == 200
