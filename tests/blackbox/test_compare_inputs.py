"""pdctl compare: results of other tools, sweeps, policies, pairs, several gates, forms of the report, figures without a sample."""

import json
import math
import pathlib
import re
import xml.etree.ElementTree as ElementTree

import pytest

import harness

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
CASES = DATA / "compare"
BASE = [DATA / "vllm_bench" / f"base-{i}.json" for i in range(1, 6)]
SLOW = [DATA / "vllm_bench" / f"slow-{i}.json" for i in range(1, 6)]


def compare(*words, rc=0):
    done = harness.run("compare", *words)
    assert done.returncode == rc, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def report(*words, rc=0):
    answer = json.loads(compare(*words, "--format", "json", rc=rc).stdout)
    assert answer["exit_code"] == rc and answer["pdctl_compare"] == 2
    return answer, {m["metric"]: m for m in answer.get("metrics", [])}


def median(metrics, name, side=0):
    return metrics[name]["sides"][side]["median"]


def run_doc(**changes):
    doc = {
        "backend": "openai-chat", "model_id": "m", "num_prompts": 100, "request_rate": 4.0, "max_concurrency": None, "duration": 25.0,
        "completed": 100, "failed": 0, "total_input_tokens": 1000, "total_output_tokens": 2000, "request_throughput": 4.0,
        "mean_ttft_ms": 50.0, "p99_ttft_ms": 80.0, "mean_tpot_ms": 10.0,
    }  # fmt: skip
    return doc | changes


@pytest.fixture
def write(tmp_path):
    def write(name, *docs):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(d) for d in docs) + "\n")
        return path

    return write


# ---- the published cases ----


def test_survivors_and_other_output_lengths_are_refused_before_any_gate():
    done = compare(CASES / "c-base.json", CASES / "c-survivor.json", "--fail-on", "p99_ttft_ms:+5%", rc=3)
    assert "share of failed requests differs: 0 % in base, 60 % in new" in done.stderr
    done = compare(CASES / "c-base.json", CASES / "c-out8x.json", "--fail-on", "p99_ttft_ms:+5%", rc=3)
    assert "100 in base, 800 in new" in done.stderr and "backend differs" in done.stderr
    assert "--allow-different backend,total_output_tokens" in done.stderr
    # what all reasons allow, is compared; one of them is not enough. 3 comes before 4.
    compare(CASES / "c-base.json", CASES / "c-out8x.json", "--fail-on", "p99_ttft_ms:+5%", "--allow-different", "backend", rc=3)
    compare(CASES / "c-base.json", CASES / "c-out8x.json", "--fail-on", "p99_ttft_ms:+5%", "--allow-different", "all", rc=4)


def test_refusals_reach_every_form():
    files = [CASES / "c-base.json", CASES / "c-survivor.json"]
    answer = json.loads(compare(*files, "--format", "json", rc=3).stdout)
    assert answer["exit_code"] == 3 and len(answer["not_comparable"]) == 2 and answer["metrics"] == []
    assert "**not comparable:**" in compare(*files, "--format", "md", rc=3).stdout
    root = ElementTree.fromstring(compare(*files, "--format", "junit", rc=3).stdout)
    assert root.get("errors") == "2" and all(c.find("error") is not None for c in root)
    assert compare(*files, "--format", "gha-annotations", rc=3).stdout.count("::error title=pdctl compare::not comparable: ") == 2
    assert compare(*files, rc=3).stdout == ""


def test_aiperf():
    _, metrics = report(CASES / "c-aiperf-a.json", CASES / "c-aiperf-b.json")
    assert (median(metrics, "mean_ttft_ms"), median(metrics, "mean_ttft_ms", 1)) == (44, 66)
    assert median(metrics, "mean_tpot_ms") == 7 and median(metrics, "p99_e2el_ms") == 900 and median(metrics, "completed") == 80
    assert median(metrics, "request_throughput") == 9.5 and median(metrics, "output_throughput") == 900


def test_aiperf_units_and_settings(write):
    doc = {
        "request_throughput": {"unit": "requests/sec", "avg": 2.0}, "request_count": {"unit": "requests", "avg": 10},
        "error_request_count": {"unit": "requests", "avg": 1}, "time_to_first_token": {"unit": "sec", "avg": 0.5, "p50": 0.4, "std": 0.1},
        "request_latency": {"unit": "us", "avg": 2e6}, "output_sequence_length": {"unit": "tokens", "avg": 12},
        "input_config": {"loadgen": {"concurrency": 8, "request_rate": None}, "endpoint": {"type": "chat"}},
    }  # fmt: skip
    a = write("a.json", doc)
    _, metrics = report(a, a, "--metrics", "all")
    assert (median(metrics, "mean_ttft_ms"), median(metrics, "median_ttft_ms"), median(metrics, "std_ttft_ms")) == (500, 400, 100)
    assert median(metrics, "mean_e2el_ms") == 2000 and median(metrics, "failed") == 1 and median(metrics, "total_output_tokens") == 120
    doc["input_config"]["loadgen"]["concurrency"] = 16
    assert "max_concurrency differs: 8 in" in compare(a, write("b.json", doc), rc=3).stderr


def test_sglang(write):
    doc = {
        "backend": "sglang", "dataset_name": "random", "request_rate": math.inf, "max_concurrency": 16, "duration": 10.0, "completed": 100,
        "total_input_tokens": 1000, "total_output_tokens": 2000, "request_throughput": 10.0, "input_throughput": 100.0,
        "output_throughput": 200.0, "total_throughput": 300.0, "mean_e2e_latency_ms": 900.0, "median_e2e_latency_ms": 850.0,
        "p99_e2e_latency_ms": 1200.0, "mean_ttft_ms": 40.0, "median_ttft_ms": 38.0, "p99_ttft_ms": 80.0, "mean_tpot_ms": 9.0,
        "mean_itl_ms": 9.5, "concurrency": 9.1, "accept_length": None,
    }  # fmt: skip
    path = write("s.jsonl", doc, doc | {"mean_ttft_ms": 42.0})  # two lines are two runs
    _, metrics = report(path, path)
    assert metrics["mean_ttft_ms"]["sides"][0]["values"] == [40, 42] and median(metrics, "mean_e2el_ms") == 900
    assert median(metrics, "total_token_throughput") == 300 and metrics["p99_e2el_ms"]["better"] == "lower"


def guidellm(rate, ttft):
    def stats(mean):
        return {"successful": {"mean": mean, "median": mean * 0.9, "std_dev": 1.0, "percentiles": {"p95": mean * 1.5, "p99": mean * 2, "p999": mean * 3}}}

    return {
        "config": {"strategy": {"type_": "constant", "rate": rate}, "backend": {"model": "m"}}, "duration": 30.0,
        "scheduler_metrics": {"requests_made": {"successful": 120, "errored": 0, "incomplete": 1, "total": 121}},
        "metrics": {
            "requests_per_second": stats(rate), "output_tokens_per_second": stats(rate * 32), "tokens_per_second": stats(rate * 96),
            "time_to_first_token_ms": stats(ttft), "inter_token_latency_ms": stats(7.0), "request_latency": stats(0.5),
            "output_token_count": {"successful": {"total_sum": 3840, "mean": 32}},
        },
        "requests": {"successful": [{"request_id": "x", "output": "a \"quoted\" [text]"}]},
    }  # fmt: skip


def test_a_guidellm_sweep_is_compared_rate_by_rate(write):
    a = write("a.json", {"metadata": {"version": 1}, "benchmarks": [guidellm(1.0, 50.0), guidellm(4.0, 90.0)]})
    b = write("b.json", {"metadata": {"version": 1}, "benchmarks": [guidellm(4.0, 180.0), guidellm(1.0, 51.0)]})  # in any order
    answer, _ = report(a, b, "--fail-on", "mean_ttft_ms:+20%", "--single", rc=1)
    assert [s["setting"] for s in answer["settings"]] == ["request_rate 1", "request_rate 4"]
    first, second = ({m["metric"]: m for m in s["metrics"]} for s in answer["settings"])
    assert (median(first, "mean_ttft_ms"), median(first, "mean_ttft_ms", 1)) == (50, 51)
    assert median(second, "p99.9_ttft_ms") == 270 and median(second, "mean_e2el_ms") == 500 and median(second, "completed") == 120
    assert [s["gates"][0]["verdict"] for s in answer["settings"]] == ["pass", "fail"]
    text = compare(a, b, "--fail-on", "mean_ttft_ms:+20%", "--single", rc=1).stdout
    assert "FAIL          --fail-on 'mean_ttft_ms:+20%' in new at request_rate 4" in text


def test_rows_of_a_simulation_are_settings(tmp_path):
    out = tmp_path / "sim.json"
    trace = tmp_path / "t.jsonl"
    trace.write_text("".join(json.dumps({"timestamp": i * 50, "input_length": 600, "output_length": 8, "hash_ids": [i % 3, 10 + i]}) + "\n" for i in range(20)))
    done = harness.run("simulate", "--workload", trace, "--workers", 2, "--policy", "round_robin,consistent_hash", "--json", out)
    assert done.returncode == 0, done.stderr
    answer, _ = report(out, out, "--fail-on", "mean_ttft_ms:+1%")
    assert [s["setting"] for s in answer["settings"]] == ["arm round_robin", "arm consistent_hash"]
    assert {g["method"] for s in answer["settings"] for g in s["gates"]} == {"simulated, no noise"}


def test_settings_that_are_on_one_side_only(write):
    sweep = [run_doc(request_rate=r) for r in (1.0, 2.0, 4.0)]
    a, b = write("a.json", *sweep), write("b.json", *sweep[:2], run_doc(request_rate=8.0))
    done = compare(a, b, rc=3)
    assert "request_rate 4 is only in base" in done.stderr and "request_rate 8 is only in new" in done.stderr
    answer, _ = report(a, b, "--allow-different", "settings")
    assert [s["setting"] for s in answer["settings"]] == ["request_rate 1", "request_rate 2"]
    # five runs at each of two rates: judged like any five runs
    a = write("a.json", *(run_doc(request_rate=r, mean_ttft_ms=50 + i / 10) for r in (1.0, 2.0) for i in range(5)))
    b = write("b.json", *(run_doc(request_rate=r, mean_ttft_ms=(50 if r < 2 else 60) + i / 10) for r in (1.0, 2.0) for i in range(5)))
    answer, _ = report(a, b, "--fail-on", "mean_ttft_ms:+5%", rc=1)
    assert [s["gates"][0]["verdict"] for s in answer["settings"]] == ["pass", "fail"]
    assert [s["gates"][0]["method"] for s in answer["settings"]] == ["Welch's t"] * 2


def test_foreign_text_is_refused_with_a_place(write, tmp_path):
    bad = tmp_path / "g.json"
    bad.write_text('{"benchmarks": [{"metrics": {"request_latency": }}]}')
    assert f"{bad}:1:49: found '}}'" in compare(bad, bad, rc=2).stderr
    assert "no benchmark result" in compare(write("p.json", {"benchmarks": [{"x": 1}]}), BASE[0], rc=2).stderr


# ---- no sample ----


def test_a_zero_of_vllm_is_no_sample(write):
    none = {k: 0.0 for k in ("mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms")}
    dead = write("dead.json", run_doc(completed=0, failed=100, total_output_tokens=0, request_throughput=0.0, **none))
    done = compare("--require", "p99_ttft_ms<=500", dead, rc=3)
    assert "'p99_ttft_ms' has no sample" in done.stderr
    good = write("good.json", run_doc())
    done = compare(good, dead, "--allow-different", "all")
    assert re.search(r"^mean_ttft_ms +50 +- +- +-", done.stdout, re.M)
    compare(good, dead, "--allow-different", "all", "--fail-on", "mean_ttft_ms:+5%", rc=3)
    # a zero beside other figures is a figure
    compare("--require", "mean_ttft_ms<=500", write("odd.json", run_doc(mean_ttft_ms=0.0)), rc=0)


def test_streamed_against_not_streamed_is_no_improvement(write):
    a = write("a.json", run_doc(pdctl={"version": 2, "stream": True}))
    b = write("b.json", run_doc(mean_ttft_ms=None, p99_ttft_ms=None, pdctl={"version": 2, "stream": False}))
    assert "pdctl.stream differs: true in" in compare(a, b, rc=3).stderr
    done = compare(a, b, "--allow-different", "stream")
    assert "-100" not in done.stdout and re.search(r"^mean_ttft_ms +50 +- +-", done.stdout, re.M)


def test_what_two_decimals_do_not_show_is_no_change(write):
    a, b = write("a.json", run_doc(request_throughput=4.0)), write("b.json", run_doc(request_throughput=3.99999))
    line = next(x for x in compare(a, b).stdout.splitlines() if x.startswith("request_throughput"))
    assert " 0.00% " in line and "-0.00" not in line and "worse" not in line


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"warmups": 4}, "warmups"), ({"session_pattern": "key_<i>"}, "session_pattern"), ({"token_basis": "chunks"}, "token_basis"),
        ({"dataset_hash": "b"}, "dataset_hash"), ({"affinity": "key"}, "affinity"), ({"load": {"burst": 3}}, "pdctl.load.burst"),
        ({"interrupted": True}, "interrupted"), ({"client_ok": False}, "client_ok"), ({"cached_tokens": {"share": 0.9}}, "cached_tokens"),
        ({"carry_answers": True}, "carry_answers"),
    ],
)  # fmt: skip
def test_settings_of_pdctl_must_agree(write, changes, key):
    own = {"version": 2, "dataset_hash": "a", "token_basis": "usage", "cached_tokens": {"share": 0.1}}
    a, b = write("a.json", run_doc(pdctl=own)), write("b.json", run_doc(pdctl=own | changes))
    for files in ([a, b], [b, a]):
        done = compare(*files, rc=3)
        assert key in done.stderr, done.stderr
        compare(*files, "--allow-different", key)
    # a key that another tool does not write is a note
    if key not in ("interrupted", "client_ok", "cached_tokens"):
        assert "note: " in compare(write("v.json", run_doc()), b).stdout


# ---- gates ----


def runs_of(values, **more):
    return [run_doc(mean_ttft_ms=v, **more) for v in values]


def test_pairs_take_out_what_both_sides_share(write):
    drift = [50, 70, 40, 90, 60]
    a, b = write("a.json", *runs_of(drift)), write("b.json", *runs_of([v * (1.1 + 0.002 * i) for i, v in enumerate(drift)]))
    compare(a, b, "--fail-on", "mean_ttft_ms:+5%")
    answer, metrics = report(a, b, "--fail-on", "mean_ttft_ms:+5%", "--pairs", rc=1)
    gate = answer["gates"][0]
    assert gate["method"] == "paired t" and 9 < gate["bound_pct"] < 11 and metrics["mean_ttft_ms"]["changes"][0]["basis"] == "pairs"
    assert "expected as many" in compare(a, write("c.json", *runs_of(drift[:4])), "--pairs", rc=2).stderr


def test_each_gate_says_what_it_could_find(write):
    a = write("a.json", *runs_of([48, 49, 50, 51, 52]))
    b = write("b.json", *runs_of([48.5, 49.5, 50.5, 51.5, 52.5]))
    gate = report(a, b, "--fail-on", "mean_ttft_ms:+5%")[0]["gates"][0]
    assert gate["verdict"] == "pass" and 9 < gate["detectable_pct"] < 12 and gate["asked_pct"] == pytest.approx(10)
    assert 5 <= gate["runs_needed"] <= 8
    more = report(a, b, "--fail-on", "mean_ttft_ms:+5%", "--detect", "6%")[0]["gates"][0]
    assert more["runs_needed"] > 40
    assert "finds +" in compare(a, b, "--fail-on", "mean_ttft_ms:+5%").stdout


def test_several_gates_share_one_level(write):
    """Holm: a p of 0.06 fails one gate alone, and not among five."""
    a = write("a.json", *(run_doc(mean_ttft_ms=50 + i, mean_tpot_ms=10 + i / 5) for i in range(5)))
    b = write("b.json", *(run_doc(mean_ttft_ms=54.8 + i, mean_tpot_ms=10 + i / 5) for i in range(5)))
    alone = report(a, b, "--fail-on", "mean_ttft_ms:+5%", rc=1)[0]["gates"][0]
    assert 0.02 < alone["p"] <= 0.1 and alone["level"] == 0.1
    others = [w for n in (1, 2, 3, 4) for w in ("--fail-on", f"mean_tpot_ms:+{n}%")]
    gates = report(a, b, "--fail-on", "mean_ttft_ms:+5%", *others)[0]["gates"]
    assert gates[0]["p"] == alone["p"] and gates[0]["level"] == pytest.approx(0.02) and gates[0]["verdict"] == "pass"
    assert "Holm" in compare(a, b, "--fail-on", "mean_ttft_ms:+5%", *others).stdout
    # warnings are a family of their own
    gates = report(a, b, "--fail-on", "mean_ttft_ms:+5%", *(w.replace("fail", "warn") for w in others), rc=1)[0]["gates"]
    assert gates[0]["level"] == 0.1


def test_the_level_is_a_setting(write):
    a, b = write("a.json", *runs_of([50, 51, 52, 53, 54])), write("b.json", *runs_of([54.8, 55.8, 56.8, 57.8, 58.8]))
    compare(a, b, "--fail-on", "mean_ttft_ms:+5%", rc=1)
    compare(a, b, "--fail-on", "mean_ttft_ms:+5%", "--gate-level", 0.01)
    compare(a, b, "--fail-on", "mean_ttft_ms:+5%", "--gate-level", 0.01, "--strict", rc=4)
    compare(a, b, "--fail-on", "mean_ttft_ms:+5%", "--gate-level", 2, rc=2)


def test_the_hierarchical_bootstrap_where_all_runs_have_details():
    gate = report(*BASE, "--vs", *SLOW, "--fail-on", "p99_ttft_ms:+5%", "--bootstrap", rc=1)[0]["gates"][0]
    assert gate["method"] == "bootstrap" and not gate["indicative"] and gate["bound_pct"] > 5
    gate = report(*BASE, "--vs", *SLOW, "--fail-on", "failed:+5%", "--bootstrap")[0]["gates"][0]
    assert gate["method"] == "Mann-Whitney"


# ---- policies, patterns, forms ----

POLICY = """
fail-on:
  - mean_ttft_ms:+5%
  - request_throughput:-3%
warn-on: mean_tpot_ms:+0%
require: [failed<=0]
gate-level: 0.05
pairs: true
metrics: [failed, mean_ttft_ms]
"""


def test_a_policy_file_holds_gates_and_rules(tmp_path):
    policy = tmp_path / "gates.yaml"
    policy.write_text(POLICY)
    answer, metrics = report(*BASE, "--vs", *SLOW, "--policy", policy, rc=1)
    assert [(g["kind"], g["gate"]) for g in answer["gates"]] == [
        ("fail-on", "mean_ttft_ms:+5%"), ("fail-on", "request_throughput:-3%"), ("warn-on", "mean_tpot_ms:+0%"), ("require", "failed<=0"),
    ]  # fmt: skip
    assert answer["gate_level"] == 0.05 and answer["pairs"] and list(metrics)[:2] == ["failed", "mean_ttft_ms"]
    # the command line wins, and adds its gates
    answer, _ = report(*BASE, "--vs", *SLOW, "--policy", policy, "--no-pairs", "--gate-level", 0.2, "--require", "completed>=1", rc=1)
    assert answer["gate_level"] == 0.2 and not answer["pairs"] and len(answer["gates"]) == 5


@pytest.mark.parametrize(
    "text, where",
    [
        ("fail-on: [p99_ttft_ms:-5%]", ":1:11: --fail-on: found 'p99_ttft_ms:-5%', which fails on an improvement"),
        ("fail_on: [x:+5%]", ":1:1: unknown key 'fail_on', did you mean 'fail-on'?"),
        ("pairs: perhaps", ":1:8: pairs: found 'perhaps', expected true or false"),
        ("min-runs: 1", ":1:11: min-runs: found '1', expected a whole number from 2"),
        ("a: [", ":2:1: "),
        ("run-spread: 3", ":1:13: run-spread: found '3', expected a number from 0% to 100%"),
        ("strict: [true]", ":1:9: strict: found 'a list or mapping', expected a single value"),
    ],
)
def test_a_wrong_policy_is_named_with_its_place(tmp_path, text, where):
    policy = tmp_path / "gates.yaml"
    policy.write_text(text + "\n")
    done = compare(BASE[0], SLOW[0], "--policy", policy, rc=2)
    assert f"{policy}{where}" in done.stderr, done.stderr
    compare(BASE[0], SLOW[0], "--policy", tmp_path / "none.yaml", rc=2)


def test_patterns_are_files_in_order(tmp_path):
    answer, _ = report(DATA / "vllm_bench" / "base-[1-5].json", "--vs", DATA / "vllm_bench" / "slow-?.json")
    assert [pathlib.Path(r).name for r in answer["sides"][1]["runs"]] == [f"slow-{i}.json" for i in range(1, 6)]
    assert "no file matches" in compare(tmp_path / "none-*.json", BASE[0], rc=2).stderr
    odd = tmp_path / "odd[1].json"
    odd.write_text(BASE[0].read_text())
    compare(odd, BASE[0])


def test_several_forms_at_once(tmp_path):
    words = ["--fail-on", "p99_ttft_ms:+5%"]
    done = compare(*BASE, "--vs", *SLOW, *words, "--report", f"md={tmp_path}/s.md", "--report", f"junit={tmp_path}/g.xml", rc=1)
    assert "FAIL" in done.stdout and (tmp_path / "s.md").read_text().startswith("### pdctl compare")
    assert ElementTree.parse(tmp_path / "g.xml").getroot().get("failures") == "1"
    for wrong in ("md", "html=x", "md="):
        assert "expected FORM=FILE" in compare(*BASE, "--vs", *SLOW, "--report", wrong, rc=2).stderr


def test_many_sides_fit_in_100_columns(write):
    sides = [f"side{k}={write(f's{k}.json', run_doc(mean_ttft_ms=50.0 + k))}" for k in range(7)]
    text = compare(*sides).stdout
    table = text.split("\n\n", 1)[1]
    assert all(len(x) <= 100 for x in table.splitlines()) and all(f"side{k}" in table for k in range(7))
    answer, metrics = report(*sides, "--fail-on", "mean_ttft_ms:+10%", "--single", rc=1)
    assert [c["side"] for c in metrics["mean_ttft_ms"]["changes"]] == [f"side{k}" for k in range(1, 7)]
    assert [g["verdict"] for g in answer["gates"]] == ["pass"] * 5 + ["fail"]


def test_lines_of_gates_fit_in_100_columns():
    words = [w for m in ("p99_ttft_ms", "mean_e2el_ms", "p99_tpot_ms") for w in ("--fail-on", f"{m}:+5%")]
    for files in ([BASE[0], SLOW[0]], [*BASE, "--vs", *SLOW]):
        done = harness.run("compare", *files, *words, "--require", "failed<=0")
        gates = done.stdout[done.stdout.index("--fail-on") :]
        assert all(len(x) <= 100 for x in gates.splitlines()), gates
