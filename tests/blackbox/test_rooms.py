"""scripts/check-tree finds every door that is crossed, in a copy of this tree."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Doors that must stay shut whatever else scripts/rooms says.
NEVER = [
    ("lib/net", "lib/http"), ("lib/route", "lib/http"), ("lib/route", "lib/net"), ("lib/pd", "lib/http"), ("lib/json", "lib/http"),
    ("lib/http", "lib/router"), ("lib/router/fleet", "lib/router/capture"), ("lib/router/fleet", "lib/router/way"),
    ("lib/router/watch", "lib/router/way"), ("lib/router/keys", "lib/router/way"), ("lib/router/admin", "lib/router/way"),
    ("lib/router/capture", "lib/router/way"), ("sim/worker", "sim/replay"), ("sim/replay", "sim/worker"), ("sim/scenario", "sim/worker"),
    ("sim/engine", "sim/replay"), ("sim/replay", "sim/figures"), ("sim/figures", "sim/report"), ("sim/replay", "sim/scenario"),
    ("sim/report", "sim/scenario"), ("sim/figures", "sim/scenario"), ("sim/trace", "sim/replay"),
    ("lib/route", "lib/route/policy"), ("lib/route", "lib/route/key"), ("lib/route/policy", "lib/route/key"),
]


def read_rooms():
    rooms = {}
    for line in (ROOT / "scripts/rooms").read_text().splitlines():
        room, colon, doors = line.partition(":")
        if colon and not line.startswith("#"):
            rooms[room] = doors.split()
    return rooms


ROOMS = read_rooms()


def link(source, target):
    """Nothing is changed in place, so a second name does for a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


@pytest.fixture
def tree(tmp_path):
    for top in ("lib", "sim", "cmd"):
        shutil.copytree(ROOT / top, tmp_path / top, copy_function=link)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/rooms", tmp_path / "scripts")
    return tmp_path


def check(tree):
    done = subprocess.run([ROOT / "scripts/check-tree", tree], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def finding(tree, path, said):
    """With this empty file more there is exactly one finding."""
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_text("")
    code, out = check(tree)
    assert code == 1
    assert f"{path}:1: " in out and said in out and ", 1 findings" in out, out


def lines_found(tree, path, text):
    """The lines of a new file that have a finding; no other file has one."""
    (tree / path).write_text(text)
    out = check(tree)[1].splitlines()
    assert all(line.startswith((path, "check-tree", "note")) for line in out), out
    return sorted(int(line.split(":")[1]) for line in out if line.startswith(path))


def test_a_copy_of_this_tree_has_no_finding(tree):
    code, out = check(tree)
    assert code == 0, out


def test_each_pair_of_rooms_without_a_door_is_a_finding(tree):
    """A header in each room that includes from all rooms: the lines without a door are found, the others are not."""
    every = list(ROOMS)
    crossed = set()
    for room in every:
        probe = f"{room}/probe_{room.replace('/', '_')}.h"
        headers = [min((p.relative_to(ROOT) for p in (ROOT / target).glob("*.h")), default=f"{target}/any.h") for target in every]
        (tree / room).mkdir(parents=True, exist_ok=True)
        (tree / probe).write_text("".join(f'#include "{header}"\n' for header in headers))
        crossed |= {(f"{probe}:{n}", target) for n, target in enumerate(every, 1) if target != room and target not in ROOMS[room]}
    code, out = check(tree)
    found = {(line.split(": ")[0], line.split(" must not use ")[1].split()[0]) for line in out.splitlines()
             if "/probe_" in line and " must not use " in line}
    assert code == 1
    assert found == crossed
    assert len(crossed) > len(every) * len(every) / 2  # most doors are shut


def test_the_doors_that_must_stay_shut(tree):
    assert [(room, target) for room, target in NEVER if target in ROOMS[room]] == []
    assert ROOMS["sim/engine"] == ["lib/base"]
    sim = {room: [d for d in doors if d.startswith("sim/")] for room, doors in ROOMS.items() if room.startswith("sim/")}
    assert sim == {
        "sim/engine": [], "sim/oracle": ["sim/engine"], "sim/fit": ["sim/engine"], "sim/worker": ["sim/engine"], "sim/trace": [], "sim/replay": ["sim/engine", "sim/trace"],
        "sim/figures": ["sim/replay"], "sim/report": ["sim/figures"],
        "sim/scenario": ["sim/engine", "sim/trace", "sim/replay", "sim/figures", "sim/report"],
    }


def test_no_spelling_of_an_include_gets_past(tree):
    spellings = [
        "#include <lib/http/head.h>", '#include "lib/net/../http/head.h"', '#include "../http/head.h"', '  #  include "lib/http/head.h"',
        '%:include "lib/http/head.h"', '#include "lib/net/loop.c"', "#include HEAD", '#include_next "lib/http/head.h"',
        '#import "lib/http/head.h"', '#include "loop.h"', '#include "cmd/cmd.h"', '#include "tests/unit/sock.h"', '#include <lib/net/loop.h>',
    ]
    assert lines_found(tree, "lib/net/probe.h", "\n".join([*spellings, "#include <stdio.h>", '#include "lib/base/buf.h"', ""])) \
        == list(range(1, len(spellings) + 1))


@pytest.mark.parametrize("path", ["lib/nowhere/probe.h", "lib/probe.h", "sim/probe.h", "sim/engine/deeper/probe.h", "lib/router/new/probe.h"])
def test_a_folder_that_is_no_room(tree, path):
    finding(tree, path, "its folder is no room of scripts/rooms")


@pytest.mark.parametrize("lines, said", [
    ("lib/zero: lib/one\nlib/one: lib/zero\n", "lib/zero names lib/one"),
    ("lib/one: lib/zero\nlib/zero: lib/two\nlib/two: lib/one\n", "lib/one names lib/zero"),
    ("lib/zero: lib/zero\n", "lib/zero names lib/zero"),
    ("lib/zero:\nlib/zero: lib/base\n", "stands here twice"),
])
def test_a_circle_of_rooms(tree, lines, said):
    rooms = tree / "scripts/rooms"
    rooms.write_text(rooms.read_text() + lines)
    code, out = check(tree)
    assert code == 1 and said in out


@pytest.mark.parametrize("room", [room for room, doors in ROOMS.items() if doors])
def test_a_room_that_names_one_below_it(tree, room):
    """Each door turned round: the room that is used names its user."""
    rooms = tree / "scripts/rooms"
    lower = ROOMS[room][-1]
    rooms.write_text("\n".join(f"{line} {room}" if line.startswith(lower + ":") else line for line in rooms.read_text().splitlines()))
    code, out = check(tree)
    assert code == 1 and f"{lower} names {room}, which does not stand above it" in out


@pytest.mark.parametrize("path", ["lib/json/buf.h", "lib/router/way/head.h"])
def test_a_name_twice_below_lib(tree, path):
    finding(tree, path, "the name is taken by")


def test_a_function_is_declared_by_a_header(tree):
    """Without this a call could pass where an include cannot."""
    text = """extern int http_reply(int x);
extern int http_counter;
int http_reply(int x);
struct http_conn *http_open(const char *name, void (*wake)(void *)) PD_MUST;
static int own(int x)
{
	unsigned long http_length(int x);

	return (int)http_length(x);
}
unsigned
http_long_one(int x,
	int y);
"""
    assert lines_found(tree, "lib/net/probe.c", text) == [1, 2, 3, 4, 7, 12]


def test_declarations_of_a_files_own_functions_are_no_finding(tree):
    (tree / "lib/net/probe.c").write_text("static int later(int x);\nint twice(int x);\n\nint twice(int x)\n{\n\treturn later(x);\n}\n\n"
                                          "static int later(int x)\n{\n\tif (x)\n\t\treturn twice(x);\n\telse\n\t\treturn abs(x);\n}\n")
    code, out = check(tree)
    assert code == 0, out


@pytest.mark.parametrize("room", ["lib/http", "lib/router/way", "lib/router", "sim/worker", "sim/trace"])
def test_a_file_without_a_header_of_its_own(tree, room):
    finding(tree, f"{room}/probe.c", "has no header of its own name")
