"""The short form of scripts/chaos: workers are killed, stopped, restarted and spoilt under a router full of streams."""

import os
import subprocess
import sys

import pytest

from harness import PDCTL, REPORTS

CHAOS = os.path.join(os.path.dirname(__file__), "../../scripts/chaos")


def chaos(*args):
    env = {**os.environ, "PDCTL": os.path.abspath(PDCTL)}
    return subprocess.run([sys.executable, CHAOS, *args], capture_output=True, text=True, timeout=280, env=env)


def test_nothing_is_lost_when_workers_break():
    done = chaos("--seconds", "20", "--clients", "60", "--seed", os.environ.get("PDCTL_CHAOS_SEED", "1"))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert done.stdout.endswith("verdict: PASS\n") and not REPORTS.search(done.stderr)


@pytest.mark.parametrize("args", [("--seconds", "0"), ("--clients", "0"), ("--what",)])
def test_wrong_options_are_refused(args):
    assert chaos(*args).returncode == 2
