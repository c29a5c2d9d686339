"""KV events: what a simulated engine publishes, read by pyzmq and msgpack as vLLM's own subscribers do; and a router that follows them."""

import json
import socket
import struct

import msgpack
import zmq

from harness import free_port, wait_for
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
                    del self.held[h]
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
