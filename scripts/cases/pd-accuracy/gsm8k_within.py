#!/usr/bin/python3
"""gsm8k_within.py FOLDER EXPECTED TOLERANCE: is exact_match,strict-match of the newest result of lm_eval at least EXPECTED - TOLERANCE?"""

import glob
import json
import os
import sys


def main():
    folder, expected, tolerance = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    found = sorted(glob.glob(os.path.join(folder, "**", "results_*.json"), recursive=True), key=os.path.getmtime)
    if not found:
        print(f"gsm8k_within.py: no results_*.json in {folder}", file=sys.stderr)
        return 3
    with open(found[-1], encoding="utf-8") as f:
        measured = json.load(f)["results"]["gsm8k"]["exact_match,strict-match"]
    good = measured >= expected - tolerance - 1e-9
    print(f"{'ok  ' if good else 'FAIL'}  gsm8k: {measured:.4f}, expected at least {expected:g} - {tolerance:g}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
