"""Spans over OTLP/HTTP: what a collector gets, which requests are sampled, and what happens while there is no collector."""

import contextlib
import http.client
import http.server
import json
import re
import threading

import pytest

from fake_engine import FakeEngine
from harness import free_port, run, wait_for
from test_admin_workers import BODY, ok, plain
from test_pd_faults import fleet

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3}


class Collector:
    """Keeps the spans of what is posted to /v1/traces; `status` is what it answers, once `go` is set."""

    def __init__(self, status=200, port=0):
        outer = self
        self.status, self.posts, self.spans, self.lock, self.go = status, 0, [], threading.Lock(), threading.Event()
        self.go.set()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/json"
                with outer.lock:
                    outer.posts += 1
                    if outer.status == 200:
                        outer.spans += [s for r in body["resourceSpans"] for sc in r["scopeSpans"] for s in sc["spans"]]
                        outer.resource = attributes(body["resourceSpans"][0]["resource"])
                outer.go.wait(60)
                raw = b'{"partialSuccess":{}}'
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def roots(self):
        with self.lock:
            return [s for s in self.spans if s["kind"] == KINDS["SERVER"]]

    def children(self, root):
        with self.lock:
            return {s["name"]: s for s in self.spans if s.get("parentSpanId") == root["spanId"]}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def attributes(thing):
    out = {}
    for a in thing["attributes"]:
        assert a["key"] not in out, f"{a['key']} stands twice"
        (kind, value), = a["value"].items()
        out[a["key"]] = int(value) if kind == "intValue" else value
    return out


def check_shape(span):
    assert re.fullmatch("[0-9a-f]{32}", span["traceId"]) and re.fullmatch("[0-9a-f]{16}", span["spanId"]), span
    assert 0 < int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"]), span
    attributes(span)


def test_a_request_of_two_legs(pdctl):
    with Collector() as collector:
        router, ps, ds = fleet(pdctl, "--otlp-traces-endpoint", f"http://127.0.0.1:{collector.port}", prefill=1, decode=1)
        body = {"model": "m", "prompt": "tell me a story", "max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}}
        assert router.post("/v1/completions", body, headers={"X-Session-Id": "secret-session"})[0] == 200
        root = wait_for("its spans", collector.roots)[0]
        children = collector.children(root)
        assert set(children) == {"pick", "prefill", "hand-over", "decode"}
        for span in (root, *children.values()):
            check_shape(span)
            assert span["traceId"] == root["traceId"]
            assert int(root["startTimeUnixNano"]) <= int(span["startTimeUnixNano"]) and int(span["endTimeUnixNano"]) <= int(root["endTimeUnixNano"])
        assert len({s["spanId"] for s in (root, *children.values())}) == 5
        assert int(children["prefill"]["endTimeUnixNano"]) == int(children["hand-over"]["startTimeUnixNano"])
        assert int(children["hand-over"]["endTimeUnixNano"]) == int(children["decode"]["startTimeUnixNano"])
        assert [children[n]["kind"] for n in ("pick", "prefill", "hand-over", "decode")] == [1, 3, 1, 3]
        assert attributes(children["prefill"])["server.address"] == ps[0].url and attributes(children["decode"])["server.address"] == ds[0].url
        said = attributes(root)
        assert root["name"] == "text_completion m" and "parentSpanId" not in root and "status" not in root
        assert said["gen_ai.operation.name"] == "text_completion" and said["gen_ai.request.model"] == "m"
        assert said["gen_ai.usage.output_tokens"] == 5 and said["gen_ai.usage.input_tokens"] > 0
        assert said["http.response.status_code"] == 200 and said["http.request.method"] == "POST" and said["url.path"] == "/v1/completions"
        assert 0 < said["gen_ai.response.time_to_first_chunk"] < 60 and said["pdctl.attempts"] == 1
        assert said["pdctl.prefill.worker"] == ps[0].url and said["pdctl.decode.reason"] == "rotation"
        assert "secret-session" not in json.dumps(collector.spans) and re.fullmatch("[0-9a-f]{16}", said["pdctl.session.key_hash"])
        assert collector.resource["service.name"] == "pdctl"
        wait_for("them to be counted", lambda: router.admin("GET", "/metrics")[2].find(b"pdctl_spans_sent_total 5") > 0)


def test_a_clients_trace_goes_on_through_the_router(pdctl):
    with Collector() as collector, FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}", flags=("--otlp-traces-endpoint", f"127.0.0.1:{collector.port}", "--otel-sampling-ratio", 0))
        one.seen.clear()
        given = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=1"}
        assert router.post("/v1/completions", BODY, headers=given)[0] == 200
        root = wait_for("its spans", collector.roots)[0]
        assert (root["traceId"], root["parentSpanId"]) == (TRACE, PARENT)
        seen = one.seen[-1]
        assert seen.header("traceparent") == f"00-{TRACE}-{root['spanId']}-01" and seen.header("tracestate") == "a=1"
        assert set(collector.children(root)) == {"pick", "worker"}
        # Not recorded: the context passes as it is, whatever the flags besides the last bit say.
        for flags in ("00", "02", "fe"):
            assert router.post("/v1/completions", BODY, headers={"traceparent": f"00-{TRACE}-{PARENT}-{flags}"})[0] == 200
            assert one.seen[-1].header("traceparent") == f"00-{TRACE}-{PARENT}-{flags}"
        # And without a context the ratio counts, which is 0 here.
        assert router.post("/v1/completions", BODY)[0] == 200
        assert one.seen[-1].header("traceparent") is None
        assert router.post("/v1/completions", BODY, headers={"traceparent": f"00-{TRACE}-{PARENT}-03"})[0] == 200
        wait_for("the last one", lambda: len(collector.roots()) >= 2)
        assert len(collector.roots()) == 2


def test_the_ratio_is_about_right_and_generated_contexts_say_it(pdctl):
    with Collector() as collector, FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}", flags=("--otlp-traces-endpoint", f"http://127.0.0.1:{collector.port}/v1/traces", "--otel-sampling-ratio", 0.5,
                                                      "--generate-traceparent"))
        one.seen.clear()
        for _ in range(200):
            assert router.post("/v1/completions", BODY)[0] == 200
        flags = [s.header("traceparent")[-2:] for s in one.seen if s.target == "/v1/completions"]
        sampled = flags.count("01")
        assert set(flags) == {"00", "01"} and 60 < sampled < 140, "200 coins: 5.6 standard deviations"
        wait_for("the sampled ones", lambda: len(collector.roots()) >= sampled)
        assert len(collector.roots()) == sampled
        assert len({s["traceId"] for s in collector.roots()}) == sampled


def test_a_failure_is_an_error_span(pdctl):
    def refuses(seen, wire):
        wire.json({"error": {"message": "broken"}}, 500)

    with Collector() as collector, FakeEngine(refuses) as one, FakeEngine(refuses) as two:
        router = plain(pdctl, one.url, two.url, flags=("--otlp-traces-endpoint", f"http://127.0.0.1:{collector.port}", "--retry-max-retries", 2))
        assert router.post("/v1/chat/completions", {"model": "m", "messages": []}, headers={"X-Request-Id": 'r"<x>\\'})[0] == 500
        root = wait_for("its spans", collector.roots)[0]
        check_shape(root)
        said = attributes(root)
        assert root["status"] == {"code": 2} and said["error.type"] and said["http.response.status_code"] == 500
        assert said["pdctl.attempts"] == 2 and said["pdctl.request_id"] == 'r"<x>\\' and said["gen_ai.operation.name"] == "chat" and said["pdctl.last_failure"]


def test_without_a_collector_requests_go_on_and_losses_are_told(pdctl):
    """Nobody listens: the router serves, counts what it lost, and ends in time."""
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}", flags=("--otlp-traces-endpoint", f"http://127.0.0.1:{free_port()}"))
        for _ in range(20):
            assert router.post("/v1/completions", BODY)[0] == 200
        assert b"pdctl_spans_sent_total 0" in router.admin("GET", "/metrics")[2]
        router.signal(15)
        assert router.wait() == 0
        assert re.search(r"traces: \d+ spans lost: .*connect", router.log())


def test_a_collector_that_is_busy_for_a_moment_gets_them_later(pdctl):
    with Collector(status=503) as collector, FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}", flags=("--otlp-traces-endpoint", f"http://127.0.0.1:{collector.port}"))
        assert router.post("/v1/completions", BODY)[0] == 200
        wait_for("a post that is refused", lambda: collector.posts > 0)
        collector.status = 200
        wait_for("the same again", collector.roots)
        assert b"pdctl_spans_failed_total 0" in router.admin("GET", "/metrics")[2]


def test_what_the_queue_does_not_hold_is_dropped_and_told(pdctl):
    """The collector takes a first post and does not answer: meanwhile 304 more end than the queue holds, three spans each."""
    with Collector() as collector, FakeEngine(ok) as one:
        collector.go.clear()
        router = plain(pdctl, f"w0={one.url}", flags=("--otlp-traces-endpoint", f"http://127.0.0.1:{collector.port}"))
        assert router.post("/v1/completions", BODY)[0] == 200
        wait_for("the first post", lambda: collector.posts == 1)

        def client():
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", router.port, timeout=60)) as conn:
                for _ in range(1100):
                    conn.request("POST", "/v1/completions", b'{"prompt":"a"}')
                    conn.getresponse().read()

        clients = [threading.Thread(target=client) for _ in range(4)]
        for c in clients:
            c.start()
        for c in clients:
            c.join()
        wait_for("the rest to be dropped", lambda: router.metric("pdctl_spans_dropped_total") == 3 * (4400 - 4096))
        collector.go.set()
        router.said("traces: 912 spans lost: the queue is full")
        wait_for("all others to be sent", lambda: router.metric("pdctl_spans_sent_total") == 3 * 4097)
        assert router.metric("pdctl_spans_failed_total") == 0


def test_a_collector_that_refuses_is_not_asked_again(pdctl):
    with Collector(status=400) as collector, FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}", flags=("--otlp-traces-endpoint", f"http://127.0.0.1:{collector.port}"))
        assert router.post("/v1/completions", BODY)[0] == 200
        router.said("spans lost: the collector answered 400")
        assert collector.posts == 1 and b"pdctl_spans_failed_total 3" in router.admin("GET", "/metrics")[2]


@pytest.mark.parametrize("words, says", [
    (("--otlp-traces-endpoint", "ftp://x"), "--otlp-traces-endpoint: found 'ftp://x', expected http"),
    (("--otlp-traces-endpoint", "http://"), "--otlp-traces-endpoint: found 'http://'"),
    (("--otlp-traces-endpoint", "http://x:99999"), "--otlp-traces-endpoint: found 'http://x:99999'"),
    (("--otel-sampling-ratio", "1.5"), "--otel-sampling-ratio"),
])
def test_bad_flags(words, says):
    done = run("serve", "--worker-urls", "http://127.0.0.1:1", *words, "--port", 0, "--admin-port", -1)
    assert done.returncode == 2 and says in done.stderr
