#!/usr/bin/env bash
# run_accuracy_test.sh with several tensor parallel sizes and block sizes; options (--simulated, --docker, --dry-run) go to each run.
#
#   ./tp_config_sweep_test.sh
#   TEST_FLASHINFER=1 ./tp_config_sweep_test.sh
#
# Exit code 0 when every configuration passes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export GPU_MEMORY_UTILIZATION=${GPU_MEMORY_UTILIZATION:-0.6}

# prefill TP, decode TP, prefill blocks, decode blocks, what it is
configurations=(
	"2 2 128 128 TP 2 on both sides"
	"1 2 128 128 prefill TP 1, decode TP 2"
	"1 1 128 128 baseline"
	"1 1 64 64 blocks of 64 tokens"
	"1 1 16 16 blocks of 16 tokens"
)
failed=0
for row in "${configurations[@]}"; do
	read -r ptp dtp pblock dblock what <<<"$row"
	echo "=== $what"
	code=0
	PREFILLER_TP_SIZE=$ptp DECODER_TP_SIZE=$dtp PREFILL_BLOCK_SIZE=$pblock DECODE_BLOCK_SIZE=$dblock \
		"$here/run_accuracy_test.sh" "$@" || code=$?
	[ $code -le 1 ] || exit $code
	[ $code -eq 0 ] || failed=$((failed + 1))
	echo "=== $what: $([ $code -eq 0 ] && echo PASS || echo FAIL)"
done
echo "$((${#configurations[@]} - failed)) of ${#configurations[@]} configurations pass"
[ $failed -eq 0 ]
