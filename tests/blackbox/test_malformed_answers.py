"""A malformed answer of a worker is named by the rule that it breaks and the byte that does: in the client's error, the log and the state of the worker."""

import http.client
import json

import pytest

from fake_engine import FakeEngine
from harness import wait_for
from test_serve_bytes import pd_pair, reply_completion

pytestmark = pytest.mark.both_forms

BODY = {"model": "m", "prompt": "p", "max_tokens": 2}
OK = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKS = OK + "Transfer-Encoding: chunked\r\n\r\n"

# The byte behind § breaks the rule (or begins the value that does); without one the answer ends too early.
ANSWERS = [
    ("§SSH-2.0-OpenSSH\r\n\r\n", "RFC 9112 2.3", "the first line does not name an HTTP version"),
    ("§ICY 200 OK\r\n\r\n", "RFC 9112 2.3", "the first line does not name an HTTP version"),
    ("HTTP/§2.0 200 OK\r\n\r\n", "RFC 9110 2.5", "only HTTP/1.0 and HTTP/1.1 are supported"),
    ("HTTP/§1.7 200 OK\r\n\r\n", "RFC 9110 2.5", "only HTTP/1.0 and HTTP/1.1 are supported"),
    ("HTTP/1.1§ 20 OK\r\n\r\n", "RFC 9112 4", "the status code is malformed"),
    ("HTTP/1.1 200§OK\r\n\r\n", "RFC 9112 4", "the status code is malformed"),
    ("HTTP/1.1§ 600 OK\r\n\r\n", "RFC 9112 4", "the status code is malformed"),
    ("HTTP/1.1 200 O§\x00K\r\n\r\n", "RFC 9110 5.5", "a control byte in the message head"),
    ("HTTP/1.1 200 OK§\n\n", "RFC 9112 2.2", "a line ends with a bare line feed"),
    (OK + "A: b§\nC: d\r\n\r\n", "RFC 9112 2.2", "a line ends with a bare line feed"),
    (OK + "A: b§\rC: d\r\n\r\n", "RFC 9112 2.2", "a carriage return without a line feed"),
    (OK + "A: b\x09c§\x0bd\r\n\r\n", "RFC 9110 5.5", "a control byte in the message head"),
    (OK + "A§ : b\r\n\r\n", "RFC 9112 5.1", "a space in a field name or before its colon"),
    (OK + "§: b\r\n\r\n", "RFC 9112 5.1", "a field name is malformed"),
    (OK + "A§(: b\r\n\r\n", "RFC 9112 5.1", "a field name is malformed"),
    (OK + "A: b\r\n§ c\r\n\r\n", "RFC 9112 5.2", "a field with obsolete line folding"),
    (OK + "Content-Length: §+3\r\n\r\n{ }", "RFC 9110 8.6", "Content-Length is repeated or not a number"),
    (OK + "Content-Length: 3\r\nContent-Length: §3\r\n\r\n{ }", "RFC 9110 8.6", "Content-Length is repeated or not a number"),
    (OK + "Transfer-Encoding: §gzip, chunked\r\n\r\n0\r\n\r\n", "RFC 9112 6.1", 'Transfer-Encoding is repeated or not "chunked"'),
    (OK + "Content-Length: 3\r\nTransfer-Encoding: §chunked\r\n\r\n0\r\n\r\n", "RFC 9112 6.2", "Content-Length and Transfer-Encoding exclude each other"),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: §chunked\r\n\r\n0\r\n\r\n", "RFC 9112 6.1", "HTTP/1.0 has no Transfer-Encoding"),
    (OK + "Connection: §" + ",".join(f"a{i}" for i in range(40)) + "\r\n\r\n", "RFC 9110 7.6.1", "Connection names too many fields"),
    ("§HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "RFC 9110 15.2.2", "found 101 Switching Protocols, but no Upgrade was sent"),
    ("HTTP/1.1 204 No Content\r\nContent-Length: §3\r\n\r\nabc", "RFC 9110 8.6", "a status that allows no content announces some"),
    ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + "A: b§\n\r\n", "RFC 9112 2.2", "a line ends with a bare line feed"),
    ("HTTP/1.1 100 Continue\r\n\r\n" * 40, "RFC 9110 15.2", "too many informational answers"),
    (OK + "".join(f"A{i}: b\r\n" for i in range(99)) + "§A: b\r\n\r\n", "RFC 6585 5", "too many header fields"),
    (OK + "A: " + "b" * (65536 - len(OK) - 3) + "§" + "b" * 100, "RFC 6585 5", "the message head is too large"),
    (OK + "A: b\r\n", "RFC 9112 8", "the connection ended inside the head"),
    (CHUNKS + "§\r\n", "RFC 9112 7.1", "a chunk size is not a hexadecimal number below 2^63"),
    (CHUNKS + "§xyz\r\n", "RFC 9112 7.1", "a chunk size is not a hexadecimal number below 2^63"),
    (CHUNKS + "fffffffffffffff1§1\r\n".replace("fffffffffffffff1§1", "8000000000000000"[:15] + "§0"), "RFC 9112 7.1", "a chunk size is not a hexadecimal number below 2^63"),
    (CHUNKS + "2§\n{}\r\n0\r\n\r\n", "RFC 9112 7.1", "a chunk size is not a hexadecimal number below 2^63"),
    (CHUNKS + "2\r§{}\r\n0\r\n\r\n", "RFC 9112 7.1", "the line of a chunk size does not end with CR LF"),
    (CHUNKS + "2\r\n{}§}\r\n0\r\n\r\n", "RFC 9112 7.1", "the data of a chunk is longer than its size"),
    (CHUNKS + "2\r\n{}\r§0\r\n\r\n", "RFC 9112 7.1", "the data of a chunk is longer than its size"),
    (CHUNKS + "2;§ a=b\r\n{}\r\n0\r\n\r\n", "RFC 9112 7.1.1", "a chunk extension is malformed or too long"),
    (CHUNKS + "2;a=" + "b" * 254 + "§b\r\n", "RFC 9112 7.1.1", "a chunk extension is malformed or too long"),
    (CHUNKS + "2\r\n{}\r\n0\r\n§ A: b\r\n\r\n", "RFC 9112 7.1.2", "a trailer field is malformed or too long"),
    (CHUNKS + "2\r\n{}\r\n0\r\nA: b\r§A\r\n", "RFC 9112 7.1.2", "a line behind the last chunk does not end with CR LF"),
    (CHUNKS + "2\r\n{}\r\n0\r\n\r§A", "RFC 9112 7.1.2", "a line behind the last chunk does not end with CR LF"),
    (CHUNKS + "5\r\n{}", "RFC 9112 8", "the connection ended before the last chunk"),
    (OK + "Content-Length: 9\r\n\r\n{}", "RFC 9112 8", "the connection ended before Content-Length bytes"),
]


def cases():
    for text, rule, why in ANSWERS:
        at = text.find("§")
        data = text.replace("§", "").encode("latin-1")
        if why.startswith("too many informational"):
            at = len("HTTP/1.1 100 Continue\r\n\r\n") * (data.count(b"HTTP/1.1 100") - 1)
            at = None  # how many are too many is the client's
        elif at < 0:
            at = len(data)
        yield data, rule, why, at


def answer(pieces):
    def handler(seen, wire):
        wire.keep = False
        for piece in pieces:
            wire.raw(piece)

    return handler


def said(text, rule, why, at):
    return f"{why} ({rule})" in text and (at is None or f"byte {at}: " in text)


@pytest.mark.parametrize("step", [0, 1])
def test_a_walk_over_malformed_answers(pdctl, step):
    """In one piece, and byte by byte (of short ones), plain and as the prefill leg."""
    mode = {}
    with FakeEngine(lambda seen, wire: mode["say"](seen, wire)) as engine, FakeEngine(reply_completion) as decode:
        plain = pdctl("serve", "--worker-urls", engine.url, "--disable-retries", "--disable-circuit-breaker")
        pair = pd_pair(pdctl, engine, decode, "--disable-retries", "--disable-circuit-breaker", "--pd-fallback", "fail")
        for data, rule, why, at in cases():
            if step and len(data) > 250:
                continue
            mode["say"] = answer([data[i:i + 1] for i in range(len(data))] if step else [data])
            for router, role in ((plain, "regular"), (pair, "prefill")):
                try:
                    status, _, raw = router.post("/v1/completions", BODY)
                    message = json.loads(raw)["error"]["message"]
                    assert status == 502 and said(message, rule, why, at), (data[-80:], at, message)
                    assert engine.url not in message, "the client learns no address"
                except (ConnectionError, http.client.IncompleteRead):
                    assert router is plain and "7.1" in rule or "RFC 9112 8" == rule, "chunks that had been passed on: the client is cut off"
                state = next(w for w in json.loads(router.admin("GET", "/workers")[2])["workers"] if w["url"] == engine.url)
                assert said(state["last_failure"], rule, why, at) and state["role" if "role" in state else "worker_type"] == role, state
                wait_for("the log", lambda router=router, args=(rule, why, at): said(router.log().rsplit("request ", 1)[1].replace('\\"', '"'), *args))
        engine.check()


def test_a_stream_that_breaks_names_the_byte_of_the_answer(pdctl):
    """Counted from the first byte of the head, however much has been passed on and forgotten."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    event = b"data: {\"choices\":[{\"text\":\"" + b"w" * 3000 + b"\"}]}\n\n"
    chunk = b"%x\r\n%s\r\n" % (len(event), event)
    with FakeEngine(answer([head, *[chunk] * 50, b"zz\r\n"])) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        status, _, raw = router.post("/v1/completions", {**BODY, "stream": True})
        last = json.loads(raw.decode().split("\n\n")[-2].removeprefix("data: "))["error"]
        at = len(head) + 50 * len(chunk)
        assert status == 200 and raw.count(b"choices") == 50
        assert f"sent a malformed answer: byte {at}: a chunk size is not a hexadecimal number below 2^63 (RFC 9112 7.1)" in last["message"]
        wait_for("the log", lambda: f"byte {at}: " in router.log())


def test_a_prefill_answer_that_is_no_object_is_named(pdctl):
    with FakeEngine(lambda seen, wire: wire.reply(200, b'{"id": "x", "choices": [}')) as p, FakeEngine(reply_completion) as d:
        router = pd_pair(pdctl, p, d, "--disable-retries", "--pd-fallback", "fail")
        status, _, raw = router.post("/v1/completions", BODY)
        assert status == 502 and "its body: " in json.loads(raw)["error"]["message"] and "24" in json.loads(raw)["error"]["message"], raw
