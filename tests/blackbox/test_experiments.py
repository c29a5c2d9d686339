"""pdctl simulate as an experiment: sweeps, shards, repetitions, verdicts, goals. The same bytes whatever the number of threads or parts."""

import json
import re

import pytest

from harness import run

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
