"""Captures under load, replayed exactly: shared by test_exact_replay.py and scripts/exact-replay."""

import json
import re

from harness import run


def write_dataset(path, n, seed=7):
    """Conversations that grow, with beginnings that others share, and a few requests that belong to none."""
    state, turns = seed, {}
    with open(path, "w", encoding="utf-8") as out:
        for i in range(n):
            state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            who = (state >> 33) % max(2, n // 12)
            turns[who] = turns.get(who, 0) + 1
            text = f"You are assistant number {who % 5}. " * 12 + "".join(f"User {who} says thing {t} of many. " * 4 for t in range(turns[who]))
            line = {"prompt": text, "output_tokens": 1 + (state >> 21) % 24}
            if who % 7:
                line["session_id"] = f"user-{who}"
            out.write(json.dumps(line) + "\n")


def drive(router, dataset, concurrency):
    done = run("bench", "--base-url", router.url, "--model", "m", "--dataset", dataset, "--max-concurrency", concurrency, "--request-rate", "inf",
               "--session-field", "session_id", "--endpoint", "/v1/completions", timeout=300)
    assert done.returncode in (0, 1), done.stderr


def replay(db, *args):
    """(exit code, {pool: (policy, agreed, compared)}, text)"""
    done = run("simulate", "--workload", db, "--replay", "exact", *args, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    found = re.findall(r"^agreement with the capture: (\S+), (\w+) \d+: [\d.]+ % \((\d+) of (\d+) decisions\)$", done.stdout, re.M)
    return done.returncode, {pool: (policy, int(agreed), int(n)) for policy, pool, agreed, n in found}, done.stdout
