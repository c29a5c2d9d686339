"""Workload files: every format is read by bench, simulate and gen alike, what is decided or not used is said, members of records reach
the server, and bench sends in the order in which simulate replays."""

import gzip
import json
import os
import pathlib

import pytest

import harness
from fake_engine import FakeEngine
from harness import run

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
EXAMPLES = sorted((ROOT / "tests/fuzz/corpus/workload").glob("format-*"))
CASES = pathlib.Path(os.environ.get("PDCTL_CASES", ROOT / "../shared/cases"))
SHIPPED = [ROOT / "scenarios" / f"{n}.yaml" for n in ("consistent-hash-pd", "few-sessions", "hot-prefix", "multi-prefix", "scale-out", "worker-failure")]


def answer(seen, wire):
    if seen.target == "/v1/embeddings":
        return wire.json({"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 1}})
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    if seen.target == "/v1/completions":
        return wire.json({"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}], "usage": usage})
    return wire.json({"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage})


def bench(engine, path, *args):
    done = run("bench", "--base-url", engine.url, "--dataset", path, "--no-stream", "--no-store", "--json", "--save-detailed", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def simulate(path, *args):
    done = run("simulate", "--workload", path, "--workers", 1, "--policy", "round_robin", "--no-store", "--json", "-", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def endpoint_of(name):
    """Lists of tokens are for completions."""
    return "/v1/completions" if name in ("custom", "text") else "/v1/chat/completions"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_each_format_is_read_by_both(path):
    name = path.name.removeprefix("format-")
    doc, _ = simulate(path)
    assert doc["pdctl"]["workload"]["format"] == name and doc["completed"] == doc["num_prompts"] > 0
    with FakeEngine(answer) as engine:
        sent, _ = bench(engine, path, "--endpoint", endpoint_of(name), "--speedup", 1000)
    assert sent["completed"] == doc["num_prompts"] and sent["pdctl"]["workload"]["format"] == name
    # what one of them says about the file the other one says too
    said = [n for n in sent["pdctl"]["workload"]["notes"]]
    assert [n for n in doc["pdctl"]["workload"]["notes"] if n in said] == said


READ = {  # file: requests, arrivals are the file's
    "ds-float-out.jsonl": (1, False), "ds-openai-body.jsonl": (1, False), "trace-bailian-bt.jsonl": (3, True),
    "trace-epoch-seconds.jsonl": (2, True), "trace-hotkeys.jsonl": (400, True), "formats/aiperf_multi.jsonl": (2, False),
    "formats/aiperf_single.jsonl": (1, False), "formats/array.json": (2, False), "formats/azure.csv": (5, True),
    "formats/bailian.jsonl": (2, True), "formats/burstgpt_new.csv": (1, True), "formats/burstgpt_old.csv": (2, True),
    "formats/custom_extra.jsonl": (2, False), "formats/llmss_sess.jsonl": (2, True), "formats/lmcache.jsonl": (1, True),
    "formats/perrec.jsonl": (1, False), "formats/vidur.csv": (1, True),
}


@pytest.mark.skipif(not CASES.exists(), reason=f"no {CASES}: set PDCTL_CASES to the folder of small inputs")
@pytest.mark.parametrize("name", READ)
def test_small_inputs(name):
    requests, stamped = READ[name]
    doc, _ = simulate(CASES / name)
    assert doc["num_prompts"] == doc["completed"] == requests
    assert doc["pdctl"]["workload"]["arrivals_invented"] is not stamped
    with FakeEngine(answer) as engine:
        sent, _ = bench(engine, CASES / name, "--scale-tokens", 0.01)
    assert sent["completed"] == requests


def test_what_was_decided_is_said(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"timestamp": 1757000000.25, "input_length": 600, "output_length": 5, "hash_ids": [0, 1], "colour": 1}\n'
                    '{"timestamp": 1757000001.5, "input_length": 600, "output_length": 5, "hash_ids": [0, 2], "colour": 2}\n')
    doc, said = simulate(path)
    notes = doc["pdctl"]["workload"]["notes"]
    assert notes[0].startswith("time stamps are read as seconds since 1970") and notes[1] == "not used: colour"
    assert doc["pdctl"]["workload"]["arrivals"] == "time stamps of the file" and 1.25 <= doc["duration"] < 1.5
    assert all(f"note: {n}\n" in said for n in notes)
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    doc, said = simulate(path)
    assert doc["pdctl"]["workload"]["arrivals"] == "invented: Poisson, 4 requests/s, seed 1"
    assert "note: arrivals are invented: Poisson, 4 requests/s, seed 1; the file has no time stamps\n" in said
    assert "output lengths are not stated: 128 tokens where none is" in said
    for command in ("simulate --workload", "bench --dataset", "gen --from"):
        path.write_text('{"timestamp": 0.5, "input_length": 6, "output_length": 1}\n{"timestamp": 1.9, "input_length": 6, "output_length": 1}\n')
        done = run(*command.split(), path)
        assert done.returncode == 2 and "expected --timestamp-unit s or --timestamp-unit ms" in done.stderr and not done.stdout
        path.write_text('{"colour": 1}\n')
        done = run(*command.split(), path)
        assert done.returncode == 2 and f"{path}:1:1: unknown format: found an object with 'colour', expected one of: " in done.stderr
    path.write_text('{"timestamp": 0.5, "input_length": 6, "output_length": 1}\n{"timestamp": 1.9, "input_length": 6, "output_length": 1}\n')
    doc, _ = simulate(path, "--timestamp-unit", "s")
    assert 1.4 <= doc["duration"] < 1.6


def test_packed_and_renamed(tmp_path):
    plain, _ = simulate(ROOT / "tests/fuzz/corpus/workload/format-azure")
    path = tmp_path / "no-suffix"
    path.write_bytes(gzip.compress((ROOT / "tests/fuzz/corpus/workload/format-azure").read_bytes()))
    packed, _ = simulate(path)
    packed["pdctl"]["source"] = plain["pdctl"]["source"]
    assert packed == plain
    path.write_bytes(path.read_bytes()[:-9])
    done = run("simulate", "--workload", path)
    assert done.returncode == 2 and f"cannot read '{path}': damaged gzip data: it ends in the middle" in done.stderr


def test_members_of_a_record_reach_the_server(tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text(
        '{"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],'
        '"temperature":0.20,"max_tokens":7,"odd":1}\n'
        '{"model":"theirs","messages":[{"role":"user","content":"b"}],"odd":1.50}\n')
    with FakeEngine(answer) as engine:
        _, said = bench(engine, path, "--extra-body", '{"top_p": 0.5}')
        bodies = {s.json()["messages"][0]["content"]: s for s in engine.seen}
    a, b = bodies["a"].json(), bodies["b"].json()
    assert (a["temperature"], a["max_tokens"], a["tools"][0]["function"]["name"], a["top_p"]) == (0.2, 7, "f", 0.5)
    assert b'"temperature": 0.20' in bodies["a"].body and "odd" not in a
    assert b'"odd": 1.50' in bodies["b"].body and b["model"] == "m" and b["temperature"] == 0.0
    assert "note: not used: odd, model\n" in said
    with FakeEngine(answer) as engine:  # the options of the run win
        bench(engine, path, "--extra-body", '{"temperature": 1}')
        assert {s.json()["temperature"] for s in engine.seen} == {1} and all(s.body.count(b'"temperature"') == 1 for s in engine.seen)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_each_format_becomes_records_and_a_trace(path, tmp_path):
    """What gen makes of a file is the same workload again; a TraceV2 has lengths and blocks but no text."""
    figures = ("num_prompts", "total_input_tokens", "total_output_tokens")
    before, _ = simulate(path)
    for args, name in (["--to", "pdctl"], "again.jsonl"), (["--to", "tracev2"], "again"):
        done = run("gen", "--from", path, "--output", tmp_path / name, *args)
        assert done.returncode == 0, done.stderr
        after, _ = simulate(tmp_path / (name if name.endswith("l") else name + ".yaml"))
        assert [before[f] for f in figures] == [after[f] for f in figures], args
        if before["pdctl"]["workload"]["arrivals_invented"] is False:
            assert after["duration"] == pytest.approx(before["duration"], abs=1e-3)


def test_a_generated_workload_needs_no_file(tmp_path):
    path = tmp_path / "w.jsonl"
    args = ["num-prompts", 12, "num-prefixes", 3, "prefix-len", 64, "seed", 7, "output-tokens", 2]
    assert run("gen", "multi-prefix", *(f"--{a}" if isinstance(a, str) else a for a in args), "--output", path).returncode == 0
    name = "gen:multi-prefix," + ",".join(f"{args[i]}={args[i + 1]}" for i in range(0, len(args), 2))
    with FakeEngine(answer) as engine:
        bench(engine, path)
        bench(engine, name)
        texts = [s.json()["messages"][0]["content"] for s in engine.seen]
    assert sorted(texts[:12]) == sorted(texts[12:]) and len(texts) == 24
    one, two = simulate(path)[0], simulate(name)[0]
    assert one["pdctl"]["pools"] == two["pdctl"]["pools"]
    done = run("bench", "--dataset", "gen:multi-prefix,num-promts=3")
    assert done.returncode == 2 and "gen: unknown option 'num-promts', did you mean 'num-prompts'" in done.stderr


def test_prompts_of_token_ids(tmp_path):
    """Equal blocks are equal ids, and lengths are those of the trace, whatever tokenizer the server has."""
    path = tmp_path / "t.jsonl"
    path.write_text('{"input_length":40,"output_length":2,"block_tokens":16,"hash_ids":[1,2,3]}\n{"input_length":35,"output_length":2,"block_tokens":16,"hash_ids":[1,2,9]}\n')
    with FakeEngine(answer) as engine:
        bench(engine, path, "--endpoint", "/v1/completions", "--token-ids")
        a, b = sorted((s.json()["prompt"] for s in engine.seen), key=len, reverse=True)
    assert (len(a), len(b)) == (40, 35) and a[:32] == b[:32] and a[32:35] != b[32:] and all(isinstance(t, int) for t in a)
    done = run("bench", "--base-url", "http://127.0.0.1:1", "--dataset", path, "--token-ids")
    assert done.returncode == 2 and "--token-ids requires --endpoint /v1/completions" in done.stderr


# ---- one order ----


def sent_order(path, *args):
    with FakeEngine(answer) as engine:
        doc, _ = bench(engine, path, *args)
    return sorted(range(doc["completed"]), key=lambda i: doc["start_times"][i])


def replayed_order(path, tmp_path, *args):
    decisions = tmp_path / "d.jsonl"
    simulate(path, "--routing-only", "--decisions", decisions, *args)
    return [json.loads(line)["request"] for line in decisions.read_text().splitlines()]


def talk(sessions, turns, delay):
    """Turns of sessions one behind the other in the file; the pauses tell the sessions apart by far more than any answer takes."""
    return [{"prompt": f"{s}-{t}", "session_id": f"s{s}", "turn": t, "delay": delay[s] if t else 0, "output_tokens": 1}
            for s in range(sessions) for t in range(turns)]


@pytest.mark.parametrize("args", [
    ["--max-concurrency", 1], ["--max-concurrency", 1, "--concurrent-sessions", 2], ["--max-concurrency", 2, "--concurrent-sessions", 1],
], ids=lambda a: " ".join(map(str, a)))
def test_closed_loop_has_one_order(args, tmp_path):
    path = tmp_path / "w.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in talk(4, 3, [0] * 4)))
    sent = sent_order(path, *args)
    assert sent == replayed_order(path, tmp_path, *args)
    if args[-2:] == ["--concurrent-sessions", 1]:
        assert sent == list(range(12))
    elif len(args) == 2:
        assert sent[:4] == [0, 3, 6, 9]


def test_think_times_have_one_order(tmp_path):
    path = tmp_path / "w.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in talk(3, 3, [500, 700, 1200])))
    args = ["--max-concurrency", 1]
    sent = sent_order(path, *args)
    assert sent == replayed_order(path, tmp_path, *args) and sent != sorted(sent)


def test_open_loop_has_one_order(tmp_path):
    """Time stamps that do not rise in the file, a session whose second turn is stamped before its first one has ended."""
    path = tmp_path / "w.jsonl"
    records = [{"timestamp": t, "prompt": f"p{i}", "session_id": s, "output_tokens": 1} if s else {"timestamp": t, "prompt": f"p{i}", "output_tokens": 1}
               for i, (t, s) in enumerate([(300, None), (0, "a"), (600, "a"), (150, "b"), (900, None), (450, "b"), (750, None)])]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    for args in (["--timestamps"], ["--timestamps", "--speedup", 2], ["--timestamps", "--max-concurrency", 1]):
        sent = sent_order(path, *args)
        assert sent == [1, 3, 0, 5, 2, 6, 4], args
        # simulate numbers requests by their arrival
        assert replayed_order(path, tmp_path, *args) == list(range(7)), args


# ---- scenario files say where ----

SCENARIO = """name: a
workload:
  generate: {sessions: 10, turns: 2}
workers:
  count: 2
policies: [round_robin]
"""


@pytest.mark.parametrize("text, said", [
    (SCENARIO.replace("generate: {sessions: 10, turns: 2}", "file: missing.jsonl"), "a.yaml:3:9: cannot open '"),
    (SCENARIO.replace("count: 2", "names: [x, y, x]"), "a.yaml:5:17: the name 'x' is given twice"),
    (SCENARIO + "events:\n  - {action: fail, worker: 1, at_request: 20}\n",
     "a.yaml:8:43: 'at_request' is 20, but the workload has 20 requests: expected a number from 0 to 19"),
    (SCENARIO + "expect:\n  - 'idle_workers == 0'\n  - 'consistent_hash: idle_workers == 0'\n",
     "a.yaml:9:5: 'consistent_hash: idle_workers == 0' fits no combination"),
], ids=["file", "names", "event", "expectation"])
def test_a_mistake_has_its_place(text, said, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    done = run("simulate", path, "--json", tmp_path / "out.json")
    assert done.returncode == 2 and f"pdctl simulate: {tmp_path}/{said}" in done.stderr and not (tmp_path / "out.json").exists()


def test_all_workers_failed(tmp_path):
    path, decisions = tmp_path / "a.yaml", tmp_path / "d.jsonl"
    path.write_text(SCENARIO + "engine: {kv_tokens: 400000}\nevents:\n  - {action: fail, worker: 1, at_request: 10}\n  - {action: fail, worker: 2, at_request: 10}\n"
                    "  - {action: join, worker: 1, at_ms: 900000}\n")
    done = run("simulate", path, "--no-store", "--decisions", decisions)
    assert done.returncode == 0 and "a: round_robin, 2 workers: of 20 requests 10 refused, " in done.stdout and "failed" in done.stdout.splitlines()[0]
    assert "note: " in done.stderr and "changes nothing" in done.stderr
    lines = [json.loads(line) for line in decisions.read_text().splitlines()]
    events = [d for d in lines if "event" in d]
    assert [(d["event"], d["worker"], d["before_request"]) for d in events] == [("fail", "worker-1", 10), ("fail", "worker-2", 10), ("join", "worker-1", 20)]
    assert len(lines) == 23 and all(d["scenario"] == "a" for d in lines) and [d["request"] for d in lines if "pick" in d] == list(range(20))
    path.write_text(path.read_text().replace("at_request: 10", "at_request: 0"))
    done = run("simulate", path, "--no-store")
    assert done.returncode == 1 and "of 20 requests 20 refused, 0 lost" in done.stdout and f"FAILED {path}: round_robin, 2 workers: no request completed" in done.stderr


def test_the_table_fits():
    done = run("simulate", *SHIPPED, "--no-store")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 100
    assert "columns of --wide: " in done.stdout
    wide = run("simulate", *SHIPPED, "--no-store", "--wide")
    assert "load max/mean" in wide.stdout and "columns of --wide" not in wide.stdout and "consistent-hash-pd" in wide.stdout
