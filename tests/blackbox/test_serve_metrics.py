"""The form of the metrics page, read by a parser of our own. What moves it: test_metrics_page.py."""

import re

from fake_engine import FakeEngine
from test_serve_clients import BODY, ok

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (-?[0-9.eE+]+|\+Inf|NaN)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"')


def parse_page(text):
    """A strict reading of the text format: {family: (type, [(name, labels, value)])}; asserts on what promtool complains about."""
    families, current = {}, None
    seen = set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split(" ", 3)[2]
            assert NAME.fullmatch(current) and current not in families, line
            assert len(line.split(" ", 3)) == 4 and line.split(" ", 3)[3].strip(), f"no help: {line}"
            families[current] = [None, []]
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current and families[name][0] is None and not families[name][1], line
            families[name][0] = kind
            continue
        m = SAMPLE.fullmatch(line)
        assert m, f"not a sample: {line!r}"
        name, labels, value = m.group(1), tuple(LABEL.findall(m.group(2) or "")), float(m.group(3))
        kind = families[current][0]
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        assert name in {current + s for s in suffixes}, (line, current)
        assert (name, labels) not in seen, f"twice: {line}"
        assert len({k for k, _ in labels}) == len(labels), line
        seen.add((name, labels))
        families[current][1].append((name, dict(labels), value))
    for name, (kind, samples) in families.items():
        assert kind in ("counter", "gauge", "histogram"), name
        assert kind != "counter" or name.endswith("_total"), name
        assert kind == "counter" or not name.endswith("_total"), name
        if kind == "histogram":
            check_histogram(name, samples)
    return families


def check_histogram(name, samples):
    """Each series of its own: buckets in order, cumulative, +Inf equal to _count, one _sum."""
    series = {}
    for n, labels, v in samples:
        key = tuple(sorted((k, w) for k, w in labels.items() if k != "le"))
        series.setdefault(key, []).append((n, labels.get("le"), v))
    assert series, name
    for key, rows in series.items():
        buckets = [(le, v) for n, le, v in rows if n == name + "_bucket"]
        assert buckets and buckets[-1][0] == "+Inf", (name, key)
        bounds = [float(le) for le, _ in buckets[:-1]]
        assert bounds == sorted(set(bounds)), (name, key)
        counts = [v for _, v in buckets]
        assert counts == sorted(counts), f"{name} {key}: cumulative"
        assert [v for n, _, v in rows if n == name + "_count"] == [counts[-1]], (name, key)
        assert len([1 for n, _, v in rows if n == name + "_sum" and v >= 0]) == 1, (name, key)


def page(router):
    return parse_page(router.get("/metrics")[2].decode())


def test_page_is_well_formed_with_odd_worker_names(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", f'we"ird\\name={engine.url}/a"b\\c', engine.url)
        router.post("/v1/completions", BODY)
        families = page(router)
        labels = [labels for _, samples in families.values() for _, labels, _ in samples]
        assert any(x.get("worker", "").endswith('/a\\"b\\\\c') for x in labels)
        status, headers, raw = router.admin("GET", "/metrics")
        assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert parse_page(raw.decode()).keys() == families.keys()


def refused(s):
    s.setblocking(False)
    try:
        return b" 503 " in s.recv(1000)
    except OSError:
        return False
