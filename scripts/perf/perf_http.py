"""Requests with small bodies: the plain pool, and prefill/decode."""

import perf_servers as servers
from perf_load import WARM_S, figures, measure, rounds, wrk

CHAT_BYTES = 1400


class Direct:
    """The backend itself, in the place of a proxy: what the load costs without one."""

    name = "direct"

    def __init__(self, backend):
        self.backend, self.port = backend, backend.port

    def __getattr__(self, name):
        return getattr(self.backend, name)


def key_of(server):
    """pdctl and the LLM routers read the body; nginx and haproxy need a header."""
    return "header" if server.name.split(" ")[0] in ("nginx", "haproxy") else "body"


def compare(section, all_servers, o, base="nginx", connections=(32, 256), direct=None):
    rows = []
    for c in connections:
        todo = ([direct] if direct else []) + all_servers
        for s in todo:
            wrk(s.port, c, WARM_S, key_of(s), CHAT_BYTES)
        runs = rounds(todo, o.rounds, lambda s, c=c: measure(s, c, o.seconds, key_of(s), CHAT_BYTES))
        new = figures(section, f"{c} connections", runs, base)
        base_row = next((r for r in new if r["server"] == "direct"), None)
        for r in new:
            r["connections"] = c
            if base_row and r is not base_row:
                r["added_p50_us"] = r["p50_us"] - base_row["p50_us"]
                r["added_p99_us"] = r["p99_us"] - base_row["p99_us"]
        rows += new
    return rows


def regular(bench, o):
    """1.4 kB chat bodies, consistent hash, keep-alive."""
    backend, ports = servers.backends(bench)
    todo = [servers.nginx(bench, ports), servers.haproxy(bench, ports)]
    todo += [servers.pdctl(bench, ports, path, name=name) for name, path in o.binaries]
    todo += o.peers.regular(bench, ports)
    rows = compare("regular", todo, o, connections=o.connections, direct=Direct(backend))
    for s in [backend, *todo]:
        bench.stop(s)
    return rows
