"""--io threads: what can be seen of it from outside. That it serves as --io events does is shown by the suites marked `both_forms`."""

import os
import threading

import pytest

import harness
from fake_engine import FakeEngine
from harness import wait_for

BODY = {"model": "m", "prompt": "hello"}


class Holder:
    """An engine that answers when it is let go."""

    def __init__(self):
        self.running, self.lock, self.release = 0, threading.Lock(), threading.Event()

    def __call__(self, seen, wire):
        if seen.method == "GET":
            wire.json({})
            return
        with self.lock:
            self.running += 1
        self.release.wait(30)
        wire.json({"choices": []})


def threads_named(pid, name):
    count = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/comm", encoding="ascii") as f:
                count += f.read().strip() == name
        except FileNotFoundError:
            pass
    return count


def post_all(router, n):
    got = []
    threads = [threading.Thread(target=lambda: got.append(router.post("/v1/completions", BODY)[0])) for _ in range(n)]
    for t in threads:
        t.start()
    return threads, got


def test_one_thread_per_request_in_flight(pdctl):
    holder = Holder()
    with FakeEngine(holder) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--io", "threads", "--admin-on-data-port")
        clients, got = post_all(router, 5)
        wait_for("the requests", lambda: holder.running == 5)
        assert threads_named(router.proc.pid, "pdctl-conn") >= 5
        assert threads_named(router.proc.pid, "pdctl-poll") == 2, "the data port's and the admin port's"
        assert threads_named(router.proc.pid, "pdctl-loop") == 0
        page = harness.parse_metrics(router.admin("GET", "/metrics")[2].decode())
        assert page["pdctl_fibers"] >= 5 and page["pdctl_event_loops"] == 0
        holder.release.set()
        for t in clients:
            t.join()
        assert got == [200] * 5


def test_requests_beyond_the_threads_queue_and_then_get_503(pdctl):
    holder = Holder()
    with FakeEngine(holder) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--io", "threads", "--threads", 2, "--head-timeout-secs", 0.5)
        clients, got = post_all(router, 2)
        wait_for("the requests", lambda: holder.running == 2)
        status, headers, _ = router.post("/v1/completions", BODY)
        assert status == 503 and headers["Retry-After"]
        late, late_got = post_all(router, 1)
        holder.release.set()
        for t in clients + late:
            t.join()
        assert got == [200, 200] and late_got[0] in (200, 503), "in time, or not: the machine decides"
        assert router.post("/v1/completions", BODY)[0] == 200
        page = harness.parse_metrics(router.admin("GET", "/metrics")[2].decode())
        assert page["pdctl_fibers"] == 2 and page["pdctl_connections_refused_total"] >= 1


@pytest.mark.parametrize(
    "args,message",
    [
        (("--threads", "100"), "--threads: found 100, expected 0 to 32 event loops (more: --io threads)"),
        (("--io", "fibers"), "--io"),
        (("--io", "threads", "--threads", "40000"), "--threads"),
    ],
)
def test_wrong_options(args, message):
    done = harness.run("serve", "--worker-urls", "http://127.0.0.1:1", *args)
    assert done.returncode == 2 and message in done.stderr, done.stderr
