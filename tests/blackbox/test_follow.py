"""Requests that name an id which one worker made go to that worker; nobody else could answer them."""

import contextlib
import json
import re
import threading
import uuid

import pytest

from fake_engine import FakeEngine
from harness import wait_for

pytestmark = pytest.mark.both_forms

BODY = {"model": "m", "input": "hi"}


class Store:
    """An engine that keeps what it made, as vLLM keeps responses: in its own memory."""

    def __init__(self, kind="resp"):
        self.kind = kind
        self.ids = set()
        self.lock = threading.Lock()

    def make(self):
        new = f"{self.kind}_{uuid.uuid4().hex}"
        with self.lock:
            self.ids.add(new)
        return new

    def knows(self, named):
        with self.lock:
            return named in self.ids

    def __call__(self, seen, wire):
        parts = seen.target.split("?")[0].split("/")  # "", v1, responses, id, ...
        body = seen.json() if seen.body.startswith(b"{") else {}
        conversation = body.get("conversation")
        conversation = conversation.get("id") if isinstance(conversation, dict) else conversation
        named = parts[3] if len(parts) > 3 else body.get("previous_response_id") or conversation or body.get("input_file_id")
        if named and not self.knows(named):
            wire.json({"error": {"message": f"'{named}' not found", "code": 404}}, status=404)
        elif seen.method != "POST" or len(parts) > 3:
            wire.json({"id": named, "object": "response", "status": "completed"})
        elif body.get("stream"):
            self.stream(self.make(), body, wire)
        elif body.get("chunked"):
            wire.begin_stream("application/json")
            text = json.dumps({"id": self.make(), "object": "response"}).encode()
            for i in range(0, len(text), 7):
                wire.chunk(text[i:i + 7])
            wire.end_stream()
        else:
            wire.json({"id": self.make(), "object": "response", "output": [{"id": "msg_1", "type": "message"}]})

    @staticmethod
    def stream(new, body, wire):
        wire.begin_stream()
        first = {"response": {"id": new, "object": "response", "metadata": {"pad": "x" * body.get("pad", 0)}},
                 "sequence_number": 0, "type": "response.created"}
        text = b": hello\n\nevent: response.created\ndata: " + json.dumps(first).encode() + b"\n\n"
        step = body.get("step", len(text))
        for i in range(0, len(text), step):
            wire.chunk(text[i:i + step])
        wire.chunk(b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"%s"}}\n\n' % new.encode())
        wire.end_stream()


@pytest.fixture
def two():
    a, b = Store(), Store()
    with FakeEngine(a) as one, FakeEngine(b) as other:
        yield [one, other]
        one.check()
        other.check()


def serve(pdctl, engines, *flags):
    return pdctl("serve", "--worker-urls", *(e.url for e in engines), "--policy", "round_robin", *flags)


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"stream": True, "step": 1}, {"stream": True, "step": 50, "pad": 100000}, {"chunked": True}])
def test_previous_response_id_goes_to_its_worker(pdctl, two, more):
    router = serve(pdctl, two)
    for _ in range(8):
        status, _, raw = router.post("/v1/responses", {**BODY, **more})
        assert status == 200
        made = json.loads(sse_events_of(raw)[0])["response"]["id"] if more.get("stream") else json.loads(raw)["id"]
        for _ in range(3):
            assert router.post("/v1/responses", {**BODY, "previous_response_id": made})[0] == 200
        assert router.get(f"/v1/responses/{made}")[0] == 200
        assert router.get(f"/v1/responses/{made}/input_items?limit=3")[0] == 200
        assert router.post(f"/v1/responses/{made}/cancel", {})[0] == 200
        assert router.request("DELETE", f"/v1/responses/{made}")[0] == 200


def sse_events_of(raw):
    return re.findall(r"^data: (.*)$", raw.decode(), re.M)


def test_a_chain_of_responses(pdctl, two):
    router = serve(pdctl, two)
    last = json.loads(router.post("/v1/responses", BODY)[2])["id"]
    for i in range(12):
        status, _, raw = router.post("/v1/responses", {**BODY, "previous_response_id": last, "stream": i % 2 == 0})
        assert status == 200
        last = json.loads(sse_events_of(raw)[0])["response"]["id"] if i % 2 == 0 else json.loads(raw)["id"]


@pytest.mark.parametrize("path,field", [("/v1/conversations", "conversation"), ("/v1/files", "input_file_id")])
def test_other_collections(pdctl, two, path, field):
    router = serve(pdctl, two)
    for i in range(6):
        made = json.loads(router.post(path, BODY)[2])["id"]
        use = {"id": made} if field == "conversation" and i % 2 else made
        target = "/v1/responses" if field == "conversation" else "/v1/batches"
        assert router.post(target, {**BODY, field: use})[0] == 200
        assert router.get(f"{path}/{made}")[0] == 200
        assert router.get(f"{path}/{made}/content")[0] == 200


def test_an_unknown_id_goes_where_the_policy_says(pdctl, two):
    router = serve(pdctl, two)
    status, _, raw = router.get("/v1/responses/resp_nobody")
    assert status == 404 and b"resp_nobody" in raw


def test_an_id_that_another_router_learnt_is_sought(pdctl):
    """After a restart nobody remembers: the workers are asked in turn, and the one that knows is remembered."""
    with FakeEngine(Store("a")) as a, FakeEngine(Store("b")) as b, FakeEngine(Store("c")) as c:
        engines = [a, b, c]
        ids = [json.loads(e_router.post("/v1/responses", BODY)[2])["id"] for e_router in [serve(pdctl, [e]) for e in engines] for _ in range(2)]
        router = serve(pdctl, engines)
        for made in ids[::2]:
            assert router.post("/v1/responses", {**BODY, "previous_response_id": made, "stream": True})[0] == 200
        for made in ids[1::2]:
            assert router.get(f"/v1/responses/{made}")[0] == 200
        before = sum(len(e.seen) for e in engines)
        for made in ids:
            assert router.request("DELETE", f"/v1/responses/{made}")[0] == 200
        assert sum(len(e.seen) for e in engines) == before + len(ids), "each is known now"
        assert router.metrics()['pdctl_remembered_ids_total{result="sought"}'] == len(ids)
        status, _, raw = router.get("/v1/responses/resp_nobody")
        assert status == 404 and b"resp_nobody" in raw
        assert [e.seen[-1].target for e in engines] == ["/v1/responses/resp_nobody"] * 3
        assert router.metric("pdctl_leg_failures_total") == 0 and router.metric("pdctl_worker_errors_total") == 0
        once = serve(pdctl, engines, "--disable-retries")
        assert [once.get("/v1/responses/resp_nobody")[0] for _ in range(3)] == [404] * 3
        assert sum(s.target == "/v1/responses/resp_nobody" for e in engines for s in e.seen) == 6


def test_a_search_asks_at_most_sixteen(pdctl):
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(FakeEngine(Store())) for _ in range(20)]
        router = serve(pdctl, engines)
        assert router.get("/v1/responses/resp_nobody")[0] == 404
        assert sum(len(e.seen) for e in engines) == 16 and max(len(e.seen) for e in engines) == 1


def test_picks_by_id_are_no_failovers_and_count_as_decode_alone(pdctl, two):
    router = serve(pdctl, two, "--policy", "consistent_hash")
    for i in range(8):
        made = json.loads(router.post("/v1/files", BODY, {"X-Session-Id": f"s{i}"})[2])["id"]
        for other in range(4):
            assert router.post("/v1/responses", {**BODY, "input_file_id": made}, {"X-Session-Id": f"o{other}"})[0] == 200
    m = router.metrics()
    assert router.metric("pdctl_failover_picks_total") == 0 and m['pdctl_decisions_total{stage="regular",reason="id"}'] == 32
    pd = pdctl("serve", "--pd-disaggregation", "--prefill", two[0].url, "--decode", two[1].url)
    made = json.loads(pd.post("/v1/files", BODY)[2])["id"]
    assert pd.post("/v1/responses", {**BODY, "input_file_id": made})[0] == 200
    assert pd.metrics()['pdctl_pd_decode_alone_total{reason="known_id"}'] == 1 and pd.metric("pdctl_pd_decode_alone_total") == 1


def test_nothing_is_learnt_elsewhere(pdctl, two):
    router = serve(pdctl, two, "--remember-ids", 0)
    made = json.loads(router.post("/v1/responses", BODY)[2])["id"]
    assert {router.get(f"/v1/responses/{made}")[0] for _ in range(4)} == {200, 404}


def test_it_survives_a_reload_and_a_worker_that_is_gone(pdctl, two, tmp_path):
    listed = tmp_path / "workers.yaml"
    third = FakeEngine(Store())

    def write(engines):
        listed.write_text("workers:\n" + "".join(f"  - {e.url}\n" for e in engines))

    write(two)
    router = pdctl("serve", "--workers-file", listed, "--policy", "round_robin")
    ids = [json.loads(router.post("/v1/responses", BODY)[2])["id"] for _ in range(6)]
    write([third, *reversed(two)])
    assert router.admin("POST", "/reload")[0] == 200
    for made in ids * 2:
        assert router.get(f"/v1/responses/{made}")[0] == 200
    third.close()


def test_a_worker_that_is_down_is_replaced(pdctl, two):
    router = serve(pdctl, two, "--health-check-interval-secs", 0.2)
    ids = [json.loads(router.post("/v1/responses", BODY)[2])["id"] for _ in range(4)]
    two[0].close()
    answers = wait_for("an answer for each id", lambda: [router.get(f"/v1/responses/{i}")[0] for i in ids])
    assert sorted(answers) == [200, 200, 404, 404]


def test_pd_decode_keeps_its_responses(pdctl):
    with FakeEngine(Store("p")) as p, FakeEngine(Store("a")) as a, FakeEngine(Store("b")) as b:
        router = pdctl("serve", "--pd-disaggregation", "--prefill", p.url, "--decode", a.url, "--decode", b.url, "--policy", "round_robin",
                       "--pd-fallback", "decode-only")
        for _ in range(6):
            made = json.loads(router.post("/v1/responses", BODY)[2])["id"]
            assert made[0] in "ab"
            assert router.post("/v1/responses", {**BODY, "previous_response_id": made})[0] == 200
            assert router.get(f"/v1/responses/{made}")[0] == 200
