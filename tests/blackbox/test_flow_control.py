"""flowControl of an EndpointPickerConfig: who waits while the pool is saturated, in bands and flows, with limits and times to live."""

import json
import threading
import time

import pytest

import harness
from fake_engine import FakeEngine
from harness import free_port, wait_for
from test_model_routing import ROUTE, answer

HEAD = """apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- type: queue-scorer
- type: round-robin-fairness-policy
- type: slo-deadline-ordering-policy
- {type: concurrency-detector, parameters: {maxConcurrency: %d}}
%s
flowControl:
  saturationDetector: {pluginRef: concurrency-detector}
  %s
"""
TENANT = "x-llm-d-inference-fairness-id"


class Slow:
    """An engine that answers one request when told to, and notes who came."""

    def __init__(self):
        self.turn = threading.Semaphore(0)
        self.came = []
        self.engine = FakeEngine(self._answer)
        self.threads, self.answers, self.url = [], {}, self.engine.url

    def _answer(self, seen, wire):
        self.came.append(json.loads(seen.body)["prompt"])
        assert self.turn.acquire(timeout=60)
        answer(seen, wire)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for _ in range(200):
            self.turn.release()
        for t in self.threads:
            t.join()
        self.engine.close()
        self.engine.check()

    def send(self, router, name, headers=(), body=None):
        def go():
            self.answers[name] = router.post(ROUTE, body or {"model": "m", "prompt": name}, dict(headers))

        self.threads.append(threading.Thread(target=go))
        self.threads[-1].start()

    def waits(self, router, name, n, headers=()):
        """Sends it and waits until n requests are queued."""
        self.send(router, name, headers)
        wait_for(f"{n} to wait", lambda: router.metrics()["pdctl_requests_waiting"] == n)

    def drain(self, n):
        """Lets them end one after the other, and returns who came in which order."""
        for i in range(len(self.came), n + 1):
            wait_for(f"request {i}", lambda: len(self.came) >= i)
            self.turn.release()
        return self.came


@pytest.fixture
def slow():
    with Slow() as s:
        yield s


def config(tmp_path, flow="", plugins="", most=1):
    (tmp_path / "epp.yaml").write_text(HEAD % (most, plugins, flow))
    return ("--epp-config", tmp_path / "epp.yaml")


@pytest.mark.both_forms
def test_flows_take_turns_while_the_pool_is_saturated(pdctl, tmp_path, slow):
    """A tenant that floods waits behind itself."""
    router = pdctl("serve", "--worker-urls", slow.url, *config(tmp_path, "defaultPriorityBand: {fairnessPolicyRef: round-robin-fairness-policy}"))
    slow.send(router, "first")
    wait_for("the first", lambda: slow.came == ["first"])
    for i in range(6):
        slow.waits(router, f"flood{i}", i + 1, {TENANT: "flood"})
    slow.waits(router, "quiet0", 7, {TENANT: "quiet"})
    slow.waits(router, "quiet1", 8, {TENANT: "quiet"})
    came = slow.drain(9)
    assert came[0] == "first" and came.index("quiet0") <= 2 and came.index("quiet1") <= 4
    assert [x for x in came if x.startswith("flood")] == [f"flood{i}" for i in range(6)]
    wait_for("the answers", lambda: len(slow.answers) == 9)
    assert {a[0] for a in slow.answers.values()} == {200}


def test_strict_order_and_priorities(pdctl, tmp_path, slow):
    """Without turns who came first begins first, whatever the flow; a higher band goes before; a priority that no band has is 0."""
    router = pdctl("serve", "--worker-urls", slow.url, "--priority-header", "x-priority",
                   *config(tmp_path, "priorityBands: [{priority: 10}, {priority: -1}]"))
    slow.send(router, "first")
    wait_for("the first", lambda: slow.came == ["first"])
    for n, (name, priority) in enumerate([("low", -1), ("a", 0), ("b", 7), ("high", 10), ("lifted", -9)]):
        slow.waits(router, name, n + 1, {"x-priority": str(priority), TENANT: name})
    assert slow.drain(6) == ["first", "high", "a", "b", "lifted", "low"]


def test_the_earliest_deadline_begins_first(pdctl, tmp_path, slow):
    router = pdctl("serve", "--worker-urls", slow.url, *config(tmp_path, "defaultPriorityBand: {orderingPolicyRef: slo-deadline-ordering-policy}"))
    slow.send(router, "first")
    wait_for("the first", lambda: slow.came == ["first"])
    for n, (name, slo) in enumerate([("none", None), ("late", "900000"), ("wrong", "-5"), ("soon", "100000")]):
        slow.waits(router, name, n + 1, {"x-llm-d-slo-ttft-ms": slo} if slo else {})
    assert slow.drain(5) == ["first", "soon", "late", "none", "wrong"]


@pytest.mark.parametrize("limit,told", [
    ("priorityBands: [{priority: 0, maxRequests: 2}]", "band"), ("maxRequests: 2", "all"), ("maxBytes: 200", "bytes"),
])
def test_a_full_queue_refuses(pdctl, tmp_path, slow, limit, told):
    router = pdctl("serve", "--worker-urls", slow.url, *config(tmp_path, limit))
    slow.send(router, "first")
    wait_for("the first", lambda: slow.came == ["first"])
    body = {"model": "m", "prompt": "x" * (80 - len('{"model": "m", "prompt": ""}'))} if told == "bytes" else {"model": "m", "prompt": "x"}
    for i in range(2):
        slow.send(router, i, body=body)
        wait_for("it to wait", lambda: router.metrics()["pdctl_requests_waiting"] == i + 1)
    status, headers, raw = router.post(ROUTE, body)
    assert (status, headers["x-llm-d-request-dropped-reason"]) == (429, "rejected-saturated")
    assert json.loads(raw)["error"]["type"] == "overloaded_error"
    page = router.metrics()
    assert page["pdctl_queue_full_total"] == 1 and page["pdctl_requests_queued_total"] == 2


@pytest.mark.both_forms
def test_times_to_live(pdctl, tmp_path, slow):
    """defaultRequestTTL while there are workers, noEndpointRequestTTL while there is none."""
    router = pdctl("serve", "--worker-urls", slow.url, *config(tmp_path, "defaultRequestTTL: 300ms\n  noEndpointRequestTTL: 0s"))
    slow.send(router, "first")
    wait_for("the first", lambda: slow.came == ["first"])
    began = time.monotonic()
    status, headers, _ = router.post(ROUTE, {"model": "m", "prompt": "late"})
    assert (status, headers["x-llm-d-request-dropped-reason"]) == (429, "rejected-ttl-expired") and time.monotonic() - began >= 0.3
    assert router.metrics()["pdctl_queue_timeouts_total"] == 1
    router = pdctl("serve", "--worker-urls", f"http://127.0.0.1:{free_port()}", "--health-check-interval-secs", 0.1,
                   *config(tmp_path, "noEndpointRequestTTL: 300ms"))
    wait_for("no worker", lambda: router.metrics()["vllm_router_active_workers"] == 0)
    status, headers, _ = router.post(ROUTE, {"model": "m", "prompt": "x"})
    assert (status, headers["x-llm-d-request-dropped-reason"]) == (503, "rejected-no-endpoints")


def test_a_worker_that_comes_serves_those_that_wait(pdctl, tmp_path, slow):
    """An empty pool is saturated, and not an error at once."""
    router = pdctl("serve", "--workers-file", empty(tmp_path), *config(tmp_path, most=5))
    slow.send(router, "early")
    wait_for("it to wait", lambda: router.metrics()["pdctl_requests_waiting"] == 1)
    assert router.admin("POST", "/workers", {"url": slow.url})[0] < 300
    assert slow.drain(1) == ["early"]
    wait_for("its answer", lambda: slow.answers)
    assert slow.answers["early"][0] == 200


def empty(tmp_path):
    (tmp_path / "workers.yaml").write_text("workers: []\n")
    return tmp_path / "workers.yaml"


def test_a_burst_does_not_pass_an_idle_pool(pdctl, tmp_path, slow):
    """Those that have begun and no worker yet count: two at once of a maximum of two, whatever the load signal says."""
    router = pdctl("serve", "--worker-urls", slow.url, *config(tmp_path, most=2))
    for i in range(12):
        slow.send(router, f"r{i}")
    wait_for("ten to wait", lambda: router.metrics()["pdctl_requests_waiting"] == 10)
    assert len(slow.came) == 2
    assert sorted(slow.drain(12)) == sorted(f"r{i}" for i in range(12))


def test_a_client_that_leaves_the_queue(pdctl, tmp_path, slow):
    router = pdctl("serve", "--worker-urls", slow.url, *config(tmp_path))
    slow.send(router, "first")
    wait_for("the first", lambda: slow.came == ["first"])
    with router.connect() as sock:
        body = b'{"model":"m","prompt":"gone"}'
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wait_for("it to wait", lambda: router.metrics()["pdctl_requests_waiting"] == 1)
    wait_for("it to be gone", lambda: router.metrics()["pdctl_requests_waiting"] == 0)
    assert router.metrics()["pdctl_queue_left_total"] == 1
    slow.waits(router, "next", 1)
    assert slow.drain(2) == ["first", "next"]


def test_engines_say_that_they_are_full(pdctl, tmp_path):
    """utilization-detector reads /metrics: a queue of 5 is full. Negative priorities are refused also without flow control."""
    waiting = [9]

    def text():
        return ("# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting %d\n# TYPE vllm:num_requests_running gauge\n"
                "vllm:num_requests_running 1\n# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc 0.1\n" % waiting[0])

    plain = """apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
%splugins:
- type: queue-scorer
- {type: utilization-detector, parameters: {metricsStalenessThreshold: 30s}}
saturationDetector: {pluginRef: utilization-detector}
"""
    with FakeEngine(answer) as engine:
        engine.metrics = text
        (tmp_path / "epp.yaml").write_text(plain % "")
        router = pdctl("serve", "--worker-urls", engine.url, "--epp-config", tmp_path / "epp.yaml", "--priority-header", "x-priority")
        body = {"model": "m", "prompt": "p"}
        wait_for("the refusal", lambda: router.post(ROUTE, body, {"x-priority": "-1"})[0] == 429)
        assert "x-llm-d-request-dropped-reason" not in router.post(ROUTE, body, {"x-priority": "-1"})[1]
        assert router.post(ROUTE, body)[0] == 200
        waiting[0] = 1
        wait_for("the pool to have room", lambda: router.post(ROUTE, body, {"x-priority": "-1"})[0] == 200)
        (tmp_path / "epp.yaml").write_text(plain % "featureGates: [flowControl]\n")
        router = pdctl("serve", "--worker-urls", engine.url, "--epp-config", tmp_path / "epp.yaml")
        wait_for("room", lambda: router.post(ROUTE, body)[0] == 200)
        waiting[0] = 9
        seen = len(engine.seen)
        done = []
        t = threading.Thread(target=lambda: done.append(router.post(ROUTE, body)[0]))

        def queued():  # figures of before may let some begin
            return router.metrics()["pdctl_requests_waiting"] == 1

        wait_for("the figures", lambda: engine.metrics and time.sleep(0.3) is None)
        t.start()
        wait_for("it to wait", queued)
        assert len(engine.seen) == seen and not done
        waiting[0] = 0
        t.join()
        assert done == [200]


def test_what_has_no_effect_is_said(pdctl, tmp_path):
    text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: queue-scorer}, {type: utilization-detector}]\n"
    with FakeEngine(answer) as engine:
        (tmp_path / "epp.yaml").write_text(text + "flowControl: {maxRequests: 5}\nsaturationDetector: {pluginRef: utilization-detector}\n")
        router = pdctl("serve", "--worker-urls", engine.url, "--epp-config", tmp_path / "epp.yaml")
        router.said("epp.yaml:4:1: flowControl without featureGates: [flowControl] has no effect",
                    "saturationDetector has no effect: found neither featureGates: [flowControl] nor --priority-header")
    (tmp_path / "w.jsonl").write_text('{"timestamp": 0, "input_length": 64, "output_length": 4, "hash_ids": [1]}\n' * 3)
    done = harness.run("simulate", "--workload", tmp_path / "w.jsonl", "--workers", 2, "--epp-config", tmp_path / "epp.yaml", "--policy", "scores")
    assert done.returncode == 0 and "flow control of the endpoint picker is not simulated" in done.stderr, done.stdout + done.stderr
    assert "flowControl without featureGates: [flowControl] has no effect" in done.stderr
