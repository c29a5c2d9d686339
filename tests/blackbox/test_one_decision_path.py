"""serve and simulate choose alike, for every policy and every pair of policies: the same requests in the same order through a running
router and through the replay. scripts/identity asks the same with thousands of requests."""

import json

import identity
import pytest

from harness import run, wait_for

REQUESTS = 300


def check(pools, workload, tmp_path, policies, n, pd):
    raws = identity.wire(n)
    want = identity.simulated(workload, tmp_path / "decisions.jsonl", policies, "--num-requests", n, *identity.simulate_args(pd))
    assert list(want) == policies
    spread = []
    for policy in policies:
        one = pools.picks(policy, raws, 1)
        eight = pools.picks(policy, raws, 8)
        for got in (one, eight):
            differs = [i for i in range(len(got)) if want[policy][i] != got[i]]
            assert not differs, (policy, [(i, want[policy][i], got[i]) for i in differs[:5]])
        spread.append(len({tuple(w) for w in one}))
    assert sum(n >= 3 for n in spread) > len(spread) // 2, spread  # a policy may prefer one worker, not most of them


@pytest.fixture
def workload(tmp_path):
    path = tmp_path / "w.jsonl"
    identity.write_workload(path, REQUESTS)
    return path


def test_every_policy(pdctl, workload, tmp_path):
    check(identity.Pools(pdctl), workload, tmp_path, identity.policies(), REQUESTS, pd=False)


def test_a_pair_of_each_policy(pdctl, workload, tmp_path):
    check(identity.Pools(pdctl), workload, tmp_path, identity.pairs(), REQUESTS, pd=True)


def test_routers_agree_without_talking(pdctl):
    """Two processes with the same names in another order, and another seed: every hash policy maps every session alike."""
    pools = identity.Pools(pdctl)
    names = {u: n for n, _, u in (text.partition("=") for text in pools.plain)}
    raws = [raw for (key, _, _), raw in zip(identity.requests(150), identity.wire(150)) if key is not None]
    for policy in ("consistent_hash", "bounded_hash", "rendezvous_hash", "maglev"):
        first, second = (pdctl("serve", "--worker-urls", *workers, "--policy", policy, "--log-level", "warn")
                         for workers in (pools.plain, pools.plain[::-1]))
        got = [identity.served(router.url, raws, ["x-worker"], names, 1) for router in (first, second)]
        assert got[0] == got[1] and len({w for (w,) in got[0]}) == 3, policy
        first.stop()
        second.stop()


def test_every_decider(pdctl, workload, tmp_path):
    """Whether a prompt is computed remotely, and where: the same in both; the header says it, and so does the count."""
    pools, raws = identity.Pools(pdctl), identity.wire(REQUESTS)
    for decider in identity.deciders():
        flags = ["--pd-decider", decider, "--pd-non-cached-tokens", 60, "--pd-max-local-prefill", 120]
        pair = "rendezvous_hash/affinity"
        want = identity.simulated(workload, tmp_path / "d", [pair], "--num-requests", REQUESTS, *identity.simulate_args(True), *flags)[pair]
        assert pools.picks(pair, raws, 1, *flags) == want, decider
        local = sum(prefill is None for prefill, _ in want)
        assert (local == 0) if decider == "always" else (local == REQUESTS) if decider == "never" else 0 < local < REQUESTS, (decider, local)


def test_parameters(pdctl, workload, tmp_path):
    """Behind the name, by a flag, in the workers file, in a scenario: the same ring."""
    pools = identity.Pools(pdctl)
    spec = "consistent_hash:ring-hash=fbi:virtual-nodes=7"
    raws = identity.wire(100)
    args = ["--num-requests", 100, *identity.simulate_args(False)]
    want = identity.simulated(workload, tmp_path / "d", [spec, "consistent_hash"], *args)
    assert want[spec] != want["consistent_hash"]
    assert pools.picks(spec, raws, 1) == want[spec]
    by_flag = identity.simulated(workload, tmp_path / "d", ["consistent_hash@fbi"], "--virtual-nodes", 7, *args)
    assert by_flag["consistent_hash@fbi"] == want[spec]
    names = {u: n for n, _, u in (text.partition("=") for text in pools.plain)}
    file = tmp_path / "workers.yaml"
    for text in (f"policy: {spec}\n", "policy: consistent_hash\nvirtual_nodes: 7\nring_hash: fbi\n"):
        file.write_text(text + f"workers: [{', '.join(pools.plain)}]\n")
        router = pdctl("serve", "--workers-file", file, "--seed", identity.SEED, "--log-level", "warn")
        assert identity.served(router.url, raws, ["x-worker"], names, 1) == want[spec], text
        router.stop()
    scenario = tmp_path / "s.yaml"
    docs = []
    for text in (f"policies: [{spec}]", "policies: [consistent_hash]\nparameters: {virtual_nodes: 7, ring_hash: fbi}",
                 "policies: [consistent_hash]\nring: {vnodes: 7, hash: fbi}"):
        scenario.write_text(f"name: s\nworkload: {{file: w.jsonl, key: session}}\nworkers: {{names: {json.dumps(identity.POOL)}}}\n{text}\n")
        done = run("simulate", scenario, "--json", "-")
        assert done.returncode == 0, done.stderr
        doc = json.loads(done.stdout)["pdctl"]
        assert (doc["ring_hash"], doc["vnodes"]) == ("fbi", 7)
        docs.append(doc["pools"])
    assert docs[0] == docs[1] == docs[2]


@pytest.mark.parametrize("file, text, where", [
    ("workers.yaml", "policy: random\nvirtual_nodes: 0\nworkers: [a=http://127.0.0.1:1]\n", "workers.yaml:2:16: found '0', expected a whole number from 1 to 65536"),
    ("workers.yaml", "policy: consistent_hash:nodes=3\nworkers: [a=http://127.0.0.1:1]\n", "workers.yaml:1:9: policy consistent_hash has no parameter 'nodes'"),
    ("s.yaml", "name: s\nworkload: {generate: {sessions: 2, turns: 2}}\nworkers: {count: 2}\npolicies: [random]\nparameters: {ring_hash: md5}\n",
     "s.yaml:5:25: found 'md5', expected one of xxh3|fbi"),
    ("s.yaml", "name: s\nworkload: {generate: {sessions: 2, turns: 2}}\nworkers: {count: 2}\npolicies: [random]\nparameters: {rings: 1}\n",
     "s.yaml:5:14: unknown key 'rings'"),
])
def test_wrong_parameters_in_files(file, text, where, tmp_path):
    path = tmp_path / file
    path.write_text(text)
    done = run("serve", "--workers-file", path) if file == "workers.yaml" else run("simulate", path)
    assert done.returncode == 2 and where in done.stderr, done.stderr


def test_wrong_parameters_on_the_command_line():
    for command in (("serve", "--worker-urls", "http://127.0.0.1:1"), ("simulate", "--workload", "none.jsonl")):
        for flags, want in ((("--virtual-nodes", "0"), "--virtual-nodes: found '0', expected a whole number from 1 to 65536"),
                            (("--vnodes", "x"), "--virtual-nodes: found 'x'"),
                            (("--ring-hash", "md5"), "--ring-hash: found 'md5', expected one of xxh3|fbi"),
                            (("--policy", "radnom"), "--policy: unknown policy 'radnom', did you mean 'random'?"),
                            (("--policy", "consistent_hash:x=1"), "--policy: policy consistent_hash has no parameter 'x'")):
            done = run(*command, *flags)
            assert done.returncode == 2 and want in done.stderr, (command, flags, done.stderr)


def test_a_parameter_without_effect_is_said_once(pdctl):
    worker = pdctl.worker()
    router = pdctl("serve", "--worker-urls", worker.url, "--policy", "random", "--virtual-nodes", 40)
    said = "--virtual-nodes has no effect: no policy in use has this parameter"
    wait_for("the line", lambda: said in router.log())
    assert router.said(said).count(said) == 1


def test_keyless_prefix(pdctl, tmp_path):
    """Requests without a session, by the beginning of their prompt: a chat and a completion with one prompt meet, here and in simulate."""
    pools = identity.Pools(pdctl)
    names = {u: n for n, _, u in (text.partition("=") for text in pools.plain)}
    workload, raws = tmp_path / "p.jsonl", []
    with open(workload, "w") as f:
        for i in range(120):
            prompt = f"Question {i // 2 % 23}: why \u00e9? " * (1 + i // 2 % 5)
            chat = [{"role": "user", "content": prompt}]
            path, what = ("chat/completions", {"messages": chat}) if i % 2 else ("completions", {"prompt": prompt})
            f.write(json.dumps({**what, "output_tokens": 1, "timestamp": i}) + "\n")
            body = json.dumps({"model": "m", "max_tokens": 1, **what})
            raws.append(f"POST /v1/{path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    router = pdctl("serve", "--worker-urls", *pools.plain, "--policy", "consistent_hash", "--keyless", "prefix", "--log-level", "warn")
    got = identity.served(router.url, raws, ["x-worker"], names, 1)
    done = run("simulate", "--workload", workload, "--routing-only", "--key", "prefix", "--decisions", tmp_path / "d", "--worker-names", *identity.POOL,
               "--policy", "consistent_hash")
    assert done.returncode == 0, done.stderr
    want = [[p["worker"] for p in json.loads(line)["pick"]] for line in open(tmp_path / "d")]
    assert got == want
    assert got[0::2] == got[1::2]
    assert len({w for (w,) in got}) == 3
