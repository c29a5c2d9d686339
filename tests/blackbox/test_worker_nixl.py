"""The NIXL hand-over between two simulated workers: what a correct router does, and every mistake it can make."""

import http.client
import json

import pytest
from harness import free_port, wait_for

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
PREFILL = {
    "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
    "remote_host": None, "remote_port": None,
}
KEYS = {
    "do_remote_prefill", "do_remote_decode", "remote_block_ids", "remote_engine_id", "remote_request_id", "remote_host",
    "remote_port", "tp_size", "dcp_size", "pp_size", "remote_num_tokens", "remote_blocks_expiry_time", "transfer_mode",
}
FAST = ["--decode-ms-per-token", 0]


def words(n, word="w"):
    return " ".join(f"{word}{i}" for i in range(n))


def mistakes(w):
    """The kinds that were counted, with their numbers."""
    start = 'pdctl_worker_protocol_mistakes_total{kind="'
    return {k[len(start):-2]: int(v) for k, v in w.metrics().items() if k.startswith(start) and v}


class Pair:
    def __init__(self, fleet, *flags, p_flags=(), d_flags=()):
        self.p = fleet.worker("--role", "prefill", *FAST, *flags, *p_flags)
        self.d = fleet.worker("--role", "decode", *FAST, *flags, *d_flags)

    def prefill(self, body, xid="id-1", path=TEXT):
        answer = self.p.post_json(path, {**body, "max_tokens": 1, "kv_transfer_params": PREFILL}, {"X-Request-Id": xid})
        return answer["kv_transfer_params"]

    def decode(self, body, params, xid="id-1", path=TEXT):
        return self.d.post(path, {**body, "kv_transfer_params": params}, {"X-Request-Id": xid})

    def clean(self):
        return mistakes(self.p) == {} and mistakes(self.d) == {}


@pytest.fixture
def strict(pdctl):
    return Pair(pdctl, "--strict")


@pytest.fixture
def lax(pdctl):
    return Pair(pdctl)


def decoded(got, status=200):
    assert got[0] == status, got[2]
    return json.loads(got[2])


def test_prefill_answer_has_every_key(strict):
    kv = strict.prefill({"prompt": words(40)})
    assert set(kv) == KEYS
    assert kv["do_remote_prefill"] is True and kv["do_remote_decode"] is False and kv["transfer_mode"] == "pull"
    assert kv["remote_port"] == strict.p.port and kv["remote_host"] == "127.0.0.1" and kv["remote_num_tokens"] == 40
    assert len(kv["remote_block_ids"]) == 1 and len(set(kv["remote_block_ids"][0])) == 3
    assert "id-1" in kv["remote_request_id"]
    assert strict.p.metric("pdctl_worker_kv_leases") == 1 and strict.p.metric("vllm:kv_cache_usage_perc") > 0


@pytest.mark.parametrize("n", [5, 16, 32, 40])
@pytest.mark.parametrize("stream", [False, True])
def test_hand_over(strict, n, stream):
    """Shorter than one block, whole blocks, a partial last block."""
    body = {"prompt": words(n), "max_tokens": 12}
    kv = strict.prefill(body)
    if stream:
        _, _, raw = strict.decode({**body, "stream": True, "stream_options": {"include_usage": True}}, kv)
        chunks = [json.loads(e[6:]) for e in raw.decode().split("\n\n")[:-2]]
        text, usage = "".join(c["choices"][0]["text"] for c in chunks[:-1]), chunks[-1]["usage"]
    else:
        answer = decoded(strict.decode(body, kv))
        text, usage = answer["choices"][0]["text"], answer["usage"]
    assert text == strict.d.post_json(TEXT, body)["choices"][0]["text"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] == n
    assert strict.clean()
    assert strict.p.metric("pdctl_worker_kv_leases") == 0 and strict.p.metric("vllm:kv_cache_usage_perc") == 0
    assert strict.d.metric("pdctl_worker_kv_reads_total") == 1
    assert strict.d.metric("pdctl_worker_kv_blocks_read_total") == strict.p.metric("pdctl_worker_kv_blocks_served_total") == -(-n // 16)


def test_chat_hand_over_and_both_cached_counts(strict):
    body = {"messages": [{"role": "user", "content": words(60)}], "max_tokens": 3}
    decoded(strict.decode(body, strict.prefill(body, path=CHAT), path=CHAT))
    again = strict.p.post_json(CHAT, {**body, "max_tokens": 1, "kv_transfer_params": PREFILL}, {"X-Request-Id": "id-2"})
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 48, "the prefill leg has the true figure"
    answer = decoded(strict.decode(body, again["kv_transfer_params"], "id-2", CHAT))
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == answer["usage"]["prompt_tokens"]
    assert strict.d.metric("pdctl_worker_kv_blocks_read_total") == 4 + 1, "blocks that decode holds are not read again"
    assert strict.clean()


def test_decode_does_not_pay_for_prefill(pdctl):
    """But for the last token of the prompt, which a decode engine computes again."""
    pair = Pair(pdctl, "--strict", d_flags=["--prefill-tokens-per-s", 2])
    body = {"prompt": words(1000), "max_tokens": 2}  # 500 s
    assert decoded(pair.decode(body, pair.prefill(body)))["usage"]["completion_tokens"] == 2


def test_blocks_of_a_lease_are_not_evicted(pdctl):
    pair = Pair(pdctl, "--strict", p_flags=["--num-gpu-blocks", 4])
    body = {"prompt": words(40)}
    kv = pair.prefill(body)
    conn = http.client.HTTPConnection("127.0.0.1", pair.p.port, timeout=60)
    conn.request("POST", TEXT, json.dumps({"prompt": words(30, "z"), "max_tokens": 1}), {"Content-Type": "application/json"})
    wait_for("the other prompt to wait for blocks", lambda: pair.p.metric("vllm:num_requests_waiting") == 1)
    decoded(pair.decode(body, kv))
    assert conn.getresponse().status == 200
    assert pair.clean()


def test_lease_ends(pdctl):
    pair = Pair(pdctl, p_flags=["--kv-lease-s", 0.1])
    body = {"prompt": words(40), "max_tokens": 3}
    kv = pair.prefill(body)
    wait_for("the lease to end", lambda: mistakes(pair.p) == {"lease_expired_unread": 1})
    assert pair.p.metric("pdctl_worker_kv_leases") == 0 and pair.p.metric("vllm:kv_cache_usage_perc") == 0
    answer = decoded(pair.decode(body, kv))
    assert mistakes(pair.d) == {"expired_lease": 1}
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, "computed here instead"
    assert pair.d.said("expired_lease") and pair.p.said("lease_expired_unread")


def test_end_of_a_lease_lets_others_in(pdctl):
    p = pdctl.worker(*FAST, "--num-gpu-blocks", 4, "--kv-lease-s", 0.5)
    p.post_json(TEXT, {"prompt": words(40), "max_tokens": 1, "kv_transfer_params": PREFILL})
    assert p.post_json(TEXT, {"prompt": words(40, "z"), "max_tokens": 1})["usage"]["completion_tokens"] == 1
    assert mistakes(p) == {"lease_expired_unread": 1}


def test_connections_for_reads_are_kept(strict):
    for i in range(5):
        body = {"prompt": words(20, f"p{i}-"), "max_tokens": 1}
        decoded(strict.decode(body, strict.prefill(body)))
    wait_for("one idle connection beside that of the metrics", lambda: strict.p.metric("pdctl_worker_connections") == 2)


def test_log_names_mistakes(lax):
    lax.decode({"prompt": "x", "max_tokens": 1}, {"do_remote_prefill": True})
    wait_for("the log line", lambda: "protocol mistake missing_fields: request cmpl-id-1" in lax.d.log())


@pytest.mark.parametrize("missing", ["remote_block_ids", "remote_engine_id", "remote_request_id", "remote_host", "remote_port"])
def test_missing_fields(lax, missing):
    body = {"prompt": words(20), "max_tokens": 2}
    for value in (None, {}, ""):
        kv = {**lax.prefill(body), missing: value}
        assert decoded(lax.decode(body, kv))["usage"]["prompt_tokens_details"]["cached_tokens"] in (0, 16)
    kv = lax.prefill(body)
    del kv[missing]
    decoded(lax.decode(body, kv))
    assert mistakes(lax.d) == {"missing_fields": 4}


def wrong(pair, body, kv, kind, xid="id-1", other_body=None):
    got = pair.decode(other_body or body, kv, xid)
    assert mistakes(pair.d) == {kind: 1}
    return got


CASES = {
    "unknown_id: request": lambda kv: {**kv, "remote_request_id": "cmpl-somebody-else"},
    "unknown_id: engine": lambda kv: {**kv, "remote_engine_id": "00000000"},
    "unknown_id: blocks": lambda kv: {**kv, "remote_block_ids": [[b + 1 for b in kv["remote_block_ids"][0]]]},
    "unknown_id: fewer blocks": lambda kv: {**kv, "remote_block_ids": [kv["remote_block_ids"][0][:-1]]},
    "missing_fields: no port": lambda kv: {**kv, "remote_port": 0},
    "missing_fields: neither": lambda kv: {**kv, "do_remote_prefill": False},
    "missing_fields: both": lambda kv: {**kv, "do_remote_decode": True},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["lax", "strict"])
def test_wrong_coordinates(pdctl, case, mode):
    pair = Pair(pdctl, *(["--strict"] if mode == "strict" else []))
    body = {"prompt": words(40), "max_tokens": 4}
    want = pair.d.post_json(TEXT, body)["choices"][0]["text"]
    kv = CASES[case](pair.prefill(body))
    answer = decoded(wrong(pair, body, kv, case.split(":")[0]), 400 if mode == "strict" else 200)
    if mode == "strict":
        assert case.split(":")[0] in answer["error"]["message"] and answer["error"]["param"] == "kv_transfer_params"
    else:
        assert answer["choices"][0]["text"] == want
    wait_for("it to be counted", lambda: pair.d.metric("pdctl_worker_running") == 0)


@pytest.mark.parametrize("mode", ["lax", "strict"])
def test_other_prompt(pdctl, mode):
    pair = Pair(pdctl, *(["--strict"] if mode == "strict" else []))
    body = {"prompt": words(40), "max_tokens": 4}
    kv = pair.prefill(body)
    got = wrong(pair, body, kv, "prompt_mismatch", other_body={**body, "prompt": words(39) + " x"})
    assert got[0] == (400 if mode == "strict" else 200)
    assert pair.p.metric("pdctl_worker_kv_leases") == 0, "nobody else will read these blocks"


@pytest.mark.parametrize("mode", ["lax", "strict"])
def test_request_id_mismatch(pdctl, mode):
    pair = Pair(pdctl, *(["--strict"] if mode == "strict" else []))
    body = {"prompt": words(40), "max_tokens": 4}
    got = wrong(pair, body, pair.prefill(body), "request_id_mismatch", xid="id-2")
    assert got[0] == (400 if mode == "strict" else 200)
    if mode == "lax":
        assert json.loads(got[2])["usage"]["prompt_tokens_details"]["cached_tokens"] == 40, "the blocks are right"


def test_duplicate_read(lax):
    body = {"prompt": words(40), "max_tokens": 2}
    kv = lax.prefill(body)
    decoded(lax.decode(body, kv))
    assert mistakes(lax.d) == {}
    decoded(lax.decode(body, kv))
    assert mistakes(lax.d) == {"duplicate_read": 1}


@pytest.mark.parametrize("mode", ["lax", "strict"])
@pytest.mark.parametrize("kind, change", [
    ("prefill_max_tokens", {"max_tokens": 2}), ("prefill_max_tokens", {"max_tokens": None}), ("prefill_stream", {"stream": True}),
])
def test_prefill_called_wrongly(pdctl, mode, kind, change):
    w = pdctl.worker(*FAST, *(["--strict"] if mode == "strict" else []))
    body = {"prompt": words(20), "max_tokens": 1, "kv_transfer_params": PREFILL, **change}
    status, _, raw = w.post(TEXT, body)
    assert mistakes(w) == {kind: 1}
    assert status == (400 if mode == "strict" else 200) and (mode == "lax" or kind in raw.decode())


@pytest.mark.parametrize("mode", ["lax", "strict"])
def test_wrong_role(pdctl, mode):
    pair = Pair(pdctl, *(["--strict"] if mode == "strict" else []))
    body = {"prompt": words(20), "max_tokens": 1}
    status = 400 if mode == "strict" else 200
    assert pair.d.post(TEXT, {**body, "kv_transfer_params": PREFILL})[0] == status
    assert mistakes(pair.d) == {"wrong_role": 1}
    kv = pair.prefill(body)
    assert pair.p.post(TEXT, {**body, "kv_transfer_params": kv}, {"X-Request-Id": "id-1"})[0] == status
    assert mistakes(pair.p)["wrong_role"] == 1


def test_dead_prefill_worker_means_local_prefill(strict):
    body = {"prompt": words(40), "max_tokens": 4}
    kv = {**strict.prefill(body), "remote_port": free_port()}
    answer = decoded(strict.decode(body, kv))
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert mistakes(strict.d) == {} and strict.d.metric("pdctl_worker_kv_read_failures_total") == 1


def test_client_that_leaves_while_decode_queues_frees_the_blocks(pdctl):
    pair = Pair(pdctl, "--strict", d_flags=["--max-num-seqs", 1, "--decode-ms-per-token", 100000])
    hold = http.client.HTTPConnection("127.0.0.1", pair.d.port)
    hold.request("POST", TEXT, json.dumps({"prompt": "hold", "max_tokens": 9}), {"Content-Type": "application/json"})
    wait_for("the seat to be taken", lambda: pair.d.metric("pdctl_worker_running") == 1)
    body = {"prompt": words(40), "max_tokens": 4}
    kv = pair.prefill(body)
    conn = http.client.HTTPConnection("127.0.0.1", pair.d.port)
    headers = {"Content-Type": "application/json", "X-Request-Id": "id-1"}
    conn.request("POST", TEXT, json.dumps({**body, "kv_transfer_params": kv}), headers)
    wait_for("it to wait", lambda: pair.d.metric("vllm:num_requests_waiting") == 1)
    conn.close()
    wait_for("the blocks to be freed", lambda: pair.p.metric("pdctl_worker_kv_leases") == 0)
    assert pair.clean()
    hold.close()


def test_client_that_leaves_during_prefill_makes_no_lease(pdctl):
    w = pdctl.worker("--prefill-tokens-per-s", 10)
    conn = http.client.HTTPConnection("127.0.0.1", w.port)
    body = {"prompt": words(1000), "max_tokens": 1, "kv_transfer_params": PREFILL}
    conn.request("POST", TEXT, json.dumps(body), {"Content-Type": "application/json"})
    wait_for("it to run", lambda: w.metric("pdctl_worker_running") == 1)
    conn.close()
    wait_for("the abort", lambda: w.metric("pdctl_worker_running") == 0)
    assert w.metric("pdctl_worker_kv_leases") == 0 and w.metric("pdctl_worker_aborted_requests_total") == 1


def test_each_of_n_sequences_has_a_lease(pdctl):
    pair = Pair(pdctl, "--strict", p_flags=["--kv-lease-s", 0.5])
    body = {"prompt": words(40), "n": 3}
    kv = pair.prefill(body)
    assert pair.p.metric("pdctl_worker_kv_leases") == 3
    assert len(decoded(pair.decode(body, kv))["choices"]) == 3
    wait_for("the two that nobody reads", lambda: mistakes(pair.p) == {"lease_expired_unread": 2})
    assert pair.p.metric("pdctl_worker_kv_leases") == 0 and pair.p.metric("vllm:kv_cache_usage_perc") == 0


@pytest.mark.parametrize("mode", ["lax", "strict"])
@pytest.mark.parametrize("kind, more, legs", [
    ("shared_blocks", {"prompt": [words(20), words(30)]}, "pd"), ("shared_blocks", {"prompt": [[1, 2], [3]]}, "pd"),
    ("prompt_logprobs", {"prompt_logprobs": 1}, "d"), ("beam_search", {"use_beam_search": True}, "pd"),
])
def test_what_blocks_of_one_prompt_cannot_do(pdctl, mode, kind, more, legs):
    pair = Pair(pdctl, *(["--strict"] if mode == "strict" else []))
    body = {"prompt": words(20), "max_tokens": 2}
    kv = pair.prefill(body)
    got = pair.decode({**body, **more}, kv)
    assert got[0] == (400 if mode == "strict" else 200) and mistakes(pair.d) == {kind: 1}
    assert mode == "lax" or kind in got[2].decode()
    got = pair.p.post(TEXT, {**body, **more, "max_tokens": 1, "kv_transfer_params": PREFILL})
    assert got[0] == (400 if mode == "strict" and "p" in legs else 200) and mistakes(pair.p) == ({kind: 1} if "p" in legs else {})
    assert pair.d.post(TEXT, {**body, **more})[0] == 200, "without blocks of others it is no mistake"


@pytest.mark.parametrize("path, prompt", [(TEXT, {"prompt": words(4)}), (CHAT, {"messages": [{"role": "user", "content": words(4)}]})])
def test_prompt_logprobs(strict, path, prompt):
    answer = strict.d.post_json(path, {**prompt, "prompt_logprobs": 1, "max_tokens": 1})
    values = answer["prompt_logprobs"] if path == CHAT else answer["choices"][0]["prompt_logprobs"]
    assert values[0] is None and len(values) == answer["usage"]["prompt_tokens"] and all(1 <= len(v) <= 2 for v in values[1:])
    assert strict.d.post(path, {**prompt, "prompt_logprobs": 1, "stream": True})[0] == 400
    plain = strict.d.post_json(path, {**prompt, "max_tokens": 1})
    assert (plain if path == CHAT else plain["choices"][0])["prompt_logprobs"] is None


def test_batches_offer_nothing(pdctl):
    w = pdctl.worker(*FAST)
    a = w.post_json(TEXT, {"prompt": ["a", "b"], "max_tokens": 1, "kv_transfer_params": PREFILL})
    assert a["kv_transfer_params"] is None and w.metric("pdctl_worker_kv_leases") == 0


def test_journal_names_the_legs(strict):
    body = {"prompt": words(20), "max_tokens": 2}
    decoded(strict.decode(body, strict.prefill(body)))
    strict.d.post_json(TEXT, body)
    assert [r["leg"] for r in strict.p.get_json("/pdctl/requests")["requests"]] == ["prefill"]
    assert [r["leg"] for r in strict.d.get_json("/pdctl/requests")["requests"]] == ["decode", "plain"]
    assert strict.d.metrics()['pdctl_worker_requests_total{leg="decode"}'] == 1


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"request_id":1}', b'{"request_id":"a","engine_id":"b","block_ids":[-1],"prompt_hash":"","x_request_id":""}'])
def test_read_route_refuses_nonsense(strict, body):
    assert strict.p.post("/pdctl/kv/read", body)[0] == 400


def test_a_restarted_prefill_worker_has_no_blocks_and_nobody_made_a_mistake(pdctl):
    p = pdctl.worker("--role", "prefill", "--strict")
    d = pdctl.worker("--role", "decode", "--strict")
    body = {"prompt": words(40), "max_tokens": 4}
    kv = p.post_json(TEXT, {**body, "max_tokens": 1, "kv_transfer_params": PREFILL}, {"X-Request-Id": "id-1"})["kv_transfer_params"]
    p.kill()
    pdctl.worker("--role", "prefill", "--strict", port=p.port)
    got = d.post_json(TEXT, {**body, "kv_transfer_params": kv}, {"X-Request-Id": "id-1"})
    assert got["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, "computed here"
    assert mistakes(d) == {} and d.metric("pdctl_worker_kv_read_failures_total") == 1
