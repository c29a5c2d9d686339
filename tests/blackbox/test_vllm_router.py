"""
Put in for vllm-router 0.1.17: its flags, its published command lines, its defaults with --compat, and its decisions.
"""

import gzip
import json
import os
import pathlib
import re

import pytest

import harness
from fake_engine import FakeEngine
from harness import Pdctl

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "data" / "vllm_router_decisions"
PAGE = ROOT / "docs" / "migration.md"

# Every flag of 0.1.17, both launchers, with a value that it takes.
FLAGS = {
    "--host": ["127.0.0.1"],
    "--port": ["0"],
    "--worker-urls": ["http://127.0.0.1:1", "http://127.0.0.1:2"],
    "--policy": ["round_robin"],
    "--prefill-policy": ["random"],
    "--decode-policy": ["power_of_two"],
    "--cache-threshold": ["0.3"],
    "--balance-abs-threshold": ["64"],
    "--balance-rel-threshold": ["1.5"],
    "--eviction-interval": ["120"],
    "--eviction-interval-secs": ["120"],
    "--max-tree-size": ["33554432"],
    "--router-temperature": ["0.0"],
    "--kv-penalty-host": ["0.8"],
    "--kv-penalty-external": ["0.6"],
    "--kv-penalty-disk": ["0.3"],
    "--kv-aware-session-affinity-ttl-secs": ["60"],
    "--kv-event-source": ["http://127.0.0.1:1=tcp://127.0.0.1:5557"],
    "--kv-event-replay-source": ["http://127.0.0.1:1=tcp://127.0.0.1:5558"],
    "--kv-event-block-size": ["16"],
    "--kv-event-model": ["m"],
    "--pd-kv-events": ["http://127.0.0.1:1=tcp://127.0.0.1:5557"],
    "--vllm-pd-disaggregation": [],
    "--pd-disaggregation": [],
    "--prefill": ["http://127.0.0.1:1", "none"],
    "--decode": ["http://127.0.0.1:2"],
    "--vllm-discovery-address": ["0.0.0.0:30001"],
    "--kv-connector": ["nixl"],
    "--intra-node-data-parallel-size": ["2"],
    "--worker-startup-timeout-secs": ["600"],
    "--worker-startup-check-interval": ["30"],
    "--max-payload-size": ["536870912"],
    "--request-timeout-secs": ["1800"],
    "--pool-idle-timeout-secs": ["2"],
    "--max-concurrent-requests": ["32768"],
    "--queue-size": ["0"],
    "--queue-timeout-secs": ["60"],
    "--rate-limit-tokens-per-second": ["100"],
    "--cors-allowed-origins": [],
    "--api-key": ["k"],
    "--api-key-validation-urls": ["http://127.0.0.1:1/check"],
    "--request-id-headers": ["x-request-id", "x-trace-id"],
    "--retry-max-retries": ["5"],
    "--retry-initial-backoff-ms": ["50"],
    "--retry-max-backoff-ms": ["30000"],
    "--retry-backoff-multiplier": ["1.5"],
    "--retry-jitter-factor": ["0.2"],
    "--disable-retries": [],
    "--cb-failure-threshold": ["10"],
    "--cb-success-threshold": ["3"],
    "--cb-timeout-duration-secs": ["60"],
    "--cb-window-duration-secs": ["120"],
    "--disable-circuit-breaker": [],
    "--health-failure-threshold": ["3"],
    "--health-success-threshold": ["2"],
    "--health-check-timeout-secs": ["5"],
    "--health-check-interval-secs": ["60"],
    "--health-check-endpoint": ["/health"],
    "--service-discovery": ["--selector", "app=vllm", "--kube-api-server", "http://127.0.0.1:1"],
    "--selector": ["app=vllm", "tier=gpu"],
    "--service-discovery-port": ["80"],
    "--service-discovery-namespace": ["default"],
    "--prefill-selector": ["role=prefill"],
    "--decode-selector": ["role=decode"],
    "--prometheus-host": ["127.0.0.1"],
    "--prometheus-port": ["0"],
    "--log-dir": ["/tmp/logs"],
    "--log-level": ["critical"],
    "--enable-trace": [],
    "--otlp-traces-endpoint": ["127.0.0.1:4317"],
    "--otel-sampling-ratio": ["1.0"],
    "--otel-excluded-paths": ["/health", "/liveness"],
    "--backend": ["vllm"],
    "--runtime": ["vllm"],
    "--history-backend": ["memory"],
    "--profile": [],
    "--mini-lb": [],
    "--epd-config": ['{"encoder_urls": []}'],
    "--enable-igw": [],
    "--enable-program-scheduling": [],
    "--program-scheduling-config-json": ["{}"],
    "--wasm-middleware": ["m.wasm"],
    "--wasm-middleware-sha256": ["00"],
    "--wasm-middleware-route": ["/v1/chat/completions"],
    "--help": [],
    "--version": [],
}


def table():
    """flag -> what the program's own table says about it"""
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \| [^|]* \|$", harness.run("serve", "--vllm-router-markdown").stdout, re.M)
    return {flag: what for names, what in rows for flag in re.findall(r"`(--[a-z0-9-]+)`", names)}


def test_the_table_has_every_flag_and_no_other():
    assert set(table()) == set(FLAGS)
    assert set(table().values()) == {"works", "accepted without effect", "not yet", "not yet, exit 2"}


def test_the_page_has_the_programs_table():
    first, last = "<!-- flags -->\n", "<!-- end of flags -->"
    text, fresh = PAGE.read_text(), harness.run("serve", "--vllm-router-markdown").stdout
    rows = text.split(first)[1].split(last)[0]
    if os.environ.get("DOCS_UPDATE"):
        PAGE.write_text(text.replace(first + rows + last, first + fresh + last))
        return
    assert rows == fresh, "docs/migration.md is not what pdctl serve --vllm-router-markdown prints; run with DOCS_UPDATE=1"


POOLS = {"--vllm-pd-disaggregation", "--pd-disaggregation", "--prefill", "--decode", "--vllm-discovery-address", "--worker-urls"}


def log_of(router):
    """All that it says at the start: this line is the last."""
    return harness.wait_for("the last line of the start", lambda: "Starting router on" in router.log() and router.log())


@pytest.mark.parametrize("flag", [f for f in FLAGS if f not in ("--help", "--version")])
def test_a_flag_does_what_the_table_says(pdctl, flag):
    what, words = table()[flag], [flag, *FLAGS[flag]]
    if what == "not yet, exit 2":
        done = harness.run("serve", "--worker-urls", "http://127.0.0.1:1", *words, "--port", 0, "--admin-port", -1)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"pdctl serve: {flag} is not supported and cannot be ignored: ")
        return
    if flag in ("--port", "--prometheus-port"):
        words = []  # the harness gives them
    router = pdctl("serve", *([] if flag in POOLS else ["--worker-urls", "http://127.0.0.1:1"]), *words)
    log = router.log() if flag == "--log-level" else log_of(router)
    warned = [x for x in log.splitlines() if re.search(r"(without effect|until then): .*--", x)]
    named = [x for x in warned if what != "works" and (flag in x or "--eviction-interval" in x or "--backend" in x)]
    assert len(warned) == len(named) == (0 if what == "works" else 1), log
    if what == "accepted without effect":
        assert "accepted without effect: " in named[0]
    if what == "not yet":
        assert "not supported yet, without effect until then: " in named[0]


def test_all_that_is_accepted_at_once_is_one_warning_each(pdctl):
    known = table()
    words = [w for f in FLAGS for w in [f, *FLAGS[f]] if known[f] in ("accepted without effect", "not yet")]
    log = log_of(pdctl("serve", *words))
    lines = [x for x in log.splitlines() if " warn " in x and "without effect" in x]
    assert len(lines) == 2, log
    for flag, what in known.items():
        if what in ("accepted without effect", "not yet") and flag not in ("--eviction-interval-secs", "--runtime"):
            assert flag in lines[what == "not yet"], flag


def test_version_of_the_command():
    assert harness.run("serve", "--version").stdout == harness.run("--version").stdout


def test_another_connector_is_refused_where_it_counts(pdctl):
    done = harness.run("serve", "--vllm-pd-disaggregation", "--decode", "http://127.0.0.1:1", "--kv-connector", "no-such")
    assert (done.returncode, "--kv-connector: " in done.stderr) == (2, True)
    assert "--kv-connector has no effect" in log_of(pdctl("serve", "--worker-urls", "http://127.0.0.1:1", "--kv-connector", "no-such"))


# -- command lines that are published --

PUBLISHED = [
    ["--pd-disaggregation", "--prefill", "http://0.0.0.0:20001", "--prefill", "http://0.0.0.0:20002", "--decode", "http://0.0.0.0:20003",
     "--decode", "http://0.0.0.0:20004", "--prefill-policy", "consistent_hash", "--decode-policy", "consistent_hash", "--host", "0.0.0.0",
     "--log-level", "info"],
    ["--vllm-pd-disaggregation", "--vllm-discovery-address", "0.0.0.0:30001", "--prefill-policy", "consistent_hash", "--decode-policy",
     "consistent_hash", "--host", "0.0.0.0", "--log-level", "info"],
    ["--pd-disaggregation", "--prefill", "http://localhost:8000", "--decode", "http://localhost:8200", "--intra-node-data-parallel-size",
     "8", "--policy", "consistent_hash"],
]


@pytest.mark.parametrize("compat", [[], ["--compat", "vllm-router"]], ids=["as it is", "compat"])
@pytest.mark.parametrize("words", PUBLISHED, ids=["static", "discovery", "pods"])
def test_a_published_command_line_starts(pdctl, words, compat):
    router = pdctl("serve", *compat, *words)
    assert harness.request(f"http://127.0.0.1:{router.port}", "GET", "/liveness")[0] == 200


# -- no worker at the start --


@pytest.mark.parametrize(
    "words",
    [[], ["--pd-disaggregation"], ["--pd-disaggregation", "--pd-fallback", "fail"], ["--compat", "vllm-router"],
     ["--selector", "app=x"]],
    ids=" ".join,
)
@pytest.mark.both_forms
def test_a_router_starts_without_workers_and_takes_them_later(pdctl, words):
    router = pdctl("serve", *words)
    assert "no workers: requests get 503 until one is added" in log_of(router)
    assert router.get("/readiness")[0] == 503 and router.get("/liveness")[0] == 200
    assert router.post("/v1/completions", {"model": "m", "prompt": "p"})[0] == 503
    pd = "--pd-disaggregation" in words
    for role in ["prefill", "decode"] if pd else ["regular"]:
        worker = pdctl("worker", "--model", "m", "--role", role if pd else "both")
        done = harness.run("workers", "add", worker.url, "--role", role, "--wait", "--router", router.admin_url)
        assert done.returncode == 0, done.stderr
    assert router.get("/readiness")[0] == 200
    assert router.post("/v1/completions", {"model": "m", "prompt": "p", "max_tokens": 1})[0] == 200


# -- --compat --


def completion(seen, wire):
    wire.json({"object": "text_completion", "choices": [{"text": "x"}]})


@pytest.mark.both_forms
def test_compat_has_vllm_routers_admin_routes_on_the_data_port(pdctl):
    with FakeEngine(completion) as one, FakeEngine(completion) as two:
        router = pdctl("serve", "--compat", "vllm-router")
        assert router.post(f"/add_worker?url={one.url}", None)[0] == 200
        status, _, raw = router.post("/workers", {"url": two.url})
        assert (status, json.loads(raw)["success"]) == (200, True)
        assert router.post("/workers", {"url": two.url})[0] == 400
        assert router.post("/flush_cache", None)[0] == 200
        assert router.request("DELETE", "/workers/" + two.url.replace("/", "%2F"))[0] == 200
        assert router.post(f"/remove_worker?url={one.url}", None)[0] == 200
        assert router.post("/remove_worker?url=http://127.0.0.1:1", None)[0] == 200


def test_without_compat_the_data_port_changes_nothing(pdctl):
    router = pdctl("serve", "--worker-urls", "http://127.0.0.1:1")
    assert router.post("/remove_worker?url=http://127.0.0.1:1", None)[0] == 403
    assert router.admin("POST", "/remove_worker?url=http://127.0.0.1:2")[0] == 404


def test_a_flag_beats_compat(pdctl):
    router = pdctl("serve", "--compat", "vllm-router", "--no-admin-on-data-port", "--policy", "round_robin", "--worker-urls", "http://127.0.0.1:1")
    assert router.post("/flush_cache", None)[0] == 403
    assert "policy: round_robin" in log_of(router) and "not supported yet" not in router.log()


@pytest.mark.parametrize("words", [["--compat", "vllm-router"], ["--policy", "cache_aware"]], ids=" ".join)
def test_the_default_policy_routes_by_the_prompt(pdctl, words):
    """cache_aware: prompts that begin alike meet, others spread; as vllm-router does idle ties go to the first worker, others take turns."""
    with FakeEngine(completion) as one, FakeEngine(completion) as two, FakeEngine(completion) as three:
        router = pdctl("serve", *words, "--worker-urls", one.url, two.url, three.url)
        assert "policy: cache_aware" in log_of(router) and "not supported yet" not in router.log()

        def worker(prompt):
            return router.post("/v1/completions", {"model": "m", "prompt": prompt})[1]["X-Worker"]

        head = "a prompt that begins as others do, and long enough that it is a prefix worth keeping. " * 60
        assert len({worker(head + str(i)) for i in range(9)}) == 1
        others = {worker(f"{i} is another beginning. " * 20) for i in range(7)}
        assert len(others) == (1 if "--compat" in words else 3)


def test_validation_urls_come_from_the_environment_too(pdctl):
    """vllm-router reads the variable: a deployment that relies on it must not stand open."""
    with FakeEngine(lambda seen, wire: wire.json({}, 401)) as keys:
        router = pdctl("serve", "--worker-urls", "http://127.0.0.1:1", env={"API_KEY_VALIDATION_URLS": f"{keys.url}/a, {keys.url}/b"})
        assert router.post("/v1/completions", {"model": "m"}, {"Authorization": "Bearer k"})[0] == 401
        assert [s.target for s in keys.seen] == ["/a", "/b"]


@pytest.mark.parametrize("words, want", [
    (["--compat", "vllm-router"], "Bearer from-env"), ([], "Bearer client"), (["--compat", "vllm-router", "--api-key", "k"], "Bearer k"),
], ids=" ".join)
def test_pools_get_the_key_of_the_environment_with_compat(pdctl, words, want):
    with FakeEngine(completion) as decode:
        router = pdctl("serve", *words, "--policy", "consistent_hash", "--decode", decode.url, env={"OPENAI_API_KEY": "from-env"})
        assert router.post("/v1/completions", {"model": "m", "prompt": "p"}, {"Authorization": "Bearer client"})[0] == 200
        assert decode.seen[0].header("Authorization") == want


# -- what 0.1.17 decided --


@pytest.mark.parametrize("name, matter", [("consistent_hash", 111), ("pd-consistent_hash", 139), ("sticky_least_loaded", 300), ("pd-sticky", 200)])
def test_sessions_keep_their_workers(name, matter):
    first, *rows = [json.loads(x) for x in gzip.open(DATA / f"{name}.jsonl.gz", "rt")]
    engines = []

    def engine(role):
        def answer(seen, wire):
            params = {"do_remote_prefill": True, "remote_block_ids": [1], "remote_engine_id": "e", "remote_host": "h", "remote_port": 1}
            wire.json({"choices": [{"text": "x"}], **({"kv_transfer_params": params} if role == "prefill" else {})})

        return answer

    try:
        for url in first["workers"]:
            role = "prefill" if url in [w for f, w in zip(first["flags"], first["flags"][1:]) if f == "--prefill"] else "decode"
            try:
                engines.append(FakeEngine(engine(role), port=int(url.rsplit(":", 1)[1])))
            except OSError as why:
                pytest.skip(f"{url}: {why}; the ring hashes these very URLs")
            engines[-1].__enter__()
        with Pdctl("serve", "--compat", "vllm-router", *first["flags"]) as router:
            rows = [r for r in rows if r["matters"]]
            for row in rows:
                status, headers, _ = router.post(row["path"], row["body"], row["headers"])
                names = ["X-Prefill-Worker", "X-Decode-Worker"] if len(row["workers"]) == 2 else ["X-Worker"]
                assert (status, [headers[n] for n in names]) == (200, [first["workers"][i] for i in row["workers"]]), row
            assert len(rows) == matter
    finally:
        for e in engines:
            e.__exit__(None, None, None)
