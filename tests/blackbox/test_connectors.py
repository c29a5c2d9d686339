"""The connectors on the wire: which request goes to whom, in which order, with which id and parameters.

The engines are scripted. With the concurrent ones the decode engine says nothing before prefill has answered, as a real one that waits for
blocks; a router that sends them one after the other would end in a timeout of the test.
"""

import json
import re
import socket
import threading

import pytest

from fake_engine import FakeEngine
from harness import run, wait_for
from test_serve_bytes import COMPLETION, reply_completion

pytestmark = pytest.mark.both_forms

BODY = {"model": "m", "prompt": "p", "max_tokens": 4, "stream": False}
ROUTE = "/v1/completions"
QUICK = ("--retry-initial-backoff-ms", 1, "--health-check-interval-secs", 300)
ENGINE = {"0": {"engine_id": "engine-0"}}


def answers(**more):
    return lambda seen, wire: wire.json({**COMPLETION, **more})


class Meeting:
    """Prefill answers when decode's request is there too, and decode after prefill: each waits for the other one to be asked."""

    def __init__(self, prefill=answers(), decode=reply_completion):
        self.asked = [threading.Semaphore(0), threading.Semaphore(0)]
        self.says = [prefill, decode]

    def engine(self, me):
        def handler(seen, wire):
            self.asked[me].release()
            assert self.asked[1 - me].acquire(timeout=20), "the other engine was not asked meanwhile"
            self.says[me](seen, wire)

        return FakeEngine(handler)


def serve(pdctl, connector, p, d, *flags, bootstrap=None):
    prefill = ["--prefill", f"p1={p.url}"] + ([str(bootstrap)] if bootstrap else [])
    return pdctl("serve", "--pd-disaggregation", *prefill, "--decode", f"d1={d.url}", "--kv-connector", connector, *QUICK, *flags)


@pytest.mark.parametrize("name", ["example", "SharedStorageConnector", "lmcache"])
def test_nothing_but_one_token(pdctl, name):
    with FakeEngine(answers(usage={"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8})) as p, FakeEngine(reply_completion) as d:
        router = serve(pdctl, name, p, d)
        assert router.post(ROUTE, {**BODY, "kv_transfer_params": {"remote_host": "evil"}})[0] == 200
        assert p.seen[0].json() == {**BODY, "max_tokens": 1, "min_tokens": 1}
        assert d.seen[0].json() == BODY
        assert p.seen[0].header("x-request-id") == d.seen[0].header("x-request-id")
        assert router.post(ROUTE, {**BODY, "vllm_xargs": {"kv_transfer_params": {"remote_host": "evil"}}})[0] == 400
        p.check()
        d.check()


def test_p2p_nccl_ids(pdctl):
    with FakeEngine(answers()) as p, FakeEngine(reply_completion) as d:
        router = serve(pdctl, "P2pNcclConnector", p, d)
        ids = set()
        for _ in range(3):
            status, headers, _ = router.post(ROUTE, BODY, {"X-Request-Id": "mine"})
            assert status == 200 and headers["X-Request-Id"] == "mine", "the client keeps its id"
            ids.add(p.seen[-1].header("x-request-id"))
            assert p.seen[-1].header("x-request-id") == d.seen[-1].header("x-request-id")
            assert "kv_transfer_params" not in p.seen[-1].json()
        # The patterns that the engines match, on both sides.
        for one in ids:
            assert re.search(r"___decode_addr_(.*):(\d+)", one).groups() == ("127.0.0.1", str(d.port))
            assert re.search(r"___prefill_addr_(.*):(\d+)___", one).groups() == ("127.0.0.1", str(p.port))
            assert re.search(r"_[0-9a-f]{32}$", one)
        assert len(ids) == 3


def test_labels_name_the_kv_addresses(pdctl, tmp_path):
    with FakeEngine(answers()) as p, FakeEngine(reply_completion) as d:
        file = tmp_path / "workers.yaml"
        file.write_text(
            f"prefill:\n  - url: {p.url}\n    labels: {{kv-address: '10.1.1.1:21001'}}\n"
            f"decode:\n  - url: {d.url}\n    labels: {{kv-address: '10.1.1.2:22001'}}\n"
        )
        router = pdctl("serve", "--pd-disaggregation", "--workers-file", file, "--kv-connector", "p2p-nccl", *QUICK)
        assert router.post(ROUTE, BODY)[0] == 200
        assert d.seen[0].header("x-request-id").startswith("___prefill_addr_10.1.1.1:21001___decode_addr_10.1.1.2:22001_")


def test_labels_name_the_workers_of_a_directory(pdctl, tmp_path):
    """The filesystem needs no id; where both workers have a label it names them, with or without a port, on both legs."""
    with FakeEngine(answers()) as p, FakeEngine(reply_completion) as d:
        file = tmp_path / "workers.yaml"
        text = f"prefill:\n  - url: {p.url}\n    labels: {{kv-address: vllm-prefill-fs}}\ndecode:\n  - url: {d.url}\n"
        file.write_text(text + "    labels: {kv-address: vllm-decode-fs}\n")
        router = pdctl("serve", "--pd-disaggregation", "--workers-file", file, "--kv-connector", "example", *QUICK)
        status, headers, _ = router.post(ROUTE, BODY, {"X-Request-Id": "mine"})
        assert status == 200 and headers["X-Request-Id"] == "mine"
        assert re.fullmatch(r"___prefill_addr_vllm-prefill-fs___decode_addr_vllm-decode-fs_[0-9a-f]{32}", d.seen[0].header("x-request-id"))
        assert p.seen[0].header("x-request-id") == d.seen[0].header("x-request-id") and d.seen[0].json() == BODY
        file.write_text(text)
        assert router.admin("POST", "/reload")[0] == 200
        assert router.post(ROUTE, BODY, {"X-Request-Id": "mine"})[0] == 200
        assert p.seen[1].header("x-request-id") == d.seen[1].header("x-request-id") == "mine", "one label is none"


def test_moriio_writes(pdctl, tmp_path):
    meeting = Meeting()
    with meeting.engine(0) as p, meeting.engine(1) as d:
        file = tmp_path / "workers.yaml"
        file.write_text(
            f"prefill:\n  - url: {p.url}\n    labels: {{transfer-mode: WRITE, tp-size: '2'}}\n"
            f"decode:\n  - url: {d.url}\n    labels: {{tp-size: '4', dp-size: '1'}}\n"
        )
        router = pdctl("serve", "--pd-disaggregation", "--workers-file", file, "--kv-connector", "moriio", *QUICK)
        assert router.post(ROUTE, BODY)[0] == 200
        to_p, to_d = p.seen[0].json()["kv_transfer_params"], d.seen[0].json()["kv_transfer_params"]
        assert to_p.pop("transfer_id") == to_d.pop("transfer_id")
        common = {"remote_engine_id": None, "remote_block_ids": None, "remote_dp_size": 1}
        assert to_p == {"do_remote_decode": True, "do_remote_prefill": False, "remote_tp_size": 4, **common}
        assert to_d == {"do_remote_decode": False, "do_remote_prefill": True, "remote_tp_size": 2, **common}
        p.check()
        d.check()


# -- at once --


class Bootstrap(FakeEngine):
    """Mooncake's bootstrap server."""

    def __init__(self, engines=ENGINE):
        super().__init__(lambda seen, wire: wire.json(self.engines) if seen.target == "/query" else wire.json({}, 404))
        self.engines = engines


def test_mooncake(pdctl):
    meeting = Meeting(answers(usage={"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}),
                      answers(usage={"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}))
    with meeting.engine(0) as p, meeting.engine(1) as d, Bootstrap() as boot:
        router = serve(pdctl, "mooncake", p, d, bootstrap=boot.port)
        wait_for("the bootstrap server to be asked", lambda: boot.seen)
        wait_for("the answer to be known", lambda: router.post(ROUTE, BODY)[0] == 200 and p.seen)
        p.seen.clear()
        d.seen.clear()
        status, headers, raw = router.post(ROUTE, BODY)
        assert status == 200 and headers["X-Prefill-Worker"] == p.url and headers["X-Decode-Worker"] == d.url
        assert json.loads(raw)["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}, "merged as with one after the other"
        to_p, to_d = p.seen[0].json(), d.seen[0].json()
        assert to_p.pop("kv_transfer_params") == {
            "do_remote_decode": True, "do_remote_prefill": False, "transfer_id": to_d["kv_transfer_params"]["transfer_id"]}
        assert to_p == {**BODY, "max_tokens": 1, "min_tokens": 1}
        want = {"do_remote_decode": False, "do_remote_prefill": True, "remote_bootstrap_addr": f"http://127.0.0.1:{boot.port}", "remote_engine_id": "engine-0"}
        assert {k: v for k, v in to_d.pop("kv_transfer_params").items() if k != "transfer_id"} == want
        assert to_d == BODY
        for e in (p, d, boot):
            e.check()


def test_mooncake_without_a_bootstrap_server(pdctl):
    """Nothing can be transferred: decode alone, or an error that says what is missing."""
    with FakeEngine(answers()) as p, FakeEngine(reply_completion) as d:
        router = serve(pdctl, "mooncake", p, d, bootstrap=1)
        assert router.post(ROUTE, BODY)[0] == 200
        assert not p.seen and d.seen[0].json() == BODY
        wait_for("the warning", lambda: "GET /query at its bootstrap port" in router.log())
        router = serve(pdctl, "mooncake", p, d, "--pd-fallback", "fail", bootstrap=1)
        status, _, raw = router.post(ROUTE, BODY)
        assert status == 502 and "returned no engine id at its bootstrap port" in json.loads(raw)["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_sglang(pdctl, stream):
    def streams(seen, wire):
        wire.begin_stream()
        wire.event({"choices": [{"text": "x"}]})
        wire.event("[DONE]")
        wire.end_stream()

    says = streams if stream else reply_completion
    meeting = Meeting(says, says)
    with meeting.engine(0) as p, meeting.engine(1) as d:
        router = serve(pdctl, "sglang", p, d, bootstrap=8998)
        bodies = [{**BODY, "stream": stream}, {**BODY, "stream": stream, "prompt": ["a", "b"], "n": 2}]
        for body in bodies:
            status, _, raw = router.post(ROUTE, body)
            assert status == 200 and (b"[DONE]" in raw) == stream
        for body, one, two in zip(bodies, p.seen, d.seen):
            assert one.body == two.body
            sent = one.json()
            hosts, ports, rooms = (sent.pop("bootstrap_" + x) for x in ("host", "port", "room"))
            assert sent == body, "the whole request"
            if body["prompt"] == "p":
                assert (hosts, ports) == ("127.0.0.1", 8998) and isinstance(rooms, int)
            else:
                assert (hosts, ports) == (["127.0.0.1"] * 2, [8998] * 2) and len(set(rooms)) == 2
        p.check()
        d.check()


def test_sglang_cannot_decode_alone():
    done = run("serve", "--pd-disaggregation", "--prefill", "http://127.0.0.1:1", "--decode", "http://127.0.0.1:2", "--kv-connector", "sglang",
               "--pd-fallback", "decode-only")
    assert done.returncode == 2 and "--pd-fallback: found 'decode-only', expected 'fail'" in done.stderr


def test_nixl_push_is_learnt(pdctl):
    """The first request one after the other; what it taught makes the next ones concurrent; a failure forgets it."""
    push = {"do_remote_prefill": True, "do_remote_decode": False, "transfer_mode": "push", "remote_engine_id": "e1", "remote_host": "h", "remote_port": 5559, "tp_size": 2}
    state = {"meet": False, "fail": False}
    meeting = Meeting()

    def prefill(seen, wire):
        if state["fail"]:
            return wire.json({"error": {"message": "x"}}, 500)
        if state["meet"]:
            meeting.asked[0].release()
            assert meeting.asked[1].acquire(timeout=20), "decode was not asked meanwhile"
        wire.json({**COMPLETION, "kv_transfer_params": push})

    def decode(seen, wire):
        if state["meet"] and not state["fail"]:
            meeting.asked[1].release()
            assert meeting.asked[0].acquire(timeout=20)
        reply_completion(seen, wire)

    with FakeEngine(prefill) as p, FakeEngine(decode) as d:
        router = serve(pdctl, "nixl", p, d, "--disable-retries")
        assert router.post(ROUTE, BODY)[0] == 200
        assert d.seen[-1].json()["kv_transfer_params"] == push
        state["meet"] = True
        assert router.post(ROUTE, BODY, {"X-Request-Id": "r2"})[0] == 200
        want = {k: push[k] for k in ("do_remote_prefill", "do_remote_decode", "remote_engine_id", "remote_host", "remote_port", "tp_size")}
        assert d.seen[-1].json()["kv_transfer_params"] == {**want, "remote_request_id": p.seen[-1].header("x-request-id")}
        state["fail"] = True
        assert router.post(ROUTE, BODY)[0] == 500
        state.update(fail=False, meet=False)
        assert router.post(ROUTE, BODY)[0] == 200
        assert d.seen[-1].json()["kv_transfer_params"] == push, "one after the other again"
        p.check()
        d.check()


# -- what goes wrong while both run --


@pytest.fixture
def pair(pdctl):
    """A concurrent pair and its router; handlers are set by the test."""
    says = {"p": answers(), "d": reply_completion}
    engines = [FakeEngine(lambda s, w: says["p"](s, w)), FakeEngine(lambda s, w: says["d"](s, w))]
    router = serve(pdctl, "sglang", *engines)
    yield router, engines, says
    for e in engines:
        e.close()


def at_rest(router):
    wait_for("nothing in flight", lambda: all(w["load"] == 0 for w in router.get_json("/workers")["workers"]))


def test_prefill_refuses(pair):
    """Its answer is the client's; decode's request ends."""
    router, (p, d), says = pair
    gone = threading.Event()

    def waits(seen, wire):
        wire.conn.recv(1)  # the router leaves
        gone.set()
        wire.keep = False

    says["p"] = lambda s, w: w.json({"error": {"message": "too long"}}, 400)
    says["d"] = waits
    status, _, raw = router.post(ROUTE, BODY)
    assert status == 400 and json.loads(raw)["error"]["message"] == "too long"
    assert gone.wait(20)
    at_rest(router)
    says.update(p=answers(), d=reply_completion)
    assert router.post(ROUTE, BODY)[0] == 200, "and the pair works on"


def test_prefill_fails_and_is_asked_again(pair):
    """A new room for the next attempt."""
    router, (p, d), says = pair
    left = [500, 500]

    def fails_twice(seen, wire):
        if left:
            return wire.json({"error": {"message": "x"}}, left.pop())
        answers()(seen, wire)

    says["p"] = fails_twice
    assert router.post(ROUTE, BODY)[0] in (200, 500)
    rooms = [s.json()["bootstrap_room"] for s in p.seen]
    assert len(set(rooms)) == len(rooms)
    at_rest(router)


def test_decode_dies(pair):
    router, (p, d), says = pair

    def dies(seen, wire):
        wire.keep = False

    says["d"] = dies
    status, _, _ = router.post(ROUTE, BODY)
    assert status in (502, 503)
    at_rest(router)
    says["d"] = reply_completion
    wait_for("the pair to work", lambda: router.post(ROUTE, BODY)[0] == 200)


def test_the_client_leaves(pair):
    """Both requests end, whichever is waited for."""
    router, (p, d), says = pair
    left = {"p": threading.Event(), "d": threading.Event()}

    def waits(who):
        def handler(seen, wire):
            wire.conn.recv(1)
            left[who].set()
            wire.keep = False

        return handler

    says.update(p=waits("p"), d=waits("d"))
    body = json.dumps(BODY).encode()
    with socket.create_connection(("127.0.0.1", router.port)) as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        wait_for("both to be asked", lambda: p.seen and d.seen)
    assert left["p"].wait(20) and left["d"].wait(20)
    at_rest(router)
