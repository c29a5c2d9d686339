"""
The documents are executed.

A fenced block that opens with ```sh test holds commands and what they print:

    ```sh test
    $ pdctl compare a.json b.json --quiet
    ```

Each line that starts with "$ " is run by a shell in a temporary folder in which `pdctl` is the binary under test and
`tests`, `scenarios` and `scripts` are links to the repository's. The lines after it must be its standard output (white space at the end of a
line and blank lines at the end do not count); a line "..." stands for any lines; no lines at all: only the exit code is
checked, which is 0, or N with ```sh test exit=N. In pages and blocks without the mark, every line "$ pdctl ..." that is
followed by output is refused by this test: mark the block, or show no output.

Between "<!-- options NAME -->" and "<!-- end of options -->" stands what `pdctl NAME --help-markdown` prints.
"<!-- policies -->" and "<!-- end of policies -->" is the table of `pdctl serve --policies-markdown`, likewise "connectors". DOCS_UPDATE=1 rewrites them.
"""

import os
import pathlib
import re
import subprocess

import pytest

import harness

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```[ \t]*$", re.M | re.S)
TABLE = re.compile(r"(<!-- options (?P<name>[a-z]+) -->\n)(?P<rows>.*?)(<!-- end of options -->)", re.S)


def blocks(page):
    for found in FENCE.finditer(page.read_text()):
        yield page.read_text()[: found.start()].count("\n") + 1, found["info"].split(), found["body"]


def commands(body):
    """The (command, expected lines) pairs of a block."""
    pairs = []
    for line in body.splitlines():
        if line.startswith("$ "):
            pairs.append((line[2:], []))
        elif pairs and pairs[-1][0].endswith("\\"):
            pairs[-1] = (pairs[-1][0][:-1] + line, [])
        elif pairs:
            pairs[-1][1].append(line.rstrip())
    return pairs


def matches(expected, found):
    """True when the lines agree; "..." stands for any number of lines."""
    if not expected:
        return not found
    if expected[0] == "...":
        return any(matches(expected[1:], found[i:]) for i in range(len(found) + 1))
    return bool(found) and expected[0] == found[0] and matches(expected[1:], found[1:])


def trimmed(lines):
    lines = [x.rstrip() for x in lines]
    while lines and not lines[-1]:
        lines.pop()
    return lines


EXAMPLES = [
    pytest.param(page, line, info, body, id=f"{page.name}:{line}")
    for page in PAGES
    for line, info, body in blocks(page)
    if info[:2] == ["sh", "test"]
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pdctl").symlink_to(os.path.abspath(harness.PDCTL))
    work = tmp_path / "work"
    work.mkdir()
    for name in ("tests", "scenarios", "scripts"):
        (work / name).symlink_to(ROOT / name)
    return work


@pytest.mark.parametrize("page, line, info, body", EXAMPLES)
def test_example(folder, page, line, info, body):
    code = next((int(x[5:]) for x in info if x.startswith("exit=")), 0)
    pairs = commands(body)
    assert pairs, f"{page.name}:{line}: the block holds no command"
    env = {**os.environ, "PATH": f"{folder.parent / 'bin'}:{os.environ['PATH']}", "NO_COLOR": "1"}
    env.pop("PDCTL_STORE")  # examples keep their runs, in the temporary folder
    for command, expected in pairs:
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )
        last = command is pairs[-1][0]
        assert done.returncode == (code if last else 0), f"{command}\n{done.stdout}{done.stderr}"
        expected = trimmed(expected)
        if expected:
            assert matches(expected, trimmed(done.stdout.splitlines())), f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_shown_output_is_executed(page):
    for line, info, body in blocks(page):
        if info[:2] == ["sh", "test"]:
            continue
        shown = [c for c, expected in commands(body) if c.startswith("pdctl ") and trimmed(expected)]
        assert not shown, f"{page.name}:{line}: '$ {shown[0]}' shows output that no test checks; mark the block ```sh test"


def command_names():
    return re.findall(r"^  ([a-z]+) ", harness.run("help").stdout, re.M)


def flags(text):
    return set(re.findall(r"--[a-z][a-z0-9-]*", text))


@pytest.mark.parametrize("name", command_names())
def test_options_of_a_page_are_those_of_the_command(name):
    page = ROOT / "docs" / f"{name}.md"
    if not page.exists():
        pytest.skip(f"docs/{name}.md is not written yet")
    text = page.read_text()
    fresh = harness.run(name, "--help-markdown").stdout
    table = TABLE.search(text)
    assert table and table["name"] == name, f"docs/{name}.md lacks <!-- options {name} -->"
    if os.environ.get("DOCS_UPDATE"):
        page.write_text(TABLE.sub(lambda m: m[1] + fresh + m[4], text))
        return
    rows = table["rows"]
    assert rows == fresh, f"docs/{name}.md is not what pdctl {name} --help-markdown prints; run with DOCS_UPDATE=1"
    listed = {f for row in rows.splitlines() for f in flags(row.split(" | ")[0])}
    help_text = harness.run(name, "--help").stdout
    offered = {m for m in re.findall(r"^\s+(?:-\w, )?(--[a-z][a-z0-9-]*)", help_text, re.M)} - {"--help"}
    assert listed == offered


@pytest.mark.parametrize("what", ["policies", "connectors", "vllm bench", "vllm-serve"])
def test_the_table_is_the_programs(what):
    name = {"vllm bench": "bench", "vllm-serve": "worker"}.get(what, "serve")
    page = ROOT / "docs" / f"{name}.md"
    text = page.read_text()
    fresh = harness.run(name, f"--{what.split()[0]}-markdown").stdout
    first, last = f"<!-- {what} -->\n", f"<!-- end of {what} -->"
    rows = text.split(first)[1].split(last)[0]
    if os.environ.get("DOCS_UPDATE"):
        page.write_text(text.replace(first + rows + last, first + fresh + last))
        return
    assert rows == fresh, f"{page} is not what the program prints; run with DOCS_UPDATE=1"
    if name != "serve":
        assert rows.count("\n") > 50
        return
    assert [row.split("`")[1] for row in rows.splitlines()[2:]] == harness.run("serve", f"--list-{what}").stdout.split()


def test_the_table_of_plugins_is_the_programs():
    page = ROOT / "docs" / "epp.md"
    text = page.read_text()
    fresh = harness.run("explain", "--list-plugins").stdout
    first, last = "<!-- plugins -->\n", "<!-- end of plugins -->"
    rows = text.split(first)[1].split(last)[0]
    if os.environ.get("DOCS_UPDATE"):
        page.write_text(text.replace(first + rows + last, first + fresh + last))
        return
    assert rows == fresh, "docs/epp.md is not what pdctl explain --list-plugins prints; run with DOCS_UPDATE=1"


def test_flags_in_prose_exist():
    """A flag in backticks on a command's own page belongs to some command."""
    known = {f for name in command_names() for f in flags(harness.run(name, "--help").stdout)} | {"--help", "--version"}
    for name in command_names():
        page = ROOT / "docs" / f"{name}.md"
        if not page.exists():
            continue
        for line in re.sub(r"<!-- vllm.(bench|serve) -->.*?<!-- end", "", page.read_text(), flags=re.S).splitlines():
            if "vllm bench" in line:
                continue
            for code in re.findall(r"`(--[a-z][^`]*)`", line):
                flag = re.match(r"--[a-z0-9-]+", code)[0]
                foreign = flag in {"--append-result", "--save-detailed", "--save-result"}
                assert foreign or flag in known, f"docs/{name}.md: `{flag}` is no flag of pdctl"
