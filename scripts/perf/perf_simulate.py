"""The simulator itself: CPU and memory of whole runs on one core.

The Mooncake conversation hour is measured when its file is where PDCTL_DATA, or the checkout's neighbour, has it.
"""

import os
import pathlib
import subprocess
from statistics import median

from perf_proc import PerfError

HERE = pathlib.Path(__file__).resolve().parent
POLICIES = ["consistent_hash", "affinity", "least_request", "round_robin"]
MILLIONS = """name: millions
workload:
  generate: {sessions: 1000000, turns: 10, groups: 100, prefix_tokens: 512, turn_tokens: 32, output_tokens: 32, order: shuffled}
workers: {count: 8}
policies: [consistent_hash]
routing_only: true
"""


def data():
    for folder in (os.environ.get("PDCTL_DATA"), HERE.parents[1] / "../shared/data", HERE.parents[1] / "../../shared/data"):
        path = pathlib.Path(folder or "/nowhere") / "mooncake_conversation.jsonl"
        if path.exists():
            return str(path)
    return None


def once(path, args):
    with open(os.devnull, "wb") as null:
        child = subprocess.Popen([path, "simulate", *args, "--no-store"], stdout=null, stderr=subprocess.PIPE)
        text = child.stderr.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = status
    if status != 0:
        raise PerfError(f"pdctl simulate {' '.join(args)} ended with {status}: {text.decode()[-500:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss


def simulate(bench, o):
    cases, hour = [], data()
    if hour:
        base = ["--workload", hour]
        cases += [(f"hour, 8 workers, {p}", [*base, "--workers", "8", "--policy", p], 0) for p in POLICIES]
        cases += [("hour, 8 workers, four policies", [*base, "--workers", "8", "--policy", ",".join(POLICIES)], 0),
                  ("hour, 4 prefill + 4 decode", [*base, "--prefill", "4", "--decode", "4", "--policy", "consistent_hash/least_request"], 0)]
    cases.append(("10,000,000 requests, routing only", [bench.file("simulate", "millions.yaml", MILLIONS)], 10_000_000))
    rows = []
    for name, path in o.binaries:
        for case, args, requests in cases:
            runs = [once(path, args) for _ in range(1 if requests else min(5, o.rounds))]
            cpu = median(r[0] for r in runs)
            row = {"section": "simulate", "case": case, "server": name, "rounds": len(runs), "cpu_s": cpu, "peak_mb": max(r[1] for r in runs) / 1000}
            if requests:
                row["us_per_request"] = cpu * 1e6 / requests
                row["mrps"] = requests / cpu / 1e6
            rows.append(row)
    return rows
