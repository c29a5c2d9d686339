# shellcheck shell=bash disable=SC2034 # read by the scripts that source it
# The defaults of this deployment. The environment wins: REGISTRY_PORT=18001 ./start-master.sh
CASE_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PDCTL=${PDCTL:-$CASE_DIR/../../../build/pdctl}

REGISTRY_IP=${1:-${REGISTRY_IP:-127.0.0.1}}
REGISTRY_PORT=${REGISTRY_PORT:-18000}
ROUTER_PORT=${ROUTER_PORT:-8000}
ADMIN_PORT=${ADMIN_PORT:-29000}
MASTER_PORT=${MASTER_PORT:-8100} # its health port is the next one, 8101
SLAVE_PORT=${SLAVE_PORT:-8200}   # and 8201
ROUTER_FLAGS=${ROUTER_FLAGS:-}   # more options of pdctl serve
ROUTER_POLICY=${ROUTER_POLICY:-consistent_hash}

MODEL_NAME=${MODEL_NAME:-9g_8b_thinking}
MASTER=master-9g_8b_thinking
SLAVE=slave-9g_8b_thinking
BACKEND=${BACKEND:-mock}      # mock: pdctl worker; vllm: vllm serve MODEL1_DIR
MODEL1_DIR=${MODEL1_DIR:-}    # the model's folder, for BACKEND=vllm and BENCH_CLIENT=vllm
RUN_DIR=${RUN_DIR:-$CASE_DIR/run.d} # logs and process ids
START_TIMEOUT=${START_TIMEOUT:-1200} # seconds until both instances serve: a real engine loads its model

BENCH_CLIENT=${BENCH_CLIENT:-pdctl} # pdctl bench; vllm: vllm bench serve of VLLM_DIR in CONDA_ENV_NAME
VLLM_DIR=${VLLM_DIR:-}
CONDA_ENV_NAME=${CONDA_ENV_NAME:-vllm-bench}
REQUEST_RATE=${REQUEST_RATE:-1.0}
NUM_REQUESTS=${NUM_REQUESTS:-64}
NUM_PREFIXES=${NUM_PREFIXES:-4}
PREFIX_LEN=${PREFIX_LEN:-8192}
SUFFIX_LEN=${SUFFIX_LEN:-32}
DATASET_FILE=${DATASET_FILE:-$CASE_DIR/multi_prefix.jsonl}
CACHE_KEY_PATTERN=${CACHE_KEY_PATTERN:-} # empty: the key of each record, which is that of its prefix
RESULTS_DIR=${RESULTS_DIR:-$CASE_DIR/results}

registry=http://$REGISTRY_IP:$REGISTRY_PORT
router=http://$REGISTRY_IP:$ROUTER_PORT

die() {
	echo "${0##*/}: $1" >&2
	exit "${2:-2}"
}

need() {
	[ -x "$PDCTL" ] || die "'$PDCTL' is no program: build it with make, or name it in PDCTL"
	command -v curl >/dev/null || die "curl is needed: apt-get install curl"
}

# What answers, or nothing.
get() {
	curl -sf --max-time 10 "$@" || true
}

# until_true WHAT SECONDS COMMAND...: waits for it; exit 3 when it does not come.
until_true() {
	local what=$1 end=$((SECONDS + $2))
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || die "timed out waiting for $what" 3
		sleep 0.1
	done
}

healthy() {
	curl -sf --max-time 5 "$1/health"
}

# The instances that the router sends requests to.
instances() {
	get "$router/list_workers" | { grep -o '[^"]*-server"' || true; } | wc -l
}

has_instances() {
	[ "$(instances)" -eq "$1" ]
}
