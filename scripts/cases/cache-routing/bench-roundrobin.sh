#!/usr/bin/env bash
# Both instances, no prompt_cache_key. Fails unless both took their share and the prefixes were not kept together.
#
#   ./bench-roundrobin.sh [REGISTRY_IP]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=install.defaults.sh
. "$(dirname "$0")/install.defaults.sh"
# shellcheck source-path=SCRIPTDIR source=bench.sh
. "$CASE_DIR/bench.sh"
bench round-robin round-robin --affinity none --assert split=2,not-sticky
