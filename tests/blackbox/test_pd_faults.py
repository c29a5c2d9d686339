"""Prefill and decode when things break: what is tried again and where, what the client is told, what the workers hear, what is counted."""

import json
import re
import signal
import socket
import threading
import time

import pytest

import harness
from fake_engine import FakeEngine
from harness import free_port, run, sse_events, wait_for
from test_serve_bytes import COMPLETION, pd_pair, reply_completion, reply_prefill

pytestmark = pytest.mark.both_forms

FAST = ("--retry-initial-backoff-ms", 1, "--health-check-interval-secs", 0.2, "--health-failure-threshold", 1)
BODY = {"model": "m", "prompt": "some words that make a prompt of more than one block " * 4, "max_tokens": 4}
WORKER = ("--strict", "--speedup", 100)


def fleet(pdctl, *flags, prefill=2, decode=2, worker=()):
    """Strict workers and the router before them: (router, prefill workers, decode workers)."""
    ps = [pdctl.worker("--role", "prefill", *WORKER, *worker) for _ in range(prefill)]
    ds = [pdctl.worker("--role", "decode", *WORKER, *worker) for _ in range(decode)]
    return router_of(pdctl, [w.url for w in ps], [w.url for w in ds], *flags), ps, ds


def router_of(pdctl, ps, ds, *flags):
    words = [w for i, u in enumerate(ps) for w in ("--prefill", f"p{i}={u}")] + [w for i, u in enumerate(ds) for w in ("--decode", f"d{i}={u}")]
    return pdctl("serve", "--pd-disaggregation", *words, "--policy", "round_robin", *FAST, *flags)


def faults(worker, **wanted):
    assert worker.post("/pdctl/faults", wanted)[0] == 200


def mistakes(workers, but=()):
    """Protocol mistakes by kind; a new prefill leaves the blocks of the old one to their lease, which is no mistake of the new one."""
    out = {}
    for w in workers:
        for name, value in w.metrics().items():
            if name.startswith("pdctl_worker_protocol_mistakes_total") and value and not any(b in name for b in but):
                out[name] = out.get(name, 0) + value
    return out


def idle(router, workers=()):
    wait_for("no request in flight", lambda: router.metric("vllm_router_running_requests") == 0)
    for w in workers:
        wait_for("the worker to be idle", lambda w=w: w.metric("pdctl_worker_running") == 0)


def send_and_keep(router, body, path="/v1/completions"):
    """A request whose client does not read."""
    data = json.dumps(body).encode()
    s = socket.create_connection(("127.0.0.1", router.port), timeout=30)
    s.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(data)) + data)
    return s


# -- prefill --


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_a_refusing_prefill_is_left_for_another(pdctl, status):
    router, ps, ds = fleet(pdctl)
    faults(ps[0], fail_rate=1, fail_status=status)
    for i in range(6):
        code, headers, raw = router.post("/v1/completions", BODY)
        assert code == 200, raw
        assert headers["X-Prefill-Worker"] == ps[1].url
    assert router.metric("vllm_router_retries_total") >= 2, "some went to the wrong one first"
    wait_for("the line", lambda: re.search(rf"PD retry attempt 1 using prefill={ps[1].url} decode=http://\S+", router.log()))
    assert mistakes(ps + ds) == {}
    idle(router, ps + ds)


def test_a_dead_prefill_of_two_is_not_noticed(pdctl):
    router, ps, ds = fleet(pdctl, "--pd-fallback", "fail")
    ps[0].kill()
    for i in range(20):
        code, headers, raw = router.post("/v1/completions", {**BODY, "prompt": f"{i} {BODY['prompt']}"})
        assert (code, headers["X-Prefill-Worker"]) == (200, ps[1].url), raw
        assert router.get("/readiness")[0] == 200
    ready = router.get_json("/readiness")
    assert ready["prefill"] == {"healthy": 1, "total": 2}, ready
    ps[1].kill()
    code, headers, raw = router.post("/v1/completions", BODY)
    assert code in (502, 503), raw
    assert headers["X-Decode-Worker"] is None, "decode was never called"
    wait_for("readiness to say so", lambda: router.get("/readiness")[0] == 503)
    code, headers, raw = router.post("/v1/completions", BODY)
    assert (code, headers["Retry-After"]) == (503, "1"), raw
    assert headers["X-Prefill-Worker"] is None and headers["X-Decode-Worker"] is None
    assert json.loads(raw)["error"]["message"].startswith("no available prefill worker: 2 configured, 0 available")
    assert all(w.metric("pdctl_worker_requests_total") <= 20 for w in ds)
    idle(router, ds)


def test_a_silent_prefill_is_left_for_another(pdctl):
    release = threading.Event()

    def silent(seen, wire):
        release.wait(30)
        wire.keep = False

    with FakeEngine(silent) as one, FakeEngine(reply_prefill) as two, FakeEngine(reply_completion) as decode:
        router = router_of(pdctl, [one.url, two.url], [decode.url], "--first-byte-timeout-secs", 1.5)
        for _ in range(4):
            code, headers, raw = router.post("/v1/completions", BODY)
            assert (code, headers["X-Prefill-Worker"]) == (200, two.url), raw
        assert one.seen, "the silent one was asked"
        release.set()
        idle(router)


@pytest.mark.parametrize("answer", ["no JSON", "an array", "cut", "malformed head"])
def test_a_prefill_answer_that_is_none_is_tried_elsewhere(pdctl, answer):
    def broken(seen, wire):
        if answer == "cut":
            wire.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        elif answer == "malformed head":
            wire.raw(b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n{}")
        else:
            wire.reply(200, b"<html>" if answer == "no JSON" else b"[1]")
            return
        wire.conn.shutdown(socket.SHUT_RDWR)
        wire.keep = False

    with FakeEngine(broken) as one, FakeEngine(reply_prefill) as two, FakeEngine(reply_completion) as decode:
        router = router_of(pdctl, [one.url, two.url], [decode.url])
        for _ in range(4):
            code, headers, raw = router.post("/v1/completions", BODY)
            assert (code, headers["X-Prefill-Worker"]) == (200, two.url), raw
        assert one.seen
        idle(router)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_prefill_4xx_is_the_answer_and_names_no_decode_worker(pdctl, status):
    raw = b'{"error": {"message":"no\\u0000", "code" :  %d}}' % status

    def refuse(seen, wire):
        wire.reply(status, raw, headers=[("X-Engine", "kept")])

    with FakeEngine(refuse) as one, FakeEngine(refuse) as two, FakeEngine(reply_completion) as decode:
        router = router_of(pdctl, [one.url, two.url], [decode.url])
        code, headers, got = router.post("/v1/completions", BODY)
        assert (code, got, headers["X-Engine"]) == (status, raw, "kept")
        assert headers["X-Prefill-Worker"] in (one.url, two.url)
        assert headers["X-Decode-Worker"] is None
        assert len(one.seen) + len(two.seen) == 1 and not decode.seen, "one call, no retry"
        assert router.metric("vllm_router_retries_total") == 0
        idle(router)


def test_when_all_prefills_refuse_their_last_word_is_the_answer(pdctl):
    router, ps, ds = fleet(pdctl, "--retry-max-retries", 3)
    for p in ps:
        faults(p, fail_rate=1, fail_status=503, fail_retry_after=0)
    code, headers, raw = router.post("/v1/completions", BODY)
    assert code == 503 and headers["X-Decode-Worker"] is None, raw
    asked = [p.metric("pdctl_worker_faults_total") for p in ps]
    assert asked == [1, 1], "each once"
    idle(router, ps + ds)


# -- decode --


def test_a_refusing_decode_means_a_new_prefill_with_new_coordinates(pdctl):
    router, ps, ds = fleet(pdctl)
    faults(ds[0], fail_rate=1, fail_status=500)
    for i in range(6):
        code, headers, raw = router.post("/v1/completions", BODY, {"X-Request-Id": f"mine-{i}"})
        assert (code, headers["X-Decode-Worker"], headers["X-Request-Id"]) == (200, ds[1].url, f"mine-{i}"), raw
    again = router.metric("pdctl_pd_reprefill_total")
    assert again >= 2
    assert mistakes(ps + ds) == {}, "leases of given up prefills live for 30 s"
    ids = [r["headers"]["X-Request-Id"] for p in ps for r in p.get_json("/pdctl/requests")["requests"]]
    assert len(ids) == 6 + again and len(set(ids)) == len(ids), "an id of its own for every prefill"
    idle(router, ps + ds)


@pytest.mark.parametrize("how", ["closes", "cuts its JSON", "cuts its stream before an event"])
def test_a_dying_decode_means_a_new_prefill(pdctl, how):
    """Byte for byte: both legs of an attempt have one id, each attempt another, and decode gets what this attempt's prefill said."""
    count = iter(range(100))

    def prefill(seen, wire):
        params = {"do_remote_prefill": True, "remote_request_id": f"kv-{next(count)}", "remote_block_ids": [[1]]}
        wire.json({**COMPLETION, "kv_transfer_params": params})

    def die(seen, wire):
        if how == "cuts its JSON":
            wire.raw(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"a":')
        elif how != "closes":
            wire.begin_stream()
            wire.raw(b"20\r\ndata: {\"choi")
        wire.conn.shutdown(socket.SHUT_RDWR)
        wire.keep = False

    with FakeEngine(prefill) as p, FakeEngine(die) as bad, FakeEngine(reply_completion) as good:
        router = router_of(pdctl, [p.url], [bad.url, good.url])
        for i in range(4):
            code, headers, raw = router.post("/v1/completions", {**BODY, "stream": "before" in how}, {"X-Request-Id": f"c{i}"})
            assert (code, headers["X-Decode-Worker"]) == (200, good.url), raw
        assert bad.seen
        said = {s.header("x-request-id"): f"kv-{i}" for i, s in enumerate(p.seen)}
        assert len(said) == len(p.seen), "no id twice"
        for s in bad.seen + good.seen:
            assert s.json()["kv_transfer_params"]["remote_request_id"] == said.pop(s.header("x-request-id"))
        assert not said
        idle(router)


def test_coordinates_are_never_sent_twice(pdctl):
    """A decode worker that closes a kept connection without a byte may have read the blocks: it is no stale connection to be replaced."""

    def second_time_silent(seen, wire):
        if seen.header("x-request-id") == "two":
            wire.conn.shutdown(socket.SHUT_RDWR)
            wire.keep = False
        else:
            reply_completion(seen, wire)

    with FakeEngine(reply_prefill) as p, FakeEngine(second_time_silent) as d:
        router = pd_pair(pdctl, p, d, *FAST, *(() if harness.IO == "threads" else ("--threads", 1)))  # one pool of connections
        for name in ("one", "two"):
            code, _, raw = router.post("/v1/completions", BODY, {"X-Request-Id": name})
            assert code == 200, raw
        assert [s.header("x-request-id") for s in d.seen] == ["one", "two", "two-r1"]
        assert [s.header("x-request-id") for s in p.seen] == ["one", "two", "two-r1"]
        idle(router)


def test_a_dead_decode_of_two_is_not_noticed(pdctl):
    router, ps, ds = fleet(pdctl)
    ds[0].kill()
    for i in range(10):
        code, headers, raw = router.post("/v1/completions", BODY)
        assert (code, headers["X-Decode-Worker"]) == (200, ds[1].url), raw
    assert router.get_json("/readiness")["decode"] == {"healthy": 1, "total": 2}
    assert mistakes(ps + [ds[1]]) == {}
    idle(router, ps + [ds[1]])


def test_a_request_waits_for_a_decode_worker_that_comes_back(pdctl):
    """Pauses stay at their limit however many there are: jitter does not end the attempts."""
    router, ps, ds = fleet(pdctl, "--retry-max-retries", 100, "--retry-max-backoff-ms", 30, "--retry-jitter-factor", 1, decode=1)
    ds[0].kill()
    threading.Timer(0.7, lambda: pdctl.worker("--role", "decode", *WORKER, port=ds[0].port)).start()
    code, _, raw = router.post("/v1/completions", BODY)
    assert code == 200, raw
    assert router.metric("vllm_router_retries_total") > 10
    idle(router, ps)


def test_after_the_first_event_nothing_is_sent_again(pdctl):
    def half(seen, wire):
        wire.begin_stream()
        wire.event({"choices": [{"text": "one"}]})
        wire.event({"choices": [{"text": "two"}]})
        wire.conn.shutdown(socket.SHUT_RDWR)
        wire.keep = False

    with FakeEngine(reply_prefill) as p, FakeEngine(half) as one, FakeEngine(half) as two:
        router = router_of(pdctl, [p.url], [one.url, two.url])
        code, _, raw = router.post("/v1/completions", {**BODY, "stream": True})
        events = sse_events(raw)
        assert code == 200 and [json.loads(e)["choices"][0]["text"] for e in events[:2]] == ["one", "two"]
        assert json.loads(events[2])["error"]["code"] == 502 and len(events) == 3
        assert len(p.seen) == 1 and len(one.seen) + len(two.seen) == 1
        assert router.metric("pdctl_stream_errors_total") == 1
        wait_for("the line", lambda: "after 2 events" in router.log())
        idle(router)


# -- no prefill, no parameters --


def test_no_prefill_worker_decode_only(pdctl):
    with FakeEngine(reply_completion) as decode:
        router = router_of(pdctl, [f"http://127.0.0.1:{free_port()}"], [decode.url], "--pd-fallback", "decode-only")
        code, headers, raw = router.post("/v1/completions", {**BODY, "kv_transfer_params": {"made": "up"}})
        assert code == 200, raw
        assert headers["X-Prefill-Worker"] is None and headers["X-Decode-Worker"] == decode.url
        assert decode.seen[0].json() == BODY, "no coordinates, not even made-up ones"
        assert router.metric("pdctl_pd_fallback_total") == 1
        wait_for("health", lambda: router.get_json("/readiness")["prefill"]["healthy"] == 0)
        assert router.get("/readiness")[0] == 200, "it can serve"
        idle(router)


def test_no_prefill_worker_fail(pdctl):
    with FakeEngine(reply_completion) as decode:
        router = router_of(pdctl, [f"http://127.0.0.1:{free_port()}"], [decode.url], "--pd-fallback", "fail")
        code, headers, raw = router.post("/v1/completions", BODY)
        assert code in (502, 503) and json.loads(raw)["error"]["message"], raw
        assert not decode.seen and headers["X-Decode-Worker"] is None
        assert router.metric("pdctl_pd_fallback_total") == 0
        wait_for("readiness", lambda: router.get("/readiness")[0] == 503)
        idle(router)


NO_PARAMS = {"absent": "", "null": ', "kv_transfer_params": null', "empty": ', "kv_transfer_params": {}',
             "an echo": ', "kv_transfer_params": {"do_remote_decode": true, "remote_block_ids": [[1]]}'}


@pytest.mark.parametrize("form", NO_PARAMS)
@pytest.mark.parametrize("mode", ["decode-only", "fail"])
def test_prefill_without_params(pdctl, mode, form):
    def without(seen, wire):
        wire.reply(200, (json.dumps(COMPLETION)[:-1] + NO_PARAMS[form] + "}").encode())

    with FakeEngine(without) as p, FakeEngine(reply_completion) as decode:
        router = pd_pair(pdctl, p, decode, "--pd-fallback", mode, *FAST, "--retry-max-retries", 2)
        code, headers, raw = router.post("/v1/completions", BODY)
        if mode == "fail":
            assert code == 502 and "returned no kv_transfer_params" in json.loads(raw)["error"]["message"], raw
            assert len(p.seen) == 1 and not decode.seen, "never twice to the same worker"
            assert headers["X-Decode-Worker"] is None
        else:
            assert code == 200 and decode.seen[0].json() == BODY
        assert router.metric("pdctl_pd_fallback_total") == (0 if mode == "fail" else 1)
        idle(router)


def test_prefill_without_params_is_tried_elsewhere(pdctl):
    with FakeEngine(reply_completion) as bad, FakeEngine(reply_prefill) as good, FakeEngine(reply_completion) as decode:
        router = router_of(pdctl, [bad.url, good.url], [decode.url], "--pd-fallback", "fail")
        for _ in range(4):
            code, headers, raw = router.post("/v1/completions", BODY)
            assert (code, headers["X-Prefill-Worker"]) == (200, good.url), raw
        assert bad.seen and all("kv_transfer_params" in s.json() for s in decode.seen)
        idle(router)


def test_a_passed_lease_means_a_new_prefill_and_ends(pdctl):
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as decode:
        router = pd_pair(pdctl, p, decode, "--pd-lease-secs", 0.000001, "--retry-max-retries", 3, *FAST)
        code, headers, raw = router.post("/v1/completions", BODY)
        assert code == 504 and "lease" in json.loads(raw)["error"]["message"], raw
        assert len({s.header("x-request-id") for s in p.seen}) == 3 and not decode.seen
        assert headers["X-Decode-Worker"] is None
        assert router.metric("pdctl_pd_reprefill_total") == 3
        idle(router)


# -- usage of both legs --

PREFILL_USAGE = {"prompt_tokens": 70, "completion_tokens": 1, "total_tokens": 71, "prompt_tokens_details": {"cached_tokens": 64}}


def prefill_with_usage(seen, wire):
    wire.json({**COMPLETION, "usage": PREFILL_USAGE, "kv_transfer_params": {"do_remote_prefill": True, "remote_request_id": "r", "remote_block_ids": [[1]]}})


def test_usage_is_merged_in_json_and_no_other_byte_changes(pdctl):
    before = b'{ "id":"x" ,"n":1.50e+3,"s":"\\u0000\\/\xc3\xa9", "usage" : '
    usage = b'{"prompt_tokens":70,"completion_tokens":5, "total_tokens":75,"prompt_tokens_details":{"cached_tokens":70}}'
    after = b' ,"usage2":{"prompt_tokens":1},"choices":[ ]  }'
    with FakeEngine(prefill_with_usage) as p, FakeEngine(lambda seen, wire: wire.reply(200, before + usage + after)) as d:
        router = pd_pair(pdctl, p, d)
        code, headers, raw = router.post("/v1/completions", BODY)
        assert code == 200 and int(headers["Content-Length"]) == len(raw)
        assert raw.startswith(before) and raw.endswith(after), raw
        merged = json.loads(raw)["usage"]
        assert merged == {**json.loads(usage), "prompt_tokens_details": {"cached_tokens": 64}}
        assert raw == before + usage.replace(b'{"cached_tokens":70}', b'{"cached_tokens": 64}') + after


def test_a_large_answer_without_length_is_passed_as_it_is(pdctl):
    body = b'{"choices":["' + b"0123456789abcdef" * (600 << 10) + b'"],"usage":{"prompt_tokens":70,"completion_tokens":5,"total_tokens":75}}'

    def answer(seen, wire):
        wire.begin_stream("application/json")
        for at in range(0, len(body), 1 << 20):
            wire.chunk(body[at : at + (1 << 20)])
        wire.end_stream()

    with FakeEngine(prefill_with_usage) as p, FakeEngine(answer) as d:
        router = pd_pair(pdctl, p, d)
        code, headers, raw = router.post("/v1/completions", BODY)
        assert code == 200 and raw == body
        assert len(d.seen) == 1


@pytest.mark.parametrize("cut", [1, 7, 64, 100000])
def test_usage_is_merged_in_streams_and_no_other_byte_changes(pdctl, cut):
    """Continuous usage: in every event. The stream arrives in pieces of `cut` bytes that know nothing of events."""
    decode = b'{"prompt_tokens":70,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":69}}'
    text = b": a comment\n\n"
    for i in range(1, 6):
        text += b'data: {"choices":[{"index":0,"text":"t\\u0000 usage %d"}] , "usage": ' % i + decode % (70 + i, i) + b"}\n\n"
    text += b'event: odd\ndata:{"choices":[],"usage":null}\r\n\r\n'
    text += b'data: {"choices":[],"usage":' + decode % (75, 5) + b'}\n\ndata: [DONE]\n\n'

    def stream(seen, wire):
        wire.begin_stream()
        for at in range(0, len(text), cut):
            wire.chunk(text[at : at + cut])
        wire.end_stream()

    with FakeEngine(prefill_with_usage) as p, FakeEngine(stream) as d:
        router = pd_pair(pdctl, p, d)
        code, _, raw = router.post("/v1/completions", {**BODY, "stream": True, "stream_options": {"continuous_usage_stats": True}})
        assert code == 200
        assert raw == text.replace(b'{"cached_tokens":69}', b'{"cached_tokens": 64}')
        assert d.seen[0].json()["stream_options"] == {"continuous_usage_stats": True}
        assert "stream_options" not in p.seen[0].json()


@pytest.mark.parametrize("stream", [False, True])
def test_usage_of_real_legs(pdctl, stream):
    router, ps, ds = fleet(pdctl, prefill=1, decode=1)
    want = None
    for turn in range(2):
        code, _, raw = router.post("/v1/completions", {**BODY, "stream": stream, "stream_options": {"include_usage": True}} if stream else BODY)
        assert code == 200
        usage = json.loads(sse_events(raw)[-2] if stream else raw)["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] and usage["completion_tokens"] == 4
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        want = want or usage["prompt_tokens"] // 16 * 16
        assert cached == (want if turn else 0), "what prefill had cached, not what decode fetched"
    assert mistakes(ps + ds) == {}


# -- clients that leave --


def test_a_client_that_leaves_in_a_silent_prefill_stops_it(pdctl):
    router, ps, ds = fleet(pdctl, prefill=1, decode=1, worker=("--prefill-tokens-per-s", 1))
    s = send_and_keep(router, BODY)
    wait_for("the prefill to run", lambda: ps[0].metric("pdctl_worker_running") == 1)
    begin = time.monotonic()
    s.close()
    wait_for("the worker to stop", lambda: ps[0].metric("pdctl_worker_running") == 0, step=0.002)
    print(f"stopped after {(time.monotonic() - begin) * 1000:.1f} ms")
    idle(router, ps + ds)
    assert [r["outcome"] for r in ps[0].get_json("/pdctl/requests")["requests"]] == ["aborted"]
    assert ds[0].get_json("/pdctl/requests")["requests"] == [], "there was nothing to free"
    wait_for("it to be counted", lambda: router.metric("pdctl_client_left_total") == 1)
    assert mistakes(ps + ds) == {}


def test_a_client_that_leaves_with_the_prefill_answer_frees_the_blocks(pdctl):
    """The router stands still while the prefill answer arrives and the client leaves: decode is told all the same and frees the blocks."""
    p = pdctl.worker("--role", "prefill", *WORKER, "--kv-lease-s", 120)
    d = pdctl.worker("--role", "decode", *WORKER)
    answered = threading.Event()

    def between(seen, wire):
        """Passes the request on to the real worker, and the answer back once the router is stopped."""
        headers = {n: v for n, v in seen.headers if n.lower() in ("x-request-id", "content-type")}
        code, _, raw = p.request("POST", seen.target, seen.body, headers)
        router.freeze()
        wire.reply(code, raw)
        answered.set()

    with FakeEngine(between) as engine:
        router = pd_pair(pdctl, engine, d, *FAST)
        for _ in range(20):
            answered.clear()
            s = send_and_keep(router, BODY)
            assert answered.wait(60)
            s.close()
            router.signal(signal.SIGCONT)
            idle(router, [d])
        engine.check()
        # A thread that waits in a receive sees a client leave when it comes out: decode may have answered all of it by then.
        least = 10 if harness.IO == "threads" else 20
        wait_for("the last one to be counted", lambda: least <= router.metric("pdctl_client_left_total") <= 20)
        assert router.metric("pdctl_pd_released_total") >= 1
    assert p.metric('pdctl_worker_requests_total{leg="prefill"}') == 20
    wait_for("the last lease", lambda: p.metric("pdctl_worker_kv_leases") == 0)
    assert mistakes([p, d]) == {}


def test_a_client_that_leaves_in_decode_stops_it_and_frees_the_blocks(pdctl):
    p = pdctl.worker("--role", "prefill", *WORKER, "--kv-lease-s", 1.5)
    d = pdctl.worker("--role", "decode", *WORKER, "--decode-ms-per-token", 2000)
    router = pd_pair(pdctl, p, d, *FAST)
    for _ in range(5):
        s = send_and_keep(router, {**BODY, "max_tokens": 50, "stream": True})
        wait_for("decode to run", lambda: d.metric("pdctl_worker_running") >= 1)
        s.close()
        idle(router, [p, d])
    wait_for("the last lease", lambda: p.metric("pdctl_worker_kv_leases") == 0)
    assert mistakes([p, d]) == {}
    wait_for("it to be counted", lambda: router.metric("pdctl_client_left_total") == 5)


# -- breaker, ids, bodies --


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_the_breaker_works_on_both_legs(pdctl, role):
    router, ps, ds = fleet(pdctl, "--cb-failure-threshold", 3, "--cb-timeout-duration-secs", 3, "--cb-success-threshold", 1)
    bad = (ps if role == "prefill" else ds)[0]
    other = (ps if role == "prefill" else ds)[1]
    header = f"X-{role.capitalize()}-Worker"
    faults(bad, fail_rate=1, fail_status=500)

    def state():
        return {k: v for k, v in router.metrics().items() if k.startswith("vllm_router_cb_state{") and bad.url in k}

    for _ in range(8):
        code, headers, raw = router.post("/v1/completions", BODY)
        assert (code, headers[header]) == (200, other.url), raw
    asked = bad.metric("pdctl_worker_faults_total")
    assert 3 <= asked <= 5 and list(state().values()) != [0], (asked, state())
    faults(bad, fail_rate=0)

    def back():
        return router.post("/v1/completions", BODY)[1][header] == bad.url

    wait_for("the breaker to let it work again", back, step=0.05)
    # The verdict is recorded after the answer's last byte went out.
    wait_for("the breaker to close", lambda: list(state().values()) == [0])
    assert mistakes(ps + ds) == {}


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_4xx_never_opens_the_breaker(pdctl, role):
    router, ps, ds = fleet(pdctl, "--cb-failure-threshold", 2, prefill=1, decode=1)
    faults((ps if role == "prefill" else ds)[0], fail_rate=1, fail_status=422)
    for _ in range(8):
        code, headers, raw = router.post("/v1/completions", BODY)
        assert code == 422, raw
    assert sum(v for k, v in router.metrics().items() if k.startswith("vllm_router_cb_state{")) == 0


@pytest.mark.parametrize("sent", ["client-id-1", None])
def test_the_id_is_the_same_on_both_legs_of_each_attempt(pdctl, sent):
    def fail(seen, wire):
        wire.json({"error": "x"}, 500)

    with FakeEngine(reply_prefill) as p, FakeEngine(fail) as one, FakeEngine(fail) as two:
        router = router_of(pdctl, [p.url], [one.url, two.url], "--retry-max-retries", 3)
        code, headers, _ = router.post("/v1/completions", BODY, {"X-Request-Id": sent} if sent else {})
        assert code == 500
        ids = [s.header("x-request-id") for s in p.seen]
        assert ids == [headers["X-Request-Id"] + suffix for suffix in ("", "-r1")]
        assert sent in (None, headers["X-Request-Id"])
        assert sorted(s.header("x-request-id") for s in one.seen + two.seen) == sorted(ids)


def test_a_large_body_is_edited_and_nothing_else_changes(pdctl):
    text = b"0123456789abcde\\n" * (1 << 20)
    body = b'{"a":[1.0,{"max_tokens":9}],"prompt":"' + text + b'","max_tokens": 7 ,"stream_options":{"include_usage":true},"stream": true, "z":1e400}'
    want = b'{"a":[1.0,{"max_tokens":9}],"prompt":"' + text + b'","max_tokens": 1,"stream": false, "z":1e400,'

    def stream(seen, wire):
        wire.begin_stream()
        wire.event("[DONE]")
        wire.end_stream()

    with FakeEngine(reply_prefill) as p, FakeEngine(stream) as d:
        router = pd_pair(pdctl, p, d)
        code, _, raw = router.post("/v1/completions", body, {"Content-Type": "application/json"})
        assert code == 200 and raw == b"data: [DONE]\n\n"
        got = p.seen[0].body
        assert got.startswith(want), got.partition(text)[::2]
        tail = json.loads(b"{" + got[len(want) :])
        assert tail["min_tokens"] == 1 and tail["kv_transfer_params"]["do_remote_decode"] is True and len(tail) == 2
        assert d.seen[0].body.startswith(body[:-1])
        p.check(), d.check()


EDITED = ("n", "max_tokens", "min_tokens", "max_completion_tokens", "stream", "stream_options", "kv_transfer_params")


@pytest.mark.parametrize("field", EDITED)
def test_edited_fields_that_occur_twice_are_400(pdctl, field):
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router = pd_pair(pdctl, p, d)
        escaped = "\\u%04x" % ord(field[0]) + field[1:]
        for second in (field, escaped):
            body = f'{{"model":"m","prompt":"p","{field}":null,"x":1,"{second}":null}}'.encode()
            code, headers, raw = router.post("/v1/completions", body, {"Content-Type": "application/json"})
            error = json.loads(raw)["error"]
            assert code == 400 and f'"{field}" occurs 2 times' in error["message"], raw
            assert headers["X-Prefill-Worker"] is None and headers["X-Decode-Worker"] is None, "nobody was called"
        assert not p.seen and not d.seen
        assert router.metric("pdctl_duplicate_fields_total") == 2
        idle(router)


# -- connectors --


def test_each_connector_serves(pdctl):
    """By its name, end to end; the simulated worker decodes without blocks when it does not know the connector."""
    names = run("serve", "--list-connectors").stdout.split()
    assert names[0] == "nixl"
    p, d = (pdctl.worker("--role", role, "--speedup", 100) for role in ("prefill", "decode"))
    bootstrap = FakeEngine(lambda seen, wire: wire.json({"0": {"engine_id": "e"}}))
    for name in names:
        router = pdctl("serve", "--pd-disaggregation", "--prefill", p.url, str(bootstrap.port), "--decode", d.url, *FAST, "--kv-connector", name)
        if name == "mooncake":
            wait_for("its engine to be known", lambda: router.post("/v1/completions", BODY)[1]["X-Prefill-Worker"])
        code, headers, raw = router.post("/v1/completions", BODY)
        assert code == 200 and headers["X-Prefill-Worker"] and json.loads(raw)["usage"]["prompt_tokens"] > 1, raw


def test_an_unknown_connector_is_refused_and_one_without_use_named(pdctl):
    done = run("serve", "--prefill", "http://127.0.0.1:1", "--decode", "http://127.0.0.1:2", "--kv-connector", "nixll")
    assert done.returncode == 2 and "--kv-connector: unknown connector 'nixll', did you mean 'nixl'? expected nixl" in done.stderr
    w = pdctl.worker(*WORKER)
    router = pdctl("serve", "--worker-urls", w.url, "--kv-connector", "nixl")
    wait_for("the warning", lambda: "--kv-connector has no effect without --prefill and --decode" in router.log())
