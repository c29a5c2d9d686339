/*
 * Per-request series from the arrays of `--save-detailed`, with the formulas of vllm bench: TPOT =
 * (latency - TTFT) / (tokens - 1) for more than one token; files without `latencies` get TTFT plus
 * the gaps. Failed requests keep a slot in the arrays (an error text, or a TTFT of 0) and are left
 * out, as in the summary figures.
 */
#include "lib/results/result_detail.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum detail result_detail_of(const char *key)
{
	static const char *const names[DETAILS] = {
		[DETAIL_TTFTS] = "ttfts",   [DETAIL_LATENCIES] = "latencies",
		[DETAIL_ITLS] = "itls",	    [DETAIL_OUTPUT_LENS] = "output_lens",
		[DETAIL_ERRORS] = "errors",
	};

	for (unsigned i = 0; i < DETAILS; i++)
		if (strcmp(names[i], key) == 0)
			return (enum detail)i;
	return DETAILS;
}

int result_detail_push(struct detail_list *l, double v)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 256;
		double *p = realloc(l->v, cap * sizeof(*p));

		if (!p)
			return PD_ENOMEM;
		l->v = p;
		l->cap = cap;
	}
	l->v[l->n++] = v;
	return PD_OK;
}

static int series_push(struct result_series *s, size_t cap, double v)
{
	if (!s->v)
		s->v = malloc(cap * sizeof(*s->v));
	if (!s->v)
		return PD_ENOMEM;
	s->v[s->n++] = v;
	return PD_OK;
}

/* End-to-end seconds of request i, NaN when the file cannot tell. */
static double latency_of(const struct detail_list *d, size_t i, size_t n)
{
	if (d[DETAIL_LATENCIES].n == n)
		return d[DETAIL_LATENCIES].v[i];
	if (d[DETAIL_ITLS].n == n)
		return d[DETAIL_TTFTS].v[i] + d[DETAIL_ITLS].v[i];
	return NAN;
}

static int add_request(const struct detail_list *d, size_t i, size_t n, struct result_doc *doc)
{
	double ttft = d[DETAIL_TTFTS].v[i], latency = latency_of(d, i, n);
	double tokens = d[DETAIL_OUTPUT_LENS].n == n ? d[DETAIL_OUTPUT_LENS].v[i] : NAN;
	int err;

	if (!(ttft > 0) || (d[DETAIL_ERRORS].n == n && !(d[DETAIL_ERRORS].v[i] <= 0)))
		return PD_OK;
	err = series_push(&doc->series[RESULT_TTFT], n, ttft * 1e3);
	if (!err && isfinite(latency))
		err = series_push(&doc->series[RESULT_E2EL], n, latency * 1e3);
	if (!err && isfinite(latency) && tokens > 1)
		err = series_push(&doc->series[RESULT_TPOT], n,
				  (latency - ttft) / (tokens - 1) * 1e3);
	return err;
}

int result_detail_series(const struct detail_list *detail, struct result_doc *d)
{
	size_t n = detail[DETAIL_TTFTS].n;
	int err = PD_OK;

	for (size_t i = 0; !err && i < n; i++)
		err = isfinite(detail[DETAIL_TTFTS].v[i]) ? add_request(detail, i, n, d) : PD_OK;
	return err;
}
