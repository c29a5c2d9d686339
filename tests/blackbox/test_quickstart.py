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
    for name, port in (("prefill-1", 20001), ("decode-2", 20004), ("router", 30000)):
        took = re.search(r"http://\S+:(\d+)", (tmp_path / f"{name}.out").read_text())[1]
        assert re.search(rf"port {port} is in use: (the )?{name} took {took} instead", done.stdout), done.stdout
    assert re.search(r"port 29000 is in use: its admin port took \d+ instead", done.stdout), done.stdout
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


def readme_blocks():
    text = open(os.path.join(ROOT, "README.md"), encoding="utf-8").read()
    return re.findall(r"^```sh\n(.*?)^```$", text.split("## First steps")[1].split("\n## ")[0], re.M | re.S)


def test_first_steps_of_the_readme_work_as_they_are(tmp_path):
    """Pasted into a shell at once: nothing is asked before it listens, and an unchanged system is found unchanged."""
    script = "".join(readme_blocks())
    assert script.count("build/pdctl") >= 7
    ports = {p: harness.free_port() for p in ("8001", "8002", "30000")}
    for old, new in ports.items():
        script = re.sub(rf"\b{old}\b", str(new), script)
    script = script.replace("build/pdctl serve", f"build/pdctl serve --admin-port 0 --port {ports['30000']}").replace("build/pdctl", os.path.abspath(harness.PDCTL))
    script = "trap 'kill $(jobs -p); wait' EXIT\n" + script
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL, env=harness.CLEAN_ENV
    )
    busy = done.returncode == 3 and "client_ok is false" in done.stderr  # other work on this machine: no figures to compare
    assert busy or done.returncode in (0, 1, 4), done.stdout[-4000:] + done.stderr[-4000:]
    assert done.stdout.count("HTTP/1.1 200 OK") == 1 and re.search(r"^X-Worker: http", done.stdout, re.M)
    assert "Connection refused" not in done.stdout + done.stderr
    assert busy or "base: 1 run, old.json" in done.stdout and "new: 1 run, new.json" in done.stdout
    assert (tmp_path / "warmup.json").exists(), "a cold cache is no base: a warm one would be taken for an improvement"
