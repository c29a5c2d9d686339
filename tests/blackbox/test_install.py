"""`make install` gives a library that another program can use, and `make uninstall` takes everything away again."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

import harness
from test_pdroute import STRICT, example

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
COMMANDS = re.findall(r"^  ([a-z]+) ", harness.run("help").stdout, re.M)
FILES = ["bin/pdctl", "include/pdroute.h", "lib/libpdroute.a", "lib/libpdroute.so", "lib/libpdroute.so.1", "lib/pkgconfig/pdroute.pc",
         "lib/systemd/system/pdctl.service", "lib/systemd/system/pdctl.socket", "share/bash-completion/completions/pdctl",
         "share/zsh/site-functions/_pdctl", "share/man/man1/pdctl.1", *(f"share/man/man1/pdctl-{name}.1" for name in COMMANDS)]  # fmt: skip


def make(*words, cwd=ROOT):
    done = subprocess.run(["make", "-s", *words], cwd=cwd, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def build_and_run(folder, env):
    """The example of the page, in C and in C++, with the shared library, with the archive, and static as a whole."""
    program, output = example()
    for suffix, compiler in (("c", "cc -std=c11"), ("cc", "g++ -std=c++17")):
        if not shutil.which(compiler.split()[0]):
            continue
        (folder / f"prog.{suffix}").write_text(program)
        for name, libs in (
            ("shared", "$(pkg-config --libs pdroute)"),
            ("archive", "$(pkg-config --libs-only-L pdroute) -l:libpdroute.a -lm"),
            ("static", "-static $(pkg-config --static --libs pdroute)"),
        ):
            build = f"{compiler} {' '.join(STRICT)} $(pkg-config --cflags pdroute) prog.{suffix} -o {name} {libs} && ./{name}"
            done = subprocess.run(["sh", "-c", build], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert done.stdout == output
            needed = subprocess.run(["readelf", "-d", name], cwd=folder, capture_output=True, text=True, timeout=20).stdout
            assert ("libpdroute.so.1" in needed) == (name == "shared")
            os.unlink(folder / name)
        os.unlink(folder / f"prog.{suffix}")


needs_compiler = pytest.mark.skipif(not shutil.which("cc") or not shutil.which("pkg-config"), reason="needs cc and pkg-config")


@needs_compiler
def test_install_use_uninstall(tmp_path):
    place = ["DESTDIR=", f"PREFIX={tmp_path}/usr"]
    make("install", *place)
    assert files(tmp_path) == sorted(f"usr/{name}" for name in FILES)
    assert f"ExecStart={tmp_path}/usr/bin/pdctl serve" in (tmp_path / "usr/lib/systemd/system/pdctl.service").read_text()
    assert subprocess.run([tmp_path / "usr/bin/pdctl", "--version"], timeout=20).returncode == 0
    env = {**harness.CLEAN_ENV, "PKG_CONFIG_PATH": f"{tmp_path}/usr/lib/pkgconfig", "LD_LIBRARY_PATH": f"{tmp_path}/usr/lib"}
    build_and_run(tmp_path, env)
    make("uninstall", *place)
    assert files(tmp_path) == []


@needs_compiler
def test_install_below_destdir(tmp_path):
    """As a packager does it: the files lie below DESTDIR and speak of PREFIX."""
    place = [f"DESTDIR={tmp_path}", "PREFIX=/opt/pd"]
    make("install", *place)
    assert files(tmp_path) == sorted(f"opt/pd/{name}" for name in FILES)
    assert "ExecStart=/opt/pd/bin/pdctl serve" in (tmp_path / "opt/pd/lib/systemd/system/pdctl.service").read_text()
    assert (tmp_path / "opt/pd/lib/pkgconfig/pdroute.pc").read_text().startswith("prefix=/opt/pd\n")
    env = {**harness.CLEAN_ENV, "PKG_CONFIG_PATH": f"{tmp_path}/opt/pd/lib/pkgconfig", "PKG_CONFIG_SYSROOT_DIR": str(tmp_path),
           "LD_LIBRARY_PATH": f"{tmp_path}/opt/pd/lib"}  # fmt: skip
    build_and_run(tmp_path, env)
    make("uninstall", *place)
    assert files(tmp_path) == []


def test_what_the_dockerfile_copies_is_enough(tmp_path):
    """Its build stage sees only what it copies: every source file that `make` wants must be among it."""
    for names in re.findall(r"^COPY (?!--)(.*)$", (ROOT / "Dockerfile").read_text(), re.M):
        *sources, target = names.split()
        for source in sources:
            here, there = ROOT / source, tmp_path / target
            if here.is_dir():
                shutil.copytree(here, there)
            else:
                (there if target.endswith("/") else there.parent).mkdir(parents=True, exist_ok=True)
                shutil.copy(here, there)
    (tmp_path / "build").mkdir()
    plan = make("-n", "all", "O=build", cwd=tmp_path)
    for name in ("cmd/main", "lib/router/router", "lib/pdroute/pdroute_decide"):
        assert f"build/{name}.o" in plan
    assert "lib/pdroute/pdroute.map" in plan and (tmp_path / "lib/pdroute/pdroute.map").exists()


def test_the_library_needs_no_threads_sockets_or_clock():
    """libpdroute is the decision path: what it asks of the system is memory and text, nothing else."""
    make("all")
    listing = subprocess.run(["nm", "-u", "-A", ROOT / "build/libpdroute.so.1", "-D"], capture_output=True, text=True, timeout=60)
    assert listing.returncode == 0
    wanted = {line.split()[-1].split("@")[0] for line in listing.stdout.splitlines()}
    foreign = {"socket", "connect", "send", "recv", "read", "write", "open", "fopen", "pthread_create", "clock_gettime", "time",
               "printf", "puts", "exit", "abort", "getenv"}
    assert "calloc" in wanted and not wanted & foreign, wanted & foreign


def install_deps(tmp_path, *words, **tools):
    """scripts/install-deps on a machine that has only these tools."""
    for name, text in {"bash": None, "env": None, "apt-get": "exit 9", **tools}.items():
        path = tmp_path / name.replace("_", "-")
        if text is None:
            path.symlink_to(shutil.which(name))
        else:
            path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
            path.chmod(0o755)
    return subprocess.run([ROOT / "scripts/install-deps", *words], capture_output=True, text=True, timeout=60, env={"PATH": str(tmp_path)})


def test_installing_says_in_a_sentence_that_it_needs_root(tmp_path):
    done = install_deps(tmp_path, "build", dpkg_query="exit 1", id="echo 1000")
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"install-deps: root is needed to install gcc [^\n]*: run this as root, or install sudo\n", done.stderr)


def test_what_is_there_is_not_installed_again_and_no_server_comes_with_the_tests(tmp_path):
    done = install_deps(tmp_path, "build", "test", dpkg_query="echo -n installed", promtool="exit 0", id="echo 1000")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    groups = (ROOT / "scripts/install-deps").read_text().split("declare -A groups=(")[1].split("\n)")[0]
    assert "promtool" in groups and not re.search(r"\b(prometheus|nginx|haproxy)\b", groups)
    assert {"procps", "patch"} <= set(groups.replace('"', " ").split())
