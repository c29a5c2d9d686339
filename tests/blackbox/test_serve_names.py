"""Names of workers: those that do not exist yet, that have several addresses, and that move. URLs in every spelling."""

import json
import os
import pathlib
import socket
import subprocess
import threading

import pytest
from fake_engine import FakeEngine
from harness import free_port, run, wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BODY = {"model": "m", "prompt": "hello", "max_tokens": 2}
FAST = ("--policy", "round_robin", "--health-check-interval-secs", "1")


def ok(seen, wire):
    wire.json({"ok": True})


def listed(router):
    return {w["name"]: w for w in json.loads(router.admin("GET", "/workers")[2])["workers"]}


@pytest.fixture(scope="module")
def preload(tmp_path_factory):
    """The library with a name service of the test's own."""
    made = tmp_path_factory.mktemp("names") / "names.so"
    subprocess.run(["cc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", str(made), str(ROOT / "tests/preload/names.c")], check=True, timeout=120)
    return made


@pytest.fixture
def names(preload, tmp_path):
    """names(worker="127.0.0.1") sets what names stand for, and gives the environment of a program that asks."""
    file = tmp_path / "names"
    file.write_text("")

    def set_names(**entries):
        new = tmp_path / "names.new"
        new.write_text("".join(f"{name.replace('_', '.')} {addresses}\n" for name, addresses in entries.items()))
        os.replace(new, file)
        options = ":".join(filter(None, (os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0")))
        return {"LD_PRELOAD": str(preload), "PDCTL_TEST_NAMES": str(file), "ASAN_OPTIONS": options}

    set_names.asked = lambda: pathlib.Path(f"{file}.asked").read_text().split() if pathlib.Path(f"{file}.asked").exists() else []
    return set_names


def engine_on(address, port):
    """An engine that listens on another address of this host, at a given port."""
    engine = FakeEngine(ok)
    engine.listener.close()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    engine.listener = socket.create_server((address, port), family=family, backlog=128)
    engine.port = port
    threading.Thread(target=engine._accept, daemon=True).start()
    return engine


def used(router, n=8):
    return {router.post("/v1/completions", BODY)[1]["X-Worker"] for _ in range(n)}


def test_a_name_that_appears_later(pdctl, names):
    """One of four workers is behind a name that does not exist yet: the router starts, the others serve, it joins by itself."""
    env = names()
    with FakeEngine(ok) as a, FakeEngine(ok) as b, FakeEngine(ok) as c, FakeEngine(ok) as late:
        url = f"http://late.test:{late.port}"
        router = pdctl("serve", "--worker-urls", a.url, b.url, c.url, f"late={url}", *FAST, env=env)
        w = listed(router)["late"]
        assert w["state"] == "unresolved" and "late.test" in w["out_because"] and w["address"] is None, w
        assert w["next_try_s"] <= 1 and w["last_failure"].startswith("cannot resolve host 'late.test'"), w
        assert used(router) == {a.url, b.url, c.url}
        assert router.get("/readiness")[0] == 200
        assert router.said("cannot resolve host 'late.test'").count("cannot resolve host 'late.test'") == 1, "said once"
        names(late_test="127.0.0.1")
        wait_for("it to join", lambda: listed(router)["late"]["state"] == "available", timeout=10)
        assert used(router) == {a.url, b.url, c.url, url}
        assert listed(router)["late"]["address"] == "127.0.0.1"
        # and its health check went where requests go
        assert late.probes and names.asked().count("late.test") >= 2


def test_names_that_do_not_exist_are_no_error_anywhere(pdctl, names, tmp_path):
    """In the options, in the workers file, in a reload, and added while running; alone and with a name service that hangs."""
    env = names(hung_test="hang")
    file = tmp_path / "workers.yaml"
    with FakeEngine(ok) as a:
        router = pdctl("serve", "--worker-urls", "http://none.test:1", env=env)
        assert router.get("/readiness")[0] == 503
        status, _, raw = router.post("/v1/completions", BODY)
        assert status == 503 and b"cannot resolve host" in raw, raw
        router.stop()
        file.write_text(f"workers:\n  - {a.url}\n  - http://none.test:1\n  - http://hung.test:1\n")
        router = pdctl("serve", "--workers-file", file, *FAST, env=env)
        assert {w["state"] for w in listed(router).values()} == {"available", "unresolved"}
        file.write_text(f"workers:\n  - {a.url}\n  - http://other.test:{a.port}\n")
        status, _, raw = router.admin("POST", "/reload")
        assert status == 200, raw
        status, _, raw = router.admin("POST", "/workers", {"url": f"http://added.test:{a.port}", "name": "added"})
        assert status == 202, raw
        w = listed(router)["added"]
        assert w["state"] == "starting" and "cannot resolve host 'added.test'" in w["out_because"], w
        names(added_test="127.0.0.1", other_test="127.0.0.1")
        wait_for("both to join", lambda: {w["state"] for w in listed(router).values()} == {"available"}, timeout=10)


@pytest.mark.both_forms
def test_all_addresses_are_tried_in_order(pdctl, names):
    """localhost is ::1 first, and the engine listens on 127.0.0.1 only."""
    with FakeEngine(ok) as a:
        url = f"http://two.test:{a.port}"
        env = names(two_test="::1 127.0.0.2 127.0.0.1", localhost="::1 127.0.0.1")
        router = pdctl("serve", "--worker-urls", f"two={url}", f"local=http://localhost:{a.port}", "--policy", "round_robin", env=env)
        for _ in range(6):
            assert router.post("/v1/completions", BODY)[0] == 200
        assert {w["state"] for w in listed(router).values()} == {"available"}
        assert listed(router)["two"]["address"] == "127.0.0.1", "the one that connected comes first from now on"
        assert router.metric("vllm_router_retries_total") == 0 if "vllm_router_retries_total" in router.metrics() else True


def test_a_name_that_moves_is_asked_again_at_once(pdctl, names):
    """The worker of a name starts anew at another address: the first connection that fails asks the name."""
    port = free_port()
    first, other = engine_on("127.0.0.1", port), FakeEngine(ok)
    url = f"http://moves.test:{port}"
    env = names(moves_test="127.0.0.1")
    router = pdctl("serve", "--worker-urls", f"moves={url}", other.url, "--policy", "round_robin", "--health-check-interval-secs", "600",
                   env=env)
    try:
        assert used(router) == {url, other.url}
        second = engine_on("127.0.0.3", port)
        names(moves_test="127.0.0.3")
        first.listener.shutdown(socket.SHUT_RDWR)
        first.close()
        for _ in range(4):
            assert router.post("/v1/completions", BODY)[0] == 200
        wait_for("it to be back", lambda: listed(router)["moves"]["state"] == "available" and listed(router)["moves"]["address"] == "127.0.0.3",
                 timeout=10)
        assert used(router) == {url, other.url} and second.probes
        wait_for("the line", lambda: f"warn  worker {url}: moved from 127.0.0.1 to 127.0.0.3, as its name says now" in router.log())
        asked = len(names.asked())
        assert asked <= 12, "at most once a second"
        second.close()
    finally:
        other.close()


def test_hosts_and_schemes_are_not_case_sensitive(pdctl, names):
    env = names(host_test="127.0.0.1")
    with FakeEngine(ok) as a:
        router = pdctl("serve", "--worker-urls", f"a=HTTP://Host.Test:{a.port}/", env=env)
        assert router.post("/v1/completions", BODY)[0] == 200
        assert a.seen[0].header("host") == f"host.test:{a.port}"
        assert listed(router)["a"]["url"] == f"http://host.test:{a.port}"
        status, _, raw = router.admin("POST", "/workers", {"url": f"http://HOST.test:{a.port}"})
        assert status == 409, raw
        done = run("workers", "show", f"HTTP://host.TEST:{a.port}", "--router", router.admin_url)
        assert done.returncode == 0 and "available" in done.stdout, done


@pytest.mark.parametrize(
    "base, path",
    [
        ("", "/v1/completions"),
        ("/", "/v1/completions"),
        ("/v1", "/v1/completions"),
        ("/v1/", "/v1/completions"),
        ("/base", "/base/v1/completions"),
        ("/base/v1", "/base/v1/completions"),
        ("/a/b/", "/a/b/v1/completions"),
        ("/av1", "/av1/v1/completions"),
    ],
)
def test_a_path_prefix_has_one_rule(pdctl, base, path):
    """The path of the worker's URL stands before the path of each request, a health check too; /v1 at its end is that of the request."""
    probed = []

    def handler(seen, wire):
        if seen.method == "GET":
            probed.append(seen.target)
        wire.json({"ok": True})

    with FakeEngine(handler) as a:
        router = pdctl("serve", "--worker-urls", f"a={a.url}{base}", *FAST)
        assert router.post("/v1/completions?x=1", BODY)[0] == 200
        assert [s.target for s in a.seen if s.method == "POST"] == [f"{path}?x=1"]
        asked, before = lambda: probed + [p.target for p in a.probes], path.removesuffix("/v1/completions")
        wait_for("a health check", lambda: before + "/health" in asked())
        assert set(asked()) <= {before + "/health", before + "/v1/models"}
