"""Large generated workloads: requests that are computed when they are asked for have the figures of those that are kept."""

import json
import os
import pathlib
import subprocess

import pytest

from harness import PDCTL, run

SHAPE = """name: a
workload:
  generate: {{sessions: 700, turns: 5, groups: 9, zipf: 1, prefix_tokens: 100, turn_tokens: 33, output_tokens: 21, order: {}, key: {}, active: 100}}
workers: {{count: 3}}
policies: [consistent_hash, random, round_robin, sticky, least_request{}]
routing_only: true
"""


@pytest.mark.parametrize("order", ["shuffled", "interleaved"])
@pytest.mark.parametrize("key", ["session", "group", "none"])
def test_computed_requests_are_those_that_are_kept(order, key, tmp_path):
    docs = []
    # A policy that looks at blocks, or a limit of the cache that is never reached, needs the requests as a whole.
    for more, cache in (("", ""), (", affinity", ""), ("", "cache: {blocks: [100000000]}\n")):
        path = tmp_path / "same.yaml"
        path.write_text(SHAPE.format(order, key, more) + cache)
        done = run("simulate", path, "--no-store", "--json", "-")
        assert done.returncode == 0, done.stderr
        arms = json.loads(done.stdout)["pdctl"]["arms"][:5]
        for arm in arms:
            arm.pop("date", None)
            arm["pdctl"].pop("pareto", None)
            arm["pdctl"].pop("cache_blocks", None)
        docs.append(arms)
    assert docs[0] == docs[1] and docs[0] == docs[2]


def test_memory_of_two_million(tmp_path):
    """10,000,000 take five times as much: 256 MB are the goal."""
    path = tmp_path / "big.yaml"
    path.write_text("name: big\nworkload:\n  generate: {sessions: 200000, turns: 10, order: shuffled}\nworkers: {count: 8}\n"
                    "policies: [consistent_hash]\nrouting_only: true\n")
    if b"__asan_init" in pathlib.Path(PDCTL).read_bytes():
        pytest.skip("memory under AddressSanitizer says nothing")
    with subprocess.Popen([PDCTL, "simulate", path, "--no-store"], stdout=subprocess.DEVNULL) as p:
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = status
    assert status == 0 and usage.ru_maxrss < 56 * 1024


def test_rows_of_requests(tmp_path):
    """The lists say what the figures say; with them everything else stays the same, and they are a measured run."""
    path = tmp_path / "rows.yaml"
    path.write_text("name: rows\nworkload:\n  generate: {sessions: 30, turns: 3, prefix_tokens: 300, output_tokens: 9, request_rate: 40}\n"
                    "workers: {count: 2}\npolicies: [round_robin]\nevents:\n  - {at_request: 40, action: fail, worker: 1}\n")
    docs = []
    for flags in ([], ["--save-detailed"]):
        done = run("simulate", path, "--no-store", "--json", tmp_path / "r.json", *flags)
        assert done.returncode == 0, done.stderr
        docs.append(json.loads((tmp_path / "r.json").read_text()))
        docs[-1].pop("date", None)
    rows = {k: docs[1].pop(k) for k in ("input_lens", "output_lens", "start_times", "ttfts", "itls", "errors")}
    assert docs[0] == docs[1] and {len(v) for v in rows.values()} == {90}
    done = [i for i in range(90) if not rows["errors"][i]]
    assert len(done) == docs[1]["completed"] and all(len(rows["itls"][i]) == 8 and rows["output_lens"][i] == 9 for i in done)
    mean = sum(rows["ttfts"][i] for i in done) / len(done) * 1e3
    assert mean == pytest.approx(docs[1]["mean_ttft_ms"])
    mean = sum(rows["ttfts"][i] + sum(rows["itls"][i]) for i in done) / len(done) * 1e3
    assert mean == pytest.approx(docs[1]["mean_e2el_ms"])
    assert sum(rows["input_lens"][i] for i in done) == docs[1]["total_input_tokens"]
    fitted = json.loads(run("simulate", "--calibrate", tmp_path / "r.json", "--json", "-").stdout)
    assert fitted["trace_info"]["num_requests"] == len(done)
    wrong = run("simulate", path, "--no-store", "--save-detailed")
    assert wrong.returncode == 2 and "--save-detailed: expected --json" in wrong.stderr
