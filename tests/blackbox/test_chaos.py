"""The short form of scripts/chaos: workers are killed, stopped, restarted and spoilt under a router full of streams."""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys

import pytest

from harness import PDCTL, REPORTS

CHAOS = os.path.join(os.path.dirname(__file__), "../../scripts/chaos")


def chaos(*args):
    env = {**os.environ, "PDCTL": os.path.abspath(PDCTL)}
    return subprocess.run([sys.executable, CHAOS, *args], capture_output=True, text=True, timeout=280, env=env)


@pytest.mark.parametrize("io", ["events", "threads"])
def test_nothing_is_lost_when_workers_break(io):
    done = chaos("--io", io, "--seconds", "20", "--clients", "60", "--seed", os.environ.get("PDCTL_CHAOS_SEED", "1"))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert done.stdout.endswith("verdict: PASS\n") and not REPORTS.search(done.stderr)


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, os.path.dirname(CHAOS))
    loader = importlib.machinery.SourceFileLoader("chaos_script", CHAOS)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("chaos_script", loader))
    loader.exec_module(module)
    return module


def test_memory_is_judged_by_what_keeps_growing(script):
    """What the busiest moment needed stays; what each third adds is a leak, and so is more than its requests can have held."""
    assert script.judge_memory(9_400, [12_900, 12_900, 12_900], 200) == []
    assert script.judge_memory(9_400, [10_300, 10_900, 11_400], 200) == []
    assert "grows" in script.judge_memory(9_400, [9_800, 11_300, 13_000], 200)[0]
    assert "at most" in script.judge_memory(10_300, [15_000, 15_000, 15_000], 200)[0]
    assert script.judge_memory(10_300, [15_000, 15_000, 15_000], 200, threads=True) == []
    assert len(script.judge_memory(10_800, [20_000, 25_000, 30_000], 200)) == 2


@pytest.mark.parametrize("args", [("--seconds", "0"), ("--clients", "0"), ("--what",)])
def test_wrong_options_are_refused(args):
    assert chaos(*args).returncode == 2
