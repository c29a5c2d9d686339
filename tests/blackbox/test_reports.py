"""HTML reports without a browser: one file, nothing from elsewhere, the data as it is. scripts/page-check opens them."""

import json
import re

import pytest

from harness import run

HOSTILE = "</script><script>alert(1)</script><!-- & \u2028"
LIMIT = 1 << 20


def parts(path):
    """(page, the document inside)"""
    raw = path.read_bytes()
    assert len(raw) <= LIMIT
    page = raw.decode()
    found = re.findall(r'<script type="application/json" id="data" data-kind="(\w+)">\n(.*?)\n</script>', page, re.S)
    assert len(found) == 1
    kind, text = found[0]
    assert not set("<>&") & set(text), "nothing in the data can end its element"
    assert page.count("<script") == page.count("</script>") == 4
    assert re.search(r"Content-Security-Policy\" content=\"default-src 'none';", page)
    # Without the data, and without the chart library, which names its authors' pages.
    ours = re.sub(r"<script>/\*!.*?</script>", "", page.replace(text, ""), flags=re.S)
    assert not re.findall(r'(?:src|href|action)="(?!data:,")[^"]*"|url\(|@import|https?://(?!www\.w3\.org/2000/svg)', ours), "nothing is asked for"
    return kind, json.loads(text)


@pytest.fixture(scope="module")
def worker():
    from harness import Pdctl

    with_worker = Pdctl("worker", "--model", "m").start()
    yield with_worker
    with_worker.stop()


def bench(worker, tmp_path, *words, code=0):
    done = run("bench", "--base-url", worker.url, "--model", "m", "--num-prompts", 12, "--output-len", 4, *words)
    assert done.returncode == code, done.stderr
    return done


def test_bench(worker, tmp_path):
    page, doc = tmp_path / "b.html", tmp_path / "b.json"
    bench(worker, tmp_path, "--html", page, "--output", doc, "--save-detailed", "--label", HOSTILE, "--session-pattern", "s<i%3>", "--max-concurrency", 4)
    kind, data = parts(page)
    saved = json.loads(doc.read_text())
    assert kind == "bench" and len(data["runs"]) == 1
    shown = data["runs"][0]
    assert {k: v for k, v in shown.items() if k not in ("pdctl", "distributions")} == {k: v for k, v in saved.items() if k != "pdctl" and not isinstance(v, list)}
    assert shown["label"] == HOSTILE
    assert shown["pdctl"] == {k: v for k, v in saved["pdctl"].items() if k != "histograms"}
    for name, count in (("ttft", 12), ("itl", sum(len(x) for x in saved["itls"])), ("e2el", 12)):
        curve = shown["distributions"][name]
        assert curve["count"] == count
        values, shares = zip(*curve["cdf"])
        assert list(values) == sorted(values) and shares[0] == 0 and shares[-1] == 100
    ttfts = sorted(t * 1e3 for t in saved["ttfts"])
    assert curve["cdf"] and abs(dict((p, v) for v, p in shown["distributions"]["ttft"]["cdf"])[100] - ttfts[-1]) <= ttfts[-1] / 500
    t = data["timeline"]
    assert sum(t["sent"]) == sum(t["ended"]) == 12 and sum(t["failed"]) == 0 and t["in_flight"][-1] == 0 and max(t["in_flight"]) <= 4
    assert [(lane["session"], len(lane["requests"])) for lane in sorted(t["lanes"], key=lambda x: x["session"])] == [("s0", 4), ("s1", 4), ("s2", 4)]
    assert all(0 <= r[0] <= r[1] <= r[2] and r[4] is True for lane in t["lanes"] for r in lane["requests"]) and not t["more_sessions"]


def test_bench_of_several_runs_and_many_sessions(worker, tmp_path):
    page = tmp_path / "b.html"
    bench(worker, tmp_path, "--html", page, "--repeat", 3, "--session-pattern", "s<i>", "--num-prompts", 50)
    _, data = parts(page)
    assert len(data["runs"]) == 3 and len(data["timeline"]["lanes"]) == 32 and data["timeline"]["more_sessions"] is True


def test_a_run_without_an_answer_has_a_report(tmp_path):
    page = tmp_path / "b.html"
    done = run("bench", "--base-url", "http://127.0.0.1:1", "--model", "m", "--num-prompts", 3, "--html", page)
    assert done.returncode == 1
    _, data = parts(page)
    assert data["runs"][0]["completed"] == 0 and data["runs"][0]["distributions"] == {} and sum(data["timeline"]["failed"]) == 3


def test_a_place_that_cannot_be_written_is_told_before_the_run(worker, tmp_path):
    done = bench(worker, tmp_path, "--html", tmp_path / "none" / "b.html", code=2)
    assert "--html: cannot write" in done.stderr and "Successful" not in done.stdout


def test_compare(tmp_path):
    def runs(side, values):
        for i, v in enumerate(values):
            (tmp_path / f"{side}{i}.json").write_text(json.dumps({"label": HOSTILE, "completed": 10, "failed": 0, "p99_ttft_ms": v, "request_throughput": 1000 / v}))
        return [tmp_path / f"{side}{i}.json" for i in range(len(values))]

    a, b = runs("a", [100, 101, 99, 100]), runs("b", [150, 151, 149, 150])
    page = tmp_path / "c.html"
    done = run("compare", *a, "--vs", *b, "--fail-on", "p99_ttft_ms:+5%", "--html", page, "--report", f"json={tmp_path / 'c.json'}")
    assert done.returncode == 1
    kind, data = parts(page)
    assert kind == "compare" and data == json.loads((tmp_path / "c.json").read_text()) and data["exit_code"] == 1


def test_simulate(tmp_path):
    (tmp_path / HOSTILE.replace("/", "_")[:20]).mkdir()
    work, page = tmp_path / HOSTILE.replace("/", "_")[:20] / "w.jsonl", tmp_path / "s.html"
    work.write_text("".join(json.dumps({"timestamp": i * 100, "input_length": 600, "output_length": 8, "hash_ids": [i % 3, 10 + i % 3], "session_id": f"s{i % 5}"}) + "\n" for i in range(40)))
    done = run("simulate", "--workload", work, "--policy", "consistent_hash,round_robin", "--html", page, "--json", tmp_path / "s.json")
    assert done.returncode == 0, done.stderr
    kind, data = parts(page)
    assert kind == "simulate" and data["pdctl"]["arms"] == json.loads((tmp_path / "s.json").read_text())["pdctl"]["arms"]


def test_a_report_that_would_be_too_large_is_refused(tmp_path):
    work = tmp_path / "w.jsonl"
    work.write_text(json.dumps({"timestamp": 0, "input_length": 10, "output_length": 1, "hash_ids": [1]}) + "\n")
    done = run("simulate", "--workload", work, "--policy", "round_robin,random", "--workers", "1000,1001,1002,1003", "--html", tmp_path / "s.html", "--routing-only")
    assert done.returncode == 2 and "the report would have more than 1 MB" in done.stderr and not (tmp_path / "s.html").exists()
