#!/usr/bin/env bash
# 60 chat requests, 12 at a time, to the gateway; how often each status came.
#
#   ./burst.sh [URL] [REQUESTS] [AT_A_TIME]      (http://127.0.0.1:18080 60 12)
#
# Exit code 0 when all are 200.
set -euo pipefail
url=${1:-http://127.0.0.1:18080} requests=${2:-60} at_a_time=${3:-12}
codes=$(seq 1 "$requests" | xargs -I{} -P"$at_a_time" sh -c '
curl -s -o /dev/null -w "%{http_code}\n" --max-time 35 \
  -H "Content-Type: application/json" \
  -X POST '"$url"'/v1/chat/completions \
  -d "{\"model\":\"Qwen/Qwen3-Coder-30B-A3B-Instruct\",\"messages\":[{\"role\":\"user\",\"content\":\"hello-{}\"}],\"max_tokens\":8,\"stream\":false}" || true')
sort <<<"$codes" | uniq -c | sort -nr
[ "$(grep -c '^200$' <<<"$codes")" -eq "$requests" ]
