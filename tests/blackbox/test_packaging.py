"""What is installed beside the program: manual pages and completion from the option tables, versions, packages, bytes without a place."""

import hashlib
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import tarfile

import pytest

import harness

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
COMMANDS = re.findall(r"^  ([a-z]+) ", harness.run("help").stdout, re.M)


def output(*words):
    done = harness.run(*words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def options(name):
    return re.findall(r"^  (--[a-z][a-z0-9-]*)", output(name, "--help"), re.M)


# -- manual pages --


def rendered(page):
    done = subprocess.run(["mandoc", "-T", "ascii"], input=page, capture_output=True, text=True, timeout=60)
    return re.sub(r"(.)\x08(?=\1|.)", "", done.stdout)


@pytest.mark.skipif(not shutil.which("mandoc"), reason="needs mandoc")
@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_the_manual_page_is_sound_and_whole(name):
    page = output("man", *([name] if name else []))
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning"], input=page, capture_output=True, text=True, timeout=60)
    assert (lint.returncode, lint.stdout) == (0, ""), lint.stdout
    text = rendered(page)
    for section in ("NAME", "SYNOPSIS", "EXIT STATUS", "SEE ALSO"):
        assert re.search(rf"^{section}$", text, re.M), section
    if not name:
        assert [c for c in COMMANDS if not re.search(rf"pdctl-{c}\(1\)", text)] == []
        return
    left = re.findall(r"^\s{2,8}(--[a-z][a-z0-9-]*)", text, re.M)
    assert set(options(name)) <= set(left)
    # Nothing of the help is lost: not a backslash, an apostrophe at the beginning of a line, or a quote.
    flat = re.sub(r"\s+", " ", text)
    for line in output(name, "--help").splitlines():
        words = re.match(r"^(?:  --\S+(?: \S+)?)?\s{4,}(\S.*)", line)
        if words and " [also --" not in line and not line.lstrip().startswith("pdctl"):
            assert re.sub(r"\s+", " ", words[1])[:40] in flat, line


@pytest.mark.parametrize("words", [["nosuch"], ["serve", "worker"], ["--help"]])
def test_a_page_of_no_command_is_refused(words):
    done = harness.run("man", *words)
    assert (done.returncode, done.stdout) == (2, "") and words[-1] in done.stderr and "expected" in done.stderr


# -- completion --


def completed(tmp_path, line, words=None):
    """What bash offers at the end of the line, split as bash splits it."""
    script = tmp_path / "pdctl.bash"
    if not script.exists():
        script.write_text(output("completion", "bash"))
    words = words or line.split(" ")
    quoted = " ".join("'" + w + "'" for w in words)
    done = subprocess.run(
        ["bash", "-uec", f'. {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _pdctl; printf "%s\\n" "${{COMPREPLY[@]-}}"'],
        capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split()


def test_bash_completes_commands_options_choices_and_files(tmp_path):
    (tmp_path / "workers.yaml").touch()
    assert completed(tmp_path, "pdctl ") == [*COMMANDS, "help", "version"]
    assert completed(tmp_path, "pdctl work") == ["workers", "worker"]
    assert completed(tmp_path, "pdctl help com") == ["compare"]
    assert completed(tmp_path, "pdctl serve --workers-f") == ["--workers-file"]
    assert completed(tmp_path, "pdctl serve --workers-file wor") == ["workers.yaml"]
    assert completed(tmp_path, "pdctl serve --compat ") == ["none", "vllm-router"]
    assert completed(tmp_path, "", ["pdctl", "serve", "--compat", "="]) == ["none", "vllm-router"]
    assert completed(tmp_path, "", ["pdctl", "serve", "--compat", "=", "v"]) == ["vllm-router"]
    assert completed(tmp_path, "pdctl serve --port ") == []
    assert completed(tmp_path, "pdctl nosuch --") == []


@pytest.mark.parametrize("name", COMMANDS)
def test_bash_offers_every_option_of_the_help(tmp_path, name):
    assert sorted(set(completed(tmp_path, f"pdctl {name} --"))) == sorted({*options(name), "--help"})


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_reads_the_script_and_finds_every_option(tmp_path):
    (tmp_path / "_pdctl").write_text(output("completion", "zsh"))
    # _arguments is zsh's own; this one prints the specifications that it is given.
    driver = """
        setopt errexit nounset
        _arguments() { print -rl -- "$@" }
        _describe() { print -rl -- $_pdctl_commands }
        source ./_pdctl >/dev/null
        words=(pdctl "$1"); CURRENT=$#words
        [[ $1 == - ]] || { words+=(-); CURRENT=3 }
        _pdctl
    """
    (tmp_path / "driver").write_text(driver.replace("source ./_pdctl >/dev/null", "words=(pdctl -) CURRENT=2; source ./_pdctl >/dev/null"))

    def offered(word):
        done = subprocess.run(["zsh", "-f", "driver", word], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout.splitlines()

    assert [line.split(":")[0] for line in offered("-")] == [*COMMANDS, "help", "version"]
    for name in COMMANDS:
        specs = offered(name)
        assert [re.match(r"\*?(--[a-z0-9-]+)\[", s)[1] for s in specs[:-2]] == [o for o in options(name) if o != "--help"]
        # A spec is --name[text]:what:action; what would end the text early stands behind a backslash.
        for spec in specs[:-1]:
            assert re.fullmatch(r"\*?--[a-z0-9-]+\[(?:[^]\[\\]|\\.)*\](:(\*--\*:)?(?:[^:\\]|\\.)*:.*)?", spec), spec


@pytest.mark.parametrize("words", [[], ["fish"], ["bash", "zsh"]])
def test_a_shell_that_is_none_is_refused(words):
    done = harness.run("completion", *words)
    assert (done.returncode, done.stdout) == (2, "") and "expected bash or zsh" in done.stderr


# -- versions --


def test_one_version_everywhere():
    def found(path, pattern):
        return re.search(pattern, (ROOT / path).read_text(), re.M)[1]

    version, date = found("cmd/cmd.h", r'PDCTL_VERSION "(.+)"'), found("cmd/cmd.h", r'PDCTL_DATE\s+"(.+)"')
    assert output("version") == f"pdctl {version}\n"
    assert found("lib/pdroute/pdroute.h", r'PDROUTE_VERSION\s+"(.+)"') == version
    assert found("debian/changelog", r"^pdctl \((.+?)\)") == version
    assert re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == f"{version}, {date}"
    chart = ROOT / "scripts/cases/k8s-pd/chart/Chart.yaml"
    if chart.exists():
        assert re.findall(r'^(?:version|appVersion): "?([\d.]+)"?$', chart.read_text(), re.M) == [version, version]
    assert f'"pdctl {version}"' in output("man")


# -- packages --


def groups():
    text = (ROOT / "scripts/install-deps").read_text()
    return {name: set(words.split()) for name, words in re.findall(r'^\t\[(\w+)\]="(.*)"$', text, re.M)}


def test_the_package_is_built_with_what_the_build_installs():
    control = (ROOT / "debian/control").read_text()
    wanted = set(re.findall(r"^ ([a-z0-9.+-]+)", control.split("Build-Depends:")[1].split("\n\n")[0], re.M))
    wanted = {w for w in wanted if not w.startswith(("debhelper", "dh-sequence"))}
    assert wanted <= groups()["build"]
    # Headers of ZeroMQ are not among them as long as the program does not link its library.
    left = groups()["build"] - wanted - {"gcc", "libc6-dev", "make"}
    packages = re.search(r"^PKGS := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1]
    assert left == (set() if "libzmq" in packages else {"libzmq3-dev"})


@pytest.mark.skipif(not shutil.which("dpkg-query") or not shutil.which("readelf"), reason="needs dpkg-query and readelf")
def test_the_image_has_the_libraries_of_the_program():
    program = ROOT / "build/pdctl"
    if not program.exists():
        pytest.skip("build/pdctl is not built")
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", subprocess.run(["readelf", "-d", program], capture_output=True, text=True, timeout=60).stdout)
    runtime = (ROOT / "Dockerfile").read_text().split("FROM ")[-1]
    for library in needed:
        listed = subprocess.run(["dpkg-query", "-S", f"*-linux-gnu/{library}"], capture_output=True, text=True, timeout=60).stdout
        owners = {line.split(":")[0] for line in listed.splitlines()}
        assert owners & {"libc6", "libgcc-s1", *runtime.split()}, f"{library} of {owners} is not in the image"


def image_script():
    loader = importlib.machinery.SourceFileLoader("image_script", str(ROOT / "scripts/image"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("image_script", loader))
    loader.exec_module(module)
    return module


def test_an_image_without_an_engine_is_what_docker_load_reads(tmp_path, monkeypatch):
    """The cheap part of scripts/image: it understands each line of the Dockerfile, and its archive names its layer by what is in it."""
    script = image_script()
    names = [name for name, _ in script.instructions(ROOT / "Dockerfile")]
    assert names.count("FROM") == 2 and names[-1] == "CMD"
    assert set(names) <= {"FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    monkeypatch.setattr(script, "OUT", tmp_path)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    stage = script.Stage("end")
    (stage.root / "usr/bin").mkdir(parents=True)
    (stage.root / "usr/bin/pdctl").write_text("x")
    stage.config["Entrypoint"] = script.words_of('["pdctl"]')
    script.archive(stage, "pdctl:test")
    with tarfile.open(tmp_path / "pdctl.tar") as image:
        manifest = json.load(image.extractfile("manifest.json"))[0]
        config = json.load(image.extractfile(manifest["Config"]))
        layer = image.extractfile(manifest["Layers"][0]).read()
    assert manifest["RepoTags"] == ["pdctl:test"] and config["config"]["Entrypoint"] == ["pdctl"]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        assert "./usr/bin/pdctl" in files.getnames() and {m.mtime for m in files} == {script.EPOCH}


def test_the_units_of_the_package_have_the_user_that_it_makes():
    unit = (ROOT / "scripts/pdctl.service").read_text()
    user = re.search(r"^u\s+(\S+)", (ROOT / "debian/pdctl.sysusers").read_text(), re.M)[1]
    rotation = (ROOT / "debian/pdctl.logrotate").read_text()
    assert f"\nUser={user}\n" in unit and f"su {user} {user}" in rotation and f"create 0640 {user} {user}" in rotation
    assert "\nLogsDirectory=pdctl\n" in unit and rotation.startswith("/var/log/pdctl/")
    # The file that the package installs is one the unit's command can start with.
    assert "--workers-file /etc/pdctl/workers.yaml" in unit and "debian/workers.yaml etc/pdctl" in (ROOT / "debian/pdctl.install").read_text()


def test_the_workers_file_of_the_package_starts_a_router(pdctl):
    router = pdctl("serve", "--workers-file", ROOT / "debian/workers.yaml")
    assert router.get("/liveness")[0] == 200 and router.get("/readiness")[0] == 503


# -- bytes without a place --


@pytest.mark.skipif(not shutil.which("make") or not shutil.which("cc"), reason="needs make and cc")
def test_an_object_does_not_know_where_it_was_built(tmp_path):
    """The cheap part of scripts/reproducible."""
    made = []
    for place in ("a", "another/deeper/place"):
        folder = tmp_path / place
        for name in ("Makefile", "scripts/rooms", "cmd/main.c", "lib/pdroute/pdroute.h", *map(str, (ROOT / "lib/base").glob("*.[ch]"))):
            there = folder / os.path.relpath(ROOT / name, ROOT)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, there)
        done = subprocess.run(["make", "-s", "build/lib/base/err.o", "build/lib/base/check.o"], cwd=folder, capture_output=True, text=True,
                              timeout=300, env={**harness.CLEAN_ENV, "CCACHE_DISABLE": "1"})
        assert done.returncode == 0, done.stderr
        made.append([(folder / "build/lib/base" / name).read_bytes() for name in ("err.o", "check.o")])
    assert made[0] == made[1]
