# shellcheck shell=bash
# shellcheck disable=SC2154 # set by install.defaults.sh
# What the three benchmarks share; sourced, after install.defaults.sh, by each of them.
need
case $BENCH_CLIENT in
pdctl) ;;
vllm)
	[ -d "$VLLM_DIR" ] || die "BENCH_CLIENT=vllm: VLLM_DIR must name vLLM's source folder"
	command -v conda >/dev/null || die "BENCH_CLIENT=vllm: conda is needed: ./setup-vllm-env.sh"
	[ -n "$MODEL1_DIR" ] || die "BENCH_CLIENT=vllm: MODEL1_DIR must name the folder of the tokenizer"
	;;
*) die "BENCH_CLIENT: found '$BENCH_CLIENT', expected pdctl or vllm" ;;
esac
healthy "$router" >/dev/null || die "no router at $router: ./start-master.sh first" 3
if [ ! -f "$DATASET_FILE" ]; then
	"$CASE_DIR/gen-multi-prefix.py" --num-prompts "$NUM_REQUESTS" --num-prefixes "$NUM_PREFIXES" --prefix-len "$PREFIX_LEN" \
		--suffix-len "$SUFFIX_LEN" --output "$DATASET_FILE"
fi
mkdir -p "$RESULTS_DIR"

# bench LABEL NAME FLAGS...: one run; its result is RESULTS_DIR/NAME-TIME.json. The salt keeps a run from the caches that another one filled.
bench() {
	local label=$1 name=$2 stamp
	shift 2
	stamp=$(date -u +%Y%m%d-%H%M%S)-$$
	if [ "$BENCH_CLIENT" = vllm ]; then
		conda run --no-capture-output -n "$CONDA_ENV_NAME" env PYTHONPATH="$VLLM_DIR" python -m vllm.entrypoints.cli.main bench serve \
			--backend openai-chat --base-url "$router" --endpoint /v1/chat/completions --model "$MODEL_NAME" --tokenizer "$MODEL1_DIR" \
			--dataset-name custom --dataset-path "$DATASET_FILE" --disable-shuffle --request-rate "$REQUEST_RATE" --num-prompts "$NUM_REQUESTS" \
			--label "$label" --save-result --result-dir "$RESULTS_DIR" --result-filename "$name-$stamp.json" --ready-check-timeout-sec 0
		return
	fi
	"$PDCTL" bench --base-url "$router" --model "$MODEL_NAME" --dataset "$DATASET_FILE" --num-prompts "$NUM_REQUESTS" --oversample \
		--request-rate "$REQUEST_RATE" --output-len "${OUTPUT_LEN:-256}" --salt "$label-$stamp" --label "$label" --save-detailed --no-store \
		--output "$RESULTS_DIR/$name-$stamp.json" "$@"
}
