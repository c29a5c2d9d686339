/* Times are rounded to the nanosecond they were before they were written as seconds, so that a
 * merged figure is the very number that one run would have. */
#include "lib/results/merge_values.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/stats/summary.h"

#define LISTS 6

static const char *const list_names[LISTS] = {"ttfts",	     "latencies",  "queue_times",
					      "output_lens", "input_lens", "cached_lens"};

static double number_of(struct span value, enum json_type type)
{
	char text[64];

	if (type != JSON_NUMBER || value.n >= sizeof(text))
		return NAN;
	memcpy(text, value.p, value.n);
	text[value.n] = '\0';
	return strtod(text, NULL);
}

static double *read_list(struct span array, size_t *n)
{
	size_t at = 0, cap = 0;
	struct span value;
	enum json_type type;
	double *v = NULL;

	*n = 0;
	while (json_array_next(array, &at, &value, &type)) {
		if (*n == cap) {
			double *more = realloc(v, (cap ? cap * 2 : 256) * sizeof(*v));

			if (!more) {
				free(v);
				return NULL;
			}
			v = more;
			cap = cap ? cap * 2 : 256;
		}
		v[(*n)++] = number_of(value, type);
	}
	return v ? v : calloc(1, sizeof(*v));
}

int merge_lists(struct merge_shard *s)
{
	const struct json_member *errors = json_object_get(&s->doc, "errors");
	size_t n, at = 0, i = 0;
	struct span value;
	enum json_type type;

	for (int k = 0; k < LISTS; k++) {
		const struct json_member *m =
			json_object_get(k == MERGE_CACHED ? &s->own : &s->doc, list_names[k]);

		if (!m || m->type != JSON_ARRAY)
			continue;
		s->list[k] = read_list(m->value, &n);
		if (!s->list[k])
			return PD_ENOMEM;
		if (s->n == 0)
			s->n = n;
		if (n != s->n) { /* does not fit the others */
			free(s->list[k]);
			s->list[k] = NULL;
		}
	}
	while (errors && errors->type == JSON_ARRAY && s->list[MERGE_LATENCY] && i < s->n &&
	       json_array_next(errors->value, &at, &value, &type)) {
		if (value.n > 2)
			s->list[MERGE_LATENCY][i] = NAN;
		i++;
	}
	return PD_OK;
}

void merge_lists_release(struct merge_shard *s)
{
	for (int k = 0; k < LISTS; k++) {
		free(s->list[k]);
		s->list[k] = NULL;
	}
}

/* -- values -- */

static double ms(double seconds)
{
	return nearbyint(seconds * 1e9) / 1e6;
}

/* What a request has for a metric; NaN for none, also for a failed one. */
static double value_of(const struct merge_shard *s, size_t i, const char *metric)
{
	double e2el = ms(s->list[MERGE_LATENCY][i]);
	double ttft = s->list[MERGE_TTFT] ? ms(s->list[MERGE_TTFT][i]) : (double)NAN;
	double queue = s->list[MERGE_QUEUE] ? ms(s->list[MERGE_QUEUE][i]) : (double)NAN;
	double out = s->list[MERGE_OUTPUT] ? s->list[MERGE_OUTPUT][i] : (double)NAN;
	double in = s->list[MERGE_INPUT] ? s->list[MERGE_INPUT][i] : (double)NAN;
	double cached = s->list[MERGE_CACHED] ? s->list[MERGE_CACHED][i] : (double)NAN;

	if (isnan(e2el))
		return NAN;
	if (strcmp(metric, "ttft") == 0)
		return ttft;
	if (strcmp(metric, "e2el") == 0)
		return e2el;
	if (strcmp(metric, "tpot") == 0)
		return out > 1 ? (e2el - ttft) / (out - 1) : NAN;
	if (strcmp(metric, "client_queue_time") == 0)
		return queue;
	if (strcmp(metric, "e2el_including_client_queue") == 0 ||
	    strcmp(metric, "e2el_from_intended") == 0)
		return e2el + queue;
	if (strcmp(metric, "ttft_from_intended") == 0)
		return ttft + queue;
	if (strcmp(metric, "ttft_hit") == 0)
		return cached >= 0 && 2 * cached >= in ? ttft : NAN;
	if (strcmp(metric, "ttft_miss") == 0)
		return cached >= 0 && 2 * cached < in ? ttft : NAN;
	return NAN;
}

struct need {
	const char *metric;
	int lists[4];
};

static const struct need needs[] = {
	{"ttft", {MERGE_TTFT, MERGE_LATENCY, -1}},
	{"e2el", {MERGE_LATENCY, -1}},
	{"tpot", {MERGE_TTFT, MERGE_LATENCY, MERGE_OUTPUT, -1}},
	{"client_queue_time", {MERGE_LATENCY, MERGE_QUEUE, -1}},
	{"e2el_including_client_queue", {MERGE_LATENCY, MERGE_QUEUE, -1}},
	{"e2el_from_intended", {MERGE_LATENCY, MERGE_QUEUE, -1}},
	{"ttft_from_intended", {MERGE_TTFT, MERGE_QUEUE, MERGE_LATENCY, -1}},
	{"ttft_hit", {MERGE_TTFT, MERGE_CACHED, MERGE_INPUT, -1}},
	{"ttft_miss", {MERGE_TTFT, MERGE_CACHED, MERGE_INPUT, -1}},
};

static bool has_lists(const struct merge_shard *s, const char *metric)
{
	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		const int *list = needs[i].lists;

		if (strcmp(needs[i].metric, metric) != 0)
			continue;
		while (*list >= 0 && s->list[*list])
			list++;
		return *list < 0 && s->list[MERGE_LATENCY];
	}
	return false;
}

static int from_lists(const struct merge_shard *s, size_t n, const char *metric,
		      struct merge_values *out)
{
	size_t total = 1;

	for (size_t k = 0; k < n; k++)
		total += s[k].n;
	out->v = malloc(total * sizeof(*out->v));
	if (!out->v)
		return PD_ENOMEM;
	for (size_t k = 0; k < n; k++)
		for (size_t i = 0; i < s[k].n; i++) {
			double v = value_of(&s[k], i, metric);

			if (isfinite(v))
				out->v[out->n++] = v;
		}
	summary_sort(out->v, out->n);
	return PD_OK;
}

/* The gaps of all requests are a series of the document. */
static int from_gaps(const struct merge_shard *s, size_t n, struct merge_values *out)
{
	size_t total = 1;

	for (size_t k = 0; k < n; k++)
		total += s[k].set.doc[0].series[SERIES_ITL].n;
	out->v = malloc(total * sizeof(*out->v));
	if (!out->v)
		return PD_ENOMEM;
	for (size_t k = 0; k < n; k++) {
		const struct result_series *itl = &s[k].set.doc[0].series[SERIES_ITL];

		if (itl->n > 0)
			memcpy(out->v + out->n, itl->v, itl->n * sizeof(*itl->v));
		out->n += itl->n;
	}
	summary_sort(out->v, out->n);
	return PD_OK;
}

bool merge_hist_add(struct hist *h, const struct merge_shard *s, const char *name)
{
	const struct json_member *all = json_object_get(&s->own, "histograms");
	struct json_object hists, one;
	const struct json_member *m;
	size_t at = 0, inner;
	struct span pair, part[2];
	enum json_type type;
	bool ok = false;

	if (!all || json_object_scan(&hists, all->value.p, all->value.n, NULL) != PD_OK)
		return false;
	m = json_object_get(&hists, "sub_bits");
	if (m && number_of(m->value, m->type) != HIST_SUB_BITS)
		m = NULL;
	m = m ? json_object_get(&hists, name) : NULL;
	if (m && json_object_scan(&one, m->value.p, m->value.n, NULL) == PD_OK) {
		const struct json_member *b = json_object_get(&one, "buckets"),
					 *lo = json_object_get(&one, "min"),
					 *hi = json_object_get(&one, "max"),
					 *sum = json_object_get(&one, "sum");
		double least, most;

		ok = b && b->type == JSON_ARRAY && lo && hi && sum;
		while (ok && json_array_next(b->value, &at, &pair, &type)) {
			double bucket = -1, count = 0;

			inner = 0;
			if (json_array_next(pair, &inner, &part[0], &type) && type == JSON_NUMBER)
				bucket = number_of(part[0], type);
			if (json_array_next(pair, &inner, &part[1], &type) && type == JSON_NUMBER)
				count = number_of(part[1], type);
			ok = bucket >= 0 && bucket < HIST_BUCKETS && count >= 0 && count < 1e15;
			if (ok)
				hist_add_bucket(h, (unsigned)bucket, (uint64_t)count);
		}
		least = ok ? number_of(lo->value, lo->type) : (double)NAN;
		most = ok ? number_of(hi->value, hi->type) : (double)NAN;
		ok = ok && least >= 0 && most < 9e18 && most >= least &&
		     fabs(number_of(sum->value, sum->type)) < 1e300;
		if (ok) {
			uint64_t low = (uint64_t)least, high = (uint64_t)most;

			h->min = most > 0 && low < h->min ? low : h->min;
			h->max = high > h->max ? high : h->max;
			h->sum += number_of(sum->value, sum->type);
		}
		json_object_release(&one);
	}
	json_object_release(&hists);
	return ok;
}

int hist_json(const struct hist *h, const char *name, struct buf *out)
{
	bool first = true;
	int err = buf_printf(out,
			     ", \"%s\": {\"count\": %" PRIu64 ", \"min\": %" PRIu64
			     ", \"max\": %" PRIu64 ", \"sum\": %.1f, \"buckets\": [",
			     name, h->count, h->count ? h->min : 0, h->max, h->sum);

	for (unsigned b = 0; !err && b < HIST_BUCKETS; b++) {
		if (h->bucket[b] == 0)
			continue;
		err = buf_printf(out, "%s[%u, %" PRIu64 "]", first ? "" : ", ", b, h->bucket[b]);
		first = false;
	}
	return err ? err : buf_puts(out, "]}");
}

int merge_values_of(const struct merge_shard *s, size_t n, const char *metric,
		    struct merge_values *out)
{
	bool lists = true, gaps = strcmp(metric, "itl") == 0, hists = true;

	*out = (struct merge_values){NULL, 0, NULL};
	for (size_t k = 0; k < n; k++) {
		const struct result_doc *d = &s[k].set.doc[0];

		lists = lists && has_lists(&s[k], metric);
		gaps = gaps && json_object_get(&s[k].doc, "itls") &&
		       (d->series[SERIES_ITL].n > 0 || !(result_number(d, "completed") > 0));
	}
	if (lists)
		return from_lists(s, n, metric, out);
	if (gaps)
		return from_gaps(s, n, out);
	out->hist = malloc(sizeof(*out->hist));
	if (!out->hist)
		return PD_ENOMEM;
	hist_init(out->hist);
	for (size_t k = 0; k < n; k++)
		hists = hists && merge_hist_add(out->hist, &s[k], metric);
	if (!hists) {
		free(out->hist);
		out->hist = NULL;
	}
	return PD_OK;
}

void merge_values_release(struct merge_values *v)
{
	free(v->v);
	free(v->hist);
	*v = (struct merge_values){NULL, 0, NULL};
}

double merge_mean(const struct merge_values *v)
{
	if (v->v)
		return summary_of(v->v, v->n).mean;
	return v->hist && v->hist->count ? hist_mean(v->hist) / 1e6 : (double)NAN;
}

/* Of a histogram: around the mean, each value in the middle of its bucket. */
double merge_std(const struct merge_values *v)
{
	double mean = merge_mean(v), squares = 0;

	if (v->v || !v->hist || v->hist->count == 0)
		return v->v ? summary_of(v->v, v->n).std : (double)NAN;
	for (unsigned b = 0; b < HIST_BUCKETS; b++)
		if (v->hist->bucket[b]) {
			double off = hist_middle(b) / 1e6 - mean;

			squares += (double)v->hist->bucket[b] * off * off;
		}
	return sqrt(squares / (double)v->hist->count);
}

double merge_percentile(const struct merge_values *v, double p)
{
	if (v->v)
		return summary_percentile(v->v, v->n, p);
	return v->hist ? hist_percentile(v->hist, p) / 1e6 : (double)NAN;
}

double merge_max(const struct merge_values *v)
{
	if (v->v)
		return v->n ? v->v[v->n - 1] : (double)NAN;
	return v->hist && v->hist->count ? (double)v->hist->max / 1e6 : (double)NAN;
}
