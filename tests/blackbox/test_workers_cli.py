"""pdctl workers: what it prints, its exit codes, and that a fleet can be replaced with it under traffic."""

import json
import pathlib
import threading

import pytest

from certs import Authority
from fake_engine import FakeEngine
from harness import free_port, run, wait_for
from test_admin_workers import BODY, hold_one, ok, plain
from test_pd_faults import fleet, idle, mistakes

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "workers.md"


def workers(router, *args, **kw):
    return run("workers", *args, "--router", router.admin_url, **kw)


def rows(text):
    head, line, *rest = text.splitlines()
    assert set(line) == {"-", " "}
    return head, [r.split() for r in rest]


def test_list_lines_up_and_json_is_the_routers(pdctl):
    router, ps, ds = fleet(pdctl, prefill=2, decode=1)
    done = workers(router, "list")
    head, lines = rows(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert " ".join(head.split()) in " ".join(PAGE.read_text().split()), "docs/workers.md shows other columns"
    assert [(x[0], x[1], x[2], x[3], x[-4]) for x in lines] == [
        ("p0", "prefill", "available", "0", ps[0].url), ("p1", "prefill", "available", "0", ps[1].url), ("d0", "decode", "available", "0", ds[0].url)]
    assert {x.index("http") for x in done.stdout.splitlines()[2:]} == {head.index("url")}
    assert [x[0] for x in rows(workers(router, "list", "--role", "decode").stdout)[1]] == ["d0"]
    document = json.loads(workers(router, "list", "--json").stdout)
    assert document["total"] == 3 and [w["name"] for w in document["workers"]] == ["p0", "p1", "d0"]
    assert [w["name"] for w in json.loads(workers(router, "list", "--json", "--role", "prefill").stdout)["workers"]] == ["p0", "p1"]
    shown = workers(router, "show", "d0", "p1").stdout
    assert "d0" in shown and "p1" in shown and "bootstrap_port    null" in shown
    assert json.loads(workers(router, "show", ds[0].url, "--json").stdout)["name"] == "d0"


def test_add_drain_undrain_remove(pdctl):
    with FakeEngine(ok) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"w0={one.url}")
        done = workers(router, "add", f"w1={two.url}", "--wait")
        assert (done.returncode, done.stdout) == (0, f"added w1 (regular, {two.url}): available\n"), done.stderr
        done = workers(router, "drain", "w1")
        assert (done.returncode, done.stdout) == (0, f"draining w1 (regular, {two.url}): draining\n")
        done = workers(router, "undrain", two.url)
        assert (done.returncode, done.stdout) == (0, f"undrained w1 (regular, {two.url}): available\n")
        done = workers(router, "drain", "w1", "--wait")
        assert (done.returncode, done.stdout) == (0, "drained w1: the worker can be stopped\n")
        done = workers(router, "remove", "w1")
        assert (done.returncode, done.stdout) == (0, "removed w1\n")
        done = workers(router, "add", f"w1={two.url}", "--json", "--wait")
        assert json.loads(done.stdout)["state"] == "available"
        assert json.loads(workers(router, "remove", "w1", "--json", "--force").stdout)["success"] is True
        dead = f"http://127.0.0.1:{free_port()}"
        done = workers(router, "add", dead)
        assert (done.returncode, done.stdout) == (0, f"added {dead} (regular, {dead}): starting\n")


def test_a_role_tells_two_workers_at_one_url_apart(pdctl):
    router, ps, ds = fleet(pdctl, prefill=1, decode=1)
    url = ps[0].url
    done = workers(router, "add", url, "--role", "decode", "--wait")
    assert (done.returncode, done.stdout) == (0, f"added {url} (decode, {url}): available\n"), done.stderr
    assert len(json.loads(workers(router, "show", url, "--json").stdout)["workers"]) == 2
    done = workers(router, "show", url, "--json", "--role", "prefill")
    assert json.loads(done.stdout)["name"] == "p0", done.stderr
    done = workers(router, "drain", url, "--role", "decode", "--wait")
    assert done.returncode == 0, done.stderr
    assert json.loads(workers(router, "show", "p0", "--json").stdout)["state"] == "available"
    done = workers(router, "remove", url, "--role", "decode", "--wait")
    assert (done.returncode, done.stdout) == (0, f"removed {url}\n"), done.stderr
    assert [x[0] for x in rows(workers(router, "list").stdout)[1]] == ["p0", "d0"]


def test_a_role_that_is_missing_is_named_as_the_option(pdctl):
    router = pdctl("serve", "--pd-disaggregation", "--decode", f"http://127.0.0.1:{free_port()}")
    done = workers(router, "add", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.startswith("pdctl workers: --role: found none, expected prefill or decode")


def test_an_addition_that_timed_out_is_taken_back(pdctl):
    """As POST /workers?wait=true does: a worker that never served is not left to be found later."""
    router = pdctl("serve", "--worker-urls", f"http://127.0.0.1:{free_port()}")
    done = workers(router, "add", f"late=http://127.0.0.1:{free_port()}", "--wait", "--timeout-secs", 0.3)
    assert (done.returncode, "worker 'late' was removed again" in done.stderr) == (1, True), done.stderr
    wait_for("the worker to be gone", lambda: "late" not in workers(router, "list").stdout)


def test_waiting_in_vain_is_exit_code_1(pdctl):
    release, hits = threading.Event(), []

    def holds(seen, wire):
        hits.append(1)
        release.wait(30)
        ok(seen, wire)

    with FakeEngine(holds) as one:
        router = plain(pdctl, f"w0={one.url}")
        s = hold_one(router, release)
        wait_for("the request to arrive", lambda: hits)
        done = workers(router, "drain", "w0", "--wait", "--timeout-secs", 0.5)
        assert (done.returncode, done.stdout) == (1, "") and "worker 'w0' has 1 requests in flight after 0.5 s" in done.stderr
        done = workers(router, "remove", "w0", "--wait", "--timeout-secs", 0.5)
        assert (done.returncode, done.stdout) == (1, "") and "worker 'w0' is still listed after 0.5 s" in done.stderr
        done = workers(router, "remove", "w0")
        assert (done.returncode, done.stdout) == (0, "removing w0: draining, removed when its requests in flight have ended\n")
        release.set()
        done = workers(router, "remove", "w0", "--wait")
        assert done.returncode in (0, 2), done.stderr  # it may be gone already
        s.close()
        dead = f"http://127.0.0.1:{free_port()}"
        done = workers(router, "add", dead, "--wait", "--timeout-secs", 0.5)
        assert (done.returncode, done.stdout) == (1, "") and "is starting (Failed to connect" in done.stderr and "after 0.5 s" in done.stderr


def test_wrong_requests_are_exit_code_2(pdctl):
    router, ps, _ = fleet(pdctl, prefill=1, decode=1)
    for args, says in (
        (("show", "nobody"), "no worker has the name or URL 'nobody'"),
        (("drain", "nobody", "--wait"), "no worker has the name"),
        (("remove", "a/b c%2F"), "no worker has the name or URL 'a/b c%2F'"),
        (("add", "http://127.0.0.1:1"), "expected prefill or decode"),
        (("add", "http://127.0.0.1:1", "--role", "regular"), "expected prefill or decode"),
        (("add", ps[0].url, "--role", "prefill"), "exists"),
        (("add", "x=", "--role", "decode"), "url: found none"),
        (("add", "ftp://x", "--role", "decode"), "unknown scheme"),
    ):
        done = workers(router, *args)
        assert (done.returncode, done.stdout) == (2, "") and says in done.stderr, (args, done)
    # The data port refuses, and the message says where to go.
    done = run("workers", "drain", "p0", "--router", router.url)
    assert done.returncode == 2 and "admin port" in done.stderr
    # The others are drained all the same, and the worst code counts.
    done = workers(router, "drain", "nobody", "d0")
    assert done.returncode == 2 and "draining d0" in done.stdout


@pytest.mark.parametrize(
    "args, says",
    [
        ((), "found no action, expected list, show, add"),
        (("lst",), "unknown action 'lst', did you mean 'list'?"),
        (("list", "x"), "found 'x', expected no more arguments"),
        (("add",), "add: expected [NAME=]http://HOST:PORT"),
        (("drain",), "drain: expected a worker's name or URL"),
        (("list", "--wait"), "--wait has no effect with list"),
        (("drain", "x", "--force"), "--force has no effect with drain"),
        (("undrain", "x", "--wait"), "--wait has no effect with undrain"),
        (("list", "--role", "both"), "both"),
        (("list", "--router", "localhost:29000"), "expected http://HOST:PORT"),
        (("list", "--router", "http://"), "expected http://HOST:PORT"),
        (("show", ""), "found an empty argument"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)
def test_wrong_commands(args, says):
    done = run("workers", *args)
    assert (done.returncode, done.stdout) == (2, "") and says in done.stderr, done


def test_no_router(pdctl):
    url = f"http://127.0.0.1:{free_port()}"
    done = run("workers", "list", "--router", url, env={"http_proxy": "http://127.0.0.1:1"})
    assert (done.returncode, done.stdout) == (3, "") and f"cannot reach the router at {url}" in done.stderr and "--router" in done.stderr
    done = run("workers", "drain", "a", "b", "--router", url)
    assert done.returncode == 3 and done.stderr.count("cannot reach") == 1
    done = run("workers", "list", "--router", "http://no-such-host.invalid:1")
    assert done.returncode == 3 and "cannot reach" in done.stderr
    with FakeEngine(lambda seen, wire: wire.reply(200, b"<html>", "text/html")) as other:
        done = run("workers", "list", "--router", other.url)
        assert done.returncode == 3 and "not a pdctl router?" in done.stderr


def test_a_router_behind_tls_and_keys(pdctl, tmp_path):
    """Changes on a data port that has a private CA's certificate and asks for keys."""
    ca, other = Authority(tmp_path, "Ours"), Authority(tmp_path, "Others")
    keys, key, empty = tmp_path / "keys", tmp_path / "key", tmp_path / "empty"
    keys.write_text("ops-key-1\n")
    key.write_text("ops-key-1\n")
    empty.write_text("\n")
    with FakeEngine(lambda seen, wire: wire.json({})) as engine:
        pair = ca.issue("r", "IP:127.0.0.1")
        router = pdctl("serve", "--worker-urls", "w0=" + engine.url, *pair.args, "--client-api-keys", keys, "--admin-on-data-port")
        to = ("--router", f"https://127.0.0.1:{router.port}")
        done = run("workers", "list", *to, "--ca-file", ca.cert, "--api-key-file", key)
        assert (done.returncode, done.stderr) == (0, "") and "w0" in done.stdout
        assert run("workers", "drain", "w0", *to, "--ca-file", ca.cert, "--api-key-file", key).returncode == 0
        done = run("workers", "list", *to, "--ca-file", other.cert, "--api-key-file", key)
        assert done.returncode == 3 and "certificate" in done.stderr.lower()
        done = run("workers", "list", *to, "--ca-file", ca.cert)
        assert done.returncode in (2, 3) and "key" in done.stderr.lower(), done.stderr
        for args, says in (
            (("--ca-file", tmp_path / "none"), "--ca-file: cannot read"),
            (("--api-key-file", tmp_path / "none"), "--api-key-file: "),
            (("--api-key-file", empty), "is empty, expected a key"),
        ):
            done = run("workers", "list", *to, *args)
            assert done.returncode == 2 and says in done.stderr and "ops-key" not in done.stderr


def test_a_whole_fleet_is_replaced_under_traffic(pdctl):
    """Each worker of both roles gets a successor, is drained, stopped and removed, with one attempt per request: none fails."""
    router, ps, ds = fleet(pdctl, "--retry-max-retries", 1, "--pd-fallback", "fail")
    stop, failures, served = threading.Event(), [], []

    def client(i):
        while not stop.is_set():
            status, headers, raw = router.post(
                "/v1/completions", {**BODY, "prompt": f"client {i} turn {len(served)} " * 8, "stream": True, "max_tokens": 12}, {"X-Session-Id": f"s{i}"})
            served.append((headers.get("X-Prefill-Worker"), headers.get("X-Decode-Worker")))
            if status != 200 or not raw.endswith(b"data: [DONE]\n\n") or b'"error"' in raw:
                failures.append((status, raw[-400:]))

    clients = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for t in clients:
        t.start()
    fresh = []
    try:
        for role, old in (("prefill", ps[0]), ("decode", ds[0]), ("prefill", ps[1]), ("decode", ds[1])):
            new = pdctl.worker("--role", role, "--strict", "--speedup", 100)
            fresh.append(new)
            for args in (("add", new.url, "--role", role, "--wait"), ("drain", old.url, "--wait"), ("list",)):
                done = workers(router, *args)
                assert done.returncode == 0, done
            assert mistakes([old]) == {}
            assert old.stop() == 0  # as its operator does now
            done = workers(router, "remove", old.url, "--wait")
            assert done.returncode == 0, done
        mark = len(served)
        wait_for("traffic on the new fleet", lambda: len(served) > mark + 30)
    finally:
        stop.set()
        for t in clients:
            t.join()
    assert failures == []
    new = {w.url for w in fresh}
    assert all(p in new and d in new for p, d in served[mark + 8:])
    assert mistakes(fresh) == {}
    idle(router, fresh)
