/* Rows of the requests of an arm: the lists that `vllm bench serve --save-detailed` writes. */
#ifndef PD_SIM_REPORT_DETAIL_H
#define PD_SIM_REPORT_DETAIL_H

#include <cjson/cJSON.h>

#include "sim/figures/arms.h"

/*
 * Appends input_lens, output_lens, start_times, ttfts, itls (a list for each request) and errors,
 * an entry per request in the order of the trace; seconds of the trace's time. A request without a
 * first token has null in ttfts. Of an arm that was replayed with cfg.detailed. PD_ENOMEM.
 */
int simreport_detail(const struct arm *a, const struct simtrace *t, cJSON *doc) PD_MUST;

#endif
