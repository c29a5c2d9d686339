#!/usr/bin/env python3
"""Scripted answers through the router with the official OpenAI client libraries for Python and Node (answers.mjs): a worker that
redirects, one that is busy, streams with comments and with a cut, a chain of responses. Started by scripts/openai/run; PDCTL names
the binary, the first argument the folder where answers.mjs finds the library for Node."""

import json
import os
import subprocess
import sys
import threading
import time

import openai

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/blackbox"))

import harness  # noqa: E402
from fake_engine import FakeEngine  # noqa: E402

ASK = [{"role": "user", "content": "hi"}]
PIECES = ["Gr", "üße ", "🦙"]


def chunk(content):
    return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": None}]}


class Worker:
    """What it answers is the model's name. A response is known to the worker that made it, and to no other."""

    def __init__(self, name):
        self.made = set()
        self.name = name
        self.lock = threading.Lock()

    def __call__(self, seen, wire):
        body = seen.json() if seen.body else {}
        model = body.get("model")
        if "/responses" in seen.target:
            self.respond(seen, body, wire)
        elif model == "redirects" and "moved" not in seen.target:
            place = f"http://{seen.header('host')}/v1/moved/chat/completions"
            wire.reply(307, b"", headers=[("Location", place)])
        elif model == "busy":
            wire.json({"error": {"message": "busy", "type": "rate_limit", "param": None, "code": 429}}, 429, [("Retry-After", "7")])
        elif body.get("stream"):
            wire.begin_stream()
            wire.chunk(b": hello\n")
            for i, piece in enumerate(PIECES):
                wire.event(json.dumps(chunk(piece), ensure_ascii=False))
                wire.chunk(b": keep-alive %d\n" % i + (b"\n" if i % 2 else b""))
            if model == "dies":
                wire.keep = False
                return
            wire.chunk(b"data: [DONE]\n\n")
            wire.end_stream()
        else:
            wire.json({"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]})

    def respond(self, seen, body, wire):
        named = body.get("previous_response_id") or (seen.target.split("/")[3:] or [None])[0]
        with self.lock:
            if named and named not in self.made:
                wire.json({"error": {"message": f"{named} not found", "type": "invalid_request_error", "param": None, "code": 404}}, 404)
                return
            new = named if seen.method == "GET" else f"resp_{self.name}{len(self.made)}"
            self.made.add(new)
        wire.json({"id": new, "object": "response", "created_at": 0, "model": "m", "status": "completed", "output": [], "tools": [],
                   "tool_choice": "auto", "parallel_tool_calls": True})


def check(client):
    assert client.chat.completions.create(model="redirects", messages=ASK).choices[0].message.content == "ok"
    print("a redirect was followed to the router")
    began = time.monotonic()
    try:
        client.chat.completions.create(model="busy", messages=ASK)
    except openai.RateLimitError as error:
        took = time.monotonic() - began
        assert error.response.headers["retry-after"] == "7" and took < 1, (error.response.headers, took)
        print(f"429 with Retry-After: 7 after {took * 1e3:.0f} ms")
    else:
        raise AssertionError("429 must arrive")
    with client.chat.completions.create(model="m", messages=ASK, stream=True) as stream:
        assert [c.choices[0].delta.content for c in stream] == PIECES
    print("a stream with comments")
    try:
        with client.chat.completions.create(model="dies", messages=ASK, stream=True) as stream:
            for _ in stream:
                pass
    except openai.APIError as error:
        assert "127.0.0.1" not in str(error), error
        print(f"a cut stream: {error}")
    else:
        raise AssertionError("a cut stream must not look whole")
    last = None
    for _ in range(8):
        made = client.responses.create(model="m", input="hi", previous_response_id=last)
        assert client.responses.retrieve(made.id).id == made.id
        last = made.id
    print("a chain of responses stayed on its worker")


def main():
    with FakeEngine(Worker("a")) as one, FakeEngine(Worker("b")) as other:
        with harness.Pdctl("serve", "--worker-urls", one.url, other.url, "--policy", "round_robin") as router:
            base = f"{router.url}/v1"
            check(openai.OpenAI(base_url=base, api_key="unused", max_retries=0))
            print("OK")
            if len(sys.argv) > 1:
                subprocess.run(["node", os.path.join(sys.argv[1], "answers.mjs"), base], check=True)
            one.check()
            other.check()


main()
