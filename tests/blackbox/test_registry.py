"""pdctl registry, and pdctl serve that takes its workers from one: InfiniLM-SVC's API by its rules."""

import json
import subprocess
import time

import pytest

import harness
from fake_engine import FakeEngine
from harness import request, run, wait_for
from test_serve_bytes import reply_completion, reply_prefill

BODY = {"model": "m", "prompt": "p", "max_tokens": 4}


class Registry:
    def __init__(self, *flags):
        self.proc = subprocess.Popen([harness.PDCTL, "registry", "--port", "0", *map(str, flags)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.url = self.proc.stdout.readline().split()[-1]

    def ask(self, method, path, body=None):
        status, headers, raw = request(self.url, method, path, body)
        return status, json.loads(raw) if raw else None

    def register(self, name, url, metadata=None, **more):
        host, port = url[len("http://"):].split(":")
        body = {"name": name, "host": host, "port": int(port), "hostname": host, "url": url, "status": "running", "metadata": metadata or {}, **more}
        return self.ask("POST", "/services", body)

    def stop(self):
        self.proc.terminate()
        out, err = self.proc.communicate(timeout=60)
        assert self.proc.returncode == 0, err
        assert "ERROR: AddressSanitizer" not in err and "runtime error" not in err, err
        return err


@pytest.fixture
def registry():
    made = []

    def start(*flags):
        made.append(Registry(*flags))
        return made[-1]

    yield start
    for r in made:
        if r.proc.poll() is None:
            r.stop()


def test_the_api(registry):
    r = registry()
    status, health = r.ask("GET", "/health")
    assert status == 200 and health.pop("timestamp") and health == {"status": "healthy", "registry": "running", "registered_services": 0, "healthy_services": 0}
    status, made = r.register("w1-server", "http://127.0.0.1:8100", {"type": "openai-api", "models": ["m"]})
    assert status == 201 and made["message"] == "Service 'w1-server' registered successfully"
    one = made["service"]
    assert set(one) == {"name", "host", "port", "hostname", "url", "status", "timestamp", "last_heartbeat", "health_status", "is_healthy", "metadata"}
    assert one["is_healthy"] is True and one["health_status"] == "unknown" and one["metadata"]["models"] == ["m"] and one["port"] == 8100
    r.register("w2", "http://127.0.0.1:8200", status="starting")
    status, listed = r.ask("GET", "/services")
    assert listed["total"] == 2 and {s["name"] for s in listed["services"]} == {"w1-server", "w2"}
    assert [s["name"] for s in r.ask("GET", "/services?healthy=true")[1]["services"]] == ["w1-server"]
    assert [s["name"] for s in r.ask("GET", "/services?healthy=false")[1]["services"]] == ["w2"]
    assert [s["name"] for s in r.ask("GET", "/services?status=starting&healthy=false")[1]["services"]] == ["w2"]
    assert r.ask("GET", "/services/w2")[1]["status"] == "starting"
    assert r.ask("POST", "/services/w2/heartbeat", {"status": "running"})[1]["message"] == "Heartbeat received"
    assert r.ask("GET", "/services/w2")[1]["is_healthy"] is True
    status, changed = r.ask("PUT", "/services/w2", {"port": 8201, "metadata": {"a": 1}})
    assert status == 200 and changed["port"] == 8201 and changed["metadata"] == {"a": 1} and changed["host"] == "127.0.0.1"
    stats = r.ask("GET", "/stats")[1]
    assert stats["total_services"] == 2 and stats["status_distribution"] == {"running": 2} and stats["host_distribution"] == {"127.0.0.1": 2}
    assert r.ask("DELETE", "/services/w2")[0] == 200
    assert request(r.url, "GET", "/services/w2")[0] == 404 and request(r.url, "DELETE", "/services/w2")[2] == b""


def test_what_is_wrong_is_named(registry):
    r = registry()
    good = {"name": "a", "host": "h", "port": 1, "hostname": "h", "url": "http://h:1", "status": "running"}
    for change, want in (({"name": None}, '"name": found another type'), ({"port": 70000}, '"port": found something else, expected a number from 1 to 65535'),
                         ({"url": ""}, '"url": found an empty or longer one'), ({"metadata": []}, '"metadata": found no object'),
                         ({"host": "x" * 300}, '"host"')):
        status, answer = r.ask("POST", "/services", {**good, **change})
        assert status == 400 and want in answer["error"]["message"], answer
    for field in good:
        status, answer = r.ask("POST", "/services", {k: v for k, v in good.items() if k != field})
        assert status == 400 and f'"{field}": found none' in answer["error"]["message"]
    assert r.ask("POST", "/services", b"[1]")[0] == 400 and r.ask("POST", "/services", b"{")[0] == 400
    assert request(r.url, "PATCH", "/services")[0] == 405 and request(r.url, "GET", "/nothing")[0] == 404
    assert r.ask("GET", "/services")[1]["total"] == 0


def test_probes(registry):
    """Of a model server the port above is asked, as the babysitter answers there."""
    engine = FakeEngine(reply_completion)
    r = registry("--health-interval", 0)
    r.register("plain", engine.url)
    r.register("model-server", f"http://127.0.0.1:{engine.port - 1}", {"type": "openai-api"})
    for name in ("plain", "model-server"):
        status, found = r.ask("GET", f"/services/{name}/health")
        assert status == 200 and found["health_status"] == "healthy" and found["service"] == name and found["is_healthy"] is True
    engine.close()
    assert r.ask("GET", "/services/plain/health")[1]["health_status"] == "unhealthy"
    assert r.ask("GET", "/services/plain")[1]["is_healthy"] is True, "a probe does not change it"


def test_expiry(registry):
    r = registry("--healthy-secs", 0.5, "--removal-secs", 2, "--cleanup-interval", 0.1)
    r.register("a", "http://127.0.0.1:1")
    wait_for("it to be unhealthy", lambda: r.ask("GET", "/services?healthy=false")[1]["total"] == 1)
    r.ask("POST", "/services/a/heartbeat")
    assert r.ask("GET", "/services?healthy=true")[1]["total"] == 1
    wait_for("it to be removed", lambda: r.ask("GET", "/services")[1]["total"] == 0)
    assert "service a: no heartbeat for" in r.stop()


def test_it_survives_a_restart(registry, tmp_path):
    file = tmp_path / "r.db"
    r = registry("--file", file)
    r.register("a b/c", "http://127.0.0.1:1", {"x": "é"})
    r.register("gone", "http://127.0.0.1:2")
    r.ask("DELETE", "/services/gone")
    r.proc.kill()
    r.proc.wait()
    r = registry("--file", file)
    status, one = r.ask("GET", "/services/a%20b%2Fc")
    assert status == 200 and one["metadata"] == {"x": "é"} and r.ask("GET", "/services")[1]["total"] == 1
    for path, want in ((tmp_path, 3), (tmp_path / "text", 2)):
        (tmp_path / "text").write_text("no database " * 100)
        done = run("registry", "--port", 0, "--file", path)
        assert done.returncode == want and str(path) in done.stderr, done
    assert (tmp_path / "text").read_text().startswith("no database")


# -- a router that takes its workers from there --


def names(router):
    return sorted(w["name"] for w in json.loads(router.admin("GET", "/workers")[2])["workers"])


def test_a_router_follows(registry, pdctl):
    r = registry()
    with FakeEngine(reply_completion) as a, FakeEngine(reply_completion) as b:
        router = pdctl("serve", "--registry-url", r.url, "--registry-sync-interval", 0.1)
        assert router.get("/readiness")[0] == 503
        r.register("a-server", a.url, {"type": "openai-api"})
        r.register("babysitter", "http://127.0.0.1:9", {"type": "vllm"})
        wait_for("the first answer", lambda: router.post("/v1/completions", BODY)[0] == 200)
        r.register("b-server", b.url, {"type": "openai-api", "zone": "x", "weight": 2})
        wait_for("both", lambda: names(router) == ["a-server", "b-server"])
        labels = [w for w in json.loads(router.admin("GET", "/workers")[2])["workers"] if w["name"] == "b-server"][0].get("labels")
        assert labels is None or labels["zone"] == "x"
        r.ask("DELETE", "/services/a-server")
        wait_for("one to be gone", lambda: names(router) == ["b-server"])
        wait_for("the other to serve", lambda: router.post("/v1/completions", BODY)[0] == 200)
        # A registry that is away takes no worker with it.
        r.stop()
        wait_for("the warning", lambda: "the last list of workers stays" in router.log())
        assert router.post("/v1/completions", BODY)[0] == 200 and names(router) == ["b-server"]


def test_roles(registry, pdctl):
    r = registry()
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d:
        router = pdctl("serve", "--pd-disaggregation", "--registry-url", r.url, "--registry-sync-interval", 0.1)
        r.register("p", p.url, {"type": "openai-api", "role": "prefill"})
        r.register("d", d.url, {"type": "openai-api", "role": "decode"})
        r.register("neither", "http://127.0.0.1:9", {"type": "openai-api"})
        wait_for("an answer", lambda: router.post("/v1/completions", BODY)[0] == 200)
        assert names(router) == ["d", "p"] and p.seen


def test_an_answer_that_is_none(pdctl):
    """Whatever stands behind the URL: the router lives and says what it found."""
    answers = [b"", b"[]", b"{}", b'{"services":7}', b'{"services":[1,null,{},{"name":"x"},{"name":"x","url":"nonsense","metadata":{"type":"openai-api"}}]}', b"\xff" * 100]

    def says(seen, wire):
        wire.reply(200, answers[min(len(engine.seen) - 1, len(answers) - 1)])

    with FakeEngine(says) as engine:
        router = pdctl("serve", "--registry-url", engine.url, "--registry-sync-interval", 0.05)
        wait_for("all to be asked", lambda: len(engine.seen) > len(answers) + 2)
        assert router.get("/liveness")[0] == 200 and names(router) == []
        wait_for("the line", lambda: 'found no list "services"' in router.log())
    done = run("serve", "--registry-url", "nonsense")
    assert done.returncode == 2 and "--registry-url" in done.stderr


def test_time_stands_for_itself(registry):
    """last_heartbeat is seconds since 1970, with fractions."""
    r = registry()
    before = time.time()
    made = r.register("a", "http://127.0.0.1:1")[1]["service"]
    assert before - 1 <= made["last_heartbeat"] <= time.time() + 1
