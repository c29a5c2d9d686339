"""A workers file that is wrong: the message says where, nothing is started, nothing crashes."""

import json

import pytest

import harness

BAD = [
    ("", "1:1: found an empty file"),
    ("# nothing but a comment\n", "1:1: found an empty file"),
    ("{}\n", "1:1: found no key 'workers', expected it, with [] when there are no workers yet"),
    ("policy: random\n", "1:1: found no key 'workers'"),
    ("workers:\n  - http://127.0.0.1:1\npolcy: x\n", "3:1: unknown key 'polcy', did you mean 'policy'?"),
    ("workers: [http://127.0.0.1:1\n", "2:1: did not find expected ',' or ']'"),
    ("workers:\n  - ftp://127.0.0.1:1\n", "2:5: URL 'ftp://127.0.0.1:1': unknown scheme"),
    ("workers:\n  - http://127.0.0.1:1\n  - {a: b}\n", "3:6: unknown key 'a', expected one of url, name, labels"),
    ("workers:\n  - {name: a}\n", "2:5: 'workers[0]': found no url, expected one"),
    ("workers:\n  - [x]\n", "2:5: 'workers[0]': found a list, expected text"),
    ("workers:\n  - {url: [x]}\n", "2:11: 'workers[0]': found a list, expected text"),
    ("workers:\n  - {url: http://127.0.0.1:1, labels: x}\n", "2:39: 'labels': found a single value, expected a mapping"),
    ("workers:\n  - {url: http://127.0.0.1:1, labels: {rack: [x]}}\n", "2:46: 'rack': found a list, expected text"),
    ("workers:\n  - {url: http://127.0.0.1:1, name: a=b}\n", "2:37: found 'a=b', expected a name without '='"),
    ("workers: 7\n", "1:10: 'workers': found a single value, expected a list"),
    ("workers: [http://127.0.0.1:1]\npolicy: roundrobin\n", "2:9: unknown policy 'roundrobin'"),
    ("policy: random\npolicy: random\nworkers: [http://127.0.0.1:1]\n", "2:1: duplicate key 'policy'"),
    ("workers:\n  - a=http://127.0.0.1:1\n  - b=http://127.0.0.1:2\n  - a=http://127.0.0.1:3\n", "4:5: duplicate name 'a', first on line 2"),
    ("workers:\n  - a=http://127.0.0.1:1\n  - b=http://127.0.0.1:2\n  - c=http://127.0.0.1:2\n", "4:5: duplicate URL 'http://127.0.0.1:2', first on line 3"),
    ("workers: [http://127.0.0.1:1,\n  http://127.0.0.1:1]\n", "2:3: duplicate name 'http://127.0.0.1:1', first on line 1"),
    ("prefill: [http://127.0.0.1:1]\n", "1:10: found workers of prefill/decode mode"),
]


@pytest.mark.parametrize("text, message", BAD, ids=[repr(t)[:40] for t, _ in BAD])
def test_bad_file(tmp_path, text, message):
    path = tmp_path / "workers.yaml"
    path.write_text(text)
    done = harness.run("serve", "--workers-file", path, "--port", 0, "--prometheus-port", -1)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"{path}:{message}" in done.stderr


def test_pools_need_decode_workers(tmp_path):
    path = tmp_path / "workers.yaml"
    path.write_text("prefill: [http://127.0.0.1:1]\n")
    done = harness.run("serve", "--pd-disaggregation", "--workers-file", path, "--port", 0, "--prometheus-port", -1)
    assert (done.returncode, f"{path}:1:1: found no key 'decode'" in done.stderr) == (2, True)


@pytest.mark.parametrize("text, words", [("workers: []\n", []), ("prefill: []\ndecode: []\n", ["--pd-disaggregation"])])
def test_an_empty_list_is_no_missing_one(pdctl, tmp_path, text, words):
    """A controller writes the file before its first worker runs, and after its last one ended."""
    path = tmp_path / "workers.yaml"
    path.write_text(text)
    router = pdctl("serve", *words, "--workers-file", path)
    assert router.get("/readiness")[0] == 503
    worker = pdctl("worker", "--model", "m", "--role", "decode" if words else "both")
    path.write_text(text.replace("decode: []", f"decode: [{worker.url}]").replace("workers: []", f"workers: [{worker.url}]"))
    assert router.admin("POST", "/reload")[0] == 200
    harness.wait_for("the worker", lambda: router.get("/readiness")[0] == 200)
    path.write_text(text)
    assert router.admin("POST", "/reload")[0] == 200
    harness.wait_for("no worker", lambda: router.get("/readiness")[0] == 503)


def test_a_policy_of_vllm_router_in_the_file(pdctl, tmp_path):
    """They run as themselves; a reload that names none leaves the one that runs."""
    path = tmp_path / "workers.yaml"
    path.write_text("policy: kv_aware\nworkers: [http://127.0.0.1:1]\n")
    router = pdctl("serve", "--workers-file", path)
    router.said("policy: kv_aware")
    path.write_text("policy: cache_aware\nmax_tree_size: 100000\nworkers: [http://127.0.0.1:1]\n")
    assert router.admin("POST", "/reload")[0] == 200
    router.said("policy cache_aware instead of kv_aware")
    path.write_text("policy: kv_awful\nworkers: [http://127.0.0.1:1]\n")
    assert router.admin("POST", "/reload")[0] == 400


@pytest.mark.parametrize("words, message", [
    (["--worker-urls", "a=http://h:1", "b=http://H:1/"], "--worker-urls: found 'a' and 'b' for http://h:1: a worker has one name"),
    (["--worker-urls", "http://h:1", "http://h:2", "http://h:1"], "--worker-urls: duplicate name 'http://h:1'"),
    (["--worker-urls", "a=http://h:1", "a=http://h:2"], "--worker-urls: duplicate name 'a'"),
    (["--worker-urls", "http://h:1", "x=http://h:1@1", "y=http://h:1@1"], "--worker-urls: found 'x' and 'y' for http://h:1@1: a worker has one name"),
    (["--prefill", "p=http://h:1", "--prefill", "q=http://h:1", "--decode", "http://h:2"], "--prefill: found 'p' and 'q' for http://h:1: a worker has one name"),
    (["--prefill", "http://h:2", "--decode", "d=http://h:1", "--decode", "e=http://h:1"], "--decode: found 'd' and 'e' for http://h:1: a worker has one name"),
])
def test_a_worker_of_the_command_line_has_one_name(words, message):
    done = harness.run("serve", *words)
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_a_worker_may_prefill_and_decode(pdctl):
    assert pdctl("serve", "--prefill", "http://127.0.0.1:1", "--decode", "http://127.0.0.1:1").alive()


def test_labels(pdctl, tmp_path):
    """Of the file and of POST /workers; a reload that changes them changes nothing else."""
    path = tmp_path / "workers.yaml"
    one, two = (pdctl("worker", "--model", "m") for _ in range(2))
    path.write_text(f"workers:\n  - {{url: {one.url}, name: a, labels: {{rack: r7, llm-d.ai/role: both, slots: 8}}}}\n")
    router = pdctl("serve", "--workers-file", path)
    labels = lambda: {w["name"]: w["labels"] for w in json.loads(router.admin("GET", "/workers")[2])["workers"]}
    assert labels() == {"a": {"rack": "r7", "llm-d.ai/role": "both", "slots": "8"}}
    more = {"url": two.url, "name": "b", "model_id": "m", "cost": 1.5, "priority": 3, "labels": {"rack": "r8", "k\\u0041": None}}
    assert router.admin("POST", "/workers?wait=true", more)[0] == 201
    assert labels()["b"] == {"model_id": "m", "cost": "1.5", "priority": "3", "rack": "r8"}
    path.write_text(f"workers:\n  - {{url: {one.url}, name: a, labels: {{rack: r9}}}}\n")
    assert router.admin("POST", "/reload")[0] == 200
    assert labels()["a"] == {"rack": "r9"} and labels()["b"]["rack"] == "r8"
    for wrong in ({"labels": 3}, {"labels": {"a": [1]}}, {"labels": {"": "x"}}, {"labels": {"a": "x" * 600}}, {"labels": {f"l{i}": "" for i in range(65)}}):
        status, _, answer = router.admin("POST", "/workers", {"url": "http://127.0.0.1:1", **wrong})
        assert status == 400, (wrong, answer)
