"""JSON lines of the log have names and fields, no sentences: each call in the sources, each line that a router writes, each cause of overload."""

import json
import os
import pathlib
import re
import resource
import signal
import socket
import threading

import pytest

from fake_engine import FakeEngine
from harness import free_port, wait_for
from test_serve_bytes import reply_completion

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "watching.md"
BODY = {"model": "m", "prompt": "p"}
ROUTE = "/v1/completions"
# Lines whose fields are made elsewhere, and what a line about everything has.
OTHERS = {"request", "worker", "overloaded", "Scoring decision"}
COMMON = {"ts", "level", "msg"}


def calls():
    """{event: (levels, fields in their order)} of the router's sources."""
    found = {}
    for folder in ("lib", "cmd"):
        for path in sorted((ROOT / folder).rglob("*.c")):
            if path.name in ("log.c", "worker.c") and path.parent.name in ("base", "cmd"):
                continue
            text = path.read_text()
            for call in re.finditer(r"log_event\((.*?)\);", text, re.S):
                args = call[1]
                event = re.search(r'"([a-z_]+)"', args)
                assert event, (path, args)
                levels = re.findall(r"LOG_(ERROR|WARN|INFO)\b", args) or ["DEBUG"]
                old = found.setdefault(event[1], (set(), []))
                old[0].update(x.lower() for x in levels)
                old[1].extend(f for f in re.findall(r'LOG_(?:TEXT|SPAN|NUMBER|REAL)\(\s*"([a-z_]+)"', args) if f not in old[1])
    return found


def table():
    rows = ["| `msg` | level | fields |", "|---|---|---|"]
    for event, (levels, fields) in sorted(calls().items()):
        rows.append(f"| `{event}` | {', '.join(sorted(levels))} | {', '.join(f'`{f}`' for f in fields)} |")
    return "\n".join(rows) + "\n"


def test_every_event_stands_in_the_page():
    first, last = "<!-- events -->\n", "<!-- end of events -->"
    text, fresh = PAGE.read_text(), table()
    rows = text.split(first)[1].split(last)[0]
    if os.environ.get("DOCS_UPDATE"):
        PAGE.write_text(text.replace(first + rows + last, first + fresh + last))
        return
    assert rows == fresh, f"{PAGE} is not what the sources have; run with DOCS_UPDATE=1"
    assert rows.count("\n") > 30


def test_no_call_writes_a_sentence_into_json():
    """log_line has no fields: the lines that use it have another form in JSON, behind log_is_json."""
    uses = [path for folder in ("lib", "cmd", "sim") for path in (ROOT / folder).rglob("*.c") if re.search(r"\blog_line\(", path.read_text())]
    assert sorted(p.name for p in uses) == ["explain.c", "log.c", "pulse.c", "worker.c"]
    for path in uses:
        text = path.read_text()
        assert path.name == "log.c" or (len(re.findall(r"\blog_line\(", text)) == 1 and "log_json(" in text), path


def lines_of(router):
    return [json.loads(x) for x in router.log().splitlines()]


def judge(router, *expected):
    """All lines are objects with a known name and its fields; the expected names are there."""
    known = calls()
    lines = lines_of(router)
    for x in lines:
        assert COMMON <= set(x), x
        if x["msg"] in OTHERS:
            continue
        assert x["msg"] in known, x
        levels, fields = known[x["msg"]]
        assert x["level"] in levels and set(x) - COMMON <= set(fields), (x, fields)
        assert not any(isinstance(v, str) and len(v) > 200 for v in x.values()), x
    names = {x["msg"] for x in lines}
    assert names >= set(expected), set(expected) - names


def test_a_router_from_start_to_stop(pdctl, tmp_path):
    file, keys = tmp_path / "workers.yaml", tmp_path / "keys"
    keys.write_text("sk-1\n")
    port = free_port()
    with FakeEngine(reply_completion) as one, FakeEngine(reply_completion) as two:
        file.write_text(f"workers: [a={one.url}, dead=http://127.0.0.1:{port}]\n")
        router = pdctl("serve", "--workers-file", file, "--client-api-keys", keys, "--capture", tmp_path / "c.db", "--metrics-port", 0, "--log-format", "json",
                       "--log-level", "debug", "--policy", "round_robin", "--cb-window-duration-secs", "5", "--admin-host", "0.0.0.0", "--health-check-interval-secs", 0.2)
        key = {"Authorization": "Bearer sk-1"}
        for _ in range(4):
            assert router.post(ROUTE, BODY, key)[0] == 200
        assert router.post(ROUTE, BODY)[0] == 401
        file.write_text(f"policy: random\nworkers: [b={two.url}]\n")
        admin = f"http://127.0.0.1:{router.admin_url.rsplit(':', 1)[1]}"
        router.signal(signal.SIGHUP)
        wait_for("the reload", lambda: any(x["msg"] == "reloaded" for x in lines_of(router)))
        reloaded = next(x for x in lines_of(router) if x["msg"] == "reloaded")
        assert (reloaded["workers_added"], reloaded["workers_removed"], reloaded["client_keys"]) == (1, 2, 1)
        file.write_text("workers: 7\n")
        router.signal(signal.SIGHUP)
        wait_for("the failed one", lambda: any(x["msg"] == "reload_failed" and "workers.yaml" in x["error"] for x in lines_of(router)))
        assert admin
        router.signal(signal.SIGTERM)
        assert router.wait() == 0
    judge(router, "started", "admin_listening", "metrics_listening", "fleet_unprotected", "flags_without_effect", "attempt", "request", "worker", "Scoring decision",
          "worker_added", "worker_removed", "policy", "reloaded", "reload_failed", "drain_begins", "stopped")
    started = next(x for x in lines_of(router) if x["msg"] == "started")
    assert started["port"] == router.port and started["policy"] == "round_robin" and started["workers"] == 2


def test_a_pair_that_degrades_panics_and_is_cut(pdctl):
    def cut(seen, wire):
        if seen.json().get("stream"):
            wire.begin_stream()
            wire.event({"choices": []})
            wire.keep = False
        else:
            wire.json({"error": "x"}, status=500)

    with FakeEngine(cut) as one, FakeEngine(cut) as two:
        pair = pdctl("serve", "--pd-disaggregation", "--prefill", f"http://127.0.0.1:{free_port()}", "--decode", one.url, "--log-format", "json",
                     "--health-check-interval-secs", 0.2)
        pair.post(ROUTE, {**BODY, "stream": True})
        wait_for("both lines", lambda: {"degraded", "stream_cut"} <= {x["msg"] for x in lines_of(pair)})
        assert next(x for x in lines_of(pair) if x["msg"] == "stream_cut")["events"] == 1
        judge(pair)
        plain = pdctl("serve", "--worker-urls", one.url, two.url, "--policy", "round_robin", "--log-format", "json", "--cb-failure-threshold", 2,
                      "--disable-retries", "--log-level", "warn")

        def panics():
            plain.post(ROUTE, BODY)
            return [x for x in lines_of(plain) if x["msg"] == "panic"]

        wait_for("the panic", panics)
        assert panics()[0]["on"] == 1 and panics()[0]["pool"] == "regular"
        judge(plain)


def test_the_worker_has_them_too(pdctl):
    w = pdctl.worker("--role", "decode", "--log-format", "json")
    params = {"do_remote_prefill": True, "remote_engine_id": "e", "remote_request_id": "r", "remote_host": "127.0.0.1", "remote_port": free_port(), "remote_block_ids": [[1]]}
    assert w.post(ROUTE, {**BODY, "max_tokens": 1, "kv_transfer_params": {"do_remote_decode": True}})[0] == 200
    assert w.post(ROUTE, {**BODY, "max_tokens": 1, "kv_transfer_params": params})[0] == 200
    wait_for("the lines", lambda: {"protocol_mistake", "kv_read_failed"} <= {x["msg"] for x in lines_of(w)})
    assert next(x for x in lines_of(w) if x["msg"] == "protocol_mistake")["kind"] == "wrong_role"


# -- the causes of overload --


def held(router, n):
    """n connections that stay open."""
    return [socket.create_connection(("127.0.0.1", router.port), timeout=30) for _ in range(n)]


def crowd(router, n):
    def ask():
        try:
            router.post(ROUTE, BODY)
        except OSError:
            pass  # refused or cut: what is counted

    threads = [threading.Thread(target=ask) for _ in range(n)]
    for t in threads:
        t.start()
    return threads


def few():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


CAUSES = {
    "queue_full": (("--max-concurrent-requests", 1, "--queue-size", 0), None, 4, 0),
    "queue_timeout": (("--max-concurrent-requests", 1, "--queue-size", 9, "--queue-timeout-secs", 0.2), None, 4, 0),
    "workers_full": (("--worker-max-in-flight", 1, "--queue-timeout-secs", 0.2), None, 4, 0),
    "connections": (("--max-connections", 3), None, 0, 6),
    "connections_per_ip": (("--max-connections-per-ip", 3), None, 0, 6),
    "descriptors": (("--max-connections", 64), few, 0, 200),
    "local": (("--max-connections", 40), few, 0, 32),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_of_overload_has_its_count(pdctl, cause):
    flags, preexec, asking, idle = CAUSES[cause]
    go = threading.Event()

    def slow(seen, wire):
        go.wait(30)
        wire.json({"choices": []})

    with FakeEngine(slow) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--log-format", "json", "--disable-retries", *flags, preexec=preexec)
        connections = []
        try:
            threads = crowd(router, asking)
            if idle:
                try:
                    connections += held(router, idle)
                except OSError:
                    pass  # the last ones: enough are refused
            if cause == "local":  # all clients are in, and there are no descriptors for as many connections to the worker
                wait_for("the clients", lambda: len(os.listdir(f"/proc/{router.proc.pid}/fd")) >= idle + 16)
                for c in connections:
                    c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            line = wait_for("the line", lambda: [x for x in map(json.loads, router.log().splitlines()) if x["msg"] == "overloaded" and x.get(cause)])[0]
        finally:
            go.set()
            for c in connections:
                c.close()
        for t in threads:
            t.join()
        assert line["level"] == "warn" and line["refused"] >= line[cause] >= 1
