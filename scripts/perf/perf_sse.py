"""Streams of server-sent events: the cost of an event, and what thousands of streams and idle connections hold."""

import json
import subprocess
import time

import perf_servers as servers
from perf_load import before_of, figures, rounds
from perf_proc import PerfError, free_ports

STREAMS, RATE = 1000, 20
HOLD_STREAMS, HOLD_RATE = 5000, 2
IDLE = 10000
SPARE_FILES = 200
END_S = 120


def engine(bench, rate, count=4, plain=False):
    """The cheap engine on `count` ports. plain: events as vLLM writes them, without the time of sending."""
    ports = free_ports(count)
    argv = [servers.program("cheap_engine"), ",".join(map(str, ports)), str(rate), *(["plain"] if plain else [])]
    return bench.start("engine", argv, ports[0], f"engine{ports[0]}").wait_port(), ports


class Sink:
    """One sse_sink: says when all streams run, when the window is over, and what came of them."""

    def __init__(self, port, streams, events, window_s, key):
        argv = [servers.program("sse_sink"), str(port), str(streams), str(events), str(round(window_s * 1000)), key]
        self.child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def wait(self, word):
        """The rest of the line that begins with `word`, the next one it says."""
        line = self.child.stdout.readline()
        if line.startswith(word + " "):
            return json.loads(line[len(word) + 1 :])
        self.child.kill()
        raise PerfError(f"sse_sink said '{line.strip()}' where '{word}' was expected: {self.child.stderr.read()}")

    def __exit__(self, *_):
        try:
            self.child.stdin.close()
            self.child.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()
        self.child.stderr.close()


def look(server):
    return {
        "descriptors": server.descriptors(),
        "threads": server.threads(),
        "rss_kib": server.rss_kib(),
        "pss_kib": server.pss_kib(),
        "anon_kib": server.anon_kib(),
    }


def stream_once(server, streams, rate, seconds, key):
    """CPU of the server per relayed event while all streams run."""
    ramp = streams / 2000 + 2
    with Sink(server.port, streams, round((seconds + ramp) * rate), seconds, key) as sink:
        first, cpu = sink.wait("ready"), server.cpu_ns()
        time.sleep(seconds / 2)
        seen = look(server)
        last, cpu = sink.wait("window"), server.cpu_ns() - cpu
        end = sink.wait("end")
    if last <= first:
        raise PerfError(f"{server.name} relayed nothing: {server.log_tail()}")
    return {**end, **seen, "cpu_us": cpu / 1000 / (last - first), "eps": (last - first) / seconds, "peak_rss_kib": server.peak_rss_kib()}


def add_ratio(rows, base, field, name):
    base_row = next((r for r in rows if r["server"] == base), None)
    for r in rows:
        if base_row and r is not base_row and base_row.get(field):
            r[name] = r[field] / base_row[field]


def sse(bench, o):
    """STREAMS streams of RATE events a second through each server; nginx with proxy_buffering off."""
    backend, ports = engine(bench, RATE)
    todo = [servers.nginx(bench, ports, extra="proxy_buffering off;"), servers.haproxy(bench, ports)]
    todo += servers.forms(bench, o, ports)
    todo += o.peers.regular(bench, ports)
    n = o.streams or STREAMS
    runs = rounds(todo, o.rounds, lambda s: stream_once(s, n, RATE, o.seconds, servers.key_of(s)))
    rows = figures("sse", f"{n} streams x {RATE}/s", runs, "nginx")
    for r in rows:
        r["errors"] = r["streams"] - r["complete"]
    for field in ("rss", "pss"):
        add_ratio(rows, "nginx", f"{field}_kib", f"{field}_ratio")
    for s in [backend, *todo]:
        bench.stop(s)
    return rows


def per_stream(name, before, seen, streams, extra):
    """Memory and descriptors that each stream adds, and in all."""
    row = {"section": "hold", "case": name, "server": "pdctl", "streams": streams, **seen, **extra}
    row["kib_per_stream"] = seen["anon_kib"] / streams
    row["pss_kib_per_stream"] = seen["pss_kib"] / streams
    row["descriptors_per_stream"] = (seen["descriptors"] - before["descriptors"]) / streams
    row["errors"] = streams - extra["complete"]
    return row


def hold_streams(bench, o, name, path, ports, scale):
    server = servers.pdctl(bench, ports, path, name=name)
    before, n = look(server), HOLD_STREAMS // scale
    with Sink(server.port, n, round((o.seconds + n / 2000 + 3) * HOLD_RATE), o.seconds, "body") as sink:
        first, cpu = sink.wait("ready"), server.cpu_ns()
        seen = look(server)
        last, cpu = sink.wait("window"), server.cpu_ns() - cpu
        seen = max(seen, look(server), key=lambda s: s["anon_kib"])
        end = sink.wait("end")
    bench.stop(server)
    row = per_stream(f"{n} streams", before, seen, n, {**end, "cpu_us": cpu / 1000 / max(1, last - first)})
    return {**row, "server": name}


def hold_idle(bench, o, name, path, ports, scale):
    """Connections that have had one answer each and wait; one more request must still be quick."""
    n = IDLE // scale
    # By default there is a descriptor for a worker's side of every connection; idle ones need none.
    server = servers.pdctl(bench, ports, path, name=name, extra=["--max-connections", str(n + 100)])
    before = look(server)
    with Sink(server.port, n, 1, 0, "body") as sink:
        sink.wait("ready")
        end = sink.wait("end")
        time.sleep(3)  # longer than idle worker connections are kept
        seen = look(server)
        start = time.monotonic()
        with Sink(server.port, 1, 1, 0, "body") as one:
            one.wait("ready")
            more = one.wait("end")
        end["request_ms"] = (time.monotonic() - start) * 1000
        end["complete"] -= more["complete"] != 1
    bench.stop(server)
    return {**per_stream(f"{n} idle connections", before, seen, n, end), "server": name}


def hold(bench, o):
    """HOLD_STREAMS slow streams at once, then IDLE idle connections, through pdctl alone."""
    scale = 1
    while max(IDLE, 2 * HOLD_STREAMS) // scale + SPARE_FILES > o.files:
        scale *= 2
    backend, ports = engine(bench, HOLD_RATE)
    rows = []
    for name, path in o.binaries:
        rows.append(hold_streams(bench, o, name, path, ports, scale))
        rows.append(hold_idle(bench, o, name, path, ports, scale))
    for r in rows:
        before = next((b for b in rows if b["server"] == before_of(r["server"]) and b["case"] == r["case"]), None)
        if before:
            r["before_memory_ratio"] = r["anon_kib"] / before["anon_kib"]
    bench.stop(backend)
    return rows
