#!/usr/bin/env bash
# Runs lm_eval's tasks through the router (pip install lm-eval[api]); the router is reached by a port-forward on localhost:10001.
#
#   ./run-eval.sh                     gsm8k, one request at a time, all samples
#   ./run-eval.sh mmlu 4 50           mmlu, 4 at a time, 50 samples
#   ./run-eval.sh hellaswag 1 100
#
# NAMESPACE and MODEL change what they say. ROUTER_URL names a router that needs no port-forward.
# Exit code: lm_eval's; 2: wrong usage; 3: a tool is missing or the router does not answer.
set -euo pipefail
namespace=${NAMESPACE:-vllm-router-pd-llama31}
router=vllm-router-llama31
model=${MODEL:-meta-llama/Llama-3.1-8B-Instruct}

die() {
	echo "run-eval: $1" >&2
	exit "${2:-3}"
}

case ${1:-} in
-h | --help)
	sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
	exit 0
	;;
esac
[ $# -le 3 ] || die "found $# words, expected a task, the concurrency and a limit" 2
task=${1:-gsm8k}
concurrency=${2:-1}
limit=${3:-}
[[ $concurrency =~ ^[1-9][0-9]*$ ]] || die "concurrency: found '$concurrency', expected a number" 2
[[ $limit =~ ^([1-9][0-9]*)?$ ]] || die "limit: found '$limit', expected a number" 2
command -v lm_eval >/dev/null || die "lm_eval is missing: pip install 'lm-eval[api]'"

url=${ROUTER_URL:-http://localhost:10001}
if [ -z "${ROUTER_URL:-}" ]; then
	command -v kubectl >/dev/null || die "kubectl is missing"
	kubectl port-forward -n "$namespace" "svc/$router" 10001:10001 >/dev/null &
	forward=$!
	trap 'kill $forward 2>/dev/null || true' EXIT
fi
for ((tries = 0; ; tries++)); do
	curl -sf -o /dev/null "$url/v1/models" && break
	[ $tries -lt 60 ] || die "the router does not answer at $url"
	sleep 0.5
done
words=(--model local-completions --tasks "$task"
	--model_args "model=$model,base_url=$url/v1/completions,num_concurrent=$concurrency,max_retries=3,tokenized_requests=False")
[ -z "$limit" ] || words+=(--limit "$limit")
lm_eval "${words[@]}"
