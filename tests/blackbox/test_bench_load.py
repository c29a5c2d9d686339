"""pdctl bench: keys, caches, schedules, several runs, files and verdicts, against an engine that says exactly what a test wants."""

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

import harness
from fake_engine import FakeEngine
from test_bench import bench, delta, good_stream, text_of, write_lines


def answer(seen, wire):
    good_stream(wire)


def run(engine, *args, code=0, env=None):
    url = [] if engine is None else ["--base-url", engine.url]
    done = harness.run("bench", *url, *args, env=env)
    assert done.returncode == code, (done.returncode, done.stderr, done.stdout[-3000:])
    return done


# ---- where, and with which key ----


def test_base_url_with_v1_and_the_key_of_the_environment():
    with FakeEngine(answer) as engine:
        at = type("V1", (), {"url": engine.url + "/v1"})
        for transport in ("pdctl", "curl"):
            bench(at, "--num-prompts", 1, "--transport", transport, env={"OPENAI_API_KEY": "sk-env"})
            bench(at, "--num-prompts", 1, "--transport", transport, "--api-key", "sk-arg", env={"OPENAI_API_KEY": "sk-env"})
        engine.check()
        assert {s.target for s in engine.seen} == {"/v1/chat/completions"} and {p.target for p in engine.probes} == {"/v1/models"}
        assert [s.header("authorization") for s in engine.seen] == ["Bearer sk-env", "Bearer sk-arg"] * 2
        assert all(p.header("authorization") for p in engine.probes)


def test_a_refused_list_of_models_is_named():
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = harness.run("bench", "--base-url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert done.returncode == 3 and "401" in done.stderr and "OPENAI_API_KEY" in done.stderr and "without a model" not in done.stderr


def test_unix_socket(tmp_path):
    path, seen = tmp_path / "s", []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve():
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            with conn:
                data = conn.recv(65536)
                seen.append(data.split(b"\r\n")[0])
                body = b'{"choices": [{"text": "x", "finish_reason": "stop"}]}'
                conn.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    threading.Thread(target=serve, daemon=True).start()
    for transport in ("pdctl", "curl"):
        done = harness.run("bench", "--unix-socket", path, "--base-url", "http://localhost", "--model", "m", "--num-prompts", 2, "--no-stream",
                           "--endpoint", "/v1/completions", "--json", "--transport", transport)
        assert done.returncode == 0 and json.loads(done.stdout)["completed"] == 2, done.stderr
    listener.close()
    assert seen == [b"POST /v1/completions HTTP/1.1"] * 4


def test_a_proxy_is_the_curl_transports():
    """The proxy is asked for the whole URL; a name that nobody knows is its business."""
    with FakeEngine(answer) as proxy:
        far = type("Far", (), {"url": "http://engine.invalid:81/v1"})
        doc = bench(far, "--model", "m", "--num-prompts", 2, "--transport", "curl", "--proxy", proxy.url)
        assert doc["completed"] == 2 and {s.target for s in proxy.seen} == {"http://engine.invalid:81/v1/chat/completions"}
        done = harness.run("bench", "--base-url", proxy.url, "--model", "m", "--num-prompts", 2, "--proxy", proxy.url)
        assert done.returncode == 2 and "--transport curl" in done.stderr


@pytest.mark.parametrize("transport", ["pdctl", "curl"])
def test_any_header_and_any_path(transport):
    with FakeEngine(answer) as engine:
        bench(engine, "--num-prompts", 2, "--session-pattern", "k<i>", "--session-field", "header:X-A,header:X-B, body:metadata.routing.user,user",
              "--transport", transport, "--max-concurrency", 1)
        engine.check()
        for i, s in enumerate(engine.seen):
            assert s.header("x-a") == s.header("x-b") == s.json()["user"] == s.json()["metadata"]["routing"]["user"] == f"k{i}"
            assert s.header("x-session-id") is None and "session_params" not in s.json()


def test_prompt_cache_key_alone():
    with FakeEngine(answer) as engine:
        bench(engine, "--num-prompts", 4, "--prompt-cache-key", "bench_key_{request_id % 2}", "--max-concurrency", 1)
        assert [s.json()["prompt_cache_key"] for s in engine.seen] == ["bench_key_0", "bench_key_1"] * 2
        assert all(s.header("x-session-id") is None and "session_params" not in s.json() for s in engine.seen)


def test_affinities(tmp_path):
    rows = [{"prompt": "p", "session_id": f"s{i % 2}", "prompt_cache_key": f"c{i % 3}", "prefix_group": i % 4} for i in range(12)]
    path = write_lines(tmp_path / "w.jsonl", *rows)

    def keys(*args):
        with FakeEngine(answer) as engine:
            doc = bench(engine, "--dataset", path, *args)
            return sorted({s.header("x-session-id") for s in engine.seen}, key=str), doc["pdctl"]

    assert keys()[0] == ["c0", "c1", "c2"]
    assert keys("--affinity", "session")[0] == ["s0", "s1"]
    assert keys("--affinity", "prefix")[0] == ["prefix_0", "prefix_1", "prefix_2", "prefix_3"]
    sent, own = keys("--affinity", "none")
    assert sent == [None] and own["affinity"] == "none" and set(own["sessions"]) == {"c0", "c1", "c2"}, "the records still have the names"


def test_a_pattern_that_splits_prefix_groups_is_pointed_out(tmp_path):
    path = write_lines(tmp_path / "w.jsonl", *({"prompt": "p", "prefix_group": (i * 7) % 4, "output_tokens": 1} for i in range(16)))
    with FakeEngine(answer) as engine:
        done = run(engine, "--dataset", path, "--session-pattern", "bench_key_{request_id % 3}")
        assert "4 of 4 prefix groups have several keys" in done.stdout and "key_<prefix>" in done.stdout
        done = run(engine, "--dataset", path, "--session-pattern", "key_<prefix>")
        assert "prefix groups" not in done.stdout


@pytest.mark.parametrize("transport", ["pdctl", "curl"])
def test_session_headers_are_echoed(transport):
    """What the answer to a turn says goes back with the session's next turn, and with no other's."""

    def handler(seen, wire):
        key = seen.header("x-session-id")
        good_stream(wire, headers=[("X-Session-Token", f"token-of-{key}-{seen.header('x-session-token')}")])

    with FakeEngine(handler) as engine:
        bench(engine, "--sessions", 3, "--requests-per-session", 3, "--echo-headers", "X-Session-Token", "--transport", transport)
        engine.check()
        got = {}
        for s in engine.seen:
            got.setdefault(s.header("x-session-id"), []).append(s.header("x-session-token"))
    for key, tokens in got.items():
        assert tokens == [None, f"token-of-{key}-None", f"token-of-{key}-token-of-{key}-None"]


def test_real_answers_are_carried(tmp_path):
    turn = [{"role": "user", "content": "q1"}, {"role": "assistant", "content": "invented"}, {"role": "user", "content": "q2"}]
    path = write_lines(tmp_path / "t.jsonl", {"messages": turn[:1], "conversation_id": "s"}, {"messages": turn, "conversation_id": "s"})

    def handler(seen, wire):
        wire.begin_stream()
        wire.event('{"choices": [{"index": 0, "delta": {"content": "re\\ud83d"}}]}')
        wire.event('{"choices": [{"index": 0, "delta": {"content": "\\ude00al \\"x\\""}, "finish_reason": "stop"}]}')
        wire.event("[DONE]")
        wire.end_stream()

    with FakeEngine(handler) as engine:
        bench(engine, "--dataset", path)
        assert engine.seen[1].json()["messages"] == turn
        engine.seen.clear()
        bench(engine, "--dataset", path, "--carry-answers")
        engine.check()
        assert [m["content"] for m in engine.seen[1].json()["messages"]] == ["q1", 're\U0001f600al "x"', "q2"]


def test_responses_and_messages():
    def handler(seen, wire):
        body = seen.json()
        wire.begin_stream()
        if seen.target == "/v1/responses":
            assert body["max_output_tokens"] == 7 and body["input"][0]["role"] == "user" and "stream_options" not in body
            wire.event({"type": "response.output_text.delta", "delta": "hi"})
            wire.event({"type": "response.completed", "response": {"usage": {"input_tokens": 5, "output_tokens": 2}}})
        else:
            assert body["max_tokens"] == 7 and seen.header("x-api-key") == "k" and seen.header("anthropic-version")
            wire.event({"type": "message_start", "message": {"usage": {"input_tokens": 6, "output_tokens": 1}}})
            wire.event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "yo"}})
            wire.event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}})
            wire.event({"type": "message_stop"})
        wire.end_stream()

    with FakeEngine(handler) as engine:
        for transport in ("pdctl", "curl"):
            for path, backend, text, tokens in (("responses", "openai-responses", "hi", (5, 2)), ("messages", "anthropic-messages", "yo", (6, 3))):
                doc = bench(engine, "--num-prompts", 2, "--endpoint", f"/v1/{path}", "--output-len", 7, "--api-key", "k", "--transport", transport)
                assert doc["completed"] == 2 and doc["backend"] == backend and doc["generated_texts"] == [text] * 2
                assert (doc["input_lens"][0], doc["output_lens"][0]) == tokens and doc["mean_ttft_ms"] > 0
        engine.check()


# ---- caches ----


def test_warm_ups_share_no_prompt_and_salt_changes_all(tmp_path):
    system = {"role": "system", "content": "you are"}
    rows = [{"messages": [system, {"role": "user", "content": [{"type": "text", "text": f"q{i}"}]}]} for i in range(3)] + [{"prompt": "p"}]
    path = write_lines(tmp_path / "w.jsonl", *rows)

    def beginnings(*args):
        with FakeEngine(answer) as engine:
            bench(engine, "--dataset", path, "--max-concurrency", 1, *args)
            engine.check()
            return [s.json()["messages"][0]["content"] for s in engine.seen]

    plain = beginnings()
    assert plain == ["you are"] * 3 + ["p"]
    warm = beginnings("--num-warmups", 6)
    assert warm[6:] == plain and len(set(warm[:6])) == 6 and not {w.split(" ")[1] for w in warm[:6]} & {"you", "p"}
    salted = beginnings("--salt", 'a"b')
    assert salted == ['a"b you are'] * 3 + ['a"b p']


def test_token_ids_are_salted_too(tmp_path):
    path = write_lines(tmp_path / "w.jsonl", '{"prompt": [1, 2, 3], "output_tokens": 1}')
    with FakeEngine(lambda seen, wire: wire.json({"choices": [{"text": "x"}]})) as engine:
        for salt in ("a", "b"):
            bench(engine, "--dataset", path, "--endpoint", "/v1/completions", "--no-stream", "--salt", salt)
        a, b = (s.json()["prompt"] for s in engine.seen)
    assert a[-3:] == b[-3:] == [1, 2, 3] and a[0] != b[0] and all(100 <= x < 1124 for x in a[:-3] + b[:-3])


def test_hits_and_misses_and_a_warm_cache(tmp_path):
    """Odd requests are hits and are answered at once; a second run into the same file finds all cached."""
    n, cached = [0], [0]

    def handler(seen, wire):
        n[0] += 1
        hit = n[0] % 2 == 0 or cached[0]
        if not hit:
            time.sleep(0.05)
        wire.begin_stream()
        wire.event(delta("a", usage=(10, 1, 9 if hit else 0)))
        wire.event(delta(finish="stop", usage=(10, 1, 9 if hit else 0)))
        wire.event("[DONE]")
        wire.end_stream()

    with FakeEngine(handler) as engine:
        args = ["--num-prompts", 10, "--max-concurrency", 1, "--output", tmp_path / "r.json"]
        done = run(engine, *args, "--assert", "hits-faster")
        assert "(45.0 % cached)" in done.stdout and "TTFT of cache hits" in done.stdout and "TTFT of misses" in done.stdout
        own = json.loads((tmp_path / "r.json").read_text())["pdctl"]
        assert own["cache_hits"] == own["cache_misses"] == 5 and own["median_ttft_miss_ms"] >= 50 > own["median_ttft_hit_ms"]
        cached[0] = 1
        done = run(engine, *args)
        assert "--salt" in done.stdout and "45.0 % in the run before" in done.stdout
        n[0], cached[0] = 0, 0
        done = run(engine, "--num-prompts", 5, "--max-concurrency", 1, "--repeat", 2)
        assert "--salt" in done.stdout and re.search(r"cache: 54.0 % .*, 36.0 % in the run before", done.stdout), "odd runs have other shares"
        cached[0] = 1
        done = run(engine, *args, "--assert", "hits-faster", code=1)
        assert "assert hits-faster: FAILED" in done.stdout, "no misses: it cannot be judged"


# ---- when ----


def gaps(doc):
    at = doc["start_times"]
    return [b - a for a, b in zip(at, at[1:])]


def test_phases_are_steps_and_ramps():
    with FakeEngine(answer) as engine:
        doc = bench(engine, "--num-prompts", 30, "--phases", "0.5:20", "1:20-60", "0.2:60", "--burstiness", "inf")
    at = [t - doc["start_times"][0] for t in doc["start_times"]]
    assert doc["pdctl"]["scheduled"] and at == sorted(at)
    assert 0.44 <= at[10] and gaps(doc)[0] > 0.03
    assert at[29] < 1.5 and doc["pdctl"]["phases"] == ["0.5:20", "1:20-60", "0.2:60"]
    done = harness.run("bench", "--phases", "5:x")
    assert done.returncode == 2 and "'5:x'" in done.stderr


def test_duration_and_windows():
    with FakeEngine(answer) as engine:
        doc = bench(engine, "--duration", 0.6, "--request-rate", 50, "--burstiness", "inf", "--num-prompts", 1000)
        assert 10 <= doc["num_prompts"] <= 31 and doc["failed"] == 0 and doc["pdctl"]["outside"] == 1000 - doc["num_prompts"]
        doc = bench(engine, "--num-prompts", 30, "--request-rate", 50, "--burstiness", "inf", "--warmup-seconds", 0.2, "--cooldown-seconds", 0.2)
        assert len(engine.seen) >= 60 and 5 <= doc["num_prompts"] <= 15 and doc["pdctl"]["outside"] == 30 - doc["num_prompts"]
        assert len(doc["ttfts"]) == doc["num_prompts"]


def test_users_with_rates_of_their_own(tmp_path):
    path = write_lines(tmp_path / "w.jsonl", *({"prompt": "p", "session_id": f"u{i % 4}", "output_tokens": 1} for i in range(20)))
    with FakeEngine(answer) as engine:
        doc = bench(engine, "--dataset", path, "--session-rate", 20, "--seed", 3)
        engine.check()
    assert doc["completed"] == 20 and doc["pdctl"]["session_rate"] == 20 and max(doc["start_times"]) - min(doc["start_times"]) > 0.08


def test_a_stall_shows_from_the_intended_time():
    """With --max-concurrency the stall hides in the wait of others; from the intended time it does not, and a line says so."""
    lock, n = threading.Lock(), [0]
    until = [0.0]

    def handler(seen, wire):
        with lock:
            n[0] += 1
            if n[0] == 20:
                until[0] = time.monotonic() + 1
        time.sleep(max(0, until[0] - time.monotonic()))
        good_stream(wire)

    with FakeEngine(handler) as engine:
        args = ["--num-prompts", 120, "--request-rate", 100, "--burstiness", "inf", "--max-concurrency", 1]
        doc = bench(engine, *args)
        own = doc["pdctl"]
        assert own["p99_ttft_from_intended_ms"] >= 900 and own["p99_e2el_from_intended_ms"] >= 900 and own["late"] is True
        assert own["median_ttft_from_intended_ms"] >= doc["median_ttft_ms"]
        n[0] = 0
        done = run(engine, *args)
        assert "late: requests were sent after their intended time" in done.stdout and "TTFT from intended" in done.stdout


# ---- several runs ----


def test_ab_sends_the_same_to_both(tmp_path):
    with FakeEngine(answer) as a, FakeEngine(lambda seen, wire: (time.sleep(0.03), good_stream(wire))) as b:
        done = run(None, "--ab", a.url, b.url, "--num-prompts", 10, "--request-rate", 100, "--sessions", 2, "--requests-per-session", 5,
                   "--output", tmp_path / "r.json", "--save-detailed")
        assert sorted(s.body for s in a.seen) == sorted(s.body for s in b.seen) and len(a.seen) == 10
    docs = [json.loads((tmp_path / f"r.{x}.json").read_text()) for x in "ab"]
    assert [d["pdctl"]["ab"] for d in docs] == ["a", "b"] and [d["completed"] for d in docs] == [10, 10]
    assert [d["pdctl"]["target"] for d in docs] == [a.url, b.url] and docs[1]["mean_ttft_ms"] >= 30
    assert f"pdctl compare {tmp_path}/r.a.json {tmp_path}/r.b.json" in done.stdout and not (tmp_path / "r.json").exists()


def test_repeat_and_append(tmp_path):
    path = tmp_path / "r.json"
    with FakeEngine(answer) as engine:
        run(engine, "--num-prompts", 2, "--repeat", 3, "--output", path)
        assert [json.loads(x)["completed"] for x in path.read_text().splitlines()] == [2] * 3
        run(engine, "--num-prompts", 3, "--output", path, "--append-result")
        assert [json.loads(x)["completed"] for x in path.read_text().splitlines()] == [2] * 3 + [3]


def test_shards_are_the_whole(tmp_path):
    rows = [{"prompt": f"p{i}", "output_tokens": 1, **({"session_id": f"s{i % 5}"} if i < 20 else {})} for i in range(32)]
    path = write_lines(tmp_path / "w.jsonl", *rows)
    seen = []
    with FakeEngine(answer) as engine:
        for k in (1, 2, 3):
            engine.seen.clear()
            doc = bench(engine, "--dataset", path, "--shard", f"{k}/3", "--request-rate", 500)
            assert doc["pdctl"]["shard"] == f"{k}/3"
            part = [text_of(s) for s in engine.seen]
            assert {s.header("x-session-id") for s in engine.seen} & {f"s{i}" for i in range(5) if i % 3 != k - 1} == set(), "sessions stay whole"
            seen += part
    assert sorted(seen) == sorted(f"p{i}" for i in range(32))
    assert harness.run("bench", "--shard", "4/3").returncode == 2


def test_sweep_finds_the_limit(tmp_path):
    """The engine answers two at a time in 20 ms each: 100 requests/s and no more."""
    places = threading.Semaphore(2)

    def handler(seen, wire):
        with places:
            time.sleep(0.02)
        good_stream(wire, words=1)

    path = tmp_path / "s.json"
    with FakeEngine(handler) as engine:
        done = run(engine, "--sweep", "--duration", 1, "--output-len", 1, "--output", path, "--burstiness", "inf")
    docs = [json.loads(x) for x in path.read_text().splitlines()]
    rates = [d["request_rate"] for d in docs]
    found = re.search(r"highest rate that was followed: ([\d.]+)/s; lowest that was not: ([\d.]+)/s", done.stdout)
    assert found and len(rates) == len(set(rates)) >= 3
    assert 5 < float(found[1]) < 130 and float(found[1]) < float(found[2]) < 300, done.stdout
    assert len({d["pdctl"]["salt"] for d in docs}) == len(docs), "steps share no prompt"


# ---- files and verdicts ----


def test_failures_make_the_exit_code(tmp_path):
    n = [0]

    def handler(seen, wire):
        n[0] += 1
        if n[0] % 10 == 0:
            wire.json({"error": {"message": "no"}}, status=500)
        else:
            good_stream(wire)

    with FakeEngine(handler) as engine:
        args = ["--num-prompts", 20, "--max-concurrency", 1]
        for allowed, code in ((None, 1), ("1", 1), ("2", 0), ("9%", 1), ("10%", 0)):
            n[0] = 0
            run(engine, *args, *([] if allowed is None else ["--max-failures", allowed]), code=code)
    assert harness.run("bench", "--max-failures", "x").returncode == 2


def test_an_output_that_cannot_be_written(tmp_path):
    with FakeEngine(answer) as engine:
        done = run(engine, "--num-prompts", 2, "--output", tmp_path / "missing" / "r.json", code=2)
        assert "--output" in done.stderr and not engine.seen, "nothing is sent in vain"
        folder = tmp_path / "gone"
        folder.mkdir()

        def handler(seen, wire):
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()
            good_stream(wire)

        engine.handler = handler
        done = run(engine, "--num-prompts", 2, "--output", folder / "r.json", code=3, env={"TMPDIR": str(tmp_path)})
    assert "2/2 requests completed" in done.stdout and "compare:" not in done.stdout, "the tables are printed all the same"
    place = re.search(r"the document is in '([^']+)'", done.stderr)[1]
    with open(place, encoding="utf-8") as f:
        assert json.load(f)["completed"] == 2 and place.startswith(str(tmp_path))


def test_an_interrupted_verify_is_no_verdict(tmp_path):
    with FakeEngine(lambda seen, wire: (time.sleep(0.2), good_stream(wire))) as engine:
        proc = subprocess.Popen([harness.PDCTL, "bench", "--base-url", engine.url, "--model", "m", "--sessions", "2", "--requests-per-session", "50",
                                 "--verify"], stdout=subprocess.PIPE, text=True, env=harness.CLEAN_ENV)
        harness.wait_for("requests", lambda: len(engine.seen) >= 4)
        proc.send_signal(signal.SIGINT)
        out, _ = proc.communicate(timeout=30)
    assert proc.returncode == 130 and "the run was interrupted" in out and "FAIL" not in out


def test_assertions_can_fail():
    """Two workers in turn: split and not sticky; one worker: sticky and not split."""
    n = [0]

    def handler(seen, wire):
        n[0] += 1
        good_stream(wire, headers=[("X-Worker", f"w{n[0] % workers}")])

    with FakeEngine(handler) as engine:
        args = ["--sessions", 5, "--requests-per-session", 4, "--max-concurrency", 1, "--output-len", 1]
        for workers, holding, failing in ((2, "split,split=2,not-sticky", ("sticky", "split=3")), (1, "sticky,split=1", ("split", "not-sticky")),
                                          (3, "split=3,not-sticky", ("split=2", "hits-faster,sticky"))):
            done = run(engine, *args, "--assert", holding)
            assert done.stdout.count("holds (") == holding.count(",") + 1
            for words in failing:
                assert "FAILED (" in run(engine, *args, "--assert", words, code=1).stdout
    done = harness.run("bench", "--assert", "sticki")
    assert done.returncode == 2 and "'sticki'" in done.stderr


def test_tables_fit_and_say_how_tokens_were_counted():
    def handler(seen, wire):
        wire.begin_stream()
        wire.event(delta("a"))
        wire.event(delta("b", finish="stop"))
        wire.event("[DONE]")
        wire.end_stream()

    with FakeEngine(handler) as engine:
        done = run(engine, "--num-prompts", 40, "--request-rate", 200, "--session-pattern", "key_<i%4>", "--metric-percentiles", "50,90,95,99,99.9",
                   "--goodput", "ttft:500")
    assert all(len(line) <= 100 for line in done.stdout.splitlines()), done.stdout
    assert "counted by chunks" in done.stdout and "per chunk" in done.stdout and "goodput: " in done.stdout
    assert engine.url in done.stdout and "4 session keys (key_<i%4>)" in done.stdout and "rate: 200/s" in done.stdout


def test_nothing_succeeded_is_no_figure():
    with FakeEngine(lambda seen, wire: wire.json({"detail": "Not Found"}, status=404)) as engine:
        doc = bench(engine, "--num-prompts", 3, code=1)
        assert doc["p99_ttft_ms"] is None and doc["pdctl"]["p99_ttft_from_intended_ms"] is None
        assert doc["pdctl"]["token_basis"] == "none" and doc["ttfts"] == [None] * 3
        done = run(engine, "--num-prompts", 3, code=1)
    assert "failed: 3 x http_404" in done.stdout and "TTFT" not in done.stdout


# ---- the words of vllm bench serve ----


def test_vllm_words(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", {"prompt": "a"}, {"prompt": "b"})
    with FakeEngine(lambda seen, wire: good_stream(wire)) as engine:
        host, port = engine.url[7:].split(":")
        done = run(None, "--backend", "openai-chat", "--host", host, "--port", port, "--endpoint", "/v1/chat/completions", "--model", "m",
                   "--dataset-name", "custom", "--dataset-path", path, "--custom-output-len", 9, "--num-prompts", 5, "--request-rate", 100,
                   "--max-concurrency", 2, "--header", "X-K=v:1", "--top-p", 0.5, "--extra-body", '{"seed": 1}', "--save-result",
                   "--result-dir", tmp_path / "results", "--label", "lab", "--metadata", "a=b", "--disable-tqdm", "--percentile-metrics",
                   "ttft,e2el", "--trust-remote-code", "--tokenizer", "/nowhere", "--disable-shuffle", "--request-id-prefix", "id-")
        engine.check()
        in_order = sorted(engine.seen, key=lambda s: s.header("x-request-id"))
        assert [text_of(s) for s in in_order] == ["a", "b", "a", "b", "a"], "oversampled, in order"
        body = engine.seen[0].json()
        assert body["max_tokens"] == 9 and body["top_p"] == 0.5 and body["seed"] == 1 and engine.seen[0].header("x-k") == "v:1"
        assert sorted(s.header("x-request-id") for s in engine.seen) == [f"id-{i}" for i in range(5)]
        (name,) = os.listdir(tmp_path / "results")
        assert re.fullmatch(r"lab-100qps-concurrency2-m-\d{8}-\d{6}\.json", name) and name in done.stdout
        doc = json.loads((tmp_path / "results" / name).read_text())
        assert doc["a"] == "b" and doc["label"] == "lab" and doc["backend"] == "openai-chat"
        engine.seen.clear()
        run(engine, "--dataset-name", "random", "--random-input-len", 50, "--random-output-len", 6, "--random-range-ratio", 0.5, "--num-prompts", 8,
            "--save-result", "--result-filename", tmp_path / "f.json", "--ramp-up-strategy", "linear", "--ramp-up-start-rps", 20,
            "--ramp-up-end-rps", 200)
        lengths = [len(text_of(s)) / 4 for s in engine.seen]
        assert len(set(lengths)) > 2 and all(25 <= n <= 75 for n in lengths) and all(s.json()["ignore_eos"] for s in engine.seen)
        assert json.loads((tmp_path / "f.json").read_text())["pdctl"]["scheduled"] is True
        engine.seen.clear()
        run(engine, "--dataset-name", "prefix_repetition", "--prefix-repetition-num-prefixes", 2, "--prefix-repetition-prefix-len", 32,
            "--prefix-repetition-suffix-len", 16, "--num-prompts", 6)
        assert len({text_of(s)[:128] for s in engine.seen}) == 2 and len({text_of(s) for s in engine.seen}) == 6
    for words, says in ((["--lora-modules", "x"], "a run has one model"), (["--backend", "tgi"], "'tgi'"), (["--result-dir", "x"], "--save-result"),
                        (["--dataset-name", "hf"], "'hf'"), (["--ramp-up-strategy", "linear"], "go together"),
                        (["--port", 1, "--base-url", "http://x"], "--base-url")):
        done = harness.run("bench", *words)
        assert done.returncode == 2 and says in done.stderr, done.stderr


def test_calibration_makes_prompts_as_long_as_asked(tmp_path):
    """A server that counts two tokens a word and 10 for its template."""

    def handler(seen, wire):
        body = seen.json()
        words = len(body["messages"][0]["content"].split())
        if body["stream"]:
            good_stream(wire)
        else:
            wire.json({"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 2 * words + 10, "completion_tokens": 1}})

    with FakeEngine(handler) as engine:
        doc = bench(engine, "--num-prompts", 2, "--input-len", 100, "--calibrate")
        engine.check()
        assert len(engine.seen) == 4 and all(len(text_of(s).split()) == 50 for s in engine.seen[2:])
    assert doc["pdctl"]["words_per_token"] == 0.5
