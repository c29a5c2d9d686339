"""scripts/cases/k8s-pd without a cluster: manifests agree with each other and with the program, queries name metrics that exist, scripts say
what they want. scripts/cases/k8s-pd/judge asks a real API server, run-simulated runs the whole topology."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

import harness

yaml = pytest.importorskip("yaml", reason="needs python3-yaml")
CASE = pathlib.Path(__file__).resolve().parent.parent.parent / "scripts/cases/k8s-pd"
NAMESPACE = "vllm-router-pd-llama31"
BASE = "ms-llama31-llm-d-modelservice"


def manifests(*names):
    names = names or [p.name for p in (CASE / "manifests").glob("*.yaml")]
    return [d for name in names for d in yaml.safe_load_all((CASE / "manifests" / name).read_text()) if d]


def of_kind(kind):
    return [d for d in manifests() if d["kind"] == kind]


def test_manifests_are_made_from_the_chart_that_is_there():
    assert subprocess.run([CASE / "render", "--check-values"], timeout=60).returncode == 0, "run scripts/cases/k8s-pd/render"


def test_selectors_mean_the_pods_of_their_deployment():
    workloads = of_kind("Deployment")
    assert {d["metadata"]["name"] for d in workloads} == {f"{BASE}-prefill", f"{BASE}-decode", "vllm-router-llama31"}
    templates = {d["metadata"]["name"]: d["spec"]["template"] for d in workloads}
    for d in workloads:
        assert d["metadata"]["namespace"] == NAMESPACE
        labels = d["spec"]["template"]["metadata"]["labels"]
        assert d["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for s in of_kind("Service"):
        meant = [n for n, t in templates.items() if s["spec"]["selector"].items() <= t["metadata"]["labels"].items()]
        assert meant == [s["metadata"]["name"]]
        ports = {p["name"]: p["containerPort"] for p in templates[meant[0]]["spec"]["containers"][0]["ports"]}
        for p in s["spec"]["ports"]:
            assert ports[p["targetPort"]] == p["port"]


def test_the_published_names_labels_ports_and_numbers():
    services = {s["metadata"]["name"]: [p["port"] for p in s["spec"]["ports"]] for s in of_kind("Service")}
    assert services == {f"{BASE}-prefill": [8000], f"{BASE}-decode": [8200], "vllm-router-llama31": [10001, 29000]}
    for d in manifests("prefill-decode.yaml"):
        role, pod = d["metadata"]["labels"]["llm-d.ai/role"], d["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        args = container["args"]
        assert (d["spec"]["replicas"], container["name"], pod["metadata"]["labels"]["role"]) == (8, "vllm", role)
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "1", "memory": "100Gi", "cpu": "22"}
        assert args[args.index("--block-size") + 1] == "128" and args[args.index("--port") + 1] == {"prefill": "8000", "decode": "8200"}[role]
        assert json.loads(args[args.index("--kv-transfer-config") + 1]) == {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
        assert {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "llm-d-hf-token", "key": "HF_TOKEN"}}} in container["env"]
    router = manifests("router-deployment.yaml")[0]
    assert router["spec"]["template"]["metadata"]["labels"]["app"] == "vllm-router"


def router_of(name):
    (deployment,) = manifests(name)
    return deployment["spec"]["template"]["spec"], deployment["spec"]["template"]["spec"]["containers"][0]


def test_the_router_has_the_published_command():
    command = router_of("router-deployment.yaml")[1]["command"]
    url = f"http://{BASE}-%s.{NAMESPACE}.svc.cluster.local:%d"
    assert command[:11] == ["pdctl", "serve", "--pd-disaggregation", "--prefill", url % ("prefill", 8000), "--decode", url % ("decode", 8200),
                            "--intra-node-data-parallel-size", "8", "--policy", "consistent_hash"]  # fmt: skip


@pytest.mark.parametrize("name", ["router-deployment.yaml", "router-deployment-pods.yaml"])
def test_the_router_of_the_manifest_starts_and_its_probes_answer(pdctl, name):
    spec, container = router_of(name)
    command = container["command"][2:]
    own = {"--host": None, "--port": None, "--metrics-host": None, "--metrics-port": None, "--admin-port": None}
    words = []
    for word in command:
        if words and words[-1] in own:
            own[words.pop()] = word
        else:
            words.append(word)
    ports = {p["name"]: str(p["containerPort"]) for p in container["ports"]}
    assert ports == {"router": own["--port"], "metrics": own["--metrics-port"]} and own["--host"] == own["--metrics-host"] == "0.0.0.0"
    assert spec["automountServiceAccountToken"] is ("--service-discovery" in words)
    # Without a cluster there are no pods, as the Services' names have no addresses: it lives, and is not ready.
    away = ["--kube-api-server", f"http://127.0.0.1:{harness.free_port()}"] if "--service-discovery" in words else []
    router = pdctl("serve", *words, *away, "--metrics-port", "0")
    metrics = re.search(r"metrics and probes on (http://\S+)", router.said("metrics and probes on"))[1]
    for probe, base in (("livenessProbe", metrics), ("readinessProbe", router.url)):
        get = container[probe]["httpGet"]
        assert get["port"] == {"livenessProbe": "metrics", "readinessProbe": "router"}[probe]
        status = harness.request(base, "GET", get["path"])[0]
        assert status == {"livenessProbe": 200, "readinessProbe": 503}[probe]
    delay, timeout = (float(words[words.index(flag) + 1]) for flag in ("--drain-delay-secs", "--drain-timeout-secs"))
    assert spec["terminationGracePeriodSeconds"] >= delay + timeout + 5
    router.kill()


def test_the_router_may_look_at_pods_and_nothing_more():
    (role,), (binding,), (account,) = of_kind("Role"), of_kind("RoleBinding"), of_kind("ServiceAccount")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [s["name"] for s in binding["subjects"]] == [account["metadata"]["name"]] == [router_of("router-deployment.yaml")[0]["serviceAccountName"]]


def test_the_shards_of_the_job_are_one_load(pdctl, tmp_path):
    """Its shell line is run as the pods run it, one after another, and the documents are merged."""
    (job,) = of_kind("Job")
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["completions"] == job["spec"]["parallelism"] == 4
    worker = pdctl.worker("--model", "meta-llama/Llama-3.1-8B-Instruct", "--speedup", "50")
    command = list(job["spec"]["template"]["spec"]["containers"][0]["command"])
    for flag, value in (("--base-url", worker.url), ("--num-prompts", "16"), ("--input-len", "20"), ("--output-len", "4")):
        assert command.count(flag) == 1
        command[command.index(flag) + 1] = value
    (tmp_path / "pdctl").symlink_to(os.path.abspath(harness.PDCTL))
    for index in range(4):
        env = {**harness.CLEAN_ENV, "PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": str(index)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
        assert done.returncode == 0, done.stderr
        (tmp_path / f"{index}.json").write_text(done.stdout)
    merged = json.loads(harness.run("results", "merge", *[tmp_path / f"{i}.json" for i in range(4)]).stdout)
    assert (merged["completed"], merged["failed"]) == (16, 0)


# -- queries --


def series(page):
    """Metric name -> names of its labels, of a Prometheus page."""
    found = {}
    for line in page.splitlines():
        sample = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", line)
        if sample:
            found.setdefault(sample[1], set()).update(re.findall(r'(\w+)="', sample[2] or ""))
    return found


@pytest.fixture(scope="module")
def pages():
    fleet = harness.Fleet()
    try:
        prefill, decode = (fleet.worker("--role", role, "--model", "m") for role in ("prefill", "decode"))
        router = fleet("serve", "--pd-disaggregation", "--prefill", prefill.url, "--decode", decode.url)
        for stream in (True, False):
            assert router.post("/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 3, "stream": stream,
                                                   **({"stream_options": {"include_usage": True}} if stream else {})})[0] == 200
        yield series("".join(p.get("/metrics")[2].decode() for p in (router, prefill, decode)))
    finally:
        fleet.stop()


def dashboard():
    return json.loads((CASE / "chart/files/dashboard.json").read_text())


def queries():
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for group in yaml.safe_load((CASE / "chart/files/alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


SERVICE_LABELS = {"job", "instance", "pod", "role"}  # of the scrape, not of the page


@pytest.mark.parametrize("title, query", [pytest.param(t, q, id=f"{i}-{t}") for i, (t, q) in enumerate(queries())])
def test_a_query_asks_for_what_the_pages_have(pages, title, query):
    plain = re.sub(r'"[^"]*"', '""', query)
    names = set(re.findall(r"[a-zA-Z_:][\w:]*(?=[{\[])|\b(?:pdctl|vllm_router|vllm|process)_?[\w:]*", plain)) - {"by"}
    names = {n for n in names if re.match(r"pdctl_|vllm_router_|vllm:|process_", n)}
    assert names or query.startswith("up{")
    assert names <= set(pages), names - set(pages)
    labels = set(re.findall(r"(\w+)=~?!?\"", plain)) | {w.strip() for by in re.findall(r"by \(([^)]*)\)", plain) for w in by.split(",")}
    known = SERVICE_LABELS.union(*(pages[n] for n in names)) if names else SERVICE_LABELS
    assert labels <= known | {"le"}, labels - known


def test_the_runbook_names_alerts_and_metrics_that_exist(pages):
    text = (CASE.parent.parent.parent / "docs/operations.md").read_text()
    rules = [r["alert"] for g in yaml.safe_load((CASE / "chart/files/alerts.yaml").read_text())["groups"] for r in g["rules"]]
    assert sorted(re.findall(r"`(Pdctl\w+)`", text)) == sorted(rules)
    named = set(re.findall(r"\b(?:pdctl_|vllm_router_|vllm:|process_)\w+", text))
    known = set(pages) | {n.removesuffix("_bucket") for n in pages}
    assert len(named) > 15 and named <= known, named - known
    assert len(re.findall(r"^\d+\. \*\*", text, re.M)) == 10


def test_every_panel_has_a_query_and_a_place():
    panels = [p for p in dashboard()["panels"] if p["type"] != "row"]
    assert len(panels) >= 20 and len({p["id"] for p in dashboard()["panels"]}) == len(dashboard()["panels"])
    taken = set()
    for p in panels:
        assert p["targets"] and p["description"]
        cells = {(x, y) for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"]) for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_prometheus_understands_rules_and_queries(tmp_path):
    rules = [{"record": f"query:{i}", "expr": q.replace("$job", "x").replace("$workers", "x")} for i, (_, q) in enumerate(queries())]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "q", "rules": rules}]}))
    # promtool of Debian knows no Kubernetes: the rest of the file is checked.
    config = (CASE / "chart/files/prometheus.yml").read_text()
    config = re.sub(r"kubernetes_sd_configs: (&pods\n(      .*\n)+?(?=    \w)|\*pods\n)", 'static_configs: [{targets: ["127.0.0.1:29000"]}]\n', config)
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(CASE / "chart/files/alerts.yaml", tmp_path)
    for what in (["rules", "alerts.yaml"], ["rules", "queries.yaml"], ["config", "prometheus.yml"]):
        done = subprocess.run(["promtool", "check", *what], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


# -- scripts --

SCRIPTS = ["deploy.sh", "cleanup.sh", "run-benchmark.sh", "run-eval.sh", "check-rdma.sh", "render"]


def tools(tmp_path, **more):
    """PATH of a machine with a kubectl that writes down what it was asked, and no helm."""
    place = tmp_path / "bin"
    place.mkdir(exist_ok=True)
    kubectl = 'printf "%s\\n" "$*" >>"$ASKED"; case "$*" in *--dry-run=client*) cat;; *" -f -") cat >>"$APPLIED";; "get secret"*) exit 1;; esac'
    for name, text in {"kubectl": kubectl, **more}.items():
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)
    for name in ("bash", "sh", "cat", "sed", "dirname", "find", "sort", "xargs", "sha256sum", "cut", "mktemp", "rm", "curl", "sleep"):
        if shutil.which(name) and not (place / name).exists():
            (place / name).symlink_to(shutil.which(name))
    return {"PATH": str(place), "ASKED": str(tmp_path / "asked"), "APPLIED": str(tmp_path / "applied")}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_wants(tmp_path, name):
    env = tools(tmp_path)
    text = subprocess.run([CASE / name, "--help"], capture_output=True, text=True, timeout=60, env=env)
    assert text.returncode == 0 and f"./{name}" in text.stdout + text.stderr
    wrong = subprocess.run([CASE / name, "--nosuch", "x"], capture_output=True, text=True, timeout=60, env=env)
    assert wrong.returncode == 2 and not (tmp_path / "asked").exists()


@pytest.mark.parametrize("name, words", [("run-benchmark.sh", ["ten"]), ("run-benchmark.sh", ["1", "2", "3"]), ("run-benchmark.sh", ["--pods", "0"]),
                                         ("run-eval.sh", ["gsm8k", "none"]), ("run-eval.sh", ["gsm8k", "1", "-3"]), ("cleanup.sh", []),
                                         ("deploy.sh", ["--workers", "nodes"])])  # fmt: skip
def test_wrong_words_are_refused_before_anything_is_done(tmp_path, name, words):
    done = subprocess.run([CASE / name, *words], capture_output=True, text=True, timeout=60, env=tools(tmp_path))
    assert done.returncode == 2 and done.stderr and not (tmp_path / "asked").exists()


def test_deploy_without_helm_applies_the_manifests_and_keeps_the_token_to_itself(tmp_path):
    env = {**tools(tmp_path), "HF_TOKEN": "hf_secret", "WAIT": "0"}
    done = subprocess.run([CASE / "deploy.sh"], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    asked, applied = (tmp_path / "asked").read_text(), (tmp_path / "applied").read_text()
    assert "hf_secret" not in asked + done.stdout + done.stderr and "hf_secret" in applied
    kinds = [d["kind"] for d in yaml.safe_load_all(applied.replace("hf_secret", "", 1)) if d]
    assert sorted(kinds) == sorted(["Deployment"] * 3 + ["Service"] * 3 + ["ServiceAccount", "Role", "RoleBinding"])


def test_deploy_without_a_token_stops(tmp_path):
    done = subprocess.run([CASE / "deploy.sh"], capture_output=True, text=True, timeout=60, env=tools(tmp_path))
    assert done.returncode == 2 and "HF_TOKEN" in done.stderr and not (tmp_path / "applied").exists()


def test_eval_asks_the_router(tmp_path, pdctl):
    worker = pdctl.worker("--model", "m")
    env = {**tools(tmp_path, lm_eval='printf "%s\\n" "$@"'), "ROUTER_URL": worker.url, "MODEL": "m"}
    done = subprocess.run([CASE / "run-eval.sh", "mmlu", "4", "50"], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split("\n")
    assert words[words.index("--tasks") + 1] == "mmlu" and words[words.index("--limit") + 1] == "50"
    assert f"base_url={worker.url}/v1/completions,num_concurrent=4" in done.stdout
