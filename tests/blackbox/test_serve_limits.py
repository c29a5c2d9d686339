"""Limits, descriptors, drain, reload and restart of the router in regular mode."""

import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time

import pytest

from fake_engine import FakeEngine
from harness import CLEAN_ENV, PDCTL, REPORTS, free_port, request, wait_for
from test_serve_clients import BODY, idle, message, ok, read_answer, read_end

pytestmark = pytest.mark.both_forms

STREAM = {**BODY, "stream": True}


class Holder:
    """An engine that begins a stream and ends it when told."""

    def __init__(self):
        self.release = threading.Event()
        self.running = 0
        self.most = 0
        self.order = []
        self.lock = threading.Lock()

    def __call__(self, seen, wire):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.order.append(seen.json().get("nth"))
        wire.begin_stream()
        wire.event("first")
        self.release.wait(30)
        with self.lock:  # before the last bytes: after them the router may send the next one
            self.running -= 1
        wire.event("[DONE]")
        wire.end_stream()


def start(n, call):
    """n threads; returns (threads, results)."""
    results = []
    threads = [threading.Thread(target=lambda i=i: results.append(call(i))) for i in range(n)]
    for t in threads:
        t.start()
    return threads, results


def join(threads):
    for t in threads:
        t.join(60)
        assert not t.is_alive()


def test_the_cap_holds_until_the_end_of_the_stream(pdctl):
    """Four places, four waiters, the rest refused; nobody is timed out early."""
    holder = Holder()
    with FakeEngine(holder) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-concurrent-requests", 4, "--queue-size", 4, "--queue-timeout-secs", 30)
        first, done = start(4, lambda i: router.post("/v1/completions", STREAM))
        wait_for("four streams", lambda: holder.running == 4)
        waiting, late = [], []
        for n in range(4):
            t, r = start(1, lambda i, n=n: router.post("/v1/completions", {**STREAM, "nth": n}))
            waiting += t
            late.append(r)
            wait_for("it to wait", lambda: router.metric("pdctl_requests_waiting") == n + 1)
        for _ in range(3):
            status, headers, raw = router.post("/v1/completions", STREAM)
            assert (status, headers["Retry-After"], headers["Connection"]) == (429, "1", "close")
            assert json.loads(raw)["error"]["code"] == 429
        assert router.get("/health")[0] == 200, "own routes do not queue"
        assert holder.running == 4 and router.metric("pdctl_requests_in_work") == 4
        holder.release.set()
        join(first + waiting)
        assert [r[0] for r in done] == [200] * 4 and [r[0][0] for r in late] == [200] * 4
        assert holder.most == 4
        assert sorted(n for n in holder.order if n is not None) == [0, 1, 2, 3]
        wait_for("zero", lambda: idle(router))
        assert router.metric("pdctl_queue_full_total") == 3 and router.metric("pdctl_requests_queued_total") == 4


def test_wait_in_the_queue_ends_with_408(pdctl):
    holder = Holder()
    with FakeEngine(holder) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-concurrent-requests", 1, "--queue-timeout-secs", 2)
        first, done = start(1, lambda i: router.post("/v1/completions", STREAM))
        wait_for("the stream", lambda: holder.running == 1)
        began = time.monotonic()
        status, headers, _ = router.post("/v1/completions", STREAM)
        took = time.monotonic() - began
        assert (status, headers["Retry-After"]) == (408, "1") and 1.95 < took < 40
        # One that leaves while it waits gives its place in the queue back.
        s = router.connect()
        s.sendall(message())
        wait_for("it to wait", lambda: router.metric("pdctl_requests_waiting") == 1)
        s.close()
        wait_for("it to go", lambda: router.metric("pdctl_requests_waiting") == 0)
        holder.release.set()
        join(first)
        assert done[0][0] == 200
        wait_for("zero", lambda: idle(router))
        assert router.metric("pdctl_queue_timeouts_total") == 1


def test_cap_per_worker(pdctl):
    """A session's worker at its cap: the session waits for it or goes on to the next; never more than the cap."""
    a, b = Holder(), Holder()
    with FakeEngine(a) as one, FakeEngine(b) as two:
        router = pdctl("serve", "--worker-urls", one.url, two.url, "--worker-max-in-flight", 3, "--queue-timeout-secs", 20)
        threads, done = start(12, lambda i: router.post("/v1/completions", STREAM, {"X-Session-Id": "same"}))
        wait_for("both to be full", lambda: a.running == 3 and b.running == 3)
        a.release.set()
        b.release.set()
        join(threads)
        assert [r[0] for r in done] == [200] * 12 and (a.most, b.most) == (3, 3)


def test_all_workers_at_their_cap_is_503_after_the_queue_time(pdctl):
    holder = Holder()
    with FakeEngine(holder) as engine:
        flags = ("--worker-max-in-flight", 1, "--queue-timeout-secs", 0.3, "--disable-retries")
        router = pdctl("serve", "--worker-urls", engine.url, *flags)
        threads, _ = start(1, lambda i: router.post("/v1/completions", STREAM))
        wait_for("the stream", lambda: holder.running == 1)
        status, headers, raw = router.post("/v1/completions", STREAM)
        assert status == 503 and "limit" in json.loads(raw)["error"]["message"] and int(headers["Retry-After"]) >= 1
        holder.release.set()
        join(threads)


class OneByOne:
    """An engine that answers a request when it is told to go on; `order` is how they came."""

    def __init__(self):
        self.order = []
        self.turn = threading.Semaphore(0)

    def __call__(self, seen, wire):
        self.order.append(seen.json().get("nth"))
        self.turn.acquire(timeout=30)
        wire.json({"choices": []})


def in_flight(router):
    return router.metric("pdctl_requests_in_work")


def ask_in_order(router, numbers):
    """One request after the other, each when the one before is in the router: (threads, results)."""
    threads, results = [], []
    for n in numbers:
        before = in_flight(router)
        more, _ = start(1, lambda _, n=n: results.append((n, router.post("/v1/completions", {**BODY, "nth": n})[0])))
        threads += more
        wait_for("it to be in the router", lambda before=before: in_flight(router) > before)
        time.sleep(0.02)  # from the gate to the worker's line
    return threads, results


def test_requests_wait_for_a_worker_in_order(pdctl):
    """First come first served, whatever their keys; each release wakes the next one. Polling mixed them up."""
    engine = OneByOne()
    with FakeEngine(engine) as one:
        router = pdctl("serve", "--worker-urls", one.url, "--worker-max-in-flight", 1, "--queue-timeout-secs", 60)
        threads, results = ask_in_order(router, range(12))
        for n in range(12):
            wait_for("the next one", lambda n=n: len(engine.order) == n + 1)
            engine.turn.release()
        join(threads)
        assert engine.order == list(range(12))
        assert sorted(results) == [(n, 200) for n in range(12)]


def test_a_client_that_leaves_the_line_takes_nobodys_turn(pdctl):
    engine = OneByOne()
    with FakeEngine(engine) as one:
        router = pdctl("serve", "--worker-urls", one.url, "--worker-max-in-flight", 1, "--queue-timeout-secs", 60)
        threads, results = ask_in_order(router, [0])
        wait_for("the first", lambda: engine.order == [0])
        gone = router.connect()
        gone.sendall(message({**BODY, "nth": "gone"}))
        wait_for("it to be in the router", lambda: in_flight(router) == 2)
        more, later = ask_in_order(router, [1, 2])
        gone.close()
        wait_for("its leaving", lambda: in_flight(router) == 3)
        for n in range(3):
            wait_for("the next one", lambda n=n: len(engine.order) == n + 1)
            engine.turn.release()
        join(threads + more)
        assert engine.order == [0, 1, 2] and [code for _, code in results + later] == [200] * 3
        assert router.metric("pdctl_client_left_total") == 1


def test_a_worker_that_comes_serves_those_who_wait(pdctl):
    """Nothing is released: the new worker alone is why the waiting requests go on."""
    busy, free = OneByOne(), OneByOne()
    for _ in range(20):
        free.turn.release()
    with FakeEngine(busy) as one, FakeEngine(free) as two:
        router = pdctl("serve", "--worker-urls", one.url, "--worker-max-in-flight", 1, "--queue-timeout-secs", 60, "--health-check-interval-secs", 0.2)
        threads, _ = ask_in_order(router, [0])
        more, results = ask_in_order(router, range(1, 5))
        assert free.order == []
        assert router.admin("POST", f"/add_worker?url={two.url}")[0] == 200
        join(more)
        assert free.order == [1, 2, 3, 4] and sorted(results) == [(n, 200) for n in range(1, 5)]
        busy.turn.release()
        join(threads)


def test_a_worker_that_comes_back_serves_those_who_wait(pdctl):
    """Drained while others are full, then back in the rotation."""
    busy, free = OneByOne(), OneByOne()
    for _ in range(20):
        free.turn.release()
    with FakeEngine(busy) as one, FakeEngine(free) as two:
        router = pdctl("serve", "--worker-urls", f"a={one.url}", f"b={two.url}", "--worker-max-in-flight", 1, "--queue-timeout-secs", 60)
        assert router.admin("POST", "/workers/b/drain")[0] == 200
        threads, _ = ask_in_order(router, [0])
        more, results = ask_in_order(router, range(1, 4))
        assert router.admin("POST", "/workers/b/undrain")[0] == 200
        join(more)
        assert free.order == [1, 2, 3] and [code for _, code in results] == [200] * 3
        busy.turn.release()
        join(threads)


def test_a_pair_waits_without_holding_the_other_worker(pdctl):
    """Prefill at its cap: the waiting requests are not counted at decode, and both pools serve in order."""
    prefill, decode = OneByOne(), OneByOne()

    def answer(seen, wire):
        prefill.order.append(seen.json().get("nth"))
        prefill.turn.acquire(timeout=30)
        wire.json({"kv_transfer_params": {"do_remote_prefill": True, "remote_block_ids": [1]}})

    with FakeEngine(answer) as p, FakeEngine(decode) as d:
        router = pdctl("serve", "--prefill", p.url, "--decode", d.url, "--worker-max-in-flight", 2, "--queue-timeout-secs", 60)
        threads, results = ask_in_order(router, range(6))
        wait_for("both places", lambda: prefill.order == [0, 1])
        loads = json.loads(router.get("/get_loads")[2])["loads"]
        assert list(loads.values()) == [2, 2], loads
        for n in range(6):
            prefill.turn.release()
            wait_for("decode", lambda n=n: len(decode.order) == n + 1)
            decode.turn.release()
        join(threads)
        assert [code for _, code in results] == [200] * 6
        # Two run beside each other, so neighbours may swap; none is passed by later ones.
        assert all(abs(n - at) <= 1 for at, n in enumerate(prefill.order)), prefill.order


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def limited(n):
    """A `preexec` for at most so many descriptors."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))


def test_out_of_descriptors_does_not_spin(pdctl):
    """64 descriptors, 200 clients: the router pauses instead of spinning, blames no worker, and recovers."""
    with FakeEngine(ok) as engine:
        router = pdctl(
            "serve", "--worker-urls", "w0=" + engine.url, "--max-connections", 64, "--health-check-interval-secs", 0.2, preexec=limited(64)
        )
        clients = []
        for _ in range(200):
            s = socket.socket()
            s.settimeout(5)
            s.connect(("127.0.0.1", router.port))
            clients.append(s)
        wait_for("the limit to be met", lambda: "cannot accept" in router.log())
        before, began = cpu_seconds(router.proc.pid), time.monotonic()
        time.sleep(2)
        share = (cpu_seconds(router.proc.pid) - before) / (time.monotonic() - began)
        print(f"CPU at the descriptor limit: {share:.1%}")
        assert share < 0.10
        assert router.log().count("cannot accept") <= 6, "one line per second"
        for s in clients:
            s.close()
        wait_for("service", lambda: answers(router), 20)
        assert router.get_json("/workers")["workers"][0]["is_healthy"], "it was not the worker's fault"
        assert router.metric("pdctl_accept_errors_total") > 0


def answers(router):
    try:
        return router.post("/v1/completions", BODY)[0] == 200
    except OSError:
        return False


def test_connections_beyond_the_limit_are_told(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-connections", 4)
        held = [router.connect() for _ in range(4)]
        wait_for("them", lambda: b" 503 " in try_once(router))
        assert b"Retry-After" in try_once(router)
        for s in held:
            s.close()
        wait_for("service", lambda: answers(router))


def connect_from(router, address):
    return socket.create_connection(("127.0.0.1", router.port), timeout=10, source_address=(address, 0))


def status_of(sock):
    sock.sendall(message())
    try:
        return int(sock.recv(4096).split(b" ")[1])
    except ConnectionResetError:
        return 503


def test_each_address_has_its_share(pdctl):
    """One client address at its limit is told so; others do not notice, and a connection that ends makes room."""
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-connections-per-ip", 3)
        held = [connect_from(router, "127.0.0.7") for _ in range(3)]
        assert [status_of(s) for s in held] == [200] * 3
        with connect_from(router, "127.0.0.7") as s:
            assert b"503 Service Unavailable" in s.recv(4096)
        for address in ("127.0.0.8", "127.0.0.1", "127.1.0.7"):
            with connect_from(router, address) as s:
                assert status_of(s) == 200
        assert [status_of(s) for s in held] == [200] * 3, "those inside are not touched"
        held.pop().close()

        def room():
            with connect_from(router, "127.0.0.7") as s:
                return status_of(s) == 200

        wait_for("room", room)
        for s in held:
            s.close()


def test_shares_survive_a_storm(pdctl):
    """Forty addresses open and drop connections at random; afterwards each has its whole share again."""
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--max-connections-per-ip", 4, "--log-level", "off")

        def storm(i):
            for k in range(60):
                socks = [connect_from(router, f"127.0.1.{i * 5 + k % 5}") for _ in range(k % 6 + 1)]
                if k % 3 == 0:
                    status_of(socks[0])
                for s in socks:
                    s.close()

        threads, _ = start(8, storm)
        join(threads)

        def whole(address):
            socks = [connect_from(router, address) for _ in range(4)]
            good = [status_of(s) for s in socks] == [200] * 4
            with connect_from(router, address) as s:
                good = good and status_of(s) == 503
            for s in socks:
                s.close()
            return good

        for i in range(40):
            wait_for(f"the share of address {i}", lambda i=i: whole(f"127.0.1.{i}"), step=0.05)


def try_once(router):
    with router.connect(5) as s:
        try:
            s.sendall(message())
            return s.recv(4096)
        except ConnectionResetError:
            return b""


def stream(router):
    s = router.connect()
    s.sendall(message(STREAM))
    got = b""
    while b"first" not in got:
        got += s.recv(4096)
    return s, got


def test_sigterm_flips_readiness_first_and_finishes_streams(pdctl):
    holder = Holder()
    with FakeEngine(holder) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--drain-delay-secs", 1.5)
        streams = [stream(router) for _ in range(20)]
        router.signal(signal.SIGTERM)
        wait_for("readiness to flip", lambda: router.get("/readiness")[0] == 503)
        assert json.loads(router.get("/readiness")[2])["reason"] == "draining"
        assert router.get("/health")[0] == 200 and router.get("/liveness")[0] == 200
        s, got = stream(router)
        streams.append((s, got))  # during the delay new requests are still served
        wait_for("the port to close", lambda: not connects(router.port))
        assert router.alive()
        holder.release.set()
        for s, got in streams:
            got += read_end(s)
            assert got.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"), got[-100:]
            s.close()
        assert router.wait() == 0


def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return True
    except OSError:
        return False


@pytest.mark.parametrize("how", ["timeout", "second signal", "second signal in the delay"])
def test_a_drain_has_an_end(pdctl, how):
    holder = Holder()
    with FakeEngine(holder) as engine:
        flags = {"timeout": ("--drain-timeout", 3), "second signal": (), "second signal in the delay": ("--drain-delay-secs", 60)}[how]
        router = pdctl("serve", "--worker-urls", engine.url, *flags)
        s, _ = stream(router)
        began = time.monotonic()
        router.signal(signal.SIGTERM)
        time.sleep(0.3)
        assert router.alive()
        if how != "timeout":
            router.signal(signal.SIGTERM)
        assert router.wait(25) == 0
        assert time.monotonic() - began < 25, "by default it is 30 s"
        assert not read_end(s).endswith(b"0\r\n\r\n"), "the cut is visible"
        assert router.said("1 connections closed by the drain timeout").count("1 connections closed by the drain timeout") == 1
        s.close()
        holder.release.set()


def test_drain_of_one_worker(pdctl):
    """No new requests, its stream ends in its own time, and it comes back when told; by name and by URL."""
    a, b = Holder(), Holder()
    with FakeEngine(a) as one, FakeEngine(b) as two:
        router = pdctl("serve", "--worker-urls", f"w0={one.url}", f"w1={two.url}", "--policy", "round_robin")
        s, t = stream(router), stream(router)
        quoted = one.url.replace(":", "%3A").replace("/", "%2F")
        for way in ("w0", one.url, quoted):
            status, _, raw = router.admin("POST", f"/workers/{way}/drain")
            assert status == 200 and json.loads(raw)["state"] == "draining", (way, raw)
            assert router.request("GET", f"/workers/{way}")[0] == 200
        b.release.set()
        for _ in range(6):
            assert router.post("/v1/completions", STREAM)[1]["X-Worker"] == two.url
        assert (len(one.seen), router.get_json("/workers/w0")["load"]) == (1, 1), "the stream goes on"
        assert router.request("GET", "/workers/w0/drain")[0] == 405
        assert router.admin("POST", "/workers/nobody/drain")[0] == 404
        assert json.loads(router.get("/readiness")[2])["healthy_workers"] == 1
        a.release.set()
        for sock, got in (s, t):
            while not got.endswith(b"0\r\n\r\n"):
                piece = sock.recv(4096)
                assert piece
                got += piece
            sock.close()
        assert json.loads(router.admin("POST", "/workers/w0/undrain")[2])["state"] == "available"
        for _ in range(4):
            router.post("/v1/completions", STREAM)
        assert len(one.seen) == 3


def test_reload_under_load_loses_nothing(pdctl, tmp_path):
    """Workers come and go while 8 clients ask without pause; a bad file changes nothing; counters survive."""
    engines = [FakeEngine(ok) for _ in range(3)]
    config = tmp_path / "workers.yaml"

    def write(*which, policy="round_robin"):
        fresh = tmp_path / "fresh.yaml"
        fresh.write_text(f"policy: {policy}\nworkers:\n" + "".join(f"  - w{i}={engines[i].url}\n" for i in which))
        os.replace(fresh, config)  # as operators do it: a reload never sees half a file

    write(0, 1)
    router = pdctl("serve", "--workers-file", config, "--retry-max-retries", 1)
    stop = threading.Event()

    def client(i):
        seen = []
        while not stop.is_set():
            seen.append(router.post("/v1/completions", BODY, {"X-Session-Id": str(i)})[0])
        return seen

    threads, results = start(8, client)
    try:
        for turn in range(10):
            write(*((0, 1), (1, 2), (0, 2), (0, 1, 2))[turn % 4], policy=("round_robin", "consistent_hash")[turn % 2])
            version = router.get_json("/workers")["version"]
            if turn % 2:
                assert router.admin("POST", "/reload")[0] == 200
            else:
                router.signal(signal.SIGHUP)
                router.signal(signal.SIGHUP)  # while the first is at work
            wait_for("the reload", lambda: router.get_json("/workers")["version"] > version)
        before = router.get_json("/workers")
        write(0, 1, 2)
        assert router.admin("POST", "/reload")[0] == 200
        config.write_text("policy: round_robin\nworkers:\n  - http://127.0.0.1:1\n  - ftp://x\n")
        status, _, raw = router.admin("POST", "/reload")
        message_text = json.loads(raw)["error"]["message"]
        assert status == 400 and "workers.yaml" in message_text and "ftp://x" in message_text and "nothing was changed" in message_text
        router.signal(signal.SIGHUP)
        wait_for("the log line", lambda: router.log().count("reload failed") >= 2)
        after = router.get_json("/workers")
        assert [w["name"] for w in after["workers"]] == ["w0", "w1", "w2"]
        kept = {w["name"]: w["requests"] for w in before["workers"]}
        assert all(w["requests"] >= kept.get(w["name"], 0) for w in after["workers"]), "the same worker keeps its counters"
        assert router.request("GET", "/reload")[0] == 405
    finally:
        stop.set()
        join(threads)
    codes = [c for r in results for c in r]
    assert len(codes) > 100 and set(codes) == {200}
    assert router.metric("pdctl_reload_failures_total") >= 2  # the second of two signals may come late
    for e in engines:
        e.check()
        e.close()


def test_restart_through_an_inherited_socket_refuses_nobody(pdctl):
    """The parent holds the listening socket; two generations overlap, three times, under load: every request is answered."""
    with FakeEngine(ok) as engine:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        port = listener.getsockname()[1]

        def generation():
            command = f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"'
            args = ["bash", "-c", command, PDCTL, "serve", "--worker-urls", engine.url, "--prometheus-port", "-1", "--log-level", "warn"]
            p = subprocess.Popen(args, pass_fds=[listener.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=CLEAN_ENV)
            line = p.stdout.readline()
            assert line == f"pdctl serve listening on http://127.0.0.1:{port}\n", (line, p.poll())
            return p

        stop = threading.Event()

        def client(i):
            codes = []
            while not stop.is_set():
                try:
                    codes.append(request(f"http://127.0.0.1:{port}", "POST", "/v1/completions", BODY, timeout=20)[0])
                except OSError as error:
                    codes.append(repr(error))
            return codes

        old = generation()
        threads, results = start(6, client)
        try:
            for _ in range(3):
                time.sleep(0.3)
                new = generation()
                old.send_signal(signal.SIGTERM)
                _, log = old.communicate(timeout=30)
                assert old.returncode == 0 and not REPORTS.search(log), log[-4000:]
                old = new
        finally:
            stop.set()
            join(threads)
            old.send_signal(signal.SIGTERM)
            _, log = old.communicate(timeout=30)
        assert not REPORTS.search(log), log[-4000:]
        codes = [c for r in results for c in r]
        assert len(codes) > 50 and set(codes) == {200}, {c: codes.count(c) for c in set(codes)}
        listener.close()


def test_bad_workers_files_name_the_place(pdctl, tmp_path):
    """Unknown key, wrong type, bad policy, bad URL, wrong pool, no YAML at all: file, line and column, what was found."""
    cases = {
        "workers:\n  - http://a:1\npolcy: random\n": (":3:1:", "polcy", "policy"),
        "workers: http://a:1\n": (":1:10:", "workers"),
        "policy: fastest\nworkers:\n  - http://127.0.0.1:1\n": (":1:9:", "fastest"),
        "workers:\n  - http://127.0.0.1:1\n  - w=ftp://x\n": (":3:5:", "ftp://x"),
        "workers:\n  - http://127.0.0.1:1\nprefill:\n  - http://127.0.0.1:2\n": (":4:3:", "prefill"),
        "workers: [http://127.0.0.1:1\n": (":2:1:",),
    }
    for i, (text, wanted) in enumerate(cases.items()):
        path = tmp_path / f"w{i}.yaml"
        path.write_text(text)
        args = [PDCTL, "serve", "--workers-file", str(path), "--port", "0", "--prometheus-port", "-1"]
        done = subprocess.run(args, capture_output=True, text=True, timeout=30, env=CLEAN_ENV)
        assert done.returncode == 2 and done.stdout == "", (text, done)
        for part in (str(path), *wanted):
            assert part in done.stderr, (text, part, done.stderr)


def test_one_dead_port_of_the_start_is_not_fatal(pdctl):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, f"http://127.0.0.1:{free_port()}", "--policy", "round_robin")
        assert all(router.post("/v1/completions", BODY)[0] == 200 for _ in range(6))
        wait_for("it to be out", lambda: json.loads(router.get("/readiness")[2])["healthy_workers"] == 1)
