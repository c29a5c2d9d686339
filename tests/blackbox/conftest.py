"""Fixtures of the black-box tests; the work is in harness.py."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import harness  # noqa: E402
from harness import Fleet  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "both_forms: runs with --io events and with --io threads")


def pytest_generate_tests(metafunc):
    if metafunc.definition.get_closest_marker("both_forms"):
        metafunc.fixturenames.append("io_form")
        metafunc.parametrize("io_form", ["events", "threads"], scope="module")


def pytest_runtest_setup(item):
    params = item.callspec.params if hasattr(item, "callspec") else {}
    harness.IO = params.get("io_form", harness.IO_DEFAULT)


@pytest.fixture
def pdctl():
    """pdctl("worker", "--model", "m") starts a process; all of them are stopped and checked at the end of the test."""
    fleet = Fleet()
    yield fleet
    fleet.stop()
