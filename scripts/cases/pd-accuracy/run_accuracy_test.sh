#!/usr/bin/env bash
# Accuracy through prefill/decode: starts prefill and decode instances with the NixlConnector and the router, runs test_pd_accuracy.py,
# and cleans up.
#
#   ./run_accuracy_test.sh               vLLM in Docker containers where Docker and enough GPUs are there, else simulated workers
#   ./run_accuracy_test.sh --simulated   simulated workers: pdctl worker with the same options
#   ./run_accuracy_test.sh --docker      Docker, or an error that says what is missing
#   ./run_accuracy_test.sh --dry-run     prints the commands of --docker and runs nothing
#
# Everything else is set by variables:
#
#   PREFILLER_TP_SIZE=2 DECODER_TP_SIZE=2 GPU_MEMORY_UTILIZATION=0.6 ./run_accuracy_test.sh
#
# Exit code 0 when all tests pass, 1 when one fails, 2 for a wrong setting, 3 when something did not start.
set -euo pipefail

VLLM_DOCKER_IMAGE=${VLLM_DOCKER_IMAGE:-vllm/vllm-openai:latest}
MODEL_NAMES=${MODEL_NAMES:-meta-llama/Llama-3.2-1B-Instruct} # several: separated by spaces, one after the other
NUM_PREFILL_INSTANCES=${NUM_PREFILL_INSTANCES:-1}
NUM_DECODE_INSTANCES=${NUM_DECODE_INSTANCES:-1}
PREFILLER_TP_SIZE=${PREFILLER_TP_SIZE:-1}
DECODER_TP_SIZE=${DECODER_TP_SIZE:-1}
GPU_MEMORY_UTILIZATION=${GPU_MEMORY_UTILIZATION:-0.6}
PREFILL_BLOCK_SIZE=${PREFILL_BLOCK_SIZE:-128}
DECODE_BLOCK_SIZE=${DECODE_BLOCK_SIZE:-128}
KV_BUFFER_DEVICE=${KV_BUFFER_DEVICE:-cuda}
TEST_FLASHINFER=${TEST_FLASHINFER:-}
PREFILL_BASE_PORT=${PREFILL_BASE_PORT:-8100}
DECODE_BASE_PORT=${DECODE_BASE_PORT:-8200}
ROUTER_PORT=${ROUTER_PORT:-8192}
ADMIN_PORT=${ADMIN_PORT:-29000}
ROUTER_FLAGS=${ROUTER_FLAGS:-}     # more options of pdctl serve
MAX_MODEL_LEN=${MAX_MODEL_LEN:-4096} # of the prefill instances, which must refuse a longer prompt; decode takes twice as much
START_TIMEOUT=${START_TIMEOUT:-1200}
RUN_LM_EVAL=${RUN_LM_EVAL:-}       # 1: gsm8k through the router too
LM_EVAL_EXPECTED=${LM_EVAL_EXPECTED:-}
LM_EVAL_TOLERANCE=${LM_EVAL_TOLERANCE:-0.03}
LM_EVAL_LIMIT=${LM_EVAL_LIMIT:-500}
LOG_DIR=${LOG_DIR:-}

here=$(cd "$(dirname "$0")" && pwd)
PDCTL=${PDCTL:-$here/../../../build/pdctl}
network=vllm_pd_test_network
mode=auto
pids=()
containers=()

die() {
	echo "run_accuracy_test.sh: $1" >&2
	exit "${2:-2}"
}

for word in "$@"; do
	case $word in
	--simulated) mode=simulated ;;
	--docker) mode=docker ;;
	--dry-run) mode=dry-run ;;
	-h | --help)
		sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
		exit 0
		;;
	*) die "found '$word', expected --simulated, --docker or --dry-run" ;;
	esac
done

# number NAME LEAST: the variable is a whole number.
number() {
	[[ ${!1} =~ ^[0-9]+$ && ${!1} -ge $2 ]] || die "$1: found '${!1}', expected a whole number from $2 on"
}

for name in NUM_PREFILL_INSTANCES NUM_DECODE_INSTANCES PREFILLER_TP_SIZE DECODER_TP_SIZE PREFILL_BLOCK_SIZE DECODE_BLOCK_SIZE MAX_MODEL_LEN; do
	number $name 1
done
for name in PREFILL_BASE_PORT DECODE_BASE_PORT ROUTER_PORT START_TIMEOUT; do
	number $name 0
done
case $KV_BUFFER_DEVICE in
cuda | cpu) ;;
*) die "KV_BUFFER_DEVICE: found '$KV_BUFFER_DEVICE', expected cuda or cpu" ;;
esac
gpus_needed=$((NUM_PREFILL_INSTANCES * PREFILLER_TP_SIZE + NUM_DECODE_INSTANCES * DECODER_TP_SIZE))

# What is missing for Docker, or nothing.
docker_lacks() {
	local gpus
	if ! command -v docker >/dev/null || ! docker info >/dev/null 2>&1; then
		echo "a running Docker: https://docs.docker.com/engine/install/"
		return
	fi
	gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | wc -l)
	[ "$gpus" -ge "$gpus_needed" ] || echo "$gpus_needed GPUs (found $gpus)"
}

if [ $mode = auto ] || [ "$mode" = docker ]; then
	lacks=$(docker_lacks)
	if [ -z "$lacks" ]; then
		mode=docker
	elif [ "$mode" = docker ]; then
		die "Docker cannot be used here, it needs $lacks" 3
	else
		echo "Docker cannot be used here, it needs $lacks: the workers are simulated"
		mode=simulated
	fi
fi
[ $mode = dry-run ] || [ -x "$PDCTL" ] || die "'$PDCTL' is no program: build it with make, or name it in PDCTL"

# do_it COMMAND...: runs it, or prints it.
do_it() {
	if [ $mode = dry-run ]; then
		printf '%q ' "$@"
		echo
	else
		"$@"
	fi
}

# gpus FIRST COUNT: "0,1"
gpus() {
	seq -s, "$1" $(($1 + $2 - 1))
}

# engine_args TP BLOCK PORT MODEL CONTEXT: the options of vllm serve, which pdctl worker takes too.
engine_args() {
	echo --model "$4" --port "$3" --tensor-parallel-size "$1" --block-size "$2" --gpu-memory-utilization "$GPU_MEMORY_UTILIZATION" \
		--max-model-len "$5" --enforce-eager --kv-transfer-config \
		"{\"kv_connector\":\"NixlConnector\",\"kv_role\":\"kv_both\",\"kv_buffer_device\":\"$KV_BUFFER_DEVICE\"}"
}

# launch ROLE NUMBER FIRST_GPU TP BLOCK PORT SIDE_CHANNEL MODEL
launch() {
	local role=$1 name=vllm_$1_$2 tp=$4 words longest=$MAX_MODEL_LEN
	# What a prefill instance refuses its decode instance would take.
	[ "$role" = prefill ] || longest=$((2 * MAX_MODEL_LEN))
	read -ra words <<<"$(engine_args "$tp" "$5" "$6" "$8" "$longest")"
	if [ $mode = simulated ]; then
		"$PDCTL" worker --host 127.0.0.1 --role "$role" --strict --speedup 4 "${words[@]}" </dev/null >"$LOG_DIR/$name.log" 2>&1 &
		pids+=($!)
		return
	fi
	local env=(-e VLLM_NIXL_SIDE_CHANNEL_HOST="$name" -e VLLM_NIXL_SIDE_CHANNEL_PORT="$7" -e VLLM_KV_CACHE_LAYOUT=HND -e UCX_NET_DEVICES=all
		-e HF_TOKEN)
	[ -z "$TEST_FLASHINFER" ] || env+=(-e VLLM_ATTENTION_BACKEND=FLASHINFER)
	containers+=("$name")
	do_it docker run -d --name "$name" --network $network --gpus "\"device=$(gpus "$3" "$tp")\"" --ipc=host --ulimit memlock=-1 \
		-p "127.0.0.1:$6:$6" -v "$HOME/.cache/huggingface:/root/.cache/huggingface" "${env[@]}" "$VLLM_DOCKER_IMAGE" \
		"${words[@]}" --host 0.0.0.0
}

# healthy NAME PORT
healthy() {
	local end=$((SECONDS + START_TIMEOUT))
	[ $mode != dry-run ] || {
		echo "# wait until http://127.0.0.1:$2/health answers"
		return
	}
	until curl -sf --max-time 5 -o /dev/null "http://127.0.0.1:$2/health"; do
		[ $SECONDS -lt $end ] || die "$1 on port $2 did not become healthy within $START_TIMEOUT s, see $LOG_DIR or: docker logs $1" 3
		if [ $mode = docker ] && [ "$1" != router ]; then
			[ "$(docker inspect -f '{{.State.Running}}' "$1" 2>/dev/null)" = true ] || die "the container $1 ended, see: docker logs $1" 3
		else
			kill -0 "${pids[-1]}" 2>/dev/null || die "$1 ended: $(tail -n 3 "$LOG_DIR"/*"$1".log)" 3
		fi
		sleep 0.2
	done
	echo "$1 is healthy on port $2"
}

# shellcheck disable=SC2317 # the trap calls it
clean_up() {
	local code=$? i
	trap - EXIT INT TERM
	for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
		kill "${pids[$i]}" 2>/dev/null || true
		wait "${pids[$i]}" 2>/dev/null || true
	done
	if [ ${#containers[@]} -gt 0 ]; then
		if [ "$code" -ne 0 ] && [ "$mode" = docker ]; then
			for i in "${containers[@]}"; do
				docker logs "$i" >"$LOG_DIR/$i.log" 2>&1 || true
			done
		fi
		do_it docker rm -f "${containers[@]}" || true
		do_it docker network rm "$network" || true
	fi
	[ "$code" -eq 0 ] || echo "logs: $LOG_DIR"
	exit "$code"
}

# shellcheck disable=SC2317 # tests with these settings
gsm8k() {
	local out=$LOG_DIR/lm_eval
	command -v lm_eval >/dev/null || die "RUN_LM_EVAL: lm_eval is needed: pip install 'lm_eval[api]'" 3
	[ -n "$LM_EVAL_EXPECTED" ] || case $1 in
	meta-llama/Llama-3.2-1B-Instruct) LM_EVAL_EXPECTED=0.33 ;;
	Qwen/Qwen3-0.6B) LM_EVAL_EXPECTED=0.41 ;;
	*) die "RUN_LM_EVAL: LM_EVAL_EXPECTED must say what $1 reaches alone" ;;
	esac
	lm_eval --model local-completions --tasks gsm8k --num_fewshot 5 --limit "$LM_EVAL_LIMIT" --output_path "$out" \
		--model_args "model=$1,base_url=http://127.0.0.1:$ROUTER_PORT/v1/completions,num_concurrent=20,max_retries=3,tokenized_requests=False"
	python3 "$here/gsm8k_within.py" "$out" "$LM_EVAL_EXPECTED" "$LM_EVAL_TOLERANCE"
}

# one MODEL: the whole flow.
one() {
	local model=$1 i pools=() gpu=0 code=0
	echo "== $model: $NUM_PREFILL_INSTANCES prefill (TP $PREFILLER_TP_SIZE, blocks of $PREFILL_BLOCK_SIZE), $NUM_DECODE_INSTANCES decode" \
		"(TP $DECODER_TP_SIZE, blocks of $DECODE_BLOCK_SIZE), $mode"
	if [ $mode != simulated ]; then
		if [ "$mode" = docker ]; then
			docker ps -a -q --filter 'name=^vllm_(prefill|decode)_[0-9]+$' | xargs -r docker rm -f >/dev/null
			docker network rm "$network" >/dev/null 2>&1 || true
		fi
		do_it docker network create $network
		do_it docker pull "$VLLM_DOCKER_IMAGE"
	fi
	for ((i = 0; i < NUM_PREFILL_INSTANCES; i++)); do
		launch prefill $i $gpu "$PREFILLER_TP_SIZE" "$PREFILL_BLOCK_SIZE" $((PREFILL_BASE_PORT + i)) $((5559 + i)) "$model"
		healthy vllm_prefill_$i $((PREFILL_BASE_PORT + i))
		pools+=(--prefill "http://127.0.0.1:$((PREFILL_BASE_PORT + i))")
		gpu=$((gpu + PREFILLER_TP_SIZE))
	done
	for ((i = 0; i < NUM_DECODE_INSTANCES; i++)); do
		launch decode $i $gpu "$DECODER_TP_SIZE" "$DECODE_BLOCK_SIZE" $((DECODE_BASE_PORT + i)) $((5659 + i * DECODER_TP_SIZE)) "$model"
		healthy vllm_decode_$i $((DECODE_BASE_PORT + i))
		pools+=(--decode "http://127.0.0.1:$((DECODE_BASE_PORT + i))")
		gpu=$((gpu + DECODER_TP_SIZE))
	done
	if [ $mode = dry-run ]; then
		do_it pdctl serve --pd-disaggregation "${pools[@]}" --host 127.0.0.1 --port "$ROUTER_PORT" --admin-port "$ADMIN_PORT"
		do_it ./test_pd_accuracy.py --router "http://127.0.0.1:$ROUTER_PORT" --direct "http://127.0.0.1:$DECODE_BASE_PORT" --model "$model" \
			--context "$MAX_MODEL_LEN"
		return
	fi
	# shellcheck disable=SC2086 # ROUTER_FLAGS is a list of words
	"$PDCTL" serve --pd-disaggregation "${pools[@]}" --host 127.0.0.1 --port "$ROUTER_PORT" --admin-port "$ADMIN_PORT" $ROUTER_FLAGS \
		</dev/null >"$LOG_DIR/router.log" 2>&1 &
	pids+=($!)
	healthy router "$ROUTER_PORT"
	"$here/test_pd_accuracy.py" --router "http://127.0.0.1:$ROUTER_PORT" --direct "http://127.0.0.1:$DECODE_BASE_PORT" --model "$model" \
		--context "$MAX_MODEL_LEN" --block "$DECODE_BLOCK_SIZE" || code=$?
	if [ $code -eq 0 ] && [ -n "$RUN_LM_EVAL" ]; then
		gsm8k "$model" || code=$?
	fi
	return $code
}

if [ -z "$LOG_DIR" ]; then
	LOG_DIR=$(mktemp -d)
fi
mkdir -p "$LOG_DIR"
if [ -n "$TEST_FLASHINFER" ] && [ $mode = simulated ]; then
	echo "TEST_FLASHINFER has no effect on simulated workers"
fi
if [ -n "$RUN_LM_EVAL" ] && [ $mode = simulated ]; then
	die "RUN_LM_EVAL: simulated workers know no arithmetic; scripts/lm-eval compares what lm_eval measures through the router with one worker"
fi
failed=0
for model in $MODEL_NAMES; do
	result=0
	(
		trap clean_up EXIT
		trap 'exit 130' INT
		trap 'exit 143' TERM
		one "$model"
	) || result=$?
	[ $result -le 1 ] || exit $result
	[ $result -eq 0 ] || failed=1
done
[ $mode = dry-run ] || echo "accuracy tests: $([ $failed -eq 0 ] && echo PASS || echo FAIL)"
exit $failed
