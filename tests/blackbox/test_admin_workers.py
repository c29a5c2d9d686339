"""Workers that are added, drained and removed while the router runs: the routes, their words, and that no request notices."""

import errno
import itertools
import json
import os
import signal
import socket
import threading
import time

import pytest

from fake_engine import FakeEngine
from harness import free_port, wait_for
from test_pd_faults import FAST, fleet, idle, mistakes

BODY = {"model": "m", "prompt": "some words that make a prompt of more than one block " * 4, "max_tokens": 4}


def ok(seen, wire):
    if seen.target in ("/v1/completions",):
        wire.json({"id": "c", "choices": [{"index": 0, "text": "x", "finish_reason": "length"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
    else:
        wire.json({"error": "no such path"}, 404)


def plain(pdctl, *urls, flags=()):
    return pdctl("serve", "--worker-urls", *urls, "--policy", "round_robin", *FAST, *flags)


def quoted(url):
    return url.replace(":", "%3A").replace("/", "%2F")


def listed(router):
    return {w["name"]: w for w in json.loads(router.admin("GET", "/workers")[2])["workers"]}


def add(router, url, role=None, name=None, wait=True, **more):
    body = {"url": url, **({"worker_type": role} if role else {}), **({"name": name} if name else {}), **more}
    status, _, raw = router.admin("POST", "/workers" + ("?wait=true" if wait else ""), body)
    assert status in ((201,) if wait else (201, 202)), raw
    return json.loads(raw)["worker"]


# -- shapes --


def test_add_list_show_remove_of_a_plain_pool(pdctl):
    with FakeEngine(ok) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"w0={one.url}")
        added = add(router, two.url, name="w1")
        assert {k: added[k] for k in ("name", "url", "worker_type", "is_healthy", "load", "state", "source")} == {
            "name": "w1", "url": two.url, "worker_type": "regular", "is_healthy": True, "load": 0, "state": "available", "source": "added"}
        page = json.loads(router.admin("GET", "/workers")[2])
        assert page["total"] == 2 and page["stats"] == {"prefill_count": 0, "decode_count": 0, "regular_count": 2}
        # what vllm-router shows of a worker, with the same names and types
        for w in page["workers"]:
            assert {"url": str, "model_id": str, "worker_type": str, "is_healthy": bool, "load": int, "connection_mode": str, "priority": int, "cost": float} == {
                k: type(w[k]) for k in ("url", "model_id", "worker_type", "is_healthy", "load", "connection_mode", "priority", "cost")}
        assert json.loads(router.admin("GET", "/list_workers")[2]) == {"urls": [one.url, two.url]}
        assert json.loads(router.admin("GET", "/get_loads")[2]) == {"workers": [{"worker": one.url, "load": 0}, {"worker": two.url, "load": 0}]}
        assert [router.post("/v1/completions", BODY)[1]["X-Worker"] for _ in range(4)].count(two.url) == 2
        for way in ("w1", two.url, quoted(two.url)):
            assert json.loads(router.admin("GET", f"/workers/{way}")[2])["url"] == two.url
        status, _, raw = router.admin("DELETE", f"/workers/{quoted(two.url)}")
        assert (status, json.loads(raw)) == (200, {"success": True, "message": f"Worker {two.url} removed successfully"})
        assert list(listed(router)) == ["w0"]
        assert router.admin("GET", "/workers/w1")[0] == 404
        assert {router.post("/v1/completions", BODY)[1]["X-Worker"] for _ in range(4)} == {one.url}
        probes = len(two.probes)
        time.sleep(1)
        assert len(two.probes) == probes, "a removed worker is left alone"
        status, _, raw = router.admin("DELETE", "/workers/w1")
        assert (status, json.loads(raw)["error"]["type"]) == (404, "WORKER_NOT_FOUND")


def test_the_older_pair_of_routes(pdctl):
    """vllm-router's texts; adding waits for a good health check."""
    with FakeEngine(ok) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"w0={one.url}")
        assert router.admin("POST", f"/add_worker?url={quoted(two.url)}")[::2] == (200, f"Successfully added worker: {two.url}".encode())
        assert listed(router)[two.url]["state"] == "available"
        status, _, raw = router.admin("POST", f"/add_worker?url={two.url}")
        assert status == 400 and b"exists" in raw
        assert router.admin("POST", f"/remove_worker?url={two.url}")[::2] == (200, f"Successfully removed worker: {two.url}".encode())
        wait_for("it to go", lambda: list(listed(router)) == ["w0"])
        assert router.admin("POST", f"/remove_worker?url={two.url}")[0] == 404
        for path in ("/add_worker", "/add_worker?url=", "/add_worker?uri=x", "/remove_worker", "/add_worker?url=ftp://x", "/add_worker?url=http://x:1&worker_type=decode"):
            assert router.admin("POST", path)[0] == 400, path
        assert router.admin("GET", f"/add_worker?url={two.url}")[0] == 405


def test_a_worker_that_never_gets_well_is_taken_back(pdctl):
    """Until then it is listed as starting and gets no request; a refused addition leaves nothing behind."""
    sick = threading.Event()

    class Loading(FakeEngine):
        def _answer(self, seen, wire):
            if seen.target == "/health" and not sick.is_set():
                self.probes.append(seen)
                return wire.json({}, 503)
            return super()._answer(seen, wire)

    with FakeEngine(ok) as one, Loading(ok) as slow:
        router = plain(pdctl, f"w0={one.url}", flags=("--worker-startup-timeout-secs", 1.5))
        dead = f"http://127.0.0.1:{free_port()}"
        for url, why in ((dead, b"removed again: Failed to connect"), (slow.url, b"removed again: health check answered 503")):
            began = time.monotonic()
            status, _, raw = router.admin("POST", f"/add_worker?url={url}")
            assert status == 400 and b"not healthy within 1.5 s" in raw and time.monotonic() - began >= 1.4
            assert why in raw
            wait_for("it to be taken back", lambda: list(listed(router)) == ["w0"])
        status, _, raw = router.admin("POST", "/workers?wait=true", {"url": dead})
        assert (status, json.loads(raw)["error"]["type"]) == (504, "ADD_WORKER_FAILED")
        # without waiting it stays, and comes in when it is well
        status, headers, raw = router.admin("POST", "/workers", {"url": slow.url, "name": "slow"})
        assert status == 202 and json.loads(raw)["worker"]["state"] == "starting"
        assert {router.post("/v1/completions", BODY)[1]["X-Worker"] for _ in range(6)} == {one.url}
        assert not slow.seen
        wait_for("the reason", lambda: listed(router)["slow"]["last_failure"] == "health check answered 503")
        sick.set()
        wait_for("it to come in", lambda: listed(router)["slow"]["state"] == "available", timeout=5)
        assert listed(router)["slow"]["out_because"] is None
        wait_for("a line for each addition", lambda: router.log().count(f"worker {slow.url}: not healthy yet: health check answered 503") == 2)
        assert slow.url in {router.post("/v1/completions", BODY)[1]["X-Worker"] for _ in range(6)}


@pytest.mark.parametrize(
    "body, says",
    [
        (b"", "expected JSON like"),
        (b"{", "expected JSON like"),
        (b"[]", "expected JSON like"),
        ({}, "url: found none"),
        ({"url": 7}, "url: found 7, expected a string"),
        ({"url": "ftp://x"}, "unknown scheme"),
        ({"url": "http://x:1", "worker_type": "decode"}, "expected regular"),
        ({"url": "http://x:1", "worker_type": "Decode"}, "expected regular, prefill or decode"),
        ({"url": "http://x:1", "bootstrap_port": "8998"}, "bootstrap_port: found"),
        ({"url": "http://x:1", "bootstrap_port": 70000}, "bootstrap_port: found 70000"),
        ({"url": "http://127.0.0.1:1", "nmae": "x"}, "unknown member 'nmae', did you mean 'name'?"),
        ({"url": "http://127.0.0.1:1", "name": "a=b"}, "name: found 'a=b'"),
        ({"url": "http://127.0.0.1:1", "name": "a\nb"}, "control characters"),
        ({"url": "http://127.0.0.1:1\u0000", "name": "a"}, "control characters"),
        ({"url": "http://" + "x" * 2000}, "too long"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_bad_additions_say_what_was_expected(pdctl, body, says):
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}")
        status, _, raw = router.admin("POST", "/workers", body)
        error = json.loads(raw)["error"]
        assert status == 400 and error["type"] == "ADD_WORKER_FAILED" and says in error["message"], (status, error)
        assert list(listed(router)) == ["w0"]


def test_taken_names_and_roles_of_the_other_mode(pdctl):
    router, ps, ds = fleet(pdctl, prefill=1, decode=1)
    for body, status, says in (
        ({"url": ds[0].url, "worker_type": "decode"}, 409, "exists"),
        ({"url": "http://127.0.0.1:1", "worker_type": "decode", "name": "d0"}, 409, "exists"),
        ({"url": "http://127.0.0.1:1"}, 400, "expected prefill or decode"),
        ({"url": "http://127.0.0.1:1", "worker_type": "regular"}, 400, "expected prefill or decode"),
    ):
        got, _, raw = router.admin("POST", "/workers", body)
        assert (got, says in json.loads(raw)["error"]["message"]) == (status, True), raw
    w = add(router, f"http://127.0.0.1:{free_port()}", "prefill", wait=False, bootstrap_port=8998, model_id="m", priority=3, cost=1.5, labels={"a": "b"})
    assert (w["bootstrap_port"], w["worker_type"], w["state"]) == (8998, "prefill", "starting")


def test_one_url_may_serve_both_roles(pdctl):
    """A worker is its role and its name or URL: an answer is about the one that was meant, an id without a role means both."""
    with FakeEngine(ok) as both, FakeEngine(ok) as other:
        router = pdctl("serve", "--pd-disaggregation", "--prefill", both.url, "--decode", other.url, *FAST)
        # three ways to add it, the last of them waits; none is about the prefill worker that is there
        added = add(router, both.url, "decode", wait=False)
        assert (added["worker_type"], added["url"]) == ("decode", both.url)
        wait_for("its first health check", lambda: all(w["is_healthy"] for w in json.loads(router.admin("GET", f"/workers/{quoted(both.url)}")[2])["workers"]))
        assert router.admin("DELETE", f"/workers/{quoted(both.url)}?worker_type=decode")[0] == 200
        assert [w["worker_type"] for w in listed(router).values()] == ["prefill", "decode"]
        assert json.loads(router.admin("GET", f"/workers/{quoted(both.url)}")[2])["worker_type"] == "prefill"
        assert add(router, both.url, "decode")["worker_type"] == "decode"
        assert router.admin("POST", f"/remove_worker?url={both.url}&worker_type=decode")[0] == 200
        wait_for("it to be gone", lambda: len(json.loads(router.admin("GET", "/workers")[2])["workers"]) == 2)
        status, _, raw = router.admin("POST", f"/add_worker?url={both.url}&worker_type=decode")
        assert (status, raw) == (200, f"Successfully added worker: {both.url}".encode())
        # what is taken is taken, in its role
        status, _, raw = router.admin("POST", "/workers", {"url": both.url, "worker_type": "decode"})
        assert (status, json.loads(raw)["error"]["type"]) == (409, "WORKER_EXISTS") and b"decode worker" in raw
        # without a role both are meant
        router.admin("POST", f"/workers/{quoted(both.url)}/drain")
        states = [(w["worker_type"], w["state"]) for w in json.loads(router.admin("GET", f"/workers/{quoted(both.url)}")[2])["workers"]]
        assert states == [("prefill", "draining"), ("decode", "draining")]
        router.admin("POST", f"/workers/{quoted(both.url)}/undrain?worker_type=prefill")
        states = [(w["worker_type"], w["state"]) for w in json.loads(router.admin("GET", f"/workers/{quoted(both.url)}")[2])["workers"]]
        assert states == [("prefill", "available"), ("decode", "draining")]
        assert router.admin("DELETE", f"/workers/{quoted(both.url)}")[0] == 200
        assert list(listed(router)) == [other.url]
        status, _, raw = router.admin("DELETE", f"/workers/{quoted(other.url)}?worker_type=prefill")
        assert (status, json.loads(raw)["error"]["type"]) == (404, "WORKER_NOT_FOUND") and b"prefill" in raw
        status, _, raw = router.admin("DELETE", f"/workers/{quoted(other.url)}?worker_type=fast")
        assert status == 400 and b"worker_type: found 'fast', expected regular, prefill or decode" in raw
        assert list(listed(router)) == [other.url]


def test_a_worker_of_both_roles_that_never_gets_well_is_taken_back_in_its_role(pdctl):
    dead = f"http://127.0.0.1:{free_port()}"
    with FakeEngine(ok) as other:
        router = pdctl("serve", "--pd-disaggregation", "--prefill", dead, "--decode", other.url, *FAST, "--worker-startup-timeout-secs", 1)
        status, _, raw = router.admin("POST", "/workers?wait=true", {"url": dead, "worker_type": "decode"})
        assert status == 504 and b"removed again" in raw
        wait_for("it to be taken back", lambda: [w["worker_type"] for w in json.loads(router.admin("GET", "/workers")[2])["workers"]] == ["prefill", "decode"])
        assert listed(router)[dead]["worker_type"] == "prefill"


def test_ranks_of_a_server_come_and_go_together(pdctl):
    with FakeEngine(ok) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"w0={one.url}", flags=("--intra-node-data-parallel-size", 2))
        status, _, raw = router.admin("POST", "/workers?wait=true", {"url": two.url, "name": "w1"})
        assert status == 201 and [w["name"] for w in json.loads(raw)["workers"]] == ["w1@0", "w1@1"]
        assert sorted(listed(router)) == ["w0@0", "w0@1", "w1@0", "w1@1"]
        assert [w["state"] for w in json.loads(router.admin("POST", "/workers/w1/drain")[2])["workers"]] == ["draining"] * 2
        assert json.loads(router.admin("POST", f"/workers/{two.url}@1/undrain")[2])["state"] == "available"
        assert router.admin("POST", f"/remove_worker?url={two.url}")[0] == 200
        wait_for("both ranks to go", lambda: sorted(listed(router)) == ["w0@0", "w0@1"])


# -- leaving --


def hold_one(router, engine_release):
    s = socket.create_connection(("127.0.0.1", router.port), timeout=30)
    data = json.dumps(BODY).encode()
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    return s


def test_removal_waits_for_what_runs(pdctl):
    release, hits = threading.Event(), []

    def holds(seen, wire):
        hits.append(1)
        release.wait(30)
        ok(seen, wire)

    with FakeEngine(holds) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"w0={one.url}")
        s = hold_one(router, release)
        wait_for("the request to arrive", lambda: hits)
        add(router, two.url, name="w1")
        status, _, raw = router.admin("DELETE", "/workers/w0")
        assert status == 202 and "its 1 in flight" in json.loads(raw)["message"]
        assert listed(router)["w0"]["state"] == "removing"
        assert {router.post("/v1/completions", BODY)[1]["X-Worker"] for _ in range(4)} == {two.url}
        # undrain takes the removal back; then it is removed again
        assert json.loads(router.admin("POST", "/workers/w0/undrain")[2])["state"] == "available"
        assert router.admin("DELETE", "/workers/w0")[0] == 202
        time.sleep(0.3)
        assert "w0" in listed(router)
        release.set()
        assert s.recv(100).startswith(b"HTTP/1.1 200")
        wait_for("it to go", lambda: list(listed(router)) == ["w1"])
        s.close()


def test_force_takes_it_off_the_list_and_its_stream_still_ends_well(pdctl):
    release, hits = threading.Event(), []

    def holds(seen, wire):
        hits.append(1)
        release.wait(30)
        ok(seen, wire)

    with FakeEngine(holds) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"w0={one.url}")
        s = hold_one(router, release)
        wait_for("the request to arrive", lambda: hits)
        add(router, two.url, name="w1")
        assert router.admin("DELETE", "/workers/w0?force=true")[0] == 200
        assert list(listed(router)) == ["w1"]
        release.set()
        assert s.recv(100).startswith(b"HTTP/1.1 200")
        s.close()


def test_the_last_worker_may_go_and_come_back(pdctl):
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}")
        assert router.admin("DELETE", "/workers/w0")[0] == 200
        assert router.post("/v1/completions", BODY)[0] == 503
        assert router.get("/readiness")[0] == 503
        add(router, one.url)
        assert router.post("/v1/completions", BODY)[0] == 200


def test_a_prefill_worker_is_needed_until_its_blocks_were_read(pdctl):
    """Its request has ended, but decode has not fetched the blocks: it must not go yet."""
    release, hits = threading.Event(), []

    def decodes(seen, wire):
        hits.append(seen)
        release.wait(30)
        ok(seen, wire)

    p = pdctl.worker("--role", "prefill", "--strict", "--speedup", 100)
    with FakeEngine(decodes) as d:
        router = pdctl("serve", "--pd-disaggregation", "--prefill", f"p0={p.url}", "--decode", f"d0={d.url}", *FAST)
        s = hold_one(router, release)
        wait_for("decode to be asked", lambda: hits)
        assert (listed(router)["p0"]["load"], listed(router)["p0"]["handovers"]) == (0, 1)
        status, _, raw = router.admin("DELETE", "/workers/p0")
        assert status == 202
        time.sleep(0.3)
        assert listed(router)["p0"]["state"] == "removing"
        release.set()
        assert s.recv(100).startswith(b"HTTP/1.1 200")
        wait_for("it to go", lambda: list(listed(router)) == ["d0"])
        s.close()


# -- together with the workers file --


def test_a_reload_keeps_workers_added_by_hand(pdctl, tmp_path):
    path = tmp_path / "workers.yaml"
    with FakeEngine(ok) as one, FakeEngine(ok) as two, FakeEngine(ok) as three:
        path.write_text(f"policy: round_robin\nworkers: [a={one.url}, b={two.url}]\n")
        router = pdctl("serve", "--workers-file", path, *FAST)
        add(router, three.url, name="c")
        assert router.admin("DELETE", "/workers/b")[0] == 200
        assert sorted(listed(router)) == ["a", "c"]
        # The file is the truth about what it lists: what was removed by hand is back.
        assert router.admin("POST", "/reload")[0] == 200
        assert {n: w["source"] for n, w in listed(router).items()} == {"a": "configured", "b": "configured", "c": "added"}
        # A worker that the file lists belongs to the file from then on.
        path.write_text(f"policy: round_robin\nworkers: [a={one.url}, c={three.url}]\n")
        assert router.admin("POST", "/reload")[0] == 200
        assert {n: w["source"] for n, w in listed(router).items()} == {"a": "configured", "c": "configured"}
        path.write_text(f"policy: round_robin\nworkers: [a={one.url}]\n")
        assert router.admin("POST", "/reload")[0] == 200
        assert sorted(listed(router)) == ["a"]


def test_many_changes_at_once(pdctl):
    """Each is done or refused with a reason, none is lost, and the list is what was asked for."""
    engines = [FakeEngine(ok) for _ in range(12)]
    router = plain(pdctl, f"base={engines[0].url}")
    results = []

    def change(i):
        for turn in range(5):
            status = router.admin("POST", "/workers", {"url": engines[i].url, "name": f"w{i}"})[0]
            results.append(status)
            if turn < 4:
                assert router.admin("DELETE", f"/workers/w{i}?force=true")[0] == 200

    threads = [threading.Thread(target=change, args=(i,)) for i in range(1, 12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 55 and set(results) <= {201, 202}
    assert sorted(listed(router)) == sorted(["base", *(f"w{i}" for i in range(1, 12))])
    for e in engines:
        e.close()


# -- traffic --


def test_no_request_fails_while_workers_of_both_roles_come_and_go(pdctl):
    router, ps, ds = fleet(pdctl, "--retry-max-retries", 1, "--pd-fallback", "fail")
    spare = {"prefill": [pdctl.worker("--role", "prefill", "--strict", "--speedup", 100) for _ in range(2)],
             "decode": [pdctl.worker("--role", "decode", "--strict", "--speedup", 100) for _ in range(2)]}
    stop, failures, served = threading.Event(), [], itertools.count()

    def client(i):
        n = 0
        while not stop.is_set():
            n += 1
            status, _, raw = router.post("/v1/completions", {**BODY, "prompt": f"client {i} turn {n} " * 8, "stream": True, "max_tokens": 12}, {"X-Session-Id": f"s{i}"})
            next(served)
            if status != 200 or not raw.endswith(b"data: [DONE]\n\n") or b'"error"' in raw:
                failures.append((status, raw[-400:]))

    clients = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for t in clients:
        t.start()
    try:
        for turn in range(4):
            for role in ("prefill", "decode"):
                fresh = spare[role][turn % 2]
                name = f"{role}-{turn}"
                add(router, fresh.url, role, name)
                for old in ("p0", "p1") if role == "prefill" else ("d0", "d1"):
                    assert router.admin("POST", f"/workers/{old}/drain")[0] == 200
                time.sleep(0.3)
                for old in ("p0", "p1") if role == "prefill" else ("d0", "d1"):
                    assert router.admin("POST", f"/workers/{old}/undrain")[0] == 200
                assert router.admin("DELETE", f"/workers/{name}")[0] in (200, 202)
                wait_for(f"{name} to go", lambda n=name: n not in listed(router))
                assert fresh.metric("pdctl_worker_running") == 0, "it went while it was needed"
    finally:
        stop.set()
        for t in clients:
            t.join()
    assert failures == []
    assert next(served) > 50
    everyone = ps + ds + spare["prefill"] + spare["decode"]
    assert mistakes(everyone) == {}
    assert all(w.metric("pdctl_worker_kv_leases") == 0 for w in spare["prefill"]), "blocks that nobody fetched"
    assert any(w.metric("vllm:request_success_total") > 0 for w in spare["decode"])
    idle(router, everyone)


def reader_of(path):
    """The writing end of the pipe once somebody reads it, else None."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        assert error.errno == errno.ENXIO
        return None


def test_a_reload_that_blocks_holds_nobody_up(pdctl, tmp_path):
    """The file is a pipe that nobody writes to yet: pages, requests and drains go on; a client that gives up leaves the change to its end."""
    path = tmp_path / "workers.yaml"
    with FakeEngine(ok) as one, FakeEngine(ok) as two:
        text = f"policy: round_robin\nworkers: [a={one.url}, b={two.url}]\n"
        path.write_text(f"workers: [a={one.url}]\n")
        router = pdctl("serve", "--workers-file", path, *FAST)
        path.unlink()
        os.mkfifo(path)
        results = []
        t = threading.Thread(target=lambda: results.append(router.admin("POST", "/reload")))
        t.start()
        pipe = wait_for("the file to be opened", lambda: reader_of(path))
        gives_up = socket.create_connection(("127.0.0.1", int(router.admin_url.rsplit(":", 1)[1])))
        gives_up.sendall(b"POST /workers HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data := json.dumps({"url": "http://127.0.0.1:1", "name": "late"}).encode()) + data)
        for _ in range(10):
            assert list(listed(router)) == ["a"]
            assert router.post("/v1/completions", BODY)[0] == 200
            assert router.admin("POST", "/workers/a/drain")[0] == 200
            assert router.admin("POST", "/workers/a/undrain")[0] == 200
            assert router.admin("GET", "/metrics")[0] == 200
        gives_up.close()
        assert not results
        os.write(pipe, text.encode())
        os.close(pipe)
        t.join(20)
        assert results[0][0] == 200
        wait_for("the second change", lambda: sorted(listed(router)) == ["a", "b", "late"])


@pytest.mark.parametrize("how", ["request", "signal"])
def test_a_reload_that_blocks_does_not_hold_up_the_end(pdctl, tmp_path, how):
    path = tmp_path / "workers.yaml"
    with FakeEngine(ok) as one:
        path.write_text(f"workers: [a={one.url}]\n")
        router = pdctl("serve", "--workers-file", path, *FAST)
        path.unlink()
        os.mkfifo(path)
        with socket.create_connection(("127.0.0.1", int(router.admin_url.rsplit(":", 1)[1]))) as s:
            if how == "request":
                s.sendall(b"POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            else:
                router.signal(signal.SIGHUP)
            pipe = wait_for("the file to be opened", lambda: reader_of(path))
            began = time.monotonic()
            router.signal(signal.SIGTERM)
            assert router.wait(15) == 0 and time.monotonic() - began < 10
        os.close(pipe)
        router.said("a name look-up or a file read did not end")


def test_changes_leave_nothing_behind(pdctl):
    """Descriptors after 200 workers that came, were used and went."""
    with FakeEngine(ok) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"w0={one.url}")

        def descriptors():
            return len(os.listdir(f"/proc/{router.proc.pid}/fd"))

        def cycle():
            add(router, two.url, name="w1")
            for _ in range(2):
                assert router.post("/v1/completions", BODY)[0] == 200
            assert router.admin("DELETE", "/workers/w1")[0] == 200

        for _ in range(5):
            cycle()
        before = descriptors()
        for _ in range(200):
            cycle()
        wait_for("descriptors", lambda: descriptors() <= before + 4)
