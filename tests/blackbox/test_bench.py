"""pdctl bench against an engine that says exactly what a test wants: what is sent, when, in which order, and what is measured."""

import json
import os
import signal
import subprocess
import threading
import time

import pytest

import harness
from fake_engine import FakeEngine


def bench(engine, *args, code=0, env=None):
    """Runs it with --json and returns the document; per-request lists included."""
    done = harness.run("bench", "--base-url", engine.url, "--json", "--save-detailed", *args, env=env)
    assert done.returncode == code, (done.returncode, done.stderr, done.stdout[-2000:])
    return json.loads(done.stdout)


def delta(text=None, finish=None, usage=None, **more):
    event = {"choices": [{"index": 0, "delta": {} if text is None else {"content": text, **more}, "finish_reason": finish}]}
    if usage:
        event["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "prompt_tokens_details": {"cached_tokens": usage[2]}}
    return event


def good_stream(wire, words=3, gap=0.0, headers=()):
    wire.begin_stream(headers=headers)
    wire.event(delta("", role="assistant"))
    for k in range(words):
        time.sleep(gap)
        wire.event(delta(f"w{k} ", usage=(10, k + 1, 4)))
    wire.event(delta(finish="stop", usage=(10, words, 4)))
    wire.event({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": words, "prompt_tokens_details": {"cached_tokens": 4}}})
    wire.event("[DONE]")
    wire.end_stream()


def text_of(seen):
    return seen.json()["messages"][-1]["content"]


def write_lines(path, *records):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


# ---- measurement ----


def test_known_timings():
    """Role-only chunk at once, first token after 150 ms, then three pieces 60 ms apart: lower bounds hold on any machine."""

    def handler(seen, wire):
        wire.begin_stream()
        wire.event(delta("", role="assistant"))
        time.sleep(0.15)
        wire.event(delta("a", usage=(7, 1, 0)))
        time.sleep(0.06)
        wire.event(delta("b c", usage=(7, 3, 0)))
        time.sleep(0.06)
        wire.event(delta("d", usage=(7, 4, 0)))
        wire.event(delta(finish="length", usage=(7, 4, 0)))
        wire.event("[DONE]")
        wire.end_stream()

    with FakeEngine(handler) as engine:
        doc = bench(engine, "--num-prompts", 3, "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99.9")
        engine.check()
    assert doc["completed"] == 3 and doc["failed"] == 0
    assert min(doc["ttfts"]) >= 0.15, "the role-only chunk is not the first token"
    assert min(doc["latencies"]) >= 0.27
    assert doc["output_lens"] == [4] * 3 and doc["input_lens"] == [7] * 3
    for gaps, ttft, latency in zip(doc["itls"], doc["ttfts"], doc["latencies"]):
        assert len(gaps) == 3 and gaps[0] == gaps[1] > 0, "a piece of two tokens halves its gap"
        assert sum(gaps) == pytest.approx(latency - ttft, abs=1e-6)
    assert doc["pdctl"]["itl_basis"] == "usage"
    assert doc["pdctl"]["chunk_gap"]["count"] == 6 and doc["mean_itl_ms"] < doc["pdctl"]["chunk_gap"]["mean_ms"]
    assert doc["mean_tpot_ms"] == pytest.approx(sum((l - t) / 3 for l, t in zip(doc["latencies"], doc["ttfts"])) / 3 * 1000)
    assert doc["p99.9_e2el_ms"] <= max(doc["latencies"]) * 1000 + 1e-6
    assert doc["generated_texts"] == ["ab cd"] * 3


def test_pieces_of_events_make_no_difference():
    events = b"".join(
        b"data: " + json.dumps(e).encode() + b"\r\n\r\n" for e in [delta("", role="assistant"), delta("x", usage=(1, 1, 0)), delta("\u00e9", usage=(1, 2, 0)), delta(finish="stop")]
    ) + b": comment\n\ndata: [DONE]\n\n"

    def handler(seen, wire):
        size = {0: len(events), 1: 1, 2: 7}[int(seen.header("x-size"))]
        wire.begin_stream()
        for at in range(0, len(events), size):
            wire.chunk(events[at : at + size])
        wire.end_stream()

    with FakeEngine(handler) as engine:
        for size in (0, 1, 2):
            doc = bench(engine, "--num-prompts", 1, "--header", f"X-Size: {size}")
            assert doc["completed"] == 1 and doc["generated_texts"] == ["x\u00e9"] and doc["output_lens"] == [2]
        engine.check()


FAILURES = {
    "http_500": lambda wire: wire.json({"error": {"message": "no luck"}}, status=500),
    "http_429": lambda wire: wire.reply(429, b"busy", "text/plain"),
    "bad_answer": lambda wire: wire.json({"choices": []}),
    "bad_event": lambda wire: (wire.begin_stream(), wire.event("{oops"), wire.event("[DONE]"), wire.end_stream()),
    "stream_error": lambda wire: (wire.begin_stream(), wire.event(delta("a")), wire.event({"error": {"message": "KV gone"}}), wire.event("[DONE]"), wire.end_stream()),
}


def test_failures_by_label():
    def truncated(wire):
        wire.begin_stream()
        wire.event(delta("a"))
        wire.end_stream()

    def cut(wire):
        wire.begin_stream()
        wire.event(delta("a"))
        wire.keep = False
        raise OSError

    def gone(wire):
        wire.keep = False
        raise OSError

    cases = [*FAILURES.items(), ("truncated", truncated), ("truncated", cut), ("connection_lost", gone)]
    lock, turn = threading.Lock(), [0]

    def handler(seen, wire):
        with lock:
            case = cases[turn[0]] if turn[0] < len(cases) else None
            turn[0] += 1
        if case:
            case[1](wire)
        else:
            good_stream(wire)

    with FakeEngine(handler) as engine:
        doc = bench(engine, "--num-prompts", len(cases) + 2, "--max-concurrency", 1, code=1)
        engine.check()
    expected = {}
    for label, _ in cases:
        expected[label] = expected.get(label, 0) + 1
    assert doc["pdctl"]["failures"] == expected
    assert doc["completed"] == 2 and doc["failed"] == len(cases)
    assert doc["pdctl"]["codes"] == {"200": 7, "429": 1, "500": 1, "none": 1}
    assert "no luck" in doc["errors"][0] and doc["errors"][-1] == ""
    assert doc["total_output_tokens"] == 6, "failed requests add no tokens"
    assert doc["output_lens"][-2:] == [3, 3]


def test_nobody_there_and_timeout():
    dead = type("Dead", (), {"url": f"http://127.0.0.1:{harness.free_port()}"})
    doc = bench(dead, "--model", "m", "--num-prompts", 3, code=1)
    assert doc["pdctl"]["failures"] == {"connect": 3}
    release = threading.Event()
    with FakeEngine(lambda seen, wire: release.wait(30)) as engine:
        doc = bench(engine, "--num-prompts", 2, "--timeout", 0.3, code=1)
        release.set()
    assert doc["pdctl"]["failures"] == {"timeout": 2}


def test_not_streamed():
    def handler(seen, wire):
        assert seen.json()["stream"] is False and "stream_options" not in seen.json()
        wire.json({"choices": [{"message": {"content": "hello"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})

    with FakeEngine(handler) as engine:
        doc = bench(engine, "--num-prompts", 4, "--no-stream", "--percentile-metrics", "ttft,e2el")
        engine.check()
    assert doc["completed"] == 4 and doc["total_output_tokens"] == 8 and doc["generated_texts"] == ["hello"] * 4
    assert doc["ttfts"] == [None] * 4 and doc["mean_e2el_ms"] > 0 and doc["pdctl"]["chunk_gap"]["count"] == 0


def test_embeddings_and_completions(tmp_path):
    def handler(seen, wire):
        body = seen.json()
        if seen.target == "/v1/embeddings":
            assert "max_tokens" not in body and "stream" not in body and body["input"]
            wire.json({"data": [{"embedding": [1.0]}], "usage": {"prompt_tokens": 5}})
        else:
            assert seen.target == "/v1/completions" and body["prompt"] == [1, 2, 3] and body["ignore_eos"] is True
            wire.json({"choices": [{"text": "t", "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})

    path = write_lines(tmp_path / "w.jsonl", '{"prompt": [1, 2, 3], "output_tokens": 1}')
    with FakeEngine(handler) as engine:
        doc = bench(engine, "--num-prompts", 2, "--endpoint", "/v1/embeddings")
        assert doc["total_input_sequences"] == 2 and doc["total_input_tokens"] == 10 and "mean_ttft_ms" not in doc
        doc = bench(engine, "--dataset", path, "--endpoint", "/v1/completions", "--ignore-eos")
        assert doc["completed"] == 1 and doc["backend"] == "openai"
        engine.check()


# ---- what is sent ----


def test_bytes_of_the_dataset_survive(tmp_path):
    messages = '[ {"role":"user","content":"\\u0000 \\/ \\ud83d\\ude00","n":1.50e+2,"x":12345678901234567890} ]'
    path = write_lines(tmp_path / "w.jsonl", '{"messages": %s, "prompt_cache_key": "k\\"1", "output_tokens": 17}' % messages)
    with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
        bench(engine, "--dataset", path, "--model", "mo", "--session-field", "header:X-Key, user,session_id,prompt_cache_key,session_params",
              "--extra-body", '{"seed": 7, "temperature": 0.50}', "--api-key", "sk-1", "--header", "X-More: a: b")
        engine.check()
        seen = engine.seen[0]
    assert messages.encode() in seen.body and b'"temperature": 0.50' in seen.body and seen.body.count(b"temperature") == 1
    body = seen.json()
    assert body["model"] == "mo" and body["max_tokens"] == 17 and body["seed"] == 7 and body["stream"] is True
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert body["user"] == body["session_id"] == body["prompt_cache_key"] == body["session_params"]["session_id"] == 'k"1'
    assert seen.header("x-key") == 'k"1' and seen.header("authorization") == "Bearer sk-1" and seen.header("x-more") == "a: b"
    assert seen.header("x-session-id") is None and seen.header("expect") is None


def test_large_body_is_not_held_back(tmp_path):
    """A body over 1 MiB must not wait a second for 100 Continue, and a proxy from the environment must not matter."""
    path = write_lines(tmp_path / "w.jsonl", {"prompt": "x" * 3_000_000})
    with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
        doc = bench(engine, "--dataset", path, env={"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"})
        assert doc["completed"] == 1 and engine.seen[0].header("expect") is None and len(text_of(engine.seen[0])) == 3_000_000


def test_session_pattern_and_default_places():
    with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
        bench(engine, "--num-prompts", 9, "--session-pattern", "key_<i%4>", "--max-concurrency", 1)
        engine.check()
        keys = [s.header("x-session-id") for s in engine.seen]
        assert keys == [f"key_{i % 4}" for i in range(9)]
        assert [s.json()["session_params"]["session_id"] for s in engine.seen] == keys
        engine.seen.clear()
        bench(engine, "--num-prompts", 2, "--session-pattern", "k", "--session-field", "none")
        assert all(s.header("x-session-id") is None and "session_params" not in s.json() for s in engine.seen)
        engine.seen.clear()
        bench(engine, "--num-prompts", 2)
        assert all(s.header("x-session-id") is None for s in engine.seen), "no key unless there is one"


def test_same_seed_same_prompts():
    def prompts(*args):
        with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
            bench(engine, "--num-prompts", 5, "--max-concurrency", 1, "--input-len", 50, *args)
            return [s.body for s in engine.seen]

    a = prompts("--seed", 1)
    assert a == prompts("--seed", 1) != prompts("--seed", 2)
    assert len(set(a)) == 5 and all(len(json.loads(b)["messages"][0]["content"]) == 200 for b in a)


def test_trace_prompts_share_what_their_hashes_share(tmp_path):
    rows = [(0, 1100, [1, 2, 3]), (0, 1200, [1, 2, 9]), (5, 600, [1, 7])]
    path = write_lines(tmp_path / "t.jsonl", *({"timestamp": t, "input_length": n, "output_length": 40, "hash_ids": h} for t, n, h in rows))
    with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
        bench(engine, "--dataset", path, "--max-concurrency", 1, "--scale-tokens", 0.125)
        texts = [text_of(s) for s in engine.seen]
        assert [s.json()["max_tokens"] for s in engine.seen] == [5, 5, 5]
    block = 512 // 8 * 4
    assert texts[0][: 2 * block] == texts[1][: 2 * block] and texts[0][2 * block :][:20] != texts[1][2 * block :][:20]
    assert texts[2][:block] == texts[0][:block] and texts[2][block:][:20] != texts[0][block:][:20]
    assert [len(t) for t in texts] == [2 * block + 40, 2 * block + 4 * 22, block + 44]


def test_model_is_asked_for():
    with FakeEngine(lambda seen, wire: good_stream(wire), models=["first", "second"]) as engine:
        assert bench(engine, "--num-prompts", 1)["model_id"] == "first"
        assert engine.seen[0].json()["model"] == "first"
    with FakeEngine(lambda seen, wire: good_stream(wire), models=[]) as engine:
        done = harness.run("bench", "--base-url", engine.url)
        assert done.returncode == 3 and "--model" in done.stderr and not engine.seen


# ---- when and in which order ----


class Tracker:
    """Which sessions are in flight; answers slowly enough that an overlap would be seen."""

    def __init__(self):
        self.lock = threading.Lock()
        self.now, self.peak, self.overlaps, self.order, self.begun, self.ended, self.open_peak = {}, 0, 0, [], set(), {}, 0
        self.total = None

    def handler(self, seen, wire):
        key = seen.header("x-session-id")
        with self.lock:
            self.overlaps += self.now.get(key, 0) > 0 and key is not None
            self.now[key] = self.now.get(key, 0) + 1
            self.order.append((key, seen))
            self.peak = max(self.peak, sum(self.now.values()))
            self.begun.add(key)
            self.open_peak = max(self.open_peak, len(self.begun) - sum(self.ended.get(k, 0) == self.total for k in self.begun))
        time.sleep(0.01)
        with self.lock:
            self.now[key] -= 1
            self.ended[key] = self.ended.get(key, 0) + 1
        good_stream(wire)


def test_turns_wait_for_each_other(tmp_path):
    path = tmp_path / "talk.jsonl"
    assert harness.run("gen", "conversations", "--num-conversations", 5, "--messages-per-conv", 6, "--output", path).returncode == 0
    t = Tracker()
    with FakeEngine(t.handler) as engine:
        doc = bench(engine, "--dataset", path)
        engine.check()
    assert doc["completed"] == 30 and t.overlaps == 0 and t.peak > 1
    for c in range(5):
        turns = [len(s.json()["messages"]) for k, s in t.order if k == f"conv_{c}"]
        assert turns == [2, 4, 6, 8, 10, 12], "a turn is never sent before the one before it has ended"


def test_published_session_shape():
    t = Tracker()
    t.total = 20
    with FakeEngine(t.handler) as engine:
        doc = bench(engine, "--sessions", 6, "--requests-per-session", 20, "--concurrent-sessions", 3)
        engine.check()
    assert doc["completed"] == 120 and t.overlaps == 0 and t.peak <= 3 and t.open_peak == 3
    assert {k for k, _ in t.order} == {f"session_00{i}" for i in range(6)}
    prompts = {}
    for k, s in t.order:
        prompts.setdefault(k, []).append(text_of(s))
    for texts in prompts.values():
        assert len(set(texts)) == 20 and len({x[: len(x) * 3 // 4] for x in texts}) == 1


def test_max_concurrency_and_its_queue():
    t = Tracker()
    with FakeEngine(t.handler) as engine:
        doc = bench(engine, "--num-prompts", 20, "--max-concurrency", 4, "--percentile-metrics", "client_queue_time")
    assert t.peak <= 4 and doc["max_concurrency"] == 4 and doc["max_concurrent_requests"] <= 4
    assert doc["queue_times"][19] >= 0.03, "five rounds of 10 ms"
    assert doc["p99_client_queue_time_ms"] > 30
    assert doc["pdctl"]["schedule_lag"]["mean_ms"] < doc["mean_client_queue_time_ms"] / 2, "waiting for a place is not lateness of the client"


def test_schedule_is_absolute_and_seeded(tmp_path):
    path = write_lines(tmp_path / "w.jsonl", *[{"prompt": "p"}] * 40)

    def starts(*args):
        with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
            doc = bench(engine, "--dataset", path, "--request-rate", 100, *args)
        lag = [q for q in doc["queue_times"]]
        assert min(lag) >= 0, "nothing is sent before its time"
        return doc, [s - q - doc["start_times"][0] + doc["queue_times"][0] for s, q in zip(doc["start_times"], lag)]

    doc, a = starts("--seed", 3)
    _, again = starts("--seed", 3)
    _, other = starts("--seed", 4)
    _, even = starts("--burstiness", "inf")
    assert a == pytest.approx(again, abs=1e-6) and a != pytest.approx(other, abs=1e-3)
    assert even == pytest.approx([i / 100 for i in range(40)], abs=1e-6)
    assert doc["request_rate"] == 100.0 and doc["pdctl"]["scheduled"] is True and doc["pdctl"]["schedule_lag"]["count"] == 40


def test_timestamps_and_think_time(tmp_path):
    path = write_lines(
        tmp_path / "t.jsonl",
        *({"timestamp": t, "input_length": 4, "output_length": 1, "hash_ids": [t], **m}
          for t, m in [(0, {"session_id": "a"}), (400, {}), (1, {"session_id": "a", "delay": 200})]),
    )
    with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
        doc = bench(engine, "--dataset", path, "--timestamps", "--speedup", 2)
        origin = doc["start_times"][0] - doc["queue_times"][0]
        start = [s - origin for s in doc["start_times"]]
        assert start[1] >= 0.199 and start[2] >= 0.099 + doc["latencies"][0]
        done = harness.run("bench", "--base-url", engine.url, "--dataset", write_lines(tmp_path / "x.jsonl", {"prompt": "x"}), "--timestamps")
        assert done.returncode == 2 and "--timestamps" in done.stderr


def test_warmups_are_sent_and_not_measured():
    with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
        doc = bench(engine, "--num-prompts", 3, "--num-warmups", 5)
        assert len(engine.seen) == 8 and doc["completed"] == 3 and len(doc["ttfts"]) == 3 and doc["pdctl"]["warmups"] == 5


# ---- results ----


def test_cached_tokens_workers_goodput_and_labels():
    def handler(seen, wire):
        good_stream(wire, headers=[("X-Prefill-Worker", "http://p:1@0"), ("x-decode-worker", "d2")])

    with FakeEngine(handler) as engine:
        doc = bench(engine, "--num-prompts", 4, "--goodput", "ttft:60000", "e2el:60000", "--label", "l", "--metadata", "run=1", "a=b=c")
    assert doc["pdctl"]["workers"] == {"worker": {}, "prefill": {"http://p:1@0": 4}, "decode": {"d2": 4}}
    assert doc["pdctl"]["cached_tokens"] == {"requests": 4, "total": 16, "share": 0.4}
    assert doc["request_goodput"] == pytest.approx(doc["request_throughput"])
    assert doc["label"] == "l" and doc["run"] == "1" and doc["a"] == "b=c"
    assert list(doc)[:9] == ["date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "run", "a"]


def test_output_file_and_tables(tmp_path):
    with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
        done = harness.run("bench", "--base-url", engine.url, "--num-prompts", 2, "--output", tmp_path / "r.json")
        assert done.returncode == 0 and done.stderr == "", "no progress when standard error is no terminal"
        assert "2/2 requests completed" in done.stdout and "TTFT" in done.stdout and "E2E" in done.stdout
        doc = json.loads((tmp_path / "r.json").read_text())
        assert doc["completed"] == 2 and "ttfts" not in doc and len(doc["latencies"]) == 2
        done = harness.run("compare", tmp_path / "r.json", tmp_path / "r.json", "--allow-different", "client_ok")
        assert done.returncode == 0, done.stderr


def verify(handler, *args):
    with FakeEngine(handler) as engine:
        done = harness.run("bench", "--base-url", engine.url, "--verify", "--output-len", 1, *args)
        engine.check()
    return done


def test_verify_verdicts():
    lock, count = threading.Lock(), {}

    def sticky(moved):
        count.clear()

        def handler(seen, wire):
            key = seen.header("x-session-id")
            with lock:
                count[key] = count.get(key, 0) + 1
                nth = count[key]
            number = int(key.split("_")[1])
            worker = f"d{number % 2}" if not (number < moved and nth == 2) else "dx"
            good_stream(wire, 1, headers=[("X-Prefill-Worker", "p0"), ("X-Decode-Worker", worker)])

        return handler

    args = ["--sessions", 20, "--requests-per-session", 2]
    done = verify(sticky(0), *args)
    assert done.returncode == 0 and "verdict: PASS" in done.stdout
    assert "prefill: 20/20 sessions consistent" in done.stdout and "2 workers used" in done.stdout
    assert "one worker cannot show consistency" in done.stdout, "a pool of which one worker is used is pointed out"
    assert "d0" in done.stdout and "50.0%" in done.stdout and "###" in done.stdout
    done = verify(sticky(2), *args)
    assert done.returncode == 0 and "verdict: PARTIAL PASS" in done.stdout and "decode: 18/20" in done.stdout
    done = verify(sticky(5), *args)
    assert done.returncode == 1 and "verdict: FAIL" in done.stdout


def test_verify_needs_sessions_and_headers():
    done = verify(lambda seen, wire: good_stream(wire, 1), "--sessions", 2)
    assert done.returncode == 1 and "no response named its worker" in done.stdout
    done = verify(lambda seen, wire: good_stream(wire, 1, headers=[("X-Worker", "w")]), "--num-prompts", 2)
    assert done.returncode == 1 and "no request had a session key" in done.stdout


def test_verify_in_the_document():
    with FakeEngine(lambda seen, wire: good_stream(wire, 1, headers=[("X-Worker", "w")])) as engine:
        doc = bench(engine, "--sessions", 3, "--requests-per-session", 2, "--verify")
    v = doc["pdctl"]["verify"]
    assert v["verdict"] == "PASS" and v["score"] == 1.0 and v["sessions"] == 3
    assert v["roles"] == {"worker": {"consistent_sessions": 3, "named": 6, "workers": {"w": {"requests": 6, "sessions": 3}}}}
    assert doc["pdctl"]["sessions"] == [f"session_00{i % 3}" for i in range(6)] and doc["pdctl"]["worker_of"] == ["w"] * 6


# ---- ends ----


def interrupt(engine, times, tmp_path):
    proc = subprocess.Popen(
        [harness.PDCTL, "bench", "--base-url", engine.url, "--model", "m", "--num-prompts", "50", "--max-concurrency", "2", "--output",
         str(tmp_path / "r.json")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=harness.CLEAN_ENV)
    harness.wait_for("requests", lambda: len(engine.seen) >= 2)
    for _ in range(times):
        proc.send_signal(signal.SIGINT)
        time.sleep(0.3)
    out, err = proc.communicate(timeout=30)
    assert proc.returncode == 130, (out, err)
    assert not harness.REPORTS.search(err)
    return out, json.loads((tmp_path / "r.json").read_text())


def test_interrupt_reports_what_was_done(tmp_path):
    def slow(seen, wire):
        time.sleep(0.2)
        good_stream(wire)

    with FakeEngine(slow) as engine:
        out, doc = interrupt(engine, 1, tmp_path)
        assert doc["completed"] == len(engine.seen) < 50, "requests in flight finish, nothing new is sent"
        assert doc["pdctl"]["failures"] == {"not_sent": 50 - len(engine.seen)} and doc["pdctl"]["interrupted"] is True
        assert "requests completed" in out
    release = threading.Event()
    with FakeEngine(lambda seen, wire: release.wait(30)) as engine:
        _, doc = interrupt(engine, 2, tmp_path)
        release.set()
        assert doc["pdctl"]["failures"] == {"interrupted": 2, "not_sent": 48}


@pytest.mark.parametrize(
    "words,says",
    [
        (["--base-url", "ftp://x", "--model", "m"], "ftp://x"),
        (["--base-url", "nonsense space", "--model", "m"], "nonsense space"),
        (["--session-pattern", "key_<i%4"], "--session-pattern: 'key_<i%4', column 9"),
        (["--session-field", "header:"], "--session-field"),
        (["--session-field", "users"], "'users'"),
        (["--extra-body", "[1]"], "--extra-body"),
        (["--header", "novalue"], "--header: found 'novalue'"),
        (["--metadata", "novalue"], "--metadata: found 'novalue'"),
        (["--goodput", "ttft"], "--goodput: found 'ttft'"),
        (["--percentile-metrics", "ttft,lat"], "--percentile-metrics: found 'lat'"),
        (["--metric-percentiles", "101"], "--metric-percentiles: found '101'"),
        (["--request-rate", "0"], "--request-rate"),
        (["--endpoint", "/v2"], "--endpoint"),
        (["--dataset", "/nonexistent.jsonl"], "/nonexistent.jsonl"),
        (["--requests-per-session", "3"], "--requests-per-session"),
        (["--timestamps", "--request-rate", "3"], "--timestamps"),
        (["extra"], "'extra'"),
    ],
)
def test_wrong_words(tmp_path, words, says):
    done = harness.run("bench", *(["--base-url", "http://127.0.0.1:1"] if "--base-url" not in words else []), *words, "--output", tmp_path / "r.json")
    assert done.returncode == 2 and says in done.stderr and done.stdout == "", (done.returncode, done.stderr)
    assert not list(tmp_path.iterdir())


def test_wrong_dataset_line_is_named(tmp_path):
    path = write_lines(tmp_path / "w.jsonl", '{"prompt": "x"}', '{"prompt": 7}')
    with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
        done = harness.run("bench", "--base-url", engine.url, "--dataset", path)
        assert done.returncode == 2 and f"{path}:2:12: " in done.stderr and not engine.seen
        done = harness.run("bench", "--base-url", engine.url, "--dataset", path, "--num-prompts", 1)
        assert done.returncode == 0 and len(engine.seen) == 1
        done = harness.run("bench", "--base-url", engine.url, "--dataset", write_lines(path, '{"prompt": "x"}'), "--num-prompts", 2)
        assert done.returncode == 2 and "--num-prompts" in done.stderr


def test_connections_are_reused_and_names_resolved():
    conns = set()

    def handler(seen, wire):
        conns.add(id(wire))
        good_stream(wire)

    with FakeEngine(handler) as engine:
        engine.url = f"http://localhost:{engine.port}/"
        doc = bench(engine, "--num-prompts", 30, "--max-concurrency", 3, "--model", "m")
        assert doc["completed"] == 30 and len(conns) <= 3
        engine.url = "http://no-such-host.invalid:80"
        done = harness.run("bench", "--base-url", engine.url, "--model", "m")
        assert done.returncode == 3 and "no-such-host.invalid" in done.stderr


def test_few_descriptors():
    """A limit of open files bounds the requests in flight; asking for more is refused, not ignored."""

    def limited(*args):
        return subprocess.run(["bash", "-c", 'ulimit -n 150; exec "$@"', "-", harness.PDCTL, "bench", *args], capture_output=True, text=True,
                              timeout=60, env=harness.CLEAN_ENV)

    t = Tracker()
    with FakeEngine(t.handler) as engine:
        done = limited("--base-url", engine.url, "--num-prompts", "300")
        assert done.returncode == 0 and "300/300" in done.stdout and t.peak <= 86
        done = limited("--base-url", engine.url, "--model", "m", "--max-concurrency", "100")
        assert done.returncode == 2 and "--max-concurrency: found 100, expected at most 86" in done.stderr


def test_a_late_client_says_so():
    """Stopped for a while in the middle of a schedule, the client must not blame the server."""
    with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
        proc = subprocess.Popen(
            [harness.PDCTL, "bench", "--base-url", engine.url, "--model", "m", "--num-prompts", "60", "--request-rate", "100", "--burstiness", "inf",
             "--json"], stdout=subprocess.PIPE, text=True, env=harness.CLEAN_ENV)
        harness.wait_for("requests", lambda: len(engine.seen) >= 5)
        proc.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        proc.send_signal(signal.SIGCONT)
        out, _ = proc.communicate(timeout=30)
    doc = json.loads(out)
    assert proc.returncode == 0 and doc["completed"] == 60
    assert doc["pdctl"]["client_ok"] is False and doc["pdctl"]["schedule_lag"]["max_ms"] > 300


# ---- our own engine ----


def test_worker_streams_and_sessions_hit_its_cache(pdctl):
    worker = pdctl.worker("--decode-ms-per-token", 2, "--speedup", 4)
    doc = bench(worker, "--sessions", 4, "--requests-per-session", 5, "--input-len", 256, "--output-len", 12)
    assert doc["completed"] == 20 and doc["total_output_tokens"] == 240
    assert doc["pdctl"]["itl_basis"] == "usage" and doc["pdctl"]["cached_tokens"]["share"] > 0.4
    plain = bench(worker, "--num-prompts", 3, "--no-stream", "--output-len", 5)
    assert plain["completed"] == 3 and plain["total_output_tokens"] == 15
    assert bench(worker, "--num-prompts", 3, "--endpoint", "/v1/completions")["completed"] == 3
    assert bench(worker, "--num-prompts", 3, "--endpoint", "/v1/embeddings")["completed"] == 3


def test_trace_through_the_router(pdctl):
    """The first 500 requests of the public conversation trace, a tenth of their size, over serve and four workers."""
    trace = os.path.join(os.environ.get("PDCTL_DATA", os.path.join(os.path.dirname(__file__), "../../../shared/data")), "mooncake_conversation.jsonl")
    if not os.path.exists(trace):
        pytest.skip(f"{trace} is not there (set PDCTL_DATA)")
    workers = [pdctl.worker("--speedup", 50, "--num-gpu-blocks", 20000) for _ in range(4)]
    router = pdctl("serve", "--worker-urls", *[w.url for w in workers], "--policy", "round_robin", "--prometheus-port", 0)
    doc = bench(router, "--dataset", trace, "--num-prompts", 500, "--scale-tokens", 0.1, "--max-concurrency", 32)
    assert doc["completed"] == 500 and doc["failed"] == 0, (doc["pdctl"]["failures"], [e for e in doc["errors"] if e][:3], router.log()[-1500:], [w.log()[-500:] for w in workers])
    used = doc["pdctl"]["workers"]["worker"]
    assert sorted(used) == sorted(w.url for w in workers) and set(used.values()) == {125}
    assert doc["pdctl"]["cached_tokens"]["total"] > 0
