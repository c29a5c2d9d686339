"""scenarios/scenario.schema.json, which editors use: it is what the program prints, and says of a file what the program says."""

import json
import pathlib

import pytest

from harness import run

jsonschema = pytest.importorskip("jsonschema", reason="python3-jsonschema is not installed")
yaml = pytest.importorskip("yaml", reason="python3-yaml is not installed")

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "scenarios/scenario.schema.json"
SCENARIOS = sorted((ROOT / "scenarios").glob("*.yaml"))


def check(document):
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(document)


def test_the_file_is_what_the_program_prints():
    assert run("simulate", "--print-schema").stdout == SCHEMA.read_text()


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda p: p.stem)
def test_each_scenario_fits(path):
    check(yaml.safe_load(path.read_text()))


GOOD = """name: a
workload: {generate: {sessions: 3, turns: 2}}
workers: {count: 2}
policies: [random]
"""


@pytest.mark.parametrize(
    "change",
    [
        ("name: a\n", ""),
        ("sessions: 3", "sesions: 3"),
        ("sessions: 3", "sessions: many"),
        ("sessions: 3", "order: random"),
        ("policies: [random]", "policies: []"),
        ("policies: [random]", "policies: random"),
        ("policies: [random]", "policies: [random]\nevents: [{action: leaf, worker: 1, at_ms: 3}]"),
        ("policies: [random]", "policies: [random]\nevents: [{worker: 1, at_ms: 3}]"),
        ("policies: [random]", "policies: [random]\nsweep: {grid: {seed: 3}}"),
        ("policies: [random]", "policies: [random]\nsweep: {grid: {seed: [3]}, list: [{seed: 3}]}"),
        ("policies: [random]", "policies: [random]\nrouting_only: 3"),
        ("workers: {count: 2}", "prefill: {count: 1}\ndecode: {count: 1}\nlink: {kind: nvlnk}"),
    ],
)
def test_both_refuse_the_same_mistakes(tmp_path, change):
    path = tmp_path / "s.yaml"
    path.write_text(GOOD)
    check(yaml.safe_load(GOOD))
    assert run("simulate", "--check", path).returncode == 0
    path.write_text(GOOD.replace(*change))
    assert run("simulate", "--check", path).returncode == 2
    with pytest.raises(jsonschema.ValidationError):
        check(yaml.safe_load(path.read_text()))


def words(node, path=""):
    if isinstance(node, dict):
        if "enum" in node:
            yield path, node["enum"]
        for key, value in node.get("properties", {}).items():
            yield from words(value, f"{path}.{key}" if path else key)
        if isinstance(node.get("items"), dict):
            yield from words(node["items"], path + "[]")


def test_words_of_the_schema_are_those_of_the_program(tmp_path):
    """A wrong word is answered with the words that were expected."""
    asked = {
        "workload.generate.assign": "workload: {generate: {assign: wrong}}",
        "workload.generate.key": "workload: {generate: {key: wrong}}",
        "workload.generate.order": "workload: {generate: {order: wrong}}",
        "workload.gen.kind": "workload: {gen: {kind: wrong}}",
        "workload.timestamp_unit": "workload: {gen: {kind: multi-prefix}, timestamp_unit: wrong}",
        "events[].action": "events: [{action: wrong, worker: 1, at_ms: 1}]",
        "events[].pool": "events: [{action: join, worker: 1, pool: wrong, at_ms: 1}]",
        "decider.kind": "decider: {kind: wrong}",
        "link.kind": "link: {kind: wrong}",
        "host_link.kind": "host_link: {kind: wrong}",
        "routers.by": "routers: {by: wrong}",
    }
    found = dict(words(json.loads(SCHEMA.read_text())))
    assert set(found) == set(asked)
    path = tmp_path / "s.yaml"
    for where, line in asked.items():
        text = GOOD.replace("workers: {count: 2}", "prefill: {count: 1}\ndecode: {count: 1}")
        if line.startswith("workload"):
            text = text.replace("workload: {generate: {sessions: 3, turns: 2}}", line)
        else:
            text += line + "\n"
        path.write_text(text)
        err = run("simulate", "--check", path).stderr
        assert "found 'wrong'" in err, (where, err)
        for word in found[where][:3]:
            assert word in err.split("expected")[1], (where, word, err)
