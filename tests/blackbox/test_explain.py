"""pdctl explain says offline what a router does."""

import json

import pytest

import harness


@pytest.mark.parametrize("policy", ["consistent_hash", "rendezvous_hash", "maglev", "consistent_hash:ring-hash=fbi"])
def test_the_same_as_a_router(pdctl, tmp_path, policy):
    workers = [pdctl("worker", "--model", "m") for _ in range(3)]
    words = ["--worker-urls", *[f"w{i}={w.url}" for i, w in enumerate(workers)], "--policy", policy]
    router = pdctl("serve", *words)
    chosen = set()
    for i in range(12):
        body = {"model": "m", "prompt": "p", "max_tokens": 1, "session_id": f"session {i}"}
        (tmp_path / "body.json").write_text(json.dumps(body))
        status, headers, _ = router.post("/v1/completions", body)
        said = [json.loads(harness.run("explain", *words, "--json", *how).stdout) for how in (["--key", f"session {i}"], ["--body", tmp_path / "body.json"])]
        assert status == 200 and said[0] == said[1]
        name = said[0]["selected"][0]
        assert headers["x-worker"] == workers[int(name[1:])].url and said[0]["order"][0] == name and len(said[0]["order"]) == 3
        chosen.add(name)
    assert len(chosen) > 1


def test_filters_and_scores(tmp_path):
    (tmp_path / "epp.yaml").write_text("""apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: header-label-affinity-scorer, parameters: {headerName: X-Kv-Backend, labelKey: kv}}
- {type: by-label, parameters: {label: stage, validValues: ["on"]}}
""")
    line = "- {{url: http://127.0.0.1:{0}, name: w{0}, labels: {{kv: {1}, stage: '{2}'}}}}\n"
    (tmp_path / "workers.yaml").write_text("workers:\n" + line.format(1, "nvlink", "on") + line.format(2, "fs", "on") + line.format(3, "fs", "off"))
    words = ["explain", "--workers-file", tmp_path / "workers.yaml", "--epp-config", tmp_path / "epp.yaml", "--key", "k", "--header", "x-kv-backend: fs"]
    said = json.loads(harness.run(*words, "--json").stdout)
    assert (said["selected"], said["filtered"], said["margin"], said["reason"]) == (["w2"], {"w3": "by-label"}, 1, "score")
    text = harness.run(*words).stdout
    assert "filtered   w3: by-label" in text and "0          w1" in text and "1          w2" in text
    (tmp_path / "workers.yaml").write_text("workers:\n" + line.format(3, "fs", "off"))
    assert "selected  none: the filters leave no worker" in harness.run(*words).stdout


@pytest.mark.parametrize("words, message", [
    ([], "expected --key or --body"),
    (["--key", "k"], "expected the workers, by either --worker-urls or --workers-file"),
    (["--key", "k", "--worker-urls", "nothing"], "--worker-urls: "),
    (["--key", "k", "--worker-urls", "http://h:1", "--policy", "none"], "--policy: unknown policy 'none'"),
    (["--key", "k", "--worker-urls", "http://h:1", "--header", "x"], "--header: found 'x', expected NAME: VALUE"),
    (["--body", "/dev/null", "--worker-urls", "http://h:1"], "--body: /dev/null: "),
])
def test_what_is_wrong_is_named(words, message):
    done = harness.run("explain", *words)
    assert (done.returncode, done.stdout, message in done.stderr) == (2, "", True), done.stderr
