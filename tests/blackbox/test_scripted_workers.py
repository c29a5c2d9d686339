"""Answers that real engines, gateways and broken ones give: what the client must get of each, plain and as the decode leg of P/D.

Each script is the bytes of a worker's answer; `right` says what the client may see. Both forms of the server.
"""

import json
import re
import threading
import time
import urllib.parse

import pytest

from fake_engine import FakeEngine
from harness import sse_events, wait_for
from test_serve_bytes import pd_pair, reply_completion, reply_prefill

pytestmark = pytest.mark.both_forms

ROUTE = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**BODY, "stream": True}
MODES = ["plain", "decode leg"]


def chat(delta, **more):
    return {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}


class Router:
    """A router before one scripted worker, which is the pool or the decode worker; requests are streams unless said otherwise."""

    def __init__(self, pdctl, mode, script, flags=()):
        self.engine = FakeEngine(script)
        self.prefill = FakeEngine(reply_prefill) if mode != "plain" else None
        if self.prefill:
            self.router = pd_pair(pdctl, self.prefill, self.engine, *flags)
        else:
            self.router = pdctl("serve", "--worker-urls", f"d1={self.engine.url}", *flags)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.engine.close()
        self.engine.check()
        if self.prefill:
            self.prefill.close()

    def post(self, body=None, path=ROUTE, headers=None):
        return self.router.post(path, body or STREAM, headers)

    def raw(self, body=None, path=ROUTE):
        """An open connection with the request sent."""
        text = json.dumps(body or STREAM).encode()
        sock = self.router.connect()
        sock.sendall(b"POST %s HTTP/1.1\r\nHost: r\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                     % (path.encode(), len(text), text))
        return sock


@pytest.fixture(params=MODES)
def scripted(request, pdctl):
    made = []

    def make(script, *flags):
        made.append(Router(pdctl, request.param, script, flags))
        return made[-1]

    yield make
    for one in made:
        one.__exit__()


def stream_of(data, sizes):
    """The bytes as chunks of these sizes, repeated."""

    def script(seen, wire):
        wire.begin_stream()
        at = i = 0
        while at < len(data):
            n = sizes[i % len(sizes)]
            wire.chunk(data[at:at + n])
            at += n
            i += 1
        wire.end_stream()

    return script


def read_until(sock, mark, timeout=15):
    sock.settimeout(timeout)
    got = b""
    while mark not in got:
        more = sock.recv(65536)
        assert more, got
        got += more
    return got


# -- streams whose bytes must arrive as they are --

TEXT = "Grüße, 你好, 🦙🦙, \u2028 und e\u0301"
TOOL = [
    {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": "{\"a\\n\\nb\": \"data: x"}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": "\\u00e9\"}"}}]},
]


def sse(*events, end="\n"):
    return b"".join(b"data: " + json.dumps(e, ensure_ascii=False).encode() + 2 * end.encode() for e in events)


DONE = b"data: [DONE]\n\n"
SAME = {
    "UTF-8": sse(*(chat({"content": c}) for c in TEXT)) + DONE,
    "tool calls": sse(*map(chat, TOOL)) + DONE,
    "packed events": sse(*(chat({"content": str(i)}) for i in range(50))) + DONE,
    "comments between events": b": a\n\n" + sse(chat({"content": "x"})) + b": b\n: c\n\n:\n\n" + DONE,
    "comments without blank lines": b": a\n" + sse(chat({"content": "x"})) + b": b\n:\n" + DONE,
    "CRLF": sse(chat({"content": "x"}), chat({"content": "y"}), end="\r\n") + b"data: [DONE]\r\n\r\n",
    "CR": sse(chat({"content": "x"}), chat({"content": "y"}), end="\r") + b"data: [DONE]\r\r",
    "several data lines an event": b'data: {"id":"c",\ndata: "choices":[]}\n\nevent: x\nid: 7\nretry: 10\ndata: a\ndata\ndata:b\n\n' + DONE,
    "byte order mark": b"\xef\xbb\xbf" + sse(chat({"content": "x"})) + DONE,
    "no blank line at the end": sse(chat({"content": "x"})) + b"data: [DONE]",
    "not UTF-8": b"data: \xff\xfe\x80\n\n" + DONE,
    "only [DONE]": DONE,
    "nothing": b"",
    "blank lines": b"\n\n\n\n" + DONE,
    "error inside": sse(chat({"content": "x"})) + b'data: {"error":{"message":"engine died at http://10.9.9.9:1","code":500}}\n\n' + DONE,
    "a large event": sse(chat({"content": "x" * 300000})) + DONE,
    "NUL": b"data: a\x00b\n\n" + DONE,
    "Anthropic events": b'event: message_start\ndata: {"type":"message_start"}\n\nevent: ping\ndata: {"type": "ping"}\n\n'
                        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}
CUTS = {"one byte": [1], "odd pieces": [3, 1, 7, 2, 50, 11], "whole": [1 << 20]}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", SAME)
def test_a_stream_passes_as_it_is(scripted, name, cut):
    data = SAME[name]
    sizes = CUTS[cut] if len(data) < 10000 or cut == "whole" else [4099]
    with scripted(stream_of(data, sizes)) as r:
        for _ in range(2):  # on a connection that was kept
            status, headers, got = r.post()
            assert (status, got) == (200, data)
            assert headers["Content-Type"] == "text/event-stream"


@pytest.mark.parametrize("end", ["close", "length"])
@pytest.mark.parametrize("name", ["UTF-8", "comments without blank lines", "no blank line at the end", "CR"])
def test_a_stream_without_chunks(scripted, name, end):
    data = SAME[name]

    def script(seen, wire):
        length = f"Content-Length: {len(data)}\r\n" if end == "length" else ""
        wire.raw(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{length}Connection: close\r\n\r\n".encode())
        for i in range(0, len(data), 13):
            wire.raw(data[i:i + 13])
        wire.keep = False

    with scripted(script) as r:
        assert r.post()[::2] == (200, data)


# -- time --


@pytest.mark.parametrize("line", [b": ping\n", b": ping\r\n", b":\n", b": ping\n\n"])
@pytest.mark.parametrize("at", ["first", "between"])
def test_a_comment_passes_at_once(scripted, line, at):
    def script(seen, wire):
        wire.begin_stream()
        if at == "between":
            wire.event(chat({"content": "x"}))
        wire.chunk(line)
        assert arrived.wait(30)
        wire.chunk(DONE)
        wire.end_stream()

    arrived = threading.Event()
    with scripted(script) as r, r.raw() as sock:
        read_until(sock, line)
        arrived.set()
        read_until(sock, b"0\r\n\r\n")


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_comment_inside_an_unfinished_event_passes_at_once(scripted, step):
    """Readers skip it wherever it stands, so it overtakes the event around it, which stays whole."""
    before, pings, after = b"event: message\ndata: {\"choices\":\n", [b": ping\n", b":\n", b": " + b"x" * 300 + b"\r\n"], b"data: []}\n\n"

    def script(seen, wire):
        wire.begin_stream()
        wire.event(chat({"content": "x"}))
        for line in (before, *pings):
            for i in range(0, len(line), step):
                wire.chunk(line[i:i + step])
            wire.chunk(b"id: 1\n")
            assert line == before or arrived.acquire(timeout=30)
        wire.chunk(after + DONE)
        wire.end_stream()

    arrived = threading.Semaphore(0)
    with scripted(script) as r, r.raw() as sock:
        got = b""
        for line in pings:
            got += read_until(sock, line)
            assert b"message" not in got, "the event waits for its end"
            arrived.release()
        got += read_until(sock, b"0\r\n\r\n")
        assert b"event: message\ndata: {\"choices\":\nid: 1\nid: 1\nid: 1\nid: 1\ndata: []}\n\n" in got


def test_an_event_of_comments_and_death_is_ended_by_an_error_event(scripted):
    """Behind a comment line without a blank line the stream stands between two events."""

    def script(seen, wire):
        wire.begin_stream()
        wire.event(chat({"content": "x"}))
        wire.chunk(b": ping\n")
        wire.keep = False

    with scripted(script) as r:
        status, _, got = r.post()
        assert status == 200
        last = sse_events(got.replace(b": ping\n", b""))[-1]
        assert json.loads(last)["error"]["code"] == 502


def test_a_slow_drip_arrives_event_by_event(scripted):
    def script(seen, wire):
        wire.begin_stream()
        for i in range(4):
            for byte in sse(chat({"content": str(i)})):
                wire.chunk(bytes([byte]))
            time.sleep(0.15)
        wire.end_stream()

    with scripted(script) as r, r.raw() as sock:
        seen = []
        got = b""
        sock.settimeout(30)
        while not got.endswith(b"0\r\n\r\n"):
            got += sock.recv(65536)
            seen.append(got.count(b"finish_reason"))
        assert set(seen) >= {1, 2, 3, 4}


# -- answers that are no stream --


def test_one_document_to_a_stream_request(scripted):
    """An engine or a proxy that does not stream: what it says is passed on, with its type."""
    document = {"id": "c", "object": "chat.completion", "choices": [{"message": {"content": "x"}}]}
    with scripted(lambda seen, wire: wire.json(document)) as r:
        status, headers, got = r.post()
        assert (status, json.loads(got), headers["Content-Type"]) == (200, document, "application/json")


@pytest.mark.parametrize("status", [204, 304])
def test_no_body(scripted, status):
    with scripted(lambda seen, wire: wire.raw(b"HTTP/1.1 %d X\r\nX-A: b\r\n\r\n" % status)) as r:
        for _ in range(2):
            got, headers, body = r.post()
            assert (got, headers["X-A"], body) == (status, "b", b"")
            assert headers["Content-Length"] is None and headers["Transfer-Encoding"] is None


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 3 * b"HTTP/1.1 102 P\r\n\r\n"])
def test_interim_answers(scripted, interim):
    def script(seen, wire):
        wire.raw(interim)
        stream_of(SAME["UTF-8"], [100])(seen, wire)

    with scripted(script) as r:
        for _ in range(2):
            assert r.post()[::2] == (200, SAME["UTF-8"])


def test_trailers_do_not_reach_the_client(scripted):
    def script(seen, wire):
        wire.begin_stream(headers=[("Trailer", "X-Worker")])
        wire.chunk(DONE)
        wire.raw(b"0\r\nX-Worker: http://evil\r\nX-Check: 1\r\n\r\n")

    with scripted(script) as r:
        for _ in range(2):
            with r.raw() as sock:
                got = read_until(sock, b"\r\n0\r\n\r\n")
                assert b"evil" not in got and b"X-Check" not in got


def test_large_header_fields(scripted):
    large = "v" * 30000

    def script(seen, wire):
        wire.json({"ok": True}, headers=[("X-Large", large), *((f"X-{i}", "y" * 100) for i in range(80))])

    with scripted(script) as r:
        status, headers, _ = r.post()
        assert (status, headers["X-Large"], headers["X-79"]) == (200, large, "y" * 100)


@pytest.mark.parametrize("name,script", {
    "head over 64 KiB": lambda seen, wire: wire.json({}, headers=[("X-Large", "v" * 70000)]),
    "no HTTP": lambda seen, wire: wire.raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "two lengths": lambda seen, wire: wire.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "length and chunks": lambda seen, wire: wire.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a chunk without a size": lambda seen, wire: wire.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    "a switch of protocols": lambda seen, wire: wire.raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "endless interim answers": lambda seen, wire: wire.raw(1000 * b"HTTP/1.1 100 Continue\r\n\r\n"),
}.items(), ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_no_answer_is_a_502_without_an_address(scripted, name, script):
    def close_after(seen, wire):
        script(seen, wire)
        wire.keep = False

    with scripted(close_after, "--retry-initial-backoff-ms", 1) as r:
        status, headers, got = r.post()
        assert status == 502, (status, got)
        assert json.loads(got)["error"]["message"]
        assert b"127.0.0.1" not in got and str(r.engine.port).encode() not in got
        assert b"worker d1" in got


def test_an_error_document_with_an_odd_type(scripted):
    for status in (400, 404, 422):
        with scripted(lambda seen, wire: wire.reply(status, b"<html>no</html>", "text/html; charset=utf-8")) as r:
            got, headers, body = r.post()
            assert (got, body, headers["Content-Type"]) == (status, b"<html>no</html>", "text/html; charset=utf-8")


# -- addresses --


def redirect(own):
    """Starlette's redirect_slashes: Location is made from Host."""

    def script(seen, wire):
        path = seen.target.split("?")[0]
        if path.endswith("/"):
            place = f"http://{seen.header('host')}{path.rstrip('/')}"
            wire.reply(307, b"", headers=[("Location", place)])
        else:
            own(seen, wire)

    return script


@pytest.mark.parametrize("path", [ROUTE + "/", ROUTE + "//", ROUTE + "/?a=b/"])
def test_a_slash_at_the_end_is_no_redirect(scripted, path):
    with scripted(redirect(reply_completion)) as r:
        status, _, _ = r.post(BODY, path)
        assert status == 200
        assert r.engine.seen[-1].target == ROUTE + (path[path.index("?"):] if "?" in path else "")


@pytest.mark.parametrize("place,right", [
    ("http://{host}/v1/x?y=1#z", "/v1/x?y=1#z"),
    ("HTTP://{host}/v1/x", "/v1/x"),
    ("https://{host}/v1/x", "/v1/x"),
    ("//{host}/v1/x", "/v1/x"),
    ("http://{host}", "/"),
    ("http://{host}?a", "/?a"),
    ("http://{host}//evil.example/x", "/evil.example/x"),
    ("/v1/x", "/v1/x"),
    ("x/y", "x/y"),
    ("https://elsewhere.example/login?next=http://{host}/", "https://elsewhere.example/login?next=http://{host}/"),
])
@pytest.mark.parametrize("field", ["Location", "Content-Location", "LOCATION"])
def test_a_redirect_leads_to_the_address_that_the_client_used(scripted, place, right, field):
    def script(seen, wire):
        wire.reply(307 if field != "Content-Location" else 200, b"", headers=[(field, place.format(host=seen.header("host")))])

    with scripted(script) as r:
        _, headers, _ = r.post()
        host = f"127.0.0.1:{r.engine.port}"
        assert headers[field] == right.format(host=host)
        if right[0] in "/x":
            assert urllib.parse.urljoin(r.router.url + ROUTE, headers[field]).startswith(r.router.url)


def test_a_redirect_loses_the_path_prefix_of_the_worker(pdctl):
    def script(seen, wire):
        if seen.target in ("/pool-a/health", "/pool-a/v1/models"):
            return wire.reply(200, b"")
        assert seen.target == "/pool-a/v1/files"
        return wire.reply(307, b"", headers=[("Location", f"http://{seen.header('host')}/pool-a/v1/other"), ("Content-Location", "/pool-a/v1/z"), ("X-A", "b")])

    with FakeEngine(script) as engine:
        router = pdctl("serve", "--worker-urls", engine.url + "/pool-a")
        status, headers, _ = router.get("/v1/files")
        assert (status, headers["Location"], headers["Content-Location"]) == (307, "/v1/other", "/v1/z")
        engine.check()


def leaks(text, *engines):
    return any(str(e.port) in text or "127.0.0.1" in text for e in engines)


@pytest.mark.parametrize("flags,named", [((), False), (("--expose-workers",), True)])
@pytest.mark.parametrize("name", ["", "d1="])
def test_errors_name_a_worker_and_not_its_address(pdctl, flags, named, name):
    def hang_up(seen, wire):
        wire.keep = False

    engine = FakeEngine(hang_up)
    router = pdctl("serve", "--worker-urls", name + engine.url, "--retry-initial-backoff-ms", 1, *flags)
    status, _, raw = router.post(ROUTE, BODY)
    text = json.loads(raw)["error"]["message"]
    assert status in (502, 503) and leaks(text, engine) == named, text
    assert "regular worker " + engine.url in text if named else ("regular worker d1:" if name else "regular worker:") in text
    engine.close()
    for _ in range(5):  # the connection fails; then it is out, and a note says why
        status, _, raw = router.post(ROUTE, BODY)
        assert status in (502, 503) and (named or not leaks(raw.decode(), engine)), raw


def test_the_error_event_of_a_cut_stream_names_no_address(scripted):
    def script(seen, wire):
        wire.begin_stream()
        wire.event(chat({"content": "x"}))
        wire.keep = False

    with scripted(script) as r:
        _, _, raw = r.post()
        text = json.loads(sse_events(raw)[-1])["error"]["message"]
        assert "worker d1 ended its answer early" in text and not leaks(text, r.engine)
        wait_for("the log's line", lambda: r.engine.url in r.router.log())


def test_no_worker_headers(scripted):
    with scripted(reply_completion, "--no-worker-headers") as r:
        _, headers, _ = r.post(BODY)
        assert headers["X-Request-Id"]
        assert not [h for h in headers if re.search("worker", h, re.I)]
        _, headers, _ = r.router.get("/get_server_info")
        assert not [h for h in headers if re.search("worker", h, re.I)]
        r.engine.close()
        _, headers, _ = r.post(BODY)
        assert not [h for h in headers if re.search("worker", h, re.I)]
    with scripted(reply_completion) as r:
        _, headers, _ = r.post(BODY)
        assert [v for h, v in headers.items() if re.search("worker", h, re.I)]
