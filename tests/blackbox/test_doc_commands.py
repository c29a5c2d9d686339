"""Every `pdctl COMMAND --option` in a code block of a page names a command and options that there are: also where an example needs GPUs, a
cluster or servers and so is not run by test_docs.py."""

import pathlib
import re
import shlex

import pytest

import harness
from test_docs import FENCE, command_names

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "scripts").rglob("*.md"), *(ROOT / "scenarios").glob("*.md")])
OPTIONS = {}
# Words that print tables for docs/, and words of their own that are no commands of the table.
HIDDEN = {"--help", "--help-markdown", "--policies-markdown", "--connectors-markdown", "--vllm-router-markdown", "--vllm-markdown"}


def options(command):
    if command not in OPTIONS:
        text = harness.run(command, "--help").stdout
        OPTIONS[command] = set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*)", text)) | HIDDEN
    return OPTIONS[command]


def calls(page):
    """(line, words after `pdctl`) of each call in a shell block."""
    text = page.read_text()
    for block in FENCE.finditer(text):
        if not re.match(r"(sh|bash|console|shell)\b", block["info"]):
            continue
        line = text[: block.start()].count("\n") + 2
        shown = re.search(r"^\$ ", block["body"], re.M)  # with output between the commands
        for command in re.sub(r"\\\n", "  ", block["body"]).splitlines():
            for found in re.finditer(r"(?:^|[\s;&|(`/])pdctl\s+([a-z]+)((?:[ \t][^|;&>#`)]*)?)", command):
                if not shown or command.startswith("$ "):
                    yield line, found[1], found[2]
            line += 1


def words(text):
    try:
        return shlex.split(text)
    except ValueError:  # the call ended inside quotes
        return text.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_calls_name_what_there_is(page):
    known = {*command_names(), "help", "version", "man", "completion"}
    wrong = []
    for line, command, rest in calls(page):
        if command not in known:
            wrong.append(f"line {line}: pdctl {command}")
        elif command in command_names():
            given = {w.split("=")[0] for w in words(rest) if re.match(r"--[a-z]", w)}
            there = options(command)
            wrong += [f"line {line}: pdctl {command} {flag}" for flag in given if flag not in there and f"--{flag.removeprefix('--no-')}" not in there]
    assert not wrong, "\n".join(wrong)


def test_a_wrong_call_would_be_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```sh\nfor i in 1; do pdctl bench --base-url x \\\n   --nosuch 1; done | pdctl compare --vs 'a b'\n```\n")
    found = [(command, [w for w in words(rest) if w.startswith("--")]) for _, command, rest in calls(page)]
    assert found == [("bench", ["--base-url", "--nosuch"]), ("compare", ["--vs"])]
    assert "--nosuch" not in options("bench")
