#!/usr/bin/env bash
# One instance: the second is out of the registry's healthy services while this runs, and comes back at the end. Fails unless all
# requests were answered by one instance.
#
#   ./bench-single.sh [REGISTRY_IP]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=install.defaults.sh
. "$(dirname "$0")/install.defaults.sh"
# shellcheck source-path=SCRIPTDIR source=bench.sh
. "$CASE_DIR/bench.sh"

slave() {
	curl -sf --max-time 10 -o /dev/null -X PUT -H 'Content-Type: application/json' -d "{\"status\":\"$1\"}" "$registry/services/$SLAVE-server"
}

trap 'slave running || true' EXIT
slave stopped || die "the registry at $registry has no service $SLAVE-server" 3
until_true "the router to have one instance" 60 has_instances 1
code=0
bench single-instance single --affinity none --assert split=1 || code=$?
slave running || true
until_true "the router to have both instances again" 60 has_instances 2
exit $code
