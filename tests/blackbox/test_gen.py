"""pdctl gen: what the records promise is true of their text, and the same seed gives the same bytes."""

import json
import os

import pytest

import harness


def records(*args):
    done = harness.run("gen", *args)
    assert done.returncode == 0, done.stderr
    return done.stdout, [json.loads(line) for line in done.stdout.splitlines()]


def check_lengths(r):
    assert r["prompt_chars"] == len(r["prompt"])
    assert r["prompt_tokens_approx"] == -(-len(r["prompt"]) // 4)


def test_multi_prefix():
    _, out = records("multi-prefix", "--num-prompts", 200, "--num-prefixes", 5, "--prefix-len", 300, "--suffix-len", 40)
    assert len(out) == 200
    prefixes = {}
    for r in out:
        check_lengths(r)
        assert len(r["prompt"]) == 340
        assert r["prompt_cache_key"] == f"prefix_{r['prefix_group']}"
        assert prefixes.setdefault(r["prefix_group"], r["prompt"][:300]) == r["prompt"][:300]
    assert sorted(prefixes) == [0, 1, 2, 3, 4]
    assert len(set(p[:1] for p in prefixes.values())) == 5, "groups differ from their first character"
    assert len({r["prompt"] for r in out}) == 200, "every question is its own"
    groups = [r["prefix_group"] for r in out]
    assert groups != sorted(groups)


def test_shared_prefix_defaults():
    _, out = records("shared-prefix")
    assert len(out) == 32 and {len(r["prompt"]) for r in out} == {8192 + 32}
    assert len({r["prompt"][:8192] for r in out}) == 1 and len({r["prompt"] for r in out}) == 32
    assert all("timestamp" not in r and "output_tokens" not in r for r in out)


def test_conversations_grow_interleave_and_end_with_the_user():
    _, out = records("conversations", "--num-conversations", 6, "--messages-per-conv", 5, "--context-len", 200, "--new-msg-len", 50)
    assert len(out) == 30
    seen = {}
    for before, r in zip([None] + out, out):
        check_lengths(r)
        conv = r["conversation_id"]
        assert r["prompt_cache_key"] == f"conv_{conv}" and r["prefix_group"] == conv
        assert r["turn"] == r["message_index"] == len(seen.get(conv, []))
        assert before is None or before["conversation_id"] != conv
        messages = r["messages"]
        assert messages[-1]["role"] == "user"
        assert [m["role"] for m in messages] == ["system"] + ["user", "assistant"] * r["turn"] + ["user"]
        assert [len(m["content"]) for m in messages] == [200] + [50] * (len(messages) - 1)
        assert r["prompt"] == "\n".join(f"{m['role']}: {m['content']}" for m in messages)
        if conv in seen:
            last = seen[conv][-1]["messages"]
            assert messages[: len(last)] == last
        seen.setdefault(conv, []).append(r)
    assert all(len(v) == 5 for v in seen.values())


def test_seed_and_arrivals():
    args = ["multi-prefix", "--num-prompts", 2000, "--prefix-len", 20, "--arrival-rate", 50, "--output-tokens", 7]
    a, out = records(*args, "--seed", 5)
    assert a == records(*args, "--seed", 5)[0]
    b, other = records(*args, "--seed", 6)
    assert a != b and [r["prompt"] for r in out] != [r["prompt"] for r in other]
    times = [r["timestamp"] for r in out]
    assert times[0] == 0 and times == sorted(times)
    assert 2000 / 50 * 0.85 < times[-1] / 1000 < 2000 / 50 * 1.15, "a Poisson process of 50/s (6 standard errors)"
    assert all(r["output_tokens"] == 7 for r in out)


def test_tiny_lengths():
    _, out = records("multi-prefix", "--num-prompts", 40, "--prefix-len", 1, "--suffix-len", 0)
    assert {r["prompt"] for r in out} == {"0", "1", "2", "3"}


def test_output_file(tmp_path):
    path = tmp_path / "w.jsonl"
    done = harness.run("gen", "shared-prefix", "--num-prompts", 3, "--output", path)
    assert done.returncode == 0 and done.stdout == ""
    assert path.read_text() == records("shared-prefix", "--num-prompts", 3)[0]
    assert os.listdir(tmp_path) == ["w.jsonl"]
    done = harness.run("gen", "shared-prefix", "--output", tmp_path / "no" / "w.jsonl")
    assert done.returncode == 3 and "w.jsonl" in done.stderr


@pytest.mark.parametrize(
    "words,says",
    [
        ([], "expected shared-prefix"),
        (["prefixes"], "'prefixes'"),
        (["shared-prefix", "more"], "'more'"),
        (["shared-prefix", "--num-prompts", "0"], "--num-prompts"),
        (["shared-prefix", "--context-len", "5"], "--context-len has no effect"),
        (["conversations", "--num-prompts", "5"], "--num-prompts has no effect"),
        (["shared-prefix", "--num-prefixes", "5"], "--num-prefixes has no effect"),
        (["conversations", "--arrival-rate", "0"], "--arrival-rate"),
        (["conversations", "--num-conversations", "1000000", "--messages-per-conv", "1000000"], "number of records"),
    ],
)
def test_wrong_words(tmp_path, words, says):
    done = harness.run("gen", *words, *(["--output", tmp_path / "w.jsonl"] if words else []))
    assert done.returncode == 2 and says in done.stderr and done.stdout == ""
    assert os.listdir(tmp_path) == []
