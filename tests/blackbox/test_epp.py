"""A router whose workers an endpoint picker configuration chooses: split by load, labels, refusals, and the line that says why."""

import base64
import concurrent.futures
import json
import subprocess
import threading
import time

import pytest

import harness
from fake_engine import FakeEngine
from test_serve_bytes import reply_completion

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n"
BODY = {"model": "m", "prompt": "hello", "max_tokens": 8}


def decisions(router):
    lines = [line for line in router.said("Scoring decision").splitlines() if "Scoring decision" in line]
    return [json.loads(line[line.index("{"):]) for line in lines]


@pytest.mark.parametrize("version", ["llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1"])
def test_the_split_follows_the_load(pdctl, tmp_path, version):
    """A fast and a slow proxy, each with a worker: 60 of 60 are answered, both are chosen, the fast one more often."""
    (tmp_path / "epp.yaml").write_text(HEAD.replace("llm-d.ai/v1alpha1", version) + "- type: active-request-scorer\n- type: max-score-picker\n")
    fast = pdctl("worker", "--model", "m", "--decode-ms-per-token", 2)
    slow = pdctl("worker", "--model", "m", "--decode-ms-per-token", 60)
    proxies = [pdctl("serve", "--worker-urls", w.url) for w in (fast, slow)]
    workers = tmp_path / "workers.yaml"
    workers.write_text("workers:\n" + "".join(f"- {{url: {p.url}, name: {n}}}\n" for p, n in zip(proxies, ("vllm-p2p-proxy", "vllm-fs-proxy"))))
    upper = pdctl("serve", "--workers-file", workers, "--epp-config", tmp_path / "epp.yaml")
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        codes = list(pool.map(lambda _: upper.post("/v1/completions", BODY)[0], range(60)))
    assert codes == [200] * 60
    harness.wait_for("all decisions", lambda: len(decisions(upper)) == 60)
    counted = subprocess.run(["bash", "-c", "grep 'Scoring decision' | grep -oE 'selected\":\\[[^]]+\\]' | sort | uniq -c"], input=upper.log(), capture_output=True, text=True)
    counts = {line.split()[1]: int(line.split()[0]) for line in counted.stdout.splitlines()}
    assert set(counts) == {'selected":["vllm-p2p-proxy"]', 'selected":["vllm-fs-proxy"]'} and sum(counts.values()) == 60
    assert counts['selected":["vllm-p2p-proxy"]'] > 2 * counts['selected":["vllm-fs-proxy"]'], counts
    for d in decisions(upper):
        assert d["candidates"] == ["vllm-p2p-proxy", "vllm-fs-proxy"] and set(d["scores"]) == set(d["candidates"]) and d["filtered"] == {}
        assert d["reason"] == "score" and d["scores"][d["selected"][0]] == max(d["scores"].values())
        assert abs(abs(d["scores"]["vllm-p2p-proxy"] - d["scores"]["vllm-fs-proxy"]) - d["margin"]) < 1e-9 and d["tie_count"] == (d["margin"] == 0)


def test_labels_filter_and_headers_choose(pdctl, tmp_path):
    (tmp_path / "epp.yaml").write_text(HEAD + """- type: header-label-affinity-scorer
  parameters: {headerName: x-kv-backend, labelKey: llm-d.ai/kv-backend}
- {type: by-label-selector, parameters: {matchExpressions: [{key: stage, operator: NotIn, values: [off]}]}}
- type: header-based-testing-filter
  name: only
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins: [{pluginRef: by-label-selector}, {pluginRef: header-label-affinity-scorer}, {pluginRef: max-score-picker}]
""")
    nvlink, fs, off = (pdctl("worker", "--model", "m") for _ in range(3))
    workers = tmp_path / "workers.yaml"
    line = "- {{url: {}, name: {}, labels: {{llm-d.ai/kv-backend: {}, stage: {}}}}}\n"
    workers.write_text("workers:\n" + line.format(nvlink.url, "a", "nvlink", "on") + line.format(fs.url, "b", "fs", "on") + line.format(off.url, "c", "fs", "off"))
    router = pdctl("serve", "--workers-file", workers, "--epp-config", tmp_path / "epp.yaml")
    for backend, name in (("nvlink", "a"), ("fs", "b")) * 3:
        status, _, _ = router.post("/v1/completions", BODY, {"x-kv-backend": backend})
        assert status == 200
        harness.wait_for("the decision", lambda: decisions(router))
        d = decisions(router)[-1]
        assert d["selected"] == [name] and d["filtered"] == {"c": "by-label-selector"} and d["candidates"] == ["a", "b", "c"]
    # None is left, whatever is available: said at once, and for what.
    workers.write_text("workers:\n" + line.format(off.url, "c", "fs", "off"))
    assert router.admin("POST", "/reload")[0] == 200
    status, headers, body = router.post("/v1/completions", BODY)
    assert status == 429 and headers["x-llm-d-request-dropped-reason"] == "rejected-saturated" and b"the filters leave none of 1" in body


def test_the_worker_that_holds_the_prefix(pdctl, tmp_path):
    """The default configuration: the same prompt goes where it was computed; another one need not."""
    workers = [pdctl("worker", "--model", "m") for _ in range(4)]
    router = pdctl("serve", "--worker-urls", *[w.url for w in workers], "--policy", "scores")
    for talk in range(6):
        prompt = f"conversation {talk} " * 60
        homes = set()
        for turn in range(4):
            prompt += f"turn {turn} "
            status, headers, _ = router.post("/v1/completions", {**BODY, "prompt": prompt})
            assert status == 200
            homes.add(headers["x-worker"])
        assert len(homes) == 1, f"conversation {talk} was on {homes}"


def test_both_pools_of_a_pair(pdctl, tmp_path):
    (tmp_path / "epp.yaml").write_text("""apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: active-request-scorer
- type: prefill-filter
- type: decode-filter
- {type: pd-profile-handler, parameters: {threshold: 0}}
schedulingProfiles:
- {name: prefill, plugins: [{pluginRef: prefill-filter}, {pluginRef: active-request-scorer}]}
- {name: decode, plugins: [{pluginRef: decode-filter}, {pluginRef: active-request-scorer}]}
""")
    prefill, decode = (pdctl("worker", "--model", "m", "--role", r) for r in ("prefill", "decode"))
    router = pdctl("serve", "--prefill", prefill.url, "--decode", decode.url, "--epp-config", tmp_path / "epp.yaml")
    status, headers, _ = router.post("/v1/completions", BODY)
    assert (status, headers["x-prefill-worker"], headers["x-decode-worker"]) == (200, prefill.url, decode.url)
    harness.wait_for("both decisions", lambda: len(decisions(router)) == 2)
    assert {d["stage"] for d in decisions(router)} == {"prefill", "decode"}


class Page:
    """A worker's metrics, as the test says."""

    def __init__(self, waiting):
        self.waiting = waiting

    def text(self):
        return f"""# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting {self.waiting}
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running 1
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc 0.5
"""


def test_what_the_engines_say_counts(pdctl, tmp_path):
    """The queue is the engine's own: it is read from /metrics, and old figures count no more."""
    (tmp_path / "epp.yaml").write_text(HEAD + "- type: queue-scorer\n")
    pages = [Page(0), Page(9)]
    with FakeEngine(reply_completion) as one, FakeEngine(reply_completion) as two:
        engines = [one, two]
        for e, p in zip(engines, pages):
            e.metrics = p.text
        router = pdctl("serve", "--worker-urls", *[e.url for e in engines], "--epp-config", tmp_path / "epp.yaml", "--metrics-scrape-interval-secs", 0.02,
                       "--metrics-staleness-secs", 0.5)

        def chosen():
            assert router.post("/v1/completions", BODY)[0] == 200
            return [e.url for e in engines].index(harness.wait_for("a decision", lambda: decisions(router))[-1]["selected"][0])

        for good in (0, 1, 0):
            pages[good].waiting, pages[1 - good].waiting = 0, 9
            harness.wait_for(f"engine {good}", lambda: [chosen() for _ in range(4)] == [good] * 4)
        pages[0].waiting, pages[1].waiting = 0, 9
        engines[1].metrics = lambda: None  # 404 from now on
        harness.wait_for("the warning", lambda: "its metrics cannot be read: /metrics answered 404" in router.log())
        harness.wait_for("both again", lambda: {chosen() for _ in range(8)} == {0, 1})


def waits_of_a_quiet_tenant(pdctl, *flags):
    """While one tenant floods: how many of its requests end while each of another tenant's waits."""
    worker = pdctl("worker", "--model", "m", "--decode-ms-per-token", 5)
    router = pdctl("serve", "--worker-urls", worker.url, "--max-concurrent-requests", 2, "--queue-size", 40, *flags)
    done, over = [], threading.Event()

    def flood():
        while not over.is_set():
            done.append(router.post("/v1/completions", BODY, {"x-tenant": "loud"})[0])

    crowd = [threading.Thread(target=flood) for _ in range(24)]
    for t in crowd:
        t.start()
    harness.wait_for("the flood", lambda: len(done) > 8)
    waits = []
    for _ in range(8):
        before = len(done)
        assert router.post("/v1/completions", BODY, {"x-tenant": "quiet"})[0] == 200
        waits.append(len(done) - before)
    over.set()
    for t in crowd:
        t.join()
    return sorted(waits)


def test_a_flood_waits_behind_itself(pdctl):
    assert waits_of_a_quiet_tenant(pdctl)[4] > 12, "without turns everybody waits for the flood"
    assert waits_of_a_quiet_tenant(pdctl, "--fairness-header", "x-tenant")[4] <= 8


def test_a_rate_is_kept(pdctl):
    """Ten requests are let in at once, then 50 a second; what waits too long gets 408."""
    worker = pdctl("worker", "--model", "m", "--decode-ms-per-token", 0.1)
    router = pdctl("serve", "--worker-urls", worker.url, "--max-concurrent-requests", 10, "--rate-limit-tokens-per-second", 50, "--queue-size", 100)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        codes = list(pool.map(lambda _: router.post("/v1/completions", BODY)[0], range(60)))
    assert codes == [200] * 60 and time.monotonic() - began >= 0.9, "50 requests above the first ten take a second"


def test_a_session_token_brings_the_next_request_back(pdctl, tmp_path):
    (tmp_path / "epp.yaml").write_text(HEAD + "- {type: session-affinity-scorer, parameters: {encodedEndpointHeaderConfig: {header: X-Pin}}}\n- type: max-score-picker\n")
    workers = [pdctl("worker", "--model", "m") for _ in range(4)]
    router = pdctl("serve", "--worker-urls", *[f"w{i}={w.url}" for i, w in enumerate(workers)], "--epp-config", tmp_path / "epp.yaml")
    for _ in range(3):
        status, first, _ = router.post("/v1/completions", BODY)
        name = base64.b64decode(first["x-pin"]).decode()
        assert status == 200 and workers[int(name[1:])].url == first["x-worker"]
        for _ in range(6):
            assert router.post("/v1/completions", BODY, {"X-Pin": first["x-pin"]})[1]["x-worker"] == first["x-worker"]


PAIR = """- type: queue-scorer
%s
schedulingProfiles:
- name: prefill
  plugins: [{pluginRef: queue-scorer}]
- name: decode
  plugins: [{pluginRef: queue-scorer}]
"""
DISAGG = "- {type: disagg-profile-handler, parameters: {deciders: {prefill: d}}}"


def pair(pdctl, tmp_path, plugins, *flags, old=False):
    head = HEAD.replace("llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1") if old else HEAD
    (tmp_path / "epp.yaml").write_text(head + PAIR % plugins)
    p, d = (pdctl("worker", "--model", "m", "--role", role) for role in ("prefill", "decode"))
    return pdctl("serve", "--prefill", p.url, "--decode", d.url, "--epp-config", tmp_path / "epp.yaml", *flags)


def remote(router, prompt):
    status, headers, _ = router.post("/v1/completions", {**BODY, "prompt": prompt})
    assert status == 200
    return "x-prefill-worker" in headers


def text(n):
    """A prompt whose JSON has n bytes, four of them a token."""
    return ("%08d" % n * n)[: n - 2]


def test_the_decider_of_the_file_decides(pdctl, tmp_path):
    """nonCachedTokens 200: a prompt of 800 bytes goes to prefill, one of 796 not; what the decode worker has does not count, in blocks of 64 tokens."""
    router = pair(pdctl, tmp_path, "- {type: prefix-based-pd-decider, name: d, parameters: {nonCachedTokens: 200, promptTokens: 190}}\n" + DISAGG)
    assert [remote(router, text(n)) for n in (796, 800, 2000)] == [False, True, True]
    assert not remote(router, text(2000)), "the decode worker has computed it"
    # 500 tokens were there, 7 whole blocks of 64 are 448: 52 and 148 more are 200.
    assert [remote(router, text(2000) + c * n) for c, n in (("y", 588), ("v", 592))] == [False, True]
    page = router.metrics()
    assert page['pdctl_pd_decode_alone_total{reason="decider"}'] == 3
    assert "has no effect" not in router.log()


@pytest.mark.parametrize("plugin,expected", [
    ("- {type: prefix-based-pd-decider, name: d}", [False, False]),  # nonCachedTokens 0: never
    ("- {type: always-disagg-pd-decider, name: d}", [True, True]),
])
def test_deciders_that_do_not_look(pdctl, tmp_path, plugin, expected):
    router = pair(pdctl, tmp_path, plugin + "\n" + DISAGG)
    assert [remote(router, text(n)) for n in (100, 4000)] == expected


def test_the_threshold_of_the_older_handler(pdctl, tmp_path):
    """In bytes, of blocks of hashBlockSize bytes the last one that hits does not count."""
    router = pair(pdctl, tmp_path, "- {type: pd-profile-handler, parameters: {threshold: 1000, hashBlockSize: 128}}", old=True)
    assert [remote(router, text(n)) for n in (996, 1000)] == [False, True]
    # 1023 bytes are the same, 7 blocks of 128; 6 count: 768.
    assert remote(router, text(1024))
    assert [remote(router, text(1024) + c * n) for c, n in (("z", 740), ("w", 744))] == [False, True]
    always = pair(pdctl, tmp_path, "- {type: pd-profile-handler, parameters: {threshold: 0}}", old=True)
    assert remote(always, "x")


def test_the_flag_goes_before_the_file(pdctl, tmp_path):
    router = pair(pdctl, tmp_path, "- {type: always-disagg-pd-decider, name: d}\n" + DISAGG, "--pd-decider", "never")
    assert not remote(router, text(4000))
    assert "the decider of the profile handler has no effect: --pd-decider is given" in router.said("has no effect")


def test_prefill_first(pdctl, tmp_path):
    """The order of the picks shows in the order of their lines."""
    router = pair(pdctl, tmp_path, "- {type: disagg-profile-handler, parameters: {stageOrder: prefill-first}}")
    assert remote(router, text(100))
    assert "has no effect" not in router.log()
