"""The admin port: it answers under overload, changes of the fleet are its business only, questions go to all workers."""

import json
import re
import socket
import threading
import time

import pytest

from certs import Authority
from fake_engine import FakeEngine
from harness import free_port, parse_metrics, request, wait_for
from test_admin_workers import BODY, add, listed, ok, plain, quoted
from test_pd_faults import FAST, fleet, mistakes


# -- overload --


def test_it_answers_when_the_data_port_is_full(pdctl):
    """Gate full, queue full, all connections taken: the operator still sees and changes everything."""
    release = threading.Event()
    hits = []

    def holds(seen, wire):
        hits.append(1)
        release.wait(60)
        ok(seen, wire)

    with FakeEngine(holds) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"w0={one.url}", flags=("--max-concurrent-requests", 2, "--queue-size", 2, "--max-connections", 8))
        data = json.dumps(BODY).encode()
        socks = []
        for _ in range(4):
            s = socket.create_connection(("127.0.0.1", router.port), timeout=30)
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
            socks.append(s)
        wait_for("two in work", lambda: len(hits) == 2)
        wait_for("two waiting", lambda: parse_metrics(router.admin("GET", "/metrics")[2].decode())["pdctl_requests_waiting"] == 2)
        assert router.post("/v1/completions", BODY)[0] == 429
        socks += [socket.create_connection(("127.0.0.1", router.port), timeout=30) for _ in range(20)]
        wait_for("connections to be refused", lambda: parse_metrics(router.admin("GET", "/metrics")[2].decode())["pdctl_connections_refused_total"] > 0)
        for _ in range(3):
            assert router.admin("GET", "/readiness")[0] == 200
            assert router.admin("GET", "/liveness")[0] == 200
            assert listed(router)["w0"]["load"] == 2
            add(router, two.url, name="w1")
            assert router.admin("POST", "/workers/w1/drain")[0] == 200
            assert router.admin("DELETE", "/workers/w1")[0] == 200
        release.set()
        for s in socks[:4]:
            assert s.recv(100).startswith(b"HTTP/1.1 200")
        for s in socks:
            s.close()


def test_its_own_connections_do_not_count_on_the_data_port(pdctl):
    with FakeEngine(ok) as one:
        router = plain(pdctl, one.url, flags=("--max-connections", 4))
        port = int(router.admin_url.rsplit(":", 1)[1])
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        for _ in range(8):
            assert router.post("/v1/completions", BODY)[0] == 200
        assert router.admin("GET", "/readiness")[0] == 200
        for s in held:
            s.close()


# -- who may change what, and where --

ACTIONS = [
    ("POST", "/reload"),
    ("POST", "/workers"),
    ("POST", "/workers/w0/drain"),
    ("POST", "/workers/w0/undrain"),
    ("DELETE", "/workers/w0"),
    ("POST", "/add_worker?url=http://127.0.0.1:1"),
    ("POST", "/remove_worker?url=w0"),
    ("POST", "/flush_cache"),
]
READS = ["/health", "/liveness", "/readiness", "/metrics", "/workers", "/workers/w0", "/list_workers", "/get_loads", "/v1/models"]


def test_the_data_port_refuses_changes_and_shows_the_rest(pdctl):
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}")
        for method, path in ACTIONS:
            status, _, raw = router.request(method, path)
            error = json.loads(raw)["error"]
            assert (status, error["type"]) == (403, "permission_error") and "--admin-port" in error["message"], (path, raw)
        assert not one.seen, "nothing went on to a worker"
        assert listed(router)["w0"]["state"] == "available"
        for path in READS:
            assert router.get(path)[0] == 200, path
            assert router.admin("GET", path)[0] == 200, path
        assert router.metric("pdctl_admin_refused_total") == len(ACTIONS)


def ask_all(router, ask):
    """Everything that the routes about workers say, in one text."""
    return "\n".join(ask(path)[2].decode() for path in ("/workers", "/workers/named", "/workers/regular", "/list_workers", "/get_loads", "/health", "/readiness", "/get_server_info"))


@pytest.mark.parametrize("flags, seen", [((), False), (("--expose-workers",), True), (("--admin-on-data-port",), True), (("--compat", "vllm-router"), True)],
                         ids=["default", "exposed", "admin", "compat"])
def test_clients_do_not_learn_where_workers_are(pdctl, flags, seen):
    """Lists, states, last failures and errors name workers; the admin port has their addresses."""
    ports = [free_port(), free_port()]
    router = pdctl("serve", "--worker-urls", f"named=http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", *flags)
    router.post("/v1/completions", BODY)
    wait_for("both to be out", lambda: [w["state"] for w in json.loads(router.admin("GET", "/workers")[2])["workers"]] == ["ejected"] * 2)
    text = ask_all(router, router.get)
    assert [f"127.0.0.1:{p}" in text for p in ports] == [seen, seen], text
    assert seen or not any(str(p) in text for p in ports), text
    lists = [json.loads(router.get(p)[2]) for p in ("/workers", "/list_workers", "/get_loads")]
    if not seen:
        assert [(w["name"], w["url"], w["address"]) for w in lists[0]["workers"]] == [("named", None, None), ("regular 2", None, None)]
        assert lists[1] == {"urls": ["named", "regular 2"]} and [w["worker"] for w in lists[2]["workers"]] == ["named", "regular 2"]
        assert all(w["last_failure"] for w in lists[0]["workers"]) and b"named (ejected), regular 2 (ejected)" in router.get("/health")[2]
    admin = ask_all(router, lambda path: router.admin("GET", path))
    assert all(f"127.0.0.1:{p}" in admin for p in ports)
    scrape = pdctl("serve", "--worker-urls", f"http://127.0.0.1:{ports[0]}", "--metrics-port", 0)
    wait_for("it to be out", lambda: json.loads(scrape.admin("GET", "/workers")[2])["workers"][0]["state"] == "ejected" or scrape.post("/v1/completions", BODY) is None)
    url = re.search(r"metrics and probes on (http://\S+)", scrape.said("metrics and probes on http")).group(1)
    assert b"regular 1 (ejected)" in request(url, "GET", "/health")[2]


def test_changes_on_the_data_port_when_asked_for(pdctl):
    with FakeEngine(ok) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"w0={one.url}", flags=("--admin-on-data-port",))
        assert router.request("POST", f"/add_worker?url={quoted(two.url)}")[0] == 200
        assert router.request("POST", "/workers/w0/drain")[0] == 200
        assert router.request("DELETE", "/workers/w0")[0] == 200
        assert list(listed(router)) == [two.url]


def test_without_an_admin_port_the_refusal_says_so(pdctl):
    with FakeEngine(ok) as one:
        router = pdctl("serve", "--worker-urls", one.url, "--admin-port", -1)
        message = json.loads(router.request("POST", "/reload")[2])["error"]["message"]
        assert "this router has none" in message


def test_web_pages_may_not_change_the_fleet(pdctl):
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}")
        for method, path in ACTIONS:
            assert router.admin(method, path, headers={"Origin": "http://evil.example"})[0] == 403, path
        assert listed(router)["w0"]["state"] == "available"
        assert router.admin("GET", "/workers", headers={"Origin": "http://x"})[0] == 200


def test_a_misspelt_change_is_no_success(pdctl):
    """Any GET of the admin port shows the metrics, as vllm-router's port does; a POST to no route must not."""
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}")
        assert b"# HELP" in router.admin("GET", "/anything")[2]
        for method, path in (("POST", "/worker/w0/drain"), ("DELETE", "/worker/w0"), ("POST", "/"), ("PUT", "/metric")):
            assert router.admin(method, path)[0] == 404, path


# -- questions to all workers --


def flushing(status, log, delay=0):
    def handler(seen, wire):
        log.append((seen.method, seen.target))
        if seen.target == "/reset_prefix_cache":
            time.sleep(delay)
            return wire.reply(status, b"")
        return wire.json({}, 404)

    return handler


def test_flush_cache_of_a_plain_pool(pdctl):
    logs = [[], []]
    with FakeEngine(flushing(200, logs[0])) as one, FakeEngine(flushing(200, logs[1])) as two:
        router = plain(pdctl, one.url, two.url)
        assert router.admin("POST", "/flush_cache")[::2] == (200, b"Cache flushed on all servers")
        assert logs == [[("POST", "/reset_prefix_cache")]] * 2
        add(router, f"http://127.0.0.1:{free_port()}", wait=False)
        status, _, raw = router.admin("POST", "/flush_cache")
        assert status == 500 and raw.startswith(b"Cache flush failed on one or more servers") and b"error: Failed to connect" in raw


def test_flush_cache_knows_the_older_path(pdctl):
    paths = []

    def older(seen, wire):
        paths.append(seen.target)
        wire.reply(200 if seen.target == "/flush_cache" else 404, b"")

    with FakeEngine(older) as one:
        router = plain(pdctl, one.url)
        assert router.admin("POST", "/flush_cache")[0] == 200
        assert paths == ["/reset_prefix_cache", "/flush_cache"]


def test_flush_cache_of_pools(pdctl):
    router, ps, ds = fleet(pdctl, prefill=1, decode=1)
    status, _, raw = router.admin("POST", "/flush_cache")
    assert status == 200 and raw == f'Cache flushed successfully: ["Prefill {ps[0].url}: flushed", "Decode {ds[0].url}: flushed"]'.encode()
    with FakeEngine(flushing(500, [])) as bad:
        add(router, bad.url, "decode")
        status, _, raw = router.admin("POST", "/flush_cache")
        assert status == 206 and raw.startswith(b"Partial success. Results: [") and f'Errors: ["Decode {bad.url} failed: 500"]'.encode() in raw
        for w in ("p0", "d0"):
            assert router.admin("DELETE", f"/workers/{w}")[0] == 200
        assert router.admin("POST", "/flush_cache")[0] == 502


def test_a_server_with_ranks_is_asked_once(pdctl):
    log = []
    with FakeEngine(flushing(200, log)) as one:
        router = plain(pdctl, one.url, flags=("--intra-node-data-parallel-size", 4))
        assert router.admin("POST", "/flush_cache")[0] == 200
        assert len(log) == 1


def test_hung_workers_are_asked_at_once_and_hold_nobody_up(pdctl):
    """Eight workers that do not answer: one deadline in all, and other questions pass meanwhile."""
    hung = [FakeEngine(flushing(200, [], delay=30)) for _ in range(8)]
    with FakeEngine(flushing(200, [])) as good:
        router = plain(pdctl, *[e.url for e in hung], good.url)
        results = []
        began = time.monotonic()
        t = threading.Thread(target=lambda: results.append(router.admin("POST", "/flush_cache")))
        t.start()
        time.sleep(0.3)
        for e in hung:
            assert router.admin("POST", f"/remove_worker?url={e.url}")[0] == 200
        assert add(router, f"http://127.0.0.1:{free_port()}", wait=False)
        assert not results, "the others still wait for their deadline of 10 s"
        t.join()
        assert 9 < time.monotonic() - began < 60, "one after the other it would be 80 s"
        assert results[0][0] == 500 and results[0][2].count(b"timed out") == 8 and b"flushed" in results[0][2]
    for e in hung:
        e.close()


def test_a_client_that_does_not_wait_ends_the_question(pdctl):
    """The transfers are cut, and the place is free again."""
    log = []
    with FakeEngine(flushing(200, log, delay=5)) as one:
        router = plain(pdctl, one.url)
        port = int(router.admin_url.rsplit(":", 1)[1])
        for _ in range(40):
            n = len(log)
            s = socket.create_connection(("127.0.0.1", port))
            s.sendall(b"POST /flush_cache HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            wait_for("the worker to be asked", lambda n=n: len(log) > n)
            s.close()
        assert router.admin("GET", "/get_server_info")[0] == 404


def test_server_and_model_info(pdctl):
    def info(seen, wire):
        if seen.target in ("/get_server_info", "/get_model_info"):
            return wire.json({"from": seen.target})
        return wire.json({}, 404)

    with FakeEngine(info) as one:
        router = plain(pdctl, f"http://127.0.0.1:{free_port()}", one.url)
        wait_for("the dead one to be out", lambda: not listed(router)[list(listed(router))[0]]["is_healthy"])
        for path in ("/get_server_info", "/get_model_info"):
            for ask in (router.get, lambda p: router.admin("GET", p)):
                status, headers, raw = ask(path)
                assert (status, json.loads(raw), headers["X-Worker"]) == (200, {"from": path}, one.url)
    router, ps, _ = fleet(pdctl, prefill=1, decode=1)
    status, headers, raw = router.get("/get_server_info")
    assert status == 200 and "version" in json.loads(raw) and headers["X-Worker"] == ps[0].url
    assert json.loads(router.get("/get_model_info")[2])["data"][0]["id"] == "m"


def test_finish_session(pdctl):
    with FakeEngine(ok) as one:
        router = plain(pdctl, one.url)
        assert json.loads(router.post("/finish_session?session_id=a%22b", None)[2]) == {"status": "ok", "session_id": 'a"b'}
        assert router.post("/finish_session", None)[0] == 400
        assert not one.seen


# -- one real generation --


def test_health_generate_of_a_plain_pool(pdctl):
    state = {"status": 200}

    def generates(seen, wire):
        if state["status"] != 200:
            return wire.json({"error": "broken"}, state["status"])
        return ok(seen, wire)

    with FakeEngine(generates) as one:
        router = plain(pdctl, one.url, flags=("--retry-max-retries", 1))
        for ask in (router.get, lambda p: router.admin("GET", p)):
            status, headers, raw = ask("/health_generate")
            assert status == 200 and headers["X-Worker"] == one.url and json.loads(raw)["choices"]
            sent = one.seen[-1]
            assert (sent.method, sent.target, sent.json()["max_tokens"], sent.header("content-type")) == ("POST", "/v1/completions", 1, "application/json")
        state["status"] = 500
        assert router.get("/health_generate")[0] == 500
        assert router.post("/health_generate", {"x": 1})[0] == 405


def test_health_generate_of_a_pair_and_the_connection_after_it(pdctl):
    """Through both legs, and the requests behind it on the same connection are read from where they begin."""
    router, ps, ds = fleet(pdctl, prefill=1, decode=1)
    status, headers, _ = router.get("/health_generate")
    assert (status, headers["X-Prefill-Worker"], headers["X-Decode-Worker"]) == (200, ps[0].url, ds[0].url)
    one = b"GET /health_generate HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", router.port), timeout=30) as s:
        s.sendall(one + one + b"GET /liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = b""
        while piece := s.recv(65536):
            got += piece
    assert got.count(b"HTTP/1.1 200 ") == 3 and got.endswith(b"OK")
    assert mistakes(ps + ds) == {}


def test_health_generate_takes_a_place_at_the_gate(pdctl):
    """It costs a worker's time like a request, so that it cannot be used to get around the limit."""
    release, hits = threading.Event(), []

    def holds(seen, wire):
        hits.append(1)
        release.wait(30)
        ok(seen, wire)

    with FakeEngine(holds) as one:
        router = plain(pdctl, one.url, flags=("--max-concurrent-requests", 1, "--queue-size", 0))
        t = threading.Thread(target=lambda: router.post("/v1/completions", BODY))
        t.start()
        wait_for("the place to be taken", lambda: hits)
        assert router.get("/health_generate")[0] == 429
        release.set()
        t.join()
        assert router.get("/health_generate")[0] == 200


@pytest.mark.parametrize("name", ["--admin-port", "--prometheus-port"])
def test_both_names_of_the_option(pdctl, name):
    port = free_port()
    with FakeEngine(ok) as one:
        router = pdctl("serve", "--worker-urls", one.url, name, port, *FAST)
        assert router.admin_url == f"http://127.0.0.1:{port}"
        assert router.admin("GET", "/readiness")[0] == 200


def test_an_https_worker_that_wants_a_key_is_added_and_asked(pdctl, tmp_path):
    """Probes and questions verify its certificate and carry the router's own key, as requests do; one with a foreign certificate never comes in."""
    ca, other = Authority(tmp_path, "Test CA"), Authority(tmp_path, "Other CA")
    seen = []

    def flushes(request, wire):
        seen.append((request.target, request.header("authorization")))
        wire.reply(200, b"")

    local = "DNS:localhost,IP:127.0.0.1"
    with FakeEngine(ok) as one, FakeEngine(flushes, tls=ca.issue("a", local).server()) as safe, FakeEngine(ok, tls=other.issue("b", local).server()) as foreign:
        router = plain(pdctl, one.url, flags=("--worker-ca", ca.cert, "--api-key", "secret", "--worker-startup-timeout-secs", 2))
        assert safe.url.startswith("https://")
        assert add(router, safe.url)["state"] == "available"
        status, _, raw = router.admin("POST", "/flush_cache")
        assert status == 500 and f"{safe.url}: flushed".encode() in raw
        assert seen == [("/reset_prefix_cache", "Bearer secret")]
        status, _, raw = router.admin("POST", f"/add_worker?url={foreign.url}")
        assert status == 400 and b"not healthy within" in raw and b"certificate" in raw
