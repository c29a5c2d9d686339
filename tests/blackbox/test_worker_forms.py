"""The simulated worker in the other forms of the same question: messages, responses, token ids, and completions that echo their prompt."""

import json

import pytest

from harness import Pdctl, sse_events

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES, RESPONSES, TOKENS = "/v1/messages", "/v1/responses", "/inference/v1/generate"


@pytest.fixture(scope="module")
def worker():
    with Pdctl("worker", "--model", "m", "--decode-ms-per-token", 0.5, "--max-model-len", 4096) as w:
        yield w


def named(raw):
    """[(event, data)] of a stream whose events have names; the two must agree."""
    events = []
    for block in raw.decode().split("\n\n")[:-1]:
        first, second = block.split("\n")
        events.append((first.removeprefix("event: "), json.loads(second.removeprefix("data: "))))
        assert events[-1][1]["type"] == events[-1][0]
    assert raw.endswith(b"\n\n")
    return events


def chat(w, n, system=None):
    """What the chat API says to the same conversation."""
    messages = ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": "tell me"}]
    a = w.post_json(CHAT, {"model": "m", "messages": messages, "max_tokens": n})
    return a["choices"][0]["message"]["content"], a["usage"]["prompt_tokens"]


def test_messages_have_anthropics_shape_and_the_text_of_the_chat(worker):
    text, prompt = chat(worker, 5, "be short")
    body = {"model": "m", "max_tokens": 5, "system": [{"type": "text", "text": "be short"}], "messages": [{"role": "user", "content": [{"type": "text", "text": "tell me"}]}]}
    a = worker.post_json(MESSAGES, body, headers={"X-Request-Id": "abc"})
    assert a["id"] == "chatcmpl-abc" and (a["type"], a["role"], a["model"]) == ("message", "assistant", "m")
    assert a["content"] == [{"type": "text", "text": text}] and a["stop_reason"] == "max_tokens" and a["stop_sequence"] is None
    assert a["usage"]["input_tokens"] == prompt and a["usage"]["output_tokens"] == 5 and "cache_read_input_tokens" in a["usage"]
    long = worker.post_json(MESSAGES, {**body, "max_tokens": 60, "stop_sequences": [text.split()[2]]})
    assert long["stop_reason"] == "end_turn" and long["content"][0]["text"] == text[: text.index(text.split()[2])]


def test_messages_stream_as_vllm_streams_them(worker):
    text, prompt = chat(worker, 6)
    status, headers, raw = worker.post(MESSAGES, {"model": "m", "max_tokens": 6, "messages": [{"role": "user", "content": "tell me"}], "stream": True})
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    events = named(raw)
    names = [name for name, _ in events]
    assert names == ["message_start", "content_block_start", *["content_block_delta"] * 6, "content_block_stop", "message_delta", "message_stop"]
    start = events[0][1]["message"]
    assert start["usage"]["input_tokens"] == prompt and start["usage"]["output_tokens"] == 0 and start["content"] == [] and start["stop_reason"] is None
    assert "".join(d["delta"]["text"] for name, d in events if name == "content_block_delta") == text
    assert events[-2][1]["delta"]["stop_reason"] == "max_tokens" and events[-2][1]["usage"]["output_tokens"] == 6 and b"[DONE]" not in raw


def test_responses_have_their_shape_and_the_text_of_the_chat(worker):
    text, prompt = chat(worker, 5, "be short")
    body = {"model": "m", "max_output_tokens": 5, "instructions": "be short", "input": "tell me"}
    a = worker.post_json(RESPONSES, body)
    assert a["id"].startswith("resp_") and (a["object"], a["status"]) == ("response", "incomplete")
    assert a["incomplete_details"] == {"reason": "max_output_tokens"} and a["created_at"] > 0
    item = a["output"][0]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed") and item["content"][0]["type"] == "output_text"
    assert item["content"][0]["text"] == text
    assert a["usage"]["input_tokens"] == prompt and a["usage"]["output_tokens"] == 5 and a["usage"]["total_tokens"] == prompt + 5
    assert a["usage"]["input_tokens_details"]["cached_tokens"] >= 0
    listed = worker.post_json(RESPONSES, {**body, "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "tell me"}]}]})
    assert listed["output"][0]["content"][0]["text"] == text and listed["id"] != a["id"]
    assert worker.post_json(RESPONSES, {"model": "m", "input": "tell me"})["status"] == "completed"


def test_responses_stream_in_order(worker):
    text, prompt = chat(worker, 4)
    status, _, raw = worker.post(RESPONSES, {"model": "m", "max_output_tokens": 4, "input": "tell me", "stream": True})
    events = named(raw)
    assert status == 200 and [d["sequence_number"] for _, d in events] == list(range(len(events)))
    assert [n.removeprefix("response.") for n, _ in events] == ["created", "in_progress", "output_item.added", "content_part.added", *["output_text.delta"] * 4,
                                                               "output_text.done", "content_part.done", "output_item.done", "completed"]  # fmt: skip
    assert "".join(d["delta"] for n, d in events if n.endswith("delta")) == text == events[-4][1]["text"]
    final = events[-1][1]["response"]
    assert final["id"] == events[0][1]["response"]["id"] and final["output"][0]["content"][0]["text"] == text
    assert final["usage"]["input_tokens"] == prompt and final["usage"]["output_tokens"] == 4


def test_token_ids_in_and_out(worker):
    ids = worker.post_json("/tokenize", {"prompt": "count the tokens"})["tokens"]
    words = worker.post_json(TEXT, {"prompt": ids, "max_tokens": 5})["choices"][0]["text"]
    a = worker.post_json(TOKENS, {"token_ids": ids, "sampling_params": {"max_tokens": 5, "n": 2}})
    assert [c["index"] for c in a["choices"]] == [0, 1] and a["choices"][0]["token_ids"] == a["choices"][1]["token_ids"]
    assert a["choices"][0]["finish_reason"] == "length" and a["choices"][0]["logprobs"] is None and a["prompt_logprobs"] is None
    assert worker.post_json("/tokenize", {"prompt": " " + words})["count"] == 5 and a["usage"]["completion_tokens"] == 10
    body = {"token_ids": ids, "sampling_params": {"max_tokens": 5}, "stream": True, "stream_options": {"include_usage": True}}
    status, _, raw = worker.post(TOKENS, body, headers={"X-Request-Id": "abc"})
    events = sse_events(raw)
    chunks = [json.loads(e) for e in events[:-1]]
    assert status == 200 and events[-1] == "[DONE]" and {c["request_id"] for c in chunks} == {"generate-tokens-abc"}
    assert [i for c in chunks[:-1] for i in c["choices"][0]["token_ids"]] == a["choices"][0]["token_ids"]
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * 4 + ["length"] and chunks[-1]["usage"]["completion_tokens"] == 5
    more = worker.post_json(TOKENS, {"token_ids": ids + a["choices"][0]["token_ids"], "sampling_params": {"max_tokens": 1, "prompt_logprobs": 1}})
    assert more["prompt_logprobs"][0] is None and [str(i) for i in ids[1:]] == [next(iter(e)) for e in more["prompt_logprobs"][1 : len(ids)]]


def test_an_echo_is_the_prompt_and_the_answer_with_the_logprobs_of_both(worker):
    prompt = 'say "caf\u00e9"\nagain'
    plain = worker.post_json(TEXT, {"prompt": prompt, "max_tokens": 4})["choices"][0]
    assert plain["logprobs"] is None
    ids = worker.post_json("/tokenize", {"prompt": prompt})["tokens"]
    a = worker.post_json(TEXT, {"prompt": prompt, "max_tokens": 4, "echo": True, "logprobs": 1})["choices"][0]
    assert a["text"] == prompt + plain["text"]
    lp = a["logprobs"]
    assert len({len(lp[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}) == 1 and len(lp["tokens"]) == len(ids) + 4
    assert lp["token_logprobs"][0] is None and all(p <= 0 for p in lp["token_logprobs"][1:]) and lp["tokens"][: len(ids)] == [f"token_id:{i}" for i in ids]
    assert all(top[t] == p for t, p, top in zip(lp["tokens"][1:], lp["token_logprobs"][1:], lp["top_logprobs"][1:], strict=True))
    assert [e and next(iter(e.values()))["logprob"] for e in a["prompt_logprobs"]] == lp["token_logprobs"][: len(ids)]
    only = worker.post_json(TEXT, {"prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 1})["choices"][0]
    assert only["text"] == prompt and only["logprobs"]["token_logprobs"] == lp["token_logprobs"][: len(ids)]
    by_id = worker.post_json(TEXT, {"prompt": ids, "max_tokens": 1, "echo": True, "logprobs": 5})["choices"][0]
    assert by_id["logprobs"]["token_logprobs"][: len(ids)] == lp["token_logprobs"][: len(ids)]
    without = worker.post_json(TEXT, {"prompt": prompt, "max_tokens": 4, "logprobs": 0})["choices"][0]["logprobs"]
    assert without["token_logprobs"] == lp["token_logprobs"][len(ids) :]


def test_an_echo_streams_with_its_first_token(worker):
    whole = worker.post_json(TEXT, {"prompt": "say it", "max_tokens": 3, "echo": True, "logprobs": 1})["choices"][0]
    _, _, raw = worker.post(TEXT, {"prompt": "say it", "max_tokens": 3, "echo": True, "logprobs": 1, "stream": True})
    parts = [json.loads(e)["choices"][0] for e in sse_events(raw)[:-1]]
    assert len(parts) == 3 and parts[0]["text"].startswith("say it") and "".join(p["text"] for p in parts) == whole["text"]
    assert [x for p in parts for x in p["logprobs"]["token_logprobs"]] == whole["logprobs"]["token_logprobs"]


@pytest.mark.parametrize("path, body, status, words", [
    (MESSAGES, {"model": "m", "messages": [{"role": "user", "content": "x"}]}, 400, "max_tokens: Field required"),
    (MESSAGES, {"model": "m", "max_tokens": 0, "messages": [{"role": "user", "content": "x"}]}, 400, "max_tokens must be at least 1"),
    (MESSAGES, {"model": "m", "max_tokens": 1, "messages": []}, 400, "messages: List should have"),
    (MESSAGES, {"model": "m", "max_tokens": 1, "system": 5, "messages": [{"role": "user", "content": "x"}]}, 400, "expected text"),
    (MESSAGES, {"model": "nope", "max_tokens": 1, "messages": []}, 404, "does not exist"),
    (RESPONSES, {"model": "m"}, 400, "input: Field required"),
    (RESPONSES, {"model": "m", "input": "x", "max_output_tokens": 0}, 400, "max_output_tokens must be at least 1"),
    (RESPONSES, {"model": "m", "input": "x", "previous_response_id": "resp_1"}, 404, "not found"),
    (RESPONSES, {"model": "m", "input": "x", "background": True}, 400, "not simulated"),
    (TOKENS, {"token_ids": [1]}, 400, "sampling_params: Field required"),
    (TOKENS, {"token_ids": [1], "sampling_params": []}, 400, "valid dictionary"),
    (TOKENS, {"token_ids": "text", "sampling_params": {}}, 400, "token_ids"),
    (TOKENS, {"token_ids": [[1], [2]], "sampling_params": {}}, 400, "token_ids"),
    (TOKENS, {"token_ids": [1], "sampling_params": {"min_tokens": 3, "max_tokens": 2}}, 400, "min_tokens"),
    (TEXT, {"prompt": "x", "max_tokens": 0}, 400, "max_tokens must be at least 1"),
    (TEXT, {"prompt": "x", "logprobs": -1}, 400, "logprobs"),
])
def test_refusals_of_the_other_forms(worker, path, body, status, words):
    got, _, raw = worker.post(path, body)
    error = json.loads(raw)
    assert got == status and words in error["error"]["message"], raw
    if path == MESSAGES:
        assert error["type"] == "error" and error["error"]["type"] == {400: "invalid_request_error", 404: "not_found_error"}[status]
    else:
        assert error["error"]["code"] == status
