/* The figures of a result document. Pure; arrays that are returned belong to the caller. */
#ifndef PD_RESULTS_RESULT_CALC_H
#define PD_RESULTS_RESULT_CALC_H

#include "lib/results/result.h"

/* What the document computes, for callers that print. In the document's units (s, tokens/s, ms). */
struct result_totals {
	double duration;
	size_t completed, failed;
	int64_t input_tokens, output_tokens;
	double request_throughput, output_throughput,
		total_token_throughput; /* NaN when nothing was sent */
	double goodput;			/* NAN without goals, or when nothing was sent */
	double max_output_tokens_per_s;
	size_t max_concurrent;
};

int result_totals(const struct result_run *run, struct result_totals *out) PD_MUST;
/* All samples of one metric over the successful requests, ascending, in ms; *out is owned by the
 * caller. */
int result_samples(const struct result_run *run, enum result_metric m, double **out,
		   size_t *n) PD_MUST;
/* The same for chunk gaps (not tokens) and for the schedule lag (sent - eligible) of all requests
 * that were sent. */
int result_chunk_gaps(const struct result_run *run, double **out, size_t *n) PD_MUST;
int result_lags(const struct result_run *run, double **out, size_t *n) PD_MUST;

#endif
