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
        router = pdctl("serve", "--worker-urls", engine.url)
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
