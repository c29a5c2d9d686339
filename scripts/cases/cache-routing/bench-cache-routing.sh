#!/usr/bin/env bash
# Both instances, with prompt_cache_key: that of the record, which is its prefix's, or CACHE_KEY_PATTERN. Fails unless both were used,
# each key stayed on one of them, and cache hits had their first token sooner than misses.
#
#   ./bench-cache-routing.sh [REGISTRY_IP]
#   CACHE_KEY_PATTERN='my_key_{request_id % 2}' ./bench-cache-routing.sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=install.defaults.sh
. "$(dirname "$0")/install.defaults.sh"
# shellcheck source-path=SCRIPTDIR source=bench.sh
. "$CASE_DIR/bench.sh"
[ "$BENCH_CLIENT" = pdctl ] || die "BENCH_CLIENT=vllm: vllm bench serve sends no prompt_cache_key per request; expected pdctl"
keys=(--affinity prefix --session-field prompt_cache_key)
if [ -n "$CACHE_KEY_PATTERN" ]; then
	keys=(--prompt-cache-key "$CACHE_KEY_PATTERN")
fi
bench cache-routing cache-routing-multi-prefix "${keys[@]}" --assert split=2,sticky,hits-faster
