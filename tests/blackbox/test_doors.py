"""What the router adds, drops and replaces between a client and a worker, and what a client must not be able to choose."""

import json
import pathlib
import re

import pytest

from fake_engine import FakeEngine
from harness import free_port, wait_for

BODY = {"model": "m", "prompt": "p"}
PARAMS = {"do_remote_prefill": True, "remote_host": "10.9.9.9", "remote_port": 5600}
OURS = {"do_remote_prefill": True, "remote_block_ids": [1], "remote_engine_id": "e", "remote_host": "127.0.0.1", "remote_port": 1}


def ok(seen, wire):
    wire.json({"object": "text_completion", "choices": [{"text": "x"}]})


def prefilled(seen, wire):
    wire.json({"choices": [], "kv_transfer_params": OURS, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})


def test_via_names_this_router_and_keeps_those_before_it(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        assert router.post("/v1/completions", BODY, {"Via": "1.0 edge"})[0] == 200
        via = [v for n, v in engine.seen[0].headers if n == "Via"]
        assert via[0] == "1.0 edge" and via[1].startswith("1.1 pdctl-") and len(via) == 2


def test_a_router_that_is_its_own_worker_says_so(pdctl):
    """Without this one request goes round until every connection is in use."""
    port = free_port()
    router = pdctl("serve", "--worker-urls", f"http://127.0.0.1:{port}", "--health-check-interval-secs", 0.2, "--health-success-threshold", 1,
                   "--health-check-endpoint", "/liveness", port=port)  # its /health says that a worker is out: itself
    wait_for("the router to find itself", lambda: router.get("/readiness")[0] == 200)
    status, _, body = router.post("/v1/completions", BODY)
    assert status == 508 and "forwarding loop" in json.loads(body)["error"]["message"]
    assert router.metric("pdctl_loops_total") == 1


def test_two_routers_in_a_row_are_no_loop(pdctl):
    with FakeEngine(ok) as engine:
        inner = pdctl("serve", "--worker-urls", engine.url)
        outer = pdctl("serve", "--worker-urls", inner.url)
        assert outer.post("/v1/completions", BODY)[0] == 200
        assert len([1 for n, _ in engine.seen[0].headers if n == "Via"]) == 2


def test_fields_meant_for_the_worker_pass(pdctl):
    fields = {"Authorization": "Bearer k", "X-Api-Key": "k2", "Cookie": "a=b", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Session-Id": "s", "Accept-Encoding": "br",
              "X-Forwarded-For": "1.2.3.4", "Forwarded": "for=1.2.3.4", "OpenAI-Organization": "o", "Content-Type": "application/json"}
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        assert router.post("/v1/completions", BODY, fields)[0] == 200
        assert {n: engine.seen[0].header(n) for n in fields} == fields


@pytest.mark.parametrize("body", [
    {**BODY, "kv_transfer_params": PARAMS},
    b'{"model":"m","prompt":"p","kv\\u005ftransfer_params":{"remote_host":"10.9.9.9"}}',
    {**BODY, "bootstrap_host": "h", "kv_transfer_params": PARAMS},
], ids=["plain", "escaped", "with others"])
def test_clients_do_not_choose_where_blocks_come_from(pdctl, body):
    """With prefill the answer of prefill replaces what the client sent; without prefill it is removed."""
    with FakeEngine(prefilled) as prefill, FakeEngine(ok) as decode:
        router = pdctl("serve", "--prefill", prefill.url, "--decode", decode.url)
        assert router.post("/v1/completions", body)[0] == 200
        alone = pdctl("serve", "--pd-disaggregation", "--decode", decode.url)
        assert alone.post("/v1/completions", body)[0] == 200
        assert prefill.seen[0].json()["kv_transfer_params"]["remote_host"] is None
        assert [s.json().get("kv_transfer_params") for s in decode.seen] == [OURS, None]
        assert all(b"10.9.9.9" not in s.body for s in prefill.seen + decode.seen)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/responses", "/inference/v1/generate"])
@pytest.mark.parametrize("body", [
    {"vllm_xargs": {"kv_transfer_params": PARAMS}},
    {"sampling_params": {"extra_args": {"kv_transfer_params": PARAMS}}},
    {"extra_args": {"kv_transfer_params": PARAMS}},
], ids=["vllm_xargs", "sampling_params", "extra_args"])
def test_hidden_parameters_are_refused(pdctl, path, body):
    with FakeEngine(prefilled) as prefill, FakeEngine(ok) as decode:
        router = pdctl("serve", "--prefill", prefill.url, "--decode", decode.url)
        status, _, answer = router.post(path, {**BODY, **body})
        assert status == 400 and "kv_transfer_params" in json.loads(answer)["error"]["message"]
        assert not prefill.seen and not decode.seen


EC = {"a": {"peer_host": "10.9.9.9", "peer_port": 1}}


@pytest.mark.parametrize("mode", ["regular", "pd"])
@pytest.mark.parametrize("body", [
    {"ec_transfer_params": EC}, b'{"model":"m","prompt":"p","ec\\u005ftransfer_params":{"a":{}}}', {"vllm_xargs": {"ec_transfer_params": EC}},
    {"sampling_params": {"extra_args": {"ec_transfer_params": EC}}}, {"extra_args": {"ec_transfer_params": EC}},
    json.dumps({**BODY, "ec_transfer_params": EC}).encode("utf-16"), json.dumps({**BODY, "ec_transfer_params": EC}).encode("utf-8-sig"),
], ids=["plain", "escaped", "vllm_xargs", "sampling_params", "extra_args", "utf-16", "mark"])
def test_clients_do_not_choose_where_encodings_come_from(pdctl, mode, body):
    raw = body if isinstance(body, bytes) else {**BODY, **body}
    with FakeEngine(prefilled) as prefill, FakeEngine(ok) as decode:
        flags = ["--prefill", prefill.url, "--decode", decode.url] if mode == "pd" else ["--worker-urls", decode.url]
        router = pdctl("serve", *flags)
        for path in ("/v1/chat/completions", "/v1/embeddings", "/score"):
            status, _, answer = router.post(path, raw)
            assert status == 400 and "ec_transfer_params" in json.loads(answer)["error"]["message"], answer
        assert not prefill.seen and not decode.seen
        assert router.post("/v1/completions", {**BODY, "ec_transfer_params": None})[0] == 200
        allowed = pdctl("serve", *flags, "--allow-ec-transfer-params")
        assert allowed.post("/v1/completions", raw)[0] == 200 and "ec_transfer_params" in json.dumps(decode.seen[-1].json())


def test_request_ids_do_not_carry_addresses_to_workers(pdctl):
    """Engines with a P2P connector connect to the address in the id."""
    with FakeEngine(prefilled) as prefill, FakeEngine(ok) as decode:
        router = pdctl("serve", "--prefill", prefill.url, "--decode", decode.url)
        for name in ("X-Request-Id", "X-Correlation-Id", "X-Trace-Id", "Request-Id"):
            value = "___prefill_addr_10.9.9.9:1___decode_addr_10.9.9.9:2_0"
            status, headers, _ = router.post("/v1/completions", {**BODY, "request_id": value}, {name: value})
            assert status == 200 and "10.9.9.9" not in headers["X-Request-Id"]
        ids = [s.header("x-request-id") for s in prefill.seen + decode.seen]
        assert len(ids) == 8 and all(i and "10.9.9.9" not in i for i in ids)


@pytest.mark.parametrize("policy, sent, seen", [
    (None, "1.2.3.4", ["1.2.3.4"]), ("pass", "1.2.3.4", ["1.2.3.4"]), ("pass", None, []),
    ("append", "1.2.3.4", ["1.2.3.4, 127.0.0.1"]), ("append", None, ["127.0.0.1"]), ("append", "1.2.3.4\r\nx-forwarded-for: 5.6.7.8", ["1.2.3.4, 5.6.7.8, 127.0.0.1"]),
    ("set", "1.2.3.4", ["127.0.0.1"]), ("set", None, ["127.0.0.1"]), ("drop", "1.2.3.4", []),
])
@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_what_workers_see_of_the_clients_address(pdctl, policy, sent, seen, host):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--host", host, *(("--x-forwarded-for", policy) if policy else ()))
        line = f"X-Forwarded-For: {sent}\r\n" if sent else ""
        with router.connect() as s:
            s.sendall(f"GET /x HTTP/1.1\r\nHost: x\r\n{line}Forwarded: for=9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n"
                      "X-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-End: 1\r\n\r\n".encode())
            assert s.recv(4096).startswith(b"HTTP/1.1 200 ")
        fields = engine.seen[0].headers
        assert [v for n, v in fields if n.lower() == "x-forwarded-for"] == seen
        others = {n.lower() for n, _ in fields} & {"forwarded", "x-real-ip", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"}
        assert len(others) == (0 if policy in ("set", "drop") else 5)
        assert engine.seen[0].header("x-end") == "1"


def test_deep_and_wide_bodies(pdctl):
    """Beyond the limits of the scan a plain pool passes the bytes on without a key, P/D refuses; neither costs the router its stack."""
    deep = b'{"a":' + b"[" * 200000 + b"]" * 200000 + b',"user":"u"}'
    wide = b"{" + b",".join(b'"k%d":1' % i for i in range(5000)) + b"}"
    twice = b'{"model":"m","prompt":"p",' + b",".join([b'"kv_transfer_params":{"remote_host":"10.9.9.9"}'] * 40) + b"}"
    with FakeEngine(prefilled) as prefill, FakeEngine(ok) as decode:
        plain = pdctl("serve", "--worker-urls", decode.url)
        pd = pdctl("serve", "--prefill", prefill.url, "--decode", decode.url)
        for body in (deep, wide):
            assert plain.post("/v1/completions", body)[0] == 200 and decode.seen[-1].body == body
        seen = len(decode.seen)
        for body in (deep, wide, twice):
            status, _, answer = pd.post("/v1/completions", body)
            assert status == 400 and json.loads(answer)["error"]["message"], answer
        assert not prefill.seen and len(decode.seen) == seen
        assert pd.post("/v1/completions", BODY)[0] == 200


def test_the_threat_model_names_tests_that_exist():
    folder = pathlib.Path(__file__).parent
    page = (folder.parent.parent / "docs/threat-model.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", page)
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (folder / file).read_text(), (file, test)
    for path in re.findall(r"`(tests/[\w/]+\.c)`", page):
        assert (folder.parent.parent / path).exists(), path
