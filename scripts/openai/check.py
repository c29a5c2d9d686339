#!/usr/bin/env python3
"""The same as check.mjs with the official OpenAI client library for Python. Usage: check.py [BASE_URL/v1] [MODEL]"""

import sys

import openai

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:30000/v1"
client = openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0)

models = [m.id for m in client.models.list().data]
model = sys.argv[2] if len(sys.argv) > 2 else models[0]
print("models:", ", ".join(models))

question = dict(
    model=model,
    messages=[{"role": "user", "content": "Why do sessions stay on one worker?"}],
    max_tokens=24,
    temperature=0,
    user="openai-python-check",
)
pieces, usage = [], None
with client.chat.completions.create(**question, stream=True, stream_options={"include_usage": True}) as stream:
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append(chunk.choices[0].delta.content)
        usage = chunk.usage or usage
assert len(pieces) > 1, "the text came in more than one piece"
assert usage and usage.completion_tokens > 0, "usage came with the stream"
print(f"streamed {len(pieces)} pieces; usage: {usage.model_dump_json()}")

answer = client.chat.completions.with_raw_response.create(**question)
assert answer.parse().choices[0].message.content == "".join(pieces), "the same text without a stream"
for name in ("x-prefill-worker", "x-decode-worker", "x-worker", "x-request-id"):
    if name in answer.headers:
        print(f"{name}: {answer.headers[name]}")

try:
    client.chat.completions.create(model=model, messages="not a list", max_tokens=1)  # type: ignore[arg-type]
except openai.APIStatusError as error:
    assert 400 <= error.status_code < 500, error
else:
    raise AssertionError("a wrong request must arrive as the library's own exception")
print("OK")
