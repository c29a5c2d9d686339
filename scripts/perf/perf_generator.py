"""The load generator itself: `pdctl bench` beside wrk (and `vllm bench serve`, when it is installed) against servers that cost next to nothing.

A server that answers in the same write is the hardest case: whoever looks for answers only at the next event reports its own ticks. Rates and
latencies are what each client says of itself; CPU per request is what its process used while it sent, start and report not counted.
"""

import json
import os
import resource
import shutil
import subprocess
from statistics import median

import perf_servers as servers
from perf_proc import PerfError, free_ports
from perf_sse import engine

CONNECTIONS = (1, 8, 16, 32, 256)
STREAMS, EVENTS_PER_S, EVENTS = 2000, 20, 120
RATE = 2000
SSE = (
    'data: {"id":"x","object":"text_completion","choices":[{"index":0,"text":"hello"}]}\\n\\n'
    'data: {"id":"x","object":"text_completion","choices":[{"index":0,"text":"","finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":10,"completion_tokens":1}}\\n\\ndata: [DONE]\\n\\n'
)
LUA = 'wrk.method = "POST"; wrk.headers["Content-Type"] = "application/json"; wrk.body = \'%s\'\n' \
      'function done(s, l) io.write(string.format("\\nPERF {\\"requests\\":%%d,\\"seconds\\":%%.6f,\\"p50_us\\":%%d,\\"p99_us\\":%%d}\\n", ' \
      "s.requests, s.duration / 1e6, l:percentile(50), l:percentile(99))) end\n"
BODY = json.dumps({"model": "m", "max_tokens": 128, "temperature": 0.0, "stream": False, "messages": [{"role": "user", "content": "abc " * 16}]})


def answering(bench):
    """nginx that answers with one JSON document, and with a whole short stream."""
    (port,) = free_ports(1)
    text = servers.chat_answer().replace("\\", "\\\\").replace("'", "\\'").replace("$", "")
    http = (
        f"\tserver {{ listen 127.0.0.1:{port} backlog=4096;\n"
        f"\t\tlocation /v1/chat/completions {{ default_type application/json; return 200 '{text}'; }}\n"
        f"\t\tlocation /v1/completions {{ default_type text/event-stream; return 200 '{SSE}'; }} }}\n"
    )
    return bench.start("answers", servers.nginx_argv(bench, f"answers{port}", http, 1), port, f"answers{port}").wait_port()


def children_cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wrk(bench, server, path, connections, seconds):
    script = bench.file("generator", "post.lua", LUA % BODY)
    before = children_cpu()
    done = subprocess.run([servers.need("wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s", script,
                           f"http://127.0.0.1:{server.port}{path}"], capture_output=True, text=True, timeout=seconds + 60)
    line = next((x[5:] for x in done.stdout.splitlines() if x.startswith("PERF ")), None)
    if line is None:
        raise PerfError(f"wrk failed: {done.stdout}{done.stderr}")
    seen = json.loads(line)
    return {"rps": seen["requests"] / seen["seconds"], "p50_us": seen["p50_us"], "p99_us": seen["p99_us"],
            "cpu_us": (children_cpu() - before) * 1e6 / seen["requests"]}


def run_bench(path, port, *args):
    argv = [path, "bench", "--base-url", f"http://127.0.0.1:{port}", "--model", "m", "--json", *map(str, args)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env={**os.environ, "PDCTL_STORE": "none"})
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise PerfError(f"pdctl bench ended with {done.returncode}: {done.stderr[-500:]}") from None


def own_cpu_us(doc, count):
    return doc["pdctl"]["client_cpu_share"] * doc["duration"] * 1e6 / max(1, count)


def once(path, server, endpoint, connections, seconds):
    count = max(4000, round(30000 * seconds))
    doc = run_bench(path, server.port, "--num-prompts", count, "--duration", seconds, "--max-concurrency", connections, "--input-len", 16,
                    "--endpoint", endpoint, "--percentile-metrics", "e2el", "--metric-percentiles", "50,99",
                    *(["--no-stream"] if endpoint.endswith("chat/completions") else []))
    return {"rps": doc["request_throughput"], "p50_us": doc["median_e2el_ms"] * 1000, "p99_us": doc["p99_e2el_ms"] * 1000,
            "cpu_us": own_cpu_us(doc, doc["completed"]), "errors": doc["failed"]}


def vllm(bench, server, connections, seconds):
    """What users have today, where it is installed."""
    out = os.path.join(bench.folder("generator"), "vllm.json")
    before = children_cpu()
    subprocess.run(["vllm", "bench", "serve", "--backend", "openai", "--base-url", f"http://127.0.0.1:{server.port}", "--endpoint", "/v1/completions",
                    "--model", "m", "--dataset-name", "random", "--random-input-len", "16", "--random-output-len", "1", "--num-prompts",
                    str(round(500 * seconds)), "--max-concurrency", str(connections), "--save-result", "--result-dir", os.path.dirname(out),
                    "--result-filename", "vllm.json", "--skip-tokenizer-init"], capture_output=True, text=True, timeout=600, check=False)
    try:
        with open(out, encoding="utf-8") as f:
            doc = json.load(f)
    except (OSError, ValueError):
        return None
    return {"rps": doc["request_throughput"], "p50_us": doc["median_ttft_ms"] * 1000, "p99_us": doc["p99_ttft_ms"] * 1000,
            "cpu_us": (children_cpu() - before) * 1e6 / max(1, doc["completed"])}


def row(case, server, runs, base=None):
    """Medians; rates and tails are compared with wrk's of the same round."""
    r = {"section": "generator", "case": case, "server": server, "rounds": len(runs), "runs": [round(x["rps"]) for x in runs]}
    for key in ("rps", "p50_us", "p99_us", "cpu_us", "errors"):
        values = [x[key] for x in runs if x.get(key) is not None]
        if values:
            r[key] = median(values)
    if base:
        r["rate_behind"] = median([b["rps"] / x["rps"] for x, b in zip(runs, base)])
        r["p99_over_ms"] = median([(x["p99_us"] - 3 * b["p99_us"]) / 1000 for x, b in zip(runs, base)])
    return r


def closed(bench, o, server):
    rows = []
    for kind, endpoint in (("json", "/v1/chat/completions"), ("sse", "/v1/completions")):
        for connections in CONNECTIONS:
            case = f"{kind}, {connections} connections"
            runs = {"wrk": [], **{name: [] for name, _ in o.binaries}}
            for _ in range(o.rounds):
                runs["wrk"].append(wrk(bench, server, endpoint, connections, o.seconds))
                for name, path in o.binaries:
                    runs[name].append(once(path, server, endpoint, connections, o.seconds))
            rows.append(row(case, "wrk", runs["wrk"]))
            rows += [row(case, name, runs[name], runs["wrk"]) for name, _ in o.binaries]
            if kind == "sse" and connections == 32 and shutil.which("vllm"):
                seen = vllm(bench, server, connections, o.seconds)
                rows += [row(case, "vllm bench serve", [seen])] if seen else []
    return rows


def streams(bench, o):
    """Many streams at once: are they followed, and what does an event cost?"""
    source, ports = engine(bench, EVENTS_PER_S, 1, plain=True)
    rows = []
    for name, path in o.binaries:
        runs = []
        for _ in range(min(3, o.rounds)):
            doc = run_bench(path, ports[0], "--num-prompts", STREAMS, "--input-len", 16, "--output-len", EVENTS, "--request-rate", STREAMS / 2,
                            "--burstiness", "inf")
            events = doc["pdctl"]["chunk_gap"]["count"] + doc["completed"]
            runs.append({"rps": doc["request_throughput"], "eps": events / doc["duration"], "cpu_us": own_cpu_us(doc, events),
                         "errors": STREAMS - doc["completed"], "late_ms": abs(doc["pdctl"]["chunk_gap"]["mean_ms"] - 1000 / EVENTS_PER_S)})
        r = row(f"{STREAMS} streams of {EVENTS_PER_S} events/s", name, runs)
        r["eps"], r["gap_off_ms"] = median([x["eps"] for x in runs]), median([x["late_ms"] for x in runs])
        rows.append(r)
    bench.stop(source)
    return rows


def paced(o, server):
    """Is an open schedule kept?"""
    rows = []
    for name, path in o.binaries:
        runs = []
        for _ in range(o.rounds):
            doc = run_bench(path, server.port, "--num-prompts", round(RATE * o.seconds), "--request-rate", RATE, "--input-len", 16, "--no-stream")
            lag = doc["pdctl"]["schedule_lag"]
            runs.append({"rps": doc["request_throughput"], "p50_us": lag["median_ms"] * 1000, "p99_us": lag["p99_ms"] * 1000,
                         "cpu_us": own_cpu_us(doc, doc["completed"]), "errors": doc["failed"]})
        rows.append(row(f"schedule lag at {RATE}/s", name, runs))
    return rows


def generator(bench, o):
    server = answering(bench)
    rows = closed(bench, o, server) + paced(o, server)
    bench.stop(server)
    return rows + streams(bench, o)
