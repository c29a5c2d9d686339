"""Requests and whole answers: the plain pool, with a log, prefill/decode, large bodies, the start."""

import json
import os
import re
import subprocess
import tempfile
import time

import perf_servers as servers
from perf_load import WARM_S, figures, measure, median, rounds, spread, wrk
from perf_proc import PerfError, free_ports
from perf_servers import key_of

CHAT_BYTES = 1400
BODIES = [(64 << 10, 8), (1 << 20, 4), (16 << 20, 2)]  # bytes, connections
STARTS = 10


class Direct:
    """The backend itself, in the place of a proxy: what the load costs without one."""

    name = "direct"

    def __init__(self, backend):
        self.backend, self.port = backend, backend.port

    def __getattr__(self, name):
        return getattr(self.backend, name)


def add_latency(rows):
    """How much later answers come than without a proxy, at the same number of connections."""
    direct = next((r for r in rows if r["server"] == "direct"), None)
    for r in rows:
        if direct and r is not direct:
            r["added_p50_us"] = r["p50_us"] - direct["p50_us"]
            r["added_p99_us"] = r["p99_us"] - direct["p99_us"]


def compare(section, todo, o, base, connections, body_bytes=CHAT_BYTES, note=""):
    """One table per number of connections."""
    rows = []
    for c in connections:
        for s in todo:
            wrk(s.port, c, WARM_S, key_of(s), body_bytes, scheme=s.scheme)
        runs = rounds(todo, o.rounds, lambda s, c=c: measure(s, c, o.seconds, key_of(s), body_bytes))
        new = figures(section, f"{c} connections{note}", runs, base)
        for r in new:
            r["connections"] = c
        add_latency(new)
        rows += new
    return rows


def stop_all(bench, procs):
    for s in procs:
        bench.stop(s)


def pdctls(bench, o, ports, **more):
    return [servers.pdctl(bench, ports, path, name=name, **more) for name, path in o.binaries]


def regular(bench, o):
    """1.4 kB chat bodies, consistent hash, keep-alive."""
    backend, ports = servers.backends(bench)
    todo = [servers.floor(bench, ports), servers.nginx(bench, ports), servers.haproxy(bench, ports)]
    todo += [*servers.forms(bench, o, ports), *o.peers.regular(bench, ports)]
    rows = compare("regular", [Direct(backend), *todo], o, "nginx", o.connections)
    stop_all(bench, [backend, *todo])
    return rows


def latency(bench, o):
    """One connection, so that nothing waits for anything: what a proxy adds to the time of an answer."""
    backend, ports = servers.backends(bench)
    todo = [servers.nginx(bench, ports), servers.haproxy(bench, ports), *pdctls(bench, o, ports)]
    rows = compare("latency", [Direct(backend), *todo], o, "nginx", [1])
    stop_all(bench, [backend, *todo])
    return rows


def logged(bench, o):
    """The same with each program's ordinary log lines into a file."""
    backend, ports = servers.backends(bench)
    todo = [servers.nginx(bench, ports, logging=True), servers.haproxy(bench, ports, logging=True)]
    todo += pdctls(bench, o, ports, logging=True)
    rows = compare("logged", todo, o, "nginx", o.connections[:1])
    stop_all(bench, [backend, *todo])
    return rows


def regular_of(name):
    """The same binary in front of a plain pool; the other routers are compared with ours."""
    return name.replace(" p/d", " regular") if name.startswith("pdctl") else "pdctl regular"


def pd(bench, o):
    """Two legs per request against one; the base is the same binary in front of a plain pool, in the same rounds."""
    prefill, pports = servers.backends(bench, 2, servers.prefill_answer(), "prefill")
    decode, dports = servers.backends(bench, 2, name="decode")
    todo = servers.forms(bench, o, dports, form=" regular")
    todo += servers.forms(bench, o, pports, form=" p/d", decode_ports=dports)
    todo += o.peers.pd(bench, pports, dports)
    rows = compare("pd", todo, o, regular_of, o.connections)
    stop_all(bench, [prefill, decode, *todo])
    return rows


# nginx with its default (large bodies go through a file), with room for the body in memory, and without reading it first
NGINX_BODY = [
    ("nginx file", ""),
    ("nginx memory", "client_body_buffer_size 17m;"),
    ("nginx unbuffered", "proxy_request_buffering off; client_body_buffer_size 64k;"),
]


def bodies(bench, o):
    """Large prompts. The base is the cheapest way nginx has, whichever that is for a size."""
    from perf_sse import engine  # reads whole bodies before it answers, which nginx `return` does not

    backend, ports = engine(bench, 20)
    todo = [servers.nginx(bench, ports, extra=extra, name=name) for name, extra in NGINX_BODY]
    todo += pdctls(bench, o, ports)
    rows = []
    for size, connections in BODIES:
        name = f", {size >> 10} KiB bodies"
        new = compare("bodies", todo, o, "", [connections], size, name)
        base = min((r for r in new if r["server"].startswith("nginx")), key=lambda r: r["cpu_us"])
        for r in new:
            r["body_bytes"], r["ns_per_byte"] = size, r["cpu_us"] * 1000 / size
            r["ratio"] = r["cpu_us"] / base["cpu_us"]
            r["case"] = f"{size >> 10} KiB bodies, {connections} connections (base: {base['server']})"
        rows += new
    stop_all(bench, [backend, *todo])
    return rows


def first_answer_ms(path, ports):
    """From the start of the process to the last byte of the first answer through it."""
    import http.client

    (port,) = free_ports(1)
    argv = [path, "serve", "--port", str(port), "--prometheus-port", "-1", "--log-level", "warn"]
    argv += ["--worker-urls", *(f"http://127.0.0.1:{p}" for p in ports)]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "user": "u1"})
    with tempfile.TemporaryFile() as log:
        start = time.monotonic()
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            while time.monotonic() - start < 20:
                try:
                    c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    c.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
                    if c.getresponse().status == 200:
                        return (time.monotonic() - start) * 1000
                except OSError:
                    time.sleep(0.0005)
            raise PerfError("pdctl serve answered no request within 20 s of its start")
        finally:
            child.kill()
            child.wait()


def start(bench, o):
    """Start to first request served."""
    backend, ports = servers.backends(bench)
    rows = []
    for name, path in o.binaries:
        runs = [first_answer_ms(path, ports) for _ in range(max(3, min(STARTS, o.rounds * 2)))]
        row = {"section": "start", "case": "start to first answer", "server": name, "rounds": len(runs)}
        rows.append({**row, "first_answer_ms": median(runs), "spread": spread(runs), "runs": [round(r, 3) for r in runs]})
    bench.stop(backend)
    return rows


def bench_once(server, path, count, connections):
    """pdctl bench as the load: what the router spends per request then, and what bench itself spends."""
    argv = [path, "bench", "--base-url", f"http://127.0.0.1:{server.port}", "--model", "m", "--no-stream", "--num-prompts", str(count)]
    argv += ["--max-concurrency", str(connections), "--sessions", "64", "--requests-per-session", str(-(-count // 64)), "--json"]
    argv += ["--session-field", "session_params", "--input-len", "220", "--output-len", "60"]
    before, times = server.cpu_ns(), os.times()
    begin = time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    wall, cpu, after = time.monotonic() - begin, server.cpu_ns() - before, os.times()
    if done.returncode != 0:
        raise PerfError(f"pdctl bench ended with {done.returncode}: {done.stderr[-500:]}")
    doc = json.loads(done.stdout)
    own = after.children_user + after.children_system - times.children_user - times.children_system
    finished = doc["completed"]
    return {
        "cpu_us": cpu / 1000 / max(1, finished),
        "client_cpu_us": own * 1e6 / max(1, finished),
        "rps": finished / wall,
        "requests": finished,
        "errors": count - finished,
        "peak_rss_kib": server.peak_rss_kib(),
    }


def bench_load(bench, o):
    """The project's own load generator in the place of wrk."""
    backend, ports = servers.backends(bench)
    todo = pdctls(bench, o, ports)
    paths = dict(o.binaries)
    count = max(64, round(o.seconds * 2000) // 64 * 64)
    runs = rounds(todo, min(3, o.rounds), lambda s: bench_once(s, paths[s.name], count, 32))
    stop_all(bench, [backend, *todo])
    return figures("bench", "pdctl bench, 32 connections", runs, "")


def versions():
    """What was measured against."""
    found = {}
    for name, argv, pattern in (
        ("nginx", ["nginx", "-v"], r"nginx/(\S+)"),
        ("haproxy", ["haproxy", "-v"], r"version (\S+)"),
        ("wrk", ["wrk", "-v"], r"wrk \S*?(\d[\w.+-]*)"),
    ):
        done = subprocess.run([servers.need(argv[0]), *argv[1:]], capture_output=True, text=True)
        match = re.search(pattern, done.stdout + done.stderr)
        found[name] = match.group(1) if match else "unknown"
    return found
