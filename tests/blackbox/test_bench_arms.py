"""The three arms of a published cache-routing experiment, each by one command: one worker, round robin, cache routing. Workers without a
registry, unshuffled prompts with 8 prefixes, a salt per arm so that no arm meets the cache of another. What is asserted in each arm is what
the arm is about: where requests went, and what the prefix cache saw of it."""

import json

import pytest

import harness


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "multi.jsonl"
    done = harness.run("gen", "multi-prefix", "--num-prompts", 40, "--num-prefixes", 8, "--prefix-len", 4096, "--suffix-len", 32, "--output", path)
    assert done.returncode == 0, done.stderr
    return path


def arm(url, data, tmp_path, label, *args, code=0):
    path = tmp_path / f"{label}.json"
    done = harness.run("bench", "--base-url", url, "--dataset", data, "--output-len", 4, "--request-rate", 40, "--salt", label, "--label", label,
                       "--output", path, *args)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(path.read_text()), done.stdout


def test_three_arms(pdctl, data, tmp_path):
    one, two = (pdctl.worker("--prefill-tokens-per-s", 20000, "--decode-ms-per-token", 1) for _ in range(2))
    names = [f"alpha={one.url}", f"beta={two.url}"]  # the ring hashes names: the same split on every machine
    turns = pdctl("serve", "--worker-urls", *names, "--policy", "round_robin")
    ring = pdctl("serve", "--worker-urls", *names, "--policy", "consistent_hash")

    single, _ = arm(one.url, data, tmp_path, "single-instance", "--affinity", "none")
    spread, text = arm(turns.url, data, tmp_path, "round-robin", "--affinity", "none", "--assert", "split=2,not-sticky")
    assert text.count("holds (") == 2
    routed, text = arm(ring.url, data, tmp_path, "cache-routing", "--affinity", "prefix", "--assert", "split=2,sticky,hits-faster")
    assert text.count("holds (") == 3 and "TTFT of cache hits" in text and "TTFT of misses" in text

    groups = len({json.loads(line)["prefix_group"] for line in data.read_text().splitlines()})
    own = [d["pdctl"] for d in (single, spread, routed)]
    assert all(d["completed"] == 40 for d in (single, spread, routed))
    # one worker and cache routing compute each prefix once (twice, when two requests of it meet in the queue); round robin on both workers
    assert groups <= own[2]["cache_misses"] < own[1]["cache_misses"] and own[1]["cache_misses"] > 1.5 * groups
    assert own[2]["cached_tokens"]["share"] > own[1]["cached_tokens"]["share"]
    assert own[2]["affinity"] == "prefix" and own[1]["affinity"] == own[0]["affinity"] == "none"
    assert own[1]["workers"]["worker"] and len(own[1]["workers"]["worker"]) == 2 and own[0]["workers"]["worker"] == {}
    # what each arm is not: the assertion of another arm fails
    arm(turns.url, data, tmp_path, "wrong", "--affinity", "prefix", "--assert", "sticky", code=1)
    arm(one.url, data, tmp_path, "alone", "--affinity", "none", "--assert", "split", code=1)
