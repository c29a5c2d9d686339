"""The access log: one true line per request, whose stages add up, that nothing a client sends can break, and that costs nobody a request."""

import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest

import harness
from fake_engine import FakeEngine
from harness import free_port, run, wait_for
from test_pd_faults import FAST, send_and_keep
from test_serve_bytes import pd_pair, reply_completion, reply_prefill
from test_serve_clients import BODY, Watcher, message, ok

ROUTE = "/v1/completions"
STAGES = ("queue_ms", "head_ms", "body_ms", "decide_ms", "retry_ms", "connect_ms", "prefill_ms", "handover_ms", "first_byte_ms", "stream_ms", "failed_ms")
FORMATS = pytest.mark.parametrize("form", ["text", "json"])
TEXT = re.compile(r'(?P<ts>\S+) (?P<client>\S+) (?P<method>\S+) (?P<path>"(?:\\.|[^"\\])*"|\S+) (?P<status>\d+)(?P<rest>(?: [a-z_]+=(?:"(?:\\.|[^"\\])*"|[^" ]+))+)')


def parse(line, form):
    """One line as a dict of texts and numbers."""
    if form == "json":
        out = json.loads(line)
    else:
        m = TEXT.fullmatch(line)
        assert m, f"not a line: {line!r}"
        out = {k: m[k] for k in ("ts", "client", "method", "path")} | {"status": int(m["status"])}
        for key, value in re.findall(r' ([a-z_]+)=("(?:\\.|[^"\\])*"|[^" ]+)', m["rest"]):
            assert key not in out, line
            quoted = value.startswith('"')
            out[key] = value[1:-1] if quoted else int(value) if value.isdigit() and not key.endswith("_id") else float(value) if key.endswith("_ms") else value
        for key in re.findall(r"[a-z_]+_ms=(\S+)", m["rest"]):
            assert re.fullmatch(r"\d+\.\d{3}", key), line
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", out["ts"]), line
    return out


def lines_of(path, form, n):
    """The n lines of the file, each complete."""

    def there():
        with open(path, encoding="utf-8") as f:
            text = f.read()
        return text if text.count("\n") >= n else None

    text = wait_for(f"{n} lines", there)
    assert text.count("\n") == n and text.endswith("\n"), text
    return [parse(line, form) for line in text.splitlines()]


def until(path, n):
    """A line is written after its answer: the next request, perhaps on another thread, must not overtake it."""
    wait_for(f"line {n}", lambda: path.exists() and path.read_text().count("\n") >= n)


def adds_up(entry):
    """The stages are all of the total; each is cut to microseconds."""
    parts = [entry[s] for s in STAGES if s in entry]
    assert abs(sum(parts) - entry["total_ms"]) <= 0.001 * (len(parts) + 1), entry
    return entry


@FORMATS
def test_a_plain_request(pdctl, tmp_path, form):
    trace = "0af7651916cd43dd8448eb211c80319c"
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", f"w={engine.url}", "--policy", "consistent_hash", "--access-log", tmp_path / "log", "--access-log-format", form)
        headers = {
            "X-Session-Id": "the-session", "Authorization": "Bearer secret", "X-Request-Id": "id-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01",
            "X-Forwarded-For": "10.1.2.3, 10.4.5.6",
        }
        _, _, body = router.post(ROUTE + "?key=secret", BODY, headers)
        until(tmp_path / "log", 1)
        router.get("/v1/other")
        router.get("/health")
        router.get("/metrics")
        one, two = [adds_up(x) for x in lines_of(tmp_path / "log", form, 2)]
        assert re.fullmatch("[0-9a-f]{16}", one.pop("key_hash"))
        assert {k: v for k, v in one.items() if not k.endswith("_ms") and k != "ts"} == {
            "client": "127.0.0.1", "method": "POST", "path": ROUTE, "status": 200, "outcome": "ok", "bytes_in": len(json.dumps(BODY)),
            "bytes_out": len(body), "forwarded_for": "10.1.2.3, 10.4.5.6", "worker": engine.url, "reason": "key", "key": "header:x-session-id",
            "attempts": 1, "request_id": "id-1", "trace_id": trace,
        }
        assert [k for k in one if k.endswith("_ms")] == ["head_ms", "body_ms", "decide_ms", "connect_ms", "first_byte_ms", "stream_ms", "ttft_ms", "total_ms"]
        assert (two["method"], two["path"], two["bytes_in"], two["reason"]) == ("GET", "/v1/other", 0, "no_key")
        raw = (tmp_path / "log").read_text()
        assert "secret" not in raw and "the-session" not in raw, "no keys and no credentials"
        assert oct(os.stat(tmp_path / "log").st_mode & 0o777) in ("0o640", "0o600")


@FORMATS
def test_an_ipv4_client_of_an_ipv6_listener_has_one_address(pdctl, tmp_path, form):
    """The kernel shows it as ::ffff:127.0.0.1; the log, the worker and the handshake's line all say what the client would say."""
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--host", "::", "--worker-urls", engine.url, "--x-forwarded-for", "set", "--access-log", tmp_path / "log",
                       "--access-log-format", form)
        assert harness.request(f"http://127.0.0.1:{router.port}", "POST", ROUTE, BODY)[0] == 200
        assert harness.request(f"http://[::1]:{router.port}", "POST", ROUTE, BODY)[0] == 200
        assert [x["client"] for x in lines_of(tmp_path / "log", form, 2)] == ["127.0.0.1", "::1"]
        assert [x.header("x-forwarded-for") for x in engine.seen] == ["127.0.0.1", "::1"]


@FORMATS
def test_stages_are_where_the_time_went(pdctl, tmp_path, form):
    def prefill(seen, wire):
        time.sleep(0.5)
        reply_prefill(seen, wire)

    def decode(seen, wire):
        time.sleep(0.3)
        wire.begin_stream()
        wire.event("a")
        time.sleep(0.15)
        wire.event("b")
        wire.end_stream()

    with FakeEngine(prefill) as p, FakeEngine(decode) as d:
        router = pd_pair(pdctl, p, d, *FAST, "--access-log", tmp_path / "log", "--access-log-format", form)
        assert router.post(ROUTE, {**BODY, "stream": True})[0] == 200
        (one,) = lines_of(tmp_path / "log", form, 1)
        adds_up(one)
        assert (one["prefill"], one["decode"], one["events"]) == (p.url, d.url, 2) and "worker" not in one
        assert one["prefill_ms"] > 490 and one["first_byte_ms"] > 290 and one["stream_ms"] > 140
        assert one["total_ms"] > 930 and one["ttft_ms"] > 780 and one["handover_ms"] < one["prefill_ms"]
        assert "retry_ms" not in one and "queue_ms" not in one


@FORMATS
def test_retries_and_failures(pdctl, tmp_path, form):
    calls = []

    def flaky(seen, wire):
        calls.append(1)
        if len(calls) == 1:
            time.sleep(0.1)
            wire.json({}, 500)
        elif seen.target == "/bad":
            wire.json({}, 422)
        elif seen.json().get("stream"):
            wire.begin_stream()
            wire.event("a")
            time.sleep(0.05)
            wire.keep = False
        else:
            ok(seen, wire)

    with FakeEngine(flaky) as one, FakeEngine(flaky) as two:
        router = pdctl(
            "serve", "--worker-urls", one.url, two.url, "--retry-initial-backoff-ms", 200, "--retry-jitter-factor", 0, "--access-log", tmp_path / "log",
            "--access-log-format", form,
        )
        assert router.post(ROUTE, BODY)[0] == 200
        until(tmp_path / "log", 1)
        assert router.post("/bad", BODY)[0] == 422
        until(tmp_path / "log", 2)
        assert router.post(ROUTE, {**BODY, "stream": True})[0] == 200
        retried, bad, cut = [adds_up(x) for x in lines_of(tmp_path / "log", form, 3)]
        assert (retried["attempts"], retried["outcome"], retried["status"]) == (2, "ok", 200) and retried["retry_ms"] > 290
        assert (bad["outcome"], bad["status"]) == ("non_retryable_error", 422)
        assert (cut["outcome"], cut["status"], cut["events"]) == ("stream_cut", 200, 1) and "ended its answer early" in cut["why"]
    log = tmp_path / "dead"
    router = pdctl("serve", "--worker-urls", f"http://127.0.0.1:{free_port()}", "--access-log", log, "--access-log-format", form, "--disable-retries")
    assert router.post(ROUTE, BODY)[0] in (502, 503)
    (none,) = [adds_up(x) for x in lines_of(log, form, 1)]
    assert none["outcome"] in ("backend_error", "no_available_workers") and none["bytes_out"] == 0 and "failed_ms" in none and none["why"]


@FORMATS
def test_the_queue_and_clients_that_leave(pdctl, tmp_path, form):
    hold = threading.Event()

    def slow(seen, wire):
        hold.wait(20)
        ok(seen, wire)

    with FakeEngine(slow) as engine:
        log = tmp_path / "log"
        router = pdctl(
            "serve", "--worker-urls", engine.url, "--max-concurrent-requests", 1, "--queue-size", 1, "--queue-timeout-secs", 3,
            "--access-log", log, "--access-log-format", form,
        )
        first = threading.Thread(target=lambda: router.post(ROUTE, BODY))
        first.start()
        wait_for("it to work", lambda: engine.seen)
        gone = send_and_keep(router, BODY)
        wait_for("it to wait", lambda: router.metric("pdctl_requests_waiting") == 1)
        assert router.post(ROUTE, BODY)[0] == 429
        gone.close()
        until(log, 2)
        assert router.post(ROUTE, BODY)[0] == 408
        second = threading.Thread(target=lambda: router.post(ROUTE, BODY))
        second.start()
        wait_for("it to wait", lambda: router.metric("pdctl_requests_waiting") == 1)
        time.sleep(0.2)
        hold.set()
        first.join()
        second.join()
        full, left, late, one, two = lines_of(log, form, 5)
        assert [(x["status"], x["outcome"], x["attempts"]) for x in (full, left, late)] == [
            (429, "queue_full", 0), (0, "client_left", 0), (408, "queue_timeout", 0)]
        assert late["total_ms"] > 2990
        assert "queue_ms" not in one and adds_up(two)["queue_ms"] > 190 and two["head_ms"] < two["queue_ms"]
        assert 0.19 < router.metrics()["pdctl_queue_wait_seconds_sum"] < 60
    watcher = Watcher("stream")
    with FakeEngine(watcher) as engine:
        log = tmp_path / "log2"
        router = pdctl("serve", "--worker-urls", engine.url, "--access-log", log, "--access-log-format", form)
        s = router.connect()
        s.sendall(message({**BODY, "stream": True}))
        assert watcher.started.wait(10)
        s.close()
        (entry,) = [adds_up(x) for x in lines_of(log, form, 1)]
        assert (entry["outcome"], entry["status"]) == ("client_left", 200)


@FORMATS
def test_requests_that_never_came(pdctl, tmp_path, form):
    """Refused by the server itself, or given up by the client within its body: their lines say so; nothing is said twice."""
    log = tmp_path / "log"
    keys = tmp_path / "keys"
    with FakeEngine(ok) as engine:
        router = pdctl(
            "serve", "--worker-urls", engine.url, "--access-log", log, "--access-log-format", form, "--max-payload-size", 100, "--head-timeout-secs", 2
        )
        head = b"POST /v1/completions?q=secret HTTP/1.1\r\nHost: x\r\n"
        for n, (raw, status) in enumerate((
            (b"BAD\r\n\r\n", 400), (b"GET /slow HT", 408), (head + b"Content-Length: 101\r\n\r\n", 413),
            (head + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        )):
            with router.connect() as s:
                s.sendall(raw)
                assert b" %d " % status in s.recv(4096)
            until(log, n + 1)
        with router.connect() as s:
            s.sendall(head + b"Content-Length: 50\r\n\r\n{")
            wait_for("it to be admitted", lambda: router.metric("pdctl_requests_in_work") == 1)
        until(log, 5)
        assert router.post(ROUTE, BODY)[0] == 200
        entries = lines_of(log, form, 6)
        assert [(x["method"], x["path"], x["status"], x["outcome"]) for x in entries] == [
            ("-", "-", 400, "bad_request"), ("-", "-", 408, "bad_request"), ("POST", ROUTE, 413, "bad_request"), ("POST", ROUTE, 400, "bad_request"),
            ("POST", ROUTE, 0, "client_left"), ("POST", ROUTE, 200, "ok"),
        ]
        assert "secret" not in log.read_text()
        keys.write_text("a-key-that-is-long-enough-to-be-one\n")
        log = tmp_path / "log2"
        router = pdctl("serve", "--worker-urls", engine.url, "--access-log", log, "--access-log-format", form, "--client-api-keys", keys)
        assert router.post(ROUTE, BODY, {"Authorization": "Bearer wrong-secret"})[0] == 401
        (one,) = lines_of(log, form, 1)
        assert (one["status"], one["outcome"]) == (401, "unauthorized") and "wrong-secret" not in log.read_text()


@FORMATS
def test_nothing_breaks_a_line(pdctl, tmp_path, form):
    """Quotes, backslashes, what looks like another field, bytes above ASCII, paths without end."""
    log = tmp_path / "log"
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--access-log", log, "--access-log-format", form)
        paths = ['/a"b\\c', "/x=1,status=200", "/" + "long" * 3000, "/%0a%22", "/{[<>]}|^`"]
        for n, path in enumerate(paths):
            until(log, n)
            with router.connect() as s:
                s.sendall(
                    f"GET {path}?q=1 HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\"b\\c d=e\r\nX-Forwarded-For: \xff\xfe\"; status=500\r\n\r\n".encode("latin-1")
                )
                assert b" 200 " in s.recv(4096)
        entries = lines_of(log, form, len(paths))
        for path, entry in zip(paths, entries):
            want = path[:1024]
            if form == "text" and '"' in want:
                want = '"' + want.replace("\\", "\\\\").replace('"', '\\"') + '"'
            assert entry["path"] == want and entry["status"] == 200
            assert entry["request_id"].replace("\\\\", "\\").replace('\\"', '"') == 'a"b\\c d=e'
            assert max(map(len, map(str, entry.values()))) <= 1100


def test_rotation_loses_nothing(pdctl, tmp_path):
    """Renamed and reopened under load: each request has its line, in one file or the other, and the later ones are in the new file."""
    log, ids, stop = tmp_path / "log", [], threading.Event()
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--access-log", log)

        def load(k):
            n = 0
            while not stop.is_set():
                name = f"r{k}-{n}"
                assert router.post(ROUTE, BODY, {"X-Request-Id": name})[0] == 200
                ids.append(name)
                n += 1

        threads = [threading.Thread(target=load, args=(k,)) for k in range(2)]
        for t in threads:
            t.start()
        for i in range(5):
            time.sleep(0.15)
            os.rename(log, tmp_path / f"log.{i}")
            router.signal(signal.SIGUSR1)
            wait_for("the new file", log.exists)
        time.sleep(0.1)
        stop.set()
        for t in threads:
            t.join()
        router.post(ROUTE, BODY, {"X-Request-Id": "last"})
        wait_for("the last line", lambda: "request_id=last " in log.read_text())
        files = [tmp_path / f"log.{i}" for i in range(5)] + [log]
        found = re.findall(r"request_id=(\S+)", "".join(f.read_text() for f in files))
        assert sorted(found) == sorted(ids + ["last"]) and all(f.read_text() for f in files)
        # A place that is gone: everything goes on in the old file, and the log says so.
        os.rename(log, tmp_path / "kept")
        (tmp_path / "log").mkdir()
        router.signal(signal.SIGUSR1)
        wait_for("the complaint", lambda: "still writing to the old file" in router.log())
        assert router.post(ROUTE, BODY, {"X-Request-Id": "after"})[0] == 200
        wait_for("its line", lambda: "request_id=after " in (tmp_path / "kept").read_text())


def test_signal_without_an_access_log(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        router.signal(signal.SIGUSR1)
        assert router.post(ROUTE, BODY)[0] == 200
        assert router.out().count("\n") == 1, "no access log unless asked for"


def test_a_drain_is_logged_to_its_end_and_not_disturbed(pdctl, tmp_path):
    hold = threading.Event()

    def slow(seen, wire):
        hold.wait(20)
        ok(seen, wire)

    with FakeEngine(slow) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--access-log", tmp_path / "log")
        thread = threading.Thread(target=lambda: router.post(ROUTE, BODY))
        thread.start()
        wait_for("it to work", lambda: engine.seen)
        router.signal(signal.SIGTERM)
        wait_for("the drain", lambda: "draining" in router.log())
        os.rename(tmp_path / "log", tmp_path / "log.1")
        router.signal(signal.SIGUSR1)
        wait_for("the new file", (tmp_path / "log").exists)
        hold.set()
        thread.join()
        assert router.wait() == 0
        (one,) = lines_of(tmp_path / "log", "text", 1)
        assert one["status"] == 200
        router.said("0 connections closed by the drain timeout")


def test_a_reader_that_stalls_costs_lines_and_no_request(pdctl, tmp_path):
    with FakeEngine(ok) as engine:
        args = [harness.PDCTL, "serve", "--worker-urls", engine.url, "--port", "0", "--prometheus-port", "0", "--access-log", "-", "--log-level", "warn"]
        said = tmp_path / "log"
        with open(said, "wb") as err:
            proc = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=err, env=harness.CLEAN_ENV)
        try:
            url = proc.stdout.readline().decode().split()[-1]
            path = ROUTE + "/" + "x" * 1000
            headers = {"X-Request-Id": "i" * 250, "X-Forwarded-For": "f" * 250}

            def lost():
                for _ in range(100):
                    assert harness.request(url, "POST", path, BODY, headers)[0] == 200
                page = harness.parse_metrics(harness.request(url, "GET", "/metrics")[2].decode())
                return page['pdctl_log_lines_dropped_total{log="access"}'] > 0

            wait_for("lost lines", lost, 60)
            wait_for("the warning", lambda: re.search(r"warn  access log: \d+ lines dropped: its file or reader is too slow", said.read_text()))
        finally:
            proc.kill()
            proc.communicate()


def test_a_file_that_cannot_be_opened(tmp_path):
    done = run("serve", "--worker-urls", "http://127.0.0.1:1", "--access-log", tmp_path / "no" / "log")
    assert done.returncode == 2 and f"--access-log: cannot open '{tmp_path}/no/log': No such file" in done.stderr
    done = run("serve", "--worker-urls", "http://127.0.0.1:1", "--access-log", tmp_path / "log", "--access-log-format", "xml")
    assert done.returncode == 2 and "--access-log-format" in done.stderr and not (tmp_path / "log").exists()
