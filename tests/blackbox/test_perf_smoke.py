"""The performance comparison runs and writes a result of the right shape. No figure is judged here: machines that test are noisy."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from harness import CLEAN_ENV, PDCTL

RUN = os.path.join(os.path.dirname(__file__), "../../scripts/perf/run")
PATH = os.environ.get("PATH", "") + ":/usr/sbin"
MISSING = [p for p in ("nginx", "haproxy", "wrk", "make") if not shutil.which(p, path=PATH)]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


def perf(*args):
    env = {**CLEAN_ENV, "PDCTL": os.path.abspath(PDCTL), "PEERS": "", "BASE": ""}
    return subprocess.run([sys.executable, RUN, *args], capture_output=True, text=True, timeout=300, env=env)


def rows(doc, section, case):
    return {r["server"]: r for r in doc["figures"] if r["section"] == section and r["case"].startswith(case)}


def test_result_document(tmp_path):
    out = tmp_path / "perf.json"
    done = perf(
        "regular", "sse", "start", "--seconds", "1", "--rounds", "1", "--connections", "4", "--streams", "20", "--json", str(out)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    doc = json.loads(out.read_text())
    assert doc["pdctl_perf"] == 1
    assert doc["machine"]["cores"] == os.cpu_count() and doc["machine"]["kernel"] == os.uname().release
    assert set(doc["versions"]) >= {"nginx", "haproxy", "wrk"} and "unknown" not in doc["versions"].values()

    regular = rows(doc, "regular", "4 connections")
    assert set(regular) >= {"direct", "floor", "nginx", "haproxy", "pdctl"}
    for r in regular.values():
        assert r["cpu_us"] > 0 and r["requests"] > 0 and r["errors"] == 0 and r["descriptors"] > 0 and r["peak_rss_kib"] > 0
    assert regular["pdctl"]["ratio"] == pytest.approx(regular["pdctl"]["cpu_us"] / regular["nginx"]["cpu_us"])
    assert regular["pdctl"]["floor_ratio"] == pytest.approx(regular["pdctl"]["cpu_us"] / regular["floor"]["cpu_us"])
    assert "before_ratio" not in regular["pdctl"]

    sse = rows(doc, "sse", "20 streams")
    assert set(sse) >= {"nginx", "haproxy", "pdctl"}
    for r in sse.values():
        assert r["complete"] == r["streams"] == 20 and r["refused"] == 0 and r["cpu_us"] > 0
    assert len({r["events"] for r in sse.values()}) == 1  # everybody relayed the same streams

    assert rows(doc, "start", "")["pdctl"]["first_answer_ms"] > 0
    goals = {g["goal"]: g for g in doc["goals"]}
    assert goals["start to first answer, ms"]["limit"] == 50
    assert all(g["met"] == (g["value"] <= g["limit"]) for g in goals.values())

    page = perf("--markdown", str(out)).stdout
    assert page.count("| regular, 4 connections |") == len(regular)
    assert "| start to first answer, ms |" in page and "not asked for" in page


def test_the_build_before_is_paired(tmp_path):
    """--base measures a second binary in the same rounds; each row of ours has its counterpart, and the goals use them."""
    out, base = tmp_path / "perf.json", tmp_path / "old"
    base.symlink_to(os.path.abspath(PDCTL))
    args = ("--seconds", "1", "--rounds", "1", "--connections", "32", "--streams", "20", "--json", str(out))
    done = perf("regular", "pd", "sse", "--base", str(base), *args)
    assert done.returncode == 0, done.stdout + done.stderr
    doc = json.loads(out.read_text())
    for section, suffix in (("regular", ""), ("pd", " regular"), ("pd", " p/d"), ("sse", "")):
        got = rows(doc, section, "")
        ours, before = got[f"pdctl{suffix}"], got[f"pdctl before{suffix}"]
        assert ours["before_ratio"] == pytest.approx(ours["cpu_us"] / before["cpu_us"])
        assert ours["before_memory_ratio"] == pytest.approx(ours["rss_kib"] / before["rss_kib"])
        assert "before_ratio" not in before
    for name in ("pdctl", "pdctl before"):  # each p/d row against the same binary in front of a plain pool
        got = rows(doc, "pd", "32 ")
        assert got[f"{name} p/d"]["ratio"] == pytest.approx(got[f"{name} p/d"]["cpu_us"] / got[f"{name} regular"]["cpu_us"])
    goals = {g["goal"] for g in doc["goals"]}
    assert {"CPU per request, 32 connections, x before", "P/D, 32 connections, x before"} <= goals
    assert {g["server"] for g in doc["goals"]} == {"pdctl"}


def test_nothing_is_left_behind(tmp_path):
    """No process of a run outlives it, and sections that were asked for alone write no result by themselves."""
    results = os.path.join(os.path.dirname(RUN), "../../results")
    before = sorted(os.listdir(results)) if os.path.isdir(results) else []
    env_mark = f"PERF_SMOKE={tmp_path}"
    env = {**CLEAN_ENV, "PDCTL": os.path.abspath(PDCTL), "PEERS": "", "BASE": "", "PERF_SMOKE": str(tmp_path)}
    done = subprocess.run([sys.executable, RUN, "start", "--rounds", "1"], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    left = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", errors="replace") as f:
                if env_mark in f.read().split("\0"):
                    left.append(pid)
        except OSError:
            continue
    assert not left
    assert (sorted(os.listdir(results)) if os.path.isdir(results) else []) == before


@pytest.mark.parametrize("args", [["--rounds", "0"], ["--pdctl", "/nonexistent"], ["--base", "/nonexistent"], ["--base", PDCTL, "--pdctl", PDCTL], ["tea"]])
def test_wrong_arguments(args):
    done = perf(*args)
    assert done.returncode == 2
    assert done.stderr.count("\n") > 0 and "Traceback" not in done.stderr


def test_tls_section(tmp_path):
    out = tmp_path / "perf.json"
    done = perf("tls", "--seconds", "1", "--rounds", "1", "--json", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    doc = json.loads(out.read_text())
    for case in ("1.4 kB requests", "4 MiB answers", "1 MiB requests", "https workers"):
        got = rows(doc, "tls", case)
        assert "pdctl" in got and any(name.startswith("nginx") for name in got)
        assert all(r["requests"] > 0 and r["errors"] == 0 and r["cpu_us"] > 0 for r in got.values()), got
    assert len([g for g in doc["goals"] if g["limit"] == 1.3]) == 4
