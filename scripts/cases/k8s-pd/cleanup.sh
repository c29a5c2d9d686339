#!/usr/bin/env bash
# Takes away what deploy.sh and run-benchmark.sh made in a namespace, and leaves the namespace itself:
#
#   ./cleanup.sh NAMESPACE                        for example vllm-router-pd-llama31
#   kubectl delete namespace NAMESPACE            and then that too
#
# Exit code 0: nothing of it is left. 2: wrong usage. 3: the cluster refused.
set -euo pipefail
if [ $# -ne 1 ] || [ "${1#-}" != "$1" ]; then
	sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
	[ "${1:-}" = --help ] && exit 0
	exit 2
fi
namespace=$1
if ! kubectl get namespace "$namespace" >/dev/null 2>&1; then
	echo "cleanup: there is no namespace $namespace"
	exit 0
fi
# The router first, so that it does not look for workers that are gone.
kubectl delete deployment,service,job,configmap,poddisruptionbudget -n "$namespace" -l 'app in (vllm-router, pdctl-bench)' --ignore-not-found || exit 3
for kind in deployment service serviceaccount role rolebinding poddisruptionbudget configmap; do
	kubectl delete "$kind" -n "$namespace" --ignore-not-found vllm-router-llama31 vllm-router-llama31-dashboard >/dev/null || exit 3
done
kubectl delete deployment,service -n "$namespace" -l 'llm-d.ai/role in (prefill, decode)' --ignore-not-found || exit 3
kubectl delete secret llm-d-hf-token -n "$namespace" --ignore-not-found || exit 3
echo "cleanup: $namespace is empty; kubectl delete namespace $namespace removes it"
