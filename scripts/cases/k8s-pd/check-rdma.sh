#!/usr/bin/env bash
# Says of each prefill and decode pod whether it sees an RDMA device and whether NIXL has started: without the first, blocks travel over TCP.
#
#   ./check-rdma.sh [NAMESPACE]
#
# Exit code 0: every pod has both. 1: one has not. 3: the cluster does not answer, or there are no pods.
set -euo pipefail
case ${1:-} in
-*)
	sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
	[[ $1 = -h || $1 = --help ]] && exit 0
	exit 2
	;;
esac
namespace=${1:-vllm-router-pd-llama31}
pods=$(kubectl get pods -n "$namespace" -l 'llm-d.ai/role in (prefill, decode)' -o 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}') || exit 3
[ -n "$pods" ] || {
	echo "check-rdma: there are no prefill or decode pods in $namespace" >&2
	exit 3
}
bad=0
for pod in $pods; do
	devices=$(kubectl exec -n "$namespace" "$pod" -c vllm -- sh -c 'ls /sys/class/infiniband 2>/dev/null' | tr '\n' ' ') || devices=
	nixl=$(kubectl logs -n "$namespace" "$pod" -c vllm | grep -c NIXL) || nixl=0
	printf '%-60s RDMA devices: %-30s lines about NIXL: %s\n' "$pod" "${devices:-none}" "$nixl"
	[ -n "$devices" ] && [ "$nixl" -gt 0 ] || bad=1
done
exit $bad
