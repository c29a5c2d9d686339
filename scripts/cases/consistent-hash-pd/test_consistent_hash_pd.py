#!/usr/bin/python3
"""Do sessions stay on their prefill and their decode worker? Six sessions of twenty chat requests each, three sessions at a time.

    ./test_consistent_hash_pd.py                                 asks the router at http://localhost:30000
    ./test_consistent_hash_pd.py --router http://10.0.0.9:30000

Any router that names its workers in X-Prefill-Worker and X-Decode-Worker can be asked. A session is consistent when all its answers
name one prefill and one decode worker. Exit code 0 with the verdict PASS, 1 with another one, 3 when the router cannot be reached.
"""

import argparse
import http.client
import json
import sys
import threading
import time
import urllib.parse

NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"]
TOPICS = ["the sea", "a mountain", "old bridges", "winter", "a garden", "the night sky", "a train"]
PASS, PARTIAL = 0.95, 0.80


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--router", default="http://localhost:30000", metavar="URL", help="the router (http://localhost:30000)")
    p.add_argument("--model", help="(the first of /v1/models)")
    p.add_argument("--sessions", type=int, default=6, help="(6)")
    p.add_argument("--requests", type=int, default=20, help="of each session (20)")
    p.add_argument("--at-a-time", type=int, default=3, help="sessions at a time (3)")
    p.add_argument("--max-tokens", type=int, default=20, help="of each answer (20)")
    p.add_argument("--timeout", type=float, default=60, help="seconds for a request (60)")
    p.add_argument("--json", metavar="FILE", help="writes the figures there too")
    return p.parse_args()


def ask(o, method, path, body=None):
    """(status, headers, bytes); status 0 and the reason when there is no answer."""
    url = urllib.parse.urlsplit(o.router)
    connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=o.timeout)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except (OSError, http.client.HTTPException) as e:
        return 0, {}, str(e).encode()
    finally:
        connection.close()


class Session:
    def __init__(self, number):
        self.name = f"session_{NAMES[number % len(NAMES)]}_{number + 1:03}"
        self.sent = self.answered = 0
        self.prefill, self.decode, self.trouble = [], [], []

    def talk(self, o, turns):
        with turns:
            sys.stdout.write(f"Testing session: {self.name}\n")  # one write: threads print at once
            for i in range(o.requests):
                self.one(o, i)

    def one(self, o, i):
        text = f"Question {i + 1} of {self.name}: write a sentence about {TOPICS[i % len(TOPICS)]}."
        status, headers, raw = ask(o, "POST", "/v1/chat/completions", {
            "model": o.model, "messages": [{"role": "user", "content": text}], "max_tokens": o.max_tokens, "temperature": 0.0,
            "session_params": {"session_id": self.name}, "user": self.name})  # fmt: skip
        self.sent += 1
        try:
            good = status == 200 and json.loads(raw)["choices"][0]["message"]["content"] is not None
        except (ValueError, LookupError, TypeError):
            good = False
        if not good:
            self.trouble.append(f"{status} {raw[:120].decode(errors='replace')}")
            return
        self.answered += 1
        for name, seen in (("X-Prefill-Worker", self.prefill), ("X-Decode-Worker", self.decode)):
            seen.append(headers.get(name))

    def consistent(self, role):
        seen = set(getattr(self, role))
        return len(seen) == 1 and None not in seen


def used(sessions, role):
    return sorted({w for s in sessions for w in getattr(s, role) if w})


def judge(sessions):
    """The figures of a run, and its verdict."""
    sent, answered = sum(s.sent for s in sessions), sum(s.answered for s in sessions)
    kept = sum(s.consistent("prefill") and s.consistent("decode") for s in sessions)
    f = {"requests": sent, "successful": answered, "success_rate": answered / sent if sent else 0.0, "sessions": len(sessions),
         "consistent_sessions": kept, "consistency_rate": kept / len(sessions) if sessions else 0.0,
         "prefill_workers": used(sessions, "prefill"), "decode_workers": used(sessions, "decode")}  # fmt: skip
    several = len(f["prefill_workers"]) > 1 and len(f["decode_workers"]) > 1
    least = min(f["success_rate"], f["consistency_rate"])
    f["verdict"] = "PASS" if least >= PASS and several else "PARTIAL PASS" if least >= PARTIAL else "FAIL"
    return f, several


def title(text, width=40, mark="-"):
    print(f"\n{text}\n{mark * width}" if mark == "-" else f"\n{mark * width}\n{text}\n{mark * width}")


def report(sessions, f, several, took):
    title("TEST RESULTS ANALYSIS", 60, "=")
    print(f"Total Requests: {f['requests']}\nSuccessful Requests: {f['successful']}")
    print(f"Success Rate: {f['success_rate']:.1%}\nTotal Test Time: {took:.1f}s")
    title("SESSION CONSISTENCY ANALYSIS")
    for s in sessions:
        whole = s.consistent("prefill") and s.consistent("decode")
        print(f"{'ok' if whole else 'NOT CONSISTENT'} {s.name}:")
        print(f"    Prefill Workers: {used([s], 'prefill')}\n    Decode Workers: {used([s], 'decode')}")
        print(f"    Consistent: Prefill={s.consistent('prefill')}, Decode={s.consistent('decode')}")
        for text in s.trouble[:3]:
            print(f"    failed: {text}")
    print(f"\nSession Consistency Rate: {f['consistency_rate']:.1%} ({f['consistent_sessions']}/{f['sessions']})")
    title("LOAD DISTRIBUTION ANALYSIS")
    print(f"Prefill Workers Used: {f['prefill_workers']}\nDecode Workers Used: {f['decode_workers']}")
    print(f"Prefill Worker Count: {len(f['prefill_workers'])}\nDecode Worker Count: {len(f['decode_workers'])}")
    title("TEST VERDICT")
    print(f"{f['verdict']}: {f['success_rate']:.1%} of the requests succeeded, {f['consistency_rate']:.1%} of the sessions are consistent, "
          f"{'several workers' if several else 'not more than one worker'} of each pool used")  # fmt: skip


def main():
    o = options()
    print("vLLM PD Consistent Hash Load Balancing Test")
    print("=" * 60)
    status, _, raw = ask(o, "GET", "/health")
    if status != 200:
        print(f"Router health check failed: {o.router}/health: {status or ''} {raw[:200].decode(errors='replace')}")
        return 3
    print("Router health check passed")
    if not o.model:
        status, _, raw = ask(o, "GET", "/v1/models")
        try:
            o.model = json.loads(raw)["data"][0]["id"]
        except (ValueError, LookupError, TypeError):
            print(f"{o.router}/v1/models: {status} {raw[:200].decode(errors='replace')}: no model there, --model names one")
            return 3
    sessions = [Session(i) for i in range(o.sessions)]
    print(f"Starting Consistent Hash PD Test\nTesting {o.sessions} sessions with {o.requests} requests each")
    print(f"Target: {o.sessions * o.requests} total requests\n")
    turns, begin = threading.Semaphore(o.at_a_time), time.monotonic()
    threads = [threading.Thread(target=s.talk, args=(o, turns)) for s in sessions]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    took = time.monotonic() - begin
    f, several = judge(sessions)
    report(sessions, f, several, took)
    if o.json:
        with open(o.json, "w", encoding="utf-8") as out:
            json.dump({**f, "seconds": took}, out)
    return 0 if f["verdict"] == "PASS" else 1


if __name__ == "__main__":
    sys.exit(main())
