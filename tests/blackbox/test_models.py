"""GET /v1/models: each server is asked once, all at the same time, with one deadline for all."""

import json
import threading
import time

import pytest

from fake_engine import FakeEngine
from harness import wait_for

LIMIT = 5  # seconds that the router gives them, all together
ASKS = ("--models-interval-secs", 0)  # lists that are known are not asked for: test_model_routing.py


class Lists(FakeEngine):
    """An engine whose list of models is answered by a function; `asked` counts the questions."""

    def __init__(self, lists, **more):
        self.lists, self.asked = lists, []
        super().__init__(lambda seen, wire: wire.json({"choices": []}), **more)

    def _answer(self, seen, wire):
        if seen.target == "/v1/models":
            self.asked.append(seen)
            self.lists(self, seen, wire)
        else:
            super()._answer(seen, wire)


def models(wire, *names):
    wire.json({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


def ids(body):
    return [m["id"] for m in json.loads(body)["data"]]


@pytest.mark.both_forms
def test_all_are_asked_at_the_same_time(pdctl):
    """Nobody answers before everybody was asked."""
    n = 8
    barrier = threading.Barrier(n)

    def waits_for_the_others(engine, seen, wire):
        barrier.wait(30)
        models(wire, f"m{engine.port}", "shared")

    engines = [Lists(waits_for_the_others) for _ in range(n)]
    try:
        router = pdctl("serve", *ASKS, "--worker-urls", *[e.url for e in engines])
        for _ in range(2):  # the second time over kept connections
            status, _, body = router.get("/v1/models")
            assert status == 200
            expected = [f"m{e.port}" for e in engines]
            assert ids(body) == [expected[0], "shared", *expected[1:]], "in the order of the workers"
    finally:
        for e in engines:
            e.close()


@pytest.mark.both_forms
def test_hung_workers_cost_one_deadline(pdctl):
    gone = threading.Event()

    def hangs(engine, seen, wire):
        gone.wait(60)
        wire.keep = False

    engines = [Lists(hangs) for _ in range(6)] + [Lists(lambda e, seen, wire: models(wire, f"m{e.port}")) for _ in range(2)]
    try:
        router = pdctl("serve", *ASKS, "--worker-urls", *[e.url for e in engines], "--health-failure-threshold", 1000)
        began = time.monotonic()
        status, _, body = router.get("/v1/models")
        took = time.monotonic() - began
        assert status == 200 and ids(body) == [f"m{e.port}" for e in engines[6:]]
        assert took < 3 * LIMIT, "one after the other they take six limits"
    finally:
        gone.set()
        for e in engines:
            e.close()


@pytest.mark.both_forms
def test_more_workers_than_are_asked_at_once(pdctl):
    def lists(engine, seen, wire):
        models(wire, seen.header("host"))

    engines = [Lists(lists) for _ in range(100)]
    try:
        router = pdctl("serve", *ASKS, "--worker-urls", *[e.url for e in engines])
        status, _, body = router.get("/v1/models")
        assert status == 200 and ids(body) == [f"127.0.0.1:{e.port}" for e in engines]
    finally:
        for e in engines:
            e.close()


@pytest.mark.both_forms
def test_each_server_is_asked_once(pdctl):
    """Whatever ranks and roles it has."""
    with Lists(lambda e, seen, wire: models(wire, "a")) as one, Lists(lambda e, seen, wire: models(wire, "b")) as other:
        router = pdctl("serve", *ASKS, "--worker-urls", one.url, other.url, "--intra-node-data-parallel-size", 4)
        status, _, body = router.get("/v1/models")
        assert status == 200 and ids(body) == ["a", "b"]
        assert len(one.asked) == len(other.asked) == 1
        router = pdctl("serve", *ASKS, "--prefill", one.url, "--decode", one.url, "--decode", other.url)
        status, _, body = router.get("/v1/models")
        assert status == 200 and ids(body) == ["a", "b"]
        assert len(one.asked) == len(other.asked) == 2


def test_a_client_that_leaves_ends_the_questions(pdctl):
    """On event loops; the threads of --io threads have until the limit."""
    ends = []

    def hangs(engine, seen, wire):
        wire.conn.settimeout(30)
        assert wire.conn.recv(1) == b""
        ends.append(time.monotonic())
        wire.keep = False

    engines = [Lists(hangs) for _ in range(3)]
    try:
        router = pdctl("serve", *ASKS, "--worker-urls", *[e.url for e in engines], "--health-failure-threshold", 1000)
        with router.connect() as sock:
            sock.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for("the questions", lambda: all(e.asked for e in engines))
        left = time.monotonic()
        wait_for("the ends", lambda: len(ends) == 3)
        assert max(ends) - left < LIMIT - 1
        for e in engines:
            e.check()
    finally:
        for e in engines:
            e.close()
