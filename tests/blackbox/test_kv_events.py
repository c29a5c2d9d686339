"""KV events: what a simulated engine publishes, read by pyzmq and msgpack as vLLM's own subscribers do; and a router that follows them."""

import json
import socket
import struct

import msgpack
import zmq

from harness import free_port, run, wait_for
from test_worker_nixl import words

TEXT = "/v1/completions"
FAST = ["--decode-ms-per-token", 0, "--prefill-tokens-per-s", 0]
BLOCK = 16


def config(port, replay=None, **more):
    c = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{port}", **more}
    if replay:
        c["replay_endpoint"] = f"tcp://*:{replay}"
    return ["--kv-events-config", json.dumps(c)]


class Follower:
    """A subscriber that keeps what the engine holds, by the events alone."""

    def __init__(self, port, topic=""):
        self.context = zmq.Context()
        self.sub = self.context.socket(zmq.SUB)
        self.sub.setsockopt_string(zmq.SUBSCRIBE, topic)
        self.sub.connect(f"tcp://127.0.0.1:{port}")
        self.held, self.seqs, self.batches, self.cleared = {}, [], [], 0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.context.destroy(linger=0)

    def take(self, batch):
        ts, events, rank = batch
        assert ts > 1e9
        self.batches.append((events, rank))
        for e in events:
            if e["type"] == "BlockStored":
                assert set(e) == {"type", "block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name"}
                n = len(e["block_hashes"])
                assert e["block_size"] == BLOCK and len(e["token_ids"]) == n * BLOCK and e["medium"] == "GPU" and e["lora_id"] is None
                assert e["parent_block_hash"] is None or e["parent_block_hash"] in self.held, "parents come first"
                parent = e["parent_block_hash"]
                for i, h in enumerate(e["block_hashes"]):
                    self.held[h] = (parent, e["token_ids"][i * BLOCK:(i + 1) * BLOCK])
                    parent = h
            elif e["type"] == "BlockRemoved":
                for h in e["block_hashes"]:
                    self.held.pop(h, None)  # stored before there was a subscription
            else:
                assert e == {"type": "AllBlocksCleared"}
                self.held.clear()
                self.cleared += 1

    def drain(self):
        while self.sub.poll(0):
            topic, seq, payload = self.sub.recv_multipart()
            self.seqs.append(struct.unpack(">q", seq)[0])
            self.topic = topic
            self.take(msgpack.unpackb(payload))
        return self

    def until(self, what, condition):
        wait_for(what, lambda: condition(self.drain()))

    def chains(self):
        """The token lists that the held blocks spell, longest each."""
        parents = {p for p, _ in self.held.values()}
        out = []
        for h in self.held:
            if h in parents:
                continue
            tokens = []
            while h is not None:
                h, part = self.held[h]
                tokens = part + tokens
            out.append(tokens)
        return sorted(out)


def tokens_of(w, prompt):
    return w.post_json("/tokenize", {"prompt": prompt})["tokens"]


def follow(port, w, topic=""):
    """A subscriber that is connected: the first events are seen to arrive."""
    f = Follower(port, topic)
    n = [0]

    def arrived():
        n[0] += 1
        w.post_json(TEXT, {"model": "m", "prompt": words(20, f"hello{n[0]}x"), "max_tokens": 1})
        return f.sub.poll(200)

    wait_for("the subscription", arrived)
    return f


def test_what_is_cached_is_told(pdctl):
    port, replay = free_port(), free_port()
    w = pdctl.worker(*FAST, *config(port, replay, topic="kv@m"))
    with follow(port, w, "kv@") as f:
        w.post("/reset_prefix_cache", {})
        f.until("the cache to be cleared", lambda f: f.cleared == 1 and not f.held)
        prompt = words(60)
        w.post_json(TEXT, {"model": "m", "prompt": prompt, "max_tokens": 1})
        want = tokens_of(w, prompt)
        f.until("the prompt's blocks", lambda f: f.chains() == [want[:len(want) // BLOCK * BLOCK]])
        assert f.topic == b"kv@m" and all(rank == 0 for _, rank in f.batches)
        # A longer one: its parent is the last block that was there.
        longer = prompt + " " + words(40, "more")
        w.post_json(TEXT, {"model": "m", "prompt": longer, "max_tokens": 1})
        want = tokens_of(w, longer)
        f.until("the longer chain", lambda f: f.chains() == [want[:len(want) // BLOCK * BLOCK]])
        assert f.seqs == list(range(f.seqs[0], f.seqs[0] + len(f.seqs))), "no gap"
    sources = w.get_json("/kv_event_sources")
    assert sources["0"]["endpoint"] == f"tcp://*:{port}" and sources["0"]["replay_endpoint"] == f"tcp://*:{replay}" and sources["0"]["topic"] == "kv@m"
    assert w.get_json("/get_server_info")["kv_block_size"] == BLOCK


def test_what_is_evicted_is_told(pdctl):
    """The subscriber's set is the cache: as many blocks as fit, whatever was sent."""
    port = free_port()
    w = pdctl.worker(*FAST, "--num-gpu-blocks", 20, *config(port))
    with follow(port, w) as f:
        for i in range(12):
            w.post_json(TEXT, {"model": "m", "prompt": words(100, f"p{i}x"), "max_tokens": 1})
        want = tokens_of(w, words(100, "p11x"))
        f.until("the last prompt", lambda f: want[:len(want) // BLOCK * BLOCK] in f.chains())
        assert len(f.held) <= 20 and w.metric("pdctl_worker_kv_evictions_total") > 0
        sent = w.metric("pdctl_worker_kv_event_batches_total")
        f.until("all of it", lambda f: f.seqs[-1] + 1 >= sent)
        cached = w.post_json(TEXT, {"model": "m", "prompt": words(100, "p11x"), "max_tokens": 1})["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached == (len(want) - 1) // BLOCK * BLOCK


def test_a_replay(pdctl):
    """All of it to somebody who comes late, from any sequence; the end is marked; nonsense is not answered."""
    port, replay = free_port(), free_port()
    w = pdctl.worker(*FAST, *config(port, replay))
    for i in range(6):
        w.post_json(TEXT, {"model": "m", "prompt": words(40, f"q{i}x"), "max_tokens": 1})
    with zmq.Context() as context, context.socket(zmq.DEALER) as s:
        s.connect(f"tcp://127.0.0.1:{replay}")

        def ask(first):
            s.send_multipart([b"", struct.pack(">q", first)])
            got = []
            while True:
                assert s.poll(20000)
                empty, topic, seq, payload = s.recv_multipart()
                assert empty == b"" == topic
                seq = struct.unpack(">q", seq)[0]
                if seq == -1:
                    assert payload == b""
                    return got
                got.append((seq, msgpack.unpackb(payload)))

        for odd in ([b"x"], [b"", b"short"], [b"", b"12345678", b"more"]):
            s.send_multipart(odd)
        def all_six():
            got = ask(0)
            assert [q for q, _ in got] == list(range(len(got)))
            with Follower(port) as late:
                for _, batch in got:
                    late.take(batch)
                return len(late.chains()) == 6 and got

        got = wait_for("all batches to be sent", all_six)
        assert [q for q, _ in ask(len(got) - 1)] == [len(got) - 1] and ask(10**6) == []
    assert w.metric("pdctl_worker_kv_event_replays_total") >= 3


def free_pair():
    """A port that is free, and so is the next one."""
    while True:
        port = free_port()
        try:
            with socket.create_server(("0.0.0.0", port)), socket.create_server(("0.0.0.0", port + 1)):
                return port
        except (OSError, OverflowError):
            pass


def test_each_rank_has_a_port(pdctl):
    port = free_pair()
    w = pdctl.worker(*FAST, "--data-parallel-size", 2, *config(port))
    with Follower(port + 1) as f:
        def arrived():
            w.post_json(TEXT, {"model": "m", "prompt": words(20), "max_tokens": 1}, {"X-data-parallel-rank": "1"})
            w.post("/reset_prefix_cache", {})
            return f.drain().batches

        wait_for("events of rank 1", arrived)
        assert {rank for _, rank in f.batches} == {1}


# -- a router that follows them --


def serve(pdctl, *workers, flags=()):
    return pdctl("serve", "--policy", "kv_aware", "--worker-urls", *[w.url for w in workers], *flags)


def by_prefix(router):
    return sum(v for k, v in router.metrics().items() if k.startswith("pdctl_decisions_total{") and 'reason="prefix"' in k)


def holder(router, prompt, path=TEXT, **body):
    """The worker that a prompt goes to because it has its beginning; None: it goes by load."""
    before = by_prefix(router)
    status, headers, raw = router.post(path, {"model": "m", "max_tokens": 1, **({"prompt": prompt} if path == TEXT else {"messages": prompt}), **body})
    assert status == 200, raw
    return headers["X-Worker"] if by_prefix(router) > before else None


def test_a_router_knows_what_is_cached(pdctl):
    """Nothing but --policy kv_aware: it asks the workers where their events are. Prompts go where their beginning is, by text, chat and ids."""
    a, b = (pdctl.worker(*FAST, *config(free_port(), free_port())) for _ in range(2))
    warm = words(100, "warm")
    b.post_json(TEXT, {"model": "m", "prompt": warm, "max_tokens": 1})  # before there is a router: it comes by the replay
    router = serve(pdctl, a, b)
    wait_for("both to be followed", lambda: router.metric("pdctl_kv_event_sources") == 2)
    held = (len(tokens_of(b, warm)) + 0) // BLOCK
    wait_for("the blocks", lambda: router.metric("pdctl_kv_blocks") >= held)
    assert holder(router, warm + " and more") == b.url
    assert holder(router, words(100, "cold")) is None
    assert holder(router, tokens_of(b, warm) + [1, 2, 3]) == b.url
    assert holder(router, warm, cache_salt="tenant") is None, "blocks of a salted prompt are others"
    talk = [{"role": "system", "content": words(80, "sys")}, {"role": "user", "content": "hi"}]
    b.post_json("/v1/chat/completions", {"model": "m", "messages": talk, "max_tokens": 1})
    longer = talk + [{"role": "assistant", "content": "x"}, {"role": "user", "content": "again"}]
    wait_for("the chat", lambda: holder(router, longer, "/v1/chat/completions") == b.url)
    assert router.metric("pdctl_prompts_tokenized_total") >= 4 and router.metric("pdctl_prompts_not_tokenized_total") == 0
    before = router.metric("pdctl_kv_blocks")
    b.post("/reset_prefix_cache", {})
    wait_for("it to be forgotten", lambda: router.metric("pdctl_kv_blocks") < before)
    assert holder(router, warm + " and more") is None
    assert router.metric("pdctl_kv_event_gaps_total") == 0 == router.metric("pdctl_kv_event_batches_unreadable_total")


def test_a_pair_with_events(pdctl):
    """A prefill pool by its caches; decode by another policy."""
    flags = [*FAST, "--strict"]
    p1, p2 = (pdctl.worker(*flags, "--role", "prefill", *config(free_port(), free_port())) for _ in range(2))
    d = pdctl.worker(*flags, "--role", "decode")
    router = pdctl("serve", "--pd-disaggregation", "--prefill", p1.url, "--prefill", p2.url, "--decode", d.url, "--prefill-policy", "kv_aware",
                   "--decode-policy", "round_robin")
    wait_for("both to be followed", lambda: router.metric("pdctl_kv_event_sources") == 2)
    warm = words(100, "warm")
    p2.post_json(TEXT, {"model": "m", "prompt": warm, "max_tokens": 1})
    wait_for("the second", lambda: router.post(TEXT, {"model": "m", "prompt": warm + " x", "max_tokens": 2})[1]["X-Prefill-Worker"] == p2.url)


def test_an_engine_that_restarts(pdctl):
    port, replay = free_port(), free_port()
    a = pdctl.worker(*FAST)
    b = pdctl.worker(*FAST, *config(port, replay))
    router = serve(pdctl, a, b)
    router.said(f"worker {a.url}: no KV events", f"worker {b.url}: following its KV events at tcp://127.0.0.1:{port}")
    warm = words(100, "warm")
    for i in range(3):
        b.post_json(TEXT, {"model": "m", "prompt": words(40, f"n{i}x"), "max_tokens": 1})
    b.post_json(TEXT, {"model": "m", "prompt": warm, "max_tokens": 1})
    wait_for("the warm one", lambda: holder(router, warm) == b.url)
    http = b.port
    b.kill()
    again = pdctl("worker", "--model", "m", *FAST, *config(port, replay), port=http)

    n = [0]

    def noticed():
        n[0] += 1
        again.post_json(TEXT, {"model": "m", "prompt": words(40, f"other{n[0]}x"), "max_tokens": 1})
        return router.metric("pdctl_kv_event_restarts_total") >= 1

    wait_for("the new engine to be noticed", noticed)
    assert holder(router, warm) is None, "no credit for what the old one had"
    wait_for("what the new one has", lambda: holder(router, words(40, "other1x") + " x") == again.url)


class Engine:
    """A publisher of scripted batches."""

    def __init__(self, replays=True):
        self.context = zmq.Context()
        self.pub = self.context.socket(zmq.PUB)
        self.port = self.pub.bind_to_random_port("tcp://127.0.0.1")
        self.router = self.context.socket(zmq.ROUTER)
        self.replay = self.router.bind_to_random_port("tcp://127.0.0.1") if replays else None
        self.kept = {}

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.context.destroy(linger=0)

    def flags(self, url):
        f = ["--kv-event-source", f"{url}=tcp://127.0.0.1:{self.port}"]
        return f + (["--kv-event-replay-source", f"{url}=tcp://127.0.0.1:{self.replay}"] if self.replay else [])

    def send(self, seq, batch, keep=True, raw=None):
        payload = raw or msgpack.packb(batch)
        if keep:
            self.kept[seq] = payload
        self.pub.send_multipart([b"", struct.pack(">q", seq), payload])

    def serve_replays(self, old=False):
        """Answers what is asked now: with three frames as vLLM before it sent topics, or with four."""
        asked = []
        while self.router.poll(0):
            who, empty, first = self.router.recv_multipart()
            assert empty == b""
            asked.append(struct.unpack(">q", first)[0])
            topic = [] if old else [b""]
            for seq, payload in sorted(self.kept.items()):
                if seq >= asked[-1]:
                    self.router.send_multipart([who, b"", *topic, struct.pack(">q", seq), payload])
            self.router.send_multipart([who, b"", *topic, struct.pack(">q", -1), b""])
        return asked


def stored(tokens, first, parent=None, form="map", size=BLOCK, **more):
    n = len(tokens) // size
    hashes = [first + i for i in range(n)]
    if form == "array":
        return ["BlockStored", [h.to_bytes(32, "big") for h in hashes], parent, tokens[:n * size], size, None, "GPU", None]
    return {"type": "BlockStored", "block_hashes": hashes, "parent_block_hash": parent, "token_ids": tokens[:n * size], "block_size": size,
            "lora_id": None, "medium": "GPU", "lora_name": None, **more}


def test_gaps_and_forms(pdctl):
    """By scripted batches: every form that vLLM has sent, gaps that a replay closes, and gaps that it does not."""
    a, b = (pdctl.worker(*FAST) for _ in range(2))
    with Engine() as e:
        router = serve(pdctl, a, b, flags=e.flags(b.url))
        one, two, three = (words(64, x) for x in ("one", "two", "three"))
        t1, t2, t3 = (tokens_of(b, x) for x in (one, two, three))
        wait_for("the first question", e.serve_replays)

        def arrived():
            e.send(0, [1.0, [], 0])
            return router.metric("pdctl_kv_event_batches_total")

        wait_for("the subscription", arrived)
        # A batch as a map, with members that nobody knows; then arrays with hashes of bytes.
        e.send(1, {"ts": 1.0, "events": [stored(t1, 100, extra_keys=None, of_tomorrow=[1, {"x": 2}]), {"type": "Unheard", "x": 1}], "data_parallel_rank": 0})
        wait_for("the first prompt", lambda: holder(router, one) == b.url)
        e.send(2, [1.0, [stored(t2, 200, form="array")]])
        wait_for("the second prompt", lambda: holder(router, two) == b.url)
        # 3 is lost; 4 shows it, and the replay closes the gap.
        e.kept[3] = msgpack.packb([1.0, [stored(t3, 300)], 0])
        e.send(4, [1.0, [{"type": "BlockRemoved", "block_hashes": [100], "medium": "GPU"}], 0])
        assert wait_for("the question", lambda: e.serve_replays(old=True)) == [3]
        wait_for("the third prompt", lambda: holder(router, three) == b.url)
        wait_for("what was removed", lambda: holder(router, one) is None)
        assert router.metric("pdctl_kv_event_gaps_total") == 1 and router.metric("pdctl_kv_event_losses_total") == 0
        # A gap that the engine cannot close: what was known is forgotten, what follows counts.
        e.kept.clear()
        e.send(9, [1.0, [stored(t1, 100)], 0], keep=False)
        wait_for("the question", e.serve_replays)
        wait_for("the loss", lambda: router.metric("pdctl_kv_event_losses_total") == 1)
        assert holder(router, one) == b.url and holder(router, three) is None and holder(router, two) is None
        # What cannot be read, what is of another kind, of another size: no credit, and the sequence goes on.
        e.send(10, None, raw=b"\xdf\xff\xff\xff\xff")
        wait_for("the unreadable one", lambda: router.metric("pdctl_kv_event_batches_unreadable_total") == 1)
        assert holder(router, one) is None
        e.send(11, [1.0, [stored(t1, 100, lora_name="sql"), stored(t2, 200, size=8), stored(t3[BLOCK:], 300, parent=999)], 0])
        e.send(12, [1.0, [], 0])
        wait_for("them", lambda: router.metric("pdctl_kv_event_batches_total") >= 8)
        assert [holder(router, x) for x in (one, two, three)] == [None] * 3 and router.metric("pdctl_kv_blocks") == 0
        # The sequence begins anew.
        restarts = router.metric("pdctl_kv_event_restarts_total")
        e.send(0, [1.0, [stored(t2, 200)], 0])
        wait_for("the new engine", lambda: holder(router, two) == b.url)
        assert router.metric("pdctl_kv_event_restarts_total") == restarts + 1
        e.send(1, [1.0, [{"type": "AllBlocksCleared"}], 0])
        wait_for("all to be cleared", lambda: holder(router, two) is None)


def test_without_a_replay(pdctl):
    """Attached to a running engine: what it stores from then on counts; a gap forgets."""
    a, b = (pdctl.worker(*FAST) for _ in range(2))
    with Engine(replays=False) as e:
        router = serve(pdctl, a, b, flags=e.flags(b.url))
        one, two = words(64, "one"), words(64, "two")
        n = [50]

        def arrived():
            n[0] += 1
            e.send(n[0], [1.0, [stored(tokens_of(b, one), 100)], 0])
            return router.metric("pdctl_kv_event_batches_total")

        wait_for("the subscription", arrived)
        wait_for("the first prompt", lambda: holder(router, one) == b.url)
        e.send(n[0] + 5, [1.0, [stored(tokens_of(b, two), 200)], 0])
        wait_for("the second prompt", lambda: holder(router, two) == b.url)
        assert holder(router, one) is None and router.metric("pdctl_kv_event_gaps_total") == 1
        assert "did not come" in router.said("did not come")


def test_sources_that_are_none():
    for flag, text in (("--kv-event-source", "http://127.0.0.1:1"), ("--pd-kv-events", "http://127.0.0.1:1=http://x:1"),
                       ("--kv-event-replay-source", "x=tcp://*:1")):
        done = run("serve", "--policy", "kv_aware", "--worker-urls", "http://127.0.0.1:1", flag, text)
        assert done.returncode == 2 and f"{flag}: found '{text}', expected URL=tcp://HOST:PORT" in done.stderr, done.stderr
