"""The parts of scripts/cases: case 1 as a whole, and what the others are made of. All of them run with scripts/cases/run-all."""

import http.server
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import shlex
import subprocess
import threading

import pytest

import harness
from harness import free_port, wait_for
from test_docs import commands, matches, trimmed

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CASES = ROOT / "scripts" / "cases"
OURS = ["consistent-hash-pd", "pd-accuracy", "performance-aware", "cache-routing"]  # k8s-pd has tests of its own
PAGES = [CASES / "README.md", *(CASES / name / "README.md" for name in OURS)]
FENCE = re.compile(r"^```sh *(?P<mark>\S*)[^\n]*\n(?P<body>.*?)^```", re.M | re.S)


def run(path, *words, timeout=120, cwd=None, **env):
    return subprocess.run([str(CASES / path), *map(str, words)], capture_output=True, text=True, timeout=timeout, cwd=cwd, stdin=subprocess.DEVNULL,
                          env={**harness.CLEAN_ENV, "PDCTL": os.path.abspath(harness.PDCTL), "CASE_PORTS": "free", **{k: str(v) for k, v in env.items()}})


def module(path):
    loader = importlib.machinery.SourceFileLoader(re.sub(r"\W", "_", path), str(CASES / path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    made = importlib.util.module_from_spec(spec)
    loader.exec_module(made)
    return made


# -- consistent-hash-pd --


@pytest.mark.parametrize("how", [[], ["--discovery"]], ids=["static", "discovery"])
def test_sessions_stay(how):
    done = run("consistent-hash-pd/run", *how)
    assert done.returncode == 0 and "13 of 13 criteria hold" in done.stdout, done.stdout + done.stderr
    for title in ("TEST RESULTS ANALYSIS", "SESSION CONSISTENCY ANALYSIS", "LOAD DISTRIBUTION ANALYSIS", "TEST VERDICT"):
        assert title in done.stdout


def test_a_running_router_is_judged(pdctl):
    """As in front of real engines: nothing is started, the router's log is a file."""
    w = [pdctl("worker", "--model", "m", "--speedup", 10) for _ in range(4)]
    pools = [word for i in (0, 1) for word in ("--prefill", f"prefill-{i + 1}={w[i].url}", "--decode", f"decode-{i + 1}={w[2 + i].url}")]
    router = pdctl("serve", "--pd-disaggregation", *pools, "--policy", "consistent_hash")
    done = run("consistent-hash-pd/run", "--router-url", router.url, "--router-log", router.path("stderr"))
    assert done.returncode == 0 and "11 of 11 criteria hold" in done.stdout, done.stdout + done.stderr
    assert run("consistent-hash-pd/run", "--router-url", router.url).returncode == 2


def test_another_policy_fails_the_case():
    done = run("consistent-hash-pd/run", "--policy", "random")
    assert done.returncode == 1, done.stdout + done.stderr
    failed = re.findall(r"^FAIL  (.*?)(?::|$)", done.stdout, re.M)
    assert {"session consistency >= 95 %", "the verdict is PASS", "the log shows the policy of each pick"} <= set(failed), failed


def sessions(test, kept, moved, failed=0, workers=2):
    made = []
    for i in range(kept + moved):
        s = test.Session(i)
        s.sent, s.answered = 20, 20 - failed
        for seen in (s.prefill, s.decode):
            seen += [f"http://w:{i % workers}"] * 20
        if i >= kept:
            s.decode[7] = "http://w:9"
        made.append(s)
    return made


@pytest.mark.parametrize("kept, moved, failed, workers, verdict",
                         [(20, 0, 0, 2, "PASS"), (19, 1, 1, 2, "PASS"), (18, 2, 0, 2, "PARTIAL PASS"), (16, 4, 4, 2, "PARTIAL PASS"), (15, 5, 0, 2, "FAIL"),
                          (20, 0, 5, 2, "FAIL"), (20, 0, 2, 2, "PARTIAL PASS"), (20, 0, 0, 1, "PARTIAL PASS"), (0, 20, 0, 2, "FAIL")])  # fmt: skip
def test_verdicts(kept, moved, failed, workers, verdict):
    test = module("consistent-hash-pd/test_consistent_hash_pd.py")
    found, _ = test.judge(sessions(test, kept, moved, failed, workers))
    assert found["verdict"] == verdict, found


def test_answers_that_name_no_worker_are_not_consistent():
    test = module("consistent-hash-pd/test_consistent_hash_pd.py")
    some = sessions(test, 6, 0)
    for s in some:
        s.prefill[:] = [None] * 20
    assert test.judge(some)[0]["verdict"] == "FAIL"


def test_the_router_is_not_there():
    done = run("consistent-hash-pd/test_consistent_hash_pd.py", "--router", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 3 and "health check failed" in done.stdout


# -- pd-accuracy --


def test_accuracy_of_one_configuration():
    done = run("pd-accuracy/run", "--quick")
    assert done.returncode == 0 and "8 of 8 criteria hold" in done.stdout, done.stdout + done.stderr


def test_block_sizes_must_agree():
    done = run("pd-accuracy/run_accuracy_test.sh", "--simulated", PREFILL_BLOCK_SIZE=32, DECODE_BLOCK_SIZE=16, PREFILL_BASE_PORT=free_port(),
               DECODE_BASE_PORT=free_port(), ROUTER_PORT=free_port(), ADMIN_PORT=free_port())  # fmt: skip
    assert done.returncode == 1 and "block_size_mismatch" in done.stdout and "accuracy tests: FAIL" in done.stdout, done.stdout + done.stderr


def docker_runs(**env):
    done = run("pd-accuracy/run_accuracy_test.sh", "--dry-run", **env)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("docker run")]


@pytest.mark.parametrize("prefill, ptp, decode, dtp, gpus",
                         [(1, 1, 1, 1, ["0", "1"]), (1, 2, 1, 2, ["0,1", "2,3"]), (1, 1, 1, 2, ["0", "1,2"]), (2, 2, 2, 1, ["0,1", "2,3", "4", "5"]),
                          (3, 1, 1, 4, ["0", "1", "2", "3,4,5,6"])])  # fmt: skip
def test_gpus_are_dealt(prefill, ptp, decode, dtp, gpus):
    found = docker_runs(NUM_PREFILL_INSTANCES=prefill, PREFILLER_TP_SIZE=ptp, NUM_DECODE_INSTANCES=decode, DECODER_TP_SIZE=dtp, PREFILL_BASE_PORT=9100,
                        DECODE_BASE_PORT=9200)  # fmt: skip
    assert [c[c.index("--gpus") + 1] for c in found] == [f'"device={g}"' for g in gpus]
    names = [f"vllm_prefill_{i}" for i in range(prefill)] + [f"vllm_decode_{i}" for i in range(decode)]
    assert [c[c.index("--name") + 1] for c in found] == names
    assert [c[c.index("--port") + 1] for c in found] == [str(9100 + i) for i in range(prefill)] + [str(9200 + i) for i in range(decode)]
    assert [c[c.index("--tensor-parallel-size") + 1] for c in found] == [str(ptp)] * prefill + [str(dtp)] * decode
    side = [word for c in found for word in c if word.startswith("VLLM_NIXL_SIDE_CHANNEL_PORT=")]
    assert len(set(side)) == len(found)


def test_defaults_of_the_docker_form():
    one, two = docker_runs()
    for c, block in ((one, "128"), (two, "128")):
        assert "vllm/vllm-openai:latest" in c and c[c.index("--model") + 1] == "meta-llama/Llama-3.2-1B-Instruct"
        assert c[c.index("--gpu-memory-utilization") + 1] == "0.6" and c[c.index("--block-size") + 1] == block
        assert json.loads(c[c.index("--kv-transfer-config") + 1]) == {"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_buffer_device": "cuda"}
        assert not any("FLASHINFER" in word for word in c)


@pytest.mark.parametrize("env, says", [({"KV_BUFFER_DEVICE": "tpu"}, "KV_BUFFER_DEVICE: found 'tpu', expected cuda or cpu"),
                                       ({"NUM_DECODE_INSTANCES": "0"}, "NUM_DECODE_INSTANCES: found '0'"), ({"DECODER_TP_SIZE": "x"}, "DECODER_TP_SIZE: found 'x'")])  # fmt: skip
def test_wrong_settings(env, says):
    done = run("pd-accuracy/run_accuracy_test.sh", "--dry-run", **env)
    assert done.returncode == 2 and says in done.stderr and "docker" not in done.stdout


@pytest.mark.parametrize("measured, code", [(0.31, 0), (0.30, 0), (0.29, 1)])
def test_the_tolerance_of_gsm8k(tmp_path, measured, code):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "results_1.json").write_text(json.dumps({"results": {"gsm8k": {"exact_match,strict-match": measured}}}))
    assert run("pd-accuracy/gsm8k_within.py", tmp_path, 0.33, 0.03).returncode == code


# -- cache-routing --


class Deployment(http.server.ThreadingHTTPServer):
    """Registry, router and babysitters in one, right but for one thing."""

    def __init__(self, wrong=None):
        self.wrong, self.asked = wrong, 0
        super().__init__(("127.0.0.1", 0), Answers)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def env(self):
        port = self.server_address[1]
        return {"REGISTRY_PORT": port, "ROUTER_PORT": port, "MASTER_PORT": port - 1, "SLAVE_PORT": port - 1}


class Answers(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def say(self, body, status=200, **headers):
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(raw), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self):
        wrong = self.server.wrong
        if self.path == "/health":
            return self.say({"status": "healthy" if wrong != 5 else "unhealthy"}, 503 if wrong == 1 else 200)
        if self.path.startswith("/services"):
            return self.say({"services": [{"name": f"{n}-9g_8b_thinking-server"} for n in (["master"] if wrong == 2 else ["master", "slave"])]})
        return self.say({"data": [{"id": "9g_8b_thinking"}] if wrong != 3 else []})

    def do_POST(self):
        wrong, server = self.server.wrong, self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked += 1
        keyed = "prompt_cache_key" in body
        spread = server.asked % 2 if not keyed or wrong == 7 else 0
        answer = {"object": "chat.completion", "choices": [{"message": {"content": "x"}}]} if wrong != 4 else {"choices": []}
        return self.say(answer, X_Worker=f"http://instance-{spread if wrong != 6 or keyed else 0}")


@pytest.mark.parametrize("wrong", [None, 1, 2, 3, 4, 5, 6, 7])
def test_each_block_of_the_validation_can_fail(wrong):
    with Deployment(wrong) as server:
        done = run("cache-routing/validate.sh", "127.0.0.1", **server.env())
        server.shutdown()
    lines = done.stdout.splitlines()
    failed = [int(line[6]) for line in lines if line.startswith("FAIL")]
    assert failed == ([wrong] if wrong else []) and done.returncode == (1 if wrong else 0), done.stdout + done.stderr
    assert lines[-1] == ("0 of 7 blocks passed" if wrong == 1 else f"{6 if wrong else 7} of 7 blocks passed")


@pytest.mark.parametrize("kind", ["shared", "multi"])
def test_data_sets_are_those_of_gen(tmp_path, kind):
    done = run(f"cache-routing/gen-{kind}-prefix.py", "--num-prompts", 12, "--prefix-len", 300, "--suffix-len", 20, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same = harness.run("gen", f"{kind}-prefix", "--num-prompts", 12, "--prefix-len", 300, "--suffix-len", 20).stdout
    assert (tmp_path / f"{kind}_prefix.jsonl").read_text() == same


def test_results_are_sorted_into_sides(tmp_path):
    names = {}
    for label, base in (("round-robin", "slow"), ("cache-routing", "base")):
        for i in (1, 2):
            whole = json.loads((ROOT / f"tests/data/vllm_bench/{base}-{i}.json").read_text())
            names.setdefault(label, []).append(tmp_path / f"{label}-{i}.json")
            names[label][-1].write_text(json.dumps({**whole, "label": label}))
    done = run("cache-routing/compare-results.py", *names["cache-routing"], *names["round-robin"])
    assert done.returncode == 0 and done.stdout.startswith("base: round-robin (2 runs)  new: cache-routing (2 runs)"), done.stdout + done.stderr
    rows = re.findall(r"^(\w+_(?:ms|throughput)) ", done.stdout, re.M)
    assert rows == [f"{w}_{m}_ms" for m in ("ttft", "tpot") for w in ("mean", "median", "p99")] + ["output_throughput", "total_token_throughput", "request_throughput"]
    done = run("cache-routing/compare-results.py", "--roundrobin", names["round-robin"][0], "--cache-routing", names["cache-routing"][0])
    assert done.returncode == 0 and "mean_ttft_ms" in done.stdout
    assert run("cache-routing/compare-results.py", names["round-robin"][0]).returncode == 2
    assert run("cache-routing/compare-results.py", tmp_path / "none.json", names["round-robin"][0]).returncode == 1


def start_sitter(config, registry_port):
    """On two ports in a row that are free; others are tried when somebody takes one meanwhile."""
    for _ in range(5):
        port = module("casekit.py").free_ports(2)
        sitter = subprocess.Popen([CASES / "cache-routing/babysitter", config, "--port", str(port), "--registry-url", f"http://127.0.0.1:{registry_port}"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**harness.CLEAN_ENV, "PDCTL": os.path.abspath(harness.PDCTL)})  # fmt: skip
        if "listening" in sitter.stdout.readline():
            return port, sitter
        sitter.terminate()
        sitter.wait(60)
    raise AssertionError("no pair of free ports")


def test_a_babysitter_tells_the_truth(tmp_path):
    """It restarts its server, and while that is away says so, to who asks and to the registry; at the end nothing is left there."""
    text = (CASES / "cache-routing/config/master-9g_8b_thinking.toml").read_text()
    config = tmp_path / "master.toml"
    config.write_text(text.replace("restart_delay = 5", "restart_delay = 2"))
    registry = subprocess.Popen([harness.PDCTL, "registry", "--port", "0"], stdout=subprocess.PIPE, text=True)
    registry_port = int(registry.stdout.readline().rsplit(":", 1)[1])
    port, sitter = start_sitter(config, registry_port)

    def get(at, path):
        try:
            status, _, raw = harness.request(f"http://127.0.0.1:{at}", "GET", path, timeout=5)
            return status, json.loads(raw)
        except OSError:
            return 0, {}

    def known():
        return {s["name"]: s["status"] for s in get(registry_port, "/services")[1].get("services", [])}

    both = {"master-9g_8b_thinking": "running", "master-9g_8b_thinking-server": "running"}
    try:
        wait_for("both services", lambda: known() == both)
        assert get(port + 1, "/health")[1]["infinilm_server_running"] is True and get(port + 1, "/models")[1]["data"][0]["id"] == "9g_8b_thinking"
        harness.request(f"http://127.0.0.1:{port}", "POST", "/pdctl/faults", {"unhealthy": True})
        wait_for("503 while its server is unhealthy", lambda: get(port + 1, "/health")[0] == 503)
        wait_for("the registry to know", lambda: known() == {**both, "master-9g_8b_thinking-server": "error"})
        harness.request(f"http://127.0.0.1:{port}", "POST", "/pdctl/faults", {"unhealthy": False, "crash_after": 0})
        wait_for("it to be well again", lambda: known() == both)
        assert get(port + 1, "/nothing")[0] == 404
        server = int(subprocess.run(["pgrep", "-P", str(sitter.pid)], capture_output=True, text=True, check=True).stdout.split()[0])
        os.kill(server, 9)
        wait_for("a restart", lambda: get(port + 1, "/info")[1].get("restart_count") == 1)
        wait_for("the new server", lambda: get(port + 1, "/health")[0] == 200 and known() == both)
        sitter.terminate()
        assert sitter.wait(60) == 0 and known() == {}
    finally:
        for p in (sitter, registry):
            if p.poll() is None:
                p.terminate()
                p.wait(60)


# -- performance-aware --


def manifests():
    yaml = pytest.importorskip("yaml", reason="needs python3-yaml")
    return {p.name: [d for d in yaml.safe_load_all(p.read_text()) if d] for p in sorted((CASES / "performance-aware/vllm").glob("*.yaml"))}


def pods(documents):
    for d in documents:
        if d["kind"] == "Pod":
            yield d["metadata"]["labels"], d["spec"]
        elif d["kind"] == "Deployment":
            labels = d["spec"]["template"]["metadata"]["labels"]
            assert d["spec"]["selector"]["matchLabels"].items() <= labels.items()
            yield labels, d["spec"]["template"]["spec"]


def test_manifests_hang_together():
    """Services select pods, mounts name volumes, volumes name ConfigMaps, probes name ports."""
    maps = {"epp-config"}
    for documents in manifests().values():
        maps |= {d["metadata"]["name"] for d in documents if d["kind"] == "ConfigMap"}
    for name, documents in manifests().items():
        for d in documents:
            assert d["kind"] == "Namespace" or d["metadata"]["namespace"] == "llm-d-vllm", name
            if d["kind"] == "Service":
                found = [spec for labels, spec in pods(documents) if d["spec"]["selector"].items() <= labels.items()]
                assert len(found) == 1, (name, d["metadata"]["name"])
                ports = {p.get("name"): p["containerPort"] for c in found[0]["containers"] for p in c["ports"]}
                for p in d["spec"]["ports"]:
                    assert p.get("targetPort", p["port"]) in (*ports, *ports.values()), (name, d["metadata"]["name"], p)
        for _, spec in pods(documents):
            volumes = {v["name"]: v for v in spec.get("volumes", [])}
            assert all(v["configMap"]["name"] in maps for v in volumes.values() if "configMap" in v)
            for c in spec["containers"]:
                assert {m["name"] for m in c.get("volumeMounts", [])} <= set(volumes)
                assert c["readinessProbe"]["httpGet"]["port"] in {p["name"] for p in c["ports"]}


def test_the_filesystem_pair_shares_a_directory_of_one_pod():
    (spec,) = [spec for labels, spec in pods(manifests()["fs-kv-same-node.yaml"]) if labels["app"] == "vllm-fs"]
    assert [c["name"] for c in spec["containers"]] == ["prefill", "decode"] and spec["volumes"] == [{"name": "kv-cache", "emptyDir": {}}]
    assert all(c["volumeMounts"] == [{"name": "kv-cache", "mountPath": "/kv_cache"}] for c in spec["containers"])
    configs = [json.loads(c["args"][c["args"].index("--kv-transfer-config") + 1]) for c in spec["containers"]]
    assert all(k["kv_connector_extra_config"]["shared_storage_path"] == "/kv_cache" for k in configs)


def flags_of(command):
    """Also those of the migration page, which tests of its own hold to what the program takes."""
    own = set(re.findall(r"^\s+(?:-\w, )?(--[a-z][a-z0-9-]*)", harness.run(command, "--help").stdout, re.M))
    return own | (set(re.findall(r"`(--[a-z0-9-]+)`[^|]*\| works", (ROOT / "docs/migration.md").read_text())) if command == "serve" else set())


def test_command_lines_and_files_of_the_manifests_are_read(pdctl, tmp_path):
    """Each container's command is one that pdctl takes: of the engines the simulated one, of the routers the router."""
    known, workers = flags_of("serve"), {}
    for documents in manifests().values():
        for d in documents:
            if d["kind"] == "ConfigMap":
                workers[d["metadata"]["name"]] = tmp_path / f"{d['metadata']['name']}.yaml"
                workers[d["metadata"]["name"]].write_text(d["data"]["workers.yaml"])
        for _, spec in pods(documents):
            for c in spec["containers"]:
                if c["image"].startswith("pdctl"):
                    assert c["args"][0] == "serve" and {a for a in c["args"] if a.startswith("--")} <= known
                    continue
                args = [a.replace("/kv_cache", str(tmp_path)).replace("14579", str(free_port())) for a in c["args"]]
                port = args.index("--port")
                w = pdctl("worker", *args[:port], *args[port + 2 :])
                assert "unknown" not in w.log()
    for name, connector in (("vllm-p2p-proxy", "p2p_nccl"), ("vllm-fs-proxy", "example")):
        router = pdctl("serve", "--pd-disaggregation", "--workers-file", workers[name], "--kv-connector", connector)
        assert len(json.loads(router.admin("GET", "/workers")[2])["workers"]) == 2
    upper = pdctl("serve", "--workers-file", workers["pdctl-gateway"], "--epp-config", CASES / "performance-aware/epp/proxy-performance.yaml")
    assert "Filters: [], Scorers: [active-request-scorer], Picker: max-score-picker" in upper.said("Filters: ")


@pytest.mark.parametrize("config, says", [("proxy-performance", "Filters: [], Scorers: [active-request-scorer],"),
                                          ("proxy-performance-by-backend", "Filters: [by-label-selector], Scorers: [active-request-scorer],"),
                                          ("header-backend", "Filters: [], Scorers: [header-label-affinity-scorer: 10, active-request-scorer],")])  # fmt: skip
def test_profiles_are_told_at_the_start(pdctl, config, says):
    router = pdctl("serve", "--worker-urls", "a=http://127.0.0.1:1", "--epp-config", CASES / f"performance-aware/epp/{config}.yaml")
    assert says in router.said("Filters: ")


def test_the_published_pipeline_counts_names():
    log = "".join(f'2026-12-01T03:00:00.000Z info  {{"level":"info","msg":"Scoring decision","selected":["{n}"],"scores":{{}}}}\n' for n in ["a", "b", "a", "a"])
    done = subprocess.run([CASES / "performance-aware/count-selected.sh"], input=log + "another line\n", capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "a", "1", "b"]


# -- preflight, run-all, the READMEs --


@pytest.fixture
def stubs(tmp_path):
    """A machine that has everything."""
    folder = tmp_path / "bin"
    folder.mkdir()
    says = {"nvidia-smi": 'case $1 in topo) echo "GPU0 X NV12";; *) for i in 1 2 3 4 5 6 7 8; do echo "NVIDIA L4, 23034 MiB"; done;; esac',
            "docker": 'echo \'{"nvidia":{},"runc":{}}\'', "kubectl": 'echo "2 2"', "helm": "", "ibv_devices": 'printf "device node\\n---- ----\\nmlx5_0 1\\n"',
            "python3": 'case "$*" in *vllm*) echo 0.11.0;; esac', "curl": ""}  # fmt: skip
    for name, text in says.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    (tmp_path / "model").mkdir()
    ports = {n: free_port() for n in ("PREFILL_BASE_PORT", "DECODE_BASE_PORT", "ROUTER_PORT", "DISCOVERY_PORT", "REGISTRY_PORT")}
    return folder, {"PATH": f"{folder}:/usr/bin:/bin", "HF_TOKEN": "hf_x", "MODEL1_DIR": tmp_path / "model", **ports}


CHECKED = ["pd-accuracy", "performance-aware", "k8s-pd"]  # the others look at fixed ports too, which other tests may use


def test_preflight_finds_everything(stubs):
    done = run("preflight", *CHECKED, **stubs[1])
    assert done.returncode == 0 and done.stdout.endswith("nothing is missing\n"), done.stdout + done.stderr


@pytest.mark.parametrize("gone, line", [("nvidia-smi", "FAIL  GPUs: 0 of 2: install the NVIDIA driver"), ("docker", "FAIL  Docker with NVIDIA's runtime: no running Docker"),
                                        ("kubectl", "FAIL  cluster: no cluster"), ("ibv_devices", "FAIL  RDMA: no device: apt-get install ibverbs-utils")])  # fmt: skip
def test_preflight_says_what_is_missing(stubs, gone, line):
    (stubs[0] / gone).write_text("#!/bin/sh\nexit 1\n")
    done = run("preflight", *CHECKED, **stubs[1])
    assert done.returncode == 1 and line in done.stdout, done.stdout


@pytest.mark.parametrize("env, line", [({"PREFILL_BLOCK_SIZE": 64}, "FAIL  block sizes: prefill 64, decode 128"), ({"PREFILLER_TP_SIZE": 2, "DECODER_TP_SIZE": 3}, "FAIL  tensor parallel sizes"),
                                       ({"NUM_PREFILL_INSTANCES": 9}, "FAIL  GPUs: 8 of 10"), ({"HF_TOKEN": ""}, "FAIL  HF_TOKEN: not set")])  # fmt: skip
def test_preflight_looks_at_settings(stubs, env, line):
    done = run("preflight", *CHECKED, **{**stubs[1], **env})
    assert done.returncode == 1 and line in done.stdout, done.stdout


def test_preflight_sees_a_port_in_use(stubs):
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        done = run("preflight", "pd-accuracy", **{**stubs[1], "ROUTER_PORT": server.server_address[1]})
    assert done.returncode == 1 and f"FAIL  ports: {server.server_address[1]} in use" in done.stdout
    assert run("preflight", "no-such-case").returncode == 2


def test_run_all_runs_what_the_pages_name():
    listed = run("run-all", "--list").stdout.split("\n")[:-1]
    assert len(listed) == 6 and run("run-all", "nonsense").returncode == 2
    table = re.findall(r"\| `(scripts/cases/[^`]+)` \|$", (CASES / "README.md").read_text(), re.M)
    assert len(table) == 5 and set(table) <= set(listed)
    blocks = [line for p in PAGES for m in FENCE.finditer(p.read_text()) if m["mark"] == "case" for line in m["body"].splitlines() if line.startswith("scripts/cases/")]
    assert {c for c in listed if "k8s-pd" not in c} | {"scripts/cases/run-all"} == set(blocks)


def test_lines_that_breakage_changes_are_there():
    for what, path, text, _, command, _ in module("breakage").MUTANTS.values():
        assert (ROOT / path).read_text().count(text) == 1, f"{what}: {path} has changed, scripts/cases/breakage must follow"
        assert (CASES / command.split()[0]).exists()


def test_run_all_reports_a_failed_case(tmp_path):
    """A program that is none: the case did not run, and the table says so."""
    fake = tmp_path / "pdctl"
    fake.write_text("#!/bin/sh\nexit 3\n")
    fake.chmod(0o755)
    done = run("run-all", "consistent-hash-pd", PDCTL=fake, CASES_LOG_DIR=tmp_path)
    assert done.returncode == 3 and done.stdout.count("did not run") == 1, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name)
def test_commands_of_the_pages(page):
    """Each block is marked: run by run-all (case) or by a test, or in need of GPUs or a cluster; what it names exists."""
    for found in FENCE.finditer(page.read_text()):
        assert found["mark"] in ("case", "test", "gpus", "cluster"), found[0][:80]
        for line in found["body"].replace("\\\n", " ").splitlines():
            for path in re.findall(r"(?<![\w/])(scripts/[\w./-]+)", line):
                assert (ROOT / path).exists(), f"{page}: {path}"
            for path in re.findall(r"(?:^|[ |])\./([\w.-]+\.(?:sh|py))", line):
                assert (page.parent / path).exists(), f"{page}: {path}"
            words = line.split()
            if words[:1] == ["pdctl"]:
                assert set(re.findall(r" (--[a-z][a-z0-9-]*)", line)) <= flags_of(words[1]), line
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert re.match(r"[a-z]+:", target) or (page.parent / target).exists(), f"{page}: {target}"


EXECUTED = [pytest.param(command, expected, id=f"{p.parent.name}-{i}") for p in PAGES for m in FENCE.finditer(p.read_text()) if m["mark"] == "test"
            for i, (command, expected) in enumerate(commands(m["body"]))]  # fmt: skip


@pytest.mark.parametrize("command, expected", EXECUTED)
def test_examples_of_the_pages(command, expected):
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                          env={**harness.CLEAN_ENV, "PDCTL": os.path.abspath(harness.PDCTL)}, check=False)  # fmt: skip
    assert done.returncode == 0 and matches(trimmed(expected), trimmed(done.stdout.splitlines())), done.stdout + done.stderr


def test_published_commands_of_the_first_case(pdctl):
    """Workers and router by the published command lines, pdctl in the place of the named programs, other ports; then the published requests."""
    model = "meta-llama/Meta-Llama-3.1-8B-Instruct"
    launch = f"--model {model} --tensor-parallel-size 2 --host 0.0.0.0 --disable-log-requests --enable-prefix-caching".split()
    w = [pdctl("worker", *launch) for _ in range(4)]
    assert all(x.url.startswith("http://0.0.0.0:") and x.get("/health")[0] == 200 for x in w)
    router = pdctl("serve", *f"--pd-disaggregation --prefill {w[0].url} --prefill {w[1].url} --decode {w[2].url} --decode {w[3].url} "
                   "--prefill-policy consistent_hash --decode-policy consistent_hash --host 0.0.0.0 --log-level info".split())  # fmt: skip
    assert router.get("/health")[0] == 200 and router.get_json("/v1/models")["data"][0]["id"] == model
    body = {"model": model, "messages": [{"role": "user", "content": "Hello world"}], "max_tokens": 10, "session_params": {"session_id": "test_session_001"}}
    seen = set()
    for _ in range(3):
        status, headers, _ = router.post("/v1/chat/completions", body)
        assert status == 200
        seen.add((headers["X-Prefill-Worker"], headers["X-Decode-Worker"]))
    assert len(seen) == 1 and seen.pop()[0] in (w[0].url, w[1].url)
    log = router.said("vLLM policy-based routing: prefill=http://0.0.0.0:")
    assert "[policy:consistent_hash], decode=http://0.0.0.0:" in log and "without effect" not in log
    assert b"vllm_router_" in router.get("/metrics")[2]


def test_published_files_are_there():
    for path in ("consistent-hash-pd/test_consistent_hash_pd.py", "pd-accuracy/run_accuracy_test.sh", "pd-accuracy/test_pd_accuracy.py", "pd-accuracy/tp_config_sweep_test.sh",
                 "pd-accuracy/.buildkite/pipeline.yml", "performance-aware/vllm/p2p-nccl-same-node.yaml", "performance-aware/vllm/fs-kv-same-node.yaml",
                 "cache-routing/install.defaults.sh", "cache-routing/start-master.sh", "cache-routing/validate.sh", "cache-routing/setup-vllm-env.sh",
                 "cache-routing/bench-single.sh", "cache-routing/bench-roundrobin.sh", "cache-routing/bench-cache-routing.sh", "cache-routing/compare-results.py",
                 "cache-routing/gen-shared-prefix.py", "cache-routing/gen-multi-prefix.py", "cache-routing/config/master-9g_8b_thinking.toml",
                 "cache-routing/config/slave-9g_8b_thinking.toml"):  # fmt: skip
        assert (CASES / path).exists(), path
    text = (CASES / "pd-accuracy/.buildkite/pipeline.yml").read_text()
    yaml = pytest.importorskip("yaml", reason="needs python3-yaml")
    (step,) = yaml.safe_load(text)["steps"]
    assert step["timeout_in_minutes"] == 30 and step["env"]["MODEL_NAMES"] == "meta-llama/Llama-3.2-1B-Instruct" and "4" in step["agents"]["queue"]
    assert any("tp_config_sweep_test.sh --docker" in c for c in step["commands"])
    assert all((ROOT / word).exists() for c in step["commands"] for word in c.split() if word.startswith("./"))
