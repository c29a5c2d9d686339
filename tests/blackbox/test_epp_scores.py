"""Recorded cases of llm-d's endpoint picker, decided again by the router's own plugins, and configurations that are wrong."""

import json
import os
import pathlib

import pytest

import harness

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OWN = ROOT / "tests" / "data" / "epp_scores.jsonl"
ALL = pathlib.Path(os.environ.get("PDCTL_DATA", ROOT / "../shared/data")) / "epp_scores"


def test_the_cases_of_the_tree():
    done = harness.run("explain", "--cases", OWN)
    lines = len(OWN.read_text().splitlines())
    assert (done.returncode, done.stdout.split()[1:], done.stderr) == (0, [str(lines), "of", str(lines)], "")


@pytest.mark.skipif(not ALL.exists(), reason=f"no {ALL}: set PDCTL_DATA to the folder of recorded data")
def test_all_cases():
    files = sorted(ALL.glob("*.jsonl"))
    done = harness.run("explain", "--cases", *files)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(files) >= 26


def others(value):
    """Values that are not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1e-9
    if isinstance(value, list):
        return value[1:] if value else ["default/nobody"]
    return {}


def test_a_wrong_result_is_found(tmp_path):
    """Each case with one result of it changed: none of them passes."""
    wrong = []
    for line in OWN.read_text().splitlines():
        case = json.loads(line)
        output = case.get("output", {})
        for name in ("scores", "kept", "best", "disaggregate", "loads", "saturation", "picked_count"):
            if name not in output or (name == "scores" and not output[name]):
                continue
            fresh = json.loads(line)
            if name == "scores":
                key = sorted(output[name])[-1]
                fresh["output"]["scores"][key] = others(output[name][key])
            else:
                fresh["output"][name] = others(output[name])
            wrong.append(json.dumps(fresh))
        for at, step in enumerate(case.get("steps", [])):
            scores = step.get("scores", {})
            scores = scores.get("decode", scores)
            if scores:
                fresh = json.loads(line)
                changed = fresh["steps"][at]["scores"]
                changed = changed.get("decode", changed)
                changed[sorted(scores)[0]] = others(scores[sorted(scores)[0]])
                wrong.append(json.dumps(fresh))
                break
    path = tmp_path / "wrong.jsonl"
    path.write_text("\n".join(wrong) + "\n")
    done = harness.run("explain", "--cases", path)
    assert done.returncode == 1
    assert done.stdout.split()[1:] == ["0", "of", str(len(wrong))] and len(wrong) > 100


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "none.jsonl"
    assert harness.run("explain", "--cases", path).returncode == 2
    path.write_text('{"plugin": 3}\nnothing\n[]\n{"plugin": "queue-scorer"}\n')
    done = harness.run("explain", "--cases", path)
    assert (done.returncode, done.stdout.split()[1:]) == (1, ["0", "of", "4"])


HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"

FULL = HEAD + """plugins:
- {type: active-request-scorer, parameters: {idleThreshold: 1}}
- {name: hits, type: prefix-cache-scorer}
- {type: label-selector-filter, parameters: {matchLabels: {app: a}}}
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins: [{pluginRef: label-selector-filter}, {pluginRef: active-request-scorer, weight: 2}, {pluginRef: hits}, {pluginRef: max-score-picker}]
"""
OLD = """apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefill-header-handler
- type: prefix-cache-scorer
  parameters: {blockSize: 64, maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 31250}
- type: prefill-filter
- type: decode-filter
- type: max-score-picker
- {type: pd-profile-handler, parameters: {threshold: 0, hashBlockSize: 64, primaryPort: 0}}
schedulingProfiles:
- name: prefill
  plugins: [{pluginRef: prefill-filter}, {pluginRef: max-score-picker}, {pluginRef: prefix-cache-scorer, weight: 2}]
- name: decode
  plugins: [{pluginRef: decode-filter}, {pluginRef: max-score-picker}, {pluginRef: prefix-cache-scorer, weight: 2}]
saturationDetector: {queueDepthThreshold: 5, kvCacheUtilThreshold: 0.8, metricsStalenessThreshold: 200ms}
"""
FLOW = HEAD + "featureGates: [flowControl]\nplugins: []\nflowControl:\n"
BAD = [
    ("", "1:1: found an empty file"),
    ("plugins: []\n", "1:1: 'apiVersion': found none, expected inference.networking.x-k8s.io/v1alpha1"),
    ("apiVersion: v2\nkind: EndpointPickerConfig\n", "1:13: 'apiVersion': found v2"),
    ("apiVersion: llm-d.ai/v1alpha1\nkind: Pod\n", "2:7: 'kind': found Pod, expected EndpointPickerConfig"),
    (HEAD + "pluggins: []\n", "3:1: unknown key 'pluggins', did you mean 'plugins'?"),
    (HEAD + "featureGates: [flow]\n", "3:16: unknown feature gate 'flow'"),
    (HEAD + "plugins: [{type: queue-scorrer}]\n", "3:18: unknown plugin type 'queue-scorrer', did you mean 'queue-scorer'?"),
    (HEAD + "plugins: [{type: load-aware-scorer, parameters: {threshhold: 5}}]\n", "3:50: load-aware-scorer has no parameter 'threshhold', did you mean 'threshold'?"),
    (HEAD + "plugins: [{type: load-aware-scorer, parameters: {threshold: x}}]\n", "3:61: 'threshold': found 'x', expected a whole number"),
    (HEAD + "plugins: [{type: prefix-cache-scorer, parameters: {blockSize: 5}}]\n", "3:52: prefix-cache-scorer has no parameter 'blockSize'"),
    (HEAD + "plugins: [{type: queue-scorer}, {type: queue-scorer}]\n", "3:33: duplicate plugin 'queue-scorer'"),
    (HEAD + "plugins: [{name: x}]\n", "3:11: found no type"),
    (FULL.replace("pluginRef: hits", "pluginRef: hit"), "10:108: 'pluginRef': found 'hit', expected the name of a plugin of this file"),
    (FULL.replace("weight: 2", "weight: two"), "10:92: 'weight': expected a number"),
    (FULL + "- {name: two, plugins: []}\n", "1:1: found 2 profiles and no profile handler"),
    (FULL.replace("{matchLabels: {app: a}}", "{matchExpressions: [{key: app, operator: Is}]}"), "'operator': found Is, expected In, NotIn, Exists or DoesNotExist"),
    (OLD.replace("name: decode", "name: dekode"), "10:3: pd-profile-handler: found no profile 'decode'"),
    (OLD.replace("threshold: 0", "threshold: -1"), "10:54: 'threshold': found -1, expected at least 0 bytes"),
    (OLD.replace("200ms", "fast"), "'metricsStalenessThreshold': found 'fast', expected a duration"),
    (FLOW + "  maxByts: 1\n", "6:3: unknown key 'maxByts', did you mean 'maxBytes'?"),
    (FLOW + "  maxBytes: 1Zi\n", "6:13: 'maxBytes': found '1Zi', expected a quantity"),
    (FLOW + "  defaultRequestTTL: -1s\n", "6:22: 'defaultRequestTTL': expected a duration"),
    (FLOW + "  priorityBands: [{priority: 1}, {priority: 1}]\n", "6:34: duplicate band of priority 1"),
    (FLOW + "  priorityBands: [{priority: 1, fairnessPolicyRef: none}]\n", "'fairnessPolicyRef': found 'none', expected the name of a plugin"),
    (FLOW + "  enableEviction: true\n", "6:19: 'enableEviction': found true, expected false"),
]


@pytest.mark.parametrize("text, message", BAD, ids=[m[:50] for _, m in BAD])
def test_a_configuration_that_is_wrong(tmp_path, text, message):
    path = tmp_path / "epp.yaml"
    path.write_text(text)
    words = ["serve", "--worker-urls", "http://127.0.0.1:1", "--port", 0, "--prometheus-port", -1, "--epp-config", path]
    done = harness.run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and str(path) in done.stderr, done.stderr
    trace = tmp_path / "w.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 16, "output_length": 2, "hash_ids": [1]}\n')
    done = harness.run("simulate", "--workload", trace, "--epp-config", path)
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_a_configuration_needs_its_pools_and_its_policy(tmp_path):
    path = tmp_path / "epp.yaml"
    path.write_text(FULL)
    pd = ["serve", "--prefill", "http://127.0.0.1:1", "--decode", "http://127.0.0.1:2", "--port", 0, "--prometheus-port", -1, "--epp-config", path]
    assert "found no profile for prefill" in harness.run(*pd).stderr
    plain = ["serve", "--worker-urls", "http://127.0.0.1:1", "--port", 0, "--prometheus-port", -1, "--epp-config", path, "--policy", "random"]
    assert "has no effect with --policy random, expected scores" in harness.run(*plain).stderr
