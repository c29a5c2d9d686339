"""The log tells what an operator asks: one line a request at info, with what the client was told, and each change of the fleet."""

import json
import re
import signal
import time

import pytest

from fake_engine import FakeEngine
from harness import free_port, wait_for
from test_serve_bytes import pd_pair, reply_completion, reply_prefill

BODY = {"model": "m", "prompt": "p"}
ROUTE = "/v1/completions"


def about(router, request_id, n=1):
    """All lines that name the request."""
    time.sleep(0.1)
    return wait_for("the line", lambda: (found := [x for x in router.log().splitlines() if request_id in x]) and len(found) >= n and found)


def test_a_pd_request_is_one_line_at_info_that_both_published_greps_find(pdctl):
    with FakeEngine(reply_prefill) as prefill, FakeEngine(reply_completion) as decode:
        router = pd_pair(pdctl, prefill, decode, "--policy", "consistent_hash", "--decode-policy", "round_robin")
        assert router.post(ROUTE, BODY, {"X-Session-Id": "s", "X-Request-Id": "find-me"})[0] == 200
        (line,) = about(router, "find-me")
        p, d = prefill.url, decode.url
        assert f"PD retry attempt 0 using prefill={p} decode={d}" in line
        assert f"vLLM policy-based routing: prefill={p} [policy:consistent_hash], decode={d} [policy:round_robin]" in line
        assert re.search(r"POST /v1/completions: 200 .*attempts=1 first_ms=\d", line), line
        assert "Scoring decision" not in router.log(), "only scorers make this line at info"


def test_a_line_of_a_plain_pool_names_the_worker(pdctl):
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--policy", "consistent_hash")
        assert router.post(ROUTE, BODY, {"X-Request-Id": "find-me"})[0] == 200
        (line,) = about(router, "find-me")
        assert f"worker={engine.url} [policy:consistent_hash]" in line and " info " in line


@pytest.mark.parametrize("level", ["info", "debug"])
def test_request_lines_can_be_turned_off(pdctl, level):
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--log-requests", "off", "--log-level", level)
        assert router.post(ROUTE, BODY, {"X-Request-Id": "find-me"})[0] == 200
        router.signal(signal.SIGTERM)
        router.wait()
        assert "POST /v1/completions" not in router.log()


def test_json_lines_have_fields(pdctl):
    with FakeEngine(reply_prefill) as prefill, FakeEngine(reply_completion) as decode:
        router = pd_pair(pdctl, prefill, decode, "--log-format", "json", "--policy", "consistent_hash")
        assert router.post(ROUTE, BODY, {"X-Session-Id": "s", "X-Request-Id": "find-me"})[0] == 200
        (line,) = about(router, "find-me")
        x = json.loads(line)
        assert x["msg"] == "request" and x["level"] == "info" and x["status"] == 200 and x["outcome"] == "ok"
        assert x["prefill"] == prefill.url and x["decode"] == decode.url and x["decode_policy"] == "consistent_hash"
        assert x["key"] == "header:x-session-id" and re.fullmatch("[0-9a-f]{16}", x["key_hash"])
        assert x["total_ms"] > 0 and x["prefill_ms"] >= 0 and x["attempts"] == 1
        assert all(json.loads(y) for y in router.log().splitlines() if y.startswith("{"))


def unprocessable(seen, wire):
    wire.json({"error": {"message": "temperature: expected a \"number\"", "type": "BadRequestError"}}, status=422)


def test_an_error_says_what_the_client_was_told(pdctl):
    with FakeEngine(unprocessable) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        assert router.post(ROUTE, BODY, {"X-Request-Id": "find-me"})[0] == 422
        (line,) = about(router, "find-me")
        assert ": 422 " in line and " told: temperature: expected a" in line


def test_a_request_that_no_worker_saw_has_its_reason_too(pdctl, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("sk-1\n")
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--client-api-keys", keys, "--max-payload-size", "100")
        assert router.post(ROUTE, BODY)[0] == 401
        wait_for("the 401", lambda: re.search(r"request POST /v1/completions: 401 told: .*key", router.log()))
        assert router.post(ROUTE, {"prompt": "x" * 200}, {"Authorization": "Bearer sk-1"})[0] == 413
        wait_for("the 413", lambda: re.search(r"request POST /v1/completions: 413 told: \S+", router.log()))


def refusing(seen, wire):
    wire.json({"error": "x"}, status=500)


def test_each_change_of_a_worker_is_told_with_reason_and_counts(pdctl):
    port = free_port()
    router = pdctl("serve", "--worker-urls", f"http://127.0.0.1:{port}", "--log-requests", "off", "--health-check-interval-secs", "0.2")
    wait_for("the ejection", lambda: re.search(rf"warn  worker http://127.0.0.1:{port}: ejected after \S+ s available: .*connect.*; 0 in flight, \d+ requests, \d+ errors, 1 ejections", router.log()))
    with FakeEngine(reply_completion, port=port):
        wait_for("the return", lambda: re.search(rf"warn  worker http://127.0.0.1:{port}: available after \S+ s ejected; ", router.log()))
        assert router.admin("POST", f"/workers/http%3A%2F%2F127.0.0.1%3A{port}/drain")[0] == 200
        wait_for("the drain", lambda: re.search(rf"info  worker http://127.0.0.1:{port}: draining after ", router.log()))


def test_a_breaker_tells_its_steps(pdctl):
    def answer(seen, wire):
        wire.json({"error": "x"} if bad else {"choices": []}, status=500 if bad and seen.method == "POST" else 200)

    bad = True
    with FakeEngine(answer) as one, FakeEngine(reply_completion) as two, FakeEngine(reply_completion) as three:
        router = pdctl(
            "serve", "--worker-urls", one.url, two.url, three.url, "--policy", "round_robin", "--log-requests", "off", "--log-format", "json",
            "--cb-failure-threshold", "2", "--cb-timeout-duration-secs", "0.3", "--cb-success-threshold", "1",
        )

        def steps():
            lines = [json.loads(x) for x in router.log().splitlines() if x.startswith("{")]
            return [(x["level"], x["state"]) for x in lines if x["msg"] == "worker" and x["worker"] == one.url]

        def until(state):
            def there():
                router.post(ROUTE, BODY)
                return state in steps()

            wait_for(str(state), there)

        until(("warn", "open"))
        opened = next(json.loads(x) for x in router.said('"state":"open"').splitlines() if '"state":"open"' in x)
        assert opened["was"] == "available" and opened["errors"] >= 2 and opened["reason"]
        bad = False
        until(("info", "half_open"))
        until(("warn", "available"))


def test_overload_is_told_at_once_and_summed_up(pdctl):
    def slow(seen, wire):
        time.sleep(0.5)
        wire.json({"choices": []})

    with FakeEngine(slow) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-concurrent-requests", "1", "--queue-size", "0", "--log-format", "json")
        import threading

        threads = [threading.Thread(target=router.post, args=(ROUTE, BODY)) for _ in range(9)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        line = wait_for("the summary", lambda: [json.loads(x) for x in router.log().splitlines() if '"overloaded"' in x])
        assert len(line) <= 2 and sum(x["queue_full"] for x in line) == 8 == sum(x["refused"] for x in line)
        assert all(x["level"] == "warn" for x in line)


def test_a_reload_says_what_it_changed(pdctl, tmp_path):
    with FakeEngine(reply_completion) as one, FakeEngine(reply_completion) as two:
        file = tmp_path / "workers.yaml"
        file.write_text(f"workers:\n  - {one.url}\n")
        keys = tmp_path / "keys"
        keys.write_text("sk-1\n")
        router = pdctl("serve", "--workers-file", file, "--client-api-keys", keys)
        file.write_text(f"policy: round_robin\nworkers:\n  - {two.url}\n")
        keys.write_text("sk-1\nsk-2\n")
        router.signal(signal.SIGHUP)
        wait_for("the reload", lambda: "reloaded: 1 workers added, 1 removed; client keys: 2, before: 1" in router.log())
        router.said(f"worker {one.url}: removed; 0 in flight", f"worker {two.url}: added", "policy round_robin instead of affinity")
        router.signal(signal.SIGHUP)
        wait_for("the second", lambda: "reloaded: the same workers; client keys: 2, before: 2" in router.log())


def test_a_drain_says_how_many_it_waits_for(pdctl):
    def slow(seen, wire):
        time.sleep(1)
        wire.json({"choices": []})

    with FakeEngine(slow) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        import threading

        t = threading.Thread(target=router.post, args=(ROUTE, BODY))
        t.start()
        wait_for("the request", lambda: engine.seen)
        router.signal(signal.SIGTERM)
        wait_for("the line", lambda: "draining: waiting for 1 requests in flight" in router.log())
        t.join()
