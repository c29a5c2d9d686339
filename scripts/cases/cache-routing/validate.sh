#!/usr/bin/env bash
# Validates the deployment in seven blocks, each of which can fail.
#
#   ./validate.sh [REGISTRY_IP]
#
# Exit code 0 when all seven pass, 1 otherwise; without registry or router nothing more is tried.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=install.defaults.sh
. "$(dirname "$0")/install.defaults.sh"
command -v curl >/dev/null || die "curl is needed: apt-get install curl"
good=0

# block NUMBER TITLE PROBLEM: it passes when there is no problem.
block() {
	if [ -z "$3" ]; then
		good=$((good + 1))
		echo "ok    $1. $2"
	else
		echo "FAIL  $1. $2: $3"
	fi
}

# chat COUNT EXTRA: so many chat requests; of each a line with the status and the instance that answered. The last answer is in $body.
chat() {
	local i each=()
	for ((i = 0; i < $1; i++)); do
		each+=(-o "$body" "$router/v1/chat/completions")
	done
	curl -s --max-time 60 -w '%{http_code} %header{x-worker}\n' -H 'Content-Type: application/json' \
		-d "{\"model\":\"$MODEL_NAME\",\"messages\":[{\"role\":\"user\",\"content\":\"validation\"}],\"max_tokens\":4,\"stream\":false$2}" \
		"${each[@]}" || true
}

# The instances of the answers that came, a line each.
ten() {
	chat 10 "$1" | sed -n 's/^200 \(..*\)/\1/p'
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
body=$folder/body

# 1. Core health
problem=
for url in "$registry" "$router"; do
	healthy "$url" >"$body" 2>/dev/null || problem="$problem no answer 200 from $url/health;"
done
block 1 "core health endpoints" "$problem"
if [ -n "$problem" ]; then
	echo "$good of 7 blocks passed"
	exit 1
fi

# 2. Service discovery
problem=
services=$(get "$registry/services?healthy=true")
for name in "$MASTER-server" "$SLAVE-server"; do
	grep -q "\"name\": *\"$name\"" <<<"$services" || problem="$problem $name is not among the healthy services;"
done
block 2 "service discovery" "$problem"

# 3. Model aggregation
models=$(get "$router/models")
problem=
grep -q "\"id\": *\"$MODEL_NAME\"" <<<"$models" || problem="found ${models:-no answer}, expected the model $MODEL_NAME"
block 3 "model aggregation" "$problem"

# 4. Chat completions
status=$(chat 1 "")
status=${status%% *}
problem=
if [ "$status" != 200 ] || ! grep -q '"object"' "$body" || ! grep -q '"content"' "$body"; then
	problem="found status $status and $(head -c 200 "$body" 2>/dev/null || true), expected a chat completion"
fi
block 4 "chat completions" "$problem"

# 5. Instances' own health
problem=
for port in $((MASTER_PORT + 1)) $((SLAVE_PORT + 1)); do
	healthy "http://$REGISTRY_IP:$port" 2>/dev/null | grep -q '"status": *"healthy"' || problem="$problem nothing healthy on port $port;"
done
block 5 "instance health checks" "$problem"

# 6. Without a key both take part, evenly.
problem=
seen=$(ten "")
all=$(grep -c . <<<"$seen" || true)
least=$(sort <<<"$seen" | uniq -c | awk 'NR == 1 || $1 < least { least = $1 } END { print least + 0 }')
which=$(sort -u <<<"$seen" | grep -c . || true)
if [ "$all" -lt 8 ] || [ "$which" -ne 2 ] || [ "$least" -lt 3 ]; then
	problem="$all of 10 answers by $which instances, the fewest by one: $least; expected at least 8 by 2, 3 and more by each"
fi
block 6 "load balancing without prompt_cache_key" "$problem"

# 7. With one key it is one instance.
problem=
seen=$(ten ',"prompt_cache_key":"validation_key"')
all=$(grep -c . <<<"$seen" || true)
which=$(sort -u <<<"$seen" | grep -c . || true)
if [ "$all" -lt 8 ] || [ "$which" -ne 1 ]; then
	problem="$all of 10 answers by $which instances, expected at least 8 by 1"
fi
block 7 "cache routing with prompt_cache_key" "$problem"

echo "$good of 7 blocks passed"
[ "$good" -eq 7 ]
