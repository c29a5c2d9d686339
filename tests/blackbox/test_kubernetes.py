"""Workers that are pods, from an API server that plays every odd case (fake_kube.py). The real one: scripts/peers/kubernetes."""

import base64
import json
import pathlib
import socket

import pytest
import yaml

from certs import Authority
from fake_engine import FakeEngine
from fake_kube import FakeKube
from harness import run, wait_for
from test_serve_bytes import reply_completion, reply_prefill

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BODY = {"model": "m", "prompt": "p", "max_tokens": 4}
ROUTE = "/v1/completions"
QUICK = ("--health-check-interval-secs", 0.2, "--retry-initial-backoff-ms", 1)


def at(engine):
    return int(engine.url.rsplit(":", 1)[1])


def workers(router):
    """{name: state} of the workers from Kubernetes."""
    return {w["name"]: w["state"] for w in json.loads(router.admin("GET", "/workers")[2])["workers"] if w["source"] == "kubernetes"}


def names(router):
    return sorted(workers(router))


def serve(pdctl, kube, *flags, port=9):
    return pdctl("serve", *kube.flags, "--service-discovery-port", port, "--service-discovery-namespace", "default", *QUICK, *flags)


def plain(pdctl, kube, *flags, port=9):
    return serve(pdctl, kube, "--selector", "app=vllm", *flags, port=port)


@pytest.mark.parametrize("form", ["events", "threads"])
def test_pods_come_and_go(pdctl, form):
    """Ready: traffic. Not ready: none. Ready again, deleted: none from the beginning of its end."""
    with FakeEngine(reply_completion) as engine, FakeKube() as kube:
        router = plain(pdctl, kube, "--io", form, port=at(engine))
        assert router.post(ROUTE, BODY)[0] == 503
        kube.put("a", ready=False)
        kube.put("other", labels={"app": "web"})
        kube.put("pending", phase="Pending")
        kube.put("nowhere", ip=None)
        kube.put("b", ip="127.0.0.2")
        wait_for("b", lambda: names(router) == ["b"])
        kube.put("a")
        wait_for("a", lambda: workers(router).get("a") == "available")
        assert router.post(ROUTE, BODY)[0] == 200
        kube.put("a", ready=False)
        wait_for("a to leave", lambda: names(router) == ["b"])
        kube.put("a")
        wait_for("a to be back", lambda: workers(router).get("a") == "available")
        kube.put("a", going=True)
        wait_for("a to leave", lambda: names(router) == ["b"])
        kube.delete("a")
        kube.put("b", labels={"app": "web"})
        wait_for("b to leave", lambda: names(router) == [])
        log = router.log()
        for why in ("pod default/a is ready: regular worker http://127.0.0.1:", "pod default/a is not ready: ", "pod default/a is being deleted: ", "pod default/b was deleted: "):
            assert why in log, log
        assert "default/other" not in log and kube.count("list") == 1
        asked = kube.queries("watch")[0]
        assert asked["labelSelector"] == "app=vllm" and asked["allowWatchBookmarks"] == "true"


def test_a_stream_ends_where_it_began(pdctl):
    """A pod that terminates gets no new requests; the one that it answers goes on to its end."""

    def slow(seen, wire):
        if seen.target != ROUTE:
            return wire.json({})
        wire.begin_stream()
        wire.event('{"a":1}')
        wait_for("the pod to leave", lambda: kube.gone, step=0.02)
        wire.event("[DONE]")
        wire.end_stream()

    with FakeEngine(slow) as engine, FakeKube() as kube:
        kube.gone = False
        kube.put("a")
        router = plain(pdctl, kube, port=at(engine))
        wait_for("a", lambda: workers(router).get("a") == "available")
        with socket.create_connection(("127.0.0.1", router.port)) as c:
            data = json.dumps({**BODY, "stream": True}).encode()
            c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
            got = c.recv(65536)
            kube.put("a", going=True)
            wait_for("a to be drained", lambda: workers(router).get("a") == "removing")
            assert router.post(ROUTE, BODY)[0] == 503
            kube.gone = True
            while piece := c.recv(65536):
                got += piece
        assert b"[DONE]" in got
        wait_for("a to be out", lambda: names(router) == [])


def test_roles_ports_and_labels(pdctl):
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d, FakeKube() as kube:
        kube.put("p0", labels={"llm-d.ai/role": "prefill", "app": "x"}, annotations={"vllm.ai/bootstrap-port": "8998"}, node="node-7")
        kube.put("p1", labels={"llm-d.ai/role": "prefill", "app": "x"}, ip="127.0.0.9", annotations={"vllm.ai/bootstrap-port": "many"})
        kube.put("d0", labels={"llm-d.ai/role": "decode", "app": "x"})
        kube.put("d1", labels={"llm-d.ai/role": "decode", "app": "y"}, ip="127.0.0.3")
        router = serve(pdctl, kube, "--pd-disaggregation", "--selector", "app=x", "--prefill-discovery-port", at(p), "--decode-discovery-port", at(d))
        wait_for("both", lambda: {k for k, v in workers(router).items() if v == "available"} == {"p0", "d0"})
        assert names(router) == ["d0", "p0", "p1"]
        headers = router.post(ROUTE, BODY)[1]
        assert headers["X-Prefill-Worker"] == p.url and headers["X-Decode-Worker"] == d.url
        listed = {w["name"]: w for w in json.loads(router.admin("GET", "/workers")[2])["workers"]}
        assert listed["p0"]["labels"] == {"llm-d.ai/role": "prefill", "app": "x", "kubernetes.io/hostname": "node-7"}
        assert kube.queries("list")[0]["labelSelector"] == "app=x,llm-d.ai/role in (prefill,decode)"
        assert "pod default/p1: the annotation vllm.ai/bootstrap-port is no port" in router.log()


def test_all_namespaces_and_other_names(pdctl):
    """Without a namespace workers carry it in their name; with --compat vllm-router they are called as their URL; ranks are workers."""
    with FakeKube() as kube:
        kube.put("a", namespace="one")
        kube.put("a", namespace="two", ip="fd00::1")
        router = pdctl("serve", *kube.flags, "--selector", "app=vllm", "--service-discovery-port", 8000)
        wait_for("both", lambda: names(router) == ["one/a", "two/a"])
        assert {w["url"] for w in json.loads(router.admin("GET", "/workers")[2])["workers"]} == {"http://127.0.0.1:8000", "http://[fd00::1]:8000"}
        compat = pdctl("serve", *kube.flags, "--compat", "vllm-router", "--selector", "app=vllm", "--service-discovery-namespace", "one", "--intra-node-data-parallel-size", 2)
        wait_for("its ranks", lambda: names(compat) == ["http://127.0.0.1:80@0", "http://127.0.0.1:80@1"])


def test_pages(pdctl):
    """Lists come in pages; a page that has expired makes a new list, all at once."""
    with FakeKube(page=2) as kube:
        for i in range(5):
            kube.put(f"p{i}", ip=f"127.0.1.{i}")
        kube.put("p9", phase="Pending")
        router = plain(pdctl, kube)
        wait_for("all", lambda: len(names(router)) == 5)
        assert [q.get("continue") for q in kube.queries("list")] == [None, "c2", "c4"]
        assert all(q["limit"] for q in kube.queries("list"))

        def expired(h, q):
            kube.page = 500
            kube.status(h, 410, "The provided continue parameter is too old")

        kube.scripted["list"] += [lambda h, q: kube.list(h, q, "default"), expired]
        kube.delete("p0", silently=True)
        kube.compact()
        kube.cut()
        wait_for("the list without it", lambda: names(router) == ["p1", "p2", "p3", "p4"])
        assert "limit" not in kube.queries("list")[-1]


def test_more_pods_than_fit(pdctl):
    """The first ones are workers; of the others the log says that they are ignored, and not that they are."""
    with FakeKube() as kube:
        for i in range(1024):
            kube.put(f"p{i:04}", ip=f"127.1.{i // 200}.{i % 200 + 1}")
        router = plain(pdctl, kube)
        wait_for("all", lambda: len(names(router)) == 1024)
        wait_for("the watch", lambda: kube.count("watch") == 1)
        kube.put("one-more", ip="127.0.0.9")
        router.said("pod default/one-more and further ones are ignored: found more than 1024 pods that match")
        kube.delete("p0000")
        kube.put("another", ip="127.0.0.9")
        wait_for("another", lambda: "another" in names(router))
        router.said("pod default/another is ready: ")
        assert "pod default/one-more is ready" not in router.log() and "one-more" not in names(router)


def test_byte_by_byte(pdctl):
    with FakeKube(pieces=1) as kube:
        router = plain(pdctl, kube)
        wait_for("the watch", lambda: kube.count("watch"))
        kube.put("a", labels={"app": "vllm", "x": "y" * 60}, ip="127.0.0.7")
        kube.put("b", ip="127.0.0.8")
        kube.delete("a")
        wait_for("b", lambda: names(router) == ["b"])


def test_the_watch_goes_on_where_it_was(pdctl):
    """What happens while there is no watch is told by the next one; bookmarks count."""
    with FakeKube() as kube:
        kube.put("a")
        router = plain(pdctl, kube)
        wait_for("a", lambda: names(router) == ["a"])
        wait_for("the watch", lambda: kube.count("watch") == 1)
        kube.bookmark()
        kube.put("b", ip="127.0.0.2")
        wait_for("b", lambda: names(router) == ["a", "b"])
        with kube.lock:
            version = str(kube.version)
            kube.scripted["watch"].append(lambda h, q: kube.status(h, 500, "etcdserver: leader changed"))
        kube.cut()
        kube.delete("a")
        wait_for("a to leave", lambda: names(router) == ["b"])
        assert kube.count("list") == 1 and kube.queries("watch")[-1]["resourceVersion"] == version
        wait_for("the line", lambda: "answers again" in router.log())
        assert "found status 500: etcdserver: leader changed, expected 200: the last list of workers stays" in router.log() or "the answer was cut" in router.log()


@pytest.mark.parametrize("how", ["event", "status"])
def test_gone(pdctl, how):
    """410: a new list, which also sees what no watch told."""
    with FakeKube() as kube:
        kube.put("a")
        kube.put("b", ip="127.0.0.2")
        router = plain(pdctl, kube)
        wait_for("both", lambda: names(router) == ["a", "b"])
        wait_for("the watch", lambda: kube.count("watch") == 1)
        kube.delete("a", silently=True)
        kube.compact()
        kube.put("c", ip="127.0.0.3")
        if how == "status":
            kube.scripted["watch"].append(lambda h, q: kube.status(h, 410, "too old resource version"))
        kube.cut()
        wait_for("the new list", lambda: names(router) == ["b", "c"])
        assert kube.count("list") == 2 and kube.count("watch") <= 3, "asked for at once, not after several failures"
        router.said("pod default/a is not listed any more")


def test_gone_for_ever(pdctl):
    """A server that says 410 to each watch is not asked in a loop without a pause."""
    with FakeKube() as kube:
        kube.put("a")
        kube.scripted["watch"] += [lambda h, q: kube.status(h, 410, "too old")] * 4
        router = plain(pdctl, kube)
        wait_for("the fifth", lambda: kube.count("watch") == 5)
        assert names(router) == ["a"]
        wait_for("the failures", lambda: "found status 410: too old" in router.log())


BAD_LINES = {
    "no JSON": (b"nonsense\n", "found no JSON object"),
    "no type": (b'{"object":{}}\n', 'found no "type"'),
    "unknown": (b'{"type":"RENAMED","object":{"metadata":{"name":"a","namespace":"default","resourceVersion":"9"}}}\n', "found 'RENAMED', expected ADDED"),
    "no version": (b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n', "found no metadata.resourceVersion"),
    "no name": (b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"9"}}}\n', "without metadata.name"),
    "too long": (b'{"type":"ADDED","x":"' + b"x" * (4 << 20) + b'"}\n', "is too long"),
}


@pytest.mark.parametrize("bad", BAD_LINES)
def test_an_event_that_cannot_be_read(pdctl, bad):
    """It may have told something: a new list. The workers stay."""
    data, want = BAD_LINES[bad]
    with FakeKube() as kube:
        kube.put("a")
        router = plain(pdctl, kube)
        wait_for("the watch", lambda: kube.count("watch") == 1)
        kube.raw(data)
        wait_for("the new list", lambda: kube.count("list") == 2)
        assert names(router) == ["a"]
        wait_for("the line", lambda: want in router.log())


BAD_LISTS = {
    "no JSON": (lambda k, h, q: k.answer(h, 200, b"<html>"), "found no JSON object"),
    "another kind": (lambda k, h, q: k.answer(h, 200, {"kind": "Pod"}), "expected a PodList"),
    "an odd pod": (lambda k, h, q: k.answer(h, 200, {"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": [7]}), "expected a Pod"),
    "half": (lambda k, h, q: (h.send_response(200), h.send_header("Content-Length", "999"), h.end_headers(), h.wfile.write(b'{"items":['), setattr(h, "close_connection", True)),
             "the answer was cut: byte"),
    "HTTP/2": (lambda k, h, q: (h.wfile.write(b"HTTP/2 200\r\n\r\n"), setattr(h, "close_connection", True)), "malformed or truncated"),
    "401": (lambda k, h, q: k.status(h, 401, "Unauthorized"), "found status 401: Unauthorized, expected 200; expected a valid token or client certificate"),
    "403": (lambda k, h, q: k.status(h, 403, 'pods is forbidden: User "system:serviceaccount:llm:default" cannot list resource "pods" in API group "" in the namespace "default"'),
            "with the verbs get, list and watch on pods"),
    "redirect": (lambda k, h, q: k.answer(h, 302, {}, [("Location", "http://127.0.0.1:1/")]), "found status 302"),
}


@pytest.mark.parametrize("bad", BAD_LISTS)
def test_a_list_that_cannot_be_had(pdctl, bad):
    """Said once, counted, asked again."""
    answer, want = BAD_LISTS[bad]
    with FakeKube() as kube:
        kube.put("a")
        kube.scripted["list"] += [lambda h, q: answer(kube, h, q)] * 2
        router = plain(pdctl, kube, "--log-format", "json")
        wait_for("a", lambda: names(router) == ["a"])
        wait_for("the line", lambda: '"kubernetes_answers"' in router.log())
        lines = [json.loads(x) for x in router.log().splitlines()]
        failed = [x for x in lines if x["msg"] == "kubernetes_failed"]
        assert len(failed) == 1 and want in failed[0]["error"] and failed[0]["server"] == kube.url, failed
        page = router.admin("GET", "/metrics")[2].decode()
        assert 'pdctl_discovery_failures_total{source="kubernetes"} 2\n' in page


def test_retry_after(pdctl):
    """The server says when: not before."""
    with FakeKube() as kube:
        kube.scripted["list"].append(lambda h, q: kube.status(h, 429, "too many requests", [("Retry-After", "1")]))
        router = plain(pdctl, kube)
        wait_for("the second list", lambda: kube.count("list") == 2)
        assert kube.when[1] - kube.when[0] >= 1
        router.said("found status 429: too many requests")


def test_workers_stay_without_the_server(pdctl):
    with FakeEngine(reply_completion) as engine:
        kube = FakeKube()
        kube.put("a")
        router = plain(pdctl, kube, port=at(engine))
        wait_for("a", lambda: workers(router).get("a") == "available")
        kube.cut()
        kube.__exit__()
        wait_for("the line", lambda: "cannot connect" in router.log())
        assert workers(router) == {"a": "available"} and router.post(ROUTE, BODY)[0] == 200


def test_a_server_that_hangs_delays_no_end(pdctl):
    """It accepts and says nothing; SIGTERM ends the router all the same."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        router = pdctl("serve", "--service-discovery", "--kube-api-server", f"http://127.0.0.1:{silent.getsockname()[1]}", "--selector", "a=b")
        peer, _ = silent.accept()
        assert b"GET /api/v1/pods?labelSelector=a%3Db&limit=" in peer.recv(4096)
        router.stop()  # within the harness's limit
        peer.close()


# -- who we are --


def test_tls_and_a_token_that_changes(pdctl, tmp_path):
    """The account's CA is checked; the token's file is read for each request."""
    ca, other = Authority(tmp_path, "Cluster CA"), Authority(tmp_path, "Other CA")
    pair = ca.issue("api", "IP:127.0.0.1")
    token = tmp_path / "token"
    token.write_text("first\n")
    with FakeKube(context=pair.server(), token="second") as kube:
        kube.put("a")
        flags = ("--kube-token-file", token, "--kube-ca-file")
        router = plain(pdctl, kube, *flags, ca.cert)
        wait_for("the refusal", lambda: f"found status 401: Unauthorized, expected 200; expected a valid token in {token}" in router.log())
        token.write_text("second\n")
        wait_for("a", lambda: names(router) == ["a"])
        wrong = plain(pdctl, kube, *flags, other.cert)
        wait_for("the certificate", lambda: "cannot connect: " in wrong.log())
        assert names(wrong) == []
        assert "first" not in router.log() and "second" not in router.log()


def test_kubeconfig(pdctl, tmp_path):
    """Certificates inside the file, a client certificate, the name to expect; the variable when there is no flag."""
    ca = Authority(tmp_path, "Cluster CA")
    pair, client = ca.issue("api", "DNS:kube.example"), ca.issue("client", "DNS:me")
    with FakeKube(context=pair.server(client_ca=ca.cert)) as kube:
        kube.put("a")

        def data(path):
            with open(path, "rb") as f:
                return base64.b64encode(f.read()).decode()

        config = tmp_path / "config"
        config.write_text(f"""apiVersion: v1
kind: Config
preferences: {{}}
current-context: here
contexts:
- name: there
  context: {{cluster: none, user: nobody}}
- name: here
  context:
    cluster: c
    user: u
clusters:
- name: c
  cluster:
    server: {kube.url}
    certificate-authority-data: {data(ca.cert)}
    tls-server-name: kube.example
users:
- name: u
  user:
    client-certificate-data: {data(client.cert)}
    client-key: {client.key}
""")
        for flags, env in ((("--kubeconfig", config), {}), ((), {"KUBECONFIG": str(config)})):
            router = pdctl("serve", "--service-discovery", "--selector", "app=vllm", "--service-discovery-namespace", "default", *flags, env=env)
            wait_for("a", lambda r=router: names(r) == ["a"])


def test_in_a_pod():
    """Where the account's files are not, the log says which one."""
    env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    done = run("serve", "--service-discovery", "--selector", "a=b", "--port", 0, "--admin-port", -1, env=env)
    assert done.returncode == 3 and "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt" in done.stderr


CONFIG = """current-context: x
contexts: [{name: x, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users:
- name: u
  user: {token: t}
"""

WRONG_CONFIGS = {
    "exec": (CONFIG.replace("token: t", "exec: {command: aws}"), ':6:10: "exec" is not supported, expected token'),
    "no context": (CONFIG.replace("current-context: x", "a: b"), "found no current-context"),
    "unknown": (CONFIG.replace("cluster: c,", "cluster: d,"), "found no entry 'd' in clusters"),
    "no server": (CONFIG.replace('server: "https://127.0.0.1:1"', "a: b"), 'found no "server"'),
    "odd server": (CONFIG.replace("https://127.0.0.1:1", "ftp://x"), ":3:"),
    "base64": (CONFIG.replace('"}}', '", certificate-authority-data: "%%%%"}}'), "found no base64"),
    "YAML": ("a: [", ":1:"),
    "nothing": (None, "cannot"),
}


@pytest.mark.parametrize("wrong", WRONG_CONFIGS)
def test_wrong_kubeconfigs(tmp_path, wrong):
    text, want = WRONG_CONFIGS[wrong]
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    done = run("serve", "--service-discovery", "--selector", "a=b", "--port", 0, "--kubeconfig", path)
    assert done.returncode == 2 and f"--kubeconfig: {'' if text is None else path}" in done.stderr and want in done.stderr, done.stderr


WRONG_FLAGS = [
    (("--service-discovery",), "--service-discovery: found no --selector"),
    (("--service-discovery", "--selector", "a"), "--selector: found 'a', expected NAME=VALUE"),
    (("--service-discovery", "--selector", "a=b=c"), "--selector: found 'a=b=c'"),
    (("--service-discovery", "--selector", "a in (b)"), "--selector: found 'a in (b)'"),
    (("--service-discovery", "--selector", "a=b"), "found neither KUBERNETES_SERVICE_HOST"),
    (("--service-discovery", "--selector", "a=b", "--kube-api-server", "nonsense"), "--kube-api-server: "),
    (("--service-discovery", "--selector", "a=b", "--kube-token-file", "x"), "--kube-token-file: found no --kube-api-server"),
    (("--service-discovery", "--selector", "a=b", "--kube-api-server", "http://x", "--kubeconfig", "y"), "--kube-api-server replaces --kubeconfig"),
    (("--service-discovery", "--selector", "a=b", "--kube-api-server", "http://x", "--service-discovery-namespace", "A/B"), "--service-discovery-namespace: found 'A/B'"),
    (("--service-discovery", "--prefill-selector", "=b", "--kube-api-server", "http://x"), "--prefill-selector: found '=b'"),
]


@pytest.mark.parametrize("flags, want", WRONG_FLAGS)
def test_wrong_flags(flags, want):
    env = {"KUBERNETES_SERVICE_HOST": "", "KUBECONFIG": ""}
    done = run("serve", "--port", 0, "--admin-port", -1, *flags, env=env)
    assert done.returncode == 2 and want in done.stderr, done.stderr


def test_flags_without_effect_are_named(pdctl):
    router = pdctl("serve", "--selector", "a=b", "--dns-server", "127.0.0.1")
    wait_for("both", lambda: "--selector has no effect without --service-discovery" in router.log() and "--dns-server has no effect" in router.log())


# -- the pages --


def objects(page):
    """The YAML objects of a page of docs/."""
    text = (ROOT / "docs" / page).read_text()
    return [o for block in text.split("```yaml\n")[1:] for o in yaml.safe_load_all(block.split("```")[0]) if o and "kind" in o]


def test_the_pages_ask_for_the_same_rights():
    roles = [o for page in ("discovery.md", "kubernetes.md") for o in objects(page) if o["kind"] == "Role"]
    assert len(roles) == 2
    for r in roles:
        assert r["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]


def test_the_deployment_of_the_page_starts(pdctl):
    """Its arguments, with the test's API server in the place of the pod's; ports and probes are those that it listens on."""
    pod = next(o for o in objects("kubernetes.md") if o["kind"] == "Deployment")["spec"]["template"]["spec"]
    box = pod["containers"][0]
    args = [x for x in box["args"] if not x.startswith("--metrics-port")]
    assert args[0] == "serve" and pod["terminationGracePeriodSeconds"] > sum(int(x.split("=")[1]) for x in args if x.startswith("--drain-"))
    with FakeKube() as kube:
        kube.put("p0", namespace="llm", labels={"llm-d.ai/role": "prefill"})
        kube.put("d0", namespace="llm", labels={"llm-d.ai/role": "decode"})
        router = pdctl("serve", *args[1:], "--metrics-port", 0, "--kube-api-server", kube.url, "--drain-delay-secs", 0)
        wait_for("both", lambda: names(router) == ["d0", "p0"])
        urls = {w["url"] for w in json.loads(router.admin("GET", "/workers")[2])["workers"]}
        assert urls == {"http://127.0.0.1:8000", "http://127.0.0.1:8200"}
        for probe in ("livenessProbe", "startupProbe"):
            assert router.get(box[probe]["httpGet"]["path"])[0] == 200
        assert router.get(box["readinessProbe"]["httpGet"]["path"])[0] == 503
