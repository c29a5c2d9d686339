"""A router and two simulated workers with each connector of the table: KV changes hands, the answer is that of one worker, no mistake of the
protocol is seen. And what engines refuse: another connector, another block size, tensor parallel sizes that do not go together."""

import json

import pytest

import harness
from harness import free_port, run, wait_for
from test_worker_nixl import mistakes, words

TEXT = "/v1/completions"
FAST = ["--decode-ms-per-token", 0, "--prefill-tokens-per-s", 1e6, "--transfer-ms", 0, "--transfer-us-per-token", 0]
BODY = {"model": "m", "prompt": words(300), "max_tokens": 5}
QUICK = ["--retry-initial-backoff-ms", 1, "--retry-max-retries", 1]


def connectors():
    return run("serve", "--list-connectors").stdout.split()


class Stack:
    """One prefill and one decode worker behind a router, as each connector wants them."""

    def __init__(self, pdctl, tmp_path, name, *mode, p_flags=(), d_flags=(), router=None, strict=("--strict",), flags=()):
        common = [*FAST, *strict, "--kv-connector", name, *mode, *flags]
        registers = name in ("p2p_nccl", "moriio")
        at = free_port()
        join = ["--register", f"127.0.0.1:{at}"] if registers else []
        bootstrap = free_port() if name in ("mooncake", "sglang") else None
        if name in ("lmcache", "example"):
            common += ["--shared-storage-path", tmp_path / "kv"]
        own = ["--bootstrap-port", bootstrap] if bootstrap else []
        self.p = pdctl.worker("--role", "prefill", *common, *join, *own, *p_flags)
        self.d = pdctl.worker("--role", "decode", *common, *join, *d_flags)
        prefill = [self.p.url] + ([bootstrap] if bootstrap else [])
        where = ["--vllm-discovery-address", f"127.0.0.1:{at}"] if registers else ["--prefill", *prefill, "--decode", self.d.url]
        self.router = pdctl("serve", "--pd-disaggregation", "--kv-connector", router or name, *QUICK, *where)
        wait_for("both to be there", lambda: [w["state"] for w in json.loads(self.router.admin("GET", "/workers")[2])["workers"]] == ["available"] * 2)
        self.bootstrap = bootstrap

    def reads(self):
        return self.d.metric("pdctl_worker_kv_reads_total")


def text_of(answer):
    return json.loads(answer)["choices"][0]["text"]


def streamed(raw):
    return "".join(json.loads(e)["choices"][0]["text"] for e in harness.sse_events(raw) if e != "[DONE]" and json.loads(e)["choices"])


MODES = [(name, ()) for name in connectors()] + [("nixl", ("--kv-transfer-mode", "push")), ("moriio", ("--kv-transfer-mode", "read"))]


@pytest.mark.parametrize("name,mode", MODES, ids=lambda x: x if isinstance(x, str) else "-".join(x[1:]))
def test_kv_changes_hands(pdctl, tmp_path, name, mode):
    s = Stack(pdctl, tmp_path, name, *mode)
    plain = pdctl.worker(*FAST)
    want = text_of(plain.post(TEXT, BODY)[2])
    n = 4
    # A concurrent connector learns where the engine is by an inquiry or by the first answer; until then decode does it alone.
    wait_for("the first answer by both", lambda: s.router.post(TEXT, BODY)[1]["X-Prefill-Worker"])
    plain_leg = 'pdctl_worker_requests_total{leg="plain"}'
    begun, alone = s.reads(), s.d.metric(plain_leg)
    for i in range(n):
        body = {**BODY, "prompt": f"{i} " + BODY["prompt"]}
        status, headers, raw = s.router.post(TEXT, {**body, "stream": i % 2 == 1})
        assert status == 200 and headers["X-Prefill-Worker"] and headers["X-Decode-Worker"], raw
        assert (streamed(raw) if i % 2 else text_of(raw)) == text_of(plain.post(TEXT, body)[2])
    status, _, raw = s.router.post(TEXT, BODY)
    assert status == 200 and text_of(raw) == want
    assert s.reads() - begun >= n and s.d.metric("pdctl_worker_kv_read_failures_total") == 0
    assert mistakes(s.p) == {} and mistakes(s.d) == {}
    assert s.p.metric('pdctl_worker_requests_total{leg="prefill"}') >= n and s.d.metric('pdctl_worker_requests_total{leg="decode"}') >= n
    assert s.p.metric(plain_leg) == 0 and s.d.metric(plain_leg) == alone
    wait_for("all leases to have ended", lambda: s.p.metric("pdctl_worker_kv_leases") == 0)


# The router speaks the first, the workers play the second.
WRONG = [("nixl", "mooncake"), ("nixl", "p2p_nccl"), ("example", "p2p_nccl"), ("mooncake", "sglang"), ("p2p_nccl", "sglang"), ("nixl", "moriio")]


@pytest.mark.parametrize("router,workers", WRONG)
def test_another_connector_is_refused(pdctl, tmp_path, router, workers):
    own = ["--bootstrap-port", 0] if workers in ("mooncake", "sglang") else []
    p = pdctl.worker("--role", "prefill", *FAST, "--strict", "--kv-connector", workers, *own)
    d = pdctl.worker("--role", "decode", *FAST, "--strict", "--kv-connector", workers)
    at = free_port()
    r = pdctl("serve", "--pd-disaggregation", "--kv-connector", router, *QUICK, "--prefill", p.url, at, "--decode", d.url)
    status = r.post(TEXT, BODY)[0]
    seen = mistakes(p).keys() | mistakes(d).keys()
    if router == "mooncake":  # its bootstrap server says nothing: the workers are not even asked
        assert status >= 400
    else:
        assert status >= 400 and seen & {"missing_fields", "wrong_address"}, (status, seen)


@pytest.mark.parametrize("name", ["nixl", "mooncake", "p2p_nccl", "moriio"])
def test_another_block_size_is_refused(pdctl, tmp_path, name):
    s = Stack(pdctl, tmp_path, name, p_flags=["--block-size", 16], d_flags=["--block-size", 32], strict=(), flags=["--kv-lease-s", 2])
    wait_for("an answer by both", lambda: s.router.post(TEXT, BODY)[1]["X-Prefill-Worker"])
    assert mistakes(s.d)["block_size_mismatch"] >= 1 and s.reads() == 0
    # As after a failed handshake nobody reads the blocks: the lease ends.
    wait_for("the lease to end", lambda: mistakes(s.p).get("lease_expired_unread"))


@pytest.mark.parametrize("p,d,good", [(1, 2, True), (2, 1, True), (4, 2, True), (2, 3, False)])
def test_tensor_parallel_sizes(pdctl, tmp_path, p, d, good):
    s = Stack(pdctl, tmp_path, "nixl", p_flags=["--tensor-parallel-size", p], d_flags=["-tp", d], strict=())
    assert s.router.post(TEXT, BODY)[0] == 200
    assert mistakes(s.d) == ({} if good else {"tp_size_mismatch": 1}) and s.reads() == good


def test_p2p_nccl_needs_equal_sizes(pdctl, tmp_path):
    s = Stack(pdctl, tmp_path, "p2p_nccl", p_flags=["-tp", 1], d_flags=["-tp", 2], strict=())
    assert s.router.post(TEXT, BODY)[0] == 200 and mistakes(s.d) == {"tp_size_mismatch": 1}


def test_a_batch_has_a_room_for_each_prompt(pdctl, tmp_path):
    s = Stack(pdctl, tmp_path, "sglang")
    plain = pdctl.worker(*FAST)
    body = {"model": "m", "prompt": [words(40, "a"), words(50, "b"), words(60, "c")], "max_tokens": 4}
    answer, want = (json.loads(x.post(TEXT, body)[2])["choices"] for x in (s.router, plain))
    assert [c["text"] for c in answer] == [c["text"] for c in want] and s.reads() == 3
    for k, prompt in enumerate(([words(30, "d")], [[1, 2, 3, 4]], [5, 6, 7]), 4):  # a list of one, of one list of ids, and ids
        assert s.router.post(TEXT, {**body, "prompt": prompt})[0] == 200 and s.reads() == k
    assert mistakes(s.p) == {} and mistakes(s.d) == {}


def test_a_decode_that_nobody_prefilled(pdctl, tmp_path):
    """A transfer that never comes ends with its lease, and the prompt is computed there."""
    s = Stack(pdctl, tmp_path, "mooncake", strict=(), flags=["--kv-lease-s", 0.3])
    engine = json.loads(harness.request(f"http://127.0.0.1:{s.bootstrap}", "GET", "/query")[2])["0"]["engine_id"]
    params = {"do_remote_decode": False, "do_remote_prefill": True, "remote_bootstrap_addr": f"http://127.0.0.1:{s.bootstrap}",
              "remote_engine_id": engine, "transfer_id": "xfer-nobody"}
    status, _, raw = s.d.post(TEXT, {**BODY, "kv_transfer_params": params})
    assert status == 200 and text_of(raw) and mistakes(s.d) == {"unknown_id": 1}
    params["remote_engine_id"] = "another"
    assert s.d.post(TEXT, {**BODY, "kv_transfer_params": params})[0] == 200
    assert s.d.metric("pdctl_worker_kv_read_failures_total") == 1, "the engine has restarted"


def test_what_cannot_be_stored_is_computed(pdctl, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    w = pdctl.worker(*FAST, "--kv-connector", "example", "--shared-storage-path", file / "below")
    assert w.post(TEXT, BODY)[0] == 200 and w.post(TEXT, {**BODY, "prompt": words(100)})[0] == 200
    w.said("cannot store KV in")
    assert w.log().count("cannot store KV") == 1


def test_only_the_very_same_prompt_is_found(pdctl, tmp_path):
    kv = ["--kv-connector", "ExampleConnector", "--shared-storage-path", tmp_path / "kv"]
    p, d = (pdctl.worker(*FAST, *kv, "--role", r) for r in ("prefill", "decode"))
    for prompt in (words(100), words(10)):
        assert p.post(TEXT, {**BODY, "prompt": prompt, "max_tokens": 1})[0] == 200
    assert p.metric("pdctl_worker_kv_stored_total") == 1, "the second is shorter than a block"
    for prompt, found in ((words(100), 1), (words(100, "x"), 1), (words(140), 1), (words(90), 1), (words(10), 1), (words(101), 2)):
        assert d.post(TEXT, {**BODY, "prompt": prompt})[0] == 200
        assert d.metric("pdctl_worker_kv_reads_total") == found, prompt


def test_a_request_names_its_prefill_worker(pdctl):
    """x-prefiller-host-port: one of ours, whatever the policy; a list; one that is out; and nobody else's host."""
    ps = [pdctl.worker("--role", "prefill", *FAST, "--strict") for _ in range(3)]
    d = pdctl.worker("--role", "decode", *FAST, "--strict")
    flags = ["--pd-disaggregation", *sum((["--prefill", p.url] for p in ps), []), "--decode", d.url, "--prefill-policy", "consistent_hash", *QUICK[:2]]
    router, deaf = pdctl("serve", *flags, "--prefiller-header"), pdctl("serve", *flags)
    body = {**BODY, "user": "one"}
    home = router.post(TEXT, body)[1]["X-Prefill-Worker"]

    def ask(value, of=router):
        return of.post(TEXT, body, {"x-prefiller-host-port": value})

    for p in ps:
        assert ask(p.url[7:])[1]["X-Prefill-Worker"] == p.url and ask(p.url[7:], deaf)[1]["X-Prefill-Worker"] == home
    assert ask(f"10.0.0.1:1, {ps[1].url[7:]}")[1]["X-Prefill-Worker"] == ps[1].url, "the first that is ours"
    assert ask("")[1]["X-Prefill-Worker"] == home
    for evil in ("10.0.0.1:80", "http://" + ps[0].url[7:], d.url[7:], "x" * 3000):
        status, _, raw = ask(evil)
        assert status == 400 and "expected the host:port of a prefill worker of this router" in raw.decode(), evil
    ps[0].kill()
    status, headers, _ = ask(ps[0].url[7:])
    assert status == 200 and headers["X-Prefill-Worker"] in (ps[1].url, ps[2].url), (status, router.log()[-1500:])
    assert mistakes(d) == {}
