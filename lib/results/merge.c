/*
 * The first shard's members give the order; each gets its new value by the rule of its name. Lists
 * are copied as text, so nothing in them changes.
 */
#include "lib/results/merge.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/results/merge_values.h"
#include "lib/results/metric_name.h"
#include "lib/results/result_opts.h"

struct merge {
	const struct merge_input *in; /* borrowed */
	struct merge_shard *s;	      /* owned; n of them */
	size_t n;
	bool sharded; /* they are parts of one schedule */
	double duration;
	struct buf *out;
	bool first; /* no comma before the next member */
	struct pd_msg *msg;
};

/* What must be the same in all. */
static const char *const same[] = {"model_id",
				   "backend",
				   "burstiness",
				   "pdctl.version",
				   "pdctl.tool",
				   "pdctl.dataset_hash",
				   "pdctl.endpoint",
				   "pdctl.stream",
				   "pdctl.affinity",
				   "pdctl.session_field",
				   "pdctl.session_pattern",
				   "pdctl.speedup",
				   "pdctl.carry_answers",
				   NULL};
static const char *const sums[] = {"num_prompts",
				   "completed",
				   "failed",
				   "total_input_tokens",
				   "total_output_tokens",
				   "cache_hits",
				   "cache_misses",
				   "outside",
				   "repeated",
				   "max_concurrency",
				   "total_input_sequences",
				   NULL};
/* True when it is true anywhere. */
static const char *const ors[] = {"interrupted", "late", NULL};
static const char *const counts[] = {"failures", "codes", "workers", NULL};
static const char *const distributions[] = {"schedule_lag", "chunk_gap", NULL};
/* Of one client, or of the moment. */
static const char *const unknown[] = {"max_output_tokens_per_s", "max_concurrent_requests", "rtfx",
				      NULL};
static const char *const left_out[] = {"shard",	 "client", "client_cpu_share",
				       "verify", "merged", NULL};

static bool in_list(const char *const *list, const char *key)
{
	for (; *list; list++)
		if (strcmp(*list, key) == 0)
			return true;
	return false;
}

/* -- do they belong together? -- */

static const char *shown(const struct merge_shard *s, const char *key)
{
	const struct result_field *f = result_get(&s->set.doc[0], key);

	return f ? f->text : "absent";
}

static int differs(const struct merge *m, size_t k, const char *key)
{
	return pd_fail(m->msg, PD_ENOENT, "%s differs: %.100s in '%.100s', %.100s in '%.100s'", key,
		       shown(&m->s[0], key), m->s[0].name, shown(&m->s[k], key), m->s[k].name);
}

static int check_same(const struct merge *m)
{
	for (size_t k = 1; k < m->n; k++) {
		for (const char *const *key = same; *key; key++)
			if (strcmp(shown(&m->s[0], *key), shown(&m->s[k], *key)) != 0)
				return differs(m, k, *key);
		/* one schedule: its rate; else rates add up */
		if (m->sharded &&
		    strcmp(shown(&m->s[0], "request_rate"), shown(&m->s[k], "request_rate")) != 0)
			return differs(m, k, "request_rate");
	}
	return PD_OK;
}

static bool shard_of(const struct merge_shard *s, long *i, long *n)
{
	const char *text = result_text(&s->set.doc[0], "pdctl.shard");
	char *slash, *end;

	if (!text)
		return false;
	*i = strtol(text, &slash, 10);
	if (*slash != '/')
		return false;
	*n = strtol(slash + 1, &end, 10);
	return *end == '\0' && *i >= 1 && *i <= *n && *n <= MERGE_MAX;
}

static int check_shards(struct merge *m, bool partial)
{
	bool seen[MERGE_MAX + 1] = {false};
	long i = 0, n = 0, all = 0;

	for (size_t k = 0; k < m->n; k++) {
		bool given = shard_of(&m->s[k], &i, &n);

		if (k == 0)
			m->sharded = given;
		if (given != m->sharded || (given && k > 0 && n != all))
			return differs(m, k, "pdctl.shard");
		all = n;
		if (given && seen[i])
			return pd_fail(m->msg, PD_ENOENT,
				       "shard %ld/%ld is there twice, also in '%s'", i, all,
				       m->s[k].name);
		if (given)
			seen[i] = true;
	}
	for (i = 1; m->sharded && !partial && i <= all; i++)
		if (!seen[i])
			return pd_fail(m->msg, PD_ENOENT,
				       "shard %ld/%ld is missing (--partial merges what is there)",
				       i, all);
	return PD_OK;
}

/* -- writing -- */

static int name(struct merge *m, struct span key)
{
	int err = m->first ? PD_OK : buf_puts(m->out, ", ");

	m->first = false;
	if (!err)
		err = buf_putc(m->out, '"');
	if (!err)
		err = buf_append(m->out, key.p, key.n);
	return err ? err : buf_puts(m->out, "\": ");
}

/* A whole number; null when a shard does not state it. */
static int whole_number(struct merge *m, double v)
{
	return isfinite(v) ? buf_printf(m->out, "%.0f", v) : buf_puts(m->out, "null");
}

static int put_count(struct merge *m, const char *key, double v)
{
	int err = name(m, span_of(key));

	return err ? err : whole_number(m, v);
}

static int put_real(struct merge *m, const char *key, double v)
{
	int err = name(m, span_of(key));

	return err ? err : result_put_number(m->out, v);
}

static int put_text(struct merge *m, const char *key, struct span text)
{
	int err = name(m, span_of(key));

	return err ? err : buf_append(m->out, text.p, text.n);
}

static double sum_of(const struct merge *m, const char *key)
{
	double sum = 0;

	for (size_t k = 0; k < m->n; k++)
		sum += result_number(&m->s[k].set.doc[0], key);
	return sum;
}

static const struct json_member *member(const struct merge *m, size_t k, bool own, const char *key)
{
	return json_object_get(own ? &m->s[k].own : &m->s[k].doc, key);
}

/* [a, b] and [c] become [a, b, c]; a shard without the list makes it go. */
static int put_list(struct merge *m, const char *key, bool own)
{
	bool any = false;
	int err;

	for (size_t k = 0; k < m->n; k++) {
		const struct json_member *list = member(m, k, own, key);

		if (!list || list->type != JSON_ARRAY)
			return PD_OK;
	}
	err = name(m, span_of(key));
	if (!err)
		err = buf_putc(m->out, '[');
	for (size_t k = 0; !err && k < m->n; k++) {
		struct span v = member(m, k, own, key)->value;
		struct span inner = {v.p + 1, v.n - 2};

		while (inner.n > 0 && strchr(" \n\r\t", inner.p[0]))
			inner.p++, inner.n--;
		if (inner.n == 0)
			continue;
		err = any ? buf_puts(m->out, ", ") : PD_OK;
		any = true;
		if (!err)
			err = buf_append(m->out, inner.p, inner.n);
	}
	return err ? err : buf_putc(m->out, ']');
}

/* {"200": 3} and {"200": 1, "500": 2}: sums by name, in order of first appearance; objects inside
 * likewise. */
static int put_counts(struct merge *m, const char *path, struct span key)
{
	char inner[256];
	int err = name(m, key);

	if (!err)
		err = buf_putc(m->out, '{');
	m->first = true;
	for (size_t k = 0; !err && k < m->n; k++) {
		const struct result_doc *d = &m->s[k].set.doc[0];

		for (size_t i = 0; !err && i < d->n; i++) {
			const char *field = d->field[i].name;
			size_t n = strlen(path);
			bool before = false;

			if (strncmp(field, path, n) != 0 || field[n] != '.' ||
			    d->field[i].type != RESULT_NUMBER)
				continue;
			for (size_t b = 0; b < k; b++)
				before = before || result_get(&m->s[b].set.doc[0], field);
			if (before)
				continue;
			double sum = 0;

			for (size_t b = 0; b < m->n; b++) {
				double v = result_number(&m->s[b].set.doc[0], field);

				sum += isnan(v) ? 0 : v;
			}
			(void)snprintf(inner, sizeof(inner), "%s", field + n + 1);
			err = m->first ? PD_OK : buf_puts(m->out, ", ");
			m->first = false;
			if (!err)
				err = json_quote(m->out, inner, strlen(inner));
			if (!err)
				err = buf_puts(m->out, ": ");
			if (!err)
				err = whole_number(m, sum);
		}
	}
	m->first = false;
	return err ? err : buf_putc(m->out, '}');
}

/* "workers" holds one object of counts per role. */
static int put_workers(struct merge *m)
{
	static const char *const roles[] = {"worker", "prefill", "decode"};
	char path[64];
	int err = name(m, SPAN("workers"));

	if (!err)
		err = buf_putc(m->out, '{');
	m->first = true;
	for (size_t i = 0; !err && i < sizeof(roles) / sizeof(roles[0]); i++) {
		(void)snprintf(path, sizeof(path), "pdctl.workers.%s", roles[i]);
		m->first = i == 0;
		err = put_counts(m, path, span_of(roles[i]));
	}
	m->first = false;
	return err ? err : buf_putc(m->out, '}');
}

static int put_distribution(struct merge *m, const char *key)
{
	struct merge_values v;
	char path[160];
	double count, mean = 0;
	int err = merge_values_of(m->s, m->n, key, &v);

	(void)snprintf(path, sizeof(path), "pdctl.%s.count", key);
	count = sum_of(m, path);
	for (size_t k = 0; k < m->n; k++) {
		double n = result_number(&m->s[k].set.doc[0], path), of;

		(void)snprintf(path, sizeof(path), "pdctl.%s.mean_ms", key);
		of = result_number(&m->s[k].set.doc[0], path);
		mean += n > 0 ? n * of / count : 0;
		(void)snprintf(path, sizeof(path), "pdctl.%s.count", key);
	}
	err = err ? err : name(m, span_of(key));
	if (!err)
		err = buf_putc(m->out, '{');
	m->first = true;
	err = err ? err : put_count(m, "count", count);
	err = err ? err : put_real(m, "mean_ms", count > 0 ? mean : (double)NAN);
	err = err ? err : put_real(m, "median_ms", merge_percentile(&v, 50));
	err = err ? err : put_real(m, "p90_ms", merge_percentile(&v, 90));
	err = err ? err : put_real(m, "p99_ms", merge_percentile(&v, 99));
	err = err ? err : put_real(m, "max_ms", merge_max(&v));
	merge_values_release(&v);
	m->first = false;
	return err ? err : buf_putc(m->out, '}');
}

/* So that what is merged can be merged again. */
static int put_histograms(struct merge *m)
{
	static const char *const names[] = {"ttft", "ttft_from_intended", "tpot",	 "itl",
					    "e2el", "e2el_from_intended", "schedule_lag"};
	struct hist *h = malloc(sizeof(*h));
	int err = h ? name(m, SPAN("histograms")) : PD_ENOMEM;

	if (!err)
		err = buf_printf(m->out, "{\"unit\": \"ns\", \"sub_bits\": %d", HIST_SUB_BITS);
	for (size_t i = 0; !err && i < sizeof(names) / sizeof(names[0]); i++) {
		bool whole = true;

		hist_init(h);
		for (size_t k = 0; k < m->n; k++)
			whole = whole && merge_hist_add(h, &m->s[k], names[i]);
		if (whole)
			err = hist_json(h, names[i], m->out);
	}
	free(h);
	return err ? err : buf_putc(m->out, '}');
}

static int put_cached(struct merge *m)
{
	double requests = sum_of(m, "pdctl.cached_tokens.requests");
	double total = sum_of(m, "pdctl.cached_tokens.total"), input = 0;
	int err = name(m, SPAN("cached_tokens"));

	for (size_t k = 0; k < m->n; k++) {
		const struct result_doc *d = &m->s[k].set.doc[0];
		double share = result_number(d, "pdctl.cached_tokens.share");
		double own = result_number(d, "pdctl.cached_tokens.total");

		/* the input tokens of the requests that state a share */
		input += share > 0	? own / share
			 : isnan(share) ? 0
					: result_number(d, "total_input_tokens");
	}
	if (!err)
		err = buf_putc(m->out, '{');
	m->first = true;
	err = err ? err : put_count(m, "requests", requests);
	err = err ? err : put_count(m, "total", total);
	err = err ? err : put_real(m, "share", input > 0 ? total / input : (double)NAN);
	m->first = false;
	return err ? err : buf_putc(m->out, '}');
}

/* -- metrics -- */

/* "p99_ttft_ms" is of "ttft"; false for other keys. A quantile below 0 is the mean. */
static bool split(const char *key, char *metric, size_t cap, double *q, bool *deviation)
{
	const char *stem = key + 4;
	size_t len = strlen(key);
	unsigned n;

	*deviation = strncmp(key, "std_", 4) == 0 && len > 7 && strcmp(key + len - 3, "_ms") == 0;
	if (*deviation)
		n = (unsigned)(len - 7);
	else if (!metric_split(key, &stem, &n, q))
		return false;
	if (n >= cap)
		return false;
	memcpy(metric, stem, n);
	metric[n] = '\0';
	return true;
}

/* The values of the metric that was asked for last; keys of one metric stand together. */
struct held {
	char metric[64];
	struct merge_values v;
};

/* Makes a statistic anew; false for other keys. What no shard has a figure for stays null. */
static bool put_metric(struct merge *m, const char *key, bool own, struct held *h, int *err)
{
	char metric[64], path[160];
	bool deviation, any = false;
	double q = 0, value;

	if (!split(key, metric, sizeof(metric), &q, &deviation))
		return false;
	(void)snprintf(path, sizeof(path), "%s%s", own ? "pdctl." : "", key);
	for (size_t k = 0; k < m->n; k++)
		any = any || !isnan(result_number(&m->s[k].set.doc[0], path));
	if (!any) {
		*err = put_text(m, key, SPAN("null"));
		return true;
	}
	if (strcmp(h->metric, metric) != 0) {
		merge_values_release(&h->v);
		*err = merge_values_of(m->s, m->n, metric, &h->v);
		memcpy(h->metric, metric, sizeof(metric));
	}
	value = deviation ? merge_std(&h->v)
		: q < 0	  ? merge_mean(&h->v)
			  : merge_percentile(&h->v, q * 100);
	if (!*err)
		*err = put_real(m, key, value);
	return true;
}

static double goodput(const struct merge *m)
{
	double good = 0;

	for (size_t k = 0; k < m->n; k++)
		good += result_number(&m->s[k].set.doc[0], "request_goodput") *
			result_number(&m->s[k].set.doc[0], "duration");
	return good / m->duration;
}

/* Throughputs; NaN for another key. */
static bool throughput(const struct merge *m, const char *key, double *out)
{
	double in = sum_of(m, "total_input_tokens"), made = sum_of(m, "total_output_tokens");

	if (strcmp(key, "request_throughput") == 0 || strcmp(key, "input_sequence_throughput") == 0)
		*out = sum_of(m, "completed") / m->duration;
	else if (strcmp(key, "output_throughput") == 0)
		*out = made / m->duration;
	else if (strcmp(key, "total_token_throughput") == 0)
		*out = (in + (isnan(made) ? 0 : made)) / m->duration;
	else if (strcmp(key, "request_goodput") == 0)
		*out = goodput(m);
	else
		return false;
	return true;
}

/* -- members -- */

static bool equal_everywhere(const struct merge *m, bool own, const char *key)
{
	const struct json_member *first = member(m, 0, own, key);

	if (!first) /* a name with escapes, or a very long one */
		return false;
	for (size_t k = 1; k < m->n; k++) {
		const struct json_member *other = member(m, k, own, key);

		if (!other || !span_eq(first->value, other->value))
			return false;
	}
	return true;
}

/* The rules that the document and its object "pdctl" share. */
static int put_common(struct merge *m, const struct json_member *one, const char *key, bool own)
{
	char path[160];

	(void)snprintf(path, sizeof(path), "%s%s", own ? "pdctl." : "", key);
	if (in_list(sums, key)) {
		double sum = sum_of(m, path);

		return isnan(sum) ? put_text(m, key, SPAN("null")) : put_count(m, key, sum);
	}
	if (one->type == JSON_ARRAY)
		return put_list(m, key, own);
	if (in_list(unknown, key))
		return put_text(m, key, SPAN("null"));
	if (equal_everywhere(m, own, key))
		return put_text(m, key, one->value);
	return PD_OK; /* of one shard only */
}

static int put_own(struct merge *m)
{
	struct held held = {"", {NULL, 0, NULL}};
	char key[128];
	int err = name(m, SPAN("pdctl"));

	if (!err)
		err = buf_putc(m->out, '{');
	m->first = true;
	for (size_t i = 0; !err && i < m->s[0].own.n; i++) {
		const struct json_member *one = &m->s[0].own.member[i];
		char path[160];
		bool any = false, all = true;

		(void)snprintf(key, sizeof(key), "%.*s", (int)one->key.n, one->key.p);
		(void)snprintf(path, sizeof(path), "pdctl.%s", key);
		for (size_t k = 0; k < m->n; k++) {
			const struct result_field *f = result_get(&m->s[k].set.doc[0], path);

			any = any || (f && f->number > 0);
			all = all && f && f->number > 0;
		}
		if (in_list(left_out, key))
			continue;
		if (strcmp(key, "client_ok") == 0)
			err = put_text(m, key, all ? SPAN("true") : SPAN("false"));
		else if (in_list(ors, key))
			err = put_text(m, key, any ? SPAN("true") : SPAN("false"));
		else if (strcmp(key, "workers") == 0)
			err = put_workers(m);
		else if (in_list(counts, key))
			err = put_counts(m, path, one->key);
		else if (in_list(distributions, key))
			err = put_distribution(m, key);
		else if (strcmp(key, "histograms") == 0)
			err = put_histograms(m);
		else if (strcmp(key, "cached_tokens") == 0)
			err = put_cached(m);
		else if (strcmp(key, "token_basis") == 0 && !equal_everywhere(m, true, key))
			err = put_text(m, key, SPAN("\"mixed\""));
		else if (!put_metric(m, key, true, &held, &err))
			err = put_common(m, one, key, true);
	}
	merge_values_release(&held.v);
	return err;
}

/* Where it came from. */
static int put_shards(struct merge *m)
{
	int err = name(m, SPAN("merged"));

	for (size_t k = 0; !err && k < m->n; k++) {
		const struct result_doc *d = &m->s[k].set.doc[0];
		const char *shard = result_text(d, "pdctl.shard");

		err = buf_puts(m->out, k ? ", {" : "[{");
		m->first = true;
		if (!err)
			err = name(m, SPAN("source"));
		if (!err)
			err = json_quote(m->out, m->s[k].name, strlen(m->s[k].name));
		if (!err && shard) {
			err = name(m, SPAN("shard"));
			if (!err)
				err = json_quote(m->out, shard, strlen(shard));
		}
		err = err ? err : put_real(m, "completed", result_number(d, "completed"));
		err = err ? err : put_real(m, "duration", result_number(d, "duration"));
		if (!err)
			err = buf_putc(m->out, '}');
	}
	m->first = false;
	return err ? err : buf_puts(m->out, "]}");
}

static int put_top(struct merge *m)
{
	struct held held = {"", {NULL, 0, NULL}};
	char key[128];
	double value;
	int err = buf_putc(m->out, '{');

	m->first = true;
	for (size_t i = 0; !err && i < m->s[0].doc.n; i++) {
		const struct json_member *one = &m->s[0].doc.member[i];

		(void)snprintf(key, sizeof(key), "%.*s", (int)one->key.n, one->key.p);
		if (strcmp(key, "pdctl") == 0) {
			err = put_own(m);
			err = err ? err : put_shards(m);
		} else if (strcmp(key, "date") == 0) {
			err = put_text(m, key, one->value);
		} else if (strcmp(key, "duration") == 0) {
			err = put_real(m, key, m->duration);
		} else if (strcmp(key, "request_rate") == 0 && !m->sharded &&
			   !isnan(sum_of(m, key)) && one->type == JSON_NUMBER) {
			err = put_real(m, key, sum_of(m, key));
		} else if (throughput(m, key, &value)) {
			err = put_real(m, key, value);
		} else if (!put_metric(m, key, false, &held, &err)) {
			err = put_common(m, one, key, false);
		}
	}
	merge_values_release(&held.v);
	return err ? err : buf_puts(m->out, "}\n");
}

/* -- the whole -- */

static int read_shard(struct merge *m, size_t k)
{
	const struct merge_input *in = &m->in[k];
	struct merge_shard *s = &m->s[k];
	const struct json_member *own;
	int err;

	s->name = in->name;
	err = json_object_scan(&s->doc, in->text.p, in->text.n, m->msg);
	if (err)
		return pd_fail(m->msg, err,
			       "'%s' is no document of pdctl bench: not one JSON object", in->name);
	own = json_object_get(&s->doc, "pdctl");
	if (!own || own->type != JSON_OBJECT)
		return pd_fail(m->msg, PD_EINVAL,
			       "'%s' is no document of pdctl bench: found no object \"pdctl\"",
			       in->name);
	err = json_object_scan(&s->own, own->value.p, own->value.n, m->msg);
	if (!err)
		err = result_parse(&s->set, in->name, in->text, m->msg);
	if (!err && (s->set.n != 1 || json_object_get(&s->doc, "benchmarks") ||
		     json_object_get(&s->own, "arms")))
		err = pd_fail(m->msg, PD_EINVAL, "'%s' holds a list of results, expected one",
			      in->name);
	return err ? err : merge_lists(s);
}

int result_merge(const struct merge_input *in, size_t n, bool partial, struct buf *out,
		 struct pd_msg *msg)
{
	struct merge m = {.in = in, .n = n, .out = out, .msg = msg};
	int err = PD_OK;

	if (n == 0 || n > MERGE_MAX)
		return pd_fail(msg, PD_EINVAL, "found %zu results, expected 1 to %d", n, MERGE_MAX);
	m.s = calloc(n, sizeof(*m.s));
	if (!m.s)
		return PD_ENOMEM;
	for (size_t k = 0; !err && k < n; k++)
		err = read_shard(&m, k);
	if (!err)
		err = check_shards(&m, partial);
	if (!err)
		err = check_same(&m);
	for (size_t k = 0; !err && k < n; k++)
		m.duration = fmax(m.duration, result_number(&m.s[k].set.doc[0], "duration"));
	if (!err)
		err = put_top(&m);
	for (size_t k = 0; k < n; k++) {
		json_object_release(&m.s[k].doc);
		json_object_release(&m.s[k].own);
		result_set_release(&m.s[k].set);
		merge_lists_release(&m.s[k]);
	}
	free(m.s);
	return err;
}
