"""What surrounds the router: the service manager's notifications, the sandboxed unit, the container file. Checked without either."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from fake_engine import FakeEngine
from harness import PDCTL, free_port, request, run, wait_for
from test_admin_workers import BODY, ok
from test_pd_faults import FAST

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SERVICE = ROOT / "scripts" / "pdctl.service"
SOCKET = ROOT / "scripts" / "pdctl.socket"
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def settings(path):
    """The unit's lines as {name: [values]}."""
    out = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            out.setdefault(name, []).append(value)
    return out


# -- notifications --


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_notifications(pdctl, tmp_path, kind):
    name = str(tmp_path / "notify") if kind == "path" else f"\0pdctl-test-{os.getpid()}-{time.monotonic_ns()}"
    config = tmp_path / "w.yaml"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s, FakeEngine(ok) as engine:
        s.bind(name)
        s.settimeout(20)
        config.write_text(f"workers: [a={engine.url}]\n")
        began = time.monotonic_ns() // 1000
        router = pdctl("serve", "--workers-file", config, "--drain-delay-secs", 0.5, "--drain-timeout-secs", 7, env={"NOTIFY_SOCKET": name.replace("\0", "@")})
        assert s.recv(1000) == b"READY=1"
        for text in ("workers: [b={}]\n", "nonsense: 1\n"):  # a reload that fails ends, too
            config.write_text(text.format(engine.url))
            router.signal(signal.SIGHUP)
            found = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", s.recv(1000))
            assert found and began <= int(found[1]) <= time.monotonic_ns() // 1000
            assert s.recv(1000) == b"READY=1"
        router.signal(signal.SIGTERM)
        assert s.recv(1000) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=17500000"
        assert router.wait() == 0


@pytest.mark.parametrize("name", ["", "/", "relative", "/nobody/listens/here", "/" + "x" * 200])
def test_a_notification_socket_that_is_none_does_no_harm(pdctl, name):
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, env={"NOTIFY_SOCKET": name})
        assert router.post("/v1/completions", BODY)[0] == 200


# -- the unit --


@pytest.fixture
def units(tmp_path):
    """The units, with the program under test in the place where it would be installed."""
    text = SERVICE.read_text()
    assert text.count("/usr/local/bin/pdctl") == 1
    (tmp_path / "pdctl.service").write_text(text.replace("/usr/local/bin/pdctl", os.path.abspath(PDCTL)))
    (tmp_path / "pdctl.socket").write_text(SOCKET.read_text())
    return tmp_path


@needs_systemd
def test_the_units_pass_verify(units):
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", units / "pdctl.service", units / "pdctl.socket"], capture_output=True, text=True, timeout=60)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "pdctl" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@needs_systemd
def test_the_exposure_of_the_unit(units):
    done = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=25", units / "pdctl.service"], capture_output=True, text=True, timeout=60)
    score = re.search(r"exposure level for pdctl.service: ([\d.]+)", done.stdout)
    assert score, done.stdout + done.stderr
    assert done.returncode == 0 and float(score[1]) < 2.5, done.stdout


def test_the_unit_fits_the_program():
    """Its command is understood, and its limits leave room for a drain and for the streams."""
    unit = settings(SERVICE)
    command = unit["ExecStart"][0].split()
    assert command[:4] == ["/usr/local/bin/pdctl", "serve", "--workers-file", "/etc/pdctl/workers.yaml"]
    help_text = run("serve", "--help").stdout
    assert "--workers-file" in help_text
    drain = float(re.search(r"--drain-timeout-secs S\s+.*\((\d+)\)", help_text)[1])
    assert float(unit["TimeoutStopSec"][0]) > drain + 10
    assert unit["Type"] == ["notify"] and int(unit["LimitNOFILE"][0]) >= 65536 and int(unit["TasksMax"][0]) >= 512
    assert unit["CapabilityBoundingSet"] == [""] and unit["NoNewPrivileges"] == ["yes"] and unit["DynamicUser"] == ["yes"]
    assert settings(SOCKET)["ListenStream"] == [re.search(r"--port N\s+.*\((\d+)\)", help_text)[1]]


def allowed_calls():
    """The system calls that the unit's SystemCallFilter lets through."""
    groups, name = {}, None
    text = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, timeout=60).stdout
    for line in text.splitlines():
        if line.startswith("@"):
            name = line.strip()
            groups[name] = []
        elif name and line.startswith("    ") and not line.strip().startswith("#"):
            groups[name].append(line.strip())

    def expand(word):
        return {c for w in groups[word] for c in expand(w)} if word.startswith("@") else {word}

    allowed = set()
    for value in settings(SERVICE)["SystemCallFilter"]:
        calls = {c for w in value.lstrip("~").split() for c in expand(w)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed | {"execve", "exit", "exit_group", "rt_sigreturn", "restart_syscall"}


@needs_systemd
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_the_sandbox_lets_the_router_do_its_work(tmp_path):
    """Requests, a reload, changes of the fleet, a capture and a drain use no system call, address family or writable code that the unit forbids."""
    port, admin = free_port(), free_port()
    trace, config = tmp_path / "trace", tmp_path / "w.yaml"
    with FakeEngine(ok) as one, FakeEngine(ok) as two:
        config.write_text(f"workers: [a=http://localhost:{one.port}]\n")
        args = [PDCTL, "serve", "--workers-file", str(config), "--port", str(port), "--admin-port", str(admin), "--capture", str(tmp_path / "c.db"), *map(str, FAST)]
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "nobody"), "ASAN_OPTIONS": "detect_leaks=0"}
        probe = subprocess.run(["strace", "-qq", "-o", tmp_path / "probe", "true"], capture_output=True, timeout=30)
        if probe.returncode:
            pytest.skip("processes may not be traced here")
        router = subprocess.Popen(["strace", "-f", "-qq", "-o", str(trace), *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True)
        try:
            assert "listening" in router.stdout.readline()
            base, door = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
            for _ in range(3):
                assert request(base, "POST", "/v1/completions", BODY)[0] == 200
            assert request(door, "POST", "/workers?wait=true", {"url": two.url, "name": "b"})[0] == 201
            assert request(door, "POST", "/reload")[0] == 200
            assert request(door, "POST", "/flush_cache")[0] == 500
            assert request(door, "GET", "/metrics")[0] == 200
            assert request(door, "DELETE", "/workers/b")[0] == 200
            pid = int(pathlib.Path(f"/proc/{router.pid}/task/{router.pid}/children").read_text().split()[0])
            os.kill(pid, signal.SIGHUP)
            wait_for("the reload", lambda: b"pdctl_reloads_total 2" in request(door, "GET", "/metrics")[2])
            os.kill(pid, signal.SIGTERM)
            assert router.wait(30) == 0
        finally:
            router.kill()
            router.wait()
            router.stdout.close()
    text = trace.read_text()
    used = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)[( ]", text, re.M))
    assert {"epoll_ctl", "sendmsg", "openat", "sched_setscheduler"} <= used
    forbidden = used - allowed_calls()
    if os.geteuid() == 0:
        forbidden -= {"fchown"}  # SQLite, for files that root makes; the service is not root
    assert forbidden == set(), f"the unit's SystemCallFilter forbids {sorted(forbidden)}"
    assert not re.search(r"(?:mmap|mprotect)\([^)]*PROT_WRITE\|PROT_EXEC", text), "MemoryDenyWriteExecute forbids that"
    families = set(re.findall(r"socket(?:pair)?\((AF_\w+)", text)) - {"AF_NETLINK"}  # glibc goes without the list of addresses
    assert families <= set(settings(SERVICE)["RestrictAddressFamilies"][0].split())


# -- the container --


def dockerfile():
    """The instructions by stage, continuation lines joined, comments dropped."""
    text = re.sub(r"\\\n", " ", "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")))
    stages = []
    for line in filter(None, (" ".join(x.split()) for x in text.splitlines())):
        if line.startswith("FROM "):
            stages.append([])
        stages[-1].append(line)
    return stages


@pytest.mark.skipif(not shutil.which("dpkg-query") or not shutil.which("readelf"), reason="needs Debian's dpkg and binutils")
@pytest.mark.skipif("san-" in PDCTL, reason="a sanitized program needs other libraries")
def test_the_container_has_the_libraries_that_the_program_needs():
    final = dockerfile()[-1]
    install = next(line for line in final if "apt-get install" in line)
    named = set(re.search(r"--no-install-recommends (.*?) &&", install)[1].split())
    needed = re.findall(r"\(NEEDED\).*\[(.*?)\]", subprocess.run(["readelf", "-d", PDCTL], capture_output=True, text=True, timeout=60).stdout)
    where = dict(re.findall(r"^\s+(\S+) => (\S+)", subprocess.run(["ldd", PDCTL], capture_output=True, text=True, timeout=60).stdout, re.M))
    packages = set()
    for name in needed:
        if name.startswith("ld-linux") or name not in where:
            continue
        for path in (where[name], os.path.realpath(where[name]), where[name].replace("/lib/", "/usr/lib/", 1)):
            done = subprocess.run(["dpkg-query", "-S", path], capture_output=True, text=True, timeout=60)
            if done.returncode == 0:
                packages.add(done.stdout.split(":")[0])
                break
        else:
            pytest.fail(f"no package owns {name} ({where[name]})")
    assert named == packages - {"libc6"} | {"ca-certificates"}, "and the CAs of the system, for https:// workers"


def test_the_container_is_small_and_has_no_root():
    stages = dockerfile()
    build, final = stages
    assert build[0] == "FROM debian:12-slim AS build" and final[0] == "FROM debian:12-slim"
    assert not any(re.search(r"\b(gcc|make|-dev)\b", line) for line in final)
    assert any(line.startswith("RUN apt-get") and "rm -rf /var/lib/apt/lists/*" in line for line in final)
    user = next(line for line in final if line.startswith("USER "))
    assert re.fullmatch(r"USER [1-9]\d+:[1-9]\d+", user), "a number, so that runAsNonRoot can check it"
    copied = next(line for line in final if line.startswith("COPY --from=build "))
    assert copied.split()[2:] == ["/src/build/pdctl", "/usr/local/bin/pdctl"]
    for line in build:
        if line.startswith("COPY "):
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line
    kept = {x[1:] for x in (ROOT / ".dockerignore").read_text().split() if x.startswith("!")}
    sources = {s for line in build if line.startswith("COPY ") for s in line.split()[1:-1]}
    assert kept == sources, ".dockerignore hides what is copied, or keeps what is not"


def test_the_health_check_of_the_container_works(pdctl):
    check = next(line for line in dockerfile()[-1] if line.startswith("HEALTHCHECK "))
    words = re.findall(r'"(.*?)"', check[check.index("CMD"):])
    assert words[0] == "pdctl"
    done = run(*words[1:])
    if done.returncode != 0:  # nobody listens on the usual port here; another program's answer would be 3 as well
        assert done.returncode == 3
    with FakeEngine(ok) as engine:
        router = pdctl("serve", "--worker-urls", engine.url)
        assert run(*words[1:], "--router", router.admin_url).returncode == 0
