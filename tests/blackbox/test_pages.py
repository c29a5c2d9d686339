"""The pages lead somewhere: every local link, every path in backticks and every make target that they name exists."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_paths(page):
    for path in re.findall(r"`((?:cmd|lib|sim|scripts|tests|docs|scenarios)/[\w./-]+)`", page.read_text()):
        path = path.replace("NAME", "json")  # stands for any
        assert (ROOT / path).exists(), f"{page.name} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_make_targets(page):
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for words in re.findall(r"`make ([^`]+)`", page.read_text()):
        for word in words.split():
            assert word in known or "=" in word or word.startswith("-"), f"{page.name} names make {word}"
