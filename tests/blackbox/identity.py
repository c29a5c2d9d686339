"""Decision identity: the same requests, one at a time, through a running router and through the replay.

Used by test_one_decision_path.py (some 300 requests per policy) and by scripts/identity (thousands). The requests have session ids of
every kind: short, long, with white space around, written with escapes, in a header or in the body, and none.
"""

import json
import time
import re
import socket
import urllib.parse

from harness import run

SEED = 20261130
POOL = ["alpha", "beta", "gamma"]  # of a plain pool; as many prefill and decode workers


def policies():
    names = run("serve", "--list-policies").stdout.split()
    assert len(names) >= 6
    return names


def pairs(step=1):
    """Each policy for prefill and each for decode: as many pairs as policies. Steps from 1 to their number - 1 give all mixed pairs."""
    names = policies()
    return [f"{p}/{names[(i + step) % len(names)]}" for i, p in enumerate(names)]


def deciders():
    """The words of --pd-decider."""
    found = re.search(r"--pd-decider (\S+)", run("serve", "--help").stdout).group(1).split("|")
    assert len(found) >= 4
    return found


def requests(n):
    """n requests in an order of no pattern: (session id as simulate reads it or None, header value or None, JSON of the id or None)."""
    state = 12345
    for i in range(n):
        state = (state * 1103515245 + 12345) % (1 << 31)
        who, kind = state // 7 % 67, state // 1009 % 13
        if kind == 5:
            yield None, None, None
        elif kind == 6:  # longer than what is kept of a key; differs at its end
            key = "long" * 160 + str(who % 5)
            yield key, None, json.dumps(key)
        elif kind == 7:
            key = f" \tuser-{who} "
            yield key, None, json.dumps(key)
        elif kind == 8:
            yield f"user-{who}", f"  user-{who}\t", None
        elif kind == 9:
            yield f"user-{who}", None, f'"\\t \\u0075ser-{who}\\u0020"'
        elif kind == 10:
            yield f"  {'x' * 511}{who % 7} ", f"{'x' * 511}{who % 7}", None
        else:
            yield f"user-{who}", None, json.dumps(f"user-{who}")


def prompt(i):
    """Conversations that grow, most of them behind one long beginning; some prompts are less than a block."""
    who, turn = i * 7919 % 53, i // 53
    if who % 9 == 0:
        return f"request {i}"
    head = "All of them begin with these words, which nobody wrote for one alone. " * 12 if who % 4 else ""
    return head + "".join(f"Conversation {who} says {k} and hears {k * who}. " for k in range(2 + turn % 40))


def wire(n):
    """The same as bytes for the router."""
    out = []
    for i, (_, header, key) in enumerate(requests(n)):
        body = f'{{"model":"m","prompt":"{prompt(i)}","max_tokens":1{"" if key is None else ", " + chr(34) + "session_id" + chr(34) + ":" + key}}}'
        head = "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        if header is not None:
            head += f"X-Session-Id:{header}\r\n"
        out.append(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return out


def write_workload(path, n):
    with open(path, "w") as f:
        for i, (key, _, _) in enumerate(requests(n)):
            record = {"prompt": prompt(i), "output_tokens": 1, "timestamp": i * 1000}
            if key is not None:
                record["session_id"] = key
            f.write(json.dumps(record) + "\n")


def simulated(workload, decisions, policy_list, *args):
    """{policy: [[names of workers] of each request]}: one process for all policies."""
    done = run("simulate", "--workload", workload, "--routing-only", "--key", "session", "--seed", SEED, "--decisions", decisions,
               "--policy", ",".join(policy_list), *args, timeout=600)
    assert done.returncode == 0, done.stderr
    out = {}
    with open(decisions) as f:
        for line in f:
            d = json.loads(line)
            out.setdefault(d["policy"], []).append([p["worker"] for p in d["pick"]])
    return out


class Connection:
    """A connection that is kept; bytes in, the wanted response headers out. No library, because thousands of requests go through it."""

    def __init__(self, url):
        at = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((at.hostname, at.port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, raw, headers):
        self.socket.sendall(raw)
        got = b""
        while b"\r\n\r\n" not in got:
            more = self.socket.recv(65536)
            assert more, f"the router closed: {got!r}"
            got += more
        head, _, body = got.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert " 200 " in lines[0], got
        field = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        while len(body) < int(field["content-length"]):
            body += self.socket.recv(65536)
        return [field.get(h) for h in headers]


def served(url, raws, headers, names, connections):
    """The choices of the router at this URL, each request after the answer to the one before, over so many connections in turn."""
    conns = [Connection(url) for _ in range(connections)]
    out = [[names.get(w) for w in conns[i % connections].ask(raw, headers)] for i, raw in enumerate(raws)]
    for c in conns:
        c.socket.close()
    return out


# Figures of the workers' own pages arrive when they arrive, and simulate has none of them: here they are too old to count.
UNSEEN = ["--metrics-scrape-interval-secs", 3600, "--metrics-staleness-secs", 0.01]


def unsee(policy):
    """Behind the start of a router: its first look at those pages is over, and old."""
    if "scores" in policy:
        time.sleep(1)


class Pools:
    """The workers of all runs, and a router for each: `start` is harness.Fleet or the fixture `pdctl`."""

    def __init__(self, start):
        self.start = start
        self.plain = [f"{n}={start.worker('--speedup', 1000).url}" for n in POOL]
        self.pd = {role: [f"{role}-{i + 1}={start.worker('--role', role, '--speedup', 1000).url}" for i in range(len(POOL))]
                   for role in ("prefill", "decode")}

    def picks(self, policy, raws, connections, *extra):
        first, _, second = policy.partition("/")
        if second:
            flags = [f for role, urls in self.pd.items() for u in urls for f in (f"--{role}", u)]
            flags += ["--pd-disaggregation", "--prefill-policy", first, "--decode-policy", second]
            headers, named = ["x-prefill-worker", "x-decode-worker"], self.pd["prefill"] + self.pd["decode"]
        else:
            flags, headers, named = ["--worker-urls", *self.plain, "--policy", first], ["x-worker"], self.plain
        names = {u: n for n, _, u in (text.partition("=") for text in named)}
        router = self.start("serve", *flags, *extra, *UNSEEN, "--seed", SEED, "--log-level", "warn")
        unsee(policy)
        out = served(router.url, raws, headers, names, connections)
        router.stop()
        return out


def simulate_args(pd):
    return ["--prefill", len(POOL), "--decode", len(POOL)] if pd else ["--worker-names", *POOL]


def agreement(a, b):
    """How many of the choices are the same."""
    assert len(a) == len(b)
    return sum(x == y for x, y in zip(a, b))
