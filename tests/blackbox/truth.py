"""A server that answers in some thirty kinds of ways and knows what it did: when each byte left, how many tokens, whether it was an answer.

Independent of everything that it judges: plain sockets and threads, its own HTTP. The kind of a request is the `kind` member of its body.
Each kind says what a client ought to report: tokens, the label of a failure, TTFT and ITL in seconds as they were meant.
"""

import json
import socket
import struct
import threading
import time

TTFT, GAP, TOKENS = 0.03, 0.01, 8


class Kind:
    """tokens None: no answer to count. label None: a success. basis: how tokens are known."""

    def __init__(self, play, label=None, tokens=TOKENS, basis="usage", ttft=TTFT, itl=GAP, text="abcdefgh", stream=True):
        self.play, self.label, self.tokens, self.basis, self.ttft, self.itl, self.text, self.stream = play, label, tokens, basis, ttft, itl, text, stream


class Wire:
    """One answer under way; `sent` are the times at which pieces with text left."""

    def __init__(self, conn):
        self.conn, self.sent, self.close = conn, [], False

    def raw(self, data):
        self.conn.sendall(data)

    def head(self, kind="text/event-stream", extra="", chunked=True, status="200 OK"):
        self.raw(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{'Transfer-Encoding: chunked' if chunked else 'Connection: close'}\r\n{extra}\r\n".encode())
        self.close = not chunked
        self.chunked = chunked

    def body(self, data):
        self.raw(b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data)

    def event(self, value, text=False, end=b"\n\n", before=b""):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.body(before + b"data: " + data + end)
        if text:
            self.sent.append(time.monotonic())

    def end(self):
        if self.chunked:
            self.raw(b"0\r\n\r\n")

    def json(self, value, status="200 OK"):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.raw(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    def reset(self):
        self.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close = True
        self.conn.close()
        raise ConnectionError


def usage(n):
    return {"prompt_tokens": 20, "completion_tokens": n, "prompt_tokens_details": {"cached_tokens": 5}}


def chunk(delta, n=None, finish=None, index=0, **more):
    event = {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more}
    return {**event, "usage": usage(n)} if n is not None else event


def stream(count="each", per=1, role=True, field="content", end=b"\n\n", before=b"", pack=1, split=False, empty=False, finish=True, done=True,
           slow_usage=0.0, slow_close=0.0, head=None, tokens=TOKENS, chunked=True):
    """A stream of TOKENS tokens, `per` in a piece; count: each, last, none (of usage)."""

    def play(w):
        w.head(chunked=chunked)
        if role:
            w.event(chunk({"role": "assistant", "content": ""}, 0 if count == "each" else None), end=end)
        time.sleep(TTFT)
        made, letters = 0, "abcdefgh"
        while made < tokens:
            bunch = b""
            for _ in range(pack):
                take = letters[made : made + per]
                made += len(take)
                delta = [{"index": 0, "function": {"arguments": take}}] if field == "tool_calls" else take
                event = chunk({field: delta}, made if count == "each" else None)
                bunch += before + b"data: " + json.dumps(event).encode() + end
            if split:
                for at in range(0, len(bunch), 23):
                    w.body(bunch[at : at + 23])
            else:
                w.body(bunch)
            w.sent.append(time.monotonic())
            if empty and made < tokens:
                time.sleep(GAP / 2)
                w.event(chunk({"content": ""}), end=end)
                time.sleep(GAP / 2)
            elif made < tokens:
                time.sleep(GAP * per * pack)
        if finish:
            w.event(chunk({}, made if count == "each" else None, "stop"), end=end)
        time.sleep(slow_usage)
        if count in ("each", "last"):
            w.event({"choices": [], "usage": usage(made)}, end=end)
        if done:
            w.event(b"[DONE]", end=end)
        time.sleep(slow_close)
        w.end()

    return play


def cut(how):
    def play(w):
        w.head(chunked=how != "close")
        for k in range(3):
            w.event(chunk({"content": "a"}, k + 1), text=True)
        if how == "end":
            w.end()
        elif how == "rst":
            time.sleep(0.05)  # what was sent is read first
            w.reset()
        else:
            w.close = True
            raise ConnectionError

    return play


def begin_then(*values, end=True):
    def play(w):
        w.head()
        w.event(chunk({"content": "a"}, 1), text=True)
        for v in values:
            w.event(v)
        if end:
            w.event(chunk({}, 1, "stop"))
            w.event(b"[DONE]")
        w.end()

    return play


def plain(value, status="200 OK", wait=TTFT):
    def play(w):
        time.sleep(wait)
        w.json(value, status)
        w.sent.append(time.monotonic())

    return play


def html(w):
    w.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 17\r\n\r\n<html>down</html>")


def nothing(w):
    w.close = True
    raise ConnectionError


def only(*events):
    def play(w):
        w.head()
        for e in events:
            w.event(e)
        w.end()

    return play


def surrogates(w):
    w.head()
    time.sleep(TTFT)
    w.event(b'{"choices": [{"index": 0, "delta": {"content": "a\\ud83d"}}]}', text=True)
    w.event(b'{"choices": [{"index": 0, "delta": {"content": "\\ude00\\u0000b"}}]}', text=True)
    w.event(chunk({}, None, "stop"))
    w.event(b"[DONE]")
    w.end()


def no_end(w):
    """Says [DONE] and leaves the connection open."""
    stream()(Quiet(w))
    w.close = True
    w.held = True


class Quiet:
    """A wire whose body never ends."""

    def __init__(self, w):
        self.__dict__["w"] = w

    def __getattr__(self, name):
        return getattr(self.w, name)

    def end(self):
        self.w.release.wait(30)


ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "abcdefgh"}, "finish_reason": "stop"}], "usage": usage(TOKENS)}
EACH = GAP * TOKENS / (TOKENS - 1)
KINDS = {
    "plain stream": Kind(stream(role=False)),
    "role first": Kind(stream()),
    "four tokens a chunk, usage with each": Kind(stream(per=4)),
    "four tokens a chunk, usage last": Kind(stream(count="last", per=4), basis="usage_last"),
    "four tokens a chunk, no usage": Kind(stream(count="none", per=4), tokens=2, basis="chunks", itl=4 * GAP),
    "usage last": Kind(stream(count="last"), basis="usage_last"),
    "no usage": Kind(stream(count="none"), basis="chunks"),
    "reasoning_content": Kind(stream(field="reasoning_content")),
    "reasoning": Kind(stream(field="reasoning")),
    "tool calls": Kind(stream(field="tool_calls"), text=""),
    "CRLF": Kind(stream(end=b"\r\n\r\n")),
    "comments": Kind(stream(before=b": ping\n\n")),
    "split events": Kind(stream(split=True)),
    "packed events": Kind(stream(pack=2), itl=None),
    "empty deltas": Kind(stream(empty=True)),
    "slow usage": Kind(stream(slow_usage=0.05)),
    "slow close": Kind(stream(slow_close=0.05)),
    "ends with the connection": Kind(stream(chunked=False)),
    "[DONE] and no end": Kind(no_end),
    "no [DONE], but finished": Kind(stream(done=False)),
    "surrogates and NUL": Kind(surrogates, tokens=2, basis="chunks", itl=None, text="a\U0001f600\0b"),
    "not streamed": Kind(plain(ANSWER), ttft=None, itl=None, stream=False),
    "a document for a stream": Kind(plain(ANSWER), ttft=None, itl=None),
    "cut by the end of the body": Kind(cut("end"), "truncated", None),
    "cut by FIN": Kind(cut("fin"), "truncated", None),
    "cut by FIN, body until the end": Kind(cut("close"), "truncated", None),
    "cut by RST": Kind(cut("rst"), "truncated", None),
    "error event": Kind(begin_then({"error": {"message": "KV gone", "code": 500}}), "stream_error", None),
    "error event without a wrap": Kind(begin_then({"object": "error", "message": "KV gone", "code": 500}), "stream_error", None),
    "bad JSON": Kind(begin_then(b"{oops"), "bad_event", None),
    "[DONE] without finish_reason": Kind(stream(finish=False), "no_finish", None),
    "only [DONE]": Kind(only(b"[DONE]"), "no_token", None),
    "finish without a token": Kind(only(chunk({"role": "assistant", "content": ""}), chunk({}, 0, "stop"), b"[DONE]"), "no_token", None),
    "HTML with 200": Kind(html, "bad_answer", None),
    "error with 200": Kind(plain({"error": {"message": "no"}}, wait=0), "error_answer", None),
    "404": Kind(plain({"detail": "Not Found"}, "404 Not Found", 0), "http_404", None),
    "429": Kind(plain({"error": {"message": "busy"}}, "429 Too Many Requests", 0), "http_429", None),
    "no reply": Kind(nothing, "connection_lost", None),
    "not HTTP": Kind(lambda w: (w.raw(b"HTTP/1.1 two hundred\r\n\r\n"), nothing(w)), "bad_http", None),
    "hang": Kind(lambda w: w.release.wait(30), "timeout", None),
}


class Server:
    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.release = threading.Event()
        self.lock = threading.Lock()
        self.seen = []  # (kind, when the request had arrived, when pieces left)
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release.set()
        self.listener.close()

    def accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        try:
            with conn:
                data = b""
                while True:
                    while b"\r\n\r\n" not in data:
                        more = conn.recv(65536)
                        if not more:
                            return
                        data += more
                    head, data = data.split(b"\r\n\r\n", 1)
                    length = next((int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
                    while len(data) < length:
                        data += conn.recv(65536)
                    body, data = json.loads(data[:length]), data[length:]
                    w = Wire(conn)
                    w.release = self.release
                    at = time.monotonic()
                    try:
                        KINDS[body["kind"]].play(w)
                    finally:
                        with self.lock:
                            self.seen.append((body["kind"], at, w.sent))
                    if w.close:
                        return
        except OSError:
            pass
