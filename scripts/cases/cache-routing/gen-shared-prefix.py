#!/usr/bin/python3
"""pdctl gen shared-prefix, under the published name and with the published default of --output: shared_prefix.jsonl."""

import os
import sys

words = sys.argv[1:]
if not any(w == "--output" or w.startswith("--output=") for w in words):
    words += ["--output", "shared_prefix.jsonl"]
program = os.environ.get("PDCTL") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../build/pdctl")
os.execv(program, [program, "gen", "shared-prefix", *words])
