"""serve and simulate choose alike: the same requests in the same order through a running router and through the replay."""

import json

import pytest

from harness import run

NAMES = ["alpha", "beta", "gamma"]


def sessions():
    """90 requests of 23 sessions in an order of no pattern, a few without any session."""
    state = 12345
    for i in range(90):
        state = (state * 1103515245 + 12345) % (1 << 31)
        yield i, None if i % 13 == 5 else f"user-{state // 7 % 23}"


@pytest.fixture
def workload(tmp_path):
    path = tmp_path / "w.jsonl"
    with open(path, "w") as f:
        for i, key in sessions():
            record = {"prompt": f"request {i}", "output_tokens": 1, "timestamp": i * 1000}
            if key:
                record["session_id"] = key
            f.write(json.dumps(record) + "\n")
    return path


def simulated(workload, tmp_path, *args):
    path = tmp_path / "decisions.jsonl"
    done = run("simulate", "--workload", workload, "--routing-only", "--key", "session", "--decisions", path, *args)
    assert done.returncode == 0, done.stderr
    return [[p["worker"] for p in json.loads(line)["pick"]] for line in path.read_text().splitlines()]


def served(router, headers):
    """The choices of the router, from its response headers; one request after the other."""
    out = []
    for i, key in sessions():
        body = {"model": "m", "prompt": f"request {i}", "max_tokens": 1}
        if key:
            body["session_id"] = key
        status, got, raw = router.request("POST", "/v1/completions", body)
        assert status == 200, raw
        out.append([got[h] for h in headers])
    return out


@pytest.mark.parametrize("policy", ["consistent_hash", "consistent_hash@fbi", "rendezvous_hash", "round_robin", "least_request"])
def test_plain_pool(policy, pdctl, workload, tmp_path):
    name, _, ring = policy.partition("@")
    urls = [pdctl.worker("--speedup", 1000).url for _ in NAMES]
    named = [f"{n}={u}" for n, u in zip(NAMES, urls)]
    router = pdctl("serve", "--worker-urls", *named, "--policy", name, "--ring-hash", ring or "xxh3")
    by_url = dict(zip(urls, NAMES))
    want = simulated(workload, tmp_path, "--worker-names", *NAMES, "--policy", policy)
    got = [[by_url[w]] for (w,) in served(router, ["X-Worker"])]
    assert got == want
    assert len({w for (w,) in got}) == 3


def test_prefill_and_decode_pools(pdctl, workload, tmp_path):
    prefill = [pdctl.worker("--role", "prefill", "--speedup", 1000).url for _ in range(2)]
    decode = [pdctl.worker("--role", "decode", "--speedup", 1000).url for _ in range(2)]
    flags = []
    for i, url in enumerate(prefill):
        flags += ["--prefill", f"prefill-{i + 1}={url}"]
    for i, url in enumerate(decode):
        flags += ["--decode", f"decode-{i + 1}={url}"]
    router = pdctl("serve", "--pd-disaggregation", *flags, "--prefill-policy", "consistent_hash", "--decode-policy", "rendezvous_hash")
    names = {u: f"prefill-{i + 1}" for i, u in enumerate(prefill)} | {u: f"decode-{i + 1}" for i, u in enumerate(decode)}
    want = simulated(workload, tmp_path, "--prefill", 2, "--decode", 2, "--policy", "consistent_hash/rendezvous_hash")
    got = [[names[p], names[d]] for p, d in served(router, ["X-Prefill-Worker", "X-Decode-Worker"])]
    assert got == want
