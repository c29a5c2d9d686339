#!/usr/bin/env bash
# Loads the router from inside the cluster and keeps the result document.
#
#   ./run-benchmark.sh                 100 prompts, 16 at a time, with vllm bench serve in a decode pod
#   ./run-benchmark.sh 200 32          200 prompts, 32 at a time
#   ./run-benchmark.sh 2000 256 --pods 4
#                                      the same load from 4 pods at once (an Indexed Job with pdctl bench), merged into one document
#
# NAMESPACE, MODEL, INPUT_LEN and OUTPUT_LEN (1000 and 1000) change what they say, OUTPUT the file (results-PROMPTS-CONCURRENCY.json).
# Exit code 0: done. 1: requests failed. 2: wrong usage. 3: the cluster refused, or the router does not answer.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
namespace=${NAMESPACE:-vllm-router-pd-llama31}
router=vllm-router-llama31
port=10001
model=${MODEL:-meta-llama/Llama-3.1-8B-Instruct}
input=${INPUT_LEN:-1000}
output_len=${OUTPUT_LEN:-1000}

die() {
	echo "run-benchmark: $1" >&2
	exit "${2:-3}"
}

numbers=()
pods=0
while [ $# -gt 0 ]; do
	case $1 in
	--pods)
		pods=${2:-}
		[[ $pods =~ ^[1-9][0-9]{0,2}$ ]] || die "--pods: found '$pods', expected a number of 1 to 999" 2
		shift
		;;
	-h | --help)
		sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
		exit 0
		;;
	*)
		[[ $1 =~ ^[1-9][0-9]*$ ]] || die "found '$1', expected a number of prompts, then the concurrency" 2
		numbers+=("$1")
		;;
	esac
	shift
done
[ ${#numbers[@]} -le 2 ] || die "found ${#numbers[@]} numbers, expected prompts and concurrency" 2
prompts=${numbers[0]:-100}
concurrency=${numbers[1]:-16}
file=${OUTPUT:-results-$prompts-$concurrency.json}

if [ "$pods" -gt 0 ]; then
	for tool in helm pdctl; do
		command -v $tool >/dev/null || die "$tool is missing: --pods needs it on this machine"
	done
	[ "$concurrency" -ge "$pods" ] || die "--pods: found $pods, expected at most the concurrency, $concurrency" 2
	job=pdctl-bench
	kubectl delete job $job -n "$namespace" --ignore-not-found >/dev/null
	# Each pod has its share of the places.
	helm template ms-llama31 "$here/chart" --namespace "$namespace" -f "$here/values.yaml" --show-only templates/bench-job.yaml \
		--set bench.create=true --set bench.pods="$pods" --set bench.prompts="$prompts" --set bench.concurrency=$(((concurrency + pods - 1) / pods)) \
		--set-string bench.model="$model" --set bench.inputLen="$input" --set bench.outputLen="$output_len" |
		kubectl apply --server-side --validate=strict -n "$namespace" -f - || die "the cluster refused the job"
	failed=0
	kubectl wait --for=condition=complete "job/$job" -n "$namespace" --timeout="${WAIT:-3600s}" || failed=1
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	for ((i = 0; i < pods; i++)); do
		kubectl logs -n "$namespace" -l "batch.kubernetes.io/job-name=$job,batch.kubernetes.io/job-completion-index=$i" --tail=-1 >"$work/$i.json" ||
			die "the log of pod $i could not be read"
	done
	pdctl results merge "$work"/*.json --output "$file" || die "the shards could not be merged"
	echo "run-benchmark: $pods pods, merged into $file"
	exit $failed
fi

pod=$(kubectl get pod -n "$namespace" -l llm-d.ai/role=decode --field-selector=status.phase=Running -o 'jsonpath={.items[0].metadata.name}' 2>/dev/null) ||
	die "there is no running decode pod in $namespace: ./deploy.sh"
inside() {
	kubectl exec -n "$namespace" "$pod" -c vllm -- "$@"
}
inside curl -sf "http://$router:$port/v1/models" >/dev/null || die "the router does not answer at http://$router:$port, seen from $pod"
echo "run-benchmark: $prompts prompts, $concurrency at a time, from $pod"
inside vllm bench serve --base-url "http://$router:$port" --endpoint /v1/completions --model "$model" --dataset-name random \
	--random-input-len "$input" --random-output-len "$output_len" --ignore-eos --num-prompts "$prompts" --max-concurrency "$concurrency" \
	--save-result --save-detailed --result-dir /tmp --result-filename pdctl-result.json
inside cat /tmp/pdctl-result.json >"$file" || die "the result could not be read from $pod"
echo "run-benchmark: $file; pdctl compare $file ANOTHER.json"
