"""pdctl bench against a server that knows the truth (truth.py), in some forty kinds of answers, by both transports: what is a token, what is
a failure, which times. How exact the times are on a quiet machine is scripts/bench-truth's question; here they are bounded by what the server
really did, which holds on any machine."""

import json

import pytest

import harness
import truth

# libcurl waits for the end of a body, says other things of broken heads, and gives what came before a reset away
NOT_CURL = {"[DONE] and no end"}


@pytest.fixture(scope="module")
def server():
    with truth.Server() as s:
        yield s


def bench(url, kind, *args, n=2):
    done = harness.run("bench", "--base-url", url, "--model", "m", "--num-prompts", n, "--max-concurrency", n, "--json", "--save-detailed",
                       "--extra-body", json.dumps({"kind": kind}), *([] if truth.KINDS[kind].stream else ["--no-stream"]),
                       "--timeout", 1 if kind == "hang" else 30, "--percentile-metrics", "ttft,tpot,itl,e2el", *args)
    assert done.returncode == (1 if truth.KINDS[kind].label else 0), (done.returncode, done.stderr, done.stdout[-1500:])
    return json.loads(done.stdout)


@pytest.mark.parametrize("transport", ["pdctl", "curl"])
@pytest.mark.parametrize("kind", truth.KINDS)
def test_kind(server, kind, transport):
    if transport == "curl" and kind in NOT_CURL:
        pytest.skip("libcurl waits for the end of the body")
    k, n = truth.KINDS[kind], 2
    with server.lock:
        server.seen.clear()
    doc = bench(server.url, kind, "--transport", transport)
    assert doc["pdctl"]["failures"] == ({k.label: n} if k.label else {}), doc["errors"]
    assert (doc["completed"], doc["failed"]) == ((0, n) if k.label else (n, 0))
    if k.label:
        assert doc["mean_ttft_ms"] is None and doc["mean_e2el_ms"] is None and doc["total_output_tokens"] == 0
        assert kind == "no reply" or all(doc["errors"]), "a failure says why"
        return
    assert doc["output_lens"] == [k.tokens] * n and doc["generated_texts"] == [k.text] * n
    assert doc["pdctl"]["token_basis"] == k.basis
    assert doc["input_lens"] == ([20] * n if k.basis != "chunks" else doc["input_lens"])
    if k.ttft is None:
        assert doc["mean_ttft_ms"] is None and doc["ttfts"] == [None] * n and min(doc["latencies"]) >= truth.TTFT
        return
    assert min(doc["ttfts"]) >= k.ttft
    # between the first and the last token the client cannot have seen less time than a late first receive hides
    for ttft, latency, gaps in zip(doc["ttfts"], doc["latencies"], doc["itls"]):
        assert latency >= ttft and sum(gaps) == pytest.approx(latency - ttft, abs=1e-6)
    if k.itl:
        assert doc["mean_itl_ms"] >= 0.8 * k.itl * 1000 * (0.9 if k.tokens < 4 else 1) or doc["pdctl"]["client_ok"] is False
    if kind in ("slow usage", "slow close", "[DONE] and no end"):
        assert max(doc["latencies"]) < 20, "what comes behind the last token is no part of the answer"


def test_both_transports_report_the_same(server):
    """The same answers: everything that is counted is equal; times are of the same server."""
    docs = [bench(server.url, "four tokens a chunk, usage with each", "--transport", t, n=6) for t in ("pdctl", "curl")]
    for key in ("completed", "failed", "total_input_tokens", "total_output_tokens", "input_lens", "output_lens", "generated_texts", "errors"):
        assert docs[0][key] == docs[1][key], key
    for key in ("token_basis", "itl_basis", "failures", "codes", "cached_tokens", "dataset_hash"):
        assert docs[0]["pdctl"][key] == docs[1]["pdctl"][key], key
    for doc in docs:
        assert doc["mean_ttft_ms"] >= truth.TTFT * 1000 and doc["mean_itl_ms"] >= truth.GAP * 1000 * 0.8
        assert [len(x) for x in doc["itls"]] == [4] * 6 and doc["pdctl"]["chunk_gap"]["count"] == 6
