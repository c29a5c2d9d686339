"""Prefill and decode in each form of a generation, with strict workers: the same text and the same numbers as one worker alone; and where every other path goes."""

import json

import pytest

from fake_engine import FakeEngine
from harness import sse_events, wait_for
from test_pd_faults import FAST, fleet, mistakes
from test_serve_bytes import pd_pair

pytestmark = pytest.mark.both_forms

WORDS = "words of a prompt that fills some blocks " * 12
IDS = list(range(1000, 1100))
FORMS = {
    "chat": ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": WORDS}], "max_tokens": 6}),
    "completions": ("/v1/completions", {"model": "m", "prompt": WORDS, "max_tokens": 6}),
    "echo": ("/v1/completions", {"model": "m", "prompt": WORDS, "max_tokens": 6, "echo": True}),
    "messages": ("/v1/messages", {"model": "m", "max_tokens": 6, "system": "be short", "messages": [{"role": "user", "content": WORDS}]}),
    "responses": ("/v1/responses", {"model": "m", "max_output_tokens": 6, "instructions": "be short", "input": WORDS}),
    "generate": ("/inference/v1/generate", {"model": "m", "token_ids": IDS, "sampling_params": {"max_tokens": 6}}),
}


def text_of(name, raw, stream):
    """What was generated: words, or token ids."""
    if not stream:
        a = json.loads(raw)
        return {"chat": lambda: a["choices"][0]["message"]["content"], "completions": lambda: a["choices"][0]["text"], "echo": lambda: a["choices"][0]["text"],
                "messages": lambda: a["content"][0]["text"], "responses": lambda: a["output"][0]["content"][0]["text"],
                "generate": lambda: a["choices"][0]["token_ids"]}[name]()  # fmt: skip
    if name in ("messages", "responses"):
        events = [json.loads(line[6:]) for line in raw.decode().split("\n") if line.startswith("data: ")]
        return "".join(e["delta"]["text"] if name == "messages" else e["delta"] for e in events if e["type"] in ("content_block_delta", "response.output_text.delta"))
    chunks = [json.loads(e)["choices"] for e in sse_events(raw)[:-1]]
    if name == "generate":
        return [i for c in chunks for part in c for i in part["token_ids"]]
    return "".join(part["delta"].get("content", "") if name == "chat" else part["text"] for c in chunks for part in c)


def usage_of(raw, stream):
    """Each usage in an answer, in its order."""
    docs = [json.loads(line[6:]) for line in raw.decode().split("\n") if line.startswith("data: {")] if stream else [json.loads(raw)]
    return [u for d in docs for u in (d.get("usage"), (d.get("message") or {}).get("usage"), (d.get("response") or {}).get("usage")) if u]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", FORMS)
def test_two_legs_answer_as_one_worker(pdctl, name, stream):
    path, body = FORMS[name]
    body = {**body, "stream": stream}
    if stream and name not in ("messages", "responses"):
        body["stream_options"] = {"include_usage": True}
    router, ps, ds = fleet(pdctl, "--pd-fallback", "fail", prefill=1, decode=1)
    plain = pdctl.worker("--strict", "--speedup", 100)
    for turn in range(2):  # the second finds the prompt in the cache of prefill, as of the one worker
        want = plain.post(path, body)
        got = router.post(path, body)
        assert got[0] == want[0] == 200 and got[1]["X-Prefill-Worker"] == ps[0].url, got
        assert text_of(name, got[2], stream) == text_of(name, want[2], stream)
        assert usage_of(got[2], stream) == usage_of(want[2], stream) and usage_of(got[2], stream)
        assert turn == 0 or "112" in json.dumps(usage_of(got[2], stream)) or "96" in json.dumps(usage_of(got[2], stream)), "cached tokens are prefill's"
    wait_for("the leases to end", lambda: ps[0].metric("pdctl_worker_kv_leases") == 0)
    assert ds[0].metric("pdctl_worker_kv_reads_total") == 2 and ps[0].metric('pdctl_worker_requests_total{leg="prefill"}') == 2
    assert mistakes(ps + ds) == {}


@pytest.mark.parametrize("name", [n for n in FORMS if n != "echo"])
def test_blocks_that_decode_refuses_are_freed(pdctl, name):
    """A limit that only the model's length refuses: prefill takes it with one token, decode says 400. The lease is long."""
    path, body = FORMS[name]
    ps = [pdctl.worker("--role", "prefill", "--strict", "--speedup", 100, "--kv-lease-s", 300)]
    ds = [pdctl.worker("--role", "decode", "--strict", "--speedup", 100, "--max-model-len", 300, "--num-gpu-blocks", 8)]
    router = pd_pair(pdctl, ps[0], ds[0], *FAST)
    limit = "max_output_tokens" if name == "responses" else "max_tokens"
    big = {**body, "sampling_params": {limit: 290}} if name == "generate" else {**body, limit: 290}
    for n in range(1, 3):
        status, headers, raw = router.post(path, big)
        assert status == 400 and headers["X-Prefill-Worker"] == ps[0].url and "300 tokens" in raw.decode(), raw
        wait_for("the blocks to be freed", lambda: ps[0].metric("pdctl_worker_kv_leases") == 0)
        wait_for("it to be counted", lambda n=n: router.metric("pdctl_pd_released_total") == n)
    assert ps[0].metric('pdctl_worker_requests_total{leg="prefill"}') == 2 and mistakes(ps + ds) == {}
    assert router.post(path, body)[0] == 200


PAIR = {p for p, _ in FORMS.values()}
# What OpenAI's API, vLLM's servers and their neighbours (rerankers, audio, realtime, SageMaker) have, with the worker that gets it in P/D.
PATHS = """
POST pair    /v1/chat/completions /v1/completions /v1/responses /v1/messages /inference/v1/generate
POST prefill /v1/embeddings
POST decode  /v1/chat/completions/render /v1/completions/render /v1/chat/completions/batch /v1/chat/completions/chatcmpl-1 /v1/messages/count_tokens
POST decode  /v1/messages/batches /v1/responses/resp_1/cancel /v1/responses/input_tokens /v1/responses/compact /v1/embeddings/render /inference/v1/cancel
POST decode  /tokenize /detokenize /pooling /classify /v1/classify /score /v1/score /rerank /v1/rerank /v2/rerank /v2/embed /generative_scoring /generate
POST decode  /v1/audio/transcriptions /v1/audio/translations /v1/audio/speech /v1/images/generations /v1/images/edits /v1/images/variations /v1/videos
POST decode  /v1/moderations /v1/files /v1/uploads /v1/uploads/u/parts /v1/uploads/u/complete /v1/batches /v1/batches/b/cancel /v1/fine_tuning/jobs
POST decode  /v1/vector_stores /v1/vector_stores/v/search /v1/threads /v1/threads/t/messages /v1/threads/runs /v1/assistants /v1/conversations
POST decode  /v1/conversations/c/items /v1/containers /v1/evals /v1/realtime/sessions /v1/load_lora_adapter /v1/unload_lora_adapter /invocations /ping
POST decode  /sleep /wake_up /reset_prefix_cache /reset_mm_cache /collective_rpc /pause /resume /start_profile /stop_profile /abort_requests
POST decode  /scale_elastic_ep /is_scaling_elastic_ep /v1/chat/completion /chat/completions /v1/completions/x /x/v1/completions /V1/completions
GET  decode  /v1/models/m /v1/responses/resp_1 /v1/responses/resp_1/input_items /v1/chat/completions /v1/chat/completions/chatcmpl-1 /v1/files /v1/files/f
GET  decode  /v1/files/f/content /v1/batches /v1/batches/b /v1/vector_stores/v /v1/threads/t /v1/conversations/c/items /v1/videos/v/content /v1/uploads/u
GET  decode  /version /load /ping /tokenizer_info /is_sleeping /is_paused /docs /redoc /openapi.json /server_info /v1/fine_tuning/jobs /v1/realtime
DELETE decode /v1/models/m /v1/responses/resp_1 /v1/files/f /v1/conversations/c /v1/vector_stores/v /v1/threads/t /v1/videos/v
PUT  decode  /v1/anything
PATCH decode /v1/anything
HEAD decode  /v1/files/f/content
"""  # fmt: skip


def listed():
    for line in PATHS.strip().split("\n"):
        method, where, *paths = line.split()
        yield from ((method, where, path) for path in paths)


def offer(seen, wire):
    wire.json({"object": "list", "choices": [], "data": [], "kv_transfer_params": {"do_remote_prefill": True, "remote_block_ids": [[1]]}})


def test_a_walk_over_all_paths(pdctl):
    """Each path with each kind of body that it may have: JSON, another form, none. Nothing but the five forms is prefilled, and what is passed is what came."""
    walked = 0
    with FakeEngine(offer) as p, FakeEngine(offer) as d:
        router = pd_pair(pdctl, p, d, "--pd-fallback", "fail")
        for method, where, path in listed():
            bodies = [None] if method in ("GET", "HEAD", "DELETE") else [(b'{"model": "m", "x": [1, 2.50]}', "application/json")]
            if where == "decode" and bodies != [None]:
                bodies += [(b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--b--\r\n", "multipart/form-data; boundary=b"), (b"\x00\xff{", "audio/wav")]
            for body in bodies:
                p.seen.clear()
                d.seen.clear()
                raw, kind = body or (None, None)
                target = path + "?a=b%20c"
                status = router.request(method, target, raw, {"Content-Type": kind} if kind else None)[0]
                got = ([(s.method, s.target) for s in p.seen], [(s.method, s.target) for s in d.seen])
                here = [(method, target)]
                assert status == 200 and got == {"pair": (here, here), "prefill": (here, []), "decode": ([], here)}[where], (method, path, kind, status, got)
                if where == "decode":
                    assert d.seen[0].body == (raw or b"") and d.seen[0].header("content-type") == kind
                walked += 1
        p.check()
        d.check()
    assert walked > 200 and {path for _, where, path in listed() if where == "pair"} == PAIR


# -- what evaluation harnesses ask --


def likelihoods(answer, contexts):
    """As lm_eval's local-completions reads them: for each prompt the sum over what follows its context, and whether each token was the likeliest."""
    out = []
    for choice, context in zip(sorted(answer["choices"], key=lambda c: c["index"]), contexts, strict=True):
        lp = choice["logprobs"]
        tokens, top = lp["token_logprobs"][context:-1], lp["top_logprobs"][context:-1]
        out.append((sum(tokens), all(t == max(best.values()) for t, best in zip(tokens, top, strict=True))))
    return out


def test_likelihoods_and_greedy_generation_have_the_numbers_of_one_worker(pdctl):
    """The requests of lm_eval's local-completions (batches of token ids or texts, echo with logprobs, stop strings), and prompt_logprobs of each form."""
    router, ps, ds = fleet(pdctl, "--pd-fallback", "fail", prefill=2, decode=2)
    plain = pdctl.worker("--strict", "--speedup", 100)
    ids = [plain.post_json("/tokenize", {"prompt": f"question {i}: {WORDS} answer: {' '.join('alpha beta gamma delta epsilon zeta eta'.split()[: i + 1])}"})["tokens"] for i in range(6)]
    contexts = [len(p) - 1 - i for i, p in enumerate(ids)]
    common = {"model": "m", "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    seen = []
    for batch in ([0], [1, 2], [0, 1, 2, 3, 4, 5]):
        body = {**common, "prompt": [ids[i] for i in batch]}
        numbers = [likelihoods(w.post_json("/v1/completions", body), [contexts[i] for i in batch]) for w in (router, plain)]
        assert numbers[0] == numbers[1] and len(numbers[0]) == len(batch)
        seen += numbers[0]
    assert len({n for n, _ in seen}) == 6 and {greedy for _, greedy in seen} == {True, False}, "the numbers say something"
    for batch in (["one text " * 30], ["one text " * 30, "another " * 20]):
        for more in ({}, {"max_tokens": 0}, {"logprobs": 5}):
            body = {**common, "prompt": batch, **more}
            assert router.post_json("/v1/completions", body)["choices"] == plain.post_json("/v1/completions", body)["choices"]
    for path, more, key in (("/v1/completions", {"prompt": WORDS, "max_tokens": 2}, "choices"), ("/inference/v1/generate", {"token_ids": IDS}, "prompt_logprobs"),
                            ("/v1/chat/completions", {"messages": [{"role": "user", "content": WORDS}], "max_tokens": 2}, "prompt_logprobs")):
        body = {**more, "sampling_params": {"prompt_logprobs": 1, "max_tokens": 2}} if "token_ids" in more else {**more, "prompt_logprobs": 1}
        got = router.post_json(path, body)[key]
        assert got == plain.post_json(path, body)[key] and "logprob" in json.dumps(got)
    assert router.metric("pdctl_pd_decode_alone_total") == 12 and ps[0].metric("pdctl_worker_requests_total") == 0
    for prompt in (WORDS, ids[3], [WORDS], [ids[3]]):
        body = {"model": "m", "prompt": prompt, "max_tokens": 40, "temperature": 0, "stop": ["su", "\n\n"], "seed": 1234}
        assert router.post_json("/v1/completions", body)["choices"] == plain.post_json("/v1/completions", body)["choices"]
    assert sum(w.metric('pdctl_worker_requests_total{leg="prefill"}') for w in ps) == 4 and mistakes(ps + ds) == {}
