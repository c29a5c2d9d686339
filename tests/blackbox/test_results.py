"""The store of runs: what enters, what comes back, who may write at once, what a broken store does; merged shards."""

import json
import os
import pathlib
import sqlite3
import subprocess

import pytest

import harness
from harness import run

BIN = os.path.abspath(harness.PDCTL)
DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "vllm_bench"
TRACE = "".join(
    json.dumps({"timestamp": i * 100, "input_length": 600, "output_length": 8, "hash_ids": [i % 3, 10 + i]}) + "\n" for i in range(12)
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder with the default store."""
    monkeypatch.delenv("PDCTL_STORE")
    monkeypatch.delitem(harness.CLEAN_ENV, "PDCTL_STORE")
    monkeypatch.setattr(harness, "PDCTL", BIN)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace.jsonl").write_text(TRACE)
    return tmp_path


def pdctl(*words, rc=0):
    done = run(*words)
    assert done.returncode == rc, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def simulate(*words, policies="round_robin", rc=0):
    return pdctl("simulate", "--workload", "trace.jsonl", "--workers", 2, "--policy", policies, *words, rc=rc)


def listed(*words):
    return [json.loads(x) for x in pdctl("results", "list", "--json", *words).stdout.splitlines()]


def test_a_run_is_kept_and_comes_back_byte_for_byte(here):
    simulate("--json", "out.json")
    assert sorted(os.listdir("results")) == [".gitignore", "pdctl.db"]
    assert "pdctl.db" in pathlib.Path("results/.gitignore").read_text()
    (row,) = listed()
    assert row["run"] == 1 and row["tool"] == "simulate" and row["label"] == "round_robin" and row["completed"] == 12
    pdctl("results", "export", "@last", "--output", "again.json")
    assert pathlib.Path("again.json").read_bytes() == pathlib.Path("out.json").read_bytes()
    assert pdctl("results", "export", "1").stdout == pathlib.Path("out.json").read_text()
    text = pdctl("results", "show", "@last").stdout
    assert text.startswith("run 1 ") and "label    round_robin" in text and "mean_ttft_ms" in text
    table = pdctl("results", "list").stdout.splitlines()
    assert len(table) == 2 and all(len(x) <= 100 for x in table) and "round_robin" in table[1]


def test_a_run_of_bench_is_kept_like_its_output(here):
    with harness.Pdctl("worker", "--speedup", 8) as w:
        words = ["bench", "--base-url", w.url, "--num-prompts", 8, "--output-len", 4, "--label", "b", "--save-detailed"]
        pdctl(*words, "--output", "one.json")
        pdctl(*words, "--output", "/nowhere/one.json", rc=2)  # not even begun: nothing to keep
        pdctl(*words)
    assert [r["label"] for r in listed("--tool", "bench")] == ["b", "b"]
    assert pdctl("results", "export", "@1").stdout.encode() == pathlib.Path("one.json").read_bytes()
    pdctl("compare", "@b~1", "@last", "--allow-different", "all", "--fail-on", "mean_ttft_ms:+900%")


def test_rows_of_one_command_are_one_transaction_and_references_find_them(here):
    simulate(policies="round_robin,consistent_hash")
    simulate(policies="consistent_hash")
    assert [r["label"] for r in listed()] == ["round_robin", "consistent_hash", "consistent_hash"]
    found = {
        "@last": [3], "last~1": [2], "@last:2": [2, 3], "@2": [2], "#1": [1], "@consistent_hash": [2, 3],
        "@consistent_hash~1": [2], "@consistent_hash:1": [3], "@label=consistent_hash": [2, 3],
    }  # fmt: skip
    with sqlite3.connect("results/pdctl.db") as db:
        docs = dict(db.execute("SELECT run, text FROM document"))
    for ref, ids in found.items():
        assert pdctl("results", "export", ref).stdout.encode() == b"".join(docs[i] for i in ids), ref
    assert [r["run"] for r in listed("--label", "consistent_hash", "--last", 1)] == [3]
    assert listed("--tool", "bench") == []
    for ref, words in {"@9": "is no run", "@consistent_hahs": "did you mean '@consistent_hash'?", "@~1": "expected @last"}.items():
        done = pdctl("results", "export", ref, rc=2)
        assert words in done.stderr and done.stdout == ""
    # compare takes them, and the commit of the folder is there
    pdctl("compare", "@consistent_hash~1", "@last", "--fail-on", "mean_ttft_ms:+1%")
    done = pdctl("compare", "@nobody", "@last", rc=2)
    assert "is no run of the store 'results/pdctl.db'" in done.stderr


def test_the_commit_is_read_from_gits_files(here):
    for words in (["init", "-q", "-b", "main"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    os.makedirs("deep/er")
    simulate()
    assert listed()[0]["commit"] == head
    subprocess.run(["git", "pack-refs", "--all"], check=True)
    subprocess.run(["git", "worktree", "add", "-q", "-b", "side", "tree"], check=True)
    for folder in ("deep/er", "tree"):
        done = subprocess.run(
            [BIN, "simulate", "--workload", os.path.abspath("trace.jsonl"), "--policy", "round_robin",
             "--store", os.path.abspath("results/pdctl.db")],
            cwd=folder, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert listed()[-1]["commit"] == head, folder
    assert subprocess.run(["git", "status", "--short"], capture_output=True, text=True).stdout.count("results") == 0


def test_many_writers_at_once_lose_nothing(here):
    writers = [
        subprocess.Popen(
            [BIN, "simulate", "--workload", "trace.jsonl", "--policy", "round_robin,consistent_hash"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for _ in range(12)
    ]
    for w in writers:
        assert "warning" not in w.communicate(timeout=120)[1] and w.returncode == 0
    rows = listed()
    assert [r["run"] for r in rows] == list(range(1, 25))
    # the rows of one command stand together
    assert all(a["label"] != b["label"] for a, b in zip(rows[::2], rows[1::2]))
    with sqlite3.connect("results/pdctl.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM document").fetchone() == (24,)


def test_a_store_that_cannot_be_written_is_a_warning(here):
    pathlib.Path("results").write_text("a file where the folder should be")
    done = simulate("--json", "out.json")
    assert "warning: the run is not in the store" in done.stderr and json.loads(pathlib.Path("out.json").read_text())["completed"] == 12
    with sqlite3.connect("other.db") as db:
        db.execute("CREATE TABLE x (y)")
    before = pathlib.Path("other.db").read_bytes()
    done = simulate("--store", "other.db")
    assert "an SQLite database but not a store" in done.stderr and pathlib.Path("other.db").read_bytes() == before
    assert "not a store" in pdctl("results", "list", "--store", "other.db", rc=2).stderr
    pathlib.Path("text.db").write_text("hello " * 100)
    assert "not an SQLite database" in simulate("--store", "text.db").stderr
    assert "cannot open the store" in pdctl("results", "list", "--store", "none.db", rc=2).stderr
    assert not os.path.exists("none.db")


def test_no_store_and_another_store(here, monkeypatch):
    simulate("--no-store")
    monkeypatch.setitem(harness.CLEAN_ENV, "PDCTL_STORE", "none")
    simulate()
    assert not os.path.exists("results")
    monkeypatch.setitem(harness.CLEAN_ENV, "PDCTL_STORE", "mine.db")
    simulate()
    assert listed() and not os.path.exists("results")
    simulate("--store", "new/folder.db")
    assert len(listed("--store", "new/folder.db")) == 1 and not os.path.exists("new/.gitignore")


def test_import_takes_every_format_once(here):
    for name in ("base-1.json", "appended.json"):
        pdctl("results", "import", DATA / name)
    assert len(listed()) == 2  # the first of the appended ones is base-1
    done = pdctl("results", "import", DATA / "appended.json")
    assert "2 were there already" in done.stderr and len(listed()) == 2
    assert pdctl("results", "export", "@1").stdout == (DATA / "base-1.json").read_text()
    # exported together they are documents one after another
    pathlib.Path("both.json").write_text(pdctl("results", "export", "@1", "@2").stdout)
    assert len(json.loads(pdctl("compare", "both.json", "both.json", "--format", "json").stdout)["sides"][0]["runs"]) == 2
    pathlib.Path("bad.json").write_text('{"hello": 1}')
    assert "no benchmark result" in pdctl("results", "import", "bad.json", rc=2).stderr
    assert "bad2.json" in pdctl("results", "import", "bad2.json", rc=3).stderr
    assert len(listed()) == 2


def test_trend_and_remove(here):
    for i in (1, 2, 3):
        pdctl("results", "import", DATA / f"base-{i}.json", DATA / f"slow-{i}.json")
    lines = pdctl("results", "trend", "mean_ttft_ms").stdout.splitlines()
    assert lines[0] == "mean_ttft_ms in ms over 6 runs" and len(lines[1].split()[0]) == 6 and set(lines[1].split()[0]) <= set("▁▂▃▄▅▆▇█")
    values = [json.loads(x)["value"] for x in pdctl("results", "trend", "mean_ttft_ms", "--json", "--last", 2).stdout.splitlines()]
    assert values == [json.loads((DATA / f"{s}-3.json").read_text())["mean_ttft_ms"] for s in ("base", "slow")]
    assert "did you mean 'mean_ttft_ms'?" in pdctl("results", "trend", "mean_tfft_ms", rc=2).stderr
    pdctl("results", "remove", "@2", "@last")
    assert [r["run"] for r in listed()] == [1, 3, 4, 5]
    pdctl("results", "import", DATA / "slow-3.json")
    assert listed()[-1]["run"] == 7  # numbers are never used again
    with sqlite3.connect("results/pdctl.db") as db:
        assert db.execute("SELECT count(*) FROM metric WHERE run = 2").fetchone() == (0,)


def test_wrong_words(here):
    simulate()
    for words, text in (
        ([], "expected list, show"), (["lsit"], "did you mean 'list'?"), (["show"], "expected a run"),
        (["list", "x"], "found 1 words"), (["list", "--output", "x"], "list has no option --output"),
        (["trend"], "expected a metric"),
    ):  # fmt: skip
        assert text in pdctl("results", *words, rc=2).stderr


def test_the_scripts_of_vllm_and_infinilm_read_it(here):
    """Written from what is known of them: nine keys by name; columns of a table of records."""
    pdctl("results", "import", DATA / "base-1.json", DATA / "slow-1.json")
    rows = json.loads(pdctl("results", "export", "@1", "@2", "--format", "vllm-table").stdout)
    needed = {"Test name", "Model", "Dataset Name", "Input Len", "Output Len", "TP Size", "PP Size", "# of max concurrency.", "qps"}
    assert all(needed <= set(r) for r in rows) and rows[0]["P99 TTFT (ms)"] < rows[1]["P99 TTFT (ms)"]
    assert [r["Median"] for r in rows] == [json.loads(pdctl("results", "export", f"@{i}").stdout)["median_tpot_ms"] for i in (1, 2)]
    simulate("--json", "ours.json")
    ours = json.loads(pathlib.Path("ours.json").read_text())
    for key in ("mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "median_tpot_ms", "p99_tpot_ms",
                "output_throughput", "total_token_throughput", "request_throughput"):  # fmt: skip
        assert f"{ours[key]:.2f}"


# ---- merge ----


def doc(requests, shard=None, detailed=True, **own):
    """A document of pdctl bench from (ttft s, gaps s, tokens, queue s, start s) per request, as result_write makes it."""
    import statistics

    ttfts = [r[0] for r in requests]
    lat = [r[0] + sum(r[1]) for r in requests]
    out = {
        "date": "20260101-000000", "backend": "openai-chat", "label": "s", "model_id": "m", "num_prompts": len(requests),
        "request_rate": 4.0, "burstiness": 1.0, "max_concurrency": None, "duration": 10.0 + len(requests), "completed": len(requests),
        "failed": 0, "total_input_tokens": 5 * len(requests), "total_output_tokens": sum(r[2] for r in requests),
        "request_throughput": 1.0, "request_goodput": None, "output_throughput": 1.0, "total_token_throughput": 1.0,
    }  # fmt: skip
    if detailed:
        out |= {"input_lens": [5] * len(requests), "output_lens": [r[2] for r in requests], "ttfts": ttfts, "itls": [r[1] for r in requests]}
    out |= {"latencies": lat, "queue_times": [r[3] for r in requests]}
    if detailed:
        out |= {"start_times": [r[4] for r in requests], "errors": [""] * len(requests)}
    out |= {"max_output_tokens_per_s": 3.0, "mean_ttft_ms": statistics.mean(ttfts) * 1e3, "median_ttft_ms": 1.0, "std_ttft_ms": 1.0,
            "p99_ttft_ms": 1.0, "mean_tpot_ms": 1.0, "p90_tpot_ms": 1.0, "mean_itl_ms": 1.0, "p99_itl_ms": 1.0, "p99_e2el_ms": 1.0}  # fmt: skip
    out["pdctl"] = {
        "version": 2, "tool": "bench", "simulated": False, "client_ok": True,
        "schedule_lag": {"count": len(requests), "mean_ms": 1.0, "median_ms": 1.0, "p90_ms": 1.0, "p99_ms": 1.0, "max_ms": 1.0},
        "cached_tokens": {"requests": len(requests), "total": len(requests), "share": 0.2}, "failures": {}, "codes": {"200": len(requests)},
        "workers": {"worker": {"http://a": len(requests)}, "prefill": {}, "decode": {}}, "interrupted": False,
        "p99_ttft_from_intended_ms": 1.0, **own,
    }  # fmt: skip
    if shard:
        out["pdctl"]["shard"] = shard
    return out


def some_requests(n, seed):
    import random

    r = random.Random(seed)
    return [
        (round(r.lognormvariate(-3, 0.5), 9), [round(r.expovariate(100), 9) for _ in range(r.randrange(0, 9))], 0, round(r.random() / 100, 9), 100 + i)
        for i in range(n)
    ]


def with_tokens(requests):
    return [(a, g, len(g) + 1, q, s) for a, g, _, q, s in requests]


def percentile(values, p):
    v = sorted(values)
    at = p / 100 * (len(v) - 1)
    k = int(at)
    return v[k] + (v[min(k + 1, len(v) - 1)] - v[k]) * (at - k)


def test_merged_shards_have_the_percentiles_of_one_run(here):
    whole = with_tokens(some_requests(300, 1))
    for i in range(3):
        pathlib.Path(f"s{i}.json").write_text(json.dumps(doc(whole[i::3], f"{i + 1}/3")))
    pdctl("results", "merge", "s0.json", "s1.json", "s2.json", "--output", "m.json")
    m = json.loads(pathlib.Path("m.json").read_text())
    assert m["completed"] == 300 and m["num_prompts"] == 300 and m["request_rate"] == 4.0 and len(m["ttfts"]) == 300
    assert m["duration"] == 110.0 and m["request_throughput"] == pytest.approx(300 / 110) and m["request_goodput"] is None
    ttft = [r[0] * 1e3 for r in whole]
    assert m["p99_ttft_ms"] == pytest.approx(percentile(ttft, 99), rel=1e-12)
    assert m["median_ttft_ms"] == pytest.approx(percentile(ttft, 50), rel=1e-12)
    assert m["mean_ttft_ms"] == pytest.approx(sum(ttft) / 300, rel=1e-12)
    assert m["p99_itl_ms"] == pytest.approx(percentile([g * 1e3 for r in whole for g in r[1]], 99), rel=1e-12)
    assert m["p90_tpot_ms"] == pytest.approx(percentile([sum(r[1]) / (r[2] - 1) * 1e3 for r in whole if r[2] > 1], 90), rel=1e-9)
    assert m["p99_e2el_ms"] == pytest.approx(percentile([(r[0] + sum(r[1])) * 1e3 for r in whole], 99), rel=1e-9)
    own = m["pdctl"]
    assert own["p99_ttft_from_intended_ms"] == pytest.approx(percentile([(r[0] + r[3]) * 1e3 for r in whole], 99), rel=1e-9)
    assert own["codes"] == {"200": 300} and own["workers"]["worker"] == {"http://a": 300} and own["cached_tokens"]["share"] == pytest.approx(0.2)
    assert own["client_ok"] is True and len(own["merged"]) == 3 and m["max_output_tokens_per_s"] is None and "shard" not in own
    # the same through the store, and what was merged is a result like any other
    pdctl("results", "import", "s0.json", "s1.json", "s2.json")
    assert json.loads(pdctl("results", "merge", "@s").stdout)["p99_ttft_ms"] == m["p99_ttft_ms"]
    pdctl("compare", "m.json", "m.json", "--fail-on", "p99_ttft_ms:+1%")


def test_shards_that_do_not_belong_together_are_refused(here):
    r = with_tokens(some_requests(20, 2))
    pathlib.Path("a.json").write_text(json.dumps(doc(r[::2], "1/2")))
    pathlib.Path("b.json").write_text(json.dumps(doc(r[1::2], "2/2")))
    other = doc(r[1::2], "2/2")
    other["model_id"] = "n"
    pathlib.Path("other.json").write_text(json.dumps(other))
    assert "shard 2/2 is missing" in pdctl("results", "merge", "a.json", rc=3).stderr
    pdctl("results", "merge", "a.json", "--partial")
    assert "there twice" in pdctl("results", "merge", "a.json", "a.json", rc=3).stderr
    assert "model_id differs: m in 'a.json', n in 'other.json'" in pdctl("results", "merge", "a.json", "other.json", rc=3).stderr
    assert 'no object "pdctl"' in pdctl("results", "merge", DATA / "base-1.json", rc=2).stderr
    assert "nowhere.json" in pdctl("results", "merge", "nowhere.json", rc=3).stderr


def test_without_details_histograms_carry_the_percentiles(here):
    """Two real shards: their histograms give what a run of all requests would have, within 0.1 %."""
    with harness.Pdctl("worker") as w:
        for i in (1, 2):
            pdctl("bench", "--base-url", w.url, "--num-prompts", 60, "--max-concurrency", 4, "--output-len", 6, "--shard", f"{i}/2",
                  "--save-detailed", "--no-store", "--output", f"d{i}.json")  # fmt: skip
    exact = json.loads(pdctl("results", "merge", "d1.json", "d2.json").stdout)
    for i in (1, 2):
        d = json.loads(pathlib.Path(f"d{i}.json").read_text())
        for key in ("ttfts", "itls", "output_lens", "input_lens", "start_times", "generated_texts", "errors"):
            del d[key]
        pathlib.Path(f"h{i}.json").write_text(json.dumps(d))
    merged = json.loads(pdctl("results", "merge", "h1.json", "h2.json").stdout)
    again = json.dumps(merged)
    for key in ("mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "p99_tpot_ms", "mean_itl_ms", "p99_itl_ms"):
        assert merged[key] == pytest.approx(exact[key], rel=2e-3), key
    assert merged["pdctl"]["p99_ttft_from_intended_ms"] == exact["pdctl"]["p99_ttft_from_intended_ms"] or merged["pdctl"][
        "p99_ttft_from_intended_ms"
    ] == pytest.approx(exact["pdctl"]["p99_ttft_from_intended_ms"], rel=2e-3)
    # histograms of what was merged are there for the next merge
    assert json.loads(again)["pdctl"]["histograms"]["ttft"]["count"] == 60
