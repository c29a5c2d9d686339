/* The document's text, member by member in vllm bench's order. Errors are kept in the writer and
 * looked at once, at the end. */
#include "lib/results/result.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/scan.h"
#include "lib/results/result_calc.h"
#include "lib/results/result_opts.h"
#include "lib/stats/summary.h"

#define RESULT_VERSION 2

struct writer {
	struct buf *out;
	int err;
	bool first; /* no comma before the next member */
};

static void put(struct writer *w, const char *text)
{
	if (!w->err)
		w->err = buf_puts(w->out, text);
}

static void put_quoted(struct writer *w, const char *text, size_t n)
{
	if (!w->err)
		w->err = json_quote(w->out, text, n);
}

static void name(struct writer *w, const char *key, size_t n)
{
	if (!w->first)
		put(w, ", ");
	w->first = false;
	put_quoted(w, key, n);
	put(w, ": ");
}

static void put_text(struct writer *w, const char *key, const char *value)
{
	name(w, key, strlen(key));
	if (value)
		put_quoted(w, value, strlen(value));
	else
		put(w, "null");
}

static void put_int(struct writer *w, const char *key, int64_t v)
{
	name(w, key, strlen(key));
	if (!w->err)
		w->err = result_put_int(w->out, v);
}

static void put_real(struct writer *w, const char *key, double v)
{
	name(w, key, strlen(key));
	if (!w->err)
		w->err = result_put_number(w->out, v);
}

static void put_bool(struct writer *w, const char *key, bool v)
{
	name(w, key, strlen(key));
	put(w, v ? "true" : "false");
}

static void open_object(struct writer *w, const char *key)
{
	name(w, key, strlen(key));
	put(w, "{");
	w->first = true;
}

static void close_object(struct writer *w)
{
	put(w, "}");
	w->first = false;
}

static void header(struct writer *w, const struct result_run *run)
{
	put_text(w, "date", run->date);
	put_text(w, "endpoint_type", run->backend);
	put_text(w, "backend", run->backend);
	put_text(w, "label", run->label);
	put_text(w, "model_id", run->model);
	put_text(w, "tokenizer_id", run->model);
	put_int(w, "num_prompts", (int64_t)run->n);
	for (size_t i = 0; i < run->nmetadata; i++) {
		const char *eq = strchr(run->metadata[i], '=');

		if (!eq)
			continue;
		name(w, run->metadata[i], (size_t)(eq - run->metadata[i]));
		put_quoted(w, eq + 1, strlen(eq + 1));
	}
	if (isinf(run->request_rate))
		put_text(w, "request_rate", "inf");
	else
		put_real(w, "request_rate", run->request_rate);
	/* Python's JSON spells it Infinity, which is not JSON */
	if (isinf(run->burstiness))
		put_text(w, "burstiness", "inf");
	else
		put_real(w, "burstiness", run->burstiness);
	if (run->max_concurrency > 0)
		put_int(w, "max_concurrency", run->max_concurrency);
	else
		put_text(w, "max_concurrency", NULL);
}

static void put_totals(struct writer *w, const struct result_run *run,
		       const struct result_totals *t)
{
	put_real(w, "duration", t->duration);
	put_int(w, "completed", (int64_t)t->completed);
	put_int(w, "failed", (int64_t)t->failed);
	put_int(w, "total_input_tokens", t->input_tokens);
	if (run->pooling)
		put_int(w, "total_input_sequences", (int64_t)t->completed);
	else
		put_int(w, "total_output_tokens", t->output_tokens);
	put_real(w, "request_throughput", t->request_throughput);
	if (run->pooling) {
		put_real(w, "input_sequence_throughput", t->request_throughput);
	} else {
		put_real(w, "request_goodput", t->goodput);
		put_real(w, "output_throughput", t->output_throughput);
	}
	put_real(w, "total_token_throughput", t->total_token_throughput);
}

/* Lists: one slot per request, in order, also for failed ones. */
static void list_ints(struct writer *w, const char *key, const struct result_run *run,
		      size_t offset)
{
	name(w, key, strlen(key));
	put(w, "[");
	for (size_t i = 0; !w->err && i < run->n; i++) {
		int64_t v;

		memcpy(&v, (const char *)&run->req[i] + offset, sizeof(v));
		put(w, i ? ", " : "");
		if (!w->err)
			w->err = result_put_int(w->out, v);
	}
	put(w, "]");
}

/* NaN, in the document null: a request that has no such time, as a failed one. */
enum seconds { TTFT_S, LATENCY_S, START_S, QUEUE_S };

static double seconds_of(const struct result_run *run, const struct result_request *r,
			 enum seconds what)
{
	bool good = r->failure == NULL && r->last_token_ns >= 0;

	switch (what) {
	case TTFT_S:
		return good && r->first_token_ns >= 0
			       ? (double)(r->first_token_ns - r->sent_ns) / 1e9
			       : NAN;
	case LATENCY_S:
		return good ? (double)(r->last_token_ns - r->sent_ns) / 1e9 : NAN;
	case START_S:
		return r->sent_ns < 0 ? NAN : (double)(run->clock_origin_ns + r->sent_ns) / 1e9;
	default:
		return r->sent_ns < 0 ? NAN : (double)(r->sent_ns - r->intended_ns) / 1e9;
	}
}

static void list_seconds(struct writer *w, const char *key, const struct result_run *run,
			 enum seconds what)
{
	name(w, key, strlen(key));
	put(w, "[");
	for (size_t i = 0; !w->err && i < run->n; i++) {
		put(w, i ? ", " : "");
		if (!w->err)
			w->err = result_put_number(w->out, seconds_of(run, &run->req[i], what));
	}
	put(w, "]");
}

/* One value per token, as in the pooled ITL: a piece of k tokens after a gap of g counts k times
 * g/k. */
static void put_itls(struct writer *w, const struct result_request *r)
{
	int64_t carried = 0;
	bool any = false;

	for (size_t i = 0; !w->err && i < r->ngaps; i++) {
		int64_t tokens = r->gap[i].tokens < 0 ? 1 : r->gap[i].tokens;
		int64_t ns = r->gap[i].ns + carried;

		carried = tokens == 0 ? ns : 0;
		for (int64_t k = 0; !w->err && k < tokens; k++) {
			put(w, any ? ", " : "");
			any = true;
			if (!w->err)
				w->err = result_put_number(w->out,
							   (double)ns / (double)tokens / 1e9);
		}
	}
}

static void list_itls(struct writer *w, const struct result_run *run)
{
	name(w, "itls", strlen("itls"));
	put(w, "[");
	for (size_t i = 0; !w->err && i < run->n; i++) {
		put(w, i ? ", [" : "[");
		if (!run->req[i].failure)
			put_itls(w, &run->req[i]);
		put(w, "]");
	}
	put(w, "]");
}

static void list_texts(struct writer *w, const char *key, const struct result_run *run,
		       size_t offset, bool null_when_absent)
{
	name(w, key, strlen(key));
	put(w, "[");
	for (size_t i = 0; !w->err && i < run->n; i++) {
		const char *text;

		memcpy(&text, (const char *)&run->req[i] + offset, sizeof(text));
		put(w, i ? ", " : "");
		if (!text && null_when_absent)
			put(w, "null");
		else
			put_quoted(w, text ? text : "", text ? strlen(text) : 0);
	}
	put(w, "]");
}

/* They are the inside of JSON strings already: NUL and surrogate pairs survive. */
static void list_generated(struct writer *w, const struct result_run *run)
{
	name(w, "generated_texts", strlen("generated_texts"));
	put(w, "[");
	for (size_t i = 0; !w->err && i < run->n; i++) {
		put(w, i ? ", \"" : "\"");
		put(w, run->req[i].text ? run->req[i].text : "");
		put(w, "\"");
	}
	put(w, "]");
}

static void details(struct writer *w, const struct result_run *run)
{
	if (run->detailed) {
		list_ints(w, "input_lens", run, offsetof(struct result_request, input_tokens));
		if (!run->pooling) {
			list_ints(w, "output_lens", run,
				  offsetof(struct result_request, output_tokens));
			list_seconds(w, "ttfts", run, TTFT_S);
			list_itls(w, run);
		}
	}
	list_seconds(w, "latencies", run, LATENCY_S);
	if (run->detailed)
		list_seconds(w, "start_times", run, START_S);
	list_seconds(w, "queue_times", run, QUEUE_S);
	if (run->detailed) {
		if (!run->pooling)
			list_generated(w, run);
		list_texts(w, "errors", run, offsetof(struct result_request, error), false);
	}
}

static void put_metric_value(struct writer *w, const char *stat, const char *metric, double v)
{
	char key[96];

	(void)snprintf(key, sizeof(key), "%s_%s_ms", stat, metric);
	put_real(w, key, v);
}

static void put_metric(struct writer *w, const struct result_run *run, enum result_metric m)
{
	const char *metric = result_metric_name(m);
	struct summary s;
	double *v = NULL;
	size_t n = 0;

	if (!w->err)
		w->err = result_samples(run, m, &v, &n);
	if (w->err)
		return;
	s = summary_of(v, n);
	put_metric_value(w, "mean", metric, s.mean);
	put_metric_value(w, "median", metric, s.median);
	put_metric_value(w, "std", metric, s.std);
	for (size_t i = 0; i < run->npercentiles; i++) {
		char stat[40];

		(void)snprintf(stat, sizeof(stat), "p%.15g", run->percentile[i]);
		put_metric_value(w, stat, metric, summary_percentile(v, n, run->percentile[i]));
	}
	free(v);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* {"text": count, ...} of one text member over all requests, sorted by text. */
static void histogram(struct writer *w, const char *key, const struct result_run *run,
		      size_t offset)
{
	const char **text = calloc(run->n ? run->n : 1, sizeof(*text));
	size_t n = 0;

	if (!text) {
		w->err = w->err ? w->err : PD_ENOMEM;
		return;
	}
	for (size_t i = 0; i < run->n; i++) {
		memcpy(&text[n], (const char *)&run->req[i] + offset, sizeof(*text));
		n += text[n] != NULL;
	}
	if (n > 1)
		qsort(text, n, sizeof(*text), by_text);
	open_object(w, key);
	for (size_t i = 0, j = 0; i < n; i = j) {
		while (j < n && strcmp(text[i], text[j]) == 0)
			j++;
		put_int(w, text[i], (int64_t)(j - i));
	}
	close_object(w);
	free(text);
}

static void codes(struct writer *w, const struct result_run *run)
{
	size_t count[600] = {0};

	for (size_t i = 0; i < run->n; i++)
		count[run->req[i].status >= 0 && run->req[i].status < 600 ? run->req[i].status
									  : 0]++;
	open_object(w, "codes");
	for (int c = 1; c < 600; c++) {
		char key[16];

		(void)snprintf(key, sizeof(key), "%d", c);
		if (count[c])
			put_int(w, key, (int64_t)count[c]);
	}
	if (count[0])
		put_int(w, "none", (int64_t)count[0]);
	close_object(w);
}

static void put_distribution(struct writer *w, const char *key, double *v, size_t n)
{
	struct summary s = summary_of(v, n);

	open_object(w, key);
	put_int(w, "count", (int64_t)n);
	put_real(w, "mean_ms", s.mean);
	put_real(w, "median_ms", s.median);
	put_real(w, "p90_ms", summary_percentile(v, n, 90));
	put_real(w, "p99_ms", summary_percentile(v, n, 99));
	put_real(w, "max_ms", s.max);
	close_object(w);
}

static void distributions(struct writer *w, const struct result_run *run)
{
	double *v = NULL;
	size_t n = 0;

	if (!w->err)
		w->err = result_lags(run, &v, &n);
	if (!w->err)
		put_distribution(w, "schedule_lag", v, n);
	free(v);
	v = NULL;
	if (!w->err)
		w->err = result_chunk_gaps(run, &v, &n);
	if (!w->err)
		put_distribution(w, "chunk_gap", v, n);
	free(v);
}

static const char *itl_basis(const struct result_run *run)
{
	bool known = false, guessed = false;

	for (size_t i = 0; i < run->n; i++)
		for (size_t k = 0; k < run->req[i].ngaps; k++)
			*(run->req[i].gap[k].tokens < 0 ? &guessed : &known) = true;
	return known && guessed ? "mixed" : known ? "usage" : guessed ? "chunks" : "none";
}

const char *result_token_basis(const struct result_run *run)
{
	static const char *const names[] = {"none", "usage", "usage_last", "chunks"};
	enum result_basis basis = RESULT_BASIS_NONE;

	for (size_t i = 0; i < run->n; i++) {
		enum result_basis b = run->req[i].failure ? RESULT_BASIS_NONE : run->req[i].basis;

		if (b != RESULT_BASIS_NONE && basis != RESULT_BASIS_NONE && b != basis)
			return "mixed";
		basis = b != RESULT_BASIS_NONE ? b : basis;
	}
	return names[basis];
}

static void cached(struct writer *w, const struct result_run *run)
{
	int64_t total = 0, input = 0, requests = 0;

	for (size_t i = 0; i < run->n; i++)
		if (!run->req[i].failure && run->req[i].cached_tokens >= 0) {
			requests++;
			total += run->req[i].cached_tokens;
			input += run->req[i].input_tokens;
		}
	open_object(w, "cached_tokens");
	put_int(w, "requests", requests);
	put_int(w, "total", total);
	put_real(w, "share", input > 0 ? (double)total / (double)input : NAN);
	close_object(w);
}

static void workers(struct writer *w, const struct result_run *run)
{
	open_object(w, "workers");
	histogram(w, "worker", run, offsetof(struct result_request, worker));
	histogram(w, "prefill", run, offsetof(struct result_request, prefill));
	histogram(w, "decode", run, offsetof(struct result_request, decode));
	close_object(w);
}

static void own_details(struct writer *w, const struct result_run *run)
{
	list_ints(w, "cached_lens", run, offsetof(struct result_request, cached_tokens));
	list_texts(w, "sessions", run, offsetof(struct result_request, session), true);
	list_texts(w, "failure_of", run, offsetof(struct result_request, failure), true);
	list_texts(w, "worker_of", run, offsetof(struct result_request, worker), true);
	list_texts(w, "prefill_of", run, offsetof(struct result_request, prefill), true);
	list_texts(w, "decode_of", run, offsetof(struct result_request, decode), true);
}

static void own_object(struct writer *w, const struct result_run *run)
{
	open_object(w, "pdctl");
	put_int(w, "version", RESULT_VERSION);
	put_text(w, "tool", run->tool);
	put_bool(w, "simulated", run->simulated);
	name(w, "seed", strlen("seed"));
	if (!w->err)
		w->err = buf_printf(w->out, "%" PRIu64, run->seed);
	if (run->dataset_hash)
		put_text(w, "dataset_hash", run->dataset_hash);
	put_bool(w, "client_ok", run->client_ok);
	put_bool(w, "scheduled", run->scheduled);
	distributions(w, run);
	if (!run->pooling)
		put_text(w, "itl_basis", itl_basis(run));
	if (!run->pooling && !run->simulated)
		put_text(w, "token_basis", result_token_basis(run));
	cached(w, run);
	histogram(w, "failures", run, offsetof(struct result_request, failure));
	codes(w, run);
	workers(w, run);
	if (run->detailed)
		own_details(w, run);
	if (run->members && run->members[0]) {
		put(w, ", ");
		put(w, run->members);
	}
	close_object(w);
}

void result_defaults(struct result_run *run)
{
	if (run->pooling) {
		run->metric[0] = RESULT_E2EL;
		run->nmetrics = 1;
	} else if (run->nmetrics == 0) {
		run->metric[0] = RESULT_TTFT;
		run->metric[1] = RESULT_TPOT;
		run->metric[2] = RESULT_ITL;
		run->nmetrics = 3;
	}
	if (run->npercentiles == 0) {
		run->percentile[0] = 99;
		run->npercentiles = 1;
	}
}

int result_write(const struct result_run *given, struct buf *out)
{
	struct writer w = {.out = out, .first = true};
	struct result_run run = *given;
	struct result_totals t;
	int err = result_totals(&run, &t);

	if (err)
		return err;
	result_defaults(&run);
	put(&w, "{");
	header(&w, &run);
	put_totals(&w, &run, &t);
	details(&w, &run);
	if (!run.pooling) {
		put_real(&w, "max_output_tokens_per_s", t.max_output_tokens_per_s);
		put_int(&w, "max_concurrent_requests", (int64_t)t.max_concurrent);
		put_real(&w, "rtfx", NAN); /* audio only */
	}
	for (size_t i = 0; i < run.nmetrics; i++)
		put_metric(&w, &run, run.metric[i]);
	own_object(&w, &run);
	put(&w, "}\n");
	return w.err;
}
