#!/usr/bin/env bash
# The environment for BENCH_CLIENT=vllm: a conda environment with what vLLM's benchmark imports. vLLM itself is not built; the benchmark
# runs from VLLM_DIR. pdctl bench, the default client, needs none of this.
#
#   VLLM_DIR=/path/to/vllm [CONDA_ENV_NAME=vllm-bench] ./setup-vllm-env.sh
#   DRY_RUN=1 ./setup-vllm-env.sh     prints the commands
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=install.defaults.sh
. "$(dirname "$0")/install.defaults.sh"

do_it() {
	if [ -n "${DRY_RUN:-}" ]; then
		printf '%s\n' "$*"
	else
		"$@"
	fi
}

if [ -z "${DRY_RUN:-}" ]; then
	command -v conda >/dev/null || die "conda is needed: https://docs.conda.io/projects/miniconda; pdctl bench needs none"
	[ -f "$VLLM_DIR/vllm/benchmarks/serve.py" ] || die "VLLM_DIR: found '$VLLM_DIR', expected vLLM's source folder: git clone https://github.com/vllm-project/vllm"
fi
if [ -n "${DRY_RUN:-}" ] || ! conda env list | awk '{ print $1 }' | grep -qx "$CONDA_ENV_NAME"; then
	do_it conda create -y -n "$CONDA_ENV_NAME" python=3.12
fi
do_it conda run -n "$CONDA_ENV_NAME" pip install aiohttp numpy tqdm transformers datasets pandas pillow
echo "next: conda activate $CONDA_ENV_NAME, then BENCH_CLIENT=vllm VLLM_DIR=$VLLM_DIR ./bench-single.sh"
