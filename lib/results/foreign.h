/*
 * Results of other tools under the names of vllm bench, in its units, beside the names they came
 * with. Recognised by content:
 *
 *   SGLang bench_serving      mean_e2e_latency_ms, total_throughput ...
 *   AIPerf, GenAI-Perf        an object per metric: {"unit", "avg", "p50", "p99", "std"}
 *   guidellm                  an element of "benchmarks": metrics.NAME.successful.mean ...
 *
 * AIPerf's and guidellm's inter-token latency is a mean per request, which is vllm bench's TPOT;
 * AIPerf's inter-chunk latency is its ITL. "format" says what was recognised.
 *
 * And for all: TTFT, TPOT, ITL and E2EL whose figures are all 0 had no sample (vllm bench writes 0
 * then); they become null.
 */
#ifndef PD_RESULTS_FOREIGN_H
#define PD_RESULTS_FOREIGN_H

#include "lib/results/document.h"

/* Adds the fields that can be told; PD_ETOOBIG, PD_ENOMEM. Others stay as they are. */
int result_foreign(struct result_doc *d) PD_MUST;

#endif
