#!/usr/bin/env python3
"""What a user of the official OpenAI client library for Python sees when workers fail, plain and P/D, streamed and not.

Run by `scripts/openai/run faults`. Errors must arrive as the library's own exception classes with status and Retry-After, and a request
that its client gives up must stop the worker that serves it.
"""

import os
import sys
import time

import openai

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ.setdefault("PDCTL", os.path.join(HERE, "../../build/pdctl"))
sys.path.insert(0, os.path.join(HERE, "../../tests/blackbox"))

from harness import Fleet, wait_for  # noqa: E402

ASK = {"model": "m", "messages": [{"role": "user", "content": "Why do sessions stay on one worker?"}], "max_tokens": 8}
CALM = {"fail_rate": 0, "fail_retry_after": -1, "close_mid_stream": -1}
CLASSES = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


class Place:
    """A router, its workers and a client that repeats nothing."""

    def __init__(self, fleet, mode):
        worker = ("worker", "--model", "m", "--strict", "--decode-ms-per-token", "20", "--log-level", "error")
        if mode == "plain":
            self.first = self.workers = [fleet(*worker) for _ in range(2)]
            words = ["--worker-urls", *[w.url for w in self.workers]]
        else:
            self.first = [fleet(*worker, "--role", "prefill") for _ in range(2)]
            decode = [fleet(*worker, "--role", "decode") for _ in range(2)]
            self.workers = self.first + decode
            words = ["--pd-disaggregation", "--pd-fallback", "fail"]
            for role, ws in (("prefill", self.first), ("decode", decode)):
                words += [word for w in ws for word in (f"--{role}", w.url)]
        retries = ("--retry-max-retries", "2", "--retry-initial-backoff-ms", "1", "--disable-circuit-breaker", "--log-level", "error")
        self.router = fleet("serve", *words, "--policy", "round_robin", *retries)
        self.last = self.workers[-2:]  # who writes the answers
        self.client = openai.OpenAI(base_url=self.router.url + "/v1", api_key="unused", max_retries=0)

    def faults(self, workers, **wanted):
        for w in workers:
            assert w.post("/pdctl/faults", {**CALM, **wanted})[0] == 200

    def ask(self, stream, **more):
        answer = self.client.chat.completions.create(**{**ASK, **more}, stream=stream)
        if not stream:
            return answer.choices[0].message.content
        return "".join(c.choices[0].delta.content or "" for c in answer if c.choices)

    def sum(self, metric):
        return sum(w.metric(metric) for w in self.workers)


def good(p, stream):
    assert p.ask(stream), "an answer"


def one_fails(p, stream):
    for bad in p.workers:
        p.faults([bad], fail_rate=1, fail_status=500)
        for _ in range(4):
            assert p.ask(stream), "nobody sees one worker fail"
        p.faults([bad])


def all_fail(p, stream):
    for status, kind in CLASSES.items():
        p.faults(p.first, fail_rate=1, fail_status=status, fail_retry_after=7)
        try:
            p.ask(stream)
        except openai.APIStatusError as e:
            assert type(e) is kind and e.status_code == status, (status, repr(e))
            assert e.response.headers["retry-after"] == "7", e.response.headers
            assert e.response.headers["x-request-id"] and e.request_id == e.response.headers["x-request-id"]
        else:
            raise AssertionError(f"{status} did not arrive")
    p.faults(p.first)
    good(p, stream)


def refused_at_once(p, stream):
    """The client does its own waiting: a Retry-After reaches it without a pause."""
    best = {}
    for status in (429, 503):
        p.faults(p.first, fail_rate=1, fail_status=status, fail_retry_after=7)
        best[status] = 60.0
        for _ in range(5):
            begin = time.monotonic()
            try:
                p.ask(stream)
            except openai.APIStatusError as e:
                assert (e.status_code, e.response.headers["retry-after"]) == (status, "7"), repr(e)
            best[status] = min(best[status], time.monotonic() - begin)
        assert best[status] < 0.1, best
    p.faults(p.first)
    good(p, stream)
    return ", ".join(f"{status} after {took * 1000:.0f} ms" for status, took in best.items())


def dies_in_the_middle(p, stream):
    p.faults(p.last, close_mid_stream=3)
    try:
        text = p.ask(stream)
    except openai.APIError as e:
        assert "ended its answer early" in str(e) or "without a response" in str(e), repr(e)
        assert stream or e.status_code == 502, repr(e)
    else:
        raise AssertionError(f"half an answer was taken for a whole one: {text!r}")
    p.faults(p.last)
    good(p, stream)


def abandoned(p, stream):
    before = p.sum("pdctl_worker_aborted_requests_total")
    if stream:
        answer = p.client.chat.completions.create(**{**ASK, "max_tokens": 4000}, stream=True)
        iterator = iter(answer)
        next(iterator), next(iterator)
        assert p.sum("pdctl_worker_running") == 1
        begin = time.monotonic()
        answer.close()
    else:
        try:
            p.client.with_options(timeout=0.4).chat.completions.create(**{**ASK, "max_tokens": 4000})
        except openai.APITimeoutError:
            begin = time.monotonic()
        else:
            raise AssertionError("4000 tokens in 0.4 s")
    wait_for("the worker to stop", lambda: p.sum("pdctl_worker_running") == 0, 10, 0.002)
    took = time.monotonic() - begin
    assert p.sum("pdctl_worker_aborted_requests_total") == before + 1
    assert p.router.metric("vllm_router_running_requests") == 0
    return f"the worker stopped within {took * 1000:.0f} ms"


def nobody_left(p, stream):
    for w in p.workers:
        w.kill()
    try:
        p.ask(stream)
    except openai.InternalServerError as e:
        assert e.status_code in (502, 503), repr(e)
        assert e.status_code == 502 or e.response.headers["retry-after"]
    else:
        raise AssertionError("an answer from nobody")


def main():
    for mode in ("plain", "P/D"):
        for check in (good, one_fails, all_fail, refused_at_once, dies_in_the_middle, abandoned, nobody_left):
            for stream in (False, True):
                fleet = Fleet()
                try:
                    note = check(Place(fleet, mode), stream)
                finally:
                    fleet.stop()
                print(f"ok  {mode:5}  {'stream' if stream else 'JSON':6}  {check.__name__.replace('_', ' ')}{': ' + note if note else ''}")
    print(f"OK (openai {openai.__version__})")


if __name__ == "__main__":
    main()
