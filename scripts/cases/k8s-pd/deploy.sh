#!/usr/bin/env bash
# Deploys 8 prefill pods, 8 decode pods and the router: the namespace, the secret with HF_TOKEN, Deployments, Services, and what the router
# may do. Running it again changes what has changed.
#
#   export HF_TOKEN=...            not needed when the secret llm-d-hf-token is there
#   ./deploy.sh                    the published case: namespace vllm-router-pd-llama31
#   ./deploy.sh --workers pods     the router finds the pods by Kubernetes discovery, so that a session stays on one pod
#   ./deploy.sh --set KEY=VALUE    a value of the chart; -f FILE: values of a file. Both need helm
#
# With helm it renders chart/ with values.yaml; without, it applies manifests/, which ./render made from them.
# NAMESPACE names another namespace, WAIT the time that pods have to become ready (default 600s; 0: it does not wait).
# Exit code 0: deployed and ready. 1: not ready in time. 2: wrong usage. 3: the cluster or a tool refused.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
namespace=${NAMESPACE:-vllm-router-pd-llama31}
release=ms-llama31
router=vllm-router-llama31
secret=llm-d-hf-token
wait=${WAIT:-600s}

die() {
	echo "deploy: $1" >&2
	exit "${2:-3}"
}

workers=services
more=()
while [ $# -gt 0 ]; do
	case $1 in
	--workers)
		workers=${2:-}
		[[ $workers = services || $workers = pods ]] || die "--workers: found '$workers', expected services or pods" 2
		shift
		;;
	--set | -f)
		more+=("$1" "${2:?deploy: $1 requires a value}")
		shift
		;;
	-h | --help)
		sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
		exit 0
		;;
	*) die "unknown option '$1', expected --workers, --set, -f or --help" 2 ;;
	esac
	shift
done
command -v kubectl >/dev/null || die "kubectl is missing"
if ! command -v helm >/dev/null; then
	[ ${#more[@]} -eq 0 ] || die "--set and -f need helm"
	[ "$namespace" = vllm-router-pd-llama31 ] || die "another namespace needs helm: manifests/ name vllm-router-pd-llama31"
	"$here/render" --check-values || die "values.yaml or chart/ was changed after manifests/ were made: that needs helm"
fi

# rendered: everything, as one stream.
rendered() {
	if command -v helm >/dev/null; then
		helm template "$release" "$here/chart" --namespace "$namespace" -f "$here/values.yaml" --set "router.workers=$workers" "${more[@]}"
	else
		cat "$here/manifests/prefill-decode.yaml" "$here/manifests/backend-services.yaml" "$here/manifests/router-rbac.yaml" \
			"$here/manifests/router-service.yaml"
		echo ---
		if [ "$workers" = pods ]; then
			cat "$here/manifests/router-deployment-pods.yaml"
		else
			cat "$here/manifests/router-deployment.yaml"
		fi
	fi
}

kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace" || die "the namespace could not be created"
# By a pipe, so that the token is in no argument list.
if [ -n "${HF_TOKEN:-}" ]; then
	printf %s "$HF_TOKEN" | kubectl create secret generic "$secret" -n "$namespace" --from-file=HF_TOKEN=/dev/stdin --dry-run=client -o yaml |
		kubectl apply -f - || die "the secret $secret could not be written"
elif ! kubectl get secret "$secret" -n "$namespace" >/dev/null 2>&1; then
	die "HF_TOKEN is not set, and there is no secret $secret in $namespace" 2
fi
rendered | kubectl apply --server-side --validate=strict -n "$namespace" -f - || die "the cluster refused the manifests"

if [ "$wait" != 0 ]; then
	for name in "$release-llm-d-modelservice-prefill" "$release-llm-d-modelservice-decode" "$router"; do
		kubectl rollout status "deployment/$name" -n "$namespace" --timeout="$wait" || die "$name is not ready after $wait: kubectl get pods -n $namespace" 1
	done
fi
kubectl get pods,svc -n "$namespace"
cat <<END

logs:       kubectl logs -n $namespace -l app=vllm-router -f
the router: kubectl port-forward -n $namespace svc/$router 10001:10001
metrics:    kubectl port-forward -n $namespace svc/$router 29000:29000
load:       ./run-benchmark.sh        tasks: ./run-eval.sh        RDMA: ./check-rdma.sh
END
