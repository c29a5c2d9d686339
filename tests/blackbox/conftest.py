"""Fixtures of the black-box tests; the work is in harness.py."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from harness import Fleet  # noqa: E402


@pytest.fixture
def pdctl():
    """pdctl("worker", "--model", "m") starts a process; all of them are stopped and checked at the end of the test."""
    fleet = Fleet()
    yield fleet
    fleet.stop()
