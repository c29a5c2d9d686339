"""LLM routers that others run: installed from PyPI into a virtual environment of this build, used when they are there.

Only when asked for (PEERS=1); one that is on PATH already is used as it is. What happened is told in `notes`.
"""

import os
import shutil
import subprocess
import sys

from perf_proc import PerfError, free_ports
from perf_servers import ROOT

VENV = os.path.join(ROOT, "build/peers")
INSTALL_S = 600
START_S = 90
# Package and program, and the policy: hashing of the key in the body, or (sglang-router has none) the cheapest.
PACKAGES = {"vllm-router": "consistent_hash", "sglang-router": "round_robin"}


class Peers:
    """The routers that take part: none unless wanted."""

    def __init__(self, wanted):
        self.notes, self.found = [], {}
        if not wanted:
            self.notes.append("LLM routers: not asked for (make perf PEERS=1 installs vllm-router and sglang-router into build/peers)")
            return
        for name in PACKAGES:
            if not os.path.exists(f"{VENV}/bin/{name}") and not shutil.which(name):
                self.install(name)
            path = f"{VENV}/bin/{name}" if os.path.exists(f"{VENV}/bin/{name}") else shutil.which(name)
            if path:
                self.found[name] = path
                self.notes.append(f"{name}: {self.version(name)}")

    def install(self, name):
        """A wheel may not exist for this platform; then the column is left out and the reason is printed."""
        try:
            if not os.path.exists(f"{VENV}/bin/python"):
                subprocess.run(["python3", "-m", "venv", VENV], check=True, capture_output=True, timeout=INSTALL_S)
            cmd = [f"{VENV}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", name]
            print(f"perf: installing {name} into {VENV} ...", file=sys.stderr)
            subprocess.run(cmd, check=True, capture_output=True, text=True, timeout=INSTALL_S)
        except subprocess.TimeoutExpired:
            self.notes.append(f"{name}: installation took more than {INSTALL_S} s")
        except (subprocess.CalledProcessError, OSError) as e:
            text = str(getattr(e, "stderr", None) or e).strip().splitlines()
            self.notes.append(f"{name}: not installed: {text[-1] if text else 'no reason given'}")

    def version(self, name):
        code = f"import importlib.metadata as m; print(m.version('{name}'))"
        python = os.path.join(os.path.dirname(self.found[name]), "python")
        done = subprocess.run([python if os.path.exists(python) else "python3", "-c", code], capture_output=True, text=True)
        return done.stdout.strip() or "version unknown"

    def _start(self, bench, name, title, args):
        port, metrics = free_ports(2)
        argv = [self.found[name], *(["launch"] if name == "sglang-router" else [])]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(metrics), "--log-level", "error", *args]
        p = bench.start(title, argv, port, f"{name}{port}")
        try:
            return [p.wait_port(START_S)]
        except PerfError as e:
            self.notes.append(f"{title}: {str(e).splitlines()[0]}")
            bench.stop(p)
            return []

    def regular(self, bench, ports):
        """Every router found, over the same workers. A list, empty when there is none."""
        started = []
        for name in self.found:
            args = ["--policy", PACKAGES[name], "--worker-urls", *(f"http://127.0.0.1:{p}" for p in ports)]
            started += self._start(bench, name, name, args)
        return started

    def pd(self, bench, prefill, decode):
        """vllm-router with the two-phase protocol; sglang-router speaks another one (bootstrap), so it is not comparable."""
        if "vllm-router" not in self.found:
            return []
        args = ["--policy", PACKAGES["vllm-router"], "--vllm-pd-disaggregation"]
        args += [a for p in prefill for a in ("--prefill", f"http://127.0.0.1:{p}")]
        args += [a for p in decode for a in ("--decode", f"http://127.0.0.1:{p}")]
        return self._start(bench, "vllm-router", "vllm-router p/d", args)
