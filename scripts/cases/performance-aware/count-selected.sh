#!/usr/bin/env bash
# How often the log on standard input says that each proxy was chosen: the published pipeline, with grep where there is no rg.
#
#   kubectl logs deploy/pdctl-gateway --since=10m | ./count-selected.sh
set -euo pipefail
if ! command -v rg >/dev/null; then
	rg() { grep -E "$@"; }
fi
rg 'Scoring decision' | rg -o 'selected\":\[[^]]+\]' |
	sed 's/selected\":\[\"//;s/\"\]//' | sort | uniq -c | sort -nr
