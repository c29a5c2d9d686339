"""Each family of the metrics page moves as docs/metrics.md says.

The list is what `pdctl serve --list-metrics` prints. A test claims families with @moves(...) and must look at each of them with
`page.delta`, `page.value` or `page.gone_up`; a family that no test claims fails test_every_family_has_a_test.
"""

import contextlib
import functools
import http.client
import inspect
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time

import pytest

import certs
import harness
from fake_engine import FakeEngine
from fake_kube import FakeKube
from harness import free_port, wait_for
from test_keys import Authority
from test_kv_events import Engine, stored
from test_pd_faults import FAST, router_of, send_and_keep
from test_serve_bytes import COMPLETION, pd_pair, reply_completion, reply_prefill
from test_serve_clients import BODY, Watcher, message, ok
from test_serve_limits import limited
from test_serve_metrics import parse_page, refused
from test_spans import Collector

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STREAM = {**BODY, "stream": True}
ROUTE = "/v1/completions"
QUICK = ("--retry-initial-backoff-ms", 1, "--health-check-interval-secs", 300)

# What no test can cause, with the reason.
CANNOT = {"pdctl_fiber_failures_total": "needs a system out of memory"}
CLAIMED = {}


class Page:
    """The metrics page of a router at one moment."""

    looked = set()

    def __init__(self, router, path="/metrics"):
        text = router.get(path)[2].decode()
        self.families = parse_page(text)

    def value(self, family, **labels):
        """Sum over the samples with these labels; of a histogram its count."""
        kind, samples = self.families[family]
        Page.looked.add(family)
        name = family + ("_count" if kind == "histogram" else "")
        found = [v for n, has, v in samples if n == name and all(has.get(k) == w for k, w in labels.items())]
        assert found, f"{family} has no sample with {labels}"
        return sum(found)

    def seconds(self, family, **labels):
        """The sum of a histogram."""
        return sum(v for n, has, v in self.families[family][1] if n == family + "_sum" and all(has.get(k) == w for k, w in labels.items()))


class Change:
    """What moved on a router's page since the last look."""

    def __init__(self, router):
        self.router = router
        self.before = Page(router)

    def wait(self, family, by, **labels):
        """Waits until the family has moved by exactly this much: some things are counted just after the answer."""
        wanted = self.before.value(family, **labels) + by
        got = []

        def there():
            got[:] = [Page(self.router).value(family, **labels)]
            return got[0] == wanted

        try:
            wait_for(f"{family}{labels} to move by {by}", there)
        except AssertionError:
            raise AssertionError(f"{family}{labels} is {got[0]:g}, expected {wanted:g}") from None

    def expect(self, *rows):
        """Rows (family, by, {labels})."""
        for family, by, *labels in rows:
            self.wait(family, by, **(labels[0] if labels else {}))


def moves(*families):
    def wrap(test):
        for family in families:
            CLAIMED.setdefault(family, []).append(test.__name__)

        @functools.wraps(test)
        def run(*args, **kw):
            Page.looked = set()
            test(*args, **kw)
            assert set(families) <= Page.looked, f"claimed and not looked at: {sorted(set(families) - Page.looked)}"

        run.__signature__ = inspect.signature(test)
        return run

    return wrap


@functools.lru_cache
def listed():
    """{family: (type, {labels})} of `pdctl serve --list-metrics`."""
    out = {}
    for line in harness.run("serve", "--list-metrics").stdout.splitlines():
        row = re.fullmatch(r"\| `([a-z_]+)` \| (counter|gauge|histogram) \| ([a-z_, ]*) \| (.+) \| (.+) \|", line)
        if row:
            assert row[1] not in out, f"{row[1]} stands twice"
            out[row[1]] = (row[2], {x.strip() for x in row[3].split(",") if x.strip()})
    assert len(out) > 60
    return out


def engine_saying(mode):
    """An engine that does what mode["now"] says."""

    def says(seen, wire):
        now = mode.get(seen.target, mode["now"])
        if isinstance(now, int):
            return wire.json({"error": {"message": "no"}}, now)
        if callable(now):
            return now(seen, wire)
        if now in ("events", "cut"):
            wire.begin_stream()
            for i in range(3):
                wire.event(str(i))
                time.sleep(0.03)
            if now == "events":
                wire.end_stream()
        else:
            ok(seen, wire)
        wire.keep = now not in ("close", "cut")

    return FakeEngine(says)


def label(url, name=None, stage="regular"):
    return {"worker": url, "stage": stage, **({"name": name} if name else {})}


# -- the page and the document --


def test_the_document_is_what_the_program_prints():
    page = ROOT / "docs" / "metrics.md"
    fresh = harness.run("serve", "--list-metrics").stdout
    if os.environ.get("DOCS_UPDATE"):
        page.write_text(fresh)
    assert page.read_text() == fresh, "docs/metrics.md is not what pdctl serve --list-metrics prints; run with DOCS_UPDATE=1"


# What vllm-router 0.1.17 declares, without the prefix.
DECLARED = """
requests_total{route} request_duration_seconds{route} request_errors_total{route,error_type} retries_total{route} retries_exhausted_total{route}
retry_backoff_duration_seconds{attempt} cb_state{worker} cb_state_transitions_total{worker,from,to} cb_outcomes_total{worker,outcome} active_workers
worker_health{worker} worker_load{worker} tree_size{worker} processed_requests_total{worker} policy_decisions_total{policy,worker} cache_hits_total
cache_misses_total load_balancing_events_total max_load min_load running_requests{worker} generate_duration_seconds
prefix_routing_decisions_total{policy,stage,outcome} kv_placement_lookups_total{result} kv_routing_inputs_total{transport,result} pd_requests_total{route}
pd_request_duration_seconds{route} pd_prefill_requests_total{worker} pd_decode_requests_total{worker} pd_prefill_errors_total{worker}
pd_decode_errors_total{worker} pd_errors_total{error_type} pd_stream_errors_total{worker} pd_prefill_occupancy{worker,rank}
pd_active_prefill_tokens{worker,rank} pd_unknown_prefill_requests{worker,rank} pd_pending_decode_requests{worker,rank}
pd_active_decode_requests{worker,rank} pd_decode_pending_seconds pd_prefill_decisions_total{fallback} pd_new_prefill_tokens
pd_credited_prefix_tokens_total pd_kv_prepare_seconds pd_identity_verified{worker} pd_affinity_decisions_total{stage,outcome}
pd_body_over_limit_total{stage} discovery_updates_total discovery_workers_added discovery_workers_removed embeddings_total embeddings_duration_seconds
embeddings_errors_total{error_type} embeddings_queue_size
"""


def test_each_name_of_vllm_router_is_there_with_its_labels_or_the_page_says_why_not():
    text = (ROOT / "docs" / "metrics.md").read_text()
    absent = set(re.findall(r"`vllm_router_([a-z_]+)`", text[text.index("## Names of vllm-router that are not there") :]))
    workers = worker_families()
    declared = set()
    for word in DECLARED.split():
        name, labels = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})?", word).groups()
        declared.add(name)
        family = f"vllm_router_{name}"
        assert (family in listed()) != (name in absent), f"{family}: either there or explained"
        if family in listed():
            assert set((labels or "").split(",")) - {""} <= listed()[family][1] | ({"worker", "stage", "name"} if family in workers else set()), family
    assert absent <= declared
    assert {n for n in listed() if n.startswith("vllm_router_")} <= {f"vllm_router_{n}" for n in declared}


def test_every_family_has_a_test():
    families = set(listed())
    assert families - set(CLAIMED) - set(CANNOT) == set(), "documented, and no test makes it move"
    assert set(CLAIMED) - families == set(), "claimed, and not documented"
    assert set(CANNOT) <= families


@pytest.mark.parametrize("pd", [False, True])
def test_the_page_has_what_is_documented_and_nothing_else(pdctl, pd):
    with FakeEngine(ok) as engine:
        where = ("--pd-disaggregation", "--prefill", f"p={engine.url}@1", "--decode", engine.url) if pd else ("--worker-urls", engine.url)
        families = Page(pdctl("serve", *where)).families
        own = {"worker", "stage", "name", "le"}
        assert {n: k for n, (k, _) in families.items()} == {n: k for n, (k, _) in listed().items()}
        for name, (_, samples) in families.items():
            for _, labels, _ in samples:
                assert set(labels) - own == listed()[name][1] - own, name
        workers = [samples for name, (_, samples) in families.items() if name == "vllm_router_pd_prefill_occupancy"][0]
        assert [x[1].get("rank") for x in workers] == (["1"] if pd else [])


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed: scripts/install-deps test")
@pytest.mark.parametrize("pd", [False, True])
def test_promtool_has_no_complaint(pdctl, pd):
    with FakeEngine(ok) as engine:
        odd = f'we"ird\\name={engine.url}/a"b\\c'
        where = ("--pd-disaggregation", "--prefill", odd, "--decode", engine.url) if pd else ("--worker-urls", odd, engine.url, f"twin={engine.url}/twin")
        router = pdctl("serve", *where)
        router.post(ROUTE, BODY)
        status, headers, raw = router.get("/metrics")
        assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        done = subprocess.run(["promtool", "check", "metrics"], input=raw, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed: scripts/install-deps test")
def test_promtool_would_complain(pdctl):
    """The check above is worth something: a page with a broken name or a counter without _total fails."""
    bad = b"# HELP a_b counts\n# TYPE a_b counter\na_b 1\n"
    assert subprocess.run(["promtool", "check", "metrics"], input=bad, capture_output=True).returncode != 0


QUERIES = re.findall(r"```promql\n(.*?)```", (ROOT / "docs" / "watching.md").read_text(), re.S)


def test_queries_of_the_document_name_what_there_is():
    assert len(QUERIES) >= 8
    for query in QUERIES:
        known = {"le", "instance", "job"}
        for name in re.findall(r"\b((?:pdctl|vllm_router|process)_[a-z_]+)", query):
            family = name if name in listed() else re.sub(r"_(bucket|sum|count)$", "", name)
            kind, labels = listed()[family]
            assert (family == name) == (kind != "histogram"), query
            known |= labels | ({"worker", "stage", "name"} if family in worker_families() else set())
        for by in re.findall(r"(?:by|ignoring) \(([^)]*)\)", query):
            assert {x.strip() for x in by.split(",")} <= known, query


@functools.lru_cache
def worker_families():
    text = harness.run("serve", "--list-metrics").stdout
    part = text[text.index("## Workers") : text.index("## Pools")]
    return set(re.findall(r"^\| `([a-z_]+)`", part, re.M))


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed: scripts/install-deps test")
def test_queries_of_the_document_parse(tmp_path):
    rules = tmp_path / "rules.yaml"
    rows = [{"record": f"q{i}", "expr": q} for i, q in enumerate(QUERIES)]
    rules.write_text(json.dumps({"groups": [{"name": "g", "rules": rows}]}))
    done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# -- traffic --


@moves(
    "pdctl_requests_received_total", "vllm_router_requests_total", "pdctl_responses_total", "vllm_router_request_errors_total",
    "vllm_router_request_duration_seconds", "vllm_router_generate_duration_seconds", "pdctl_time_to_first_token_seconds",
    "pdctl_inter_event_seconds", "pdctl_queue_wait_seconds", "pdctl_decision_seconds", "pdctl_leg_first_byte_seconds",
    "pdctl_events_relayed_total", "pdctl_bytes_relayed_total", "pdctl_bytes_received_total", "pdctl_keyless_requests_total",
    "pdctl_decisions_total", "vllm_router_processed_requests_total", "vllm_router_policy_decisions_total",
    "pdctl_upstream_connects_total", "pdctl_upstream_reused_total", "pdctl_upstream_idle", "vllm_router_cb_outcomes_total",
    "pdctl_upstream_connect_seconds",
)
def test_plain_traffic(pdctl):
    mode = {"now": "ok"}
    with engine_saying(mode) as engine:
        router = pdctl("serve", "--worker-urls", f"w={engine.url}", "--policy", "consistent_hash", *QUICK, "--pool-idle-timeout-secs", 100)
        w, change = label(engine.url, "w"), Change(router)
        raw = json.dumps(BODY).encode()
        assert router.post(ROUTE, BODY)[0] == 200
        change.expect(
            ("pdctl_upstream_connects_total", 1, w), ("pdctl_upstream_reused_total", 0, w), ("pdctl_upstream_idle", 1, w),
            ("pdctl_keyless_requests_total", 1, {"route": ROUTE}), ("pdctl_decisions_total", 1, {"stage": "regular", "reason": "no_key"}),
        )
        status, _, body = router.post(ROUTE, BODY, {"X-Session-Id": "s"})
        assert status == 200
        change.expect(
            ("pdctl_requests_received_total", 2, {"route": ROUTE}), ("vllm_router_requests_total", 2, {"route": ROUTE}),
            ("vllm_router_requests_total", 2), ("pdctl_responses_total", 2, {"route": ROUTE, "code": "2xx"}), ("pdctl_responses_total", 2),
            ("vllm_router_request_errors_total", 0), ("pdctl_upstream_connects_total", 1, w), ("pdctl_upstream_reused_total", 1, w),
            ("pdctl_upstream_idle", 1, w), ("pdctl_keyless_requests_total", 1), ("pdctl_decisions_total", 1, {"reason": "key"}),
            ("pdctl_decisions_total", 2), ("vllm_router_processed_requests_total", 2, w),
            ("vllm_router_policy_decisions_total", 2, {**w, "policy": "consistent_hash"}),
            ("pdctl_bytes_received_total", 2 * len(raw), {"route": ROUTE}), ("pdctl_bytes_relayed_total", 2 * len(body), {"route": ROUTE}),
            ("vllm_router_request_duration_seconds", 2, {"route": ROUTE}), ("vllm_router_generate_duration_seconds", 2),
            ("pdctl_time_to_first_token_seconds", 0), ("pdctl_inter_event_seconds", 0), ("pdctl_queue_wait_seconds", 2),
            ("pdctl_upstream_connect_seconds", 1, {"stage": "regular"}),
            ("pdctl_decision_seconds", 2), ("pdctl_leg_first_byte_seconds", 2, {"stage": "regular"}), ("pdctl_events_relayed_total", 0),
            ("vllm_router_cb_outcomes_total", 2, {**w, "outcome": "success"}), ("vllm_router_cb_outcomes_total", 0, {**w, "outcome": "failure"}),
        )
        change, mode["now"] = Change(router), "events"
        assert router.post("/v1/chat/completions", STREAM)[0] == 200
        change.expect(
            ("pdctl_requests_received_total", 1, {"route": "/v1/chat/completions"}), ("pdctl_events_relayed_total", 3, {"route": "/v1/chat/completions"}),
            ("vllm_router_request_duration_seconds", 1, {"route": "/v1/chat/completions"}), ("pdctl_inter_event_seconds", 2, {"stage": "regular"}),
            ("pdctl_time_to_first_token_seconds", 1, {"stage": "regular"}), ("vllm_router_generate_duration_seconds", 1),
        )
        now = Page(router)
        whole = now.seconds("vllm_router_request_duration_seconds", route="/v1/chat/completions")
        assert 0.09 <= whole < 60 and 0.04 <= now.seconds("pdctl_inter_event_seconds") <= whole
        assert now.seconds("vllm_router_generate_duration_seconds") < now.seconds("vllm_router_request_duration_seconds") - 0.05, "a stream counts to its head"
        change, mode["now"] = Change(router), 404
        assert router.post("/files", BODY)[0] == 404
        change.expect(
            ("vllm_router_requests_total", 0), ("pdctl_responses_total", 1, {"route": "other", "code": "4xx"}),
            ("vllm_router_request_errors_total", 1, {"route": "other", "error_type": "non_retryable_error"}), ("vllm_router_request_errors_total", 1),
            ("vllm_router_generate_duration_seconds", 0), ("vllm_router_request_duration_seconds", 1, {"route": "other"}),
            ("vllm_router_cb_outcomes_total", 1, {"outcome": "success"}),
        )


@moves("vllm_router_embeddings_total", "vllm_router_embeddings_duration_seconds", "vllm_router_embeddings_errors_total")
def test_embeddings(pdctl):
    mode = {"now": "ok"}
    with engine_saying(mode) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *QUICK)
        change = Change(router)
        for mode["now"], times in (("ok", 2), (400, 1), (418, 3)):
            for _ in range(times):
                router.post("/v1/embeddings", BODY)
        change.expect(
            ("vllm_router_embeddings_total", 2), ("vllm_router_embeddings_errors_total", 1, {"error_type": "http_400"}),
            ("vllm_router_embeddings_errors_total", 3, {"error_type": "http_other"}), ("vllm_router_embeddings_errors_total", 4),
            ("vllm_router_embeddings_duration_seconds", 6),
        )


@moves("pdctl_event_loops")
def test_threads_are_those_asked_for(pdctl):
    with FakeEngine(ok) as engine:
        for threads in (1, 3):
            router = pdctl("serve", "--worker-urls", engine.url, "--threads", threads, *QUICK)
            assert router.post("/v1/completions", BODY)[0] == 200
            assert Page(router).value("pdctl_event_loops") == threads


@moves(
    "pdctl_requests_in_work", "vllm_router_running_requests", "vllm_router_worker_load", "pdctl_connections", "pdctl_connections_peak",
    "pdctl_connections_accepted_total", "pdctl_client_left_total", "pdctl_fibers", "pdctl_fibers_idle",
)
def test_what_runs_now(pdctl):
    watchers = [Watcher("stream"), Watcher("stream")]
    turn = iter(watchers)
    with FakeEngine(lambda seen, wire: next(turn)(seen, wire)) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *QUICK)
        w, change, held = label(engine.url), Change(router), []
        threads = Page(router).value("pdctl_fibers")
        for i, watcher in enumerate(watchers, 1):
            held.append(router.connect())
            held[-1].sendall(message(STREAM))
            assert watcher.started.wait(10)
            change.expect(
                ("pdctl_requests_in_work", i), ("vllm_router_running_requests", i, w), ("vllm_router_worker_load", i, w), ("pdctl_connections", i),
                ("pdctl_client_left_total", 0),
            )
        running = Page(router)
        assert running.value("pdctl_connections_peak") >= 2 and running.value("pdctl_fibers") >= threads
        assert running.value("pdctl_fibers_idle") <= running.value("pdctl_fibers")
        for i, s in enumerate(held, 1):
            s.close()
            change.expect(("pdctl_requests_in_work", 2 - i), ("vllm_router_running_requests", 2 - i, w), ("pdctl_client_left_total", i, {"route": ROUTE}))
        change.expect(("pdctl_connections", 0), ("vllm_router_worker_load", 0, w))
        assert Page(router).value("pdctl_connections_accepted_total") - change.before.value("pdctl_connections_accepted_total") >= 2
        assert Page(router).value("vllm_router_request_errors_total") == 0, "a client that leaves is no error"


@moves(
    "pdctl_tls_handshakes_total", "pdctl_tls_resumed_total", "pdctl_tls_handshake_failures_total",
    "pdctl_tls_certificate_expiry_timestamp_seconds",
)
def test_tls(pdctl, tmp_path):
    ca = certs.Authority(tmp_path, "CA")
    pair = ca.issue("a", "DNS:localhost,IP:127.0.0.1")
    cert, key = str(tmp_path / "live.pem"), str(tmp_path / "live.key")
    pair.copy_to(cert, key)
    context = ca.client()

    def liveness(session=None):
        with context.wrap_socket(router.connect(), server_hostname="localhost", session=session) as s:
            s.sendall(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in s.recv(65536)
            return s.session

    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--tls-cert", cert, "--tls-key", key, "--admin-on-data-port", *QUICK)
        router.context = context
        change = Change(router)
        liveness(liveness())
        change.wait("pdctl_tls_resumed_total", 1)
        assert (Page(router).value("pdctl_tls_handshakes_total") - change.before.value("pdctl_tls_handshakes_total")) >= 2
        with router.connect() as s:
            s.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"HTTPS" in s.recv(65536)
        change.wait("pdctl_tls_handshake_failures_total", 1)
        ca.issue("b", "DNS:localhost,IP:127.0.0.1", end=10).copy_to(cert, key)
        assert router.post("/reload", b"")[0] == 200
        assert abs((Page(router).value("pdctl_tls_certificate_expiry_timestamp_seconds") - change.before.value("pdctl_tls_certificate_expiry_timestamp_seconds")) + 10 * 86400) < 60


# -- failures --


@moves(
    "vllm_router_retries_total", "pdctl_retries_by_cause_total", "pdctl_leg_failures_total", "vllm_router_retry_backoff_duration_seconds",
    "pdctl_failover_picks_total", "pdctl_worker_errors_total", "vllm_router_retries_exhausted_total", "vllm_router_request_errors_total",
)
def test_retries(pdctl):
    mode, other = {"now": 500}, {"now": "ok"}
    with engine_saying(mode) as bad, engine_saying(other) as good:
        router = pdctl("serve", "--worker-urls", bad.url, good.url, *QUICK, "--retry-max-retries", 3, "--cb-failure-threshold", 1000)
        names = [f"s{i}" for i in range(40)]
        change, first = Change(router), 0
        for name in names:
            before = len(bad.seen)
            assert router.post(ROUTE, BODY, {"X-Session-Id": name})[0] == 200
            first += len(bad.seen) - before
        assert 5 < first < 40
        change.expect(
            ("vllm_router_retries_total", first, {"route": ROUTE}), ("pdctl_retries_by_cause_total", first, {"cause": "status"}),
            ("pdctl_retries_by_cause_total", first), ("pdctl_leg_failures_total", first, {"stage": "regular", "cause": "status"}),
            ("vllm_router_retry_backoff_duration_seconds", first, {"attempt": "1"}), ("vllm_router_retry_backoff_duration_seconds", first),
            ("pdctl_failover_picks_total", first, {"route": ROUTE}), ("pdctl_worker_errors_total", first, label(bad.url)),
            ("pdctl_worker_errors_total", 0, label(good.url)), ("vllm_router_retries_exhausted_total", 0), ("vllm_router_request_errors_total", 0),
        )
        change, other["now"] = Change(router), 503
        assert router.post(ROUTE, BODY)[0] in (500, 503)
        change.expect(
            ("vllm_router_retries_total", 1), ("vllm_router_retries_exhausted_total", 1, {"route": ROUTE}),
            ("vllm_router_request_errors_total", 1, {"route": ROUTE, "error_type": "backend_error"}), ("vllm_router_request_errors_total", 1),
            ("vllm_router_retry_backoff_duration_seconds", 1, {"attempt": "1"}), ("pdctl_leg_failures_total", 2, {"cause": "status"}),
        )


@moves("pdctl_retry_budget", "pdctl_retry_budget_exhausted_total")
def test_the_retry_budget(pdctl):
    with engine_saying({"now": 500}) as one, engine_saying({"now": 500}) as two:
        router = pdctl("serve", "--worker-urls", one.url, two.url, "--retry-initial-backoff-ms", 0, "--retry-max-retries", 100, "--retry-budget", 0, "--disable-circuit-breaker")
        change = Change(router)
        assert change.before.value("pdctl_retry_budget") == 100
        for _ in range(100):
            router.post(ROUTE, BODY)
        change.expect(("pdctl_retry_budget", -100), ("pdctl_retry_budget_exhausted_total", 0))
        router.post(ROUTE, BODY)
        change.expect(("pdctl_retry_budget", -100), ("pdctl_retry_budget_exhausted_total", 1, {"route": ROUTE}))


@pytest.mark.parametrize("cause", ["closed", "timeout", "broken"])
@moves("pdctl_leg_failures_total")
def test_causes(pdctl, cause):
    hold = threading.Event()

    def bad(seen, wire):
        if cause == "timeout":
            hold.wait(20)
        elif cause == "broken":
            wire.raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")
        wire.keep = False

    with FakeEngine(bad) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *QUICK, "--first-byte-timeout-secs", 0.2, "--disable-retries", "--request-timeout-secs", 30)
        change = Change(router)
        assert router.post(ROUTE, STREAM)[0] in (502, 504)
        change.expect(("pdctl_leg_failures_total", 1, {"stage": "regular", "cause": cause}), ("pdctl_leg_failures_total", 1))
        hold.set()


@moves(
    "pdctl_upstream_connect_failures_total", "pdctl_worker_ejections_total", "vllm_router_worker_health", "vllm_router_active_workers",
    "pdctl_pool_workers", "pdctl_no_worker_total", "pdctl_health_checks_total", "vllm_router_request_errors_total", "pdctl_retries_by_cause_total",
)
def test_a_dead_worker(pdctl):
    worker = pdctl.worker()
    port = worker.port
    router = pdctl("serve", "--worker-urls", worker.url, "--retry-initial-backoff-ms", 1, "--retry-max-retries", 2, "--health-check-interval-secs", 300)
    w = label(worker.url)
    wait_for("the first check", lambda: Page(router).value("pdctl_health_checks_total", result="ok", **w) == 1)
    change = Change(router)
    assert change.before.value("vllm_router_worker_health", **w) == 1
    worker.kill()
    assert router.post(ROUTE, BODY)[0] in (502, 503)
    change.expect(
        ("vllm_router_worker_health", -1, w), ("vllm_router_active_workers", -1), ("pdctl_worker_ejections_total", 1, w),
        ("pdctl_pool_workers", 1, {"stage": "regular", "state": "ejected"}), ("pdctl_pool_workers", -1, {"stage": "regular", "state": "available"}),
        ("pdctl_upstream_connect_failures_total", 1, w), ("pdctl_no_worker_total", 1, {"route": ROUTE}),
        ("vllm_router_request_errors_total", 1, {"route": ROUTE, "error_type": "no_available_workers"}),
        ("pdctl_retries_by_cause_total", 1, {"cause": "connect"}),
    )
    wait_for("failed checks", lambda: Page(router).value("pdctl_health_checks_total", result="failed", **w) >= 1)
    pdctl.worker(port=port)
    change.expect(("vllm_router_worker_health", 0, w), ("vllm_router_active_workers", 0))
    wait_for("a good check", lambda: Page(router).value("pdctl_health_checks_total", result="ok", **w) >= 2)


@moves("vllm_router_cb_state", "vllm_router_cb_state_transitions_total", "vllm_router_cb_outcomes_total", "vllm_router_worker_health", "pdctl_pool_workers")
def test_the_breaker(pdctl):
    mode = {"now": 500}
    with engine_saying(mode) as engine:
        router = pdctl(
            "serve", "--worker-urls", engine.url, *QUICK, "--disable-retries", "--cb-failure-threshold", 2, "--cb-success-threshold", 1,
            "--cb-timeout-duration-secs", 0.5, "--panic-threshold", 0,
        )
        w, change = label(engine.url), Change(router)
        for _ in range(2):
            assert router.post(ROUTE, BODY)[0] == 500
        moved = lambda a, b: {**w, "from": a, "to": b}
        change.expect(
            ("vllm_router_cb_state_transitions_total", 1, moved("closed", "open")), ("vllm_router_cb_outcomes_total", 2, {**w, "outcome": "failure"}),
            ("vllm_router_worker_health", -1, w),
        )
        change.expect(("vllm_router_cb_state", 2, w), ("pdctl_pool_workers", 1, {"state": "half_open"}))  # 1 first, but that may be over already
        change.expect(("vllm_router_cb_state_transitions_total", 1, moved("open", "half_open")))
        assert router.post(ROUTE, BODY)[0] == 500
        change.expect(("vllm_router_cb_state_transitions_total", 1, moved("half_open", "open")), ("vllm_router_cb_state_transitions_total", 2, moved("open", "half_open")))
        mode["now"] = "ok"
        assert router.post(ROUTE, BODY)[0] == 200
        change.expect(
            ("vllm_router_cb_state_transitions_total", 1, moved("half_open", "closed")), ("vllm_router_cb_state", 0, w), ("vllm_router_worker_health", 0, w),
            ("vllm_router_cb_outcomes_total", 1, {**w, "outcome": "success"}), ("pdctl_pool_workers", 0, {"state": "half_open"}),
        )


@moves("vllm_router_cb_state", "pdctl_pool_workers")
def test_an_open_breaker(pdctl):
    with engine_saying({"now": 500}) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *QUICK, "--disable-retries", "--cb-failure-threshold", 1)
        change = Change(router)
        router.post(ROUTE, BODY)
        change.expect(("vllm_router_cb_state", 1, label(engine.url)), ("pdctl_pool_workers", 1, {"state": "open"}))


@moves("pdctl_pool_panic", "pdctl_pool_panics_total", "vllm_router_worker_health")
def test_a_panic(pdctl):
    mode = {"now": 500}
    with engine_saying(mode) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *QUICK, "--cb-failure-threshold", 1, "--cb-success-threshold", 1)
        change = Change(router)
        assert router.post(ROUTE, BODY)[0] == 500
        change.expect(
            ("pdctl_pool_panic", 1, {"stage": "regular"}), ("pdctl_pool_panics_total", 1, {"stage": "regular"}), ("vllm_router_worker_health", 0, label(engine.url)),
        )
        mode["now"] = "ok"
        assert router.post(ROUTE, BODY)[0] == 200
        change.expect(("pdctl_pool_panic", 0, {"stage": "regular"}), ("pdctl_pool_panics_total", 1, {"stage": "regular"}))


@moves("pdctl_worker_refusals_total", "pdctl_worker_errors_total", "vllm_router_cb_outcomes_total")
def test_refusals(pdctl):
    mode = {"now": 503}
    with engine_saying(mode) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *QUICK)
        w, change = label(engine.url), Change(router)
        for mode["now"] in (503, 429, 429):
            assert router.post(ROUTE, BODY)[0] == mode["now"]
        change.expect(
            ("pdctl_worker_refusals_total", 1, {**w, "status": "503"}), ("pdctl_worker_refusals_total", 2, {**w, "status": "429"}),
            ("pdctl_worker_errors_total", 0, w), ("vllm_router_cb_outcomes_total", 0, w),
        )


@moves("pdctl_pd_degraded")
def test_a_degraded_fleet(pdctl):
    with FakeEngine(reply_completion) as d:
        router = router_of(pdctl, [f"http://127.0.0.1:{free_port()}"], [d.url])
        assert router.post(ROUTE, BODY)[0] == 200
        wait_for("it to say so", lambda: Page(router).value("pdctl_pd_degraded") == 1)


@moves("pdctl_stale_connections_total", "pdctl_upstream_stale_total")
def test_a_stale_connection(pdctl):
    """The kept connection ends with the request that is sent on it."""

    def once(seen, wire):
        if getattr(wire, "served", False):
            wire.keep = False
        else:
            wire.served = True
            ok(seen, wire)

    with FakeEngine(once) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--threads", 1, *QUICK)
        w = label(engine.url)
        for _ in range(2):
            assert router.post(ROUTE, BODY)[0] == 200
        now = Page(router)
        assert now.value("pdctl_upstream_stale_total", **w) == now.value("pdctl_stale_connections_total", route=ROUTE) == 1


@moves("pdctl_stream_errors_total", "vllm_router_request_errors_total", "vllm_router_requests_total")
def test_a_cut_stream(pdctl):
    with engine_saying({"now": "cut"}) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *QUICK)
        change = Change(router)
        assert router.post(ROUTE, STREAM)[0] == 200
        change.expect(
            ("pdctl_stream_errors_total", 1, {"route": ROUTE}), ("vllm_router_request_errors_total", 1, {"route": ROUTE, "error_type": "stream_cut"}),
            ("vllm_router_request_errors_total", 1), ("vllm_router_requests_total", 1),
        )


@moves("pdctl_upstream_closed_total", "pdctl_upstream_connects_total", "pdctl_upstream_idle")
def test_connections_are_all_accounted_for(pdctl):
    """Whatever happens to them: made is closed plus kept, once nothing runs."""
    mode = {"now": "ok"}
    with engine_saying(mode) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *QUICK, "--pool-idle-timeout-secs", 2, "--disable-circuit-breaker")
        w = label(engine.url)

        def open_now():
            now = Page(router)
            made, closed = now.value("pdctl_upstream_connects_total", **w), now.value("pdctl_upstream_closed_total", **w)
            return made, closed, now.value("pdctl_upstream_idle", **w)

        assert router.post(ROUTE, BODY)[0] == 200
        wait_for("it to be kept", lambda: open_now() == (1, 0, 1))
        wait_for("it to be too old", lambda: open_now() == (1, 1, 0))
        for now in ("ok", "close", "cut", "events", 500, "ok", "close"):
            mode["now"] = now
            router.post(ROUTE, STREAM)
        watcher = Watcher("stream")
        mode["now"] = watcher
        s = router.connect()
        s.sendall(message(STREAM))
        assert watcher.started.wait(10)
        made, closed, idle = open_now()
        assert made == closed + idle + 1, "one is in use"
        s.close()
        wait_for("the sum", lambda: (lambda made, closed, idle: made == closed + idle)(*open_now()))
        assert open_now()[0] >= 4


# -- clients --


@moves("pdctl_write_stalls_total", "pdctl_bad_requests_total", "pdctl_read_timeouts_total", "pdctl_connections_refused_total")
def test_clients_that_misbehave(pdctl):
    def flood(seen, wire):
        wire.begin_stream()
        while True:
            wire.event("x" * 60000)

    with FakeEngine(flood) as engine:
        router = pdctl(
            "serve", "--worker-urls", engine.url, *QUICK, "--write-stall-timeout-secs", 0.5, "--head-timeout-secs", 2, "--max-payload-size", 1000,
            "--max-connections", 12,
        )
        change = Change(router)
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", router.port))
        s.sendall(message(STREAM))
        change.wait("pdctl_write_stalls_total", 1, route=ROUTE)
        s.close()
        with router.connect() as s:
            s.sendall(b"BAD\r\n\r\n")
            assert b" 400 " in s.recv(1000)
        change.expect(("pdctl_bad_requests_total", 1), ("pdctl_read_timeouts_total", 0))
        with router.connect() as s:
            s.sendall(b"GET / HT")
            assert b" 408 " in s.recv(1000)
        change.expect(("pdctl_bad_requests_total", 2), ("pdctl_read_timeouts_total", 1))
        assert router.post(ROUTE, {"prompt": "x" * 1000})[0] == 413
        change.expect(("pdctl_bad_requests_total", 3), ("pdctl_requests_received_total", 1))
        held = [router.connect() for _ in range(16)]
        wait_for("a refusal", lambda: any(refused(s) for s in held))
        for s in held:
            s.close()
        wait_for("it on the page", lambda: page_or_none(router) and Page(router).value("pdctl_connections_refused_total") >= 1)


def page_or_none(router):
    try:
        return router.get("/metrics")[0] == 200
    except OSError:
        return False


@moves(
    "pdctl_requests_waiting", "pdctl_requests_queued_total", "pdctl_queue_full_total", "pdctl_queue_timeouts_total", "pdctl_queue_left_total",
    "vllm_router_embeddings_queue_size", "pdctl_queue_wait_seconds", "vllm_router_request_errors_total",
)
def test_the_queue(pdctl):
    hold = threading.Event()

    def slow(seen, wire):
        hold.wait(20)
        ok(seen, wire)

    with FakeEngine(slow) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *QUICK, "--max-concurrent-requests", 1, "--queue-size", 1, "--queue-timeout-secs", 3)
        change = Change(router)
        first = threading.Thread(target=lambda: router.post(ROUTE, BODY))
        first.start()
        change.wait("pdctl_requests_in_work", 1)
        change.wait("pdctl_requests_queued_total", 0)
        s = send_and_keep(router, BODY, "/v1/embeddings")
        change.expect(("pdctl_requests_waiting", 1), ("vllm_router_embeddings_queue_size", 1), ("pdctl_requests_queued_total", 1), ("pdctl_queue_full_total", 0))
        assert router.post(ROUTE, BODY)[0] == 429
        change.expect(("pdctl_queue_full_total", 1), ("vllm_router_request_errors_total", 1, {"route": ROUTE, "error_type": "queue_full"}))
        s.close()
        change.expect(("pdctl_queue_left_total", 1), ("pdctl_requests_waiting", 0), ("vllm_router_embeddings_queue_size", 0))
        assert router.post(ROUTE, BODY)[0] == 408
        change.expect(("pdctl_queue_timeouts_total", 1), ("vllm_router_request_errors_total", 1, {"route": ROUTE, "error_type": "queue_timeout"}))
        before = Page(router).seconds("pdctl_queue_wait_seconds")
        second = threading.Thread(target=lambda: router.post(ROUTE, BODY))
        second.start()
        change.wait("pdctl_requests_waiting", 1)
        time.sleep(0.2)
        hold.set()
        first.join()
        second.join()
        change.expect(("pdctl_queue_wait_seconds", 2), ("pdctl_requests_queued_total", 3), ("pdctl_requests_in_work", 0))
        assert 0.15 < Page(router).seconds("pdctl_queue_wait_seconds") - before < 60


@moves("pdctl_traceparent_total")
def test_trace_contexts(pdctl):
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with FakeEngine(ok) as engine:
        for flags, none in (((), 0), (("--generate-traceparent",), 1)):
            router = pdctl("serve", "--worker-urls", engine.url, *QUICK, *flags)
            change = Change(router)
            router.post(ROUTE, BODY, {"traceparent": good})
            change.expect(("pdctl_traceparent_total", 1, {"result": "passed"}), ("pdctl_traceparent_total", 1))
            router.post(ROUTE, BODY, {"traceparent": good.upper()})
            change.expect(("pdctl_traceparent_total", 1, {"result": "invalid"}), ("pdctl_traceparent_total", 2))
            router.post(ROUTE, BODY)
            change.expect(("pdctl_traceparent_total", none, {"result": "generated"}), ("pdctl_traceparent_total", 2 + none))


@moves("pdctl_kv_event_sources", "pdctl_kv_blocks", "pdctl_kv_event_batches_total", "pdctl_kv_event_batches_unreadable_total", "pdctl_kv_event_gaps_total",
       "pdctl_kv_event_replays_total", "pdctl_kv_event_restarts_total", "pdctl_kv_event_losses_total", "pdctl_prompts_tokenized_total",
       "pdctl_prompts_not_tokenized_total")
def test_kv_events(pdctl):
    """What each counts is in test_kv_events.py; here: that it moves, and from 0."""
    with Engine() as engine:
        w = pdctl("worker", "--model", "m")
        router = pdctl("serve", "--policy", "kv_aware", "--worker-urls", w.url, *QUICK, *engine.flags(w.url))
        wait_for("the source", lambda: Page(router).value("pdctl_kv_event_sources") == 1)
        wait_for("the replay", lambda: Page(router).value("pdctl_kv_event_replays_total") == 1)
        engine.serve_replays()

        def arrived():
            engine.send(0, [1.0, [stored(list(range(32)), 1)], 0])
            return Page(router).value("pdctl_kv_event_batches_total")

        wait_for("a batch", arrived)
        assert Page(router).value("pdctl_kv_blocks") == 2
        engine.kept.clear()
        engine.send(7, [1.0, [], 0], keep=False)
        wait_for("the gap", lambda: Page(router).value("pdctl_kv_event_gaps_total") == 1)
        wait_for("the question", engine.serve_replays)
        wait_for("the loss", lambda: Page(router).value("pdctl_kv_event_losses_total") == 1)
        engine.send(8, None, raw=b"\xc1")
        wait_for("the unreadable one", lambda: Page(router).value("pdctl_kv_event_batches_unreadable_total") == 1)
        before = Page(router).value("pdctl_kv_event_restarts_total")
        engine.send(0, [1.0, [], 0])
        wait_for("the restart", lambda: Page(router).value("pdctl_kv_event_restarts_total") == before + 1)
        change = Change(router)
        assert router.post(ROUTE, {"model": "m", "prompt": "p q r"})[0] == 200
        change.expect(("pdctl_prompts_tokenized_total", 1), ("pdctl_prompts_not_tokenized_total", 0))
        router.post(ROUTE, {"model": "m", "prompt": ["a", "b"]})
        change.expect(("pdctl_prompts_tokenized_total", 1), ("pdctl_prompts_not_tokenized_total", 1))


@moves("pdctl_remembered_ids_total")
def test_ids_that_one_worker_knows(pdctl):
    made = iter(range(100))
    with FakeEngine(lambda seen, wire: wire.json({"id": f"resp_{next(made)}"})) as one, FakeEngine(ok) as other:
        router = pdctl("serve", "--worker-urls", f"a={one.url}", *QUICK, "--remember-ids", 8)
        change = Change(router)
        for _ in range(9):
            router.post("/v1/responses", {"model": "m", "input": "i"})
        change.expect(("pdctl_remembered_ids_total", 9, {"result": "learnt"}), ("pdctl_remembered_ids_total", 1, {"result": "evicted"}))
        router.get("/v1/responses/resp_8")
        router.get("/v1/responses/nobody")
        change.expect(("pdctl_remembered_ids_total", 1, {"result": "found"}), ("pdctl_remembered_ids_total", 1, {"result": "unknown"}))
        assert router.admin("POST", "/workers", {"url": other.url, "name": "b"})[0] in (200, 201, 202)
        wait_for("the other worker", lambda: len(router.get_json("/workers")["workers"]) == 2)
        assert router.admin("DELETE", "/workers/a")[0] in (200, 202)
        wait_for("the first one to go", lambda: len(router.get_json("/workers")["workers"]) == 1)
        router.get("/v1/responses/resp_8")
        change.expect(("pdctl_remembered_ids_total", 1, {"result": "gone"}))


# -- prefill and decode --


@moves(
    "vllm_router_pd_requests_total", "vllm_router_pd_request_duration_seconds", "pdctl_prefill_seconds", "pdctl_handover_seconds",
    "pdctl_handover_first_byte_seconds", "vllm_router_pd_decode_pending_seconds", "vllm_router_pd_prefill_occupancy",
    "vllm_router_pd_pending_decode_requests", "vllm_router_pd_active_decode_requests", "vllm_router_pd_prefill_requests_total",
    "vllm_router_pd_decode_requests_total", "pdctl_leg_first_byte_seconds", "vllm_router_processed_requests_total",
)
def test_pd_traffic(pdctl):
    prefilling, decoding = threading.Event(), threading.Event()

    def prefill(seen, wire):
        prefilling.wait(20)
        reply_prefill(seen, wire)

    def decode(seen, wire):
        decoding.wait(20)
        reply_completion(seen, wire)

    with FakeEngine(prefill) as p, FakeEngine(decode) as d:
        router = pd_pair(pdctl, p, d, *FAST)
        worker = {s: {"worker": e.url, "stage": s} for s, e in (("prefill", p), ("decode", d))}
        change = Change(router)
        thread = threading.Thread(target=lambda: router.post(ROUTE, BODY))
        thread.start()
        wait_for("prefill", lambda: p.seen)
        change.expect(
            ("vllm_router_pd_prefill_occupancy", 1, {**worker["prefill"], "rank": "aggregate"}),
            ("vllm_router_pd_pending_decode_requests", 1, worker["decode"]), ("vllm_router_pd_active_decode_requests", 0, worker["decode"]),
        )
        time.sleep(0.5)
        prefilling.set()
        wait_for("decode", lambda: d.seen)
        change.expect(
            ("vllm_router_pd_prefill_occupancy", 0), ("vllm_router_pd_pending_decode_requests", 0), ("vllm_router_pd_active_decode_requests", 1, worker["decode"]),
            ("pdctl_prefill_seconds", 1), ("pdctl_handover_seconds", 0), ("vllm_router_pd_decode_pending_seconds", 0),
            ("pdctl_handover_first_byte_seconds", 0), ("vllm_router_pd_prefill_requests_total", 0, worker["prefill"]),
        )
        time.sleep(0.5)
        decoding.set()
        thread.join()
        change.expect(
            ("vllm_router_pd_active_decode_requests", 0), ("pdctl_handover_first_byte_seconds", 1), ("pdctl_handover_seconds", 1),
            ("vllm_router_pd_decode_pending_seconds", 1), ("vllm_router_pd_requests_total", 1, {"route": ROUTE}),
            ("vllm_router_pd_request_duration_seconds", 1, {"route": ROUTE}), ("vllm_router_pd_prefill_requests_total", 1, worker["prefill"]),
            ("vllm_router_pd_decode_requests_total", 1, worker["decode"]), ("pdctl_leg_first_byte_seconds", 1, {"stage": "prefill"}),
            ("pdctl_leg_first_byte_seconds", 1, {"stage": "decode"}), ("vllm_router_processed_requests_total", 1, worker["prefill"]),
            ("vllm_router_processed_requests_total", 1, worker["decode"]),
        )
        now = Page(router)
        assert 0.49 < now.seconds("pdctl_prefill_seconds") < 60 and now.seconds("pdctl_handover_seconds") < 0.49
        assert now.seconds("vllm_router_pd_decode_pending_seconds") >= now.seconds("pdctl_prefill_seconds")
        assert 0.49 < now.seconds("pdctl_handover_first_byte_seconds") < 60


@moves(
    "vllm_router_pd_prefill_errors_total", "vllm_router_pd_decode_errors_total", "vllm_router_pd_stream_errors_total",
    "pdctl_pd_reprefill_total", "pdctl_duplicate_fields_total", "vllm_router_request_errors_total", "vllm_router_pd_request_duration_seconds",
    "pdctl_leg_failures_total", "vllm_router_pd_body_over_limit_total",
)
def test_pd_failures(pdctl):
    says = {"prefill": reply_prefill, "decode": reply_completion}

    def cut(seen, wire):
        wire.begin_stream()
        wire.event("x")
        wire.keep = False

    def refuse(status):
        return lambda seen, wire: wire.json({}, status)

    def huge(seen, wire):
        wire.reply(200, b'{"kv_transfer_params":{},"x":"' + b"x" * (65 << 20) + b'"}')

    with FakeEngine(lambda s, w: says["prefill"](s, w)) as p, FakeEngine(lambda s, w: says["decode"](s, w)) as d:
        router = pd_pair(pdctl, p, d, *FAST, "--retry-max-retries", 2, "--cb-failure-threshold", 1000)

        def case(prefill, decode, body, *rows):
            says.update(prefill=prefill, decode=decode)
            change = Change(router)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            router.post(ROUTE, raw, {"Content-Type": "application/json"})
            change.expect(("vllm_router_pd_requests_total", 1), ("vllm_router_pd_request_duration_seconds", 1), *rows)

        case(refuse(422), None, BODY, ("vllm_router_pd_prefill_errors_total", 1), ("vllm_router_pd_decode_errors_total", 0))
        case(
            refuse(500), reply_completion, BODY, ("vllm_router_pd_prefill_errors_total", 1), ("pdctl_pd_fallback_total", 1),
            ("pdctl_leg_failures_total", 1, {"stage": "prefill", "cause": "status"}),
        )
        case(reply_prefill, refuse(422), BODY, ("vllm_router_pd_prefill_errors_total", 0), ("vllm_router_pd_decode_errors_total", 1), ("pdctl_pd_reprefill_total", 0))
        case(reply_prefill, refuse(500), BODY, ("vllm_router_pd_decode_errors_total", 1), ("pdctl_pd_reprefill_total", 0))
        case(
            reply_prefill, cut, STREAM, ("vllm_router_pd_stream_errors_total", 1), ("vllm_router_pd_decode_errors_total", 1),
            ("vllm_router_request_errors_total", 1, {"error_type": "stream_cut"}),
        )
        case(huge, reply_completion, BODY, ("vllm_router_pd_body_over_limit_total", 1, {"stage": "prefill"}), ("vllm_router_pd_prefill_errors_total", 1))
        case(
            None, None, b'{"prompt":"p","max_tokens":1,"max_tokens":2}', ("pdctl_duplicate_fields_total", 1, {"route": ROUTE}),
            ("vllm_router_request_errors_total", 1, {"error_type": "invalid_request"}), ("vllm_router_pd_prefill_errors_total", 0),
        )


@moves("vllm_router_pd_errors_total", "pdctl_retries_by_cause_total", "pdctl_pd_reprefill_total", "pdctl_pd_fallback_total")
def test_pd_between_the_legs(pdctl):
    with FakeEngine(reply_completion) as bare, FakeEngine(reply_completion) as other, FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        strict = ("--pd-fallback", "fail", "--retry-max-retries", 2, *FAST)
        router = router_of(pdctl, [bare.url, other.url], [d.url], *strict)
        change = Change(router)
        assert router.post(ROUTE, BODY)[0] == 502
        change.expect(
            ("vllm_router_pd_errors_total", 2, {"error_type": "no_kv_params"}), ("vllm_router_pd_errors_total", 2),
            ("pdctl_retries_by_cause_total", 1, {"cause": "no_kv_params"}), ("pdctl_pd_fallback_total", 0),
        )
        router = pd_pair(pdctl, p, d, "--pd-lease-secs", 0.000001, *strict)
        change = Change(router)
        assert router.post(ROUTE, BODY)[0] == 504
        change.expect(
            ("vllm_router_pd_errors_total", 2, {"error_type": "lease_passed"}), ("pdctl_retries_by_cause_total", 1, {"cause": "lease_passed"}),
            ("pdctl_pd_reprefill_total", 2),
        )
        router = router_of(pdctl, [f"http://127.0.0.1:{free_port()}"], [d.url], *strict)
        wait_for("health", lambda: router.get_json("/readiness")["prefill"]["healthy"] == 0 if router.get("/readiness")[0] == 200 else True)
        change = Change(router)
        assert router.post(ROUTE, BODY)[0] in (502, 503)
        wait_for("the error", lambda: Page(router).value("vllm_router_pd_errors_total", error_type="server_selection") >= 1)
        router = router_of(pdctl, [f"http://127.0.0.1:{free_port()}"], [d.url])
        change = Change(router)
        assert router.post(ROUTE, BODY)[0] == 200
        change.expect(("pdctl_pd_fallback_total", 1, {"route": ROUTE}))


@moves("pdctl_pd_decode_alone_total")
def test_pd_decode_alone(pdctl):
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router = pd_pair(pdctl, p, d)
        for reason, more in (("prompts", {"prompt": ["a", "b"]}), ("invalid", {"max_tokens": 0}), ("prompt_logprobs", {"prompt_logprobs": 1})):
            change = Change(router)
            assert router.post(ROUTE, {**BODY, **more})[0] == 200
            change.expect(("pdctl_pd_decode_alone_total", 1), ("pdctl_pd_decode_alone_total", 1, {"reason": reason}), ("vllm_router_pd_requests_total", 1))


@moves("pdctl_pd_released_total")
def test_pd_release(pdctl):
    answered = threading.Event()

    def between(seen, wire):
        router.signal(signal.SIGSTOP)
        reply_prefill(seen, wire)
        answered.set()

    with FakeEngine(between) as p, FakeEngine(reply_completion) as d:
        router = pd_pair(pdctl, p, d, *FAST)
        for _ in range(20):
            answered.clear()
            s = send_and_keep(router, BODY)
            assert answered.wait(20)
            s.close()
            router.signal(signal.SIGCONT)
            wait_for("the end", lambda: Page(router).value("vllm_router_running_requests") == 0)
            if Page(router).value("pdctl_pd_released_total", route=ROUTE):
                return
        raise AssertionError("20 clients left between the legs, and no decode was sent for them")


@moves("pdctl_connections_refused_per_ip_total")
def test_a_share_per_address(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-connections-per-ip", 2, *QUICK)
        router.get = lambda path: router.admin("GET", path)
        change, held = Change(router), [router.connect() for _ in range(2)]
        with router.connect() as s:
            assert s.recv(4096).startswith(b"HTTP/1.1 503 ")
        change.expect(("pdctl_connections_refused_per_ip_total", 1))
        for s in held:
            s.close()


@moves(
    "pdctl_unauthorized_total", "pdctl_key_checks_total", "pdctl_key_check_failures_total", "pdctl_key_cache_hits_total", "pdctl_key_checks_waiting",
)
def test_keys(pdctl):
    with FakeEngine(ok) as engine, Authority(["good"]) as who:
        router = pdctl("serve", "--worker-urls", engine.url, "--api-key-validation-urls", who.check_url, *QUICK)
        router.get = lambda path: router.admin("GET", path)  # there no key is asked for
        change, post = Change(router), lambda key: router.post("/v1/completions", BODY, {"Authorization": f"Bearer {key}"} if key else {})[0]
        assert [post("good"), post("good"), post("bad"), post(None)] == [200, 200, 401, 401]
        change.expect(
            ("pdctl_unauthorized_total", 2), ("pdctl_key_checks_total", 2), ("pdctl_key_cache_hits_total", 1), ("pdctl_key_check_failures_total", 0),
            ("vllm_router_request_errors_total", 2, {"route": ROUTE, "error_type": "unauthorized"}),
        )
        who.hold, who.drop = threading.Event(), True
        with router.connect() as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: 0\r\n\r\n")
            change.expect(("pdctl_key_checks_waiting", 1))
            who.hold.set()
            assert s.recv(4096).startswith(b"HTTP/1.1 503 ")
        change.expect(
            ("pdctl_key_checks_waiting", 0), ("pdctl_key_check_failures_total", 1),
            ("vllm_router_request_errors_total", 1, {"route": ROUTE, "error_type": "key_check"}),
        )


@moves("pdctl_loops_total", "vllm_router_request_errors_total")
def test_a_loop(pdctl):
    port = free_port()
    router = pdctl("serve", "--worker-urls", f"http://127.0.0.1:{port}", "--disable-retries", "--health-check-interval-secs", 0.2, "--health-success-threshold", 1,
                   "--health-check-endpoint", "/liveness", port=port)  # its /health says that a worker is out: itself
    wait_for("the router to find itself", lambda: router.get("/readiness")[0] == 200)
    change = Change(router)
    assert router.post(ROUTE, BODY)[0] == 508
    change.expect(("pdctl_loops_total", 1), ("vllm_router_request_errors_total", 1, {"route": ROUTE, "error_type": "loop"}))


# -- the process --


@moves(
    "pdctl_reloads_total", "pdctl_reload_failures_total", "pdctl_fleet_version", "vllm_router_discovery_updates_total",
    "vllm_router_discovery_workers_added", "vllm_router_discovery_workers_removed", "pdctl_pool_workers", "vllm_router_worker_health",
    "vllm_router_active_workers",
)
def test_reloads_and_drains(pdctl, tmp_path):
    with FakeEngine(ok) as one, FakeEngine(ok) as two, FakeEngine(ok) as three, FakeEngine(ok) as four:
        config = tmp_path / "w.yaml"
        config.write_text(f"workers: [a={one.url}, b={two.url}]\n")
        router = pdctl("serve", "--workers-file", config, *QUICK)
        change = Change(router)
        assert change.before.value("pdctl_fleet_version") == 1
        assert router.admin("POST", "/reload")[0] == 200
        change.expect(("pdctl_reloads_total", 1), ("pdctl_fleet_version", 1), ("vllm_router_discovery_updates_total", 0), ("vllm_router_discovery_workers_added", 0))
        config.write_text(f"workers: [b={two.url}, c={three.url}, d={four.url}]\n")
        router.signal(signal.SIGHUP)
        change.expect(
            ("pdctl_reloads_total", 2), ("vllm_router_discovery_updates_total", 1), ("vllm_router_discovery_workers_added", 2),
            ("vllm_router_discovery_workers_removed", 1), ("pdctl_pool_workers", 1, {"state": "available"}), ("vllm_router_active_workers", 1),
        )
        config.write_text("nonsense: 1\n")
        assert router.admin("POST", "/reload")[0] == 400
        change.expect(("pdctl_reload_failures_total", 1), ("pdctl_reloads_total", 2), ("pdctl_fleet_version", 2))
        assert router.admin("POST", "/workers/c/drain")[0] == 200
        change.expect(("pdctl_pool_workers", 1, {"stage": "regular", "state": "draining"}), ("vllm_router_active_workers", 0))
        assert Page(router).value("vllm_router_worker_health", name="c") == 0


@moves("pdctl_admin_refused_total", "vllm_router_discovery_workers_added", "vllm_router_discovery_workers_removed", "pdctl_pool_workers", "pdctl_fleet_version")
def test_workers_by_hand(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *QUICK)
        change = Change(router)
        assert router.request("POST", "/workers", {"url": "http://127.0.0.1:1"})[0] == 403
        change.expect(("pdctl_admin_refused_total", 1), ("pdctl_fleet_version", 0))
        assert router.admin("POST", "/workers", {"url": f"http://127.0.0.1:{free_port()}", "name": "x"})[0] == 202
        change.expect(("vllm_router_discovery_workers_added", 1), ("pdctl_pool_workers", 1, {"state": "starting"}), ("pdctl_fleet_version", 1))
        assert router.admin("DELETE", "/workers/x")[0] == 200
        change.expect(("vllm_router_discovery_workers_removed", 1), ("pdctl_pool_workers", 0, {"state": "starting"}), ("pdctl_fleet_version", 2))


@moves("pdctl_discovery_workers", "pdctl_discovery_failures_total", "pdctl_discovery_last_success_timestamp_seconds")
def test_discovery(pdctl):
    with FakeKube() as kube:
        kube.put("a")
        kube.scripted["list"].append(lambda h, q: kube.status(h, 500, "not yet"))
        begin = time.time()
        router = pdctl("serve", *kube.flags, "--selector", "app=vllm", *QUICK)
        source = {"source": "kubernetes"}
        wait_for("the pod", lambda: Page(router).value("pdctl_discovery_workers", **source) == 1)
        assert Page(router).value("pdctl_discovery_failures_total", **source) == 1
        assert begin - 1 < Page(router).value("pdctl_discovery_last_success_timestamp_seconds", **source) < time.time() + 1
        kube.put("a", going=True)
        wait_for("its end", lambda: Page(router).value("pdctl_discovery_workers", **source) == 0)


@moves("pdctl_draining")
def test_draining(pdctl):
    watcher = Watcher("stream")
    with FakeEngine(watcher) as engine:
        admin = free_port()
        router = pdctl("serve", "--worker-urls", engine.url, "--prometheus-port", admin)
        s = router.connect()
        s.sendall(message(STREAM))
        assert watcher.started.wait(10)
        assert Page(router).value("pdctl_draining") == 0
        router.signal(signal.SIGTERM)
        router.url = f"http://127.0.0.1:{admin}"
        wait_for("the drain on the page", lambda: Page(router).value("pdctl_draining") == 1)
        s.close()
        assert router.wait() == 0


@moves("pdctl_accept_errors_total", "process_max_fds", "process_open_fds")
def test_out_of_descriptors(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-connections", 64, *QUICK, preexec=limited(64))
        assert Page(router).value("process_max_fds") == 64
        before = Page(router).value("process_open_fds")
        with socket.create_connection(("127.0.0.1", router.port)):
            wait_for("one more", lambda: Page(router).value("process_open_fds") > before)
        clients = []
        for _ in range(120):
            s = socket.socket()
            s.settimeout(5)
            s.connect(("127.0.0.1", router.port))
            clients.append(s)
        wait_for("the limit to be met", lambda: "cannot accept" in router.log())
        for s in clients:
            s.close()
        wait_for("service", lambda: page_or_none(router), 20)
        assert Page(router).value("pdctl_accept_errors_total") >= 1


@moves("pdctl_build_info", "process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes")
def test_the_process(pdctl):
    with FakeEngine(ok) as engine:
        began = time.time()
        router = pdctl("serve", "--worker-urls", engine.url)
        first = Page(router)
        version = harness.run("--version").stdout.split()[1]
        assert first.value("pdctl_build_info", version=version) == 1
        assert began - 1 < first.value("process_start_time_seconds") < time.time() + 1
        assert 1 << 20 < first.value("process_resident_memory_bytes") < 4 << 30
        wait_for("CPU time", lambda: router.post(ROUTE, BODY) and Page(router).value("process_cpu_seconds_total") > first.value("process_cpu_seconds_total"))


@moves(
    "pdctl_capture_records_total", "pdctl_capture_dropped_total", "pdctl_capture_write_errors_total", "pdctl_capture_failing",
    "pdctl_capture_queue_bytes",
)
def test_capture(pdctl, tmp_path):
    db = tmp_path / "c.db"
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--capture", db, "--capture-queue", 10)
        page = Page(router)
        for kind in ("request", "decision"):
            assert page.value("pdctl_capture_records_total", kind=kind) == 0
            assert page.value("pdctl_capture_dropped_total", kind=kind, loss="queue_full") == 0
            assert page.value("pdctl_capture_dropped_total", kind=kind, loss="write_error") == 0
        assert router.post(ROUTE, BODY)[0] == 200
        wait_for("a row", lambda: Page(router).value("pdctl_capture_records_total", kind="request") == 1)
        assert Page(router).value("pdctl_capture_records_total", kind="decision") == 1
        # Somebody else holds the file: the writer waits, the queue fills up.
        other = sqlite3.connect(db)
        other.execute("BEGIN IMMEDIATE")
        assert router.post(ROUTE, BODY)[0] == 200
        time.sleep(0.3)
        for _ in range(20):
            assert router.post(ROUTE, BODY)[0] == 200
        page = Page(router)
        assert page.value("pdctl_capture_queue_bytes") > 0
        assert page.value("pdctl_capture_dropped_total", kind="request", loss="queue_full") > 0
        assert page.value("pdctl_capture_dropped_total", kind="decision", loss="queue_full") > 0
        assert page.value("pdctl_capture_failing") == page.value("pdctl_capture_write_errors_total") == 0
        other.rollback()
        other.close()
        wait_for("an empty queue", lambda: Page(router).value("pdctl_capture_queue_bytes") == 0)
        resource.prlimit(router.proc.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        assert router.post(ROUTE, BODY)[0] == 200
        wait_for("the failure", lambda: Page(router).value("pdctl_capture_failing") == 1)
        page = Page(router)
        assert page.value("pdctl_capture_write_errors_total") >= 1
        assert page.value("pdctl_capture_dropped_total", kind="request", loss="write_error") == 1
        assert page.value("pdctl_capture_dropped_total", kind="decision", loss="write_error") == 1


@moves("pdctl_log_lines_dropped_total")
def test_log_lines_that_nobody_reads(pdctl):
    """Standard error is a pipe that is full: lines are lost and counted, requests are served."""
    with FakeEngine(ok) as engine:
        args = [harness.PDCTL, "serve", "--worker-urls", engine.url, "--port", "0", "--prometheus-port", "0"]
        proc = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=harness.CLEAN_ENV)
        try:
            url = proc.stdout.readline().decode().split()[-1]

            class Router:
                get = staticmethod(lambda path: harness.request(url, "GET", path))

            assert Page(Router).value("pdctl_log_lines_dropped_total", log="main") == 0
            path = ROUTE + "/" + "x" * 3000

            def lost():
                for _ in range(50):
                    assert harness.request(url, "POST", path, BODY)[0] == 200
                return Page(Router).value("pdctl_log_lines_dropped_total", log="main") > 0

            wait_for("lost lines", lost, 60)
        finally:
            proc.kill()
            proc.communicate()


@moves("pdctl_tokens_total")
@pytest.mark.parametrize("stream", [False, True])
def test_tokens_per_model_and_worker(pdctl, stream):
    usage = {"prompt_tokens": 12, "total_tokens": 17, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8}}

    def says(seen, wire):
        if not stream:
            return wire.json({"choices": [], "usage": usage})
        wire.begin_stream()
        for i in range(5):
            wire.event({"choices": [{"text": "x", "finish_reason": None}], "n": i})
        wire.event({"choices": [], "usage": usage})
        wire.event("[DONE]")
        wire.end_stream()

    models = ["a", "a", 'q"'] + [f"m{i}" for i in range(20)]
    with FakeEngine(says, models=models) as engine:
        router = pdctl("serve", "--worker-urls", f"w={engine.url}", *QUICK)
        for model in models:
            assert router.post(ROUTE, {"model": model, "prompt": "p", "stream": stream})[0] == 200
        w = {"worker": engine.url}
        other = f'pdctl_tokens_total{{worker="{engine.url}",stage="regular",model="other",kind="prompt"'
        wait_for("the last", lambda: sum(v for k, v in router.metrics().items() if k.startswith(other)) == 7 * 12)
        page = Page(router)
        assert [page.value("pdctl_tokens_total", **w, model="a", kind=k) for k in ("prompt", "cached", "completion")] == [24, 16, 10]
        assert page.value("pdctl_tokens_total", **w, model="m0", kind="completion") == 5


@moves("pdctl_api_key_requests_total")
def test_names_of_keys(pdctl, tmp_path):
    keys, log = tmp_path / "keys", tmp_path / "log"
    keys.write_text("sk-1 name=team-a # both\nsk-2\tname=team-b\nsk-3\nsk-4 name=team-a\n")
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--client-api-keys", keys, "--access-log", log, "--log-format", "json", *QUICK)
        for key in ("sk-1", "sk-2", "sk-3", "sk-4"):
            assert router.post(ROUTE, BODY, {"Authorization": f"Bearer {key}"})[0] == 200

        def page():
            return harness.parse_metrics(router.admin("GET", "/metrics")[2].decode())

        named = {k: v for k, v in page().items() if k.startswith("pdctl_api_key_requests_total{")}
        Page.looked.add("pdctl_api_key_requests_total")
        assert named == {'pdctl_api_key_requests_total{api_key_name="team-a"}': 2, 'pdctl_api_key_requests_total{api_key_name="team-b"}': 1}
        wait_for("the lines", lambda: log.read_text().count("\n") == 4)
        assert [re.findall(r"api_key_name=(\S+)", x) for x in log.read_text().splitlines()] == [["team-a"], ["team-b"], [], ["team-a"]]
        wait_for("the log", lambda: router.log().count('"api_key_name":"team-a"') == 2)
        assert "sk-" not in router.log() + log.read_text()
        keys.write_text("sk-1 name=team-c\nsk-4 name=team-a\n")
        router.signal(signal.SIGHUP)
        wait_for("the reload", lambda: "reloaded" in router.log())
        for key in ("sk-1", "sk-4"):
            assert router.post(ROUTE, BODY, {"Authorization": f"Bearer {key}"})[0] == 200
        wait_for("the counts", lambda: (p := page())['pdctl_api_key_requests_total{api_key_name="team-a"}'] == 3 and p['pdctl_api_key_requests_total{api_key_name="team-c"}'] == 1)


@moves("pdctl_spans_sent_total", "pdctl_spans_dropped_total", "pdctl_spans_failed_total")
def test_spans_are_sent_refused_or_dropped(pdctl):
    with FakeEngine(ok) as engine, Collector() as collector:
        router = pdctl("serve", "--worker-urls", engine.url, "--otlp-traces-endpoint", f"127.0.0.1:{collector.port}", *QUICK)
        change = Change(router)
        assert router.post(ROUTE, BODY)[0] == 200
        change.expect(("pdctl_spans_sent_total", 3), ("pdctl_spans_failed_total", 0), ("pdctl_spans_dropped_total", 0))
        collector.status = 400
        assert router.post(ROUTE, BODY)[0] == 200
        change.expect(("pdctl_spans_failed_total", 3), ("pdctl_spans_sent_total", 3))
        collector.status = 200
        collector.go.clear()  # it holds a batch, the queue fills behind it
        until = time.monotonic() + 60
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", router.port, timeout=60)) as conn:
            while Page(router).value("pdctl_spans_dropped_total") == 0 and time.monotonic() < until:
                for _ in range(500):
                    conn.request("POST", ROUTE, json.dumps(BODY))
                    assert conn.getresponse().read()
        collector.go.set()
        assert Page(router).value("pdctl_spans_dropped_total") > 0


@moves("pdctl_unknown_models_total", "pdctl_worker_models")
def test_models_of_workers(pdctl):
    with FakeEngine(ok, models=("m", "n", "o")) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *QUICK)
        wait_for("the list", lambda: "pdctl_worker_models{" in router.get("/metrics")[2].decode())
        assert Page(router).value("pdctl_worker_models", worker=engine.url) == 3
        change = Change(router)
        assert router.post(ROUTE, {**BODY, "model": "nobody"})[0] == 404
        change.expect(("pdctl_unknown_models_total", 1, {"route": ROUTE}), ("vllm_router_request_errors_total", 1, {"error_type": "model_not_found"}))


@moves("pdctl_shadow_decisions_total", "pdctl_shadow_picks_total", "pdctl_shadow_regret_requests_total", "pdctl_shadow_gain_requests_total")
def test_a_shadow_policy(pdctl):
    """A session stays at its worker, where requests stand; the shadow would have gone to the idle one, and the other way round."""
    gone = threading.Event()

    def slow(seen, wire):
        gone.wait(60)
        ok(seen, wire)

    with FakeEngine(slow) as one, FakeEngine(slow) as other:
        threads = []
        try:
            for policies in (("consistent_hash", "least_request"), ("least_request", "consistent_hash")):
                router = pdctl("serve", "--worker-urls", one.url, other.url, "--policy", policies[0], "--shadow-policy", policies[1], *QUICK)
                change, seen = Change(router), len(one.seen) + len(other.seen)
                for i in range(4):
                    threads.append(threading.Thread(target=router.post, args=(ROUTE, BODY, {"X-Session-Id": "s"})))
                    threads[-1].start()
                    wait_for("the request", lambda: len(one.seen) + len(other.seen) == seen + i + 1)
                page = Page(router)
                # 1, 2 and 3 requests stand at the session's worker when the others come; spread they are 1, 0 and 1 apart at most.
                regret, gain = (page.value(f"pdctl_shadow_{x}_requests_total", stage="regular") for x in ("regret", "gain"))
                assert (regret, gain) == (6, 0) if policies[0] == "consistent_hash" else regret == 0 and 0 <= gain <= 2, (policies, regret, gain)
                assert page.value("pdctl_shadow_decisions_total", stage="regular") == 4
                assert page.value("pdctl_shadow_picks_total", policy=policies[1]) == 4
                change.expect(("vllm_router_worker_load", 4))
        finally:
            gone.set()
            for t in threads:
                t.join()


@moves("pdctl_saturation_percent")
def test_saturation(pdctl, tmp_path):
    (tmp_path / "epp.yaml").write_text("""apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins: [{type: queue-scorer}, {type: concurrency-detector, parameters: {maxConcurrency: 4}}]
saturationDetector: {pluginRef: concurrency-detector}
""")
    gone = threading.Event()

    def slow(seen, wire):
        gone.wait(60)
        ok(seen, wire)

    with FakeEngine(slow) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--epp-config", tmp_path / "epp.yaml", *QUICK)
        assert Page(router).value("pdctl_saturation_percent") == 0
        threads = [threading.Thread(target=router.post, args=(ROUTE, BODY)) for _ in range(4)]
        try:
            for i, t in enumerate(threads):
                t.start()
                wait_for("the request", lambda: len(engine.seen) == i + 1)
            assert Page(router).value("pdctl_saturation_percent") == 75, "what the last one found"
        finally:
            gone.set()
            for t in threads:
                t.join()
