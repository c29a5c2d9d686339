"""W3C trace contexts: what reaches the workers, byte for byte, and what the logs say."""

import json
import re

import pytest

from fake_engine import FakeEngine
from harness import wait_for
from test_pd_faults import FAST
from test_serve_bytes import pd_pair, reply_completion, reply_prefill
from test_serve_clients import BODY, ok

ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{ID}-{PARENT}-01"
ROUTE = "/v1/completions"


def ask(router, fields, path=ROUTE):
    """A request with exactly these header lines."""
    raw = json.dumps(BODY).encode()
    head = "".join(f"{n}: {v}\r\n" for n, v in fields)
    with router.connect() as s:
        s.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n{head}\r\n".encode() + raw)
        assert b" 200 " in s.recv(65536)


def traces(seen):
    return [(n, v) for n, v in seen.headers if n.lower() in ("traceparent", "tracestate")]


@pytest.mark.parametrize("flag", [(), ("--generate-traceparent",)])
@pytest.mark.parametrize("value", [GOOD, f"00-{ID}-{PARENT}-00", f"00-{ID}-{PARENT}-ff", f"cc-{ID}-{PARENT}-01", f"cc-{ID}-{PARENT}-01-what-comes-later"])
def test_a_valid_context_passes_unchanged(pdctl, value, flag):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--log-level", "debug", *flag)
        fields = [("TraceParent", value), ("tracestate", "a=1,b=2"), ("TRACESTATE", "c=3")]
        ask(router, fields)
        assert traces(engine.seen[0]) == fields
        assert router.metric('pdctl_traceparent_total{result="passed"}') == 1
        wait_for("the summary", lambda: f" trace_id={ID}" in router.log())
        decision = next(json.loads(x) for x in router.said("Scoring decision").splitlines() if "Scoring decision" in x)
        assert decision["trace_id"] == ID


BAD = {
    "empty": "", "upper case": GOOD.upper(), "short": GOOD[:-1], "long": GOOD + "0", "longer": GOOD + "-00", "version ff": "ff" + GOOD[2:],
    "version": "0g" + GOOD[2:], "zero trace": f"00-{'0' * 32}-{PARENT}-01", "zero parent": f"00-{ID}-{'0' * 16}-01", "no hex": f"00-{ID[:-1]}g-{PARENT}-01",
    "dashes": GOOD.replace("-", "_"), "later version without a dash": "cc" + GOOD[2:] + "x", "flags": GOOD[:-2] + "0G", "text": "hello",
}


@pytest.mark.parametrize("flag", [(), ("--generate-traceparent",)])
def test_a_malformed_context_goes_no_further(pdctl, flag):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *flag)
        cases = [[("traceparent", v), ("tracestate", "a=1")] for v in BAD.values()]
        cases.append([("traceparent", GOOD), ("traceparent", GOOD), ("tracestate", "a=1")])
        for fields in cases:
            ask(router, fields)
            got = traces(engine.seen[-1])
            if not flag:
                assert got == [], fields
            else:
                assert [n for n, _ in got] == ["traceparent"] and ID not in got[0][1] and valid(got[0][1]), fields
        assert router.metric('pdctl_traceparent_total{result="invalid"}') == len(cases)
        assert ID not in router.log()


def valid(value):
    m = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", value)
    return m and set(m[1]) != {"0"} and set(m[2]) != {"0"}


def test_a_lone_tracestate_says_nothing(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        ask(router, [("tracestate", "a=1")])
        assert traces(engine.seen[0]) == []


def test_a_context_of_ours(pdctl, tmp_path):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--generate-traceparent", "--access-log", tmp_path / "log")
        for _ in range(20):
            ask(router, [("tracestate", "a=1")])
        values = [traces(s) for s in engine.seen]
        assert all(len(v) == 1 and v[0][0] == "traceparent" and valid(v[0][1]) for v in values)
        ids = [v[0][1].split("-")[1] for v in values]
        assert len(set(ids)) == 20
        wait_for("the lines", lambda: sorted(re.findall(r"trace_id=([0-9a-f]+)", (tmp_path / "log").read_text())) == sorted(ids))
        wait_for("the summaries", lambda: sorted(re.findall(r"request .* trace_id=([0-9a-f]+)", router.log())) == sorted(ids))


@pytest.mark.parametrize("flag", [(), ("--generate-traceparent",)])
def test_both_legs_of_a_request_are_one_trace(pdctl, flag):
    def once(seen, wire):
        """The first decode fails: another prefill and decode follow, of the same trace."""
        wire.json({}, 503) if len(d1.seen) + len(d2.seen) == 1 else reply_completion(seen, wire)

    with FakeEngine(reply_prefill) as p, FakeEngine(once) as d1, FakeEngine(once) as d2:
        router = pd_pair(pdctl, p, d1, "--decode", d2.url, *FAST, *flag)
        ask(router, [] if flag else [("traceparent", GOOD), ("tracestate", "a=1")])
        legs = p.seen + d1.seen + d2.seen
        assert len(legs) == 4
        assert all(traces(s) == traces(legs[0]) for s in legs) and traces(legs[0])
        if not flag:
            assert traces(legs[0]) == [("traceparent", GOOD), ("tracestate", "a=1")]
