"""Workers that hang, come back and move: what the router does with the requests that they have, and when they get new ones."""

import json
import signal
import threading
import time

import pytest
from fake_engine import FakeEngine
from harness import free_port, wait_for

BODY = {"model": "m", "prompt": "hello", "max_tokens": 2}
# The times that are promised are 10 s, 12 s and 2 s. A machine that does other things as well gets some more.
SLACK = 4


def listed(router):
    return {w["name"]: w for w in json.loads(router.admin("GET", "/workers")[2])["workers"]}


def state(router, name):
    return listed(router)[name]["state"]


class Clients:
    """So many requests a second, each on a connection and a thread of its own: (begin, seconds, status, worker)."""

    def __init__(self, router, per_second, body=None):
        self.router, self.pause, self.body = router, 1 / per_second, body or BODY
        self.done, self.threads, self.ended = [], [], False
        self.driver = threading.Thread(target=self._drive)

    def _one(self, nth):
        begun = time.monotonic()
        try:
            status, headers, _ = self.router.post("/v1/completions", {**self.body, "user": f"u{nth}"})
            worker = headers.get("X-Worker")
        except OSError as error:
            status, worker = repr(error), None
        self.done.append((begun, time.monotonic() - begun, status, worker))

    def _drive(self):
        nth = 0
        while not self.ended:
            thread = threading.Thread(target=self._one, args=(nth,))
            thread.start()
            self.threads.append(thread)
            nth += 1
            time.sleep(self.pause)

    def __enter__(self):
        self.driver.start()
        return self

    def __exit__(self, *exc):
        self.end()

    def end(self):
        self.ended = True
        self.driver.join()
        for thread in self.threads:
            thread.join()


@pytest.mark.both_forms
def test_a_stopped_worker_is_out_and_its_requests_move(pdctl):
    """SIGSTOP of one of two workers under 20 requests a second, with all flags at their defaults."""
    a, b = pdctl.worker(), pdctl.worker()
    router = pdctl("serve", "--worker-urls", f"a={a.url}", f"b={b.url}", "--policy", "round_robin")
    with Clients(router, 20) as clients:
        wait_for("both to be used", lambda: {w for *_, w in clients.done} == {a.url, b.url})
        a.freeze()
        stopped = time.monotonic()
        wait_for("the silence to show", lambda: (listed(router)["a"]["oldest_silent_s"] or 0) > 1)
        wait_for("it to be out", lambda: state(router, "a") != "available")
        assert time.monotonic() - stopped < 10 + SLACK
        w = listed(router)["a"]
        assert w["state"] == "unhealthy" and "stopped responding" in w["out_because"] and w["out_since"], w
        assert w["next_try_s"] is not None and w["last_failure"] and w["last_failure_at"], w
        time.sleep(3)
        a.signal(signal.SIGCONT)
        resumed = time.monotonic()
        wait_for("it to be back", lambda: state(router, "a") == "available")
        assert time.monotonic() - resumed < 2 + SLACK
        before = len(clients.done)
        wait_for("it to be used again", lambda: a.url in {w for *_, w in clients.done[before:]})
    assert {status for _, _, status, _ in clients.done} == {200}
    assert max(took for _, took, *_ in clients.done) < 12 + SLACK
    w = listed(router)["a"]
    assert (w["out_because"], w["out_since"], w["next_try_s"]) == (None, None, None), w
    assert "stopped responding" in w["last_failure"] or "health" in w["last_failure"] or "timed out" in w["last_failure"].lower(), w


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_stopped_worker_of_a_pair(pdctl, role):
    """The same in prefill/decode mode: a stopped prefill or decode worker costs no request."""
    p, d = [pdctl.worker("--role", "prefill") for _ in range(2)], [pdctl.worker("--role", "decode") for _ in range(2)]
    urls = [x for r, l in (("prefill", p), ("decode", d)) for i, w in enumerate(l) for x in (f"--{r}", f"{r}{i}={w.url}")]
    router = pdctl("serve", "--pd-disaggregation", *urls, "--policy", "round_robin")
    stopped = (p if role == "prefill" else d)[0]
    with Clients(router, 10) as clients:
        wait_for("some answers", lambda: len(clients.done) > 10)
        stopped.freeze()
        begun = time.monotonic()
        wait_for("it to be out", lambda: state(router, f"{role}0") == "unhealthy")
        assert time.monotonic() - begun < 10 + SLACK
        time.sleep(2)
        stopped.signal(signal.SIGCONT)
        wait_for("it to be back", lambda: state(router, f"{role}0") == "available", timeout=2 + SLACK)
    assert {status for _, _, status, _ in clients.done} == {200}
    assert max(took for _, took, *_ in clients.done) < 12 + SLACK


@pytest.mark.both_forms
def test_a_stream_of_a_stopped_worker_ends_with_its_error(pdctl):
    a, b = pdctl.worker("--decode-ms-per-token", "100"), pdctl.worker("--decode-ms-per-token", "100")
    router = pdctl("serve", "--worker-urls", f"a={a.url}", f"b={b.url}", "--policy", "round_robin")
    streams = []

    def stream():
        begun = time.monotonic()
        status, headers, raw = router.post("/v1/completions", {**BODY, "max_tokens": 300, "stream": True})
        streams.append((status, headers["X-Worker"], raw, time.monotonic() - begun))

    threads = [threading.Thread(target=stream) for _ in range(2)]
    for t in threads:
        t.start()
    wait_for("both to run", lambda: sorted(w["load"] for w in listed(router).values()) == [1, 1])
    time.sleep(0.5)
    a.freeze()
    stopped = time.monotonic()
    wait_for("the stream to end", lambda: [s for s in streams if s[1] == a.url])
    assert time.monotonic() - stopped < 12 + SLACK
    (status, _, raw, _), = [s for s in streams if s[1] == a.url]
    last = raw.decode().strip().split("\n\n")[-1]
    assert status == 200 and json.loads(last.removeprefix("data: "))["error"]["code"] == 504 and "stalled" in last, last
    b.kill()
    for t in threads:
        t.join()


def test_an_engine_that_hangs_behind_a_live_server_gets_no_new_requests(pdctl):
    """Its health checks are good and none of its requests moves: the other worker has them all, until it moves again."""
    hung, go = threading.Event(), threading.Event()

    def handler(seen, wire):
        if hung.is_set():
            go.wait(60)
        wire.json({"ok": True})

    with FakeEngine(handler) as a, FakeEngine(lambda seen, wire: wire.json({"ok": True})) as b:
        router = pdctl("serve", "--worker-urls", f"a={a.url}", f"b={b.url}", "--policy", "round_robin")
        with Clients(router, 5) as clients:
            wait_for("both to be used", lambda: {w for *_, w in clients.done} == {a.url, b.url})
            hung.set()
            wait_for("it to be found", lambda: state(router, "a") == "stalled")
            assert "none of its requests moves" in listed(router)["a"]["out_because"]
            router.said("is stalled")
            time.sleep(0.5)
            had = len(a.seen)
            time.sleep(2)
            assert len(a.seen) == had, "no new requests"
            assert len(a.probes) > 3, "it is asked whether it lives"
            go.set()
            hung.clear()
            wait_for("it to be back", lambda: state(router, "a") == "available", timeout=10)
            wait_for("it to be used again", lambda: len(a.seen) > had)
        assert {status for _, _, status, _ in clients.done} == {200}


def test_a_lone_worker_is_not_taken_out_for_being_slow(pdctl):
    """Silence is suspicious when others answer: with nobody else a long request is only a long request."""
    with FakeEngine(lambda seen, wire: (time.sleep(4), wire.json({"ok": True}))) as a:
        router = pdctl("serve", "--worker-urls", f"a={a.url}")
        assert router.post("/v1/completions", BODY)[0] == 200
        assert len(a.probes) <= 2 and state(router, "a") == "available"


def test_a_slow_worker_is_only_asked(pdctl):
    """A request that takes long makes a worker suspect, not sick: its health checks are good."""
    with FakeEngine(lambda seen, wire: (time.sleep(5), wire.json({"ok": True}))) as a, FakeEngine(lambda seen, wire: wire.json({})) as b:
        router = pdctl("serve", "--worker-urls", f"a={a.url}", f"b={b.url}", "--policy", "round_robin")
        with Clients(router, 4) as clients:
            wait_for("probes", lambda: len(a.probes) >= 4)
            assert state(router, "a") == "available"
        assert {status for _, _, status, _ in clients.done} == {200}


def test_killed_and_restarted_at_once(pdctl):
    """kill -9 and a start after 0.3 s, with a breaker that would be open for a minute: back within 2 s."""
    port = free_port()
    a, b = pdctl.worker(port=port), pdctl.worker()
    router = pdctl("serve", "--worker-urls", f"a={a.url}", f"b={b.url}", "--policy", "round_robin", "--cb-failure-threshold", "2")
    with Clients(router, 40, {**BODY, "max_tokens": 30}) as clients:
        wait_for("both to be used", lambda: {w for *_, w in clients.done} == {a.url, b.url})
        a.kill()
        time.sleep(0.3)
        pdctl.worker(port=port)
        begun = time.monotonic()
        wait_for("it to be back", lambda: state(router, "a") == "available")
        assert time.monotonic() - begun < 2 + SLACK
        before = len(clients.done)
        wait_for("it to be used again", lambda: a.url in {w for *_, w in clients.done[before:]})
    assert {status for _, _, status, _ in clients.done} == {200}


def test_connections_that_end_are_no_open_breaker_when_the_worker_lives(pdctl):
    """The process was another one when the next connection came: nobody saw it refuse."""
    cut = threading.Event()

    def handler(seen, wire):
        if cut.is_set():
            wire.keep = False
            wire.conn.close()
            return
        wire.json({"ok": True})

    with FakeEngine(handler) as a, FakeEngine(lambda seen, wire: wire.json({"ok": True})) as b:
        router = pdctl("serve", "--worker-urls", f"a={a.url}", f"b={b.url}", "--policy", "round_robin", "--cb-failure-threshold", "3",
                       "--health-check-interval-secs", "600")
        cut.set()
        while state(router, "a") == "available" and "circuit" not in router.log():
            router.post("/v1/completions", BODY)
            if listed(router)["a"]["errors"] >= 3:
                break
        cut.clear()
        begun = time.monotonic()
        wait_for("it to be back", lambda: state(router, "a") == "available")
        assert time.monotonic() - begun < 2 + SLACK
        w = listed(router)["a"]
        assert w["errors"] >= 3 and "closed the connection" in w["last_failure"], w


def test_a_breaker_that_answers_opened_says_why_and_when(pdctl):
    with FakeEngine(lambda seen, wire: wire.json({"error": {}}, status=500)) as a, FakeEngine(lambda seen, wire: wire.json({"ok": True})) as b:
        router = pdctl("serve", "--worker-urls", f"a={a.url}", f"b={b.url}", "--policy", "round_robin", "--cb-failure-threshold", "2")
        for _ in range(8):
            assert router.post("/v1/completions", BODY)[0] == 200
        w = listed(router)["a"]
        assert w["state"] == "open" and "circuit breaker" in w["out_because"] and w["last_failure"] == "answered 500", w
        assert 30 < w["next_try_s"] <= 60 and w["out_since"].endswith("Z"), w
