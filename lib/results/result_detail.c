/*
 * Per-request series from the arrays of `--save-detailed`, with the formulas of vllm bench: TPOT =
 * (latency - TTFT) / (tokens - 1) for more than one token; files without `latencies` get TTFT plus
 * the gaps. Failed requests keep a slot in the arrays (an error text, or 0 or null everywhere) and
 * are left out, as in the summary figures; so is what a request does not have (no TTFT without a
 * stream).
 */
#include "lib/results/result_detail.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum detail result_detail_of(const char *key)
{
	static const char *const names[DETAILS] = {
		[DETAIL_TTFTS] = "ttfts",
		[DETAIL_LATENCIES] = "latencies",
		[DETAIL_ITLS] = "itls",
		[DETAIL_OUTPUT_LENS] = "output_lens",
		[DETAIL_INPUT_LENS] = "input_lens",
		[DETAIL_START_TIMES] = "start_times",
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

#define MOVES_MAX 64 /* per value */

/* What is too large for a double in this unit is left out. */
static int series_push(struct result_series *s, size_t cap, double v)
{
	if (!isfinite(v))
		return PD_OK;
	if (!s->v)
		s->v = malloc(cap * sizeof(*s->v));
	if (!s->v)
		return PD_ENOMEM;
	s->v[s->n++] = v;
	return PD_OK;
}

static double detail_at(const struct detail_list *l, size_t i, size_t n)
{
	return l->n == n ? l->v[i] : (double)NAN;
}

/* End-to-end seconds of request i, NaN when the file cannot tell. */
static double latency_of(const struct detail_list *d, size_t i, size_t n)
{
	double stated = detail_at(&d[DETAIL_LATENCIES], i, n);

	if (stated > 0 || d[DETAIL_LATENCIES].n == n)
		return stated > 0 ? stated : (double)NAN;
	return detail_at(&d[DETAIL_TTFTS], i, n) + detail_at(&d[DETAIL_ITLS], i, n);
}

/* A failed request has an error text, or neither a TTFT nor a latency. */
static bool succeeded(const struct detail_list *d, size_t i, size_t n)
{
	if (d[DETAIL_ERRORS].n == n && !(d[DETAIL_ERRORS].v[i] <= 0))
		return false;
	return detail_at(&d[DETAIL_TTFTS], i, n) > 0 || detail_at(&d[DETAIL_LATENCIES], i, n) > 0;
}

static int add_request(const struct detail_list *d, size_t i, size_t n, struct result_doc *doc)
{
	double ttft = detail_at(&d[DETAIL_TTFTS], i, n), latency = latency_of(d, i, n);
	double tokens = detail_at(&d[DETAIL_OUTPUT_LENS], i, n);
	bool has_ttft = ttft > 0 && isfinite(ttft), has_latency = latency > 0 && isfinite(latency);
	int err = PD_OK;

	if (has_ttft)
		err = series_push(&doc->series[SERIES_TTFT], n, ttft * 1e3);
	if (!err && has_latency)
		err = series_push(&doc->series[SERIES_E2EL], n, latency * 1e3);
	if (!err && has_ttft && has_latency && tokens > 1 && latency >= ttft)
		err = series_push(&doc->series[SERIES_TPOT], n,
				  (latency - ttft) / (tokens - 1) * 1e3);
	return err;
}

struct completion {
	double at, output, tokens;
};

static int by_time(const void *a, const void *b)
{
	double x = ((const struct completion *)a)->at, y = ((const struct completion *)b)->at;

	return (x > y) - (x < y);
}

/* Requests end nearly in the order in which they began, so few values move far; when many do, the
 * sort of the library takes over. */
static void sort_completions(struct completion *c, size_t n)
{
	size_t moves = 0;

	for (size_t i = 1; i < n && moves < MOVES_MAX * n; i++) {
		struct completion one = c[i];
		size_t at = i;

		for (; at > 0 && one.at < c[at - 1].at && moves < MOVES_MAX * n; at--, moves++)
			c[at] = c[at - 1];
		c[at] = one;
	}
	if (moves >= MOVES_MAX * n)
		qsort(c, n, sizeof(*c), by_time);
}

/* When requests ended, and what they brought: a throughput is sums over gaps. */
static int add_completions(const struct detail_list *d, size_t n, struct result_doc *doc)
{
	struct completion *end = malloc(n * sizeof(*end));
	size_t done = 0;
	int err = end ? PD_OK : PD_ENOMEM;

	for (size_t i = 0; !err && i < n; i++) {
		double at = d[DETAIL_START_TIMES].v[i] + latency_of(d, i, n);
		double output = detail_at(&d[DETAIL_OUTPUT_LENS], i, n);
		double input = detail_at(&d[DETAIL_INPUT_LENS], i, n);

		if (succeeded(d, i, n) && fabs(at) < 1e300)
			end[done++] = (struct completion){at, output, input + output};
	}
	if (!err && done > 1)
		sort_completions(end, done);
	for (size_t i = 1; !err && i < done; i++) {
		err = series_push(&doc->series[SERIES_GAP], n, (end[i].at - end[i - 1].at) * 1e3);
		if (!err)
			err = series_push(&doc->series[SERIES_OUTPUT], n, end[i].output);
		if (!err)
			err = series_push(&doc->series[SERIES_TOKENS], n, end[i].tokens);
	}
	free(end);
	return err;
}

int result_detail_series(const struct detail_list *detail, struct detail_list *gaps,
			 struct result_doc *d)
{
	size_t n = detail[DETAIL_TTFTS].n ? detail[DETAIL_TTFTS].n : detail[DETAIL_LATENCIES].n;
	struct result_series *itl = &d->series[SERIES_ITL];
	int err = PD_OK;

	for (size_t i = 0; !err && i < n; i++)
		err = succeeded(detail, i, n) ? add_request(detail, i, n, d) : PD_OK;
	if (!err && n > 0 && detail[DETAIL_START_TIMES].n == n)
		err = add_completions(detail, n, d);
	if (err || gaps->n == 0 || gaps->n > RESULT_ITLS_MAX)
		return err;
	for (size_t i = 0; i < gaps->n; i++)
		if (isfinite(gaps->v[i] * 1e3))
			gaps->v[itl->n++] = gaps->v[i] * 1e3;
	itl->v = gaps->v;
	*gaps = (struct detail_list){NULL, 0, 0};
	return PD_OK;
}
