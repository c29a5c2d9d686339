"""Processes of a measurement: started on free ports of 127.0.0.1, watched through /proc, and always stopped.

CPU time comes from the process's own clock (clock_gettime on the CPU clock of another process): nanoseconds, all threads, also those
that have ended. A server of several processes is the sum over its family.
"""

import os
import random
import resource
import signal
import socket
import subprocess
import tempfile
import time

START_S = 60.0
STOP_S = 5.0


class PerfError(Exception):
    """Something that makes a measurement impossible; the text is for people."""


def raise_file_limit(wanted=65536):
    """Children inherit it; nginx and haproxy get what pdctl gets. Only root may lift the hard limit; else what there is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, hard), max(wanted, hard)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_ports(count):
    """Ports that nobody listens on, below the range of outgoing connections, so that no client takes one before the server does."""
    found, held = [], []
    try:
        for _ in range(2000):
            port = random.randrange(21000, 29000)
            s = socket.socket()
            held.append(s)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in found:
                found.append(port)
            if len(found) == count:
                return found
    finally:
        for s in held:
            s.close()
    raise PerfError("no free ports between 21000 and 29000")


def family(pid):
    """The process and all that descend from it."""
    pids = [pid]
    for p in pids:
        try:
            for task in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{task}/children") as f:
                    pids += [int(c) for c in f.read().split()]
        except OSError:
            continue
    return pids


def cpu_clock(pid):
    """The kernel's clock id of a process's CPU time (CPUCLOCK_SCHED)."""
    return (~pid << 3) | 2


def status_of(pid, *names):
    """Sum of the named lines of /proc/PID/status: KiB, or a count."""
    total = 0
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.split(":")[0] in names:
                total += int(line.split()[1])
    return total


def smaps_kib(pid, name):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        for line in f:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return 0


class Proc:
    """One server (or a family of processes) with its port and a folder for its files."""

    scheme = "http"

    def __init__(self, name, argv, port, cwd, env=None):
        self.name, self.port, self.argv = name, port, argv
        self.log_path = os.path.join(cwd, "log")
        with open(self.log_path, "wb") as log:
            self.child = subprocess.Popen(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True)

    def log_tail(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()[-2000:]

    def wait_port(self, timeout=START_S):
        end = time.monotonic() + timeout
        while True:
            if self.child.poll() is not None:
                raise PerfError(f"{self.name} ended with {self.child.returncode}: {self.log_tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                if time.monotonic() > end:
                    raise PerfError(f"{self.name} does not listen on port {self.port}: {self.log_tail()}") from None
                time.sleep(0.002)

    def pids(self):
        return family(self.child.pid)

    def cpu_ns(self):
        total = 0
        for pid in self.pids():
            try:
                total += time.clock_gettime_ns(cpu_clock(pid))
            except OSError:
                continue
        return total

    def _sum(self, read):
        total = 0
        for pid in self.pids():
            try:
                total += read(pid)
            except OSError:
                continue
        return total

    def rss_kib(self):
        return self._sum(lambda p: status_of(p, "VmRSS"))

    def peak_rss_kib(self):
        return self._sum(lambda p: status_of(p, "VmHWM"))

    def anon_kib(self):
        """User memory that is this server's own: anonymous pages (heap, stacks), nothing shared with files."""
        return self._sum(lambda p: smaps_kib(p, "Anonymous"))

    def pss_kib(self):
        return self._sum(lambda p: smaps_kib(p, "Pss"))

    def descriptors(self):
        return self._sum(lambda p: len(os.listdir(f"/proc/{p}/fd")))

    def threads(self):
        return self._sum(lambda p: len(os.listdir(f"/proc/{p}/task")))

    def switches(self):
        """Context switches of all threads that live: (gave up the CPU, lost it)."""
        wanted = lost = 0
        for pid in self.pids():
            try:
                tasks = os.listdir(f"/proc/{pid}/task")
            except OSError:
                continue
            for task in tasks:
                try:
                    wanted += status_of(f"{pid}/task/{task}", "voluntary_ctxt_switches")
                    lost += status_of(f"{pid}/task/{task}", "nonvoluntary_ctxt_switches")
                except OSError:
                    continue
        return wanted, lost

    def alive(self):
        return self.child.poll() is None

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.child.pid, signal.SIGKILL)  # its own session: only what it started itself
        except ProcessLookupError:
            pass
        self.child.wait()


class Bench:
    """A folder and every process of one measurement; leaving the `with` block stops and removes all of it."""

    def __init__(self):
        self.procs = []

    def __enter__(self):
        self.tmp = tempfile.TemporaryDirectory(prefix="pdctl-perf.")
        os.chmod(self.tmp.name, 0o755)
        return self

    def __exit__(self, *_):
        for p in reversed(self.procs):
            p.stop()
        self.tmp.cleanup()

    def folder(self, name):
        path = os.path.join(self.tmp.name, name.replace(" ", "-"))
        os.makedirs(path, exist_ok=True)
        return path

    def file(self, folder, name, text):
        path = os.path.join(self.folder(folder), name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def start(self, name, argv, port, folder, env=None):
        p = Proc(name, argv, port, self.folder(folder), env)
        self.procs.append(p)
        return p

    def stop(self, p):
        p.stop()
        self.procs.remove(p)
