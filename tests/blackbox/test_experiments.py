"""pdctl simulate as an experiment: sweeps, shards, repetitions, verdicts, goals. The same bytes whatever the number of threads or parts."""

import json
import os
import pathlib
import re
import subprocess

import pytest

import harness
from harness import run

ROOT = pathlib.Path(__file__).resolve().parents[2]

BASE = """name: grid
seed: 3
workload: {generate: {sessions: 24, turns: 6, order: shuffled, request_rate: 40, prefix_tokens: 512}}
workers: {count: 3}
policies: [consistent_hash, least_request, round_robin]
expect:
  - "consistent_hash: session_consistency == 1"
  - "consistent_hash workers.count=6: token_hit_rate >= token_hit_rate of round_robin"
sweep:
  grid:
    workers.count: [2, 3, 6]
    workload.generate.request_rate: [20, 60]
    parameters.virtual_nodes: [20, 160]
"""


def simulate(*args, code=0, **kw):
    done = run("simulate", *args, **kw)
    assert done.returncode == code, done.stderr + done.stdout
    return done


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(BASE)
    return path


def scenario(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return path


def test_threads_and_shards_change_nothing(grid, tmp_path):
    """36 rows: with one thread, with several, and as four parts that are merged, to the last byte."""
    one, many = tmp_path / "one.json", tmp_path / "many.json"
    first = simulate(grid, "--threads", 1, "--json", one, "--repetitions", 2)
    second = simulate(grid, "--threads", 5, "--json", many, "--repetitions", 2)
    assert one.read_bytes() == many.read_bytes() and first.stdout == second.stdout
    doc = json.loads(one.read_text())["pdctl"]
    assert len(doc["arms"]) == 36 and doc["experiments"][0]["arms"] == 36
    assert doc["experiments"][0]["verdict"]["settings"] == 6
    parts = []
    for i in range(1, 5):
        parts.append(tmp_path / f"part{i}.json")
        simulate(grid, "--shard", f"{i}/4", "--json", parts[-1], "--repetitions", 2)
    assert "verdict" not in json.loads(parts[0].read_text())["pdctl"]["experiments"][0]
    merged = tmp_path / "merged.json"
    done = run("results", "merge", *reversed(parts), "--output", merged)
    assert done.returncode == 0, done.stderr
    assert merged.read_bytes() == one.read_bytes()


def test_parts_that_do_not_belong_together(grid, tmp_path):
    a, b, other = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"
    simulate(grid, "--shard", "1/2", "--json", a)
    simulate(grid, "--shard", "2/2", "--json", b)
    changed = scenario(tmp_path, BASE.replace("[20, 60]", "[20, 60, 80]"))
    simulate(changed, "--shard", "2/2", "--json", other)
    for parts, why in [([a], "is in none of the 1 parts"), ([a, a], "is in another part"), ([a, other], "other experiments")]:
        done = run("results", "merge", *parts)
        assert done.returncode == 2 and why in done.stderr, done.stderr
    simulate(grid, "--shard", "1/1", "--json", "-")
    for wrong in ["0/2", "3/2", "1", "a/b", "1/2x"]:
        assert "--shard" in simulate(grid, "--shard", wrong, code=2).stderr


def test_a_missed_expectation_is_found_by_the_merge(grid, tmp_path):
    text = BASE.replace('"consistent_hash: session_consistency == 1"', '"round_robin workers.count=6: session_consistency == 1"')
    path, parts = scenario(tmp_path, text), []
    simulate(path, code=1)
    for i in (1, 2):
        parts.append(tmp_path / f"p{i}.json")
        simulate(path, "--shard", f"{i}/2", "--json", parts[-1])
    done = run("results", "merge", *parts, "--output", tmp_path / "m.json")
    assert done.returncode == 1 and done.stderr.count("MISSED") == 4, done.stderr


def test_any_field_can_be_swept(tmp_path):
    """Fields that the file does not state, entries of lists, and several fields at a time."""
    text = """name: fields
workload: {generate: {sessions: 8, turns: 3}}
workers: {count: 2}
policies: [round_robin, random]
events: [{action: leave, worker: 1, at_request: 5}]
sweep:
  list:
    - {engine.decode_ms_per_token: 20, "events[0].at_request": 9}
    - {"policies[1]": least_request}
    - {cache.blocks: [1000], max_concurrency: 2}
    - {workload: {generate: {sessions: 5, turns: 2}}, "events[0].at_request": 3}
"""
    doc = json.loads(simulate(scenario(tmp_path, text), "--json", "-").stdout)["pdctl"]
    arms = [d["pdctl"] | {"doc": d} for d in doc["arms"]]
    assert [a["policy"] for a in arms] == ["round_robin", "random", "round_robin", "least_request", "round_robin", "random", "round_robin", "random"]
    assert arms[0]["engine"]["step_ms"] == 20 and arms[2]["engine"]["step_ms"] == 7
    assert arms[0]["events"][0]["at_request"] == 9 and arms[2]["events"][0]["at_request"] == 5
    assert arms[4]["cache_blocks"] == 1000 and arms[4]["doc"]["max_concurrency"] == 2
    assert arms[6]["doc"]["num_prompts"] == 10 and arms[0]["doc"]["num_prompts"] == 24
    assert arms[0]["point"] == {"engine.decode_ms_per_token": "20", "events[0].at_request": "9"}


@pytest.mark.parametrize(
    "sweep, place, why",
    [
        ("sweep: {grid: {workers.count: [2, 0]}}", "6:", "with workers.count=0: found 0: expected a whole number"),
        ("sweep: {grid: {workers.cuont: [2]}}", "6:", "unknown key 'cuont'"),
        ("sweep: {grid: {'policies[3]': [random]}}", "6:", "no such field"),
        ("sweep: {grid: {name.x: [a]}}", "6:", "no such field"),
        ("sweep: {grid: {workers.count: 3}}", "6:", "expected a list of values for workers.count"),
        ("sweep: {}", "6:", "expected 'grid' or 'list'"),
        ("sweep: {grid: {seed: [1]}, list: [{seed: 2}]}", "6:", "either 'grid' or 'list'"),
        ("sweep: {gird: {seed: [1]}}", "6:", "found gird"),
        ("sweep: {list: [3]}", "6:", "expected PATH: VALUE"),
        ("sweep: {grid: {seed: [1]}, front: [mean_ttft_ms, wokers]}", "6:", "did you mean 'workers'"),
        ("sweep: {grid: {seed: [%s], workers.count: [%s]}}" % (", ".join(map(str, range(40))), ", ".join(map(str, range(1, 41)))), "6:", "too many points"),
        ("objective: p99_ttft", "6:", "did you mean 'p99_ttft_ms'"),
        ("objective: mean_ttft_ms + token_hit_rate", "6:27", "better in the same direction"),
        ("objective: sessions", "6:", "better high or low"),
        ("repetitions: 0", "6:", "from 1 to 64"),
        ("goals: {share: 0.9}", "6:", "expected ttft_ms, tpot_ms or e2el_ms"),
        ("base: fastest", "", "none of the candidates"),
    ],
)
def test_mistakes_have_a_place(tmp_path, sweep, place, why):
    text = "name: a\nworkload: {generate: {sessions: 3, turns: 2}}\nworkers: {count: 2}\npolicies: [random, round_robin]\nseed: 2\n" + sweep + "\n"
    path = scenario(tmp_path, text)
    err = simulate(path, code=2).stderr
    assert why in err and (not place or f"{path}:{place}" in err), err


def verdict(*args, code=0):
    doc = json.loads(simulate(*args, "--json", "-", code=code).stdout)["pdctl"]
    return doc["experiments"][0]["verdict"]


def test_repetitions_give_an_interval_and_a_winner(tmp_path):
    """A shared prefix per session: hashing computes it once, round robin on every worker."""
    text = """name: reps
repetitions: 6
workload: {generate: {sessions: 60, turns: 8, order: shuffled, request_rate: 30, prefix_tokens: 4096}}
workers: {count: 4}
policies: [round_robin, consistent_hash]
objective: mean_ttft_ms
"""
    path = scenario(tmp_path, text)
    v = verdict(path)
    best, other = v["candidates"]
    assert best["name"] == "consistent_hash" and v["difference"] is True
    assert other["interval_of"] == "repetitions" and other["interval_n"] == 6
    assert other["low_percent"] < other["best_against_it_percent"] < other["high_percent"] < 0
    lines = simulate(path).stdout.splitlines()
    assert re.match(r"consistent_hash: \d+ % ± [\d.]+ lower mean_ttft_ms than round_robin", lines[0]), lines[0]
    assert any(line.startswith("  loses ") for line in lines[:3])
    doc = json.loads(simulate(path, "--json", "-").stdout)["pdctl"]["arms"][0]["pdctl"]["repetitions"]
    values = doc["values"]["mean_ttft_ms"]
    assert doc["seeds"] == [1, 2, 3, 4, 5, 6] and len(set(values)) == 6
    # a repetition is the run with that seed
    alone = json.loads(simulate(path, "--repetitions", 1, "--seed", 4, "--json", "-").stdout)["pdctl"]["arms"][0]
    assert alone["mean_ttft_ms"] == values[3]


def test_the_same_policy_twice_does_not_differ(tmp_path):
    """20 of 20 seeds: whatever the noise, there is none between a policy and itself."""
    text = """name: same
workload: {generate: {sessions: 20, turns: 6, order: shuffled, request_rate: 30}}
workers: {count: 3}
policies: [power_of_two, power_of_two, power_of_two]
repetitions: 3
"""
    path = scenario(tmp_path, text)
    for seed in range(1, 21):
        out = simulate(path, "--seed", seed).stdout
        assert out.startswith("no difference in mean_ttft_ms: power_of_two, power_of_two (2) and power_of_two (3)"), out


def test_a_trace_without_chance_has_windows_as_interval(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"timestamp": i * 40, "input_length": 4000, "output_length": 20, "hash_ids": [i % 12, 100 + i % 12] + [1000 + i * 9 + k for k in range(6)]}) + "\n" for i in range(400)))
    v = verdict("--workload", path, "--workers", 3, "--policy", "consistent_hash,round_robin", "--repetitions", 3)
    assert v["candidates"][1]["interval_of"] == "windows" and v["candidates"][1]["interval_n"] == 16


def test_goals_and_capacity(tmp_path):
    text = """name: capacity
workload: {generate: {sessions: 400, turns: 1, request_rate: 40, prefix_tokens: 4096, output_tokens: 40}}
workers: {counts: [1, 2, 4, 8]}
policies: [round_robin, least_request]
goals: {ttft_ms: 400, share: 0.9}
"""
    doc = json.loads(simulate(scenario(tmp_path, text), "--json", "-").stdout)["pdctl"]
    share = {(d["pdctl"]["policy"], d["pdctl"]["workers"]): d["pdctl"]["figures"]["goodput_share"] for d in doc["arms"]}
    assert share["round_robin", 1] < 0.5 < 0.9 < share["round_robin", 8]
    least = min(w for (p, w), s in share.items() if s >= 0.9)
    text = doc["experiments"][0]["verdict"]["text"]
    assert text[-1].startswith(f"{least} workers keep the goals for "), text
    one = [d for d in doc["arms"] if d["pdctl"]["workers"] == 1][0]
    assert one["pdctl"]["time"]["saturated"] is True and one["pdctl"]["figures"]["saturated"] == 1
    assert one["request_goodput"] == pytest.approx(share["round_robin", 1] * 400 / one["duration"])
    many = [d for d in doc["arms"] if d["pdctl"]["workers"] == 8][0]["pdctl"]
    assert many["time"]["saturated"] is False and len(many["time"]["in_flight"]) == 60
    assert sum(many["time"]["arrivals"]) == 400 == sum(many["time"]["completed"])
    front = [(d["pdctl"]["policy"], d["pdctl"]["workers"]) for d in doc["arms"] if d["pdctl"]["pareto"]]
    for p, w in front:
        assert not any(ow <= w and os >= share[p, w] and (ow, os) != (w, share[p, w]) for (_, ow), os in share.items())
    assert front


def test_check_says_what_would_be_run(grid):
    assert simulate(grid, "--check").stdout == f"{grid}: ok, 36 rows at 12 points, 36 replays, 2 expectations\n"


def test_rebinds_have_a_cause(tmp_path):
    text = """name: rebinds
workload: {generate: {sessions: 60, turns: 10, order: shuffled, request_rate: 40, prefix_tokens: 2048}}
workers: {count: 4}
policies: [consistent_hash, round_robin]
events:
  - {action: leave, worker: 2, at_request: 200}
  - {action: join, worker: 2, at_request: 400}
"""
    arms = [d["pdctl"] for d in json.loads(simulate(scenario(tmp_path, text), "--json", "-").stdout)["pdctl"]["arms"]]
    for a in arms:
        p = a["pools"]["workers"]
        assert sum(p["rebinds"].values()) == p["moves"]
    ch = arms[0]["pools"]["workers"]["rebinds"]
    assert ch["worker_gone"] > 0 and ch["key"] > 0 and set(ch) == {"worker_gone", "key"}
    gone, back = arms[0]["events"]
    assert 0 < gone["hit_rate_lowest"] < gone["hit_rate_before"] < 1


@pytest.fixture
def conversations(tmp_path):
    """61 conversations that share nothing, with long prompts: where they stay decides about the prefill work."""
    path = tmp_path / "conv.jsonl"
    with open(path, "w") as f:
        for i in range(488):
            s, turn = (i * 7) % 61, i // 61
            ids = [s * 1000 + k for k in range(40 + 6 * turn)]
            f.write(json.dumps({"timestamp": i * 60, "input_length": len(ids) * 64, "output_length": 20, "hash_ids": ids, "block_tokens": 64, "session_id": f"s{s}"}) + "\n")
    return path


def test_recommend_names_flags_that_serve_knows(conversations):
    three = "round_robin,random,consistent_hash:virtual-nodes=200"
    out = simulate("--workload", conversations, "--workers", 4, "--recommend", "--policy", three, "--repetitions", 3).stdout
    line = next(x for x in out.splitlines() if x.startswith("recommended: "))
    assert line == "recommended: pdctl serve --policy consistent_hash --virtual-nodes 200"
    promised = re.search(r"promised: mean_ttft_ms ([\d.]+) instead of ([\d.]+)", out)
    assert float(promised[1]) < float(promised[2])
    known = run("serve", "--help").stdout
    assert all(flag in known for flag in re.findall(r"--[a-z-]+", line))
    assert re.match(r"consistent_hash:virtual-nodes=200: \d+ % ± [\d.]+ lower mean_ttft_ms than round_robin", out), out


def test_recommend_tries_the_family_and_keeps_what_is_best(conversations):
    base = ["--workload", conversations, "--recommend", "--repetitions", 1]
    doc = json.loads(simulate(*base, "--workers", 4, "--json", "-").stdout)["pdctl"]
    tried = [d["pdctl"]["policy"] for d in doc["arms"]]
    assert tried[0] == "affinity" and len(set(tried)) == len(tried) >= 15 and "round_robin" in tried
    assert doc["experiments"][0]["base"] == "affinity"
    out = simulate(*base, "--workers", 4, "--policy", "affinity,round_robin").stdout
    assert "recommended: no change; --policy affinity is best\n" in out
    pd = json.loads(simulate(*base, "--prefill", 2, "--decode", 2, "--json", "-").stdout)["pdctl"]
    assert any("/" in d["pdctl"]["policy"] for d in pd["arms"])


def test_recommend_between_equals_is_no_change(conversations):
    out = simulate("--workload", conversations, "--workers", 4, "--recommend", "--policy", "round_robin,round_robin,round_robin").stdout
    assert out.startswith("no difference in mean_ttft_ms") and "recommended: no change; --policy round_robin is best" in out


def test_what_if(conversations):
    base = ["--workload", conversations]
    out = simulate(*base, "--what-if", "workers=1..4", "--policy", "consistent_hash", "--goodput", "ttft:120").stdout
    assert re.search(r"\d workers? keeps? the goals for|no setting keeps the goals", out)
    doc = json.loads(simulate(*base, "--what-if", "prefill=1..2,decode=1..3", "--policy", "least_request", "--json", "-").stdout)["pdctl"]
    sizes = [(d["pdctl"]["pools"]["prefill"]["workers"], d["pdctl"]["pools"]["decode"]["workers"]) for d in doc["arms"]]
    assert sizes == [(p, d) for p in (1, 2) for d in (1, 2, 3)]
    for wrong in ["workers=0..3", "workers=5..3", "workers", "prefill=1..3", "prefill=1..9,decode=1..9", "workers=1..2x"]:
        assert "--what-if" in simulate(*base, "--what-if", wrong, code=2).stderr
    assert "expected no --workers" in simulate(*base, "--what-if", "workers=1..2", "--workers", 3, code=2).stderr


def test_objective_is_weighted(conversations):
    text = "0.5*mean_ttft_ms + 2 * mean_tpot_ms"
    v = verdict("--workload", conversations, "--workers", 4, "--policy", "consistent_hash,round_robin", "--objective", text)
    assert v["objective"] == text and v["better"] == "lower"
    assert "did you mean" in simulate("--workload", conversations, "--objective", "mean_ttft", code=2).stderr


def test_what_reads_engines_gets_worse_with_the_age_of_what_it_reads(tmp_path):
    """No period, 20 ms, 2 s: the tail of a policy that looks at the engines' queues; one that counts itself does not change."""
    text = """name: age
workload: {generate: {sessions: 1500, turns: 1, request_rate: 60, burstiness: 0.3, prefix_tokens: 1500, output_tokens: 60}}
workers: {count: 6}
engine: {max_num_seqs: 24}
routers: {count: 3}
policies: [scores, least_request]
sweep: {grid: {signals.scrape_ms: [0, 20, 2000]}}
"""
    arms = [d["pdctl"] for d in json.loads(simulate(scenario(tmp_path, text), "--json", "-").stdout)["pdctl"]["arms"]]
    p99 = [a["figures"]["p99_e2el_ms"] for a in arms]
    assert p99[0] < p99[4] and p99[2] < p99[4]
    assert p99[1] == p99[3] == p99[5]


def test_workers_of_their_own_kind(tmp_path):
    """A worker at half speed is busy for longer with as many requests; weight 3 gets three times as many."""
    text = """name: kinds
workload: {generate: {sessions: 400, turns: 1, request_rate: 0.3, prefix_tokens: 500}}
workers: {count: 2, each: [{worker: 2, speed: 0.5}]}
policies: [round_robin]
"""
    slow = json.loads(simulate(scenario(tmp_path, text), "--json", "-").stdout)["pdctl"]["pools"]["workers"]["per_worker"]
    assert slow[0]["requests"] == slow[1]["requests"] == 200 and slow[1]["busy_s"] > 1.5 * slow[0]["busy_s"]
    text = text.replace("speed: 0.5", 'labels: ["weight=3"]')
    heavy = json.loads(simulate(scenario(tmp_path, text), "--json", "-").stdout)["pdctl"]["pools"]["workers"]["per_worker"]
    assert heavy[1]["requests"] == pytest.approx(3 * heavy[0]["requests"], rel=0.05)


def test_a_link_costs_its_bytes(tmp_path):
    """One request at a time: TTFT over a slow link is later by what the blocks take, and on one host it is not."""
    text = """name: link
workload: {generate: {sessions: 20, turns: 1, request_rate: 0.02, prefix_tokens: 4000, turn_tokens: 96, output_tokens: 5}}
prefill: {count: 1, hosts: 1}
decode: {count: 1, hosts: 1}
policies: [round_robin]
link: {bandwidth_gb_s: 1000000, set_up_ms: 0}
sweep:
  list:
    - {link.bandwidth_gb_s: 1000000}
    - {link.bandwidth_gb_s: 1, link.set_up_ms: 20}
    - {link.bandwidth_gb_s: 1, link.set_up_ms: 20, host_link: {kind: nvlink}}
"""
    docs = json.loads(simulate(scenario(tmp_path, text), "--json", "-").stdout)["pdctl"]["arms"]
    ttft = [d["pdctl"]["figures"]["mean_ttft_ms"] for d in docs]
    assert ttft[1] - ttft[0] == pytest.approx(20 + 4096 * 131072 / 1e6, rel=0.03)
    assert ttft[2] - ttft[0] == pytest.approx(0.092 + 4096 * 131072 / 600e6, abs=8)


def test_think_times_close_the_loop(tmp_path):
    """A turn never comes before the answer to the one before it and a pause: slower answers stretch the run."""
    text = """name: think
workload: {generate: {sessions: 10, turns: 10, think_ms: 500, request_rate: 5}}
workers: {count: 2}
policies: [round_robin]
sweep: {grid: {engine.decode_ms_per_token: [5, 50]}}
"""
    docs = json.loads(simulate(scenario(tmp_path, text), "--json", "-").stdout)["pdctl"]["arms"]
    assert all(d["completed"] == 100 for d in docs)
    assert docs[0]["duration"] >= 10 * 128 * 0.005 and docs[1]["duration"] >= 10 * 128 * 0.05
    assert all(d["max_concurrent_requests"] <= 10 for d in docs)


def test_the_script_for_arrays_merges_to_the_same_bytes(grid, tmp_path):
    """scripts/sweep-slurm without Slurm, and the parts of the Indexed Job named as its manifest names them."""
    whole, out = tmp_path / "whole.json", tmp_path / "out.json"
    simulate(grid, "--json", whole)
    env = os.environ | {"SWEEP_LOCAL": "1", "PDCTL": os.path.abspath(harness.PDCTL)}
    done = subprocess.run([ROOT / "scripts/sweep-slurm", grid, "3", out], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole.read_bytes()
    manifest = (ROOT / "scripts/sweep-job.yaml").read_text()
    parts = int(re.search(r"completions: (\d+)", manifest)[1])
    assert f'--shard "$i/{parts}"' in manifest and f"parallelism: {parts}" in manifest


def test_charts_fit_and_have_an_ascii_form(grid, tmp_path):
    plain = simulate(grid).stdout
    utf8 = os.environ | {"LC_ALL": "C.UTF-8"}
    blocks = simulate(grid, "--charts", "always", env=utf8).stdout
    marks = simulate(grid, "--charts", "ascii", env=utf8).stdout
    assert "█" not in plain and "█" in blocks and "█" not in marks and "#" in marks
    assert simulate(grid, "--charts", "always", env=os.environ | {"LC_ALL": "C"}).stdout == marks
    assert max(len(line) for line in blocks.splitlines()) <= 100 and max(len(line) for line in marks.splitlines()) <= 100
    assert "and 20 more rows" in blocks
    lines = [x for x in marks.splitlines() if x.startswith("round_robin 3 ")]
    assert lines and all(x[21:24] == "###" for x in lines), lines


def test_regret_is_counted_by_changing_one_choice(tmp_path):
    """A worker at a tenth of the speed: what round robin sends there would have been faster elsewhere, and nothing else is far from it."""
    text = """name: regret
workload: {generate: {sessions: 60, turns: 1, request_rate: 2, prefix_tokens: 2000, output_tokens: 10}}
workers: {count: 3, each: [{worker: 2, speed: 0.1}]}
policies: [round_robin]
"""
    doc = json.loads(simulate(scenario(tmp_path, text), "--regret", 30, "--json", "-").stdout)
    r = doc["pdctl"]["regret"]
    assert r["decisions"] == 30 == len(r["items"])
    slow = [d for d in r["items"] if d["chosen"] == "worker-2"]
    assert len(slow) in range(8, 13)
    assert all(d["own_ms"] < -200 and d["better"] != "worker-2" for d in slow)
    assert r["not_best_share"] >= len(slow) / 30 and r["mean_ms"] > 200 * len(slow) / 30
    assert "regret: round_robin, 3 workers: " in simulate(scenario(tmp_path, text), "--regret", 5).stdout
