"""--shadow-policy: a second policy decides on the same requests, is compared, and changes nothing."""

import json
import threading

import pytest

import harness
from fake_engine import FakeEngine
from harness import wait_for
from test_metrics_page import Change, Page
from test_model_routing import ROUTE, answer

BODY = {"model": "m", "prompt": "p"}
SHADOW = "pdctl_shadow_decisions_total"
PLAIN = {"stage": "regular"}


def send(router, session, n=1):
    for _ in range(n):
        assert router.post(ROUTE, BODY, {"X-Session-Id": session})[0] == 200


@pytest.mark.both_forms
def test_what_the_other_would_have_done(pdctl):
    """A policy agrees with itself; a rotation has its own turns, whatever is followed."""
    with FakeEngine(answer) as one, FakeEngine(answer) as other:
        router = pdctl("serve", "--worker-urls", one.url, other.url, "--policy", "consistent_hash", "--shadow-policy", "consistent_hash")
        change = Change(router)
        for i in range(10):
            send(router, f"s{i}")
        change.expect((SHADOW, 10, {**PLAIN, "pick": "same"}), (SHADOW, 0, {**PLAIN, "pick": "other"}))
        router = pdctl("serve", "--worker-urls", one.url, other.url, "--policy", "consistent_hash", "--shadow-policy", "round_robin", "--log-level", "debug")
        change = Change(router)
        home = router.post(ROUTE, BODY, {"X-Session-Id": "s"})[1]["X-Worker"]
        send(router, "s", 9)
        change.expect((SHADOW, 5, {**PLAIN, "pick": "same"}), (SHADOW, 5, {**PLAIN, "pick": "other"}))
        for e in (one, other):
            change.expect(("pdctl_shadow_picks_total", 5, {"worker": e.url, "policy": "round_robin"}),
                          ("vllm_router_policy_decisions_total", 10 if e.url == home else 0, {"worker": e.url, "policy": "consistent_hash"}),
                          ("vllm_router_worker_load", 0, {"worker": e.url}))
        lines = [json.loads(x[x.index("{"):]) for x in router.said("Scoring decision").splitlines() if "Scoring decision" in x]
        said = [d["shadow"] for d in lines]
        assert {s["policy"] for s in said} == {"round_robin"} and {s["selected"] for s in said} == {one.url, other.url}
        assert all(s["same"] == (s["selected"] == d["selected"][0]) for s, d in zip(said, lines))


def test_regret_is_in_requests_in_flight(pdctl):
    """Three requests stand at the session's worker: least_request would have gone to the idle one."""
    gone = threading.Event()

    def slow(seen, wire):
        gone.wait(60)
        answer(seen, wire)

    with FakeEngine(slow) as one, FakeEngine(slow) as other:
        try:
            router = pdctl("serve", "--worker-urls", one.url, other.url, "--policy", "consistent_hash", "--shadow-policy", "least_request")
            change = Change(router)
            threads = []
            for i in range(4):
                threads.append(threading.Thread(target=send, args=(router, "s")))
                threads[-1].start()
                wait_for("the request", lambda: len(one.seen) + len(other.seen) == i + 1)
            # 0 or (with a tie that the rotation gave the other) 0, then 1 + 2 + 3.
            change.expect(("pdctl_shadow_regret_requests_total", 6, PLAIN), ("pdctl_shadow_gain_requests_total", 0, PLAIN))
        finally:
            gone.set()
            for t in threads:
                t.join()
        # The other way round: what is followed spreads, the shadow stays with the session.
        gone.clear()
        router = pdctl("serve", "--worker-urls", one.url, other.url, "--policy", "least_request", "--shadow-policy", "consistent_hash")
        change = Change(router)
        threads, seen = [], len(one.seen) + len(other.seen)
        try:
            for i in range(6):
                threads.append(threading.Thread(target=send, args=(router, "s")))
                threads[-1].start()
                wait_for("the request", lambda: len(one.seen) + len(other.seen) == seen + i + 1)
            page = Page(router)
            assert page.value("pdctl_shadow_regret_requests_total", **PLAIN) == 0, "the least loaded has no more than any other"
            assert page.value("pdctl_shadow_gain_requests_total", **PLAIN) >= 1
        finally:
            gone.set()
            for t in threads:
                t.join()


def test_a_policy_with_a_memory_hears_of_its_own_picks(pdctl):
    """sticky_least_loaded gives each new session to the worker with the fewest of its own sessions: the shadow's, not those that were followed."""
    with FakeEngine(answer) as one, FakeEngine(answer) as other:
        router = pdctl("serve", "--worker-urls", f"one={one.url}", f"two={other.url}", "--policy", "modulo", "--shadow-policy", "sticky_least_loaded")
        change = Change(router)
        for i in range(12):
            send(router, f"s{i}", 2)
        change.expect(("pdctl_shadow_picks_total", 12, {"name": "one"}), ("pdctl_shadow_picks_total", 12, {"name": "two"}))
        assert router.post("/finish_session?session_id=s0", b"")[0] == 200


def test_pairs(pdctl):
    prefill, decode = [pdctl("worker", "--role", "prefill") for _ in range(2)], [pdctl("worker", "--role", "decode") for _ in range(2)]
    router = pdctl("serve", *[x for w in prefill for x in ("--prefill", w.url)], *[x for w in decode for x in ("--decode", w.url)],
                   "--policy", "consistent_hash", "--shadow-policy", "round_robin")
    change = Change(router)
    model = json.loads(prefill[0].get("/v1/models")[2])["data"][0]["id"]
    for i in range(8):
        assert router.post(ROUTE, {"model": model, "prompt": f"p{i}", "max_tokens": 2}, {"X-Session-Id": "s"})[0] == 200
    for stage in ("prefill", "decode"):
        change.expect((SHADOW, 4, {"stage": stage, "pick": "same"}), (SHADOW, 4, {"stage": stage, "pick": "other"}))
    page = Page(router)
    assert page.value("vllm_router_worker_load") == 0


def test_off_there_is_nothing_of_it(pdctl):
    with FakeEngine(answer) as one:
        router = pdctl("serve", "--worker-urls", one.url)
        send(router, "s")
        assert router.get("/metrics")[2].decode().count("pdctl_shadow_picks_total{") == 0
    done = harness.run("serve", "--worker-urls", one.url, "--shadow-policy", "consistent-hsah")
    assert done.returncode == 2 and "--shadow-policy: " in done.stderr and "consistent_hash" in done.stderr
    done = harness.run("serve", "--worker-urls", one.url, "--shadow-policy", "kv_aware")
    assert done.returncode == 2 and "--shadow-policy: found kv_aware, expected another policy" in done.stderr
