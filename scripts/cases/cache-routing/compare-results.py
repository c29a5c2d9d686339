#!/usr/bin/python3
"""Puts results of the benchmarks beside each other: the nine published metrics, by pdctl compare.

    ./compare-results.py results/round-robin-*.json results/cache-routing-*.json
    ./compare-results.py --single A.json --roundrobin B.json --cache-routing C.json
    ./compare-results.py BASE.json NEW.json

Files that are named without an option are sorted into sides by the label that their run had; several of a label are runs of one side. The
sides differ in what they send, which is the experiment, so that is allowed to differ. With four runs of each side the verdict is a
statistical one. Exit code: that of pdctl compare, 0 unless the files are not comparable or unreadable.
"""

import argparse
import json
import os
import sys

ORDER = ["single-instance", "round-robin", "cache-routing"]
# What the arms of the experiment differ in.
DIFFER = "affinity,session_field,session_pattern,cached_tokens,total_input_tokens"
PDCTL = os.environ.get("PDCTL") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../build/pdctl")


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="*", metavar="FILE", help="results, of two labels or more")
    for flag, label in (("--single", ORDER[0]), ("--roundrobin", ORDER[1]), ("--cache-routing", ORDER[2])):
        p.add_argument(flag, metavar="FILE", dest=label, help=f"a result of {label}")
    p.add_argument("--fail-on", action="append", default=[], metavar="GATE", help="a gate of pdctl compare, as mean_ttft_ms:+5%%")
    p.add_argument("--allow-different", metavar="LIST", help="what else may differ, for pdctl compare, as client_ok")
    return p.parse_args()


def label_of(path):
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        return json.loads(text).get("label") or os.path.basename(path)
    except (OSError, ValueError, AttributeError) as e:
        sys.exit(f"compare-results.py: {path}: {e}")


def sides(o):
    found = {}
    for path in o.files:
        found.setdefault(label_of(path), []).append(path)
    for label in ORDER:
        if getattr(o, label):
            found.setdefault(label, []).append(getattr(o, label))
    if len(o.files) == 2 and len(found) == 1:
        found = {"first": [o.files[0]], "second": [o.files[1]]}
    order = sorted(found, key=lambda label: (ORDER.index(label) if label in ORDER else len(ORDER), label))
    return [(label, found[label]) for label in order]


def main():
    o = options()
    sides_ = sides(o)
    if len(sides_) < 2:
        print(f"compare-results.py: found results of {len(sides_)} label(s), expected two or more", file=sys.stderr)
        return 2
    words = ["compare", *sides_[0][1]]
    for _, paths in sides_[1:]:
        for i, path in enumerate(paths):
            words += ["--vs", path] if i == 0 else [path]
    words += ["--preset", "infinilm", "--allow-different", ",".join(filter(None, (DIFFER, o.allow_different)))]
    for gate in o.fail_on:
        words += ["--fail-on", gate]
    print("  ".join(f"{'base' if i == 0 else 'new'}: {label} ({len(paths)} run{'s'[: len(paths) > 1]})" for i, (label, paths) in enumerate(sides_)), flush=True)
    os.execv(PDCTL, [PDCTL, *words])


if __name__ == "__main__":
    sys.exit(main())
