"""The metrics page of the router in regular mode: its form, and that everything it declares moves."""

import re
import signal
import socket
import threading
import time

from fake_engine import FakeEngine
from harness import request, wait_for
from test_serve_clients import BODY, Watcher, idle, message, ok

STREAM = {**BODY, "stream": True}
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (-?[0-9.eE+]+|\+Inf|NaN)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"')


def parse_page(text):
    """A strict reading of the text format: {family: (type, [(name, labels, value)])}; asserts on what promtool complains about."""
    families, current = {}, None
    seen = set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split(" ", 3)[2]
            assert NAME.fullmatch(current) and current not in families, line
            assert len(line.split(" ", 3)) == 4 and line.split(" ", 3)[3].strip(), f"no help: {line}"
            families[current] = [None, []]
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current and families[name][0] is None and not families[name][1], line
            families[name][0] = kind
            continue
        m = SAMPLE.fullmatch(line)
        assert m, f"not a sample: {line!r}"
        name, labels, value = m.group(1), tuple(LABEL.findall(m.group(2) or "")), float(m.group(3))
        kind = families[current][0]
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        assert name in {current + s for s in suffixes}, (line, current)
        assert (name, labels) not in seen, f"twice: {line}"
        assert len({k for k, _ in labels}) == len(labels), line
        seen.add((name, labels))
        families[current][1].append((name, dict(labels), value))
    for name, (kind, samples) in families.items():
        assert kind in ("counter", "gauge", "histogram"), name
        assert kind != "counter" or name.endswith("_total"), name
        assert kind == "counter" or not name.endswith("_total"), name
        if kind == "histogram":
            check_histogram(name, samples)
    return families


def check_histogram(name, samples):
    buckets = [(labels["le"], v) for n, labels, v in samples if n == name + "_bucket"]
    assert buckets and buckets[-1][0] == "+Inf", name
    bounds = [float(le) for le, _ in buckets[:-1]]
    assert bounds == sorted(set(bounds)), name
    counts = [v for _, v in buckets]
    assert counts == sorted(counts), f"{name}: cumulative"
    assert counts[-1] == next(v for n, _, v in samples if n == name + "_count"), name


def page(router):
    return parse_page(router.get("/metrics")[2].decode())


def totals(families):
    out = {}
    for name, (kind, samples) in families.items():
        out[name] = sum(v for n, _, v in samples if kind != "histogram" or n == name + "_count")
    return out


PD_ONLY = re.compile(r"pdctl_pd_|vllm_router_pd_|pdctl_prefill_|pdctl_handover|pdctl_duplicate")
# What a test cannot cause at will, with the reason.
UNMOVED = {
    "pdctl_thread_failures_total": "needs a system out of threads",
    "pdctl_accept_errors_total": "moved in test_serve_limits.py with its own descriptor limit",
    "pdctl_log_lines_dropped_total": "needs a reader of standard error that stalls",
    "pdctl_draining": "checked last",
}


def test_page_is_well_formed_with_odd_worker_names(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", f'we"ird\\name={engine.url}/a"b\\c', engine.url)
        router.post("/v1/completions", BODY)
        families = page(router)
        labels = [labels for _, samples in families.values() for _, labels, _ in samples]
        assert any(x.get("worker", "").endswith('/a\\"b\\\\c') for x in labels)
        port = int(re.search(r"metrics and admin on http://127.0.0.1:(\d+)", wait_for("log", lambda: "metrics and admin" in router.log() and router.log())).group(1))
        status, headers, raw = request(f"http://127.0.0.1:{port}", "GET", "/metrics")
        assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert parse_page(raw.decode()).keys() == families.keys()


def test_everything_declared_moves(pdctl, tmp_path):
    """Traffic, faults, overload, clients that leave, reloads: each family has another value afterwards."""
    watcher = Watcher("stream")
    mode = {"now": "ok"}
    hold = threading.Event()
    calls = []

    def engine_says(seen, wire):
        calls.append(1)
        now = mode["now"]
        if now == "fail":
            return wire.json({}, 500)
        if now == "hold":
            hold.wait(20)
        if now == "watch":
            return watcher(seen, wire)
        if now == "flood":
            wire.begin_stream()
            while True:
                wire.event("x" * 60000)
        if now in ("events", "cut"):
            wire.begin_stream()
            for i in range(3):
                wire.event(str(i))
                time.sleep(0.05)
            if now == "events":
                wire.end_stream()
        else:
            ok(seen, wire)
        wire.keep = now not in ("close", "cut")

    with FakeEngine(engine_says) as engine:
        config = tmp_path / "w.yaml"
        dead = pdctl.worker()
        config.write_text(f"workers:\n  - a={engine.url}\n  - b={engine.url}/second\n  - dead={dead.url}\n")
        router = pdctl(
            "serve", "--workers-file", config, "--retry-initial-backoff-ms", 1, "--retry-max-retries", 3, "--retry-budget", 0,
            "--cb-failure-threshold", 100, "--cb-success-threshold", 1, "--cb-timeout-duration-secs", 0.2, "--max-concurrent-requests", 2,
            "--queue-size", 1, "--queue-timeout-secs", 2, "--write-stall-timeout-secs", 0.5, "--head-timeout-secs", 0.3,
            "--max-connections", 12, "--health-check-interval-secs", 300,
        )
        wait_for("the first probes, which are sent together", lambda: engine.probes and calls)
        time.sleep(0.5)
        before = page(router)
        dead.kill()  # nobody notices before a request does: the next probe is minutes away

        def do(now, body=None, n=1, headers=None):
            mode["now"] = now
            return [router.post("/v1/completions", body or BODY, headers)[0] for _ in range(n)]

        assert do("ok", n=24, headers=None) == [200] * 24
        for i in range(20):
            router.post("/v1/completions", BODY, {"X-Session-Id": f"s{i}"})
        router.request("GET", "/files", None)
        assert do("events", STREAM) == [200]
        assert do("cut", STREAM) == [200]
        do("close", n=2)
        do("ok", n=4)
        # A client that leaves in a stream, one that never reads, a bad request, a slow head.
        mode["now"] = "watch"
        s = router.connect()
        s.sendall(message(STREAM))
        assert watcher.started.wait(10)
        running = page(router)
        s.close()
        assert watcher.gone.wait(10)
        mode["now"] = "flood"
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", router.port))
        s.sendall(message(STREAM))
        wait_for("the stall", lambda: router.metric("pdctl_write_stalls_total") == 1)
        s.close()
        with router.connect() as s:
            s.sendall(b"BAD\r\n\r\n")
            assert b" 400 " in s.recv(1000)
        with router.connect() as s:
            s.sendall(b"GET / HT")
            assert b" 408 " in s.recv(1000)
        # Overload: two work, one waits in vain, one is refused.
        mode["now"] = "hold"
        threads = [threading.Thread(target=lambda: router.post("/v1/completions", BODY)) for _ in range(3)]
        for t in threads:
            t.start()
        wait_for("one to wait", lambda: router.metric("pdctl_requests_waiting") == 1)
        waiting = page(router)
        assert router.post("/v1/completions", BODY)[0] == 429
        wait_for("it to give up", lambda: router.metric("pdctl_queue_timeouts_total") == 1)
        hold.set()
        for t in threads:
            t.join()
        held = [router.connect() for _ in range(16)]
        for s in held:
            s.settimeout(5)
        wait_for("a refusal", lambda: any(refused(s) for s in held))
        for s in held:
            s.close()
        wait_for("room", lambda: router_up(router))
        # Everything fails: retries, exhausted, the budget, the breaker, no worker, half-open, closed again.
        do("fail", n=140)
        opened = page(router)
        mode["now"] = "ok"
        wait_for("the breaker to close", lambda: do("ok")[0] == 200 and all(w["state"] == "available" for w in router.get_json("/workers")["workers"] if w["name"] != "dead") or time.sleep(0.05))
        assert router.request("POST", "/reload")[0] == 200
        config.write_text("nonsense: 1\n")
        assert router.request("POST", "/reload")[0] == 400
        wait_for("zero", lambda: idle(router))
        after = page(router)
        states = [totals(x) for x in (before, running, waiting, opened, after)]
        still = [n for n in states[0] if all(s[n] == states[0][n] for s in states) and not PD_ONLY.match(n) and n not in UNMOVED]
        assert still == [], f"declared and never moved: {still}"
        last = states[-1]
        for gauge in ("pdctl_requests_in_work", "pdctl_requests_waiting", "vllm_router_running_requests"):
            assert last[gauge] == 0
        for name in states[0]:
            if name.endswith("_total"):
                assert last[name] >= states[0][name], f"{name} went back"
        router.signal(signal.SIGTERM)
        assert router.wait() == 0


def refused(s):
    s.setblocking(False)
    try:
        return b" 503 " in s.recv(1000)
    except OSError:
        return False


def router_up(router):
    try:
        return router.get("/liveness")[0] == 200
    except OSError:
        return False
