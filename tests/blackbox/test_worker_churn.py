"""Many clients that leave at random moments: every count of a pair of workers returns to zero, nothing leaks."""

import asyncio
import os
import random

import aiohttp
from harness import wait_for

PREFILL = {"do_remote_decode": True, "do_remote_prefill": False}
REQUESTS = int(os.environ.get("PDCTL_CHURN", "600"))


def words(r, n):
    group = r.randrange(5)
    return " ".join(f"g{group}w{i}" for i in range(n))


async def one(session, p, d, r, i):
    body = {"prompt": words(r, r.randrange(1, 200)), "max_tokens": r.randrange(1, 30), "stream": r.random() < 0.5}
    headers = {"X-Request-Id": f"r{i}"}
    patience = r.choice([0.001, 0.01, 0.05, 0.2, 30, 30])
    try:
        async with asyncio.timeout(patience):
            if r.random() < 0.5:
                prefill = {**body, "max_tokens": 1, "stream": False, "kv_transfer_params": PREFILL}
                async with session.post(p + "/v1/completions", json=prefill, headers=headers) as a:
                    answer = await a.json()
                    assert a.status == 200, answer
                body["kv_transfer_params"] = answer["kv_transfer_params"]
            async with session.post(d + "/v1/completions", json=body, headers=headers) as a:
                assert a.status == 200, await a.text()
                text = await a.read()
                assert not body["stream"] or text.endswith(b"data: [DONE]\n\n")
        return "done"
    except TimeoutError:
        return "left"


async def churn(p, d):
    r = random.Random(11)
    gate = asyncio.Semaphore(60)

    async def gated(i):
        async with gate:
            return await one(session, p, d, random.Random(r.random()), i)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        return await asyncio.gather(*[gated(i) for i in range(REQUESTS)])


def descriptors(w):
    return len(os.listdir(f"/proc/{w.proc.pid}/fd"))


def test_random_aborts_end_at_zero(pdctl):
    flags = ["--strict", "--max-num-seqs", 8, "--num-gpu-blocks", 200, "--decode-ms-per-token", 1, "--kv-lease-s", 2]
    p = pdctl.worker("--role", "prefill", *flags)
    d = pdctl.worker("--role", "decode", *flags)
    before = descriptors(p), descriptors(d)
    results = asyncio.run(churn(p.url, d.url))
    assert results.count("left") > REQUESTS // 20 and results.count("done") > REQUESTS // 20
    for w in (p, d):
        wait_for("everything to end", lambda w=w: w.metric("pdctl_worker_running") == 0 and w.metric("vllm:num_requests_waiting") == 0)
        wait_for("the last lease", lambda w=w: w.metric("pdctl_worker_kv_leases") == 0)
        assert w.metric("vllm:kv_cache_usage_perc") == 0
        assert w.get_json("/load") == {"server_load": 0}
        outcomes = {r["outcome"] for r in w.get_json("/pdctl/requests")["requests"]}
        assert outcomes <= {"ok", "aborted"}, outcomes
    # Up to 64 idle connections for KV reads may stay on both sides.
    wait_for("descriptors", lambda: descriptors(p) <= before[0] + 66 and descriptors(d) <= before[1] + 66)
    wrong = {k: v for w in (p, d) for k, v in w.metrics().items() if "mistakes_total" in k and v and "unread" not in k}
    assert wrong == {}, wrong
