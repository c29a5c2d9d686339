"""What the cases share: the programs under test on the published ports, and criteria that are judged one by one.

    case = Case("consistent-hash-pd")
    case.holds("success rate >= 95 %", rate >= 0.95, f"{rate:.1%}")
    sys.exit(case.finish())

A port is the environment's, else the published one, else (when that is in use, or with CASE_PORTS=free) a free one, so that two runs
can go at once. PDCTL names the program, build/pdctl without it.
"""

import json
import os
import random
import re
import socket
import subprocess
import sys
import time

CASES = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(CASES))

import proc_watch  # noqa: E402,F401 says where harness is
import harness  # noqa: E402
from harness import Fleet  # noqa: E402


def in_use(port, host="127.0.0.1"):
    with socket.socket() as s:
        return s.connect_ex((host, port)) == 0


def port(variable, published, host="127.0.0.1"):
    """The port of a program; 0: it shall take a free one and say which."""
    given = os.environ.get(variable)
    if given:
        return int(given)
    if os.environ.get("CASE_PORTS") == "free":
        return 0
    if in_use(published, host):
        print(f"port {published} is in use: a free one is taken instead ({variable} names another)", flush=True)
        return 0
    return published


def free_ports(n):
    """The first of n ports in a row that are free, below those that the kernel gives to outgoing connections."""
    while True:
        first = random.randrange(21000, 30000 - n)
        try:
            for i in range(n):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", first + i))
            return first
        except OSError:
            continue


def fixed_port(variable, published, n=1):
    """As `port`, but never 0: of a program that others must know before it listens. With the n - 1 ports behind it."""
    return port(variable, published) or free_ports(n)


def flags(variable):
    """More options of the router, from the environment: what a user wants to try, or to break."""
    return os.environ.get(variable, "").split()


def run(*command, env=None, timeout=170, cwd=None, show=False):
    """A command to its end; `show` prints what it printed."""
    done = subprocess.run([str(word) for word in command], env={**os.environ, **(env or {})}, cwd=cwd, timeout=timeout,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
    if show:
        print(done.stdout, end="", flush=True)
    return done


def pdctl(*words, **more):
    return run(os.path.abspath(harness.PDCTL), *words, **more)


def document(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def complaints(text):
    """The lines of a log at warn and error."""
    return re.findall(r"^\S+ (?:warn|error) .*$", text, re.M)


def metrics_of(urls, prefix):
    """Sum over these servers of all samples whose name begins so; None when no page has such a sample."""
    values = []
    for url in urls:
        page = harness.parse_metrics(harness.request(url, "GET", "/metrics")[2].decode())
        values += [v for k, v in page.items() if k.startswith(prefix)]
    return sum(values) if values else None


class Case:
    """The criteria of one case. Prints each when it is judged; `finish` has the exit code: 0 all hold, 1 one does not."""

    def __init__(self, name):
        self.name = name
        self.judged = []
        self.begin = time.monotonic()

    def section(self, text):
        print(f"\n== {text}", flush=True)

    def holds(self, what, truth, found=""):
        """`found` is what was seen; it is printed either way."""
        self.judged.append((what, bool(truth)))
        print(f"{'ok  ' if truth else 'FAIL'}  {what}{': ' if found != '' else ''}{found}", flush=True)
        return bool(truth)

    def finish(self):
        good = sum(truth for _, truth in self.judged)
        print(f"\n{self.name}: {good} of {len(self.judged)} criteria hold, {time.monotonic() - self.begin:.0f} s")
        return 0 if self.judged and good == len(self.judged) else 1


def main(body):
    """Runs body(fleet) and stops what it started. Exit code 3 when a program did not start or did not stop as it should."""
    fleet = Fleet()
    try:
        code = body(fleet)
        fleet.stop()
    except (AssertionError, subprocess.TimeoutExpired, OSError) as e:  # ProcessFailed is one too
        print(f"{os.path.basename(sys.argv[0])}: {e}", file=sys.stderr)
        code = 3
    finally:
        try:
            fleet.stop()
        except AssertionError:
            pass
    sys.exit(code)
