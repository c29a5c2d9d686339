"""Applies the example of a page like docs/adding-a-policy.md to a copy of the tree and builds that.

In the page a block "```c file=PATH" is a new file, a block "```diff" changes files that are there. The built objects travel with the copy,
so that only what changed is compiled.
"""

import os
import pathlib
import re
import shutil
import subprocess

import harness

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(?P<info>(?:c file=\S+)|diff)\n(?P<text>.*?)^```$", re.M | re.S)
MAKE_S = 900


def variant():
    """The build folder of the program under test, and the knobs of make that fill it."""
    folder = pathlib.Path(harness.PDCTL).resolve().parent
    name = folder.relative_to(ROOT).as_posix() if folder.is_relative_to(ROOT) else "build"
    knobs = {"build/cov": ["COV=1"], "build/hard": ["HARDEN=1"], "build/debug": ["DEBUG=1"], "build/clang": ["CC=clang"]}.get(name, [])
    if name.startswith("build/san-"):
        knobs = ["SAN=" + name.removeprefix("build/san-").replace("-", ",")]
    return name, [*knobs, f"O={name}"]


def apply(page, tree):
    """Returns the new files and the numbers of lines that changed elsewhere: (paths, added, removed)."""
    files, added, removed = [], 0, 0
    for block in BLOCK.finditer((ROOT / "docs" / page).read_text()):
        text = block["text"]
        if block["info"] == "diff":
            done = subprocess.run(["patch", "-p1", "--no-backup-if-mismatch", "--fuzz=0"], cwd=tree, input=text, text=True, capture_output=True)
            assert done.returncode == 0, done.stdout + done.stderr
            lines = [line for line in text.splitlines() if not line.startswith(("+++", "---"))]
            added += sum(line.startswith("+") for line in lines)
            removed += sum(line.startswith("-") for line in lines)
        else:
            path = tree / block["info"].partition("=")[2]
            assert not path.exists(), f"{path} is there already"
            path.write_text(text)
            files.append(path)
    return files, added, removed


def build(page, tree):
    """A copy of the tree with the page's change, built: (program, new files, lines added, lines removed)."""
    name, knobs = variant()
    tree.mkdir()
    for entry in ("Makefile", "cmd", "lib", "sim", "scripts", "tests", "docs", "results", "README.md", "CONTRIBUTING.md", ".clang-format"):
        if (ROOT / entry).is_dir():
            shutil.copytree(ROOT / entry, tree / entry, ignore=shutil.ignore_patterns("corpus", "__pycache__"))
        else:
            shutil.copy2(ROOT / entry, tree / entry)
    for entry in ("cmd", "lib", "sim", "libpdctl.a", ".cflags", ".ldflags", ".sources"):
        if (ROOT / name / entry).is_dir():
            shutil.copytree(ROOT / name / entry, tree / name / entry)
        elif (ROOT / name / entry).exists():
            shutil.copy2(ROOT / name / entry, tree / name / entry)
    change = apply(page, tree)
    done = subprocess.run(["make", "-s", *knobs, f"{name}/pdctl"], cwd=tree, capture_output=True, text=True, timeout=MAKE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / name / "pdctl", *change


def run(program, *args):
    return subprocess.run([program, *map(str, args)], capture_output=True, text=True, timeout=60, env=harness.CLEAN_ENV)


def tests_of(program, tree, *args):
    """Black-box tests of the copy, with its program."""
    env = {**os.environ, "PDCTL": str(program)}
    done = subprocess.run(["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, args)], cwd=tree, env=env, capture_output=True,
                          text=True, timeout=MAKE_S)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout
