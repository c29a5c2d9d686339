"""What an operator sets up around the router: who may change it, who may look, how it is told to reopen its log, when it lacks descriptors."""

import json
import os
import resource
import signal

import pytest

from fake_engine import FakeEngine
from harness import free_port, run, wait_for
from test_serve_bytes import reply_completion

BODY = {"model": "m", "prompt": "p"}
CHANGES = [
    ("POST", "/workers"), ("POST", "/workers/w/drain"), ("DELETE", "/workers/w"), ("POST", "/reload"), ("POST", "/add_worker?url=http://127.0.0.1:1"),
    ("POST", "/remove_worker?url=http://127.0.0.1:1"), ("POST", "/flush_cache"),
]


@pytest.mark.parametrize("method, path", CHANGES)
def test_each_change_needs_an_admin_key(pdctl, tmp_path, method, path):
    keys = tmp_path / "keys"
    keys.write_text("sk-admin # the operator\n")
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", f"w={engine.url}", "--admin-api-key-file", keys, "--worker-startup-timeout-secs", "0.2")
        for headers in ({}, {"Authorization": "Bearer sk-other"}, {"Authorization": "sk-admin"}):
            status, got, raw = router.admin(method, path, {}, headers)
            assert status == 401 and "pdctl admin" in got["WWW-Authenticate"], raw
            assert json.loads(raw)["error"]["type"] == "authentication_error"
        assert router.admin("GET", "/workers")[0] == 200, "looking is free"
        assert router.admin(method, path, {}, {"Authorization": "Bearer sk-admin"})[0] not in (401, 403)


def test_pdctl_workers_sends_the_key_and_a_reload_takes_new_ones(pdctl, tmp_path):
    keys, key = tmp_path / "keys", tmp_path / "key"
    keys.write_text("sk-1\n")
    key.write_text("sk-1\n")
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", f"w={engine.url}", "--admin-api-key-file", keys)
        denied = run("workers", "drain", "w", "--router", router.admin_url)
        assert denied.returncode == 2 and "admin API key" in denied.stderr
        assert run("workers", "drain", "w", "--router", router.admin_url, "--api-key-file", key).returncode == 0
        keys.write_text("sk-2\n")
        router.signal(signal.SIGHUP)
        wait_for("the new keys", lambda: router.admin("POST", "/workers/w/undrain", {}, {"Authorization": "Bearer sk-1"})[0] == 401)
        assert router.admin("POST", "/workers/w/undrain", {}, {"Authorization": "Bearer sk-2"})[0] == 200


def test_on_the_data_port_the_admin_key_counts_and_not_a_clients(pdctl, tmp_path):
    keys, clients = tmp_path / "keys", tmp_path / "clients"
    keys.write_text("sk-admin\n")
    clients.write_text("sk-client\n")
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", f"w={engine.url}", "--admin-api-key-file", keys, "--client-api-keys", clients, "--admin-on-data-port")
        assert router.request("POST", "/workers/w/drain", {}, {"Authorization": "Bearer sk-client"})[0] == 401
        assert router.request("POST", "/workers/w/drain", {}, {"Authorization": "Bearer sk-admin"})[0] == 200
        assert router.post("/v1/completions", BODY, {"Authorization": "Bearer sk-admin"})[0] == 401


@pytest.mark.parametrize("flags, warned", [((), False), (("--admin-host", "0.0.0.0"), True), (("--admin-host", "0.0.0.0", "--admin-api-key-file", "KEYS"), False), (("--admin-host", "0.0.0.0", "--admin-port", "-1"), False)])
def test_an_open_admin_port_is_warned_of(pdctl, tmp_path, flags, warned):
    keys = tmp_path / "keys"
    keys.write_text("sk-admin\n")
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *[str(keys) if x == "KEYS" else x for x in flags])
        wait_for("the start", lambda: "Starting router" in router.log())
        router.said("Starting router")
        assert ("anyone who can connect may change the fleet" in router.log()) == warned


def test_a_port_for_metrics_only(pdctl):
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", f"w={engine.url}", "--metrics-port", "0")
        import re
        import urllib.error
        import urllib.request

        url = wait_for("the line", lambda: re.search(r"metrics and probes on (http://\S+)", router.log())).group(1)

        def ask(path, method="GET"):
            try:
                with urllib.request.urlopen(urllib.request.Request(url + path, method=method), timeout=10) as r:
                    return r.status, r.read()
            except urllib.error.HTTPError as e:
                return e.code, e.read()

        for path in ("/metrics", "/", "/workers", "/get_server_info"):
            status, body = ask(path)
            assert status == 200 and b"vllm_router_worker_health" in body
        assert ask("/liveness") == (200, b"OK") and ask("/readiness")[0] == 200 and ask("/health")[0] == 200
        for method, path in CHANGES:
            assert ask(path, method)[0] == 405
        assert router.get_json("/workers")["total"] == 1


def test_health_is_of_the_router_and_names_the_workers(pdctl):
    port = free_port()
    router = pdctl("serve", "--worker-urls", f"http://127.0.0.1:{port}")
    wait_for("the worker to be out", lambda: router.get("/readiness")[0] == 503)
    status, _, body = router.admin("GET", "/health")
    assert status == 200 and body == b"Unhealthy servers: http://127.0.0.1:%d (ejected)" % port


def test_the_pid_file(pdctl, tmp_path):
    file, log = tmp_path / "pid", tmp_path / "access.log"
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--pid-file", file, "--access-log", log)
        assert int(file.read_text()) == router.proc.pid
        log.rename(tmp_path / "access.log.1")
        os.kill(int(file.read_text()), signal.SIGUSR1)
        wait_for("the new file", log.exists)
        router.signal(signal.SIGTERM)
        router.wait()
        assert not file.exists()


@pytest.mark.parametrize("flags, warned", [((), None), (("--max-concurrent-requests", "1000"), "--max-concurrent-requests asks for 2100"), (("--max-connections", "600"), "--max-connections asks for 1300"), (("--max-concurrent-requests", "100"), None)])
def test_too_few_descriptors_for_the_flags_are_warned_of(pdctl, flags, warned):
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, *flags, preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512)))
        wait_for("the start", lambda: "Starting router" in router.log())
        router.said("Starting router", *([f"the limit of open files is 512, and {warned}"] if warned else []))
        assert ("the limit of open files" in router.log()) == bool(warned)
        assert 5 < router.metric("process_open_fds") < 512 and router.metric("process_max_fds") == 512


def test_the_list_says_who_refused_why_it_is_out_and_where_it_is(pdctl):
    def busy(seen, wire):
        wire.json({"error": "busy"}, status=429)

    port = free_port()
    with FakeEngine(busy) as engine:
        router = pdctl("serve", "--worker-urls", f"a={engine.url}", f"b=http://127.0.0.1:{port}", "--policy", "round_robin")
        assert [router.post("/v1/completions", BODY)[0] for _ in range(4)] == [429] * 4
        wait_for("the ejection", lambda: router.get_json("/workers/b")["state"] == "ejected")
        lines = run("workers", "list", "--router", router.admin_url).stdout.splitlines()
        head, rows = lines[0].split(), {x.split()[0]: x.split() for x in lines[2:]}
        assert [x for x in ("refused", "503", "429", "address", "why") if x not in head] == []
        a, b = rows["a"], rows["b"]
        assert a[a.index(engine.url) - 1] == "4" and a[-3:] == ["127.0.0.1", "-", "-"]
        assert int(b[b.index(f"http://127.0.0.1:{port}") - 3]) >= 0 and "cannot be reached" in " ".join(b)
