"""The first thing a newcomer runs."""

import os
import re
import socket
import subprocess

import harness

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))


def quickstart(folder, *words):
    return subprocess.run(
        [os.path.join(ROOT, "scripts/quickstart"), "--no-install", *words],
        capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL,
        env={**harness.CLEAN_ENV, "PDCTL": os.path.abspath(harness.PDCTL), "QUICKSTART_DIR": str(folder)},
    )


def nothing_left(folder):
    """Every process that it started is gone: nobody listens on the addresses in its logs."""
    found = 0
    for name in os.listdir(folder):
        if name.endswith(".out"):
            port = int(re.search(r"listening on http://[^:]+:(\d+)", (folder / name).read_text()).group(1))
            found += 1
            with socket.socket() as s:
                assert s.connect_ex(("127.0.0.1", port)) != 0, f"{name}: port {port} still answers"
    assert found == 5


def test_quickstart_passes(tmp_path):
    done = quickstart(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout
    assert re.search(r"\bPASS\b", text) and "PARTIAL" not in text and "FAIL" not in text
    assert "120/120" in text or re.search(r"\b120\b.*\b120\b", text)
    assert "6/6" in text
    assert "protocol mistakes counted by the strict workers: 0" in text
    urls = {k: re.search(r"http://\S+", (tmp_path / f"{k}.out").read_text()).group(0)
            for k in ("prefill-1", "prefill-2", "decode-1", "decode-2")}
    verdict = text[text.index("sending 120 requests") :]
    for name, url in urls.items():
        assert url in verdict, f"{name} was not used"
    for log in tmp_path.glob("*.log"):
        assert not harness.REPORTS.search(log.read_text()), log.read_text()[-4000:]
    nothing_left(tmp_path)


def test_quickstart_takes_free_ports_when_the_published_ones_are_taken(tmp_path):
    taken = []
    for port in (20001, 20004, 30000, 29000):
        try:
            taken.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            pass  # somebody has it already: as good
    try:
        done = quickstart(tmp_path)
    finally:
        for s in taken:
            s.close()
    assert done.returncode == 0, done.stdout + done.stderr
    assert ":30000\n" not in (tmp_path / "router.out").read_text() + "\n"
    nothing_left(tmp_path)


def test_a_worker_that_does_not_start_is_named(tmp_path):
    fake = tmp_path / "fake-pdctl"
    fake.write_text("#!/bin/sh\necho 'no can do' >&2\nexit 3\n")
    fake.chmod(0o755)
    done = subprocess.run(
        [os.path.join(ROOT, "scripts/quickstart"), "--no-install"], capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL, env={**harness.CLEAN_ENV, "PDCTL": str(fake), "QUICKSTART_DIR": str(tmp_path / "q")},
    )
    assert done.returncode == 3
    assert "prefill-1 did not start" in done.stderr and "no can do" in done.stderr


def test_wrong_option_is_a_usage_error(tmp_path):
    assert quickstart(tmp_path, "--fast").returncode == 2
