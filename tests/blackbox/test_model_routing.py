"""Requests go by model: workers that list it, fresh looks, adapters, aliases, pairs, and the 404 of an id that nobody serves."""

import json
import threading
import time

import pytest

import exact
import harness
from fake_engine import FakeEngine
from harness import parse_metrics, wait_for
from test_metrics_page import Change
from test_registry import registry  # noqa: F401 (a fixture)

ROUTE = "/v1/completions"
SLOW = ("--models-interval-secs", 3600)  # what is learnt later was learnt by a look of its own


def answer(seen, wire):
    wire.json({"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]})


class Serving(FakeEngine):
    """An engine with these models; a pair (adapter, base) is a LoRA adapter. `refuses`: it has no list of models."""

    def __init__(self, *models, refuses=False, hangs=None, handler=answer):
        self.refuses, self.hangs = refuses, hangs
        super().__init__(handler, models=models)

    def _answer(self, seen, wire):
        if seen.target != "/v1/models":
            super()._answer(seen, wire)
            return
        self.probes.append(seen)
        if self.hangs:
            self.hangs.wait(60)
        if self.refuses:
            wire.json({"error": "no"}, status=404)
            return
        names = [m if isinstance(m, tuple) else (m, None) for m in self.models]
        wire.json({"object": "list", "data": [{"id": n, "object": "model", "root": n, "parent": p} for n, p in names]})


@pytest.fixture
def engines():
    made = []

    def make(*args, **more):
        made.append(Serving(*args, **more))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
    for engine in made:
        engine.check()


def urls(*engines):
    return ("--worker-urls", *[e.url for e in engines])


def ask(router, model, path=ROUTE, **more):
    body = {"prompt": "p", **more}
    if model is not None:
        body["model"] = model
    return router.post(path, body)


def known(router, n):
    """The lists of n workers are read."""

    def lists():
        return [k for k in parse_metrics(router.get("/metrics")[2].decode()) if k.startswith("pdctl_worker_models{")]

    wait_for(f"the lists of {n} workers", lambda: len(lists()) == n)


def ids(router):
    status, _, body = router.get("/v1/models")
    assert status == 200, body
    return [m["id"] for m in json.loads(body)["data"]]


@pytest.mark.both_forms
@pytest.mark.parametrize("policy", ["affinity", "round_robin", "consistent_hash", "random", "sticky", "least_request", "scores"])
def test_each_model_goes_to_its_workers(pdctl, engines, policy):
    one, two, other = engines("a", "both"), engines("a", "both"), engines("b", "both")
    router = pdctl("serve", *urls(one, two, other), "--policy", policy)
    known(router, 3)
    for i in range(12):
        status, headers, _ = router.post(ROUTE, {"model": "b" if i % 2 else "a", "prompt": f"p{i}"}, {"X-Session-Id": f"s{i}"})
        assert status == 200 and (headers["X-Worker"] == other.url) == bool(i % 2)
    assert {json.loads(s.body)["model"] for s in one.seen + two.seen} == {"a"} and len(one.seen + two.seen) == 6
    assert {json.loads(s.body)["model"] for s in other.seen} == {"b"} and len(other.seen) == 6


def test_the_home_of_a_key_is_among_the_workers_of_its_model(pdctl, engines):
    """No request of another model's worker counts as a failover."""
    pool = [engines("a") for _ in range(3)] + [engines("b") for _ in range(3)]
    router = pdctl("serve", *urls(*pool), "--policy", "consistent_hash")
    known(router, 6)
    before = Change(router)
    homes = {}
    for i in range(40):
        key = f"s{i % 10}"
        status, headers, _ = router.post(ROUTE, {"model": "a", "prompt": "p"}, {"X-Session-Id": key})
        assert status == 200 and homes.setdefault(key, headers["X-Worker"]) == headers["X-Worker"]
    assert set(homes.values()) <= {e.url for e in pool[:3]} and len(set(homes.values())) > 1
    before.expect(("pdctl_failover_picks_total", 0), ("pdctl_decisions_total", 40, {"stage": "regular", "reason": "key"}))


@pytest.mark.both_forms
def test_an_id_that_nobody_serves(pdctl, engines):
    one, other = engines("a", "org/b"), engines("org/b", 'c"d')
    router = pdctl("serve", *urls(one, other))
    known(router, 2)
    change = Change(router)
    status, headers, body = ask(router, "no\u00e9")
    error = json.loads(body)["error"]
    assert status == 404 and error["code"] == "model_not_found" and error["type"] == "invalid_request_error" and error["param"] == "model"
    assert error["message"] == 'The model `no\u00e9` does not exist. Models of this router: a, org/b, c"d'
    assert json.loads(ask(router, "x" * 100000)[2])["error"]["message"] == 'The model does not exist. Models of this router: a, org/b, c"d'
    assert not one.seen and not other.seen and headers["X-Request-Id"]
    change.expect(("pdctl_unknown_models_total", 2, {"route": ROUTE}), ("pdctl_worker_models", 0),
                  ("vllm_router_request_errors_total", 2, {"error_type": "model_not_found"}))


def test_spellings_and_absent_models(pdctl, engines):
    one, other = engines("org/a"), engines("b")
    router = pdctl("serve", *urls(one, other), "--policy", "round_robin")
    known(router, 2)
    for text in (b'{"model":"org\\/a","prompt":"p"}', b'{"prompt":"p", "model" : "\\u006frg/\\u0061"}'):
        status, headers, _ = router.post(ROUTE, text, {"Content-Type": "application/json"})
        assert (status, headers["X-Worker"]) == (200, one.url)
        assert one.seen[-1].body == text, "the client's bytes"
    for body in ({"prompt": "p"}, {"prompt": "p", "model": None}, {"prompt": "p", "model": ""}, {"prompt": "p", "model": 7}):
        for _ in range(2):
            assert router.post(ROUTE, body)[0] == 200
    assert len(other.seen) == 4, "what names no model goes to any worker"


def test_a_fresh_look_finds_a_model_that_came(pdctl, engines):
    one, other = engines("a"), engines("a")
    router = pdctl("serve", *urls(one, other), *SLOW)
    known(router, 2)
    assert ask(router, "late")[0] == 404
    other.models = ("a", ("late", "a"))

    def found():
        status, headers, _ = ask(router, "late")
        assert status in (200, 404)
        return status == 200 and headers["X-Worker"] == other.url

    wait_for("the adapter", found, step=0.2)
    assert not one.seen
    # A flood of unknown ids is a look a second, not one for each.
    asked = len(one.probes)
    began = time.monotonic()
    for i in range(40):
        assert ask(router, f"nobody{i}")[0] == 404
    assert len([p for p in one.probes[asked:] if p.target == "/v1/models"]) <= time.monotonic() - began + 2


def test_lists_change_while_the_router_runs(pdctl, engines):
    one, other = engines("a", "b"), engines("a")
    router = pdctl("serve", *urls(one, other), "--models-interval-secs", 0.2)
    known(router, 2)
    assert ask(router, "b")[1]["X-Worker"] == one.url
    one.models, other.models = ("a",), ("a", "b")
    wait_for("b to move", lambda: ask(router, "b")[1].get("X-Worker") == other.url)
    assert f"worker {other.url}: serves 2 models now: a, b" in router.said("serves 2 models")
    one.models = other.models = ("a",)
    wait_for("b to be gone", lambda: ask(router, "b")[0] == 404)


def test_an_adapter_has_prefixes_of_its_own(pdctl, engines):
    """The same prompt for the base is no hit of the adapter's."""
    pool = [engines("base", ("lora", "base")) for _ in range(4)]
    router = pdctl("serve", *urls(*pool), "--policy", "cache_aware")
    known(router, 4)
    prompt = "a long beginning that both share " * 40
    base = {ask(router, "base", prompt=prompt)[1]["X-Worker"] for _ in range(5)}
    change = Change(router)
    assert ask(router, "lora", prompt=prompt)[0] == 200
    change.expect(("pdctl_decisions_total", 0, {"stage": "regular", "reason": "prefix"}))
    ask(router, "lora", prompt=prompt)
    change.expect(("pdctl_decisions_total", 1, {"stage": "regular", "reason": "prefix"}))
    assert len(base) == 1


def test_a_worker_without_a_list_may_serve_what_no_other_lists(pdctl, engines):
    listed, silent = engines("a"), engines("b", refuses=True)
    router = pdctl("serve", *urls(listed, silent), "--policy", "round_robin")
    known(router, 1)
    wait_for("the note", lambda: f"worker {silent.url}: GET /v1/models: status 404" in router.log())
    for _ in range(4):
        assert ask(router, "a")[1]["X-Worker"] == listed.url
        assert ask(router, "b")[1]["X-Worker"] == silent.url


def test_the_union_needs_no_hung_worker(pdctl, engines):
    gone = threading.Event()
    try:
        hung, fine = engines("h", hangs=gone), engines("a")
        router = pdctl("serve", *urls(hung, fine), "--models-interval-secs", 0.5)
        known(router, 1)
        wait_for("the silence to be known", lambda: f"worker {hung.url}: GET /v1/models" in router.log())
        began = time.monotonic()
        assert ids(router) == ["a"]
        assert time.monotonic() - began < 4, "it would hang for five seconds"
        asked = len(fine.probes)
        assert ids(router) == ["a"] and len(fine.probes) - asked <= 8, "what is known is not asked for"
        assert {ask(router, "a")[0] for _ in range(4)} == {200}, "it may serve anything, as far as is known"
    finally:
        gone.set()


def test_aliases(pdctl, engines):
    one, other = engines("org/a"), engines("b")
    router = pdctl("serve", *urls(one, other), "--model-alias", "gpt=org/a", "ghost=nobody", "q\u00e9=b")
    known(router, 2)
    text = b'{"n": 1.50, "model" : "gpt", "prompt":"\\u0000p","model2":"gpt"}'
    status, headers, _ = router.post(ROUTE, text, {"Content-Type": "application/json"})
    assert (status, headers["X-Worker"]) == (200, one.url)
    assert one.seen[-1].body == text.replace(b'"model" : "gpt"', b'"model" : "org/a"'), "all else is as it was"
    assert ask(router, "q\u00e9")[1]["X-Worker"] == other.url
    assert ask(router, "ghost")[0] == 404 and "`nobody`" in json.loads(ask(router, "ghost")[2])["error"]["message"]
    assert ids(router) == ["org/a", "b", "gpt", "q\u00e9"], "an alias of nothing is not listed"
    with router.connect() as sock:  # the next request on the connection is not touched
        for model in (b"gpt", b"b"):
            body = b'{"model":"' + model + b'","prompt":"p"}'
            sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert b" 200 " in sock.recv(65536)


@pytest.mark.parametrize("flag,said", [
    ("x", "--model-alias: found 'x', expected NAME=MODEL"), ("=a", "expected NAME=MODEL"), ("a=", "expected NAME=MODEL"),
    (("a=b", "a=c"), "found 'a=b' and 'a=c', expected each name once"),
])
def test_wrong_aliases(flag, said):
    done = harness.run("serve", "--worker-urls", "http://127.0.0.1:1", "--model-alias", *([flag] if isinstance(flag, str) else flag))
    assert done.returncode == 2 and said in done.stderr


def test_both_sides_of_a_pair_serve_the_model(pdctl):
    def worker(role, *models):
        return pdctl("worker", "--role", role, "--model", *models)

    pa, pb, da, db = worker("prefill", "a"), worker("prefill", "b"), worker("decode", "a"), worker("decode", "b")
    router = pdctl("serve", "--pd-disaggregation", *[x for w in (pa, pb) for x in ("--prefill", w.url)],
                   *[x for w in (da, db) for x in ("--decode", w.url)], "--pd-fallback", "fail")
    known(router, 4)
    for i in range(8):
        model, p, d = ("a", pa, da) if i % 2 else ("b", pb, db)
        status, headers, _ = ask(router, model, prompt=f"prompt {i}", max_tokens=2)
        assert (status, headers["X-Prefill-Worker"], headers["X-Decode-Worker"]) == (200, p.url, d.url)
    assert ask(router, "c")[0] == 404
    only = worker("decode", "a", "d")
    assert router.admin("POST", "/workers", {"url": only.url, "worker_type": "decode"})[0] < 300
    wait_for("the worker", lambda: ask(router, "d", max_tokens=2)[0] == 503)  # decode alone has it: no pair


def test_any_model_anywhere(pdctl, engines):
    one = engines("a")
    router = pdctl("serve", *urls(one), "--models-interval-secs", 0)
    assert ask(router, "whatever")[0] == 200
    assert ids(router) == ["a"]
    assert len([p for p in one.probes if p.target == "/v1/models"]) == 1, "for the union alone"


def test_a_label_stands_for_a_list(pdctl, engines, tmp_path, registry):
    """Of workers that have none: `model_id` in the workers file and in POST /workers, metadata.models of a registry."""
    one, two, four = (engines(refuses=True) for _ in range(3))
    listed = engines("c")
    service = registry()
    assert service.register("r-server", four.url, {"type": "openai-api", "models": ["d", 7, "e"]})[0] == 201
    (tmp_path / "workers.yaml").write_text(f"""workers:
- {{url: {one.url}, labels: {{model_id: "a, b"}}}}
- {{url: {listed.url}, labels: {{model_id: "wrong"}}}}
""")
    router = pdctl("serve", "--workers-file", tmp_path / "workers.yaml", "--registry-url", service.url)
    assert router.admin("POST", "/workers", {"url": two.url, "model_id": "x"})[0] < 300
    known(router, 1)
    wait_for("the service", lambda: router.metrics()["vllm_router_active_workers"] == 4)
    for model, worker in (("a", one), ("b", one), ("x", two), ("c", listed), ("d", four), ("e", four)):
        for _ in range(2):
            wait_for(f"{model}", lambda: ask(router, model)[1].get("X-Worker") == worker.url, 20)
    wait_for("the answered list to count", lambda: ask(router, "wrong")[0] == 404, 20)


@pytest.mark.parametrize("policy", ["sticky", "scores", "affinity", "consistent_hash"])
def test_a_capture_of_several_models_is_replayed(pdctl, engines, tmp_path, policy):
    """Whom the models ruled out is captured, and so is the model: sessions that name both have two homes there too."""
    pool = [engines("a", "both") for _ in range(3)] + [engines("b", "both") for _ in range(3)]
    router = pdctl("serve", "--worker-urls", *[f"w{i}={e.url}" for i, e in enumerate(pool)], "--policy", policy, "--capture", tmp_path / "c.db")
    known(router, 6)
    homes = {}
    for i in range(60):
        model = ("a", "b", "both")[i % 3]
        status, headers, _ = router.post(ROUTE, {"model": model, "prompt": f"talk {i % 5} " * (20 + i)}, {"X-Session-Id": f"s{i % 5}"})
        assert status == 200
        homes.setdefault((i % 5, model), set()).add(headers["X-Worker"])
    if policy in ("sticky", "consistent_hash"):
        assert all(len(found) == 1 for found in homes.values()), homes
    router.stop()
    code, found, text = exact.replay(tmp_path / "c.db")
    assert (code, found["workers"][1:]) == (0, (60, 60)), text
