"""A new policy or connector is one new file and one line: the example of its page is applied to a copy of the tree, built and used."""

import json
import subprocess

import adding
import harness
from fake_engine import FakeEngine


def test_a_policy(tmp_path):
    tree = tmp_path / "tree"
    program, files, added, removed = adding.build("adding-a-policy.md", tree)
    assert [f.name for f in files] == ["pack.c"] and (added, removed) == (1, 0)
    assert "pack" in adding.run(program, "serve", "--list-policies").stdout.split()
    for command in ("serve", "simulate"):
        text = adding.run(program, command, "--help").stdout
        assert "--pack-depth N" in text and "requests in flight that fill a worker" in text
    done = adding.run(program, "serve", "--worker-urls", "http://127.0.0.1:1", "--policy", "pack", "--pack-depth", 0)
    assert done.returncode == 2 and "--pack-depth: found '0', expected a whole number from 1 to 65536" in done.stderr

    # All requests at once: a worker takes as many as the parameter says, then the next one is opened.
    workload, decisions = tmp_path / "w.jsonl", tmp_path / "d.jsonl"
    workload.write_text("".join(json.dumps({"prompt": f"{i}", "output_tokens": 50, "timestamp": 0}) + "\n" for i in range(12)))
    for args, want in ((("--policy", "pack", "--pack-depth", 3), [3, 3, 3, 3]), (("--policy", "pack:pack-depth=6"), [6, 6])):
        done = adding.run(program, "simulate", "--workload", workload, "--workers", 4, "--decisions", decisions, *args)
        assert done.returncode == 0, done.stderr
        workers = [json.loads(line)["pick"][0]["worker"] for line in decisions.read_text().splitlines()]
        assert workers == [f"worker-{i + 1}" for i, n in enumerate(want) for _ in range(n)]

    # serve routes with it, as simulate does; the rules of the house hold; the pages can be written anew.
    adding.tests_of(program, tree, "tests/blackbox/test_one_decision_path.py", "-k", "every_policy or wrong_parameters")
    done = subprocess.run([tree / "scripts" / "check-tree"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_connector(tmp_path, pdctl, monkeypatch):
    tree = tmp_path / "tree"
    program, files, added, removed = adding.build("adding-a-connector.md", tree)
    assert [f.name for f in files] == ["shared_storage.c"] and (added, removed) == (1, 0)
    names = adding.run(program, "serve", "--list-connectors").stdout.split()
    assert names[0] == "nixl" and names[-1] == "shared_storage"
    done = adding.run(program, "serve", "--prefill", "http://127.0.0.1:1", "--decode", "http://127.0.0.1:2", "--kv-connector", "shared")
    assert done.returncode == 2 and "or shared_storage" in done.stderr

    # Prefill computes one token and returns no parameters; decode gets the client's own bytes, both with the key.
    def prefill(seen, wire):
        wire.json({"usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}})

    def decode(seen, wire):
        wire.json({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2}})

    monkeypatch.setattr(harness, "PDCTL", str(program))
    body = b'{"model":"m", "prompt":"p","max_tokens":9,"stream":false}'
    with FakeEngine(prefill) as p, FakeEngine(decode) as d:
        router = pdctl("serve", "--prefill", p.url, "--decode", d.url, "--kv-connector", "shared_storage", "--pd-fallback", "fail")
        status, headers, raw = router.post("/v1/completions", body, {"Content-Type": "application/json"})
        assert status == 200 and headers["X-Prefill-Worker"] == p.url and json.loads(raw)["usage"]["prompt_tokens"] == 7
        key = b',"storage_key":"%s"}' % p.seen[0].header("x-request-id").encode()
        assert p.seen[0].body == b'{"model":"m", "prompt":"p","max_tokens":1,"stream":false,"min_tokens":1' + key
        assert d.seen[0].body == body[:-1] + key
        assert router.metric("pdctl_pd_fallback_total") == 0

    # Tests that walk the table walk the new row; the rules of the house hold.
    adding.tests_of(program, tree, "tests/blackbox/test_pd_faults.py", "-k", "connector")
    done = subprocess.run([tree / "scripts" / "check-tree"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
