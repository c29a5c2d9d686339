"""What the router does to the bytes: nothing, except where the protocol asks for it."""

import json
import re
import threading

import pytest

from fake_engine import FakeEngine
from harness import request

pytestmark = pytest.mark.both_forms

COMPLETION = {"id": "x", "object": "text_completion", "choices": [{"index": 0, "text": "ok", "finish_reason": "length"}]}
PARAMS = '{ "do_remote_prefill":true,"do_remote_decode" : false, "remote_block_ids": [[1,2, 3]], "remote_engine_id":"e\\u0000\\/x", ' \
    '"remote_request_id": "r", "remote_host":"127.0.0.1","remote_port":5600, "big": 123456789012345678901234567890, "f": 1.50e+3 }'

# Bodies that a parse-and-print proxy changes.
ODD_BODIES = {
    "big integers": b'{"model":"m","prompt":"p","seed":9007199254740993,"n_big":123456789012345678901234567890,"f":1.0e+02,"z":-0}',
    "NUL and escapes": b'{"model":"m","prompt":"a\\u0000b\\/c\\u00e9 \\ud83d\\ude00","x":"\xc3\xa9 \xf0\x9f\x98\x80"}',
    "unknown and duplicate keys": b'{"zz":1,"model":"m","zz":[],"prompt":"p","unknown":{"b":1,"a":{"b":[{}]}},"zz":null}',
    "white space": b' \r\n\t{ "model" : "m" ,\n\n "prompt"\t:\t"p" , "a" : [ 1 , 2 ] }  \n',
    "key order": b'{"prompt":"p","b":2,"a":1,"model":"m"}',
    "numbers nobody can hold": b'{"model":"m","prompt":"p","a":1e400,"b":0.1000000000000000055511151231257827021181583404541015625}',
    "empty key": b'{"model":"m","prompt":"p","":{"":""}}',
    "deep": b'{"model":"m","prompt":"p","a":' + b"[" * 100 + b"]" * 100 + b"}",
}


def reply_completion(seen, wire):
    wire.json(COMPLETION)


def pd_pair(pdctl, prefill, decode, *flags):
    return pdctl("serve", "--pd-disaggregation", "--prefill", f"p1={prefill.url}", "--decode", f"d1={decode.url}", *flags)


def reply_prefill(seen, wire):
    body = json.dumps(COMPLETION)[:-1] + ', "kv_transfer_params":' + PARAMS + "}"
    wire.reply(200, body.encode())


@pytest.mark.parametrize("name", ODD_BODIES)
def test_regular_body_is_identical(pdctl, name):
    body = ODD_BODIES[name]
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        status, _, _ = router.post("/v1/completions", body, {"Content-Type": "application/json"})
        assert status == 200
        assert [s.body for s in engine.seen] == [body]
        engine.check()


@pytest.mark.parametrize("name", ODD_BODIES)
def test_decode_body_is_identical_but_for_the_params(pdctl, name):
    body = ODD_BODIES[name]
    with FakeEngine(reply_prefill) as prefill, FakeEngine(reply_completion) as decode:
        router = pd_pair(pdctl, prefill, decode)
        status, _, answer = router.post("/v1/completions", body, {"Content-Type": "application/json"})
        assert status == 200, answer
        got = decode.seen[0].body
        at = next(i for i in range(len(body)) if body[i : i + 1] != got[i : i + 1])
        inserted = got[at : at + len(got) - len(body)]
        assert got[:at] + got[at + len(inserted) :] == body, "only one insertion"
        assert PARAMS.encode() in got, "the worker's params travel verbatim"
        assert re.fullmatch(rb',?\s*"kv_transfer_params"\s*:\s*' + re.escape(PARAMS.encode()) + rb",?", inserted), inserted
        # The prefill copy: protocol fields set, everything else as it was.
        copy = json.loads(prefill.seen[0].body)
        assert copy["max_tokens"] == 1 and copy["stream"] is False and "stream_options" not in copy
        assert copy["kv_transfer_params"]["do_remote_decode"] is True
        for piece in re.findall(rb'"[a-z_]*"\s*:\s*(?:[0-9.e+-]+|"(?:[^"\\]|\\.)*")', body):
            assert piece in prefill.seen[0].body, piece
        prefill.check(), decode.check()


def test_an_answer_is_passed_as_it_is(pdctl):
    odd = b'{"id":"x","n":123456789012345678901234567890,"s":"\\u0000\\/","choices":[],"choices":[ ]}'
    with FakeEngine(lambda seen, wire: wire.reply(200, odd)) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        assert router.post("/v1/completions", {"model": "m", "prompt": "p"})[2] == odd


def test_large_body(pdctl):
    body = b'{"model":"m","prompt":"' + b"0123456789abcdef" * (1 << 20) + b'"}'
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        assert router.post("/v1/completions", body)[0] == 200
        assert engine.seen[0].body == body


def test_chunked_request_body(pdctl):
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        with router.connect() as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
            for piece in (b'{"model":"m",', b'"prompt":', b'"p"}'):
                s.sendall(b"%X;ext=1\r\n%s\r\n" % (len(piece), piece))
            s.sendall(b"0\r\nTrailer: x\r\n\r\n")
            assert s.makefile("rb").readline().startswith(b"HTTP/1.1 200 ")
        assert engine.seen[0].body == b'{"model":"m","prompt":"p"}'
        engine.check()


@pytest.mark.parametrize("mode", ["regular", "pd"])
def test_each_event_arrives_before_the_next_is_sent(pdctl, mode):
    read = [threading.Event() for _ in range(8)]

    def stream(seen, wire):
        wire.begin_stream()
        for i, event in enumerate(read):
            wire.event({"choices": [{"index": 0, "text": f"t{i}"}]})
            assert event.wait(20), f"the client never saw event {i}"
        wire.event("[DONE]")
        wire.end_stream()

    with FakeEngine(reply_prefill) as prefill, FakeEngine(stream) as engine:
        router = pd_pair(pdctl, prefill, engine) if mode == "pd" else pdctl("serve", "--worker-urls", engine.url)
        with router.connect() as s:
            body = b'{"model":"m","prompt":"p","stream":true}'
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            reader = s.makefile("rb")
            for i in range(len(read)):
                line = b""
                while f'"t{i}"'.encode() not in line:
                    line = reader.readline()
                    assert line, "the stream ended early"
                read[i].set()
            rest = b""
            while not rest.endswith(b"0\r\n\r\n"):
                line = reader.readline()
                assert line
                rest += line
            assert b"data: [DONE]" in rest
        engine.check()


def test_the_stream_is_the_same_bytes(pdctl):
    """Comments, event names, CR LF, several data lines, events cut anywhere: all of it is the client's business."""
    pieces = [b": hello\n\n", b"event: ping\r\ndata: {}\r\n\r\n", b"da", b"ta: a\ndata: b\n", b"\n", b"data:[DONE]\n\n"]

    def stream(seen, wire):
        wire.begin_stream()
        for piece in pieces:
            wire.chunk(piece)
        wire.end_stream()

    with FakeEngine(stream) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        status, headers, raw = router.post("/v1/completions", {"model": "m", "prompt": "p", "stream": True})
        assert status == 200 and headers["Content-Type"] == "text/event-stream"
        assert raw == b"".join(pieces)


def test_headers_that_travel_and_headers_that_do_not(pdctl):
    sent = {
        "Authorization": "Bearer secret",
        "X-Session-Id": "s1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "X-Custom": "a, b;c=\"d\"",
        "Cookie": "k=v",
        "Accept": "text/event-stream",
        "Connection": "keep-alive, X-Private",
        "X-Private": "hop",
        "Keep-Alive": "timeout=5",
        "Proxy-Authorization": "Basic xyz",
        "TE": "trailers",
        "Upgrade": "websocket",
        "Content-Type": "application/json",
    }
    with FakeEngine(reply_prefill) as prefill, FakeEngine(reply_completion) as decode:
        router = pd_pair(pdctl, prefill, decode)
        status, _, _ = router.post("/v1/completions?a=1&b=%20x", {"model": "m", "prompt": "p"}, sent)
        assert status == 200
        for seen in prefill.seen + decode.seen:
            for name in ("Authorization", "X-Session-Id", "traceparent", "X-Custom", "Cookie", "Content-Type"):
                assert seen.header(name) == sent[name], name
            for name in ("X-Private", "Keep-Alive", "Proxy-Authorization", "TE", "Upgrade"):
                assert seen.header(name) is None, name
            assert seen.target == "/v1/completions?a=1&b=%20x"
        hosts = [prefill.seen[0].header("Host"), decode.seen[0].header("Host")]
        assert hosts == [f"127.0.0.1:{prefill.port}", f"127.0.0.1:{decode.port}"], "Host names the worker"


def test_answer_headers_that_travel_and_do_not(pdctl):
    def reply(seen, wire):
        wire.json(COMPLETION, headers=[("X-Engine", "e"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"),
                                       ("Connection", "X-Secret"), ("X-Secret", "s"), ("Keep-Alive", "timeout=5")])

    with FakeEngine(reply) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        status, headers, _ = router.post("/v1/completions", {"model": "m", "prompt": "p"})
        assert status == 200 and headers["X-Engine"] == "e" and headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        assert headers["X-Secret"] is None and headers["Keep-Alive"] is None
        assert headers["X-Worker"] == engine.url


def test_one_request_id_on_both_legs(pdctl):
    with FakeEngine(reply_prefill) as prefill, FakeEngine(reply_completion) as decode:
        router = pd_pair(pdctl, prefill, decode)
        _, first, _ = router.post("/v1/completions", {"model": "m", "prompt": "p"})
        _, second, _ = router.post("/v1/completions", {"model": "m", "prompt": "p"})
        _, third, _ = router.post("/v1/completions", {"model": "m", "prompt": "p"}, {"X-Request-Id": "mine-1"})
        ids = [s.header("X-Request-Id") for s in prefill.seen]
        assert ids == [s.header("X-Request-Id") for s in decode.seen]
        assert len(set(ids)) == 3 and all(ids) and ids[2] == "mine-1"
        assert [h["X-Request-Id"] for h in (first, second, third)] == ids


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_client_error_of_prefill_reaches_the_client(pdctl, status):
    error = b'{"error": {"message":  "too long", "code": 400}}'
    with FakeEngine(lambda seen, wire: wire.reply(status, error, headers=[("X-Why", "w")])) as prefill, \
            FakeEngine(reply_completion) as decode:
        router = pd_pair(pdctl, prefill, decode)
        got, headers, body = router.post("/v1/completions", {"model": "m", "prompt": "p", "stream": True})
        assert (got, body) == (status, error)
        assert headers["Content-Type"] == "application/json" and headers["X-Why"] == "w"
        assert decode.seen == []


def test_decode_gets_its_own_max_tokens_back(pdctl):
    sent = b'{"model":"m","prompt":"p","max_tokens":77,"max_completion_tokens":78,"stream":true,"stream_options":{"include_usage":true}}'

    def stream(seen, wire):
        wire.begin_stream()
        wire.event("[DONE]")
        wire.end_stream()

    with FakeEngine(reply_prefill) as prefill, FakeEngine(stream) as decode:
        router = pd_pair(pdctl, prefill, decode)
        assert router.post("/v1/completions", sent)[0] == 200
        copy = prefill.seen[0].json()
        assert (copy["max_tokens"], copy["max_completion_tokens"], copy["stream"]) == (1, 1, False)
        assert "stream_options" not in copy
        got = decode.seen[0].json()
        assert (got["max_tokens"], got["max_completion_tokens"], got["stream"]) == (77, 78, True)
        assert got["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_unknown_paths_are_passed_through(pdctl, method):
    def reply(seen, wire):
        wire.reply(418, b"\x00\xff raw", "application/x-thing", [("X-A", "b")])

    with FakeEngine(reply) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        body = b"\x00 not json \xff" if method in ("POST", "PUT", "PATCH") else None
        status, headers, raw = request(router.url, method, "/v2/any%2Fthing?q=a+b&q=%00", body, {"X-B": "c"})
        assert (status, raw, headers["X-A"]) == (418, b"\x00\xff raw", "b")
        assert headers["Content-Type"] == "application/x-thing"
        seen = engine.seen[0]
        assert (seen.method, seen.target, seen.header("X-B")) == (method, "/v2/any%2Fthing?q=a+b&q=%00", "c")
        assert seen.body == (body or b"")


def test_connections_are_kept_on_both_sides(pdctl):
    with FakeEngine(reply_completion) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        body = b'{"model":"m","prompt":"p"}'
        with router.connect() as s:
            reader = s.makefile("rb")
            for _ in range(5):
                s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                assert reader.readline().startswith(b"HTTP/1.1 200 ")
                length = 0
                for line in iter(reader.readline, b"\r\n"):
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                assert json.loads(reader.read(length)) == COMPLETION
            with engine.lock:
                assert len(engine.conns) <= 2, "one connection for traffic, perhaps one for health checks"
        assert len(engine.seen) == 5
