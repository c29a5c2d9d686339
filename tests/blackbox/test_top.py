"""pdctl top: one picture for programs, and the live one in a terminal of its own."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import harness
from fake_engine import FakeEngine
from harness import free_port, run, wait_for
from test_admin_workers import BODY, ok, plain
from test_pd_faults import fleet

UTF8 = {"LC_ALL": "C.UTF-8"}


def rows(text):
    """{worker: {column: text}} of the table."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("role"))
    heads = [(m.group(0), m.start(), m.end()) for m in re.finditer(r"\S+(?: \S+)*", lines[at])]
    out = {}
    for line in filter(None, lines[at + 2 :]):
        cells = re.split(r"\s{2,}", line)
        out[cells[1]] = dict(zip([h[0] for h in heads], cells))
    return out


def test_one_picture(pdctl):
    with FakeEngine(ok) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"w0={one.url}", f"w1={two.url}")
        assert router.admin("POST", "/workers/w1/drain")[0] == 200
        done = run("top", router.admin_url, "--once", "--interval", 0.2)
        assert done.returncode == 0, done.stderr
        table = rows(done.stdout)
        assert {n: (r["role"], r["state"], r["in flight"]) for n, r in table.items()} == {"w0": ("regular", "available", "0"), "w1": ("regular", "draining", "0")}
        assert "1 of 2 workers available" in done.stdout and router.admin_url in done.stdout and "policy round_robin" in done.stdout
        assert "\033" not in done.stdout


def test_figures_of_a_pair(pdctl):
    router, ps, ds = fleet(pdctl, prefill=1, decode=1)
    assert run("top", router.admin_url, "--once", "--interval", 0.2).returncode == 0  # from here on it is watched
    body = {"model": "m", "prompt": "tell me", "max_tokens": 8, "stream": True, "stream_options": {"include_usage": True}}
    top = subprocess.Popen([harness.PDCTL, "top", router.admin_url, "--once", "--interval", "3", "--ascii"], stdout=subprocess.PIPE, text=True, env=harness.CLEAN_ENV)
    for _ in range(5):
        assert router.post("/v1/completions", body)[0] == 200
    text = top.communicate(timeout=60)[0]
    assert top.returncode == 0
    table = rows(text)
    assert set(table) == {"p0", "d0"} and table["p0"]["role"] == "prefill"
    assert text.isascii()


def test_figures_are_of_what_was_added_between_two_looks(pdctl):
    """Rates, means and shares of a prefill and a decode worker; one that is new has none."""

    def worker(role, name, **counts):
        zero = dict.fromkeys(("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "first_n", "first_us", "gap_n", "gap_us", "errors"), 0)
        return {"role": role, "name": name, "state": "available", "why": "", "in_flight": 2, "oldest_silent_s": None, **zero, **counts}

    then = [worker("prefill", "p0", requests=10, prompt_tokens=1000), worker("decode", "d0", requests=10, completion_tokens=100, first_n=4, first_us=9000, gap_n=10, gap_us=5000)]
    now = [worker("prefill", "p0", requests=30, prompt_tokens=5000, cached_tokens=1250, oldest_silent_s=1.5, errors=3),
           worker("decode", "d0", requests=20, completion_tokens=300, first_n=9, first_us=69000, gap_n=110, gap_us=130000), worker("decode", "d1", requests=7)]

    def state(seen, wire):
        first = len(engine.seen) == 1
        wire.json({"at": 1000 if first else 3000, "version": "1", "mode": "prefill/decode", "workers": then if first else now, "pools": [], "in_flight": 4, "queued": 1})

    with FakeEngine(state) as engine:
        done = run("top", engine.url, "--once", "--interval", 0.2, "--ascii")
        assert done.returncode == 0, done.stderr
        table = rows(done.stdout)
    columns = ("in flight", "silent", "requests/s", "tokens/s", "first ms", "token ms", "cached", "errors")
    assert {n: tuple(r[c] for c in columns) for n, r in table.items()} == {
        "p0": ("2", "1.5 s", "10.0", "2000", "-", "-", "25 %", "3"),
        "d0": ("2", "-", "5.0", "100", "12.0", "1.25", "-", "0"),
        "d1": ("2", "-", "-", "-", "-", "-", "-", "0"),
    }
    assert "4 in flight, 1 queued, 5.0 requests/s, 100 tokens/s, 3 of 3 workers available; by name" in done.stdout


def test_names_cannot_command_the_terminal(pdctl):
    """A router that is not ours sends what it likes: escape codes become question marks."""
    evil = {"role": "regular", "name": "w\x1b]0;owned\x07\x9b31m\u009b2J", "url": "x", "state": "available", "why": "\x1b[2J", "in_flight": 1, "requests": 5}

    def state(seen, wire):
        wire.json({"at": 1000 + len(engine.seen), "version": "\x1b[31m", "mode": "plain", "workers": [evil], "pools": [], "in_flight": 1, "queued": 0})

    with FakeEngine(state) as engine:
        for words in ((), ("--ascii",)):
            done = run("top", engine.url, "--once", "--interval", 0.2, *words, env=UTF8)
            assert done.returncode == 0 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout), repr(done.stdout)
            assert "w?]0;owned?" in done.stdout


def test_what_is_no_router(pdctl):
    done = run("top", f"http://127.0.0.1:{free_port()}", "--once")
    assert done.returncode == 3 and "pdctl top:" in done.stderr and "--admin-port as URL" in done.stderr
    assert "pdctl top: URL: found 'ftp://x'" in run("top", "ftp://x").stderr
    for answer, says in (({"workers": []}, "answered 200"), ({"error": {"message": "no"}}, "answered 404")):
        with FakeEngine(lambda seen, wire, a=answer: wire.json(a, 404 if "error" in a else 200)) as engine:
            done = run("top", engine.url, "--once")
            assert done.returncode == 3 and says in done.stderr, done.stderr
    with FakeEngine(lambda seen, wire: wire.reply(200, b"# HELP a b\n", "text/plain")) as engine:
        assert run("top", engine.url, "--once").returncode == 3
    assert run("top", "a", "b").returncode == 2 and run("top", "ftp://x").returncode == 2 and run("top", "--interval", "0").returncode == 2


class Terminal:
    """pdctl top on a pseudo terminal."""

    def __init__(self, *args, size=(24, 80)):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(harness.PDCTL, [harness.PDCTL, "top", *map(str, args)], {**harness.CLEAN_ENV, **UTF8, "TERM": "xterm"})
        self.text, self.code = "", None
        self.resize(*size)

    def resize(self, lines, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self):
        while select.select([self.fd], [], [], 0.05)[0]:
            try:
                got = os.read(self.fd, 65536)
            except OSError:
                return False
            if not got:
                return False
            self.text += got.decode(errors="replace")
        return True

    def frame(self):
        """The last picture that is whole, without codes."""
        self.read()
        parts = self.text.split("\033[H")
        whole = [p for p in parts[1:] if "\033[J" in p]
        return re.sub(r"\033\[[0-9;?]*[A-Za-z]", "", whole[-1]) if whole else ""

    def key(self, what):
        os.write(self.fd, what.encode())

    def end(self):
        def over():
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
            return pid

        wait_for("it to end", over)
        self.read()
        os.close(self.fd)
        return self.code


def test_live(pdctl):
    with FakeEngine(ok) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"a-worker={one.url}", f"b-worker={two.url}")
        top = Terminal(router.admin_url, "--interval", 0.2, size=(24, 200))
        wait_for("the workers", lambda: "b-worker" in top.frame() and "by name" in top.frame())
        assert top.text.startswith("\033[?1049h\033[?25l")
        for order in ("in flight", "requests/s", "errors", "name"):
            top.key("s")
            wait_for(order, lambda order=order: f"by {order}" in top.frame())
        for _ in range(20):
            router.post("/v1/completions", BODY)
        wait_for("a rate", lambda: re.search(r"[1-9][0-9.]* requests/s,|0\.[1-9] requests/s,", top.frame()))
        top.key("p")
        wait_for("the pause", lambda: "PAUSED" in top.frame())
        top.key("p")
        wait_for("it to go on", lambda: "PAUSED" not in top.frame())
        top.resize(7, 30)
        wait_for("a small picture", lambda: max(map(len, top.frame().splitlines())) <= 30 and len(top.frame().splitlines()) <= 7)
        top.key("q")
        assert top.end() == 0
        assert top.text.endswith("\033[?25h\033[?1049l")


def test_live_when_the_router_goes_and_comes_back(pdctl):
    answer = {"on": True}

    def state(seen, wire):
        if answer["on"]:
            wire.json({"at": 1000 * len(engine.seen), "version": "1", "mode": "plain", "workers": [], "pools": [], "in_flight": 0, "queued": 0})
        else:
            wire.json({}, 500)

    with FakeEngine(state) as engine:
        top = Terminal(engine.url, "--interval", 0.2, size=(24, 120))
        wait_for("the first", lambda: "version 1" in top.frame())
        answer["on"] = False
        wait_for("the trouble", lambda: "NO ANSWER" in top.frame())
        answer["on"] = True
        wait_for("the return", lambda: "version 1" in top.frame() and "NO ANSWER" not in top.frame())
        os.kill(top.pid, signal.SIGTERM)
        assert top.end() == 0 and top.text.endswith("\033[?1049l"), "the terminal is put back"
        top = Terminal(engine.url, "--interval", 0.2)
        wait_for("the first", lambda: "version 1" in top.frame())
        os.kill(top.pid, signal.SIGINT)
        assert top.end() == 130
