"""Runs wrk against a server and accounts the server's CPU; rounds are interleaved so that all servers share the machine's moods."""

import json
import os
import subprocess
import threading
import time

from perf_proc import PerfError
from perf_servers import need

HERE = os.path.dirname(os.path.abspath(__file__))
WARM_S = 0.4


def wrk(port, connections, seconds, key, body_bytes, threads=1, scheme="http"):
    """One run of wrk; the numbers that chat.lua prints."""
    argv = [need("wrk"), f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    argv += ["-s", f"{HERE}/chat.lua", f"{scheme}://127.0.0.1:{port}", "--", key, str(body_bytes)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60)
    for line in done.stdout.splitlines():
        if line.startswith("PERF "):
            return json.loads(line[5:])
    raise PerfError(f"wrk failed: {done.stdout}{done.stderr}")


class Sampler:
    """Looks at a server once in the middle of a run: descriptors, threads, memory. Costs the server nothing."""

    def __init__(self, server, after):
        self.server, self.seen = server, {}
        self.timer = threading.Timer(after, self.look)

    def look(self):
        self.seen = {
            "descriptors": self.server.descriptors(),
            "threads": self.server.threads(),
            "rss_kib": self.server.rss_kib(),
            "pss_kib": self.server.pss_kib(),
        }

    def __enter__(self):
        self.timer.start()
        return self

    def __exit__(self, *_):
        self.timer.join()


def measure(server, connections, seconds, key, body_bytes):
    """One figure: CPU of the server per request, and what the client saw."""
    with Sampler(server, seconds * 0.6) as sampler:
        switches = sum(server.switches())
        before, t0 = server.cpu_ns(), time.monotonic()
        seen = wrk(server.port, connections, seconds, key, body_bytes, scheme=server.scheme)
        cpu, wall = server.cpu_ns() - before, time.monotonic() - t0
        switches = sum(server.switches()) - switches
    if not server.alive():
        raise PerfError(f"{server.name} died: {server.log_tail()}")
    if seen["requests"] == 0:
        raise PerfError(f"{server.name} answered no request: {server.log_tail()}")
    return {
        **seen,
        **sampler.seen,
        "cpu_us": cpu / 1000 / seen["requests"],
        "switches": max(0, switches) / seen["requests"],
        "cores": cpu / 1e9 / wall,
        "rps": seen["requests"] / seen["seconds"],
        "peak_rss_kib": server.peak_rss_kib(),
    }


def rounds(servers, count, once):
    """once(server) for every server, `count` times; the order turns by one each round. {name: [figure, ...]}"""
    runs = {s.name: [] for s in servers}
    for r in range(count):
        k = r % len(servers)
        for s in servers[k:] + servers[:k]:
            runs[s.name].append(once(s))
    return runs


def median(values):
    v = sorted(values)
    n = len(v)
    return v[n // 2] if n % 2 else (v[n // 2 - 1] + v[n // 2]) / 2


def spread(values):
    """How far the rounds lie apart, as a part of the median."""
    m = median(values)
    return (max(values) - min(values)) / m if m else 0.0


def ratio(runs, name, base, field="cpu_us"):
    """Median of the ratios round by round: what disturbs one round disturbs both sides of it."""
    pairs = [(a[field], b[field]) for a, b in zip(runs[name], runs[base]) if b[field]]
    return median([a / b for a, b in pairs]) if pairs else None


def before_of(name):
    """What the row of the build before is called: "pdctl p/d" -> "pdctl before p/d". None for other programs."""
    ours = name == "pdctl" or name.startswith("pdctl ") and not name.startswith("pdctl before")
    return "pdctl before" + name[len("pdctl") :] if ours else None


def figures(section, case, runs, base, field="cpu_us"):
    """Rows of the result: one per server, the medians of its rounds. base: a server, or a function from a server to its base."""
    rows = []
    for name, seen in runs.items():
        row = {"section": section, "case": case, "server": name, "rounds": len(seen)}
        for key in seen[0]:
            values = [s[key] for s in seen if s.get(key) is not None]
            if values:
                row[key] = median(values)
        row["spread"] = spread([s[field] for s in seen]) if field in seen[0] else None
        row["runs"] = [round(s[field], 4) for s in seen] if field in seen[0] else []
        to = base(name) if callable(base) else base
        if to in runs and name != to:
            row["ratio"] = ratio(runs, name, to, field)
        if "floor" in runs and name != "floor":
            row["floor_ratio"] = ratio(runs, name, "floor", field)
        if before_of(name) in runs:
            row["before_ratio"] = ratio(runs, name, before_of(name), field)
            if "rss_kib" in seen[0]:
                row["before_memory_ratio"] = ratio(runs, name, before_of(name), "rss_kib")
        rows.append(row)
    return rows
