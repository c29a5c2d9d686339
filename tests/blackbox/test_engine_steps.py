"""One engine of `pdctl simulate`, step by step, against what vLLM's own scheduler decided; and wrong input.

The committed traces always run; all traces when the shared data is there.
"""

import json
import os
import pathlib
import subprocess

import pytest

import harness

ROOT = pathlib.Path(__file__).resolve().parents[2]
ORACLE = ROOT / "scripts" / "engine-oracle"
COMMITTED = ROOT / "tests" / "data" / "vllm_scheduler"
SHARED = [p for p in (pathlib.Path(os.environ.get("PDCTL_DATA", ROOT.parent / "shared/data")) / "vllm_scheduler",) if p.is_dir()]

CONFIG = {"block_size": 4, "num_blocks": 7, "max_num_seqs": 4, "max_num_batched_tokens": 64, "prefix_caching": True,
          "async_scheduling": False, "step_us": {"a": 10, "b": 0, "c": 0, "d": 0}}


def oracle(folder):
    return subprocess.run([ORACLE, folder], capture_output=True, text=True, timeout=300, env={**os.environ, "PDCTL": harness.PDCTL})


def steps(tmp_path, config, requests):
    """The rows of the engine for a small case, as (tokens, preempted, running, waiting, free)."""
    (tmp_path / "c.json").write_text(json.dumps(config))
    (tmp_path / "w.jsonl").write_text("".join(json.dumps(r) + "\n" for r in requests))
    done = harness.run("simulate", "--workload", tmp_path / "w.jsonl", "--engine-config", tmp_path / "c.json", "--engine-steps",
                       tmp_path / "s.jsonl")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]


def short(row):
    tokens = " ".join(f"{k}:{row['start'][k]}+{n}" for k, n in row["tokens"].items())
    return tokens, row["running"], row["waiting"], row["free_blocks"]


def request(n, arrival, prompt, output, names=(), answer=()):
    return {"id": n, "arrival_us": arrival, "input_length": prompt, "output_length": output, "hash_ids": list(names),
            "output_hash_ids": list(answer)}


def test_committed_traces_are_identical():
    done = oracle(COMMITTED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical" in done.stdout and not done.stdout.startswith("0 of")


@pytest.mark.skipif(not SHARED, reason="the shared traces are not here")
def test_all_traces_are_identical():
    done = oracle(SHARED[0])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_step_that_differs_is_named(tmp_path):
    import gzip
    for end in ("config.json", "workload.jsonl", "steps.jsonl.gz"):
        (tmp_path / f"evict.{end}").write_bytes((COMMITTED / f"evict.{end}").read_bytes())
    text = gzip.decompress((tmp_path / "evict.steps.jsonl.gz").read_bytes()).decode().splitlines()
    row = json.loads(text[6])
    row["free_blocks"] += 1
    text[6] = json.dumps(row)
    (tmp_path / "evict.steps.jsonl.gz").write_bytes(gzip.compress("\n".join(text).encode()))
    done = oracle(tmp_path)
    assert done.returncode == 1
    assert f"row 7: free_blocks {row['free_blocks'] - 1} (expected {row['free_blocks']})" in done.stdout
    assert oracle(tmp_path / "nothing").returncode == 2


def test_a_prompt_that_is_cached_whole_computes_its_last_block_again(tmp_path):
    rows = steps(tmp_path, CONFIG, [request(0, 0, 8, 1, [1, 2]), request(1, 10, 8, 1, [1, 2]), request(2, 20, 9, 1, [1, 2])])
    assert [short(r) for r in rows] == [("0:0+8", 1, 0, 4), ("1:4+4", 1, 0, 4), ("2:8+1", 1, 0, 3)]


def test_the_tail_of_a_prompt_is_evicted_before_its_head(tmp_path):
    rows = steps(tmp_path, CONFIG, [request(0, 0, 10, 1, [1, 2]), request(1, 10, 6, 1, [3]), request(2, 20, 13, 1, [4, 5, 6]),
                                    request(3, 30, 9, 1, [1, 2])])
    assert [short(r) for r in rows] == [("0:0+10", 1, 0, 3), ("1:0+6", 1, 0, 4), ("2:0+13", 1, 0, 2), ("3:4+5", 1, 0, 3)]


def test_preemption_skips_admissions_and_resume_reuses_blocks(tmp_path):
    rows = steps(tmp_path, {**CONFIG, "num_blocks": 6}, [request(0, 0, 6, 5, [1], [2]), request(1, 0, 5, 5, [3], [4]),
                                                         request(2, 25, 2, 1)])
    assert [short(r) for r in rows] == [("0:0+6 1:0+5", 2, 0, 1), ("0:6+1 1:5+1", 2, 0, 1), ("0:7+1 1:6+1", 2, 0, 1),
                                        ("0:8+1 1:7+1", 2, 1, 0), ("0:9+1", 1, 2, 2), ("1:8+1 2:0+2", 2, 0, 1)]
    assert [r["preempted"] for r in rows] == [[], [], [], [], [1], []]


def test_asynchronous_end_holds_the_seat_for_one_more_schedule(tmp_path):
    rows = steps(tmp_path, {**CONFIG, "num_blocks": 12, "max_num_seqs": 1, "async_scheduling": True},
                 [request(0, 0, 7, 3, [1]), request(1, 5, 5, 2, [2])])
    assert [(r["scheduled_us"], r["begin_us"], *short(r)) for r in rows] == [
        (0, 0, "0:0+7", 1, 0, 9), (0, 10, "0:7+1", 1, 0, 9), (10, 20, "0:8+1", 1, 1, 8), (30, 30, "1:0+5", 1, 0, 9),
        (30, 40, "1:5+1", 1, 0, 9)]


def test_the_whole_prompt_must_fit_unless_told_otherwise(tmp_path):
    requests = [request(0, 0, 6, 2), request(1, 0, 20, 1), request(2, 0, 2, 1)]
    config = {**CONFIG, "max_num_batched_tokens": 8}
    assert [short(r) for r in steps(tmp_path, config, requests)] == [
        ("0:0+6", 1, 2, 4), ("0:6+1", 1, 2, 4), ("1:0+8", 1, 1, 4), ("1:8+8", 1, 1, 2), ("1:16+4 2:0+2", 2, 0, 0)]
    without = steps(tmp_path, {**config, "scheduler_reserve_full_isl": False}, requests)
    assert [short(r)[0] for r in without] == ["0:0+6 1:0+2", "0:6+1 1:2+7", "1:9+8", "1:17+3 2:0+2"]


def test_the_budget_is_shared_by_decodes_and_chunks(tmp_path):
    rows = steps(tmp_path, {**CONFIG, "num_blocks": 30, "max_num_batched_tokens": 8},
                 [request(0, 0, 3, 4), request(1, 0, 14, 2), request(2, 0, 6, 1)])
    assert [short(r) for r in rows] == [("0:0+3 1:0+5", 2, 1, 26), ("0:3+1 1:5+7", 2, 1, 25), ("0:4+1 1:12+2 2:0+5", 3, 0, 21),
                                        ("0:5+1 1:14+1 2:5+1", 3, 0, 21)]


@pytest.mark.parametrize("config, requests, message", [
    ({**CONFIG, "block_size": 0}, [request(0, 0, 4, 1)], "c.json:1:16: 'block_size': found 0, expected an integer from 1"),
    ({**CONFIG, "step_us": 3}, [request(0, 0, 4, 1)], "'step_us': found 3, expected an object"),
    ({**CONFIG, "step_us": {"f": 3}}, [request(0, 0, 4, 1)], "found f, expected a known member"),
    ({**CONFIG, "role": "boss"}, [request(0, 0, 4, 1)], "'role': found \"boss\", expected alone, prefill, decode or pair"),
    (CONFIG, [{"id": 0}], "w.jsonl:1:1: 'arrival_us': found nothing, expected an integer"),
    (CONFIG, [request(0, 0, 4, 1), request(1, 0, 4, 0)], "w.jsonl:2:64: 'output_length': found 0"),
    (CONFIG, [request(4, 0, 40, 1)], "request 4: found 10 blocks, expected at most 6: it can never fit"),
    (CONFIG, [], "w.jsonl: found no request"),
])
def test_wrong_input_is_named_and_nothing_is_written(tmp_path, config, requests, message):
    (tmp_path / "c.json").write_text(json.dumps(config))
    (tmp_path / "w.jsonl").write_text("".join(json.dumps(r) + "\n" for r in requests))
    done = harness.run("simulate", "--workload", tmp_path / "w.jsonl", "--engine-config", tmp_path / "c.json", "--engine-steps",
                       tmp_path / "s.jsonl")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "s.jsonl").exists()


def test_members_that_are_not_used_are_named(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({**CONFIG, "colour": "blue"}))
    (tmp_path / "w.jsonl").write_text(json.dumps(request(0, 0, 4, 1)))
    done = harness.run("simulate", "--workload", tmp_path / "w.jsonl", "--engine-config", tmp_path / "c.json", "--engine-steps",
                       tmp_path / "s.jsonl")
    assert done.returncode == 0 and "c.json: not used: colour" in done.stderr


def test_options_that_mean_nothing_here_are_refused(tmp_path):
    done = harness.run("simulate", "--workload", "w", "--engine-config", "c", "--engine-steps", "s", "--workers", "3")
    assert done.returncode == 2 and "--workers does not go with --engine-config" in done.stderr
    done = harness.run("simulate", "--workload", "w", "--engine-steps", "s")
    assert done.returncode == 2 and "--engine-config FILE" in done.stderr
