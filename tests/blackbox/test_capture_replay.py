"""A capture is a workload: simulate, bench and gen read it, and the replay makes the decisions that the router made."""

import contextlib
import json
import os
import re
import shutil
import sqlite3

import pytest

from fake_engine import FakeEngine
from harness import run, wait_for

NAMES = ["alpha", "beta", "gamma"]
POLICIES = ["consistent_hash", "rendezvous_hash", "round_robin", "random", "power_of_two", "least_request"]
HASHED = ("consistent_hash", "rendezvous_hash")


def sessions(n=80):
    """Sessions in an order of no pattern, a few requests without any."""
    state = 12345
    for i in range(n):
        state = (state * 1103515245 + 12345) % (1 << 31)
        yield i, None if i % 13 == 5 else f"user-{state // 7 % 23}"


def send(router, n=80):
    """One request after the other; each way to have a key."""
    for i, key in sessions(n):
        body = {"model": "m", "messages": [{"role": "user", "content": f"{key} says " * 100}], "max_tokens": 2}
        headers = {}
        if key and i % 3 == 0:
            headers["X-Session-Id"] = key
        elif key and i % 3 == 1:
            body["session_params"] = {"session_id": key}
        elif key:
            body["user"] = key
        assert router.post("/v1/chat/completions", body, headers)[0] == 200


def agreement(text):
    """[(policy, pool, share, compared)] of simulate's lines."""
    found = re.findall(r"^agreement with the capture: (\S+), (\w+) \d+: (?:([\d.]+) % \((\d+) of (\d+) decisions\)|nothing to compare)$", text, re.M)
    return [(p, pool, float(s) if s else None, int(n or 0)) for p, pool, s, _, n in found]


def replay(db, *args):
    done = run("simulate", "--workload", db, "--routing-only", *args)
    assert done.returncode == 0, done.stderr
    return agreement(done.stdout)


@pytest.fixture
def workers(pdctl):
    return [f"{n}={pdctl.worker('--speedup', 1000).url}" for n in NAMES]


@pytest.mark.parametrize("ring", ["xxh3", "fbi"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_decisions(policy, ring, pdctl, workers, tmp_path):
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", *workers, "--policy", policy, "--ring-hash", ring, "--virtual-nodes", 77, "--capture", db)
    send(router)
    router.stop()
    # Workers, policy, ring: all as the capture says.
    assert replay(db) == [(policy, "workers", 100.0, 80)]
    done = run("simulate", "--workload", db, "--routing-only", "--expect", f"{policy}: agreement == 1")
    assert done.returncode == 0 and "1 ok" in done.stdout
    # The trace that gen makes of it says the same, once it is told what the router was.
    trace = tmp_path / "t.jsonl"
    assert run("gen", "--from-capture", db, "--output", trace).returncode == 0
    assert replay(trace, "--worker-names", *NAMES, "--policy", f"{policy}@{ring}", "--vnodes", 77) == [(f"{policy}@{ring}", "workers", 100.0, 80)]
    # Another policy decides otherwise, and is caught.
    other = "round_robin" if policy in HASHED else "consistent_hash"
    ((_, _, share, compared),) = replay(db, "--policy", other)
    assert share < 70 and compared == 80
    assert run("simulate", "--workload", db, "--routing-only", "--policy", other, "--expect", "agreement == 1").returncode == 1


def test_prefill_and_decode(pdctl, tmp_path):
    db = tmp_path / "c.db"
    flags = []
    for role in ("prefill", "decode"):
        for i in range(3):
            flags += [f"--{role}", f"{role[0]}{i}={pdctl.worker('--role', role, '--speedup', 1000).url}"]
    router = pdctl("serve", "--pd-disaggregation", *flags, "--prefill-policy", "consistent_hash", "--decode-policy", "power_of_two", "--capture", db)
    send(router)
    router.stop()
    label = "consistent_hash/power_of_two"
    assert replay(db) == [(label, "prefill", 100.0, 80), (label, "decode", 100.0, 80)]


@pytest.mark.parametrize("policy", HASHED)
def test_hash_policies_agree_under_load(policy, pdctl, workers, tmp_path):
    """Whatever else is in flight, a key goes home: 100 % also with many requests at once, and with an engine in the replay."""
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", *workers, "--policy", policy, "--capture", db)
    done = run("bench", "--base-url", router.url, "--model", "m", "--sessions", 40, "--requests-per-session", 10, "--input-len", 200,
               "--output-len", 4)
    assert done.returncode == 0, done.stderr
    router.stop()
    done = run("simulate", "--workload", db)
    assert done.returncode == 0, done.stderr
    assert agreement(done.stdout) == [(policy, "workers", 100.0, 400)]


def test_keys_that_are_hashed(pdctl, workers, tmp_path):
    """Sessions stay sessions; where a hash policy put them cannot be known, and is not claimed."""
    for policy, want in (("consistent_hash", (None, 0)), ("round_robin", (100.0, 80))):
        db = tmp_path / f"{policy}.db"
        router = pdctl("serve", "--worker-urls", *workers, "--policy", policy, "--capture", db, "--capture-keys", "hash")
        send(router)
        router.stop()
        ((_, _, *got),) = replay(db)
        # Requests without a key have nothing that was hashed.
        unkeyed = len([1 for _, key in sessions() if not key])
        assert tuple(got) == (want if policy == "round_robin" else (100.0, unkeyed))
        doc = json.loads(run("simulate", "--workload", db, "--policy", "consistent_hash", "--routing-only", "--json", "-").stdout)
        assert doc["pdctl"]["workload"]["sessions"] == len({key for _, key in sessions() if key})


def test_lengths_times_and_blocks(pdctl, workers, tmp_path):
    db, trace = tmp_path / "c.db", tmp_path / "t.jsonl"
    router = pdctl("serve", "--worker-urls", *workers, "--policy", "consistent_hash", "--capture", db)
    send(router, 20)
    router.stop()
    assert run("gen", "--from-capture", db, "--output", trace).returncode == 0
    lines = [json.loads(x) for x in trace.read_text().splitlines()]
    with contextlib.closing(sqlite3.connect(db)) as c:
        got = c.execute("SELECT decided_ns, prompt_tokens, completion_tokens, key, blocks FROM request ORDER BY decided_ns").fetchall()
    assert len(lines) == len(got) == 20
    for line, (at, prompt, made, key, blocks) in zip(lines, got):
        assert round(line["timestamp"] * 1e6) == at - got[0][0]
        assert (line["input_length"], line["output_length"], line.get("prompt_cache_key")) == (prompt, made, key)
        assert line["block_tokens"] == 64 and 0 < len(line["hash_ids"]) <= len(blocks) // 8
        assert all(0 <= h < 1 << 53 for h in line["hash_ids"]) and line["picked"][0] in NAMES and "prompt" not in line and "messages" not in line
    # Requests of one session share their prompt, so they hit; the first of each session does not.
    doc = json.loads(run("simulate", "--workload", db, "--routing-only", "--json", "-").stdout)
    assert doc["pdctl"]["pools"]["workers"]["block_hit_rate"] > 0.2
    assert doc["total_input_tokens"] == sum(x["input_length"] for x in lines)
    assert doc["pdctl"]["pools"]["workers"]["agreement"] == 1


def test_prompts_come_back_when_they_were_captured(pdctl, workers, tmp_path):
    db, again = tmp_path / "c.db", tmp_path / "again.db"
    router = pdctl("serve", "--worker-urls", *workers, "--policy", "consistent_hash", "--capture", db, "--capture-prompts")
    pretty = json.dumps({"model": "m", "messages": [{"role": "user", "content": "two\nlines"}], "session_id": "s"}, indent=2).encode()
    assert router.post("/v1/chat/completions", pretty, {"Content-Type": "application/json"})[0] == 200
    send(router, 10)
    router.stop()
    router = pdctl("serve", "--worker-urls", *workers, "--policy", "consistent_hash", "--capture", again, "--capture-prompts")
    done = run("bench", "--base-url", router.url, "--model", "m", "--dataset", db, "--timestamps", "--session-field", "session_id",
               "--endpoint", "/v1/chat/completions")
    assert done.returncode == 0, done.stderr
    router.stop()
    picks = []
    for path in (db, again):
        with contextlib.closing(sqlite3.connect(path)) as c:
            query = "SELECT r.body, r.key, d.worker FROM request r JOIN decision_named d ON d.request = r.id WHERE r.key IS NOT NULL"
            picks.append(sorted((json.dumps(json.loads(body)["messages"]), key, worker) for body, key, worker in c.execute(query)))
    assert picks[0] == picks[1] and len(picks[0]) == 11 - len([1 for _, k in sessions(10) if not k])


def test_bench_makes_prompts_where_none_were_captured(pdctl, workers, tmp_path):
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", *workers, "--policy", "consistent_hash", "--capture", db)
    send(router, 12)
    router.stop()
    with FakeEngine(lambda seen, wire: wire.json({"choices": [{"text": "x"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})) as engine:
        done = run("bench", "--base-url", engine.url, "--model", "m", "--dataset", db, "--no-stream", "--endpoint", "/v1/completions",
                   "--session-field", "session_id")
        assert done.returncode == 0, done.stderr
        sent = [s.json() for s in engine.seen if s.method == "POST"]
    assert sorted(s.get("session_id", "") for s in sent) == sorted(key or "" for _, key in sessions(12))
    assert all(len(s["prompt"]) > 200 and "says" not in s["prompt"] for s in sent)


def test_runs_and_reloads(pdctl, workers, tmp_path):
    """The last run unless another one is asked for; the workers that most decisions saw."""
    db = tmp_path / "c.db"
    for policy, n in (("round_robin", 10), ("least_request", 20)):
        router = pdctl("serve", "--worker-urls", *workers, "--policy", policy, "--capture", db)
        send(router, n)
        router.stop()
    assert replay(db) == [("least_request", "workers", 100.0, 20)]
    assert replay(db, "--capture-run", 2) == replay(db)
    assert replay(db, "--capture-run", 1) == [("round_robin", "workers", 100.0, 10)]
    lines = run("gen", "--from-capture", db, "--capture-run", 1).stdout.splitlines()
    assert len(lines) == 10
    # A worker that the simulation does not have is compared with nothing.
    ((_, _, _, compared),) = replay(db, "--worker-names", "alpha", "delta")
    assert 0 < compared < 20
    assert replay(db, "--workers", 5) == [("least_request", "workers", None, 0)]


def test_a_scenario_replays_it(pdctl, workers, tmp_path):
    router = pdctl("serve", "--worker-urls", *workers, "--policy", "consistent_hash", "--capture", tmp_path / "c.db")
    send(router, 20)
    router.stop()
    scenario = tmp_path / "again.yaml"
    scenario.write_text(
        "name: again\nworkload: {file: c.db}\nworkers: {names: [alpha, beta, gamma]}\npolicies: [consistent_hash, round_robin]\n"
        "routing_only: true\nexpect: ['consistent_hash: agreement == 1', 'round_robin: agreement < 0.8']\n"
    )
    done = run("simulate", scenario)
    assert done.returncode == 0, done.stdout + done.stderr
    assert agreement(done.stdout)[0] == ("consistent_hash", "workers", 100.0, 20)


def test_a_capture_is_left_alone(pdctl, workers, tmp_path):
    """Also in a folder that cannot be written, and while the router writes."""
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", *workers, "--policy", "consistent_hash", "--capture", db)
    send(router, 5)
    assert run("simulate", "--workload", db, "--routing-only").returncode in (0, 2)  # maybe not written yet
    send(router, 5)
    router.stop()
    before = db.read_bytes()
    assert replay(db)[0][2:] == (100.0, 10)
    assert db.read_bytes() == before and os.listdir(tmp_path) == ["c.db"]
    if os.geteuid() != 0:
        os.chmod(tmp_path, 0o500)
        assert replay(db)[0][2:] == (100.0, 10)
        os.chmod(tmp_path, 0o700)


def test_after_kill(pdctl, workers, tmp_path):
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", *workers, "--policy", "consistent_hash", "--capture", db)
    send(router, 10)
    wait_for("all rows", lambda: router.metric('pdctl_capture_records_total{kind="request"}') == 10)
    router.kill()
    moved = tmp_path / "moved"
    moved.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{db}{end}", moved)
    assert replay(db)[0][2:] == replay(moved / "c.db")[0][2:] == (100.0, 10)


def test_wrong_input(tmp_path, pdctl, workers):
    other, future, empty, text = (tmp_path / n for n in ("other.db", "future.db", "empty.db", "text.jsonl"))
    text.write_text('{"prompt":"x"}\n')
    with contextlib.closing(sqlite3.connect(other)) as c:
        c.execute("CREATE TABLE mine (x)")
    with contextlib.closing(sqlite3.connect(future)) as c:
        c.executescript("CREATE TABLE run (x); PRAGMA application_id = 0x70644361; PRAGMA user_version = 99")
    pdctl("serve", "--worker-urls", *workers, "--policy", "consistent_hash", "--capture", empty).stop()
    out = tmp_path / "out.jsonl"
    for args, want in (
        (("simulate", "--workload", other), "is an SQLite database but not a capture"),
        (("simulate", "--workload", future), "is a capture of version 99, expected version 1 to 2"),
        (("simulate", "--workload", empty), "has no routed request"),
        (("simulate", "--workload", empty, "--capture-run", 3), "has no run 3, expected at most 1"),
        (("simulate", "--workload", text, "--capture-run", 3), "--capture-run"),
        (("bench", "--dataset", other, "--model", "m"), "is an SQLite database but not a capture"),
        (("bench", "--dataset", text, "--model", "m", "--capture-run", 2), "expected a capture"),
        (("bench", "--model", "m", "--capture-run", 2), "--capture-run requires --dataset"),
        (("gen", "--from-capture", text, "--output", out), "expected a capture of pdctl serve"),
        (("gen", "--from-capture", tmp_path / "none", "--output", out), "does not exist"),
        (("gen", "--from-capture", empty, "--output", out), "has no routed request"),
        (("gen", "--from-capture", empty, "--seed", 1), "--seed has no effect with --from-capture"),
        (("gen", "conversations", "--from-capture", empty), "expected one of them"),
        (("gen", "conversations", "--capture-run", 1), "requires --from-capture"),
    ):
        done = run(*args)
        assert done.returncode == 2 and want in done.stderr and not done.stdout, (args, done.stderr)
    assert not out.exists()
    (tmp_path / "w.jsonl").write_text('{"prompt":"x","picked":["a"],"draws":["zz"]}\n')
    done = run("simulate", "--workload", tmp_path / "w.jsonl", "--workers", 2)
    assert done.returncode == 2 and "16 hexadecimal digits" in done.stderr
    # Cut in the middle: an error, not a crash.
    full = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", *workers, "--policy", "consistent_hash", "--capture", full)
    send(router, 30)
    router.stop()
    cut = tmp_path / "cut.db"
    cut.write_bytes(full.read_bytes()[:20000])
    assert run("simulate", "--workload", cut).returncode == 2


def test_draws_of_older_captures_are_passed_over(pdctl, workers, tmp_path):
    """They were states of a generator, 32 bytes; the replay then draws with its own seed, and hash policies agree as ever."""
    db = tmp_path / "c.db"
    router = pdctl("serve", "--worker-urls", *workers, "--policy", "random", "--capture", db)
    send(router)
    router.stop()
    assert replay(db) == [("random", "workers", 100.0, 80)]
    with contextlib.closing(sqlite3.connect(db)) as c:
        assert c.execute("SELECT DISTINCT length(draw) FROM decision").fetchall() == [(8,)]
        c.execute("UPDATE decision SET draw = randomblob(32)")
        c.commit()
    ((policy, _, share, compared),) = replay(db)
    assert policy == "random" and compared == 80 and share < 70
