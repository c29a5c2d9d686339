"""Workers that register themselves: at a router by ZeroMQ, in a service registry; and the command lines of vllm serve."""

import json

import msgpack
import pytest
import zmq

import harness
from harness import free_port, run, wait_for

TEXT = "/v1/completions"
FAST = ["--decode-ms-per-token", 0]
BODY = {"model": "m", "prompt": "a b c", "max_tokens": 3}


def urls(router):
    return sorted(w["url"] for w in json.loads(router.admin("GET", "/workers")[2])["workers"])


def test_one_command_for_a_worker(pdctl):
    """Workers before the router; the router starts again; a worker that is gone leaves the list."""
    at = free_port()
    join = ["--register", f"127.0.0.1:{at}", *FAST]
    p, d = (pdctl.worker("--role", r, *join) for r in ("prefill", "decode"))
    p.said("takes no registration yet")
    serve = ["serve", "--pd-disaggregation", "--vllm-discovery-address", f"127.0.0.1:{at}"]
    router = pdctl(*serve)
    wait_for("both", lambda: urls(router) == sorted([p.url, d.url]))
    wait_for("an answer", lambda: router.post(TEXT, BODY)[0] == 200)
    assert router.post(TEXT, BODY)[1]["X-Prefill-Worker"] == p.url
    router.stop()
    again = pdctl(*serve)
    wait_for("both again", lambda: urls(again) == sorted([p.url, d.url]))
    wait_for("an answer", lambda: again.post(TEXT, BODY)[0] == 200)
    p.stop()
    wait_for("it to leave", lambda: urls(again) == [d.url], timeout=30)


def heard(socket, timeout=30):
    assert socket.poll(timeout * 1000), "no registration"
    return socket.recv_multipart()


def test_the_message(pdctl):
    """As pyzmq's ROUTER reads it: the identity and one map."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as s:
        port = s.bind_to_random_port("tcp://127.0.0.1")
        kv = free_port()
        w = pdctl.worker("--role", "prefill", "--kv-connector", "P2pNcclConnector", "--kv-port", kv, "--register", f"127.0.0.1:{port}")
        identity, text = heard(s)
        assert identity.decode() == f"127.0.0.1:{kv}"
        assert msgpack.unpackb(text) == {"type": "P", "http_address": f"127.0.0.1:{w.port}", "zmq_address": f"127.0.0.1:{kv}"}
        assert heard(s) == [identity, text], "again after 3 s"
        w.stop()
        config = {"kv_connector": "MoRIIOConnector", "kv_role": "kv_consumer",
                  "kv_connector_extra_config": {"proxy_ip": "127.0.0.1", "proxy_ping_port": str(port), "handshake_port": kv, "read_mode": True}}
        w = pdctl("worker", "serve", "m", "--kv-transfer-config", json.dumps(config), "-tp", 2, "--data-parallel-size", 2)
        message = msgpack.unpackb(heard(s)[1])
        assert message == {"type": "D", "http_address": f"127.0.0.1:{w.port}", "tp_size": 2, "dp_size": 2, "transfer_mode": "READ",
                           "zmq_address": f"host:127.0.0.1,handshake:{kv},notify:{kv}"}


def services(registry):
    return {s["name"]: s for s in registry.get_json("/services")["services"]}


def test_a_service_registry(pdctl):
    """Two entries with heartbeats; registered again when the registry has forgotten them; gone at the end."""
    port = free_port()
    registry = pdctl("registry", "--healthy-secs", 5, port=port)
    flags = ["--registry-url", registry.url, "--registry-heartbeat", 0.2, *FAST]
    one = pdctl.worker(*flags, "--registry-name", "master", "--health-port", 0, "--registry-metadata", "cache_type=paged", "weight=2")
    two = pdctl.worker(*flags, "--health-port", 0)
    wait_for("all entries", lambda: len(services(registry)) == 4)
    server, sitter = services(registry)["master-server"], services(registry)["master"]
    assert server["port"] == one.port and server["url"] == one.url and server["status"] == "running"
    meta = server["metadata"]
    assert (meta["type"], meta["parent_service"], meta["babysitter"], meta["models"], meta["cache_type"]) == (
        "openai-api", "master", "enhanced", ["m"], "paged")
    assert meta["models_list"][0]["id"] == "m" and meta["models_list"][0]["max_model_len"] == 131072
    assert sitter["metadata"]["type"] == "pdctl-worker" and sitter["port"] != one.port
    pages = sitter["url"]
    health = harness.request(pages, "GET", "/health")
    assert health[0] == 200 and json.loads(health[2])["infinilm_server_port"] == one.port
    assert json.loads(harness.request(pages, "GET", "/models")[2])["data"][0]["id"] == "m"
    info = json.loads(harness.request(pages, "GET", "/info")[2])
    assert (info["name"], info["port"], info["url"], info["restart_count"]) == ("master", one.port, one.url, 0)
    one.post("/pdctl/faults", {"unhealthy": True})
    assert harness.request(pages, "GET", "/health")[0] == 503, "a babysitter that knows its engine"
    one.post("/pdctl/faults", {"unhealthy": False})
    beat = sitter["last_heartbeat"]
    wait_for("a heartbeat", lambda: services(registry)["master"]["last_heartbeat"] > beat)
    router = pdctl("serve", "--registry-url", registry.url, "--registry-sync-interval", 0.1, "--policy", "round_robin")
    wait_for("both", lambda: urls(router) == sorted([one.url, two.url]))
    wait_for("an answer", lambda: router.post(TEXT, BODY)[0] == 200)
    two.stop()
    assert len(services(registry)) == 2, "gone when the process is"
    registry.kill()
    forgetful = pdctl("registry", port=port)
    wait_for("them in the new one", lambda: set(services(forgetful)) == {"master", "master-server"})


def test_a_command_line_of_vllm(pdctl):
    config = {"kv_connector": "NixlConnector", "kv_role": "kv_producer"}
    w = pdctl("worker", "serve", "meta-llama/Llama-3.1-8B", "--max_model_len=4096", "-tp", 2, "--block-size", 128, "--enable-prefix-caching",
              "--gpu-memory-utilization", "0.9", "--disable-log-requests", "--trust-remote-code", "--enforce_eager", "--lora-modules",
              "sql=/adapters/sql", "--kv-transfer-config", json.dumps(config))
    w.said("accepted without effect: --gpu-memory-utilization, --enforce-eager, --trust-remote-code, --disable-log-requests\n")
    models = w.get_json("/v1/models")["data"]
    assert [(m["id"], m["parent"], m["max_model_len"]) for m in models] == [
        ("meta-llama/Llama-3.1-8B", None, 4096), ("sql", "meta-llama/Llama-3.1-8B", 4096)]
    assert w.post(TEXT, {**BODY, "model": "sql"})[0] == 200
    params = {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None}
    offered = w.post_json(TEXT, {**BODY, "model": "sql", "max_tokens": 1, "kv_transfer_params": params})["kv_transfer_params"]
    assert offered["tp_size"] == 2
    quiet = pdctl("worker", "--model", "a", "--served-model-name", "b", "c")
    assert [m["id"] for m in quiet.get_json("/v1/models")["data"]] == ["b", "c"] and "without effect" not in quiet.log()


def test_without_a_prefix_cache(pdctl):
    w = pdctl.worker(*FAST, "--no-enable-prefix-caching")
    body = {**BODY, "prompt": " ".join(f"w{i}" for i in range(100))}
    for _ in range(2):
        assert w.post_json(TEXT, body)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


@pytest.mark.parametrize("args,want", [
    (["--register", "nonsense", "--role", "prefill"], "--register: found 'nonsense', expected HOST:PORT"),
    (["--register", "127.0.0.1:1"], "--register: found a worker for both roles, expected --role prefill or decode"),
    (["--registry-name", "x"], "--registry-name requires --registry-url URL"),
    (["--registry-url", "ftp://x"], "--registry-url: "),
    (["--registry-url", "http://127.0.0.1:1", "--registry-metadata", "x"], "--registry-metadata: found 'x', expected KEY=VALUE"),
    (["--registry-url", "http://127.0.0.1:1", "--registry-name", "a/b"], "--registry-name: found 'a/b', expected a name"),
    (["--kv-connector", "nixle"], "--kv-connector: unknown connector 'nixle', did you mean 'nixl'?"),
    (["--kv-connector", "sglang"], "--kv-connector sglang requires --role prefill or decode"),
    (["--kv-connector", "mooncake", "--kv-transfer-mode", "push"], "--kv-transfer-mode push: the connector is mooncake"),
    (["--bootstrap-port", "1"], "--bootstrap-port: the connector nixl has no bootstrap server"),
    (["--shared-storage-path", "/x"], "--shared-storage-path: the connector nixl has none"),
    (["--kv-transfer-config", "{"], "--kv-transfer-config: found '{', expected a JSON object"),
    (["--kv-transfer-config", "{}"], "--kv-transfer-config: found no \"kv_connector\""),
    (["--kv-transfer-config", '{"kv_connector":"NixlConnector","kv_role":"x"}'], "found kv_role 'x', expected kv_both, kv_producer or kv_consumer"),
    (["--kv-transfer-config", '{"kv_connector":"P2pNcclConnector","kv_port":"99999"}'], "found kv_port '99999', expected a port"),
    (["--kv-transfer-config", '{"kv_connector":"NixlConnector","kv_role":"kv_producer"}', "--role", "decode"], "found kv_role kv_producer with --role decode"),
    (["--kv-transfer-config", '{"kv_connector":"P2pNcclConnector","kv_connector_extra_config":{"proxy_ip":"x","proxy_port":"y"}}'],
     "found proxy_port 'y', expected a port"),
    (["--kv-transfer-config", '{"kv_connector":"P2pNcclConnector","kv_connector_extra_config":{"proxy_ip":"a b","proxy_port":"1"}}'],
     "--kv-transfer-config: proxy_ip: found 'a b:1', expected HOST:PORT"),
    (["--role", "prefill", *["--register", "127.0.0.1:1"] * 17], "--register: found 17 routers, expected at most 16"),
    (["serve", "a", "b"], "unexpected argument 'b'"),
    (["serve", "a", "--model", "b"], "found the model 'a' and --model, expected one"),
    (["--data-parallel-size", "0"], "--data-parallel-size: found 0, expected 1 to 64"),
])
def test_mistakes_are_named(args, want):
    done = run("worker", *args)
    assert done.returncode == 2 and want in done.stderr, done.stderr


# -- data-parallel ranks --


def of_rank(w, name):
    return {k.split('"')[1]: v for k, v in w.metrics().items() if k.startswith(name + "{engine=")}


def test_ranks(pdctl):
    """Each rank has a cache of its own; the header says which one; without it the least loaded."""
    w = pdctl.worker(*FAST, "--data-parallel-size", 3)
    body = {**BODY, "prompt": " ".join(f"w{i}" for i in range(100))}
    cached = [w.post_json(TEXT, body, {"X-data-parallel-rank": str(r)})["usage"]["prompt_tokens_details"]["cached_tokens"] for r in (1, 1, 2, 1)]
    assert cached[0] == 0 == cached[2] and cached[1] == cached[3] > 0
    asked = of_rank(w, "vllm:prefix_cache_queries_total")
    assert asked["1"] == 3 * asked["2"] > 0 and asked["0"] == 0
    for bad in ("3", "-1", "x", ""):
        status, _, raw = w.post(TEXT, body, {"X-data-parallel-rank": bad})
        assert status == 400 and "expected 0 to 2" in raw.decode(), bad


def test_ranks_behind_a_router(pdctl):
    """The ranks of a pair hand KV over, as `@rank` workers of the router."""
    p, d = (pdctl.worker(*FAST, "--strict", "--role", r, "-dp", 2) for r in ("prefill", "decode"))
    router = pdctl("serve", "--pd-disaggregation", "--intra-node-data-parallel-size", 2, "--prefill", p.url, "--decode", d.url, "--policy", "round_robin")
    wait_for("an answer", lambda: router.post(TEXT, BODY)[0] == 200)
    heads = [router.post(TEXT, BODY)[1] for _ in range(4)]
    for x in ("Prefill", "Decode"):
        assert {h[f"X-{x}-Worker"][-2:] for h in heads} == {"@0", "@1"}
    assert d.metric("pdctl_worker_protocol_mistakes_total") == 0 == p.metric("pdctl_worker_protocol_mistakes_total")
    assert d.metric("pdctl_worker_kv_reads_total") >= 5
