"""Starts and stops the real binary for black-box tests.

    with Pdctl("worker", "--model", "m") as w:      # or the fixture `pdctl`, which stops everything at the end of the test
        status, headers, body = w.post("/v1/completions", {"model": "m", "prompt": "hi"})

Every process gets `--port 0`, says where it listens, logs into a temporary folder, and is stopped with SIGTERM, then SIGKILL. A
sanitizer report on standard error, or an exit that nobody expected, fails the test.
"""

import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

# Runs of tests are not kept: the store under the current folder would be the repository's.
os.environ["PDCTL_STORE"] = "none"

PDCTL = os.environ.get("PDCTL", os.path.join(os.path.dirname(__file__), "../../build/pdctl"))
IO_DEFAULT = os.environ.get("PDCTL_IO")  # --io of routers and workers in all suites; None: the program's default
IO = IO_DEFAULT  # conftest.py sets it for each test of a suite that runs in both forms
START_S = 30.0
SETTLE_S = 0.25  # that requests which were answered take to be counted, on a busy machine
STOP_S = 20.0
REPORTS = re.compile(
    r"ERROR: AddressSanitizer|ERROR: LeakSanitizer|runtime error:|WARNING: ThreadSanitizer|ERROR: ThreadSanitizer|SUMMARY: \w+Sanitizer"
)
CLEAN_ENV = {k: v for k, v in os.environ.items() if k.lower() not in ("http_proxy", "https_proxy", "all_proxy")}
CLEAN_ENV.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
CLEAN_ENV.setdefault("TSAN_OPTIONS", f"suppressions={os.path.join(os.path.dirname(os.path.abspath(__file__)), '../tsan.suppressions')}")


class ProcessFailed(AssertionError):
    """A process did not start, died, or left a sanitizer report."""


def wait_for(what, condition, timeout=60.0, step=0.01):
    """Polls until condition() is true and returns its value; the deadline is generous, because other work may fill the cores."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"timed out after {timeout:g} s waiting for {what}")
        time.sleep(step)


def free_port():
    """A port nobody listens on right now (for a dead worker, or a server that cannot take port 0), below those that the kernel gives to
    connections: one of those may be taken again before it is used."""
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def run(*args, timeout=60, env=None, stdin=None, preexec=None):
    """Runs a command of the binary to its end: CompletedProcess with text output; fails on sanitizer reports."""
    done = subprocess.run(
        [PDCTL, *map(str, args)], capture_output=True, text=True, timeout=timeout, input=stdin, env={**CLEAN_ENV, **(env or {})},
        preexec_fn=preexec,
    )
    if REPORTS.search(done.stderr):
        raise ProcessFailed(f"sanitizer report from pdctl {' '.join(map(str, args))}:\n{done.stderr[-8000:]}")
    return done


def request(base, method, path, body=None, headers=None, timeout=60, context=None):
    """One request on a connection of its own: (status, headers, bytes). dict and list bodies are sent as JSON."""
    url = urllib.parse.urlsplit(base)
    headers = dict(headers or {})
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
        headers.setdefault("Content-Type", "application/json")
    if url.scheme == "https":
        conn = http.client.HTTPSConnection(url.hostname, url.port, timeout=timeout, context=context)
    else:
        conn = http.client.HTTPConnection(url.hostname, url.port, timeout=timeout)
    try:
        conn.request(method, path, body=body, headers=headers)
        answer = conn.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        conn.close()


def parse_metrics(text):
    """A Prometheus page as {'name{labels}': value}."""
    out = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            out[name] = float(value)
    return out


def sse_events(raw):
    """The data of each event of a complete event stream, as text."""
    if isinstance(raw, bytes):
        raw = raw.decode()
    return [e[len("data: "):] for e in raw.split("\n\n") if e.startswith("data: ")]


class Pdctl:
    """One running `pdctl COMMAND`. `url` is its base URL, `port` its port, `log()` what it wrote to standard error."""

    def __init__(self, command, *args, port=0, env=None, ready=None, expect_exit=(0,), preexec=None):
        self.command = command
        self.expect_exit = expect_exit
        self.preexec = preexec  # runs in the new process before the program
        self.context = None  # of ssl, for an https:// url
        self.proc = None
        self.args = [PDCTL, command, *map(str, args), "--port", str(port)]
        if command == "serve" and not {"--prometheus-port", "--admin-port"} & set(self.args):
            self.args += ["--admin-port", "0"]
        if IO and command in ("serve", "worker") and "--io" not in self.args:
            self.args += ["--io", IO]
        self.env = {**CLEAN_ENV, **(env or {})}
        self.ready = re.compile(ready or rf"pdctl {command} listening on (https?://\S+)")
        self.dir = tempfile.TemporaryDirectory(prefix=f"pdctl-{command}-")
        self.url = None
        self.checked = False

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def out(self):
        with open(self.path("stdout"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def log(self):
        """What it wrote; while it runs whole lines only."""
        with open(self.path("stderr"), encoding="utf-8", errors="replace") as f:
            text = f.read()
        return text[: text.rfind("\n") + 1] if self.alive() else text

    def start(self):
        if self.proc:
            return self
        with open(self.path("stdout"), "wb") as out, open(self.path("stderr"), "wb") as err:
            self.proc = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=self.env, preexec_fn=self.preexec)

        def listening():
            found = self.ready.search(self.out())
            if not found and self.proc.poll() is not None:
                raise ProcessFailed(f"{self.args} exited {self.proc.returncode} before it listened:\n{self.log()[-4000:]}")
            return found

        try:
            self.url = wait_for(f"pdctl {self.command} to listen", listening, START_S).group(1)
        except BaseException:
            self.kill()
            raise
        self.port = urllib.parse.urlsplit(self.url).port
        return self

    def request(self, method, path, body=None, headers=None, timeout=60):
        return self._settled(lambda: request(self.url, method, path, body, headers, timeout, self.context), method, path)

    def _settled(self, ask, method, path):
        """What a request counts moves after the last byte of its answer, so who looks at a router's counts or workers right behind an
        answer looks again while requests are in flight, for a moment: streams may run on."""
        looks = self.command == "serve" and method == "GET" and re.match(r"/(metrics|workers)\b", path)
        until = time.monotonic() + SETTLE_S
        if looks and not path.startswith("/metrics"):
            self._settled(lambda: self._quietly("/metrics"), "GET", "/metrics")
        answer = ask()
        while looks and path.startswith("/metrics") and re.search(rb"^pdctl_requests_in_work [^0]", answer[2], re.M) and time.monotonic() < until:
            time.sleep(0.005)
            answer = ask()
        return answer

    def _quietly(self, path):
        """Of the admin port, where there is one that answers."""
        url = self._admin_url()
        try:
            return request(url, "GET", path, timeout=2) if url else (0, {}, b"")
        except (OSError, http.client.HTTPException):
            return 0, {}, b""

    def said(self, *texts, timeout=60):
        """The log, once all of the texts stand in it: lines are written a moment after what they tell."""
        wait_for(f"the log to say {texts}", lambda: all(t in self.log() for t in texts), timeout)
        return self.log()

    @property
    def admin_url(self):
        """The admin port of a router."""
        return wait_for("the admin port's line", self._admin_url, START_S)

    def _admin_url(self):
        found = re.search(r"admin and metrics on (http://\S+)", self.log())
        if found:
            return found.group(1)
        found = re.search(r'"msg":"admin_listening","host":"([^"]*)","port":(\d+)', self.log())
        return found and f"http://{found.group(1)}:{found.group(2)}"

    def admin(self, method, path, body=None, headers=None, timeout=60):
        """One request to the router's admin port."""
        return self._settled(lambda: request(self.admin_url, method, path, body, headers, timeout), method, path)

    def get(self, path, headers=None):
        return self.request("GET", path, None, headers)

    def post(self, path, body, headers=None):
        return self.request("POST", path, body, headers)

    def post_json(self, path, body, headers=None, status=200):
        """Posts, insists on the status and returns the parsed answer."""
        got, _, raw = self.post(path, body, headers)
        assert got == status, (got, raw[:2000])
        return json.loads(raw)

    def get_json(self, path):
        status, _, raw = self.get(path)
        assert status == 200, (status, raw[:2000])
        return json.loads(raw)

    def metrics(self, path="/metrics"):
        status, _, raw = self.get(path)
        assert status == 200, (status, raw[:2000])
        return parse_metrics(raw.decode())

    def metric(self, prefix):
        """Sum of all samples whose name with labels starts with the prefix."""
        values = [v for k, v in self.metrics().items() if k.startswith(prefix)]
        assert values, f"no metric starts with {prefix}"
        return sum(values)

    def connect(self, timeout=30):
        """A raw socket to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def alive(self):
        return self.proc is not None and self.proc.poll() is None

    def signal(self, number):
        self.proc.send_signal(number)

    def freeze(self):
        """SIGSTOP, and waits until every thread stands still: on a busy machine the signal takes its time. SIGCONT goes on."""

        def states():
            for task in os.listdir(f"/proc/{self.proc.pid}/task"):
                with open(f"/proc/{self.proc.pid}/task/{task}/stat", encoding="ascii", errors="replace") as f:
                    yield f.read().rpartition(")")[2].split()[0]

        self.signal(signal.SIGSTOP)
        wait_for("the process to stand still", lambda: set(states()) == {"T"})

    def wait(self, timeout=STOP_S):
        return self.proc.wait(timeout)

    def kill(self):
        """SIGKILL on purpose (a chaos test); the exit code is not judged afterwards."""
        if self.alive():
            self.proc.kill()
        if self.proc is not None:
            self.proc.wait(STOP_S)
        self.expect_exit = None

    def stop(self):
        """SIGTERM, then SIGKILL after a deadline; then the log is checked. Safe to call twice."""
        hung = False
        if self.proc is None or self.checked:
            return None
        self.checked = True
        if self.alive():
            self.proc.send_signal(signal.SIGCONT)
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(STOP_S)
            except subprocess.TimeoutExpired:
                hung = True
                self.proc.kill()
                self.proc.wait(STOP_S)
        log, code = self.log(), self.proc.returncode
        self.dir.cleanup()
        report = REPORTS.search(log)
        if report:
            raise ProcessFailed(f"sanitizer report from pdctl {self.command}:\n{log[max(0, report.start() - 200):][:12000]}")
        if hung:
            raise ProcessFailed(f"pdctl {self.command} did not stop within {STOP_S:g} s of SIGTERM:\n{log[-4000:]}")
        if self.expect_exit is not None and code not in self.expect_exit:
            raise ProcessFailed(f"pdctl {self.command} exited {code}, expected {self.expect_exit}:\n{log[-4000:]}")
        return code

    def __enter__(self):
        return self if self.proc else self.start()

    def __exit__(self, *exc):
        self.stop()


class Fleet:
    """Starts processes and stops all of them, in reverse order, even when one of them fails its checks."""

    def __init__(self):
        self.all = []

    def __call__(self, command, *args, **kw):
        p = Pdctl(command, *args, **kw)
        self.all.append(p)
        return p.start()

    def worker(self, *args, **kw):
        return self("worker", *(("--model", "m") if "--model" not in args else ()), *args, **kw)

    def stop(self):
        failed = None
        for p in reversed(self.all):
            try:
                p.stop()
            except AssertionError as e:
                failed = failed or e
        self.all.clear()
        if failed:
            raise failed
