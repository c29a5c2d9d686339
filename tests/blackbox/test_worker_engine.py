"""The simulated worker's engine: prefix cache, queue, seats, blocks, clients that leave, faults, the journal."""

import http.client
import json
import threading
import time

import pytest
from harness import Fleet, ProcessFailed, run, wait_for

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
JSON = {"Content-Type": "application/json"}


def words(n, word="w"):
    """A prompt of n tokens."""
    return " ".join(f"{word}{i}" for i in range(n))


def cached(answer):
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def open_stream(w, body, path=TEXT):
    """A stream that was asked for; nothing is read yet."""
    conn = http.client.HTTPConnection("127.0.0.1", w.port, timeout=60)
    conn.request("POST", path, json.dumps({"stream": True, **body}), JSON)
    return conn


def in_thread(call):
    result = []
    t = threading.Thread(target=lambda: result.append(call()))
    t.start()
    return t, result


def test_prefix_cache_counts_full_blocks(pdctl):
    w = pdctl("worker", "--decode-ms-per-token", 0)
    assert cached(w.post_json(TEXT, {"prompt": words(40), "max_tokens": 1})) == 0
    assert cached(w.post_json(TEXT, {"prompt": words(40), "max_tokens": 1})) == 32
    assert cached(w.post_json(TEXT, {"prompt": words(32), "max_tokens": 1})) == 16, "one token is always computed"
    assert cached(w.post_json(TEXT, {"prompt": words(33), "max_tokens": 1})) == 32
    assert cached(w.post_json(TEXT, {"prompt": words(20), "max_tokens": 1})) == 16
    assert cached(w.post_json(TEXT, {"prompt": words(15), "max_tokens": 1})) == 0
    assert cached(w.post_json(TEXT, {"prompt": words(40, "v"), "max_tokens": 1})) == 0


def test_cache_salt_separates(pdctl):
    w = pdctl("worker", "--decode-ms-per-token", 0)
    w.post_json(TEXT, {"prompt": words(40), "max_tokens": 1})
    body = {"prompt": words(40), "max_tokens": 1, "cache_salt": "tenant"}
    assert cached(w.post_json(TEXT, body)) == 0
    assert cached(w.post_json(TEXT, body)) == 32


def test_answers_in_history_hit_the_cache(pdctl):
    w = pdctl("worker", "--decode-ms-per-token", 0)
    history = [{"role": "user", "content": words(30)}]
    first = w.post_json(CHAT, {"messages": history, "max_tokens": 40})
    history += [{"role": "assistant", "content": first["choices"][0]["message"]["content"]}, {"role": "user", "content": "more"}]
    second = w.post_json(CHAT, {"messages": history, "max_tokens": 1})
    assert first["usage"]["total_tokens"] == 73 and cached(second) == 64


def test_lru_eviction_and_reset(pdctl):
    w = pdctl("worker", "--num-gpu-blocks", 6, "--decode-ms-per-token", 0)
    w.post_json(TEXT, {"prompt": words(48, "a"), "max_tokens": 1})
    w.post_json(TEXT, {"prompt": words(48, "b"), "max_tokens": 1})
    assert cached(w.post_json(TEXT, {"prompt": words(48, "a"), "max_tokens": 1})) == 32
    w.post_json(TEXT, {"prompt": words(48, "c"), "max_tokens": 1})
    assert cached(w.post_json(TEXT, {"prompt": words(48, "a"), "max_tokens": 1})) == 32, "b is older than a"
    assert w.metric("pdctl_worker_kv_evictions_total") > 0
    assert w.post("/reset_prefix_cache", b"")[0] == 200
    assert cached(w.post_json(TEXT, {"prompt": words(48, "a"), "max_tokens": 1})) == 0


def test_request_larger_than_the_cache_is_refused(pdctl):
    w = pdctl("worker", "--num-gpu-blocks", 4)
    status, _, raw = w.post(TEXT, {"prompt": words(64), "max_tokens": 10})
    assert status == 400 and "KV blocks" in json.loads(raw)["error"]["message"]
    assert w.post(TEXT, {"prompt": words(60), "max_tokens": 5, "stream": False})[0] == 200


# A step that runs cannot be taken back: who waits is let in at its end, not when the client leaves.
@pytest.mark.parametrize("limits", [["--max-num-seqs", 1], ["--num-gpu-blocks", 8]])
def test_queue_for_a_seat_or_for_blocks(pdctl, limits):
    w = pdctl("worker", *limits, "--decode-ms-per-token", 300)
    first = open_stream(w, {"prompt": words(50), "max_tokens": 70})  # 50 + 70 - 1 tokens are 8 blocks
    wait_for("the first to run", lambda: w.metric("vllm:num_requests_running") == 1)
    t, result = in_thread(lambda: w.post_json(TEXT, {"prompt": words(50, "z"), "max_tokens": 1}))
    wait_for("the second to wait", lambda: w.metric("vllm:num_requests_waiting") == 1)
    assert w.get_json("/load") == {"server_load": 2}
    assert w.metric("vllm:kv_cache_usage_perc") > 0
    first.close()
    t.join(20)
    assert result and result[0]["usage"]["completion_tokens"] == 1
    assert w.metric("pdctl_worker_aborted_requests_total") == 1
    wait_for("it to be counted", lambda: w.metric("pdctl_worker_running") == 0 and w.metric("vllm:kv_cache_usage_perc") == 0)


def test_queue_is_first_come_first_served(pdctl):
    w = pdctl("worker", "--max-num-seqs", 1, "--decode-ms-per-token", 60)
    order, threads = [], []
    for i in range(5):
        body = {"prompt": f"number {i}", "max_tokens": 10}
        threads.append(threading.Thread(target=lambda b=body, k=i: (w.post_json(TEXT, b), order.append(k))))
        threads[-1].start()
        wait_for("it to arrive", lambda n=i: w.get_json("/pdctl/requests")["total"] == n + 1)
    for t in threads:
        t.join(30)
    assert order == sorted(order)


@pytest.mark.parametrize("when", ["queued", "prefill", "decode"])
def test_client_that_leaves_is_aborted(pdctl, when):
    flags = {"queued": ["--max-num-seqs", 1], "prefill": ["--prefill-tokens-per-s", 0.001], "decode": []}[when]
    w = pdctl("worker", *flags, "--decode-ms-per-token", 500)
    keep = open_stream(w, {"prompt": "hold the seat", "max_tokens": 1000}) if when == "queued" else None
    if keep:
        wait_for("the seat to be taken", lambda: w.metric("pdctl_worker_running") == 1)
    conn = open_stream(w, {"prompt": words(40), "max_tokens": 1000})
    if when == "decode":
        assert conn.getresponse().readline().startswith(b"data: ")
    elif when == "queued":
        wait_for("it to wait", lambda: w.metric("vllm:num_requests_waiting") == 1)
    else:
        wait_for("it to run", lambda: w.metric("pdctl_worker_running") == 1)
    conn.close()
    wait_for("the abort", lambda: w.metric("pdctl_worker_aborted_requests_total") == 1)
    wait_for("its seat", lambda: w.metric("pdctl_worker_running") == (1 if keep else 0))
    assert w.metric("vllm:num_requests_waiting") == 0
    if keep:
        keep.close()
        wait_for("the other seat", lambda: w.metric("pdctl_worker_running") == 0)
    aborted = [v for k, v in w.metrics().items() if k.startswith("vllm:request_success") and 'reason="abort"' in k]
    assert aborted == [2 if keep else 1]


def test_aborted_prefill_leaves_its_step_in_the_cache(pdctl):
    """As in vLLM blocks have their names when a step is scheduled, and the step is run to its end."""
    w = pdctl("worker", "--prefill-tokens-per-s", 1000, "--max-num-batched-tokens", 512)
    conn = open_stream(w, {"prompt": words(1500), "max_tokens": 1})
    wait_for("it to run", lambda: w.metric("pdctl_worker_running") == 1)
    conn.close()
    wait_for("the abort", lambda: w.metric("pdctl_worker_running") == 0)
    assert cached(w.post_json(TEXT, {"prompt": words(20), "max_tokens": 1})) == 16
    assert cached(w.post_json(TEXT, {"prompt": words(1500), "max_tokens": 1})) == 1024, "two steps are under way, the third never ran"


def test_time_model(pdctl):
    """Lower bounds only: sleeping longer than asked is the machine's right."""
    w = pdctl("worker", "--prefill-tokens-per-s", 1000, "--decode-ms-per-token", 20, "--speedup", 2)
    start = time.monotonic()
    w.post_json(TEXT, {"prompt": words(2000), "max_tokens": 11})
    took = time.monotonic() - start
    assert took >= 1.1, "2000 tokens at 2000/s and 10 gaps of 10 ms"
    start = time.monotonic()
    w.post_json(TEXT, {"prompt": words(2000), "max_tokens": 1})
    assert time.monotonic() - start < took, "cached tokens cost nothing"


def test_fail_first_and_retry_after(pdctl):
    w = pdctl("worker", "--fail-first", 2, "--fail-status", 503, "--fail-retry-after", 7)
    for _ in range(2):
        status, headers, raw = w.post(TEXT, {"prompt": "x", "max_tokens": 1})
        assert status == 503 and headers["Retry-After"] == "7" and json.loads(raw)["error"]["code"] == 503
    assert w.post(TEXT, {"prompt": "x", "max_tokens": 1})[0] == 200
    assert w.metric("pdctl_worker_faults_total") == 2


def test_fail_rate_is_seeded(pdctl):
    def pattern(seed):
        w = pdctl("worker", "--fail-rate", 0.3, "--seed", seed, "--decode-ms-per-token", 0)
        return [w.post(TEXT, {"prompt": "x", "max_tokens": 1})[0] for _ in range(60)]

    one = pattern(5)
    assert one == pattern(5) != pattern(6)
    assert 5 < one.count(500) < 35


def test_faults_at_run_time(pdctl):
    w = pdctl("worker")
    assert w.post_json("/pdctl/faults", {"fail_rate": 1, "fail_status": 429})["fail_rate"] == 1
    assert w.post(TEXT, {"prompt": "x"})[0] == 429
    for wrong in ({"fail_rate": 2}, {"nonsense": 1}, {"fail_first": 1.5}, {"unhealthy": 1}, {"fail_status": 200}):
        assert w.post("/pdctl/faults", {"fail_rate": 0, **wrong})[0] == 400
    assert w.get_json("/pdctl/faults")["fail_rate"] == 1, "a refused change changes nothing"
    w.post_json("/pdctl/faults", {"fail_rate": 0, "unhealthy": True})
    assert w.post(TEXT, {"prompt": "x"})[0] == 200
    assert w.get("/health")[0] == 503
    w.post_json("/pdctl/faults", {"unhealthy": False})
    assert w.get("/health")[0] == 200


def test_changing_faults_restarts_their_counts(pdctl):
    w = pdctl("worker")
    for _ in range(2):
        w.post_json("/pdctl/faults", {"fail_first": 1})
        assert [w.post(TEXT, {"prompt": "x", "max_tokens": 1})[0] for _ in range(2)] == [500, 200]


def test_close_mid_stream(pdctl):
    w = pdctl("worker", "--close-mid-stream", 3)
    answer = open_stream(w, {"prompt": "x", "max_tokens": 10}).getresponse()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        w.post(TEXT, {"prompt": "x", "max_tokens": 10})
    wait_for("it to be counted", lambda: w.metric("pdctl_worker_running") == 0 and w.metric("pdctl_worker_faults_total") == 2)
    w.post_json("/pdctl/faults", {"close_mid_stream": -1})
    assert w.post(TEXT, {"prompt": "x", "max_tokens": 10})[0] == 200


def test_close_mid_stream_sends_exactly_so_many_tokens(pdctl):
    w = pdctl("worker", "--close-mid-stream", 3)
    with w.connect() as s:
        body = json.dumps({"prompt": "x", "max_tokens": 10, "stream": True}).encode()
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        got = b""
        while chunk := s.recv(65536):
            got += chunk
    assert got.count(b"data: ") == 3 and b"[DONE]" not in got and not got.endswith(b"0\r\n\r\n")


def test_stall_mid_stream(pdctl):
    w = pdctl("worker", "--stall-mid-stream", 2, "--stall-s", 0.3, "--decode-ms-per-token", 0)
    start = time.monotonic()
    a = w.post_json(TEXT, {"prompt": "x", "max_tokens": 5})
    assert a["usage"]["completion_tokens"] == 5 and time.monotonic() - start >= 0.3
    w.post_json("/pdctl/faults", {"stall_s": 0})
    conn = open_stream(w, {"prompt": "x", "max_tokens": 5})
    answer = conn.getresponse()
    assert answer.readline().startswith(b"data: ")
    time.sleep(0.2)
    assert w.get_json("/pdctl/requests?last=1")["requests"][0]["outcome"] == "running"
    answer.close()
    conn.close()
    wait_for("the stalled request to be aborted", lambda: w.metric("pdctl_worker_aborted_requests_total") == 1)


def test_crash_after(pdctl):
    w = pdctl("worker", "--crash-after", 2, expect_exit=(3,))
    for _ in range(2):
        assert w.post(TEXT, {"prompt": "x", "max_tokens": 1})[0] == 200
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        w.post(TEXT, {"prompt": "x", "max_tokens": 1})
    assert w.wait() == 3


def test_slow_accept_and_delay(pdctl):
    w = pdctl("worker", "--slow-accept-ms", 150, "--delay-s", 0.15, "--decode-ms-per-token", 0)
    start = time.monotonic()
    w.post_json(TEXT, {"prompt": "x", "max_tokens": 1})
    assert time.monotonic() - start >= 0.3


def test_client_that_leaves_while_held_back(pdctl):
    w = pdctl("worker", "--delay-s", 60)
    conn = open_stream(w, {"prompt": "x", "max_tokens": 5})
    wait_for("it to arrive", lambda: w.get_json("/pdctl/requests")["total"] == 1)
    conn.close()
    wait_for("the abort", lambda: w.metric("pdctl_worker_aborted_requests_total") == 1)


def test_journal_shows_what_arrived(pdctl):
    w = pdctl("worker", "--decode-ms-per-token", 0)
    body = b'{"prompt": "x y",  "max_tokens":1, "user":"u\\u00e9", "session_params":{"session_id":"s1"}, "big":12345678901234567890}'
    w.request("POST", TEXT + "?a=b", body, {**JSON, "X-Session-Id": "sess", "X-Odd": 'q"uote'})
    page = w.get_json("/pdctl/requests")
    (r,) = page["requests"]
    assert page["total"] == 1 and r["path"] == TEXT and r["target"] == TEXT + "?a=b" and r["method"] == "POST"
    assert r["body_bytes"] == len(body) and len(r["body_xxh3"]) == 16
    assert r["headers"]["X-Session-Id"] == "sess" and r["headers"]["X-Odd"] == 'q"uote'
    assert r["session"] == {"user": "u\u00e9", "session_params.session_id": "s1"}
    assert (r["leg"], r["outcome"], r["status"], r["prompt_tokens"], r["output_tokens"]) == ("plain", "ok", 200, 2, 1)
    w.request("POST", TEXT, body + b" ", JSON)
    two = w.get_json("/pdctl/requests")["requests"]
    assert two[0]["body_xxh3"] == r["body_xxh3"] != two[1]["body_xxh3"]
    assert [x["number"] for x in w.get_json("/pdctl/requests?last=1")["requests"]] == [1]


def test_journal_is_bounded(pdctl):
    w = pdctl("worker", "--decode-ms-per-token", 0, "--prefill-tokens-per-s", 0)
    conn = http.client.HTTPConnection("127.0.0.1", w.port)
    for i in range(1010):
        conn.request("POST", TEXT, json.dumps({"prompt": "x", "max_tokens": 1, "user": f"u{i}"}), JSON)
        assert conn.getresponse().read()
    page = w.get_json("/pdctl/requests")
    assert page["total"] == 1010 and len(page["requests"]) == 1000
    assert page["requests"][0]["session"] == {"user": "u10"} and page["requests"][-1]["session"] == {"user": "u1009"}


def test_sigterm_lets_streams_finish(pdctl):
    w = pdctl("worker", "--decode-ms-per-token", 30)
    answer = open_stream(w, {"prompt": "x", "max_tokens": 20}).getresponse()
    answer.readline()
    w.signal(15)
    assert answer.read().endswith(b"data: [DONE]\n\n")
    assert w.wait() == 0


def test_usage_errors_name_the_flag():
    for args in (["--role", "router"], ["--fail-rate", "2"], ["--block-size", "0"], ["--nope"], ["--speedup", "fast"]):
        done = run("worker", *args)
        assert done.returncode == 2 and args[0] in done.stderr, done.stderr


def test_port_in_use_is_a_runtime_error():
    fleet = Fleet()
    first = fleet("worker")
    with pytest.raises(ProcessFailed) as e:
        fleet("worker", port=first.port)
    assert "exited 3" in str(e.value) and str(first.port) in str(e.value)
    fleet.all.pop()
    fleet.stop()
