"""What one prefill of one sequence can stand for goes to both workers, and all the rest to a decode worker, as it is; with strict workers, which mind."""

import json

import pytest

from fake_engine import FakeEngine
from harness import wait_for
from test_pd_faults import FAST, fleet, mistakes
from test_serve_bytes import COMPLETION, pd_pair, reply_completion, reply_prefill

pytestmark = pytest.mark.both_forms

BODY = {"model": "m", "prompt": "p", "max_tokens": 5}
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


def alone(router, why):
    return router.metrics().get(f'pdctl_pd_decode_alone_total{{reason="{why}"}}')


ALONE = [
    (TEXT, {**BODY, "prompt": ["a", "b"]}, "prompts"),
    (TEXT, {**BODY, "prompt_logprobs": 1}, "prompt_logprobs"),
    (TEXT, {**BODY, "echo": True, "logprobs": 1}, "prompt_logprobs"),
    (CHAT, {"model": "m", "messages": [], "use_beam_search": True, "n": 2}, "beam_search"),
    ("/v1/responses", {"model": "m", "input": "x", "background": True}, "side_effects"),
    (TEXT, {**BODY, "truncate_prompt_tokens": -1}, "prompt_length"),
    (TEXT, {**BODY, "stream_options": {"include_usage": True}}, "invalid"),
    (TEXT, {**BODY, "max_tokens": "many"}, "invalid"),
    ("/v1/messages", {"model": "m", "max_tokens": 0, "messages": []}, "invalid"),
    ("/inference/v1/generate", {"token_ids": [1], "sampling_params": {"prompt_logprobs": 1}}, "prompt_logprobs"),
]


@pytest.mark.parametrize("path, body, why", ALONE, ids=[f"{p.rsplit('/', 1)[1]}-{w}-{i}" for i, (p, _, w) in enumerate(ALONE)])
def test_decode_alone_gets_the_body_as_it_is_and_it_is_counted(pdctl, path, body, why):
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router = pd_pair(pdctl, p, d, "--pd-fallback", "fail")
        status, headers, raw = router.post(path, {**body, "kv_transfer_params": {"remote_host": "10.9.9.9"}})
        assert status == 200 and json.loads(raw) == COMPLETION
        assert not p.seen and d.seen[0].json() == body and d.seen[0].target == path
        assert headers["X-Decode-Worker"] == d.url and headers["X-Prefill-Worker"] is None
        assert alone(router, why) == 1 and router.metric("pdctl_pd_decode_alone_total") == 1 and router.metric("pdctl_pd_fallback_total") == 0


@pytest.mark.parametrize("path, body, copy", [
    (TEXT, {**BODY, "n": 3}, {"n": 1, "max_tokens": 1, "min_tokens": 1, "stream": False}),
    (CHAT, {"model": "m", "messages": [], "n": 2}, {"n": 1, "max_tokens": 1, "min_tokens": 1, "stream": False}),
    ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": [], "stream": False}, {"max_tokens": 1, "stream": False}),
    ("/v1/messages", {"model": "m", "messages": []}, {"stream": False}),
    ("/v1/responses", {"model": "m", "input": "x"}, {"max_output_tokens": 1, "store": False, "stream": False}),
    ("/inference/v1/generate", {"token_ids": [1], "sampling_params": {"n": 2}}, {"sampling_params": {"n": 1, "max_tokens": 1, "min_tokens": 1}, "stream": False}),
    ("/inference/v1/generate", {"token_ids": [1]}, {"stream": False}),
])
def test_two_legs_of_each_form(pdctl, path, body, copy):
    """The prefill copy has one sequence of one token and nothing that its client did not send and its engine asks for; decode's is the client's."""
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router = pd_pair(pdctl, p, d)
        assert router.post(path, body)[0] == 200
        sent = p.seen[0].json()
        assert sent.pop("kv_transfer_params")["do_remote_decode"] is True
        assert sent == {**body, **copy}
        got = d.seen[0].json()
        assert got.pop("kv_transfer_params")["do_remote_prefill"] is True and got == body
        assert router.metric("pdctl_pd_decode_alone_total") == 0


def test_several_answers_of_strict_workers(pdctl):
    router, ps, ds = fleet(pdctl, "--pd-fallback", "fail", prefill=1, decode=1, worker=("--kv-lease-s", 1))
    body = {"prompt": "some words of a prompt " * 20, "n": 3, "max_tokens": 5}
    status, headers, raw = router.post(TEXT, body)
    assert status == 200 and headers["X-Prefill-Worker"] == ps[0].url, raw
    assert [c["text"] for c in json.loads(raw)["choices"]] == [c["text"] for c in ds[0].post_json(TEXT, body)["choices"]]
    assert len(json.loads(raw)["choices"]) == 3 and ps[0].metric("pdctl_worker_kv_leases") == 0
    assert ds[0].metric("pdctl_worker_kv_reads_total") == 1 and mistakes(ps + ds) == {}


@pytest.mark.parametrize("stream", [False, True])
def test_each_prompt_of_a_list_has_its_own_answer(pdctl, stream):
    router, ps, ds = fleet(pdctl, "--pd-fallback", "fail", prefill=1, decode=1)
    body = {"prompt": ["first words " * 30, "other words " * 30, "a"], "max_tokens": 6, "stream": stream}
    status, _, raw = router.post(TEXT, body)
    assert status == 200, raw
    if stream:
        texts = {}
        for e in raw.decode().split("\n\n")[:-2]:
            for c in json.loads(e[6:])["choices"]:
                texts[c["index"]] = texts.get(c["index"], "") + c["text"]
    else:
        texts = {c["index"]: c["text"] for c in json.loads(raw)["choices"]}
    assert texts == {i: ds[0].post_json(TEXT, {"prompt": p, "max_tokens": 6})["choices"][0]["text"] for i, p in enumerate(body["prompt"])}
    assert mistakes(ps + ds) == {} and alone(router, "prompts") == 1


@pytest.mark.parametrize("path, more", [
    (TEXT, {"prompt": "words of a prompt " * 20, "prompt_logprobs": 1}), (CHAT, {"messages": [{"role": "user", "content": "words " * 20}], "prompt_logprobs": 0}),
    (TEXT, {"prompt": "words of a prompt", "use_beam_search": True, "n": 2}),
])
def test_what_strict_decode_workers_refuse_with_blocks_of_others(pdctl, path, more):
    router, ps, ds = fleet(pdctl, "--pd-fallback", "fail", prefill=1, decode=1)
    status, headers, raw = router.post(path, {**more, "max_tokens": 3})
    assert status == 200 and headers["X-Prefill-Worker"] is None, raw
    direct = ds[0].post_json(path, {**more, "max_tokens": 3})
    got = json.loads(raw)
    for key in ("choices", "prompt_logprobs"):
        assert got.get(key) == direct.get(key)
    assert got["usage"]["prompt_tokens"] == direct["usage"]["prompt_tokens"] and mistakes(ps + ds) == {}
    assert "prompt_logprobs" not in more or (got["prompt_logprobs"] if path == CHAT else got["choices"][0]["prompt_logprobs"])


@pytest.mark.parametrize("more, param", [
    ({"stream_options": {"include_usage": True}}, "stream_options"), ({"max_tokens": "many"}, "max_tokens"), ({"n": 0}, "n"), ({"min_tokens": 9, "max_tokens": 5}, "min_tokens"),
    ({"stream": "maybe"}, "stream"),
])
def test_a_request_that_decode_will_refuse_fills_no_prefill_cache(pdctl, more, param):
    router, ps, ds = fleet(pdctl, prefill=1, decode=1)
    status, headers, raw = router.post(TEXT, {"prompt": "words " * 100, **more})
    assert status == 400 and json.loads(raw)["error"]["param"] == param
    assert headers["X-Prefill-Worker"] is None and ps[0].metric("pdctl_worker_requests_total") == 0 and ps[0].metric("pdctl_worker_kv_leases") == 0
    assert router.post(TEXT, {"prompt": "words", "max_tokens": 2})[0] == 200, "no breaker minds"


OTHERS = [
    ("POST", "/score", b'{"text_1":"a","text_2":"b"}'), ("POST", "/v1/rerank", b'{"query":"q","documents":["a"]}'), ("POST", "/tokenize", b'{"prompt":"a"}'),
    ("POST", "/v1/messages/count_tokens", b'{"messages":[]}'), ("POST", "/v1/chat/completions/render", b'{"messages":[]}'),
    ("POST", "/x/v1/completions", b'{"prompt":"a","max_tokens":7}'), ("GET", "/v1/models/some-model", b""), ("GET", "/version", b""),
    ("GET", "/v1/responses/resp_1", b""), ("POST", "/v1/responses/resp_1/cancel", b""), ("DELETE", "/v1/files/f", b""),
    ("POST", "/v1/audio/transcriptions", b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'), ("PUT", "/anything", b"\x00\xff"),
]


@pytest.mark.parametrize("method, path, body", OTHERS, ids=[f"{m} {p}" for m, p, _ in OTHERS])
def test_every_other_path_and_method_is_decodes(pdctl, method, path, body):
    with FakeEngine(reply_prefill) as p, FakeEngine(lambda seen, wire: wire.reply(207, b"as it is", "text/x")) as d:
        router = pd_pair(pdctl, p, d)
        status, headers, raw = router.request(method, path, body or None, {"Accept-Encoding": "br"})
        assert (status, raw, headers["Content-Type"], headers["X-Decode-Worker"]) == (207, b"as it is", "text/x", d.url)
        assert not p.seen and (d.seen[0].method, d.seen[0].target, d.seen[0].body) == (method, path, body)
        assert d.seen[0].header("accept-encoding") == "br"


def test_a_path_that_only_the_engine_takes_for_a_completion_carries_no_coordinates(pdctl):
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router = pd_pair(pdctl, p, d)
        assert router.post("/v1/completion%73", {**BODY, "kv_transfer_params": {"remote_host": "10.9.9.9"}})[0] == 200
        assert d.seen[0].json() == BODY
        assert router.post("/v1/completion%73", {**BODY, "vllm_xargs": {"kv_transfer_params": {}}})[0] == 400


def test_an_object_that_cannot_be_read_is_refused_on_every_path(pdctl):
    wide = b"{" + b",".join(b'"k%d":1' % i for i in range(5000)) + b',"kv_transfer_params":{"remote_host":"10.9.9.9"}}'
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router = pd_pair(pdctl, p, d)
        for path in (TEXT, "/v1/completion%73", "/score"):
            assert router.post(path, wide, {"Content-Type": "application/json"})[0] == 400
        assert not p.seen and not d.seen


def test_models_by_its_short_name(pdctl):
    p, d = (pdctl.worker("--role", role) for role in ("prefill", "decode"))
    for router in (pd_pair(pdctl, p, d), pdctl("serve", "--worker-urls", d.url)):
        wait_for("models", lambda: router.get("/v1/models")[0] == 200)
        assert router.get_json("/models") == router.get_json("/v1/models") and router.get_json("/models")["data"]


def test_an_answer_without_parameters_opens_no_breaker(pdctl):
    with FakeEngine(reply_completion) as bare, FakeEngine(reply_completion) as d:
        router = pd_pair(pdctl, bare, d, *FAST, "--pd-fallback", "fail", "--retry-max-retries", 1, "--cb-failure-threshold", 2)
        for _ in range(6):
            status, _, raw = router.post(TEXT, BODY)
            assert status == 502 and "returned no kv_transfer_params" in raw.decode()
        assert len(bare.seen) == 6


MARKS = {
    "utf-8-sig": lambda s: s.encode("utf-8-sig"), "utf-16": lambda s: s.encode("utf-16"), "utf-16-le": lambda s: s.encode("utf-16-le"),
    "utf-16-be with a mark": lambda s: b"\xfe\xff" + s.encode("utf-16-be"), "utf-32": lambda s: s.encode("utf-32"), "utf-32-be": lambda s: s.encode("utf-32-be"),
}


@pytest.mark.parametrize("how", MARKS)
def test_bodies_are_read_as_python_reads_them(pdctl, how):
    body = {"model": "m", "prompt": "häß\u20ac\U0001f600", "stream": False}
    raw = MARKS[how](json.dumps(body, ensure_ascii=False))
    assert json.loads(raw) == body
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router = pd_pair(pdctl, p, d)
        status, _, answer = router.post(TEXT, raw, {"Content-Type": "application/json"})
        assert status == 200, answer
        sent, got = p.seen[0].json(), d.seen[0].json()
        assert sent["prompt"] == body["prompt"] and sent["max_tokens"] == 1
        assert got.pop("kv_transfer_params") and got == body
        plain = pdctl("serve", "--worker-urls", d.url)
        assert plain.post(TEXT, raw, {"Content-Type": "application/json"})[0] == 200
        assert d.seen[1].body == raw, "a plain pool passes it as it came"


@pytest.mark.parametrize("raw", [b"\xff\xfe{", b"\xef\xbb\xbf", b"\xff\xfe\x00\xd8\x00\x00", b"\x00\x00\xfe\xff\x00\x11\x00\x00"])
def test_bodies_that_no_encoding_fits_are_400(pdctl, raw):
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router = pd_pair(pdctl, p, d)
        assert router.post(TEXT, raw, {"Content-Type": "application/json"})[0] == 400
        assert not p.seen and not d.seen
