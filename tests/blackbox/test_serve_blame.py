"""Whose failure it is: the request's, the worker's, or nobody's (load); and that breakers never take a whole pool out.

Each test scripts what its workers answer, byte for byte or by status, and looks at what the client got, what each worker was asked, and what the
router concluded.
"""

import email.utils
import json
import socket
import threading
import time

import pytest

from fake_engine import FakeEngine
from harness import free_port, run, wait_for
from test_serve_bytes import reply_completion, reply_prefill

pytestmark = pytest.mark.both_forms

BODY = {"model": "m", "prompt": "p", "max_tokens": 4}
POISON = {**BODY, "tool_choice": "required"}
QUICK = ("--retry-initial-backoff-ms", 1, "--health-check-interval-secs", 300)
ROUTE = "/v1/completions"


def ok(seen, wire):
    wire.json({"object": "text_completion", "choices": [{"text": "x"}]})


def says(status, *headers):
    return lambda seen, wire: wire.json({"error": {"message": "on purpose"}}, status, headers)


def script(*answers):
    """Answers one after the other; the last one stays."""
    left, lock = list(answers), threading.Lock()

    def engine(seen, wire):
        with lock:
            answer = left.pop(0) if len(left) > 1 else left[0]
        answer(seen, wire)

    return engine


def closes(seen, wire):
    wire.keep = False


def kill(engine):
    """From now on connections to it are refused, also those that its thread waits for."""
    engine.listener.shutdown(socket.SHUT_RDWR)
    engine.close()


def poisoned(answer=ok):
    """500 to each request with tool_choice required, whatever worker gets it."""
    return lambda seen, wire: says(500)(seen, wire) if seen.json().get("tool_choice") == "required" else answer(seen, wire)


def plain(pdctl, *urls, flags=()):
    return pdctl("serve", "--worker-urls", *[f"w{i}={u}" for i, u in enumerate(urls)], "--policy", "round_robin", *QUICK, *flags)


def pd(pdctl, ps, ds, *flags):
    words = [w for i, u in enumerate(ps) for w in ("--prefill", f"p{i}={u}")] + [w for i, u in enumerate(ds) for w in ("--decode", f"d{i}={u}")]
    return pdctl("serve", "--pd-disaggregation", *words, "--policy", "round_robin", *QUICK, *flags)


def worker(router, name):
    return next(w for w in router.get_json("/workers")["workers"] if w["name"] == name)


def statuses(router, n, body=BODY):
    return [router.post(ROUTE, body)[0] for _ in range(n)]


# -- the request's own fault --


def test_a_poisonous_request_opens_no_breaker_when_two_workers_say_the_same(pdctl):
    with FakeEngine(poisoned()) as a, FakeEngine(poisoned()) as b, FakeEngine(poisoned()) as c:
        router = plain(pdctl, a.url, b.url, c.url, flags=("--cb-failure-threshold", 2))
        assert statuses(router, 20, POISON) == [500] * 20
        assert [worker(router, n)["state"] for n in ("w0", "w1", "w2")] == ["available"] * 3
        assert [worker(router, n)["errors"] for n in ("w0", "w1", "w2")] == [0] * 3
        assert router.metric('vllm_router_cb_outcomes_total{worker="%s",stage="regular",outcome="failure"' % a.url) == 0
        assert statuses(router, 6) == [200] * 6


def test_one_of_two_that_says_500_is_out_and_the_other_is_not(pdctl):
    with FakeEngine(says(500)) as bad, FakeEngine(ok) as good:
        router = plain(pdctl, bad.url, good.url, flags=("--cb-failure-threshold", 3))
        assert statuses(router, 20) == [200] * 20
        assert len(bad.seen) == 3 and worker(router, "w0")["state"] == "open" and worker(router, "w1")["state"] == "available"
        assert worker(router, "w0")["errors"] == 3


def test_alternating_500s_open_nothing(pdctl):
    """Each worker fails every second request: never in a row, and nobody sees it."""
    with FakeEngine(script(*[says(500), ok] * 40)) as a, FakeEngine(script(*[ok, ok] * 40)) as b:
        router = plain(pdctl, a.url, b.url, flags=("--cb-failure-threshold", 2))
        assert statuses(router, 20) == [200] * 20
        assert worker(router, "w0")["state"] == worker(router, "w1")["state"] == "available"


@pytest.mark.parametrize("status", [501, 505])
def test_what_is_not_implemented_is_about_the_request(pdctl, status):
    with FakeEngine(says(status)) as one, FakeEngine(says(status)) as two:
        router = plain(pdctl, one.url, two.url, flags=("--cb-failure-threshold", 1))
        assert statuses(router, 4) == [status] * 4
        assert worker(router, "w0")["errors"] == 0 and worker(router, "w0")["state"] == "available"


@pytest.mark.parametrize("workers", [1, 2])
def test_tool_choice_in_a_prefill_copy_leaves_prefill_in_use(pdctl, workers):
    """vLLM answers 500 when tool_choice is required and max_tokens is 1, which is what a prefill copy says."""

    def prefill(seen, wire):
        body = seen.json()
        says(500)(seen, wire) if body.get("tool_choice") == "required" and body["max_tokens"] == 1 else reply_prefill(seen, wire)

    ps = [FakeEngine(prefill) for _ in range(workers)]
    with FakeEngine(reply_completion) as d:
        router = pd(pdctl, [p.url for p in ps], [d.url], "--cb-failure-threshold", 2)
        for _ in range(12):
            assert router.post(ROUTE, POISON)[0] == 200, "decode alone answers it"
        for _ in range(4):
            status, headers, _ = router.post(ROUTE, BODY)
            assert status == 200 and headers["X-Prefill-Worker"] in [p.url for p in ps], "the next normal requests are untouched"
        asked = [len(p.seen) for p in ps]
        assert sum(asked) == 12 * workers + 4, "each request once at each prefill worker"
        if workers == 2:
            assert worker(router, "p0")["errors"] == worker(router, "p1")["errors"] == 0
        for p in ps:
            p.check()
            p.close()


# -- panic --


def test_a_pool_of_one_never_closes(pdctl):
    with FakeEngine(script(*[says(500)] * 9, ok)) as one:
        router = plain(pdctl, one.url, flags=("--cb-failure-threshold", 2, "--cb-success-threshold", 2))
        assert statuses(router, 9) == [500] * 9, "each is asked, none is refused"
        assert len(one.seen) == 9 and router.get("/readiness")[0] == 200
        assert router.get_json("/readiness")["panic"] == ["regular"] and router.metric('pdctl_pool_panic{stage="regular"}') == 1
        router.said("panic in the regular pool: the breakers of 1 of 1")
        assert "panic: the regular pool" in run("workers", "list", "--router", router.admin_url).stdout
        assert statuses(router, 4) == [200] * 4
        wait_for("the end of it", lambda: router.metric('pdctl_pool_panic{stage="regular"}') == 0)
        router.said("is over after")
        assert worker(router, "w0")["state"] == "available"
        assert router.metric('pdctl_pool_panics_total{stage="regular"}') == 1


def test_a_broken_worker_is_used_when_the_other_is_dead(pdctl):
    """Two configured, one killed, one with an open breaker: requests go to the one that can be reached."""
    mode = {"now": says(500)}
    with FakeEngine(lambda s, w: mode["now"](s, w)) as a, FakeEngine(ok) as b:
        router = plain(pdctl, a.url, b.url, flags=("--cb-failure-threshold", 2))
        assert statuses(router, 8) == [200] * 8
        assert worker(router, "w0")["state"] == "open" and router.metric('pdctl_pool_panic{stage="regular"}') == 0
        mode["now"] = ok
        kill(b)
        wait_for("the other to serve", lambda: router.post(ROUTE, BODY)[0] == 200)
        assert statuses(router, 6) == [200] * 6


def test_an_open_breaker_is_better_than_an_error(pdctl):
    """A request that failed at all workers with a closed breaker is sent to the one whose breaker is open; others are not."""
    a_says, b_says = {"now": says(500)}, {"now": ok}
    with FakeEngine(lambda s, w: a_says["now"](s, w)) as a, FakeEngine(lambda s, w: b_says["now"](s, w)) as b:
        router = plain(pdctl, a.url, b.url, flags=("--cb-failure-threshold", 3))
        assert statuses(router, 12) == [200] * 12 and len(a.seen) == 3
        a_says["now"], b_says["now"] = ok, says(500)
        assert statuses(router, 2) == [200] * 2 and len(a.seen) == 5
        b_says["now"] = ok
        assert statuses(router, 4) == [200] * 4 and len(a.seen) == 5 and worker(router, "w0")["state"] == "open"


def test_the_panic_threshold_can_be_turned_off(pdctl):
    with FakeEngine(says(500)) as one:
        router = plain(pdctl, one.url, flags=("--cb-failure-threshold", 2, "--panic-threshold", 0))
        assert statuses(router, 4) == [500, 500, 503, 503]
        assert len(one.seen) == 2


def test_no_more_than_half_is_out(pdctl):
    """Four workers that each fail in their own way and never answer the same request with 5xx twice: at most two are out."""
    with FakeEngine(closes) as a, FakeEngine(closes) as b, FakeEngine(closes) as c, FakeEngine(ok) as d:
        router = plain(pdctl, a.url, b.url, c.url, d.url, flags=("--cb-failure-threshold", 3))
        for _ in range(30):
            router.post(ROUTE, BODY)
        wait_for("panic", lambda: router.metric('pdctl_pool_panic{stage="regular"}') == 1)
        before = [len(e.seen) for e in (a, b, c)]
        assert statuses(router, 8) == [200] * 8
        assert all(len(e.seen) > n for e, n in zip((a, b, c), before)), "requests go to all of them"


# -- load --


@pytest.mark.parametrize("status", [503, 429])
def test_twelve_refusals_and_then_an_answer(pdctl, status):
    """No breaker; each refusal is passed on at once; the 13th request is served."""
    with FakeEngine(script(*[says(status)] * 12, ok)) as one:
        router = plain(pdctl, one.url, flags=("--cb-failure-threshold", 2))
        assert statuses(router, 13) == [status] * 12 + [200]
        w = worker(router, "w0")
        assert (len(one.seen), w["requests"], w["errors"], w["state"], w[f"answered_{status}"]) == (13, 13, 0, "available", 12)
        assert router.metric("vllm_router_retries_total") == 0


DATE = email.utils.formatdate(time.time() + 100, usegmt=True)


@pytest.mark.parametrize("after", ["7", "0", DATE, "soon", None], ids=["seconds", "zero", "date", "nonsense", "none"])
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_refusal_of_all_reaches_the_client_at_once(pdctl, after, status, workers):
    """The client's Retry-After is the worker's, to the letter, and nobody waits for it in the router."""
    engines = [FakeEngine(says(status, *([("Retry-After", after)] if after else []))) for _ in range(workers)]
    router = plain(pdctl, *[e.url for e in engines], flags=("--retry-initial-backoff-ms", 3000))
    took = []
    for _ in range(5):
        began = time.monotonic()
        got, headers, raw = router.post(ROUTE, BODY)
        took.append(time.monotonic() - began)
        assert (got, headers["Retry-After"], json.loads(raw)["error"]["message"]) == (status, after, "on purpose")
    assert min(took) < 0.1, took
    assert [len(e.seen) for e in engines] == [5] * workers
    for e in engines:
        e.close()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_worker_is_passed_over_until_its_pause_is_over(pdctl, status):
    with FakeEngine(script(says(status, ("Retry-After", "3")), ok)) as busy, FakeEngine(ok) as other:
        router = plain(pdctl, busy.url, other.url)
        began = time.monotonic()
        assert statuses(router, 10) == [200] * 10
        if time.monotonic() - began < 2:
            assert len(busy.seen) == 1 and worker(router, "w0")["state"] == "busy"
            assert router.get("/health")[0] == 200, "busy is not ill"
        wait_for("the pause to be over", lambda: worker(router, "w0")["state"] == "available")
        assert time.monotonic() - began >= 2.9
        assert statuses(router, 4) == [200] * 4 and len(busy.seen) >= 2


def test_workers_that_are_all_busy_are_asked_all_the_same(pdctl):
    with FakeEngine(script(*[says(429, ("Retry-After", "60"))] * 2, ok)) as a, FakeEngine(script(*[says(503, ("Retry-After", "60"))] * 2, ok)) as b:
        router = plain(pdctl, a.url, b.url)
        got = statuses(router, 4)
        assert got[0] in (429, 503) and got[-1] == 200, got


def test_a_storm_of_503_goes_to_the_other_worker(pdctl):
    with FakeEngine(says(503)) as busy, FakeEngine(ok) as other:
        router = plain(pdctl, busy.url, other.url, flags=("--cb-failure-threshold", 2, "--retry-initial-backoff-ms", 5000))
        began = time.monotonic()
        assert statuses(router, 20) == [200] * 20
        assert time.monotonic() - began < 4, "no pause before another worker"
        assert worker(router, "w0")["state"] == "available" and worker(router, "w0")["errors"] == 0 and len(busy.seen) >= 5


# -- never twice --


@pytest.mark.parametrize("answer", [says(500), says(502), says(504), says(408), closes])
def test_a_request_that_was_sent_is_not_sent_to_the_same_worker_again(pdctl, answer):
    with FakeEngine(answer) as a, FakeEngine(answer) as b:
        router = plain(pdctl, a.url, b.url)
        assert router.post(ROUTE, BODY)[0] in (500, 502, 504, 408)
        assert [len(a.seen), len(b.seen)] == [1, 1]
        assert [worker(router, n)["requests"] for n in ("w0", "w1")] == [1, 1]


def test_the_verdict_does_not_wait_for_the_end_of_a_stream(pdctl):
    """The failed attempt counts when the other worker answers, not when its stream has ended."""
    end = threading.Event()

    def streams(seen, wire):
        wire.begin_stream()
        wire.event("a")
        end.wait(90)
        wire.end_stream()

    with FakeEngine(says(500)) as bad, FakeEngine(streams) as good:
        router = plain(pdctl, bad.url, good.url, flags=("--cb-failure-threshold", 1))
        asking = [threading.Thread(target=router.post, args=(ROUTE, {**BODY, "stream": True})) for _ in range(2)]
        for t in asking:
            t.start()
        wait_for("the breaker to open", lambda: worker(router, "w0")["state"] == "open")
        assert not end.is_set()
        end.set()
        for t in asking:
            t.join()


def test_a_worker_that_dies_loses_no_request(pdctl):
    """It had more requests than the budget has retries for a burst: all move to the other worker."""
    had = 130
    died = threading.Barrier(had + 1, timeout=60)

    def dies(seen, wire):
        died.wait()
        closes(seen, wire)

    with FakeEngine(dies) as a, FakeEngine(ok) as b:
        router = plain(pdctl, a.url, b.url, flags=("--retry-budget", 0, "--cb-failure-threshold", 1000))
        got = []
        asking = [threading.Thread(target=lambda: got.append(router.post(ROUTE, BODY)[0])) for _ in range(2 * had)]
        for t in asking:
            t.start()
        died.wait()
        for t in asking:
            t.join()
        assert got == [200] * 2 * had and router.metric("pdctl_retry_budget") == 100


def test_a_connection_refused_and_back(pdctl):
    """Nothing was sent, and there is no other worker: the request waits for its backoff and finds the worker again."""
    port = free_port()
    router = plain(pdctl, f"http://127.0.0.1:{port}", flags=("--retry-initial-backoff-ms", 200, "--retry-max-retries", 30))
    found = []
    asking = threading.Thread(target=lambda: found.append(router.post(ROUTE, BODY)[0]))
    asking.start()
    wait_for("the refused connection", lambda: worker(router, "w0")["state"] == "ejected")
    assert worker(router, "w0")["requests"] == 0, "nothing was sent"
    with FakeEngine(ok) as engine:
        engine.listener.close()
        engine.listener = socket.create_server(("127.0.0.1", port), backlog=128)
        threading.Thread(target=engine._accept, daemon=True).start()
        asking.join(30)
        assert found == [200] and len(engine.seen) == 1 and worker(router, "w0")["requests"] == 1


def test_requests_counts_what_was_sent(pdctl):
    """A decode worker that was picked while prefill failed was sent nothing."""
    with FakeEngine(says(422)) as p, FakeEngine(reply_completion) as d:
        router = pd(pdctl, [p.url], [d.url])
        assert statuses(router, 3) == [422] * 3
        assert worker(router, "p0")["requests"] == 3 and worker(router, "d0")["requests"] == 0
        assert router.metric('vllm_router_processed_requests_total{worker="%s"' % d.url) == 0


# -- prefill/decode --


@pytest.mark.parametrize("how", ["refused", "500", "closes"])
def test_decode_only_takes_over_at_the_first_failed_attempt(pdctl, how):
    with FakeEngine(says(500) if how == "500" else closes) as p, FakeEngine(reply_completion) as d:
        url = f"http://127.0.0.1:{free_port()}" if how == "refused" else p.url
        router = pd(pdctl, [url], [d.url], "--retry-initial-backoff-ms", 5000, "--retry-budget", 0, "--cb-failure-threshold", 1000)
        began = time.monotonic()
        for _ in range(120):  # more than the retries that may be spent before any were earned
            assert router.post(ROUTE, BODY)[0] == 200
        assert time.monotonic() - began < 60, "no pause"
        assert len(d.seen) == 120 and all("kv_transfer_params" not in s.json() for s in d.seen)
        assert router.metric("pdctl_pd_fallback_total") == 120


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_prefill_worker_is_not_bypassed(pdctl, status):
    with FakeEngine(says(status, ("Retry-After", "7"))) as p, FakeEngine(reply_completion) as d:
        router = pd(pdctl, [p.url], [d.url])
        got, headers, _ = router.post(ROUTE, BODY)
        assert (got, headers["Retry-After"], len(d.seen)) == (status, "7", 0)


def test_a_degraded_fleet_says_so(pdctl):
    p = FakeEngine(reply_prefill)
    with FakeEngine(reply_completion) as d:
        router = pd(pdctl, [p.url], [d.url])
        assert statuses(router, 2) == [200] * 2
        assert router.get_json("/readiness")["degraded"] is False and router.metric("pdctl_pd_degraded") == 0
        kill(p)
        assert statuses(router, 6) == [200] * 6
        wait_for("degraded", lambda: router.get_json("/readiness")["degraded"] is True)
        assert router.metric("pdctl_pd_degraded") == 1 and router.get_json("/workers")["degraded"] is True
        assert router.said("prefill/decode is degraded: none of 1 prefill workers").count("prefill/decode is degraded: none") == 1
        assert "degraded: no prefill worker" in run("workers", "list", "--router", router.admin_url).stdout
        again = FakeEngine(reply_prefill)
        again.listener.close()
        again.listener = socket.create_server(("127.0.0.1", p.port), backlog=128)
        threading.Thread(target=again._accept, daemon=True).start()
        wait_for("the end of it", lambda: router.metric("pdctl_pd_degraded") == 0)
        assert router.said("prefill/decode is no longer degraded").count("prefill/decode is no longer degraded") == 1
        assert "degraded" not in run("workers", "list", "--router", router.admin_url).stdout
        again.close()
