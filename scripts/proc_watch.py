"""What scripts/chaos and scripts/soak know about processes and the machine; the processes themselves come from the tests' harness."""

import os
import platform
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault("PDCTL", os.path.join(ROOT, "build", "pdctl"))
sys.path.insert(0, os.path.join(ROOT, "tests", "blackbox"))


def rss_kib(pid):
    """Resident memory; that of files (the program's text) is counted too."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine():
    """What figures belong to."""
    with open("/proc/cpuinfo") as f:
        cpu = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())
    with open("/proc/meminfo") as f:
        kib = int(f.readline().split()[1])
    with open("/etc/os-release") as f:
        system = next((line.split("=", 1)[1].strip().strip('"') for line in f if line.startswith("PRETTY_NAME=")), "Linux")
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_mib": kib // 1024, "kernel": platform.release(), "system": system}


def table(header, rows):
    """Columns as wide as their widest cell; the first is on the left."""
    cells = [list(map(str, header)), *[list(map(str, row)) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))) for row in cells)
