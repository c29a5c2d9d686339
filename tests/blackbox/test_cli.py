"""The command line itself: every command teaches, refuses what it does not know, and notices a full disk."""

import os
import re
import subprocess

import pytest

import harness

COMMANDS = ["serve", "worker", "bench", "simulate", "compare", "gen"]


def test_no_arguments_teach_and_fail():
    done = harness.run()
    assert done.returncode == 2
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", done.stdout + done.stderr), command


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_lists_the_commands(words):
    done = harness.run(*words)
    assert done.returncode == 0 and done.stderr == ""
    for command in COMMANDS:
        assert re.search(rf"^\s+{command}\b", done.stdout, re.M), command


@pytest.mark.parametrize("command", COMMANDS + ["workers"])
def test_help_command_is_the_commands_help(command):
    done = harness.run("help", command)
    assert (done.returncode, done.stdout, done.stderr) == (0, harness.run(command, "--help").stdout, "")


@pytest.mark.parametrize("words, message", [
    (["help", "simulat"], "did you mean 'simulate'?"), (["help", "serve", "worker"], "found 'worker', expected one command"),
    (["nothing-like-it"], "unknown command 'nothing-like-it'"), (["workers", "lst"], "did you mean 'list'?"),
])
def test_a_command_that_is_none_is_exit_2(words, message):
    done = harness.run(*words)
    assert (done.returncode, done.stdout, message in done.stderr) == (2, "", True), done.stderr


@pytest.mark.parametrize("command", COMMANDS + ["workers"])
@pytest.mark.parametrize("width", [40, 60, 80, 133])
def test_help_fits_the_terminal(command, width):
    """Nothing but examples and words without a space is wider, and no word is lost."""
    plain = harness.run(command, "--help", env={"COLUMNS": ""}).stdout
    text = harness.run(command, "--help", env={"COLUMNS": str(width)}).stdout
    assert text.split() == plain.split()
    body, examples = text.split("\nexamples:\n")
    assert examples == plain.split("\nexamples:\n")[1]
    for line in body.splitlines():
        assert len(line) <= width or line.startswith("  --") or " " not in line.strip(), line
    assert width > 80 or "\n    " in body


def test_help_fits_a_real_terminal():
    import fcntl
    import pty
    import struct
    import termios

    try:
        ours, theirs = pty.openpty()
    except OSError as why:
        pytest.skip(f"no terminal here: {why}")
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 66, 0, 0))
    with subprocess.Popen([harness.PDCTL, "gen", "--help"], stdout=theirs, env={**harness.CLEAN_ENV, "COLUMNS": ""}) as proc:
        os.close(theirs)
        text = b""
        try:
            while piece := os.read(ours, 65536):
                text += piece
        except OSError:
            pass  # the other end has closed
        assert proc.wait(30) == 0
    os.close(ours)
    assert text.decode().split() == harness.run("gen", "--help", env={"COLUMNS": ""}).stdout.split()
    lines = text.decode().split("examples:")[0].splitlines()
    assert max(map(len, lines)) <= 66 and len([x for x in lines if len(x) > 50]) > 3


def test_version():
    done = harness.run("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"pdctl \d+\.\d+\.\d+\S*\n", done.stdout)


def test_unknown_command_names_the_nearest():
    done = harness.run("simulat")
    assert done.returncode == 2 and done.stdout == ""
    assert "simulat" in done.stderr and "simulate" in done.stderr.replace("'simulat'", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_teaches(command):
    done = harness.run(command, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert re.search(rf"pdctl {command}\b", done.stdout)
    assert len(re.findall(r"^\s+--[a-z]", done.stdout, re.M)) >= 3, "options with an explanation"
    assert re.search(rf"^\s*\$? ?pdctl {command} ", done.stdout, re.M), "at least one example"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_line_is_without_words(command):
    text = harness.run(command, "--help").stdout
    for flag in re.findall(r"^\s+(--[a-z0-9-]+)\b[^\n]*$", text, re.M):
        line = next(x for x in text.splitlines() if re.match(rf"\s+{flag}\b", x))
        at = text.splitlines().index(line)
        words = re.sub(r"^\s+--\S+(\s[A-Z|a-z.,/_-]+)?", "", line) + "".join(text.splitlines()[at + 1 : at + 2])
        assert len(re.findall(r"[a-z]{2,}", words)) >= 1, line


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_flag(command):
    done = harness.run(command, "--no-such-flag-at-all")
    assert done.returncode == 2 and done.stdout == ""
    assert "--no-such-flag-at-all" in done.stderr


@pytest.mark.parametrize(
    "command,typo,meant",
    [
        ("serve", "--polcy", "--policy"),
        ("serve", "--prefil", "--prefill"),
        ("worker", "--block-sise", "--block-size"),
        ("bench", "--num-promts", "--num-prompts"),
        ("simulate", "--polisy", "--policy"),
        ("compare", "--fail-onn", "--fail-on"),
    ],
)
def test_misspelt_flag_names_the_right_one(command, typo, meant):
    done = harness.run(command, typo, "x")
    assert done.returncode == 2
    assert f"'{typo}'" in done.stderr and f"'{meant}'" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "--port", "70000"],
        ["serve", "--port", "12x"],
        ["serve", "--port"],
        ["serve", "--policy", "consistent-hash", "--worker-urls", "http://127.0.0.1:1"],
        ["serve", "--worker-urls", "127.0.0.1"],
        ["worker", "--role", "decoder"],
        ["worker", "--port", "-1"],
        ["bench", "--base-url", "ftp://x", "--model", "m"],
        ["simulate", "--workload", "/nonexistent/trace.jsonl", "--workers", "4"],
        ["compare", "/nonexistent/a.json", "/nonexistent/b.json"],
    ],
    ids=" ".join,
)
def test_bad_input_is_exit_2_and_says_what(words):
    done = harness.run(*words)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.startswith(f"pdctl {words[0]}: ")
    assert len(done.stderr.strip().splitlines()) <= 3, "one clear message, not a page"


@pytest.mark.parametrize("words", [["--help"], ["--version"], *[[c, "--help"] for c in COMMANDS]], ids=" ".join)
def test_full_disk_fails_the_run(words):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([harness.PDCTL, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 3
    assert "No space left" in done.stderr or "standard output" in done.stderr


def test_closed_pipe_is_no_crash():
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([harness.PDCTL, "serve", "--help"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=30)
    finally:
        os.close(write)
    assert done.returncode in (3, -13)


@pytest.mark.parametrize("name", re.findall(r"^  ([a-z]+) ", harness.run("help").stdout, re.M))
def test_help_is_whole_lines(name):
    done = harness.run(name, "--help")
    assert (done.returncode, done.stdout[-1:], done.stderr) == (0, "\n", "")


@pytest.mark.parametrize(
    "args, message",
    [
        (["serve", "--worker-urls", "http://127.0.0.1:1", "--policy", "smetric"], "--policy: unknown policy 'smetric', expected"),
        (
            ["serve", "--worker-urls", "http://127.0.0.1:1", "--decode-policy", "roundrobin"],
            "--decode-policy: unknown policy 'roundrobin', did you mean 'round_robin'?",
        ),
        (["simulate", "--workload", "-", "--policy", "random,bogus"], "--policy: unknown policy 'bogus', expected"),
        (["bench", "--base-url", "ftp://x"], "--base-url: found 'ftp://x', expected http://HOST:PORT"),
    ],
)
def test_wrong_value_names_its_flag(args, message):
    done = harness.run(*args)
    assert done.returncode == 2
    assert message in done.stderr
