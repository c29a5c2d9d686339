#!/usr/bin/python3
"""Is an answer through prefill and decode the answer of one worker? Structure, streams, and greedy equality.

    ./test_pd_accuracy.py --router http://127.0.0.1:8192 --direct http://127.0.0.1:8200 --model meta-llama/Llama-3.2-1B-Instruct

--direct is a decode worker: it is asked without the router, first to fill its cache, then for what it answers alone. Exit code 0 when
all tests pass, 1 when one fails.
"""

import argparse
import http.client
import json
import sys
import urllib.parse

PROMPTS = ["The capital of France is", "Once upon a time there was", "Explain what a prefix cache does:"]
WORDS = "one two three river mountain of the and stone under light seven paper green walks slowly before after".split()


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--router", default="http://127.0.0.1:8192", metavar="URL", help="(http://127.0.0.1:8192)")
    p.add_argument("--direct", metavar="URL", help="a decode worker; without it nothing is compared")
    p.add_argument("--model", help="(the first of /v1/models)")
    p.add_argument("--max-tokens", type=int, default=30, help="of each answer (30)")
    p.add_argument("--block", type=int, default=128, help="tokens per KV block of the decode worker (128)")
    p.add_argument("--context", type=int, help="context length of the prefill workers: a longer prompt must be refused")
    p.add_argument("--timeout", type=float, default=120, help="seconds for a request (120)")
    return p.parse_args()


class Failed(Exception):
    pass


def need(truth, text):
    if not truth:
        raise Failed(text)


class Client:
    def __init__(self, o, url):
        self.url, self.timeout, self.model, self.most = urllib.parse.urlsplit(url), o.timeout, o.model, o.max_tokens

    def ask(self, method, path, body=None):
        """(status, headers, bytes)"""
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port or 80, timeout=self.timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException) as e:
            raise Failed(f"{method} {self.url.geturl()}{path}: {e}") from e
        finally:
            connection.close()

    def post(self, path, **members):
        status, headers, raw = self.ask("POST", path, {"model": self.model, "max_tokens": self.most, "temperature": 0.0, "seed": 42, **members})
        need(status == 200, f"POST {path}: status {status}: {raw[:200].decode(errors='replace')}")
        return headers, raw

    def text(self, prompt):
        """The greedy completion."""
        return json.loads(self.post("/v1/completions", prompt=prompt)[1])["choices"][0]["text"]

    def streamed(self, path, **members):
        """(headers, events without [DONE])"""
        headers, raw = self.post(path, stream=True, stream_options={"include_usage": True}, **members)
        events = [e[6:] for e in raw.decode().replace("\r\n", "\n").split("\n\n") if e.startswith("data: ")]
        need(events and events[-1] == "[DONE]", f"a stream ends with {events[-1:]}, expected [DONE]")
        return headers, [json.loads(e) for e in events[:-1]]


def usage_adds_up(u, most):
    need(u["prompt_tokens"] > 0 and 0 < u["completion_tokens"] <= most and u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"], f"usage {u}")


def by_both(headers):
    """The router names both workers; other routers need not."""
    if "X-Decode-Worker" in headers:
        need("X-Prefill-Worker" in headers, "the answer names a decode worker and no prefill worker: nothing was prefilled")


def router_health(o, router, direct):
    for path in ("/health", "/v1/models", "/metrics"):
        status, _, raw = router.ask("GET", path)
        need(status == 200, f"GET {path}: {status} {raw[:120]!r}")


def completions(o, router, direct):
    for prompt in PROMPTS:
        headers, raw = router.post("/v1/completions", prompt=prompt)
        a = json.loads(raw)
        c = a["choices"][0]
        need(a["object"] == "text_completion" and a["id"] and a["model"] == router.model and len(a["choices"]) == 1, f"answer {a}")
        need(c["text"].strip() and c["index"] == 0 and c["finish_reason"] in ("length", "stop"), f"choice {c}")
        usage_adds_up(a["usage"], o.max_tokens)
        by_both(headers)


def chats(o, router, direct):
    for prompt in PROMPTS:
        headers, raw = router.post("/v1/chat/completions", messages=[{"role": "user", "content": prompt}])
        a = json.loads(raw)
        c = a["choices"][0]
        need(a["object"] == "chat.completion" and c["message"]["role"] == "assistant" and c["message"]["content"].strip(), f"answer {a}")
        need(c["finish_reason"] in ("length", "stop"), f"choice {c}")
        usage_adds_up(a["usage"], o.max_tokens)
        by_both(headers)


def streams(o, router, direct):
    for prompt in PROMPTS:
        whole = json.loads(router.post("/v1/completions", prompt=prompt)[1])["choices"][0]
        headers, events = router.streamed("/v1/completions", prompt=prompt)
        with_text = [e for e in events if e["choices"]]
        ends = [e["choices"][0]["finish_reason"] for e in with_text if e["choices"][0].get("finish_reason")]
        text = "".join(e["choices"][0]["text"] for e in with_text)
        need(len({e["id"] for e in events}) == 1, "the events of a stream have several ids")
        need(ends == [whole["finish_reason"]], f"finish reasons {ends}, expected one: {whole['finish_reason']}")
        need(text == whole["text"], f"streamed {text!r}, whole {whole['text']!r}")
        need(events[-1].get("usage"), "no usage at the end of the stream")
        by_both(headers)


def chat_streams(o, router, direct):
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        whole = json.loads(router.post("/v1/chat/completions", messages=messages)[1])["choices"][0]["message"]["content"]
        _, events = router.streamed("/v1/chat/completions", messages=messages)
        text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])
        need(text == whole, f"streamed {text!r}, whole {whole!r}")


def same(router, direct, prompt):
    routed, alone = router.text(prompt), direct.text(prompt)
    need(routed == alone, f"routed {routed!r}, alone {alone!r}")


def prompt_of(tag, words):
    return f"{tag}: " + " ".join(WORDS[i * 7 % len(WORDS)] for i in range(words))


def short_prompt(o, router, direct):
    """Shorter than one block."""
    same(router, direct, "Two words")


def full_hit(o, router, direct):
    """The decode worker holds all of it, the prefill worker nothing."""
    prompt = prompt_of("full", 3 * o.block)
    direct.text(prompt)
    same(router, direct, prompt)


def partial_hit(o, router, direct):
    """The decode worker holds the beginning."""
    prompt = prompt_of("partial", 4 * o.block)
    direct.text(prompt[: len(prompt) // 2])
    same(router, direct, prompt)


def no_hit(o, router, direct):
    """Nobody holds anything; the router's answer comes first."""
    same(router, direct, prompt_of("cold", 3 * o.block))


def refusals(o, router, direct):
    """What an engine refuses the client is told: a prefill worker's refusal too."""
    status, _, raw = router.ask("POST", "/v1/completions", {"model": "no-such-model", "prompt": "x", "max_tokens": 2})
    need(status in (400, 404), f"an unknown model: status {status}: {raw[:200]!r}")
    if o.context:
        status, _, raw = router.ask("POST", "/v1/completions", {"model": router.model, "prompt": prompt_of("long", o.context * 5 // 4), "max_tokens": 2})
        need(status == 400 and b"error" in raw, f"a prompt beyond the context of {o.context} tokens: status {status}: {raw[:200]!r}")


TESTS = [("router health", router_health), ("completions: structure", completions), ("chat completions: structure", chats),
         ("streamed completions are the whole ones", streams), ("streamed chats are the whole ones", chat_streams),
         ("refusals reach the client", refusals)]  # fmt: skip
COMPARED = [("greedy equality: shorter than a block", short_prompt), ("greedy equality: nobody holds it", no_hit),
            ("greedy equality: decode holds all of it", full_hit), ("greedy equality: decode holds its beginning", partial_hit)]  # fmt: skip


def main():
    o = options()
    router = Client(o, o.router)
    direct = Client(o, o.direct) if o.direct else None
    failed = 0
    try:
        if not o.model:
            o.model = json.loads(router.ask("GET", "/v1/models")[2])["data"][0]["id"]
            router.model = o.model
            if direct:
                direct.model = o.model
    except (Failed, ValueError, LookupError) as e:
        print(f"test_pd_accuracy.py: {o.router}/v1/models: {e}", file=sys.stderr)
        return 1
    tests = TESTS + (COMPARED if direct else [])
    for name, test in tests:
        try:
            test(o, router, direct)
            print(f"ok    {name}", flush=True)
        except (Failed, ValueError, LookupError, TypeError) as e:
            failed += 1
            print(f"FAIL  {name}: {str(e) or type(e).__name__}", flush=True)
    if not direct:
        print("      greedy equality: not tested without --direct")
    print(f"{len(tests) - failed} of {len(tests)} tests pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
