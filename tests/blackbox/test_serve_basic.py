"""The router with its workers: sessions stay, answers equal a worker's own, routes, drain, log, refusals."""

import asyncio
import json
import re
import signal
import threading

import aiohttp
import pytest

from fake_engine import FakeEngine
from harness import free_port, parse_metrics, request, sse_events, wait_for
from test_serve_bytes import COMPLETION, pd_pair, reply_completion, reply_prefill

pytestmark = pytest.mark.both_forms

MODEL = "demo"
SESSIONS = [f"session_{name}" for name in "alpha_001 beta_002 gamma_003 delta_004 epsilon_005 zeta_006".split()]


def start_pd(pdctl, *flags, worker=()):
    """Two strict workers per role under fixed names, and the router: (router, prefill workers, decode workers)."""
    pools = {"prefill": [], "decode": []}
    words = []
    for role, pool in pools.items():
        for i in (1, 2):
            pool.append(pdctl("worker", "--role", role, "--model", MODEL, "--strict", "--speedup", 100, *worker))
            words += [f"--{role}", f"{role}-{i}={pool[-1].url}"]
    router = pdctl("serve", "--pd-disaggregation", *words, "--policy", "consistent_hash", *flags)
    return router, pools["prefill"], pools["decode"]


def no_mistakes(workers):
    for w in workers:
        assert w.metric("pdctl_worker_protocol_mistakes_total") == 0, w.log()


def raw_exchange(server, data, timeout=15):
    """Sends bytes, returns everything until the router closes."""
    with server.connect(timeout) as s:
        s.sendall(data)
        got = b""
        while True:
            piece = s.recv(65536)
            if not piece:
                return got
            got += piece


def test_sessions_stay_on_their_workers(pdctl):
    """A plain aiohttp client with session_params.session_id and user in chat bodies, all requests of a session at once."""
    router, prefill, decode = start_pd(pdctl)
    seen = {s: set() for s in SESSIONS}

    async def ask(client, session, turn):
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"What is the capital of France? (Request {turn})"}],
            "max_tokens": 5,
            "temperature": 0.1,
            "session_params": {"session_id": session},
            "user": session,
        }
        async with client.post(f"{router.url}/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            assert (await answer.json())["choices"][0]["message"]["content"]
            seen[session].add((answer.headers["X-Prefill-Worker"], answer.headers["X-Decode-Worker"]))

    async def everybody():
        async with aiohttp.ClientSession() as client:
            await asyncio.gather(*(ask(client, s, i) for s in SESSIONS for i in range(20)))

    asyncio.run(everybody())
    assert all(len(pairs) == 1 for pairs in seen.values()), seen
    assert {p for pairs in seen.values() for p, _ in pairs} == {w.url for w in prefill}
    assert {d for pairs in seen.values() for _, d in pairs} == {w.url for w in decode}
    no_mistakes(prefill + decode)


def test_a_changed_port_moves_no_session(pdctl):
    def map_sessions():
        router, prefill, decode = start_pd(pdctl)
        names = {w.url: i for i, w in enumerate(prefill)} | {w.url: i for i, w in enumerate(decode)}
        where = {}
        for s in SESSIONS:
            body = {"model": MODEL, "prompt": "hi", "max_tokens": 1, "session_id": s}
            status, headers, _ = router.post("/v1/completions", body)
            assert status == 200
            where[s] = names[headers["X-Prefill-Worker"]], names[headers["X-Decode-Worker"]]
        return where

    assert map_sessions() == map_sessions()


def text_of(server, chat, prompt, stream):
    path, body = "/v1/completions", {"model": MODEL, "prompt": prompt, "max_tokens": 24, "temperature": 0, "stream": stream}
    if chat:
        path = "/v1/chat/completions"
        body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
    status, headers, raw = server.post(path, body, {"X-Session-Id": "greedy"})
    assert status == 200, raw
    if not stream:
        choice = json.loads(raw)["choices"][0]
        return choice["message"]["content"] if chat else choice["text"]
    assert headers["Content-Type"].startswith("text/event-stream")
    events = sse_events(raw)
    assert events[-1] == "[DONE]"
    choices = [c for e in events[:-1] for c in json.loads(e)["choices"]]
    return "".join((c["delta"].get("content") or "") if chat else c["text"] for c in choices)


@pytest.mark.parametrize("chat", [False, True], ids=["completions", "chat"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_greedy_text_equals_a_worker_asked_directly(pdctl, chat, stream):
    router, prefill, decode = start_pd(pdctl)
    alone = pdctl("worker", "--model", MODEL, "--strict", "--speedup", 100)
    long = " ".join(f"word{i}" for i in range(100))
    cases = {
        "shorter than a block": "hi there",
        "cold": long,
        "full prefix hit": long,
        "partial prefix hit": long + " and now something else altogether, which nobody has asked before",
        "cut prefix": long[: len(long) // 2],
    }
    for name, prompt in cases.items():
        want = text_of(alone, chat, prompt, False)
        assert want, name
        assert text_of(router, chat, prompt, stream) == want, name
    assert sum(w.metric("vllm:prefix_cache_hits") for w in prefill) > 0, "the prefix cases really hit"
    no_mistakes(prefill + decode)


def test_routes(pdctl):
    with FakeEngine(reply_completion, ["m", "only-a"]) as a, FakeEngine(reply_completion, ["m", "only-b"]) as b:
        router = pdctl("serve", "--worker-urls", a.url, b.url, "--prometheus-port", 0)
        admin = router.admin_url
        assert router.get("/liveness")[0] == 200
        assert router.get("/health")[0] == 200
        status, _, raw = router.get("/readiness")
        assert status == 200
        ready = json.loads(raw)
        assert (ready["status"], ready["healthy_workers"], ready["total_workers"]) == ("ready", 2, 2)
        models = router.get_json("/v1/models")
        assert models["object"] == "list"
        assert sorted(m["id"] for m in models["data"]) == ["m", "only-a", "only-b"], "the union, each once"
        assert json.loads(router.admin("GET", "/list_workers")[2])["urls"] == [a.url, b.url]
        loads = json.loads(router.admin("GET", "/get_loads")[2])["workers"]
        assert {w["worker"]: w["load"] for w in loads} == {a.url: 0, b.url: 0}
        for i in range(3):
            assert router.post("/v1/completions", {"model": "m", "prompt": f"{i}"})[0] == 200
        status, headers, page = router.get("/metrics")
        assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
        other = request(admin, "GET", "/metrics")[2].decode()
        names = {n.split("{")[0] for n in parse_metrics(page.decode())}
        assert names == {n.split("{")[0] for n in parse_metrics(other)}
        assert sum(v for n, v in parse_metrics(other).items() if re.match(r"\w*requests_total", n)) >= 3
        assert b"# TYPE" in page and b"# HELP" in page


def test_loads_count_to_the_end_of_the_stream(pdctl):
    go = threading.Event()

    def slow(seen, wire):
        wire.begin_stream()
        wire.event({"choices": []})
        go.wait(30)
        wire.end_stream()

    with FakeEngine(slow) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        with router.connect() as s:
            s.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n{"model":"m","prompt":"p","stream":true}')
            assert s.recv(4096)
            assert router.get_json("/get_loads")["workers"][0]["load"] == 1
            go.set()
            wait_for("the load to fall", lambda: router.get_json("/get_loads")["workers"][0]["load"] == 0)


def test_embeddings_and_chat_through_the_regular_mode(pdctl):
    worker = pdctl("worker", "--model", MODEL, "--speedup", 100)
    router = pdctl("serve", "--worker-urls", worker.url)
    direct = worker.post_json("/v1/embeddings", {"model": MODEL, "input": "x"})
    assert router.post_json("/v1/embeddings", {"model": MODEL, "input": "x"})["data"] == direct["data"]
    assert text_of(router, True, "x", True) == text_of(worker, True, "x", False)


def test_log_lines_that_people_grep_for(pdctl):
    with FakeEngine(reply_prefill) as prefill, FakeEngine(reply_completion) as decode:
        router = pd_pair(pdctl, prefill, decode, "--policy", "consistent_hash", "--decode-policy", "round_robin", "--log-level", "debug")
        assert router.post("/v1/completions", {"model": "m", "prompt": "p"}, {"X-Session-Id": "s", "X-Request-Id": "find-me"})[0] == 200
        line = re.compile(r"vLLM policy-based routing: prefill=(\S+) \[policy:consistent_hash\], decode=(\S+) \[policy:round_robin\]")
        found = wait_for("the routing line", lambda: line.search(router.log()))
        assert str(prefill.port) in found.group(1) and str(decode.port) in found.group(2)
        scoring = [x for x in wait_for("the decision", lambda: [x for x in router.log().splitlines() if "Scoring decision" in x])]
        decision = json.loads(scoring[0][scoring[0].index("{") :])
        assert '"selected":["' in scoring[0]
        assert decision["selected"] and all(isinstance(x, str) for x in decision["selected"])
        assert {"scores", "margin", "reason"} <= decision.keys(), decision
        assert any("find-me" in x for x in scoring)


@pytest.mark.parametrize("form", ["length", "chunked"])
def test_a_body_over_the_limit_is_413_that_the_client_can_read(pdctl, form):
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-payload-size", "1000")
        big = b'{"model":"m","prompt":"' + b"x" * 20000 + b'"}'
        framing = b"Content-Length: %d\r\n\r\n%s" % (len(big), big)
        if form == "chunked":
            framing = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(big), big)
        answer = raw_exchange(router, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + framing)
        assert answer.startswith(b"HTTP/1.1 413 "), answer[:300]
        assert engine.seen == []
        assert router.post("/v1/completions", {"model": "m", "prompt": "p"})[0] == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"a":1}{', b'{"a":01}', b'{"a":"\x01"}', b'{"a":"\xff"}'], ids=repr)
def test_a_body_that_is_no_json_object_is_400_in_pd(pdctl, body):
    with FakeEngine(reply_prefill) as prefill, FakeEngine(reply_completion) as decode:
        router = pd_pair(pdctl, prefill, decode)
        status, headers, raw = router.post("/v1/completions", body, {"Content-Type": "application/json"})
        assert status == 400 and "message" in json.loads(raw)["error"]
        assert prefill.seen == [] and decode.seen == []


def test_sigterm_lets_streams_finish(pdctl):
    go = threading.Event()

    def slow(seen, wire):
        wire.begin_stream()
        wire.event("first")
        go.wait(30)
        wire.event("last")
        wire.end_stream()

    with FakeEngine(slow) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        body = b'{"model":"m","prompt":"p","stream":true}'
        with router.connect() as s, router.connect() as idle:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            got = b""
            while b"first" not in got:
                got += s.recv(4096)
            router.signal(signal.SIGTERM)
            idle.settimeout(20)
            assert idle.recv(1) == b"", "idle connections are closed at once"
            assert router.alive(), "it waits for the stream"
            go.set()
            while not got.endswith(b"0\r\n\r\n"):
                piece = s.recv(4096)
                assert piece, "the stream was cut"
                got += piece
            assert b"last" in got
        assert router.wait() == 0


def test_no_worker_left_is_503_with_a_reason(pdctl):
    router = pdctl("serve", "--worker-urls", f"http://127.0.0.1:{free_port()}")
    status, _, raw = router.post("/v1/completions", {"model": "m", "prompt": "p"})
    assert status in (502, 503) and json.loads(raw)["error"]["message"]


def test_policies_spread(pdctl):
    with FakeEngine(reply_completion) as a, FakeEngine(reply_completion) as b:
        router = pdctl("serve", "--worker-urls", a.url, b.url, "--policy", "round_robin")
        for _ in range(10):
            assert router.post("/v1/completions", {"model": "m", "prompt": "p"}, {"X-Session-Id": "same"})[0] == 200
        assert (len(a.seen), len(b.seen)) == (5, 5)


@pytest.mark.parametrize("length", [10, 250])
def test_a_decision_line_is_never_lost_for_its_length(pdctl, length):
    """Long names: the line is shortened between two candidates, says so, and is one JSON object. It was dropped."""
    with FakeEngine(reply_completion) as engine:
        names = [f"{i}" + "\x01" * length for i in range(4)]  # six bytes each in the line
        urls = [f"{name}=http://127.0.0.1:{engine.port}/{i}" for i, name in enumerate(names)]
        router = pdctl("serve", "--worker-urls", *urls, "--policy", "least_request", "--log-level", "debug")
        for _ in range(8):
            assert router.post("/v1/completions", {"model": "m", "prompt": "p"}, {"X-Request-Id": "r" * 250})[0] == 200
        wait_for("all lines", lambda: router.log().count('"Scoring decision"') == 8)
        lines = [json.loads(line) for line in router.log().splitlines() if '"Scoring decision"' in line]
        for line in lines:
            assert line["reason"] == "load" and "margin" in line and line["attempt"] == 0
            assert len(line["scores"]) + line.get("scores_omitted", 0) == 4
            assert set(line["scores"]) <= set(names) and ("scores_omitted" in line) == (length == 250)
        assert router.metric("pdctl_log_lines_dropped_total") == 0
