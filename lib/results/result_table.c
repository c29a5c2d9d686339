/* The result for people: what was done, then one row per metric. */
#include "lib/results/result_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/table.h"
#include "lib/results/result_opts.h"
#include "lib/results/result_calc.h"
#include "lib/stats/summary.h"

static int counts(const struct result_run *run, const struct result_totals *t, struct buf *out)
{
	int err = buf_printf(out, "%zu/%zu requests completed in %.2f s: ", t->completed, run->n,
			     t->duration);

	if (!err && isnan(t->request_throughput))
		return buf_puts(out, "nothing was sent\n");
	if (!err)
		err = buf_printf(out, "%.2f requests/s", t->request_throughput);
	if (!err && !run->pooling)
		err = buf_printf(out, ", %.1f output tokens/s", t->output_throughput);
	if (!err)
		err = buf_printf(out, ", %.1f tokens/s in total, at most %zu in flight\n",
				 t->total_token_throughput, t->max_concurrent);
	if (!err)
		err = buf_printf(out, "tokens: %lld in, %lld out\n", (long long)t->input_tokens,
				 (long long)t->output_tokens);
	if (!err && !isnan(t->goodput))
		err = buf_printf(out, "goodput: %.2f requests/s within all goals\n", t->goodput);
	return err;
}

/* No sample is "-". */
static void cell(struct table *t, double v)
{
	if (isnan(v))
		table_cell(t, "-");
	else
		table_cell(t, "%.2f", v);
}

static void row(const struct result_run *run, struct table *t, const char *name, double *v,
		size_t n)
{
	struct summary s = summary_of(v, n);

	table_row(t);
	table_cell(t, "%s", name);
	table_cell(t, "%zu", n);
	cell(t, s.mean);
	cell(t, s.median);
	for (size_t i = 0; i < run->npercentiles; i++)
		cell(t, summary_percentile(v, n, run->percentile[i]));
	cell(t, s.max);
}

static int metrics(const struct result_run *run, struct table *t)
{
	double *v = NULL;
	size_t n = 0;
	int err = PD_OK;

	for (size_t i = 0; !err && i < run->nmetrics; i++) {
		err = result_samples(run, run->metric[i], &v, &n);
		if (!err)
			row(run, t, result_metric_name(run->metric[i]), v, n);
		free(v);
		v = NULL;
	}
	if (!err)
		err = result_chunk_gaps(run, &v, &n);
	if (!err && n > 0)
		row(run, t, "chunk gap", v, n);
	free(v);
	v = NULL;
	if (!err && run->scheduled)
		err = result_lags(run, &v, &n);
	if (!err && run->scheduled && n > 0)
		row(run, t, "schedule lag", v, n);
	free(v);
	return err;
}

#define LABELS_MAX 64

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

		err = buf_printf(out, "failed: %zu x %s%s%s\n", count[k], first[k]->failure,
				 why[0] ? ", first: " : "", why);
	}
	return err;
}

int result_table(const struct result_run *run, struct buf *out)
{
	struct result_totals totals;
	struct table t;
	int err = result_totals(run, &totals);

	if (err)
		return err;
	table_init(&t);
	table_column(&t, "in ms");
	table_column(&t, ">count");
	table_column(&t, ">mean");
	table_column(&t, ">median");
	for (size_t i = 0; i < run->npercentiles; i++) {
		char head[40];

		(void)snprintf(head, sizeof(head), ">p%.15g", run->percentile[i]);
		table_column(&t, head);
	}
	table_column(&t, ">max");
	err = counts(run, &totals, out);
	if (!err)
		err = failures(run, out);
	if (!err)
		err = metrics(run, &t);
	if (!err && t.nrows > 0)
		err = table_text(&t, out);
	table_release(&t);
	return err;
}
