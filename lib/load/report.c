/* Counts, failures by kind, one row per metric, and sentences only where something is not as it
 * should be. */
#include "lib/load/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/table.h"
#include "lib/results/result_calc.h"
#include "lib/stats/summary.h"

#define PERCENTILES_SHOWN 4 /* more do not fit; the document has all */
#define LABELS_MAX	  64
#define WHY_MAX		  60 /* bytes of a failure's sentence */

static int counts(const struct result_run *run, const struct figures *f,
		  const struct result_totals *t, struct buf *out)
{
	int err = buf_printf(out, "%zu/%zu requests completed in %.2f s", t->completed, run->n,
			     t->duration);

	if (!err && isnan(t->request_throughput))
		return buf_puts(out, ": nothing was sent\n");
	err = err ? err : buf_printf(out, ": %.2f requests/s", t->request_throughput);
	if (!err && !run->pooling)
		err = buf_printf(out, ", %.1f output tokens/s", t->output_throughput);
	err = err ? err : buf_printf(out, "\ntokens: %lld in", (long long)t->input_tokens);
	if (!err && !isnan(f->cached_share))
		err = buf_printf(out, " (%.1f %% cached)", 100 * f->cached_share);
	if (!err && !run->pooling)
		err = buf_printf(out, ", %lld out (counted by %s)", (long long)t->output_tokens,
				 result_token_basis(run));
	err = err ? err
		  : buf_printf(out, "; %.1f tokens/s in total; at most %zu in flight\n",
			       t->total_token_throughput, t->max_concurrent);
	if (!err && !isnan(t->goodput))
		err = buf_printf(out, "goodput: %.2f requests/s within all goals\n", t->goodput);
	return err;
}

/* One line per label, in order of appearance, with the sentence of its first request. */
static int failures(const struct result_run *run, struct buf *out)
{
	const struct result_request *first[LABELS_MAX];
	size_t count[LABELS_MAX] = {0}, n = 0, k;
	int err = PD_OK;

	for (size_t i = 0; i < run->n; i++) {
		const struct result_request *r = &run->req[i];

		if (!r->failure)
			continue;
		for (k = 0; k < n && strcmp(first[k]->failure, r->failure) != 0; k++)
			;
		if (k == LABELS_MAX)
			continue;
		if (k == n)
			first[n++] = r;
		count[k]++;
	}
	for (k = 0; !err && k < n; k++) {
		const char *why = first[k]->error ? first[k]->error : "";

		err = buf_printf(out, "failed: %zu x %s%s%.*s%s\n", count[k], first[k]->failure,
				 why[0] ? ", first: " : "", WHY_MAX, why,
				 strlen(why) > WHY_MAX ? "..." : "");
	}
	return err;
}

/* ---- rows ---- */

static void cell(struct table *t, double v)
{
	if (isnan(v))
		table_cell(t, "-");
	else
		table_cell(t, "%.2f", v);
}

static size_t shown(const struct result_run *run)
{
	return run->npercentiles < PERCENTILES_SHOWN ? run->npercentiles : PERCENTILES_SHOWN;
}

static void row(const struct result_run *run, struct table *t, const char *name, const double *v,
		size_t n)
{
	struct summary s = summary_of(v, n);

	table_row(t);
	table_cell(t, "%s", name);
	table_cell(t, "%zu", n);
	cell(t, s.mean);
	cell(t, s.median);
	for (size_t i = 0; i < shown(run); i++)
		cell(t, summary_percentile(v, n, run->percentile[i]));
	cell(t, s.max);
}

static int metric_row(const struct result_run *run, struct table *t, const char *name,
		      enum result_metric m)
{
	double *v = NULL;
	size_t n = 0;
	int err = result_samples(run, m, &v, &n);

	if (!err)
		row(run, t, name, v, n);
	free(v);
	return err;
}

/* Samples that only a subset of requests has, from another origin. */
static int own_row(const struct result_run *run, struct table *t, const char *name, int which)
{
	double *v = calloc(run->n + 1, sizeof(*v));
	size_t n = 0;

	if (!v)
		return PD_ENOMEM;
	for (size_t i = 0; i < run->n; i++) {
		const struct result_request *r = &run->req[i];
		bool hit = r->cached_tokens * 2 >= r->input_tokens;
		int64_t to = which == 1 ? r->last_token_ns : r->first_token_ns;

		if (r->failure || r->sent_ns < 0 || to < 0 ||
		    (which >= 2 &&
		     (r->cached_tokens < 0 || r->input_tokens <= 0 || hit != (which == 2))))
			continue;
		v[n++] = (double)(to - (which >= 2 ? r->sent_ns : r->intended_ns)) / 1e6;
	}
	summary_sort(v, n);
	row(run, t, name, v, n);
	free(v);
	return PD_OK;
}

static int gaps_and_lag(const struct result_run *run, struct table *t)
{
	double *v = NULL;
	size_t n = 0;
	int err = run->pooling ? PD_OK : result_chunk_gaps(run, &v, &n);

	if (!err && n > 0)
		row(run, t, "gap per chunk", v, n);
	free(v);
	v = NULL;
	if (!err && run->scheduled)
		err = result_lags(run, &v, &n);
	if (!err && run->scheduled)
		row(run, t, "schedule lag", v, n);
	free(v);
	return err;
}

static int rows(const struct result_run *run, const struct figures *f, struct table *t)
{
	bool queue = run->max_concurrency > 0 && !run->scheduled;
	int err = PD_OK;

	if (!run->pooling) {
		err = metric_row(run, t, "TTFT", RESULT_TTFT);
		if (!err && f->scheduled)
			err = own_row(run, t, "TTFT from intended", 0);
		if (!err && f->hits > 0 && f->misses > 0) {
			err = own_row(run, t, "TTFT of cache hits", 2);
			err = err ? err : own_row(run, t, "TTFT of misses", 3);
		}
		err = err ? err : metric_row(run, t, "TPOT", RESULT_TPOT);
		err = err ? err : metric_row(run, t, "ITL", RESULT_ITL);
	}
	err = err ? err : metric_row(run, t, "E2E", RESULT_E2EL);
	if (!err && f->scheduled)
		err = own_row(run, t, "E2E from intended", 1);
	if (!err && queue)
		err = metric_row(run, t, "client queue", RESULT_CLIENT_QUEUE_TIME);
	return err ? err : gaps_and_lag(run, t);
}

static int table(const struct result_run *run, const struct figures *f, struct buf *out)
{
	struct table t;
	char head[40];
	int err;

	table_init(&t);
	table_column(&t, "in ms");
	table_column(&t, ">count");
	table_column(&t, ">mean");
	table_column(&t, ">median");
	for (size_t i = 0; i < shown(run); i++) {
		(void)snprintf(head, sizeof(head), ">p%.15g", run->percentile[i]);
		table_column(&t, head);
	}
	table_column(&t, ">max");
	err = rows(run, f, &t);
	err = err ? err : table_text(&t, out);
	table_release(&t);
	return err;
}

/* ---- doubts ---- */

static int doubts(const struct result_run *run, const struct figures *f, const struct pulse *pulse,
		  const struct pulse_verdict *v, struct buf *out)
{
	const char *basis = result_token_basis(run);
	int err = PD_OK;

	if (!run->pooling && (strcmp(basis, "chunks") == 0 || strcmp(basis, "mixed") == 0))
		err = buf_printf(out,
				 "tokens: the server stated %s count, so %s chunks count as one "
				 "token each: TPOT and ITL\nare per chunk\n",
				 basis[0] == 'c' ? "no" : "not always a",
				 basis[0] == 'c' ? "all" : "some");
	if (!err && f->late)
		err = buf_printf(
			out,
			"late: requests were sent after their intended time; from it, p99 "
			"TTFT is %.2f ms (from the\nsend %.2f) and p99 E2E %.2f ms (%.2f)\n",
			f->ttft_intended.p99, f->ttft.p99, f->e2el_intended.p99, f->e2el.p99);
	if (err || v->ok)
		return err;
	err = buf_printf(out, "client_ok: no, the client was too slow in %zu of %zu s (second ",
			 v->bad, pulse->n);
	err = err ? err : pulse_bad_seconds(pulse, v, out);
	return err ? err
		   : buf_printf(out,
				"):\nits share of a latency must not exceed %.2f ms; worst means: "
				"waiting for a processor %.2f,\nhandling %.2f, lag %.2f ms\n",
				v->limit_ms, v->queue_known ? v->queue_ms : 0.0,
				isnan(v->handling_ms) ? 0.0 : v->handling_ms,
				isnan(v->lag_ms) ? 0.0 : v->lag_ms);
}

int report_text(const struct result_run *run, const struct figures *f, const struct pulse *pulse,
		const struct pulse_verdict *v, struct buf *out)
{
	struct result_totals totals;
	int err = result_totals(run, &totals);

	err = err ? err : counts(run, f, &totals, out);
	err = err ? err : failures(run, out);
	if (!err && totals.completed > 0)
		err = table(run, f, out);
	return err ? err : doubts(run, f, pulse, v, out);
}
