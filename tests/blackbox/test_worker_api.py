"""The simulated worker as an OpenAI server: formats, refusals, deterministic text, streaming."""

import base64
import json
import struct

import pytest
from harness import Pdctl, sse_events

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


@pytest.fixture(scope="module")
def worker():
    with Pdctl("worker", "--model", "m", "other", "--decode-ms-per-token", 0.5, "--max-model-len", 4096) as w:
        yield w


def chat(text, **more):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def error_of(w, path, body, status, headers=None):
    got, _, raw = w.post(path, body, headers)
    assert got == status, (got, raw)
    e = json.loads(raw)["error"]
    assert e["code"] == status and e["message"] and "type" in e and "param" in e
    return e


def test_chat_answer_has_vllm_shape(worker):
    a = worker.post_json(CHAT, chat("hello there", max_tokens=5), headers={"X-Request-Id": "abc"})
    assert a["id"] == "chatcmpl-abc" and a["object"] == "chat.completion" and a["model"] == "m"
    (choice,) = a["choices"]
    assert choice["finish_reason"] == "length" and choice["index"] == 0
    assert choice["message"]["role"] == "assistant" and len(choice["message"]["content"].split()) == 5
    u = a["usage"]
    assert u["completion_tokens"] == 5 and u["total_tokens"] == u["prompt_tokens"] + 5
    assert u["prompt_tokens_details"] == {"cached_tokens": 0}
    assert a["kv_transfer_params"] is None


def test_completion_answer(worker):
    a = worker.post_json(TEXT, {"prompt": "once upon a time"})
    assert a["object"] == "text_completion" and a["model"] == "m" and a["id"].startswith("cmpl-")
    assert a["usage"]["completion_tokens"] == 16 and a["choices"][0]["finish_reason"] == "length"


def test_default_chat_answer_ends_by_itself(worker):
    a = worker.post_json(CHAT, chat("x"))
    assert a["choices"][0]["finish_reason"] == "stop" and a["usage"]["completion_tokens"] == 64


def test_text_depends_on_the_prompt_only(worker):
    one = worker.post_json(CHAT, chat("tell me", max_tokens=20, temperature=0))["choices"][0]["message"]["content"]
    two = worker.post_json(CHAT, chat("tell me", max_tokens=30, temperature=1.7, seed=9, top_p=0.1))
    assert two["choices"][0]["message"]["content"].startswith(one)
    assert worker.post_json(CHAT, chat("tell me.", max_tokens=20))["choices"][0]["message"]["content"] != one
    system = {"model": "m", "max_tokens": 20, "messages": [{"role": "system", "content": "tell me"}]}
    assert worker.post_json(CHAT, system)["choices"][0]["message"]["content"] != one


def test_content_parts_equal_plain_text(worker):
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "tell "}, {"type": "text", "text": "me"}]}]}
    ids = worker.post_json("/tokenize", parts)["tokens"]
    assert ids[0] == worker.post_json("/tokenize", chat("tell"))["tokens"][0]
    a = worker.post_json(CHAT, {**parts, "max_tokens": 2})
    assert a["usage"]["prompt_tokens"] == len(ids)


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_stream_equals_whole_answer(worker, path):
    body = chat("stream me", max_tokens=12) if path == CHAT else {"prompt": "stream me", "max_tokens": 12}
    whole = worker.post_json(path, body)
    status, headers, raw = worker.post(path, {**body, "stream": True})
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    events = sse_events(raw)
    assert events[-1] == "[DONE]"
    chunks = [json.loads(e) for e in events[:-1]]
    assert len({c["id"] for c in chunks}) == 1 and all("usage" not in c for c in chunks)
    if path == CHAT:
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        text = "".join(c["choices"][0]["delta"]["content"] for c in chunks)
        assert text == whole["choices"][0]["message"]["content"] and len(chunks) == 13
    else:
        assert "".join(c["choices"][0]["text"] for c in chunks) == whole["choices"][0]["text"]
        assert len(chunks) == 12
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * (len(chunks) - 1) + ["length"]


def test_usage_in_streams(worker):
    options = {"include_usage": True}
    _, _, raw = worker.post(CHAT, chat("u", max_tokens=3, stream=True, stream_options=options))
    chunks = [json.loads(e) for e in sse_events(raw)[:-1]]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 3
    assert all("usage" not in c for c in chunks[:-1])
    options["continuous_usage_stats"] = True
    _, _, raw = worker.post(CHAT, chat("u", max_tokens=3, stream=True, stream_options=options))
    chunks = [json.loads(e) for e in sse_events(raw)[:-1]]
    assert [c["usage"]["completion_tokens"] for c in chunks] == [0, 1, 2, 3, 3]


def test_n_and_batches(worker):
    a = worker.post_json(TEXT, {"prompt": ["one", "two"], "n": 2, "max_tokens": 3})
    assert [c["index"] for c in a["choices"]] == [0, 1, 2, 3]
    texts = [c["text"] for c in a["choices"]]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    assert a["usage"]["completion_tokens"] == 12 and a["usage"]["prompt_tokens"] == 2
    assert worker.post_json(TEXT, {"prompt": "two", "max_tokens": 3})["choices"][0]["text"] == texts[2]
    _, _, raw = worker.post(TEXT, {"prompt": ["one", "two"], "n": 2, "max_tokens": 3, "stream": True})
    got = ["", "", "", ""]
    for e in sse_events(raw)[:-1]:
        c = json.loads(e)["choices"][0]
        got[c["index"]] += c["text"]
    assert got == texts


def test_token_ids_are_prompts(worker):
    ids = worker.post_json("/tokenize", {"prompt": "count the tokens"})
    assert ids["count"] == len(ids["tokens"]) == 3 and ids["max_model_len"] == 4096
    want = worker.post_json(TEXT, {"prompt": "count the tokens"})["choices"][0]["text"]
    assert worker.post_json(TEXT, {"prompt": ids["tokens"]})["choices"][0]["text"] == want
    assert worker.post_json(TEXT, {"prompt": [ids["tokens"]]})["choices"][0]["text"] == want


def test_stop_strings(worker):
    full = worker.post_json(TEXT, {"prompt": "stop here", "max_tokens": 30})["choices"][0]["text"]
    words = full.split(" ")
    stop = words[7] + " " + words[8][:2]
    a = worker.post_json(TEXT, {"prompt": "stop here", "max_tokens": 30, "stop": ["never", stop]})
    assert a["choices"][0]["text"] == full[: full.index(stop)] and a["choices"][0]["finish_reason"] == "stop"
    assert a["usage"]["completion_tokens"] == 9
    _, _, raw = worker.post(TEXT, {"prompt": "stop here", "max_tokens": 30, "stop": stop, "stream": True})
    chunks = [json.loads(e)["choices"][0] for e in sse_events(raw)[:-1]]
    assert "".join(c["text"] for c in chunks) == full[: full.index(stop)]
    assert chunks[-1]["finish_reason"] == "stop"


def test_embeddings(worker):
    a = worker.post_json("/v1/embeddings", {"input": ["a b", "c"], "dimensions": 8})
    assert [d["index"] for d in a["data"]] == [0, 1] and len(a["data"][0]["embedding"]) == 8
    b = worker.post_json("/v1/embeddings", {"input": "c", "dimensions": 8, "encoding_format": "base64"})
    floats = struct.unpack("<8f", base64.b64decode(b["data"][0]["embedding"]))
    assert floats == pytest.approx(a["data"][1]["embedding"], abs=1e-6)
    assert a["usage"]["prompt_tokens"] == 3


def test_models_health_load_version(worker):
    models = worker.get_json("/v1/models")["data"]
    assert [m["id"] for m in models] == ["m", "other"]
    assert models[0]["owned_by"] == "vllm" and models[0]["max_model_len"] == 4096
    assert worker.get("/health")[0] == 200 and worker.get("/ping")[0] == 200
    assert worker.get_json("/load") == {"server_load": 0}
    assert "version" in worker.get_json("/version")
    assert worker.post_json(CHAT, {**chat("x", max_tokens=1), "model": "other"})["model"] == "other"


@pytest.mark.parametrize(
    "path, body, status, param",
    [
        (CHAT, b"{", 400, None),
        (CHAT, b"[]", 400, None),
        (CHAT, b'{"messages":[{"role":"user","content":"a"}],}', 400, None),
        (CHAT, {"model": "m"}, 400, "messages"),
        (CHAT, {"model": "m", "messages": []}, 400, "messages"),
        (CHAT, {"model": "m", "messages": [{"content": "x"}]}, 400, "messages"),
        (CHAT, {"model": "m", "messages": ["x"]}, 400, "messages"),
        (CHAT, {"model": "m", "messages": [{"role": "user", "content": 5}]}, 400, "messages"),
        (CHAT, {"model": "nope", "messages": [{"role": "user", "content": "x"}]}, 404, "model"),
        (CHAT, {"model": 3, "messages": [{"role": "user", "content": "x"}]}, 400, "model"),
        (CHAT, chat("x", max_tokens=0), 400, "max_tokens"),
        (CHAT, chat("x", max_tokens="5"), 400, "max_tokens"),
        (CHAT, chat("x", max_tokens=1.5), 400, "max_tokens"),
        (CHAT, chat("x", max_completion_tokens=-1), 400, "max_completion_tokens"),
        (CHAT, chat("x", max_tokens=2, min_tokens=3), 400, "min_tokens"),
        (CHAT, chat("x", n=0), 400, "n"),
        (CHAT, chat("x", stream="yes"), 400, "stream"),
        (CHAT, chat("x", stream_options={"include_usage": True}), 400, "stream_options"),
        (CHAT, chat("x", stop=[1]), 400, "stop"),
        (CHAT, chat("x", cache_salt=""), 400, "cache_salt"),
        (CHAT, chat("x", kv_transfer_params=[]), 400, "kv_transfer_params"),
        (CHAT, chat("x", max_tokens=5000), 400, "max_tokens"),
        (CHAT, chat("word " * 4200), 400, "messages"),
        (TEXT, {"model": "m"}, 400, "prompt"),
        (TEXT, {"prompt": []}, 400, "prompt"),
        (TEXT, {"prompt": [1, "a"]}, 400, "prompt"),
        (TEXT, {"prompt": [-1]}, 400, "prompt"),
        (TEXT, {"prompt": {"a": 1}}, 400, "prompt"),
        (TEXT, {"prompt": ""}, 400, "prompt"),
        ("/v1/embeddings", {"model": "m"}, 400, "input"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, 400, "encoding_format"),
        ("/tokenize", {"model": "m"}, 400, "prompt"),
    ],
)
def test_refusals(worker, path, body, status, param):
    e = error_of(worker, path, body, status, {"Content-Type": "application/json"})
    assert e["param"] == param


def test_null_is_absent(worker):
    body = chat("x", max_tokens=None, stream=None, stop=None, n=None, kv_transfer_params=None, stream_options=None)
    assert worker.post_json(CHAT, body)["usage"]["completion_tokens"] == 64


def test_content_type_is_required(worker):
    e = error_of(worker, CHAT, json.dumps(chat("x")).encode(), 400)
    assert "Unsupported Media Type" in e["message"]
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert worker.post(CHAT, json.dumps(chat("x", max_tokens=1)).encode(), headers)[0] == 200


def test_unknown_routes_and_methods(worker):
    assert worker.get("/v1/nothing")[0] == 404
    assert worker.get(CHAT)[0] == 405
    assert worker.request("DELETE", "/health")[0] == 405


def test_escapes_in_prompts_are_decoded(worker):
    plain = worker.post_json(TEXT, {"prompt": "caf\u00e9 \u20ac"})["choices"][0]["text"]
    raw = b'{"prompt":"caf\\u00e9 \\u20ac"}'
    got = worker.post(TEXT, raw, {"Content-Type": "application/json"})
    assert json.loads(got[2])["choices"][0]["text"] == plain


def test_api_key(pdctl):
    w = pdctl("worker", "--api-key", "secret")
    body = {"prompt": "x", "max_tokens": 1}
    assert w.post(TEXT, body)[0] == 401
    assert w.post(TEXT, body, {"Authorization": "Bearer wrong"})[0] == 401
    assert w.post(TEXT, body, {"Authorization": "Bearer secret"})[0] == 200
    assert w.get("/health")[0] == 200 and w.get("/v1/models")[0] == 401


def test_metrics_page(pdctl):
    w = pdctl("worker", "--model", "m", "--decode-ms-per-token", 0)
    for _ in range(2):
        w.post_json(TEXT, {"prompt": "a b c " * 16, "max_tokens": 4})
    m = w.metrics()
    label = '{engine="0",model_name="m"}'
    assert m["vllm:num_requests_running" + label] == 0 and m["vllm:num_requests_waiting" + label] == 0
    assert m["vllm:prompt_tokens_total" + label] == m["vllm:prefix_cache_queries_total" + label] > 90
    assert m["vllm:prefix_cache_hits_total" + label] == 48
    assert m["vllm:generation_tokens_total" + label] == 8
    assert m["vllm:time_to_first_token_seconds_count" + label] == 2
    assert m["vllm:e2e_request_latency_seconds_count" + label] == 2
    assert m['vllm:e2e_request_latency_seconds_bucket{engine="0",model_name="m",le="+Inf"}'] == 2
    assert m['vllm:request_success_total{engine="0",model_name="m",finished_reason="length"}'] == 2
    assert w.metric("pdctl_worker_protocol_mistakes_total") == 0
    assert m['pdctl_worker_protocol_mistakes_total{kind="missing_fields"}'] == 0
    assert m["vllm:kv_cache_usage_perc" + label] == 0
