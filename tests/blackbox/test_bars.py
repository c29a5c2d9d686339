"""Bars and sparklines below the tables of bench and compare: when they are there, in which characters, and that they say what the figures say."""

import os
import pathlib
import pty
import re

import pytest

import harness
from harness import Pdctl, run

DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "vllm_bench"
BLOCKS = "▁▂▃▄▅▆▇█"


@pytest.fixture(scope="module")
def router():
    workers = [Pdctl("worker", "--model", "m").start() for _ in range(2)]
    router = Pdctl("serve", "--worker-urls", *[w.url for w in workers], "--policy", "round_robin").start()
    yield router
    for p in (router, *workers):
        p.stop()


def bench(router, *words, env=None):
    done = run("bench", "--base-url", router.url, "--model", "m", "--num-prompts", 10, "--output-len", 4, *words, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bench(router):
    for words in ((), ("--bars", "off"), ("--bars", "auto")):
        assert "requests by worker" not in bench(router, *words), "no terminal, no bars"
    text = bench(router, "--bars", "unicode")
    lines = {m[1]: m for m in re.finditer(rf"^(TTFT|ITL|E2E) +([{BLOCKS}]{{48}})  ([0-9.]+) to ([0-9.]+) ms$", text, re.M)}
    assert set(lines) == {"TTFT", "ITL", "E2E"}
    assert all(m[2][0] != BLOCKS[0] and m[2][-1] != BLOCKS[0] and float(m[3]) <= float(m[4]) for m in lines.values()), "both ends have a value"
    table = re.search(r"^E2E +10 .* ([0-9.]+)$", text, re.M)
    assert table[1] == lines["E2E"][4], "the largest is the table's"
    loads = re.findall(r"^(http\S+) +(█+) +5$", text, re.M)
    assert len(loads) == 2 and len(loads[0][1]) == len(loads[1][1]) == 48
    text = bench(router, "--bars", "ascii")
    assert text.isascii() and re.search(r"^http\S+ +#{48} 5$", text, re.M)
    assert "requests by worker" not in bench(router, "--bars", "unicode", "--json")


def test_compare():
    words = ("compare", *sorted(DATA.glob("base-*.json")), "--vs", *sorted(DATA.glob("slow-*.json")), "--metrics", "p99_ttft_ms,request_throughput")
    assert "scale" not in run(*words).stdout
    text = run(*words, "--bars", "ascii").stdout
    bars = text[text.index("change of new") :]
    more, less = re.search(r"^p99_ttft_ms +\|(#+)", bars, re.M), re.search(r"^request_throughput +(#+)\| ", bars, re.M)
    assert more and less and len(more[1]) > len(less[1]) and bars.isascii()
    assert len(re.search(r"base (\S{5})  new (\S{5})$", bars, re.M)[1]) == 5, "a column for each run"
    assert "scale" not in run(*words, "--bars", "ascii", "--format", "md").stdout


@pytest.mark.parametrize("locale, sign", [("C.UTF-8", "█"), ("C", "#")])
def test_a_terminal_has_them(locale, sign):
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(harness.PDCTL, [harness.PDCTL, "compare", str(DATA / "base-1.json"), str(DATA / "slow-1.json")], {**harness.CLEAN_ENV, "LC_ALL": locale, "TERM": "dumb"})
    text = b""
    try:
        while got := os.read(fd, 65536):
            text += got
    except OSError:
        pass  # the other end is closed
    os.waitpid(pid, 0)
    os.close(fd)
    bars = text.decode()[text.decode().index("the scale ends at") :]
    assert sign in bars and (sign != "#" or bars.isascii())


def test_a_wrong_word():
    done = run("compare", "a", "b", "--bars", "always")
    assert done.returncode == 2 and "--bars" in done.stderr
