"""Tables for a terminal, and the goals with their verdicts."""

import sys


def number(key, form, scale=1.0):
    return lambda r: form % (r[key] * scale) if r.get(key) is not None else ""


# (title, width, text of a row); a column is left out of a table in which it is empty
COLUMNS = [
    ("server", 24, lambda r: r["server"]),
    ("cpu us", 10, number("cpu_us", "%.2f")),
    ("spread", 7, number("spread", "%.0f%%", 100)),
    ("ratio", 7, number("ratio", "%.2f")),
    ("x floor", 8, number("floor_ratio", "%.2f")),
    ("x before", 9, number("before_ratio", "%.2f")),
    ("switches", 9, number("switches", "%.2f")),
    ("ns/B", 7, number("ns_per_byte", "%.3f")),
    ("req/s", 8, number("rps", "%.0f")),
    ("event/s", 8, number("eps", "%.0f")),
    ("cores", 6, number("cores", "%.2f")),
    ("p50 us", 8, number("p50_us", "%.0f")),
    ("p99 us", 8, number("p99_us", "%.0f")),
    ("+p50", 7, number("added_p50_us", "%+.0f")),
    ("+p99", 7, number("added_p99_us", "%+.0f")),
    ("peak MB", 8, number("peak_rss_kib", "%.1f", 1 / 1024)),
    ("rss MB", 8, number("rss_kib", "%.1f", 1 / 1024)),
    ("x rss", 6, number("rss_ratio", "%.2f")),
    ("x pss", 6, number("pss_ratio", "%.2f")),
    ("rss x before", 13, number("before_memory_ratio", "%.2f")),
    ("fds", 7, number("descriptors", "%.0f")),
    ("threads", 8, number("threads", "%.0f")),
    ("KiB/conn", 9, number("kib_per_stream", "%.1f")),
    ("fd/conn", 8, number("descriptors_per_stream", "%.2f")),
    ("wrk/rate", 9, number("rate_behind", "%.2f")),
    ("client us", 10, number("client_cpu_us", "%.1f")),
    ("first ms", 9, number("first_answer_ms", "%.1f")),
    ("CPU s", 8, number("cpu_s", "%.2f")),
    ("peak MB", 9, number("peak_mb", "%.0f")),
    ("M req/s", 9, number("mrps", "%.2f")),
    ("errors", 7, number("errors", "%.0f")),
]

# name, section, beginning of the case, what ours is called after the binary's name, field, limit
GOALS = [
    ("CPU per request, 32 connections, x nginx", "regular", "32 ", "", "ratio", 1.0),
    ("CPU per request, 256 connections, x nginx", "regular", "256 ", "", "ratio", 1.2),
    ("CPU per request, 32 connections, x floor", "regular", "32 ", "", "floor_ratio", 1.15),
    ("CPU per request, 256 connections, x floor", "regular", "256 ", "", "floor_ratio", 1.25),
    # With --io threads: at most a tenth above what blocking threads cost when they were the only form.
    ("CPU per request, 32 connections, threads, x nginx", "regular", "32 ", " threads", "ratio", 1.23),
    ("CPU per request, 256 connections, threads, x nginx", "regular", "256 ", " threads", "ratio", 1.68),
    ("CPU per event, 1,000 streams, x nginx", "sse", "1000 ", "", "ratio", 1.0),
    ("resident memory, 1,000 streams, x nginx", "sse", "1000 ", "", "rss_ratio", 0.4),
    ("P/D, 32 connections, x regular", "pd", "32 ", " p/d", "ratio", 2.2),
    ("P/D, 256 connections, x regular", "pd", "256 ", " p/d", "ratio", 2.2),
    ("CPU per byte, 64 KiB, x nginx", "bodies", "64 ", "", "ratio", 1.5),
    ("CPU per byte, 1 MiB, x nginx", "bodies", "1024 ", "", "ratio", 1.5),
    ("CPU per byte, 16 MiB, x nginx", "bodies", "16384 ", "", "ratio", 1.5),
    ("CPU per request, TLS, 32 connections, x nginx", "tls", "1.4 kB requests", "", "ratio", 1.3),
    ("CPU per byte, TLS, 4 MiB answers, x nginx", "tls", "4 MiB answers", "", "ratio", 1.3),
    ("CPU per byte, TLS, 1 MiB requests, x nginx", "tls", "1 MiB requests", "", "ratio", 1.3),
    ("CPU per request, https:// workers, x nginx", "tls", "https workers", "", "ratio", 1.3),
    ("KiB of user memory per stream, 5,000 held", "hold", "5000 s", "", "kib_per_stream", 40),
    ("descriptors per stream, 5,000 held", "hold", "5000 s", "", "descriptors_per_stream", 2.02),
    ("incomplete streams of 5,000", "hold", "5000 s", "", "errors", 0),
    ("KiB of user memory, 10,000 idle", "hold", "10000 i", "", "kib_per_stream", 40),
    ("lost of 10,000 idle", "hold", "10000 i", "", "errors", 0),
    *((f"simulate, Mooncake hour, {p}, CPU s", "simulate", f"hour, 8 workers, {p}", "", "cpu_s", 0.3)
      for p in ("consistent_hash", "affinity", "least_request", "round_robin")),
    ("simulate, Mooncake hour, four policies, MB", "simulate", "hour, 8 workers, four", "", "peak_mb", 60),
    ("simulate, Mooncake hour, 4P+4D, CPU s", "simulate", "hour, 4 prefill", "", "cpu_s", 0.4),
    ("simulate, 10,000,000 requests, MB", "simulate", "10,000,000", "", "peak_mb", 256),
    ("simulate, routing only, us of CPU per request", "simulate", "10,000,000", "", "us_per_request", 0.333),
    ("start to first answer, ms", "start", "", "", "first_answer_ms", 50),
    # The load generator against wrk: a rate of 0.8 x wrk's at one connection, 0.45 x at more; a p99 of at most 3 x wrk's + 1 ms.
    *((f"bench, {kind}, {n} connections, wrk's rate / its", "generator", f"{kind}, {n} c", "", "rate_behind", 1.25 if n == 1 else 2.22)
      for kind in ("json", "sse") for n in (1, 8, 16, 32, 256)),
    *((f"bench, {kind}, {n} connections, p99 - 3 x wrk's, ms", "generator", f"{kind}, {n} c", "", "p99_over_ms", 1.0)
      for kind in ("json", "sse") for n in (1, 8, 16, 32, 256)),
    *((f"bench, {kind}, 32 connections, CPU us per request", "generator", f"{kind}, 32 c", "", "cpu_us", 11) for kind in ("json", "sse")),
    ("bench, CPU us per streamed event", "generator", "2000 streams", "", "cpu_us", 5),
    ("bench, 2,000 streams, incomplete", "generator", "2000 streams", "", "errors", 0),
    ("bench, 2,000 streams, mean gap off by ms", "generator", "2000 streams", "", "gap_off_ms", 0.5),
    ("bench, schedule lag at 2,000/s, p99 us", "generator", "schedule lag", "", "p99_us", 1000),
    # Against the build before (--base).
    ("CPU per request, 32 connections, x before", "regular", "32 ", "", "before_ratio", 1.02),
    ("CPU per request, 256 connections, x before", "regular", "256 ", "", "before_ratio", 1.02),
    ("CPU per event, 1,000 streams, x before", "sse", "1000 ", "", "before_ratio", 1.02),
    ("P/D, 32 connections, x before", "pd", "32 ", " p/d", "before_ratio", 1.02),
    ("P/D, 256 connections, x before", "pd", "256 ", " p/d", "before_ratio", 1.02),
    ("resident memory, 256 connections, x before", "regular", "256 ", "", "before_memory_ratio", 1.02),
    ("resident memory, 1,000 streams, x before", "sse", "1000 ", "", "before_memory_ratio", 1.02),
    ("user memory, 5,000 streams, x before", "hold", "5000 s", "", "before_memory_ratio", 1.02),
]
# against the LLM router that is installed: name, section, case, ours, theirs, limit
PEER_GOALS = [
    ("CPU per request, 32 connections, x vllm-router", "regular", "32 ", "", "vllm-router", 0.18),
    ("P/D, 32 connections, x vllm-router", "pd", "32 ", " p/d", "vllm-router p/d", 0.16),
    ("CPU per event, 1,000 streams, x vllm-router", "sse", "1000 ", "", "vllm-router", 0.65),
]


def show(rows):
    """One table per case."""
    for case in dict.fromkeys((r["section"], r["case"]) for r in rows):
        part = [r for r in rows if (r["section"], r["case"]) == case]
        columns = [c for c in COLUMNS if any(c[2](r) for r in part)]
        print(f"\n{case[0]}: {case[1]}")
        print(line([c[0] for c in columns], columns))
        for r in part:
            print(line([c[2](r) for c in columns], columns))
    sys.stdout.flush()


def line(texts, columns):
    return "  " + "".join(f"{t:<{c[1]}}" if i == 0 else f"{t:>{c[1]}}" for i, (t, c) in enumerate(zip(texts, columns)))


def find(rows, section, case, server):
    return next((r for r in rows if r["section"] == section and r["case"].startswith(case) and r["server"] == server), None)


def verdict(goal, server, value, limit):
    return {"goal": goal, "server": server, "value": round(value, 4), "limit": limit, "met": value <= limit}


def judge(rows, binaries):
    """The goals that these rows can answer."""
    out = []
    for binary in binaries:
        for name, section, case, ours, field, limit in GOALS:
            r = find(rows, section, case, binary + ours)
            if r and r.get(field) is not None:
                out.append(verdict(name, binary, r[field], limit))
        for name, section, case, ours, theirs, limit in PEER_GOALS:
            r, peer = find(rows, section, case, binary + ours), find(rows, section, case, theirs)
            if r and peer:
                out.append(verdict(name, binary, r["cpu_us"] / peer["cpu_us"], limit))
    return out


def show_goals(verdicts):
    if verdicts:
        print(f"\n{'goal':<52}{'':<12}{'measured':>10}{'limit':>8}")
    for v in verdicts:
        print(f"{v['goal']:<52}{v['server']:<12}{v['value']:>10.2f}{v['limit']:>8g}  {'met' if v['met'] else 'MISSED'}")


def markdown(doc):
    """The goals and the main figures of a result file, as tables for a page."""
    m, out = doc["machine"], []
    peers = "; ".join(doc["versions"]["notes"])
    out.append(f"{m['cpu']}, {m['cores']} cores, {m['memory_mib'] // 1024} GiB, kernel {m['kernel']}, {m['system']}; nginx {doc['versions']['nginx']},")
    out.append(f"haproxy {doc['versions']['haproxy']}, wrk {doc['versions']['wrk']}; {peers}.")
    out.append(f"{doc['date']}, load average before {m['load_average_before']}, {doc['settings']['rounds']} rounds of {doc['settings']['seconds']:g} s.")
    out += ["", "| goal | measured | at most | |", "|---|---:|---:|---|"]
    out += [f"| {g['goal']} | {g['value']:.2f} | {g['limit']:g} | {'met' if g['met'] else '**missed**'} |" for g in doc["goals"]]
    out += ["", "| case | server | CPU us | x base | x floor | spread | p50 us | p99 us | RSS MB |", "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    shown = {title: text for title, _, text in COLUMNS}
    for r in doc["figures"]:
        if r.get("cpu_us") is not None:
            cells = [shown[c](r) for c in ("cpu us", "ratio", "x floor", "spread", "p50 us", "p99 us", "rss MB")]
            out.append(f"| {r['section']}, {r['case']} | {r['server']} | " + " | ".join(cells) + " |")
    return "\n".join(out)


HEADLINE = [
    ("CPU per request, no log, 32 connections", "regular", "32 connections", "", "cpu_us", "%.1f us"),
    ("CPU per request, no log, 256 connections", "regular", "256 connections", "", "cpu_us", "%.1f us"),
    ("CPU per request, each writes its log to a file, 32 connections", "logged", "32 connections", "", "cpu_us", "%.1f us"),
    ("CPU per prefill/decode request (two legs), 32 connections", "pd", "32 connections", " p/d", "cpu_us", "%.1f us"),
    ("CPU per event of 1,000 streams", "sse", "1000 streams", "", "cpu_us", "%.1f us"),
    ("resident memory, 32 connections", "regular", "32 connections", "", "rss_kib", "%.1f MB"),
    ("resident memory, 1,000 streams", "sse", "1000 streams", "", "rss_kib", "%.1f MB"),
]
HEADLINE_SERVERS = ["pdctl", "nginx", "haproxy", "vllm-router", "sglang-router"]


def headline(doc, name):
    """What a first page shows of a result file: each figure with its ratio to ours."""
    m, servers = doc["machine"], [s for s in HEADLINE_SERVERS if any(r["server"] == s for r in doc["figures"])]
    out = ["| | " + " | ".join(servers) + " |", "|---|" + "---:|" * len(servers)]
    for title, section, case, suffix, field, form in HEADLINE:
        values = [find(doc["figures"], section, case, s + suffix) for s in servers]
        values = [r.get(field) if r else None for r in values]
        if values[0] is None:
            continue
        values = [v / 1024 if v is not None and field.endswith("_kib") else v for v in values]
        cells = [form % values[0], *("" if v is None else f"{form % v} ({v / values[0]:.1f} x)" for v in values[1:])]
        out.append(f"| {title} | " + " | ".join(cells) + " |")
    rounds = f"medians of {doc['settings']['rounds']} rounds of {doc['settings']['seconds']:g} s"
    out += ["", f"`{name}`: {m['cpu']}, {m['cores']} cores, {m['system']}; {rounds}; load average before {m['load_average_before']}.", ""]
    return "\n".join(out)
