/*
 * The figures of the document. Samples are collected into one array, sorted once and read from
 * there; memory is reserved for all that there can be, so nothing grows.
 */
#include "lib/results/result_calc.h"

#include <math.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/stats/summary.h"

/* A run longer than this has no per-second buckets. */
#define SECONDS_MAX 100000000

static double ms(int64_t ns)
{
	return (double)ns / 1e6;
}

static bool succeeded(const struct result_request *r)
{
	return r->failure == NULL && r->sent_ns >= 0 && r->last_token_ns >= 0;
}

/* One value of a per-request metric; NAN when the request has none. */
static double sample(const struct result_request *r, enum result_metric m)
{
	double e2el = ms(r->last_token_ns - r->sent_ns), queue = ms(r->sent_ns - r->intended_ns),
	       ttft = NAN;

	if (r->first_token_ns >= 0)
		ttft = ms(r->first_token_ns - r->sent_ns);
	switch (m) {
	case RESULT_TTFT:
		return ttft;
	case RESULT_TPOT:
		return r->output_tokens > 1 ? (e2el - ttft) / (double)(r->output_tokens - 1) : NAN;
	case RESULT_E2EL:
		return e2el;
	case RESULT_CLIENT_QUEUE_TIME:
		return queue;
	case RESULT_E2EL_WITH_QUEUE:
		return e2el + queue;
	default:
		return NAN;
	}
}

/* Samples of one request's gaps, one per token. A piece without tokens hands its time on to the
 * next one. */
static size_t token_gaps(const struct result_request *r, double *out)
{
	int64_t carried = 0;
	size_t n = 0;

	for (size_t i = 0; i < r->ngaps; i++) {
		int64_t tokens = r->gap[i].tokens < 0 ? 1 : r->gap[i].tokens;
		int64_t ns = r->gap[i].ns + carried;

		carried = tokens == 0 ? ns : 0;
		for (int64_t k = 0; k < tokens; k++, n++)
			if (out)
				out[n] = ms(ns) / (double)tokens;
	}
	return n;
}

static size_t collect(const struct result_run *run, enum result_metric m, double *out)
{
	size_t n = 0;

	for (size_t i = 0; i < run->n; i++) {
		const struct result_request *r = &run->req[i];
		double v;

		if (!succeeded(r))
			continue;
		if (m == RESULT_ITL) {
			n += token_gaps(r, out ? out + n : NULL);
			continue;
		}
		v = sample(r, m);
		if (isnan(v))
			continue;
		if (out)
			out[n] = v;
		n++;
	}
	return n;
}

static int reserve(size_t n, double **out)
{
	*out = calloc(n ? n : 1, sizeof(**out));
	return *out ? PD_OK : PD_ENOMEM;
}

int result_samples(const struct result_run *run, enum result_metric m, double **out, size_t *n)
{
	int err;

	err = reserve(m == RESULT_ITL ? collect(run, m, NULL) : run->n, out);
	if (err)
		return err;
	*n = collect(run, m, *out);
	summary_sort(*out, *n);
	return PD_OK;
}

int result_chunk_gaps(const struct result_run *run, double **out, size_t *n)
{
	size_t total = 0, at = 0;
	int err;

	for (size_t i = 0; i < run->n; i++)
		total += succeeded(&run->req[i]) ? run->req[i].ngaps : 0;
	err = reserve(total, out);
	if (err)
		return err;
	for (size_t i = 0; i < run->n; i++)
		for (size_t k = 0; succeeded(&run->req[i]) && k < run->req[i].ngaps; k++)
			(*out)[at++] = ms(run->req[i].gap[k].ns);
	summary_sort(*out, total);
	*n = total;
	return PD_OK;
}

int result_lags(const struct result_run *run, double **out, size_t *n)
{
	int err = reserve(run->n, out);

	*n = 0;
	if (err)
		return err;
	for (size_t i = 0; i < run->n; i++)
		if (run->req[i].sent_ns >= 0)
			(*out)[(*n)++] = ms(run->req[i].sent_ns - run->req[i].eligible_ns);
	summary_sort(*out, *n);
	return PD_OK;
}

static int64_t end_of(const struct result_request *r)
{
	return r->end_ns > r->last_token_ns ? r->end_ns : r->last_token_ns;
}

static void span_of_run(const struct result_run *run, int64_t *first, int64_t *last)
{
	*first = INT64_MAX;
	*last = INT64_MIN;
	for (size_t i = 0; i < run->n; i++) {
		const struct result_request *r = &run->req[i];

		if (r->sent_ns < 0)
			continue;
		*first = r->sent_ns < *first ? r->sent_ns : *first;
		*last = end_of(r) > *last ? end_of(r) : *last;
	}
	if (*first > *last)
		*first = *last = 0;
}

static void bucket_add(uint64_t *bucket, size_t n, int64_t first, int64_t at, int64_t tokens)
{
	size_t i = (size_t)((at - first) / NS_PER_S);

	if (at >= first && i < n && tokens > 0)
		bucket[i] += (uint64_t)tokens;
}

static void bucket_request(uint64_t *bucket, size_t n, int64_t first,
			   const struct result_request *r)
{
	int64_t at = r->first_token_ns;

	if (at < 0) {
		bucket_add(bucket, n, first, r->last_token_ns, r->output_tokens);
		return;
	}
	bucket_add(bucket, n, first, at, r->first_tokens < 0 ? 1 : r->first_tokens);
	for (size_t k = 0; k < r->ngaps; k++) {
		at += r->gap[k].ns;
		bucket_add(bucket, n, first, at, r->gap[k].tokens < 0 ? 1 : r->gap[k].tokens);
	}
}

static int busiest_second(const struct result_run *run, int64_t first, int64_t last, double *out)
{
	size_t n = (size_t)((last - first) / NS_PER_S) + 1;
	uint64_t *bucket, most = 0;

	*out = 0;
	if (n > SECONDS_MAX)
		return PD_ETOOBIG;
	bucket = calloc(n, sizeof(*bucket));
	if (!bucket)
		return PD_ENOMEM;
	for (size_t i = 0; i < run->n; i++)
		if (succeeded(&run->req[i]))
			bucket_request(bucket, n, first, &run->req[i]);
	for (size_t i = 0; i < n; i++)
		most = bucket[i] > most ? bucket[i] : most;
	free(bucket);
	*out = (double)most;
	return PD_OK;
}

/* Sweep over starts and ends; at equal times the end comes first. Nanoseconds of a run are exact in
 * a double: 2^53 are 104 days. */
static int peak_concurrency(const struct result_run *run, size_t *out)
{
	double *start = calloc(2 * run->n + 1, sizeof(*start)), *end;
	size_t n = 0, now = 0, j = 0;

	*out = 0;
	if (!start)
		return PD_ENOMEM;
	end = start + run->n;
	for (size_t i = 0; i < run->n; i++)
		if (run->req[i].sent_ns >= 0) {
			int64_t over = end_of(&run->req[i]);

			start[n] = (double)run->req[i].sent_ns;
			end[n++] = over < 0 ? INFINITY : (double)over;
		}
	summary_sort(start, n);
	summary_sort(end, n);
	for (size_t i = 0; i < n; i++) {
		for (now++; j < n && end[j] <= start[i]; j++)
			now--;
		*out = now > *out ? now : *out;
	}
	free(start);
	return PD_OK;
}

/* A request of one token meets any TPOT goal, as vllm bench's zero does. What has no other figure,
 * such as the TTFT of an answer that was not streamed, does not meet its goal. */
static bool meets_goals(const struct result_run *run, const struct result_request *r)
{
	for (size_t g = 0; g < run->ngoals; g++) {
		const struct result_goal *goal = &run->goal[g];
		bool short_answer = goal->metric == RESULT_TPOT && r->output_tokens <= 1 &&
				    r->first_token_ns >= 0;

		if (!short_answer && !(sample(r, goal->metric) <= goal->limit_ms))
			return false;
	}
	return true;
}

int result_totals(const struct result_run *run, struct result_totals *out)
{
	int64_t first, last;
	size_t good = 0;
	int err;

	*out = (struct result_totals){0};
	span_of_run(run, &first, &last);
	out->duration = (double)(last - first) / 1e9;
	for (size_t i = 0; i < run->n; i++) {
		const struct result_request *r = &run->req[i];

		if (!succeeded(r)) {
			out->failed++;
			continue;
		}
		out->completed++;
		out->input_tokens += r->input_tokens;
		out->output_tokens += r->output_tokens;
		good += meets_goals(run, r);
	}
	out->request_throughput = out->output_throughput = out->total_token_throughput = NAN;
	if (out->duration > 0) {
		out->request_throughput = (double)out->completed / out->duration;
		out->output_throughput = (double)out->output_tokens / out->duration;
		out->total_token_throughput =
			(double)(out->input_tokens + out->output_tokens) / out->duration;
	}
	out->goodput = run->ngoals > 0 && out->duration > 0 ? (double)good / out->duration : NAN;
	err = busiest_second(run, first, last, &out->max_output_tokens_per_s);
	return err ? err : peak_concurrency(run, &out->max_concurrent);
}
