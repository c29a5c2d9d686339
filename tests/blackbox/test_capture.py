"""serve --capture: what happened stands in the file, what is missing is counted, and prompt text never gets there."""

import contextlib
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import threading

import pytest

from fake_engine import FakeEngine
from harness import CLEAN_ENV, PDCTL, free_port, run, wait_for

BUILD = os.path.dirname(os.path.abspath(PDCTL))
DOCS = os.path.join(os.path.dirname(__file__), "../../docs/capture.md")
WORDS = "ultramarine-zeppelin"


def rows(path, sql, *args):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        return [dict(r) for r in db.execute(sql, args)]


def one(path, sql, *args):
    (row,) = rows(path, sql, *args)
    (value,) = row.values()
    return value


def sound(path):
    return one(path, "PRAGMA integrity_check") == "ok"


def chat(i, **more):
    text = f"{WORDS} number {i} " * 40
    return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 4, "session_id": f"s{i % 5}", **more}


def flushed(router, n):
    """Waits until the writer has put n requests into the file."""
    wait_for(f"{n} captured requests", lambda: router.metric('pdctl_capture_records_total{kind="request"}') >= n)


@pytest.fixture
def engine():
    """An engine that costs next to nothing."""
    program = os.path.join(BUILD, "scripts/perf/cheap_engine")
    if not os.path.exists(program):
        pytest.skip(f"{program} is not built (make blackbox builds it)")
    port = free_port()
    proc = subprocess.Popen([program, str(port), "100"], env=CLEAN_ENV)
    yield f"http://127.0.0.1:{port}"
    proc.terminate()
    proc.wait()


def load(router, n, concurrency=64):
    done = run("bench", "--base-url", router.url, "--model", "m", "--num-prompts", n, "--input-len", 64, "--no-stream",
               "--max-concurrency", concurrency, "--request-rate", "inf", timeout=200)
    assert done.returncode == 0, done.stderr + done.stdout


# -- what a row says --


def test_rows_of_a_plain_pool(pdctl, tmp_path):
    db = tmp_path / "c.db"
    workers = [pdctl.worker("--speedup", 1000) for _ in range(2)]
    router = pdctl("serve", "--worker-urls", *[f"w{i}={w.url}" for i, w in enumerate(workers)], "--policy", "consistent_hash", "--capture", db)
    for i in range(10):
        body = chat(i, stream=True, stream_options={"include_usage": True}) if i % 2 else chat(i)
        assert router.post("/v1/chat/completions", body, {"X-Request-Id": f"id-{i}"})[0] == 200
    assert router.post("/v1/completions", {"model": "m", "prompt": "no key", "max_tokens": 1})[0] == 200
    assert router.post("/v1/chat/completions", b"{broken")[0] >= 400
    flushed(router, 12)
    # Readers do not disturb the writer: all of this while it runs.
    got = rows(db, "SELECT * FROM request ORDER BY id")
    assert len(got) == 12
    for i, r in enumerate(got[:10]):
        assert (r["request_id"], r["route"], r["method"], r["model"]) == (f"id-{i}", "/v1/chat/completions", "POST", "m")
        assert (r["key"], r["key_form"], r["key_level"], r["key_source"]) == (f"s{i % 5}", "plain", "session", "body:session_id")
        assert (r["status"], r["outcome"], r["streaming"], r["attempts"], r["decisions"]) == (200, "ok", i % 2, 1, 1)
        assert r["max_tokens"] == 4 and r["completion_tokens"] == 4 and r["prompt_tokens"] > 100 and r["cached_tokens"] is not None
        assert r["prompt_bytes"] < r["body_bytes"] and len(r["blocks"]) == 8 * (r["prompt_bytes"] // 256)
        assert r["queue_us"] <= r["read_us"] <= r["dispatch_us"] <= r["first_us"] <= r["last_us"] <= r["total_us"]
        assert r["body"] is None and r["error"] is None and (r["events"] > 4) == bool(i % 2)
    assert [r["arrived_ns"] for r in got] == sorted(r["arrived_ns"] for r in got)
    assert got[0]["blocks"] != got[1]["blocks"]
    assert got[10]["key"] is None and got[10]["key_form"] is None and got[10]["blocks"] is None
    assert got[11]["outcome"] == "error" and got[11]["model"] is None and got[11]["prompt_bytes"] is None
    named = rows(db, "SELECT * FROM decision_named ORDER BY id")
    assert len(named) == 12 and {r["policy"] for r in named} == {"consistent_hash"} and {r["role"] for r in named} == {"regular"}
    homes = {}
    for r, d in zip(got[:10], named):
        assert d["request"] == r["id"] and d["worker"] == d["home"] and d["reason"] == "key"
        assert homes.setdefault(r["key"], d["worker"]) == d["worker"]
    assert named[10]["reason"] == "no_key"
    assert rows(db, "SELECT DISTINCT available FROM availability") == [{"available": 1}]
    assert rows(db, "SELECT name, url FROM worker ORDER BY position") == [{"name": f"w{i}", "url": w.url} for i, w in enumerate(workers)]
    assert os.stat(db).st_mode & 0o077 == 0  # session keys are nobody else's business
    run_row = rows(db, "SELECT * FROM run")[0]
    assert run_row["ended_ns"] is None and run_row["mode"] == "regular" and run_row["keys"] == "plain"
    router.stop()
    assert not os.path.exists(f"{db}-wal")
    assert one(db, "SELECT ended_ns FROM run") > 0


def test_equal_beginnings_have_equal_blocks(pdctl, tmp_path):
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", pdctl.worker("--speedup", 1000).url, "--capture", db, "--capture-block-tokens", 16)
    shared = "the same beginning of both " * 20
    for end in ("x" * 200, "y" * 200, "x" * 200):
        router.post_json("/v1/completions", {"model": "m", "prompt": shared + end, "max_tokens": 1})
    router.stop()
    a, b, c = (bytes(r["blocks"]) for r in rows(db, "SELECT blocks FROM request ORDER BY id"))
    common = 8 * ((len(shared) + 1) // 64)
    assert a == c and a != b and a[:common] == b[:common] and a[common : common + 8] != b[common : common + 8]


def test_prefill_decode_and_retries(pdctl, tmp_path):
    db = tmp_path / "c.db"
    p = pdctl.worker("--role", "prefill", "--speedup", 1000)
    d = pdctl.worker("--role", "decode", "--speedup", 1000)
    with FakeEngine(lambda seen, wire: wire.json({}, 200 if seen.method == "GET" else 503)) as sick:
        router = pdctl("serve", "--pd-disaggregation", "--prefill", f"p1={p.url}", "--decode", f"d1={d.url}",
                       "--decode", f"d2={sick.url}", "--capture", db, "--decode-policy", "round_robin")
        for i in range(4):
            router.post_json("/v1/chat/completions", chat(i))
        router.stop()
    got = rows(db, "SELECT * FROM request ORDER BY id")
    assert all(r["status"] == 200 and r["outcome"] == "ok" and r["prefill_us"] <= r["first_us"] for r in got)
    assert all(r["prompt_tokens"] > 0 and r["completion_tokens"] == 4 for r in got)
    assert 0 < len([r for r in got if r["attempts"] > 1]) < 4
    for r in got:
        steps = rows(db, "SELECT attempt, role, worker, policy FROM decision_named WHERE request = ? ORDER BY id", r["id"])
        assert len(steps) == r["decisions"] == 2 * r["attempts"]
        assert [(s["attempt"], s["role"]) for s in steps] == [(a, role) for a in range(r["attempts"]) for role in ("decode", "prefill")]
        assert [s["worker"] for s in steps if s["role"] == "decode"] == ["d2"] * (r["attempts"] - 1) + ["d1"]
        assert {s["policy"] for s in steps if s["role"] == "decode"} == {"round_robin"}
    assert one(db, "SELECT count(*) FROM candidate") == one(db, "SELECT sum(decisions) FROM request")


def test_availability(pdctl, tmp_path):
    """A worker that cannot be reached is out, and the file says since when."""
    db = tmp_path / "c.db"
    workers = [pdctl.worker("--speedup", 1000) for _ in range(2)]
    router = pdctl("serve", "--worker-urls", *[f"w{i}={w.url}" for i, w in enumerate(workers)], "--capture", db, "--policy", "round_robin")

    def states(i):
        return one(db, "SELECT group_concat(available) FROM availability WHERE position = ?", i)

    wait_for("both to be there", lambda: states(0) == states(1) == "1")
    workers[1].kill()
    for i in range(4):
        router.post_json("/v1/chat/completions", chat(i))
    wait_for("w1 to be out", lambda: states(1) == "1,0")
    router.stop()
    assert states(0) == "1"


def test_outcomes(pdctl, tmp_path):
    db = tmp_path / "c.db"
    gone = threading.Event()

    def answer(seen, wire):
        what = seen.json()["prompt"]
        if what == "cut":
            wire.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
            wire.keep = False
        elif what == "wait":
            gone.wait(20)
            wire.keep = False
        else:
            wire.json({"error": "no"}, status=422)

    with FakeEngine(answer) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--capture", db, "--disable-retries", "--max-concurrent-requests", 1,
                       "--queue-size", 0)
        for what in ("cut", "bad"):
            router.post("/v1/completions", {"prompt": what, "stream": what == "cut"})
            wait_for("the place to be free", lambda: router.metric("pdctl_requests_in_work") == 0)
        body = b'{"prompt":"wait"}'
        with router.connect() as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            wait_for("the place to be taken", lambda: router.metric("pdctl_requests_in_work") == 1)
            assert router.post("/v1/completions", {"prompt": "no room"})[0] == 429
        flushed(router, 4)
        gone.set()
        router.stop()
    got = {r["outcome"]: r for r in rows(db, "SELECT * FROM request")}
    assert {k: v["status"] for k, v in got.items()} == {"cut": 200, "error": 422, "client_left": 0, "refused": 429}
    assert got["cut"]["events"] == 1 and got["cut"]["error"]
    assert got["refused"]["decisions"] == 0 and got["refused"]["decided_ns"] is None


# -- 20,000 requests, kill -9, drain --


def test_none_is_lost_without_being_counted(pdctl, engine, tmp_path):
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", engine, "--capture", db, "--log-level", "warn")
    load(router, 20000)
    wait_for("an empty queue", lambda: router.metric("pdctl_capture_queue_bytes") == 0)
    received = router.metric("pdctl_requests_received_total")
    dropped = router.metric('pdctl_capture_dropped_total{kind="request"')
    assert router.metric('pdctl_capture_records_total{kind="request"}') + dropped == received
    router.stop()
    s = rows(db, "SELECT * FROM summary")[0]
    assert received >= 20000 and s["requests"] + s["dropped_requests"] == received
    assert s["decisions"] + s["dropped_decisions"] == received and s["dropped_requests"] == dropped
    assert sound(db) and s["ended"] == 1


def test_a_small_queue_counts_what_it_drops(pdctl, engine, tmp_path):
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", engine, "--capture", db, "--capture-queue", 20, "--capture-queue-bytes", 65536,
                   "--log-level", "warn")
    load(router, 5000)
    received = router.metric("pdctl_requests_received_total")
    log = router.log
    wait_for("the warning", lambda: "the queue was full" in log())
    router.stop()
    s = rows(db, "SELECT * FROM summary")[0]
    assert s["dropped_requests"] > 0 and s["requests"] > 0
    assert s["requests"] + s["dropped_requests"] == received == s["decisions"] + s["dropped_decisions"]
    assert {r["reason"] for r in rows(db, "SELECT reason FROM dropped")} == {"queue_full"}


def test_kill_minus_nine_leaves_a_readable_file(pdctl, engine, tmp_path):
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", engine, "--capture", db, "--log-level", "warn")
    load(router, 2000)
    flushed(router, 2000)
    stop = threading.Event()

    def more():
        with contextlib.suppress(OSError):
            while not stop.is_set():
                router.post("/v1/completions", {"prompt": "p"})

    threads = [threading.Thread(target=more) for _ in range(4)]
    for t in threads:
        t.start()
    wait_for("more requests", lambda: router.metric("pdctl_requests_received_total") > 2200)
    written = router.metric('pdctl_capture_records_total{kind="request"}')
    router.kill()
    stop.set()
    for t in threads:
        t.join()
    done = subprocess.run(["sqlite3", db, "PRAGMA integrity_check; SELECT count(*) FROM request"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ok, count = done.stdout.split()
    assert ok == "ok" and int(count) >= written >= 2000
    assert one(db, "SELECT ended FROM summary") == 0
    # The next start appends a run of its own.
    router = pdctl("serve", "--worker-urls", engine, "--capture", db)
    assert router.post("/v1/completions", {"prompt": "p"})[0] == 200
    router.stop()
    assert [r["run"] for r in rows(db, "SELECT run FROM summary ORDER BY run")] == [1, 2]
    assert one(db, "SELECT count(*) FROM request WHERE run = 2") == 1
    assert one(db, "SELECT min(id) FROM request WHERE run = 2") == 20000000001
    assert one(db, "SELECT count(*) FROM decision_named WHERE run = 2") == 1


def test_two_routers_write_one_file(pdctl, engine, tmp_path):
    """A restart that drains: the old and the new one have the same file for a while."""
    db = tmp_path / "c.db"
    routers = [pdctl("serve", "--worker-urls", engine, "--capture", db, "--log-level", "warn") for _ in range(2)]
    threads = [threading.Thread(target=load, args=(r, 1000, 8)) for r in routers]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for r in routers:
        r.stop()
    got = rows(db, "SELECT * FROM summary")
    assert [r["requests"] >= 1000 and r["dropped_requests"] == 0 and r["ended"] == 1 for r in got] == [True, True] and sound(db)


def test_drain_writes_everything(pdctl, tmp_path):
    db = tmp_path / "c.db"
    worker = pdctl.worker("--decode-ms-per-token", 20)
    router = pdctl("serve", "--worker-urls", worker.url, "--capture", db)
    answers = []
    threads = [threading.Thread(target=lambda i=i: answers.append(router.post("/v1/chat/completions", chat(i, max_tokens=30))[0]))
               for i in range(8)]
    for t in threads:
        t.start()
    wait_for("8 in work", lambda: router.metric("pdctl_requests_in_work") == 8)
    router.signal(signal.SIGTERM)
    for t in threads:
        t.join()
    assert router.wait() == 0 and answers == [200] * 8
    assert one(db, "SELECT count(*) FROM request WHERE outcome = 'ok' AND completion_tokens = 30") == 8
    assert one(db, "SELECT ended FROM summary") == 1


def test_reload_is_a_new_fleet(pdctl, tmp_path):
    db, conf = tmp_path / "c.db", tmp_path / "workers.yaml"
    a, b = pdctl.worker("--speedup", 1000), pdctl.worker("--speedup", 1000)
    conf.write_text(f"policy: round_robin\nworkers: ['a={a.url}']\n")
    router = pdctl("serve", "--workers-file", conf, "--capture", db)
    router.post_json("/v1/chat/completions", chat(1))
    conf.write_text(f"policy: least_request\nworkers: ['b={b.url}', 'a={a.url}']\n")
    router.signal(signal.SIGHUP)
    wait_for("the reload", lambda: router.metric("pdctl_reloads_total") == 1)
    for i in range(4):
        router.post_json("/v1/chat/completions", chat(i))
    router.stop()
    assert [(r["version"], r["policy"]) for r in rows(db, "SELECT * FROM fleet ORDER BY version")] == [(1, "round_robin"), (2, "least_request")]
    assert [r["name"] for r in rows(db, "SELECT name FROM worker WHERE fleet = 2 ORDER BY position")] == ["b", "a"]
    named = rows(db, "SELECT worker, policy FROM decision_named ORDER BY id")
    assert named[0] == {"worker": "a", "policy": "round_robin"} and {r["worker"] for r in named[1:]} == {"a", "b"}


# -- privacy --


def bytes_of(db):
    return b"".join(open(f"{db}{end}", "rb").read() for end in ("", "-wal", "-shm") if os.path.exists(f"{db}{end}"))


@pytest.mark.parametrize("flags", [[], ["--capture-keys", "hash"], ["--key-compat", "vllm-router"], ["--keyless", "prefix"]])
def test_no_prompt_text(flags, pdctl, tmp_path):
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", pdctl.worker("--speedup", 1000).url, "--capture", db, *flags)
    router.post_json("/v1/chat/completions", chat(1, session_params={"session_id": "keyed-session"}))
    # So short that another router's order takes the body itself as the key.
    router.post_json("/v1/completions", {"model": "m", "prompt": WORDS, "max_tokens": 1})
    router.post_json("/v1/completions", {"prompt": [{"x": WORDS}], "model": "m"}, status=400)
    flushed(router, 3)
    assert WORDS.encode() not in bytes_of(db) and (b"keyed-session" in bytes_of(db)) == ("hash" not in flags)
    router.stop()
    assert WORDS.encode() not in bytes_of(db)
    got = rows(db, "SELECT key, key_form, key_source FROM request ORDER BY id")
    assert got[0]["key_form"] == ("hash" if "hash" in flags else "plain")
    if "vllm-router" in flags:
        assert got[1]["key_source"] == "request" and got[1]["key_form"] == "hash" and re.fullmatch("[0-9a-f]{32}", got[1]["key"])


def test_hashed_keys_are_the_same_in_a_run_only(pdctl, tmp_path):
    db = tmp_path / "c.db"
    worker = pdctl.worker("--speedup", 1000)
    for _ in range(2):
        router = pdctl("serve", "--worker-urls", worker.url, "--capture", db, "--capture-keys", "hash")
        for i in (1, 2, 1):
            router.post_json("/v1/chat/completions", chat(i))
        router.stop()
    a, b, c, d, e, f = (r["key"] for r in rows(db, "SELECT key FROM request ORDER BY id"))
    assert a == c and d == f and len({a, b, d, e}) == 4


def test_prompts_when_asked_for(pdctl, tmp_path):
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", pdctl.worker("--speedup", 1000).url, "--capture", db, "--capture-prompts",
                   "--capture-body-max", 1000)
    router.post_json("/v1/completions", {"model": "m", "prompt": WORDS, "max_tokens": 1})
    router.post_json("/v1/chat/completions", chat(1))
    router.stop()
    short, long = (bytes(r["body"]) for r in rows(db, "SELECT body FROM request ORDER BY id"))
    assert short == b'{"model": "m", "prompt": "%s", "max_tokens": 1}' % WORDS.encode() and len(long) == 1000


# -- files that cannot be used, disks that are full --


def serve_fails(*args):
    done = run("serve", "--worker-urls", "http://127.0.0.1:9", "--port", 0, "--prometheus-port", 0, *args)
    assert done.returncode == 2 and not done.stdout, (done.returncode, done.stderr)
    return done.stderr


def test_wrong_files(tmp_path):
    text, other, future = tmp_path / "notes.txt", tmp_path / "other.db", tmp_path / "future.db"
    text.write_text("dear diary " * 20)
    with contextlib.closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE mine (x)")
    with contextlib.closing(sqlite3.connect(future)) as db:
        db.executescript("CREATE TABLE run (x); PRAGMA application_id = 0x70644361; PRAGMA user_version = 99")
    (tmp_path / "short").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for path, why in ((text, "not an SQLite database"), (other, "an SQLite database but not a capture"), (future, "a capture of version 99"),
                      (tmp_path / "short", "not an SQLite database"), (tmp_path / "pipe", "not a regular file"),
                      ("/dev/full", "not a regular file")):
        before = path.read_bytes() if os.path.isfile(path) else None
        assert f"--capture: '{path}' is {why}" in serve_fails("--capture", path)
        if before is not None:
            assert path.read_bytes() == before and not os.path.exists(f"{path}-wal")
    assert "Is a directory" in serve_fails("--capture", tmp_path)
    assert "No such file" in serve_fails("--capture", tmp_path / "none" / "c.db")
    assert "found an empty name" in serve_fails("--capture", "")
    assert "requires --capture FILE" in serve_fails("--capture-keys", "hash")
    assert "requires --capture-prompts" in serve_fails("--capture", tmp_path / "c.db", "--capture-body-max", 10)
    assert "at least 8 times" in serve_fails("--capture", tmp_path / "c.db", "--capture-prompts", "--capture-queue-bytes", 65536)
    assert not os.path.exists(tmp_path / "c.db")


def test_damaged_capture_is_refused(pdctl, tmp_path):
    db = tmp_path / "c.db"
    pdctl("serve", "--worker-urls", "http://127.0.0.1:9", "--capture", db).stop()
    with contextlib.closing(sqlite3.connect(db)) as c:
        c.executescript("DROP VIEW decision_named; ALTER TABLE request DROP COLUMN body")
    assert "cannot use" in serve_fails("--capture", db)


@pytest.mark.parametrize("limit", ["file size", "max bytes"])
def test_a_full_disk_does_not_disturb_requests(limit, pdctl, engine, tmp_path):
    db = tmp_path / "c.db"
    flags = ["--capture-max-bytes", 200000] if limit == "max bytes" else []
    router = pdctl("serve", "--worker-urls", engine, "--capture", db, "--log-level", "warn", *flags)
    if limit == "file size":
        resource.prlimit(router.proc.pid, resource.RLIMIT_FSIZE, (150000, resource.RLIM_INFINITY))
    load(router, 3000)
    wait_for("the failure", lambda: router.metric("pdctl_capture_failing") == 1)
    router.said(f"cannot write '{db}'")
    assert router.metric("vllm_router_requests_total{") >= 3000
    assert router.metric('pdctl_capture_dropped_total{kind="request",loss="write_error"}') > 0
    if limit == "file size":  # room again: it goes on by itself
        resource.prlimit(router.proc.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        router.post("/v1/completions", {"prompt": "p"})

        def works():
            router.post("/v1/completions", {"prompt": "p"})
            return router.metric("pdctl_capture_failing") == 0

        wait_for("the recovery", works, 20, 0.2)
        router.said("again")
    received = router.metric("pdctl_requests_received_total")
    router.stop()
    assert sound(db)
    s = rows(db, "SELECT * FROM summary")[0] if limit == "file size" else None
    if s:
        assert s["requests"] + s["dropped_requests"] == received and s["ended"] == 1


def test_a_file_that_is_moved_away(pdctl, tmp_path):
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", pdctl.worker("--speedup", 1000).url, "--capture", db)
    router.post_json("/v1/chat/completions", chat(1))
    flushed(router, 1)
    os.rename(db, tmp_path / "old.db")

    def noticed():
        router.post_json("/v1/chat/completions", chat(2))
        return router.metric("pdctl_capture_failing") == 1

    wait_for("the failure", noticed, 20, 0.2)
    router.said("was moved, replaced or deleted")
    router.stop()
    assert not os.path.exists(db)


# -- the page --


def test_documented_queries_run(pdctl, tmp_path):
    if not shutil.which("sqlite3"):
        pytest.skip("not installed: sqlite3")
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", pdctl.worker("--speedup", 1000).url, "--capture", db)
    for i in range(6):
        router.post_json("/v1/chat/completions", chat(i))
    router.stop()
    with open(DOCS) as f:
        page = f.read()
    queries = re.findall(r"^```sql\n(.*?)^```", page, re.M | re.S)
    assert len(queries) >= 6
    for q in queries:
        done = subprocess.run(["sqlite3", "-bail", db], input=q, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.strip(), (q, done.stderr)
    # Every table, view and column is explained.
    with contextlib.closing(sqlite3.connect(db)) as c:
        for name, kind in c.execute("SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view')").fetchall():
            assert f"`{name}`" in page, name
            if kind == "table":
                for column in c.execute(f"PRAGMA table_info({name})").fetchall():
                    assert f"`{column[1]}`" in page, (name, column[1])
