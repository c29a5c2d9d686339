#!/usr/bin/env bash
# Stops what start-master.sh started: the instances first, so that they leave the registry, then router and registry.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=install.defaults.sh
. "$(dirname "$0")/install.defaults.sh"

stop() {
	local file=$RUN_DIR/$1.pid pid i
	[ -f "$file" ] || return 0
	pid=$(<"$file")
	kill "$pid" 2>/dev/null || true
	for ((i = 0; i < 300; i++)); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	kill -9 "$pid" 2>/dev/null || true
	rm -f "$file"
}

for name in "$MASTER" "$SLAVE" router registry; do
	stop "$name"
done
