/*
 * Counters in stripes, added up for the page: threads on different cores must not share a
 * cache line for each request. The families lie one behind the other in one array, so that a label
 * costs an index and no look-up.
 */
#include "lib/router/watch/metrics.h"

#include <stdio.h>
#include <string.h>

#include "lib/route/decide.h"

enum bounds { BOUNDS_LONG, BOUNDS_FINE };

/* Bucket bounds in nanoseconds. LONG is vllm-router's; FINE is for what the router itself takes. */
static const int64_t bounds_ns[][METRICS_BUCKETS] = {
	[BOUNDS_LONG] = {1000000,     5000000,	   10000000,	 25000000,     50000000,
			 100000000,   250000000,   500000000,	 1000000000,   2500000000,
			 5000000000,  10000000000, 15000000000,	 30000000000,  45000000000,
			 60000000000, 90000000000, 120000000000, 180000000000, 240000000000},
	[BOUNDS_FINE] = {5000,	     10000,	 25000,	     50000,	  100000,
			 500000,     1000000,	 2500000,    5000000,	  10000000,
			 25000000,   50000000,	 100000000,  250000000,	  500000000,
			 1000000000, 2500000000, 5000000000, 15000000000, 60000000000},
};

static const char *const bound_text[][METRICS_BUCKETS] = {
	[BOUNDS_LONG] = {"0.001", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25",
			 "0.5",	  "1",	   "2.5",  "5",	    "10",   "15",  "30",
			 "45",	  "60",	   "90",   "120",   "180",  "240"},
	[BOUNDS_FINE] = {"5e-06",  "1e-05", "2.5e-05", "5e-05", "0.0001", "0.0005", "0.001",
			 "0.0025", "0.005", "0.01",    "0.025", "0.05",	  "0.1",    "0.25",
			 "0.5",	   "1",	    "2.5",     "5",	"15",	  "60"},
};

/* -- labels -- */

#define CODES 11

static const char *const routes[] = {"/v1/chat/completions", "/v1/completions", "/v1/embeddings",
				     "/v1/responses", "other"};
static const char *const codes[] = {"0xx", "1xx", "2xx", "3xx", "4xx", "5xx"};
static const char *const errors[] = {"no_available_workers",
				     "non_retryable_error",
				     "backend_error",
				     "invalid_request",
				     "loop",
				     "queue_full",
				     "queue_timeout",
				     "unauthorized",
				     "key_check",
				     "stream_cut",
				     "model_not_found"};
static const char *const causes[] = {"connect",	     "closed",	    "timeout",	 "broken",
				     "status",	     "local",	    "no_worker", "busy",
				     "no_kv_params", "lease_passed"};
static const char *const stages[] = {"regular", "prefill", "decode"};
static const char *const attempts[] = {"1", "2", "3", "4", "5+"};
static const char *const traces[] = {"passed", "invalid", "generated"};
static const char *const follows[] = {"learnt", "evicted", "found", "gone", "unknown", "sought"};
static const char *const shadows[] = {"same", "other", "none"};
static const char *const pd_errors[] = {"server_selection", "no_kv_params", "lease_passed"};
static const char *const alone[] = {
#define NAME(name, why) #name,
	PD_ALONE(NAME)
#undef NAME
};
static const char *const leg_stages[] = {"prefill"};
static const char *const http_errors[CODES] = {"http_400", "http_401", "http_404",  "http_408",
					       "http_413", "http_422", "http_429",  "http_500",
					       "http_502", "http_503", "http_other"};
static const int http_codes[CODES - 1] = {400, 401, 404, 408, 413, 422, 429, 500, 502, 503};

enum label {
	LABEL_NONE,
	LABEL_ROUTE,
	LABEL_CODE,
	LABEL_ERROR,
	LABEL_CAUSE,
	LABEL_STAGE,
	LABEL_REASON,
	LABEL_ATTEMPT,
	LABEL_SHADOW,
	LABEL_TRACE,
	LABEL_FOLLOW,
	LABEL_PDERROR,
	LABEL_LEGSTAGE,
	LABEL_HTTPERROR,
	LABEL_ALONE
};

static const struct {
	const char *name;
	const char *const *value; /* NULL: route_reason_name */
	unsigned n;
} labels[] = {
	[LABEL_NONE] = {"", NULL, LABELS_NONE},
	[LABEL_ROUTE] = {"route", routes, LABELS_ROUTE},
	[LABEL_CODE] = {"code", codes, LABELS_CODE},
	[LABEL_ERROR] = {"error_type", errors, LABELS_ERROR},
	[LABEL_CAUSE] = {"cause", causes, LABELS_CAUSE},
	[LABEL_STAGE] = {"stage", stages, LABELS_STAGE},
	[LABEL_REASON] = {"reason", NULL, LABELS_REASON},
	[LABEL_ATTEMPT] = {"attempt", attempts, LABELS_ATTEMPT},
	[LABEL_SHADOW] = {"pick", shadows, LABELS_SHADOW},
	[LABEL_TRACE] = {"result", traces, LABELS_TRACE},
	[LABEL_FOLLOW] = {"result", follows, LABELS_FOLLOW},
	[LABEL_PDERROR] = {"error_type", pd_errors, LABELS_PDERROR},
	[LABEL_LEGSTAGE] = {"stage", leg_stages, LABELS_LEGSTAGE},
	[LABEL_HTTPERROR] = {"error_type", http_errors, LABELS_HTTPERROR},
	[LABEL_ALONE] = {"reason", alone, LABELS_ALONE},
};

#define SAME_LENGTH(array, n)                                                                      \
	_Static_assert(sizeof(array) / sizeof((array)[0]) == (n),                                  \
		       "a value of " #array " is missing")
SAME_LENGTH(routes, LABELS_ROUTE);
SAME_LENGTH(codes, LABELS_CODE);
SAME_LENGTH(errors, LABELS_ERROR);
SAME_LENGTH(causes, LABELS_CAUSE);
SAME_LENGTH(stages, LABELS_STAGE);
SAME_LENGTH(attempts, LABELS_ATTEMPT);
SAME_LENGTH(shadows, LABELS_SHADOW);
SAME_LENGTH(traces, LABELS_TRACE);
SAME_LENGTH(follows, LABELS_FOLLOW);
SAME_LENGTH(pd_errors, LABELS_PDERROR);
SAME_LENGTH(leg_stages, LABELS_LEGSTAGE);
SAME_LENGTH(http_errors, LABELS_HTTPERROR);
SAME_LENGTH(alone, LABELS_ALONE);
_Static_assert((int)ROUTE_REASONS == (int)LABELS_REASON, "a reason is missing");

static const char *label_value(enum label l, unsigned i)
{
	return l == LABEL_REASON ? route_reason_name((enum route_reason)i) : labels[l].value[i];
}

const char *metrics_error_name(enum metrics_error e)
{
	return e == ERROR_NONE ? "ok" : errors[e - 1];
}

/* -- families -- */

#define COUNTER_ROW(id, a, b, name, help, moves)                                                   \
	{name, help, LABEL_##a, LABEL_##b, METRICS_AT_##id},
static const struct {
	const char *name, *help;
	enum label a, b;
	unsigned at;
} counters[] = {METRICS_COUNTERS(COUNTER_ROW)};

#define HIST_ROW(id, a, bounds, name, help, moves)                                                 \
	{name, help, LABEL_##a, BOUNDS_##bounds, METRICS_HIST_AT_##id},
static const struct {
	const char *name, *help;
	enum label a;
	enum bounds bounds;
	unsigned at;
} hists[] = {METRICS_HISTOGRAMS(HIST_ROW)};

/* -- recording -- */

static void add(_Atomic uint64_t *p, uint64_t n)
{
	atomic_fetch_add_explicit(p, n, memory_order_relaxed);
}

void metrics_add(struct metrics *m, unsigned stripe, enum metrics_counter c, unsigned a, unsigned b,
		 uint64_t n)
{
	add(&m->stripe[stripe % METRICS_STRIPES]
		     .count[counters[c].at + a * labels[counters[c].b].n + b],
	    n);
}

void metrics_count(struct metrics *m, unsigned stripe, enum metrics_counter c, enum metrics_route r,
		   uint64_t n)
{
	add(&m->stripe[stripe % METRICS_STRIPES].count[counters[c].at + (unsigned)r], n);
}

void metrics_code(struct metrics *m, unsigned stripe, enum metrics_route r, int status)
{
	metrics_add(m, stripe, METRIC_RESPONSES, r,
		    status >= 100 && status < 600 ? (unsigned)status / 100 : 0, 1);
}

void metrics_error(struct metrics *m, unsigned stripe, enum metrics_route r, enum metrics_error e)
{
	if (e != ERROR_NONE)
		metrics_add(m, stripe, METRIC_ERRORS, r, (unsigned)e - 1, 1);
}

void metrics_embeddings(struct metrics *m, unsigned stripe, int status)
{
	unsigned i = 0;

	if (status >= 200 && status < 300) {
		metrics_add(m, stripe, METRIC_EMBEDDINGS, 0, 0, 1);
	} else if (status >= 400) {
		while (i < CODES - 1 && http_codes[i] != status)
			i++;
		metrics_add(m, stripe, METRIC_EMBEDDINGS_ERRORS, i, 0, 1);
	}
}

void metrics_observe_at(struct metrics *m, unsigned stripe, enum metrics_hist h, unsigned a,
			int64_t ns)
{
	struct metrics_times *t = &m->stripe[stripe % METRICS_STRIPES].times[hists[h].at + a];
	const int64_t *bound = bounds_ns[hists[h].bounds];
	unsigned i = 0;

	ns = ns > 0 ? ns : 0;
	while (i < METRICS_BUCKETS && ns > bound[i])
		i++;
	add(&t->bucket[i], 1);
	add(&t->sum_ns, (uint64_t)ns);
}

void metrics_observe(struct metrics *m, unsigned stripe, enum metrics_hist h, int64_t ns)
{
	metrics_observe_at(m, stripe, h, 0, ns);
}

/* -- reading -- */

static uint64_t load(const _Atomic uint64_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

static uint64_t sum_series(const struct metrics *m, unsigned series)
{
	uint64_t n = 0;

	for (unsigned s = 0; s < METRICS_STRIPES; s++)
		n += load(&m->stripe[s].count[series]);
	return n;
}

uint64_t metrics_failures(const struct metrics *m, enum metrics_cause cause)
{
	uint64_t total = 0;

	for (unsigned stage = 0; stage < LABELS_STAGE; stage++)
		total += sum_series(m, counters[METRIC_LEG_FAILURES].at + stage * LABELS_CAUSE +
					       cause - 1);
	return total;
}

uint64_t metrics_shadow(const struct metrics *m, unsigned role, enum metrics_shadow what)
{
	return sum_series(m, counters[METRIC_SHADOW].at + role * LABELS_SHADOW + what);
}

int metrics_head(struct buf *out, const char *name, const char *type, const char *help)
{
	return buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* `{a="x",b="y"}`, or nothing; `more` is the inside of another label. */
static int put_labels(struct buf *out, enum label a, unsigned i, enum label b, unsigned k,
		      const char *more)
{
	int err = PD_OK;

	if (a == LABEL_NONE && !*more)
		return PD_OK;
	err = buf_putc(out, '{');
	if (!err && a != LABEL_NONE)
		err = buf_printf(out, "%s=\"%s\"", labels[a].name, label_value(a, i));
	if (!err && b != LABEL_NONE)
		err = buf_printf(out, ",%s=\"%s\"", labels[b].name, label_value(b, k));
	if (!err && *more)
		err = buf_printf(out, "%s%s", a != LABEL_NONE ? "," : "", more);
	return err ? err : buf_putc(out, '}');
}

static int counter_text(const struct metrics *m, unsigned c, struct buf *out)
{
	enum label a = counters[c].a, b = counters[c].b;
	int err = metrics_head(out, counters[c].name, "counter", counters[c].help);

	for (unsigned i = 0; !err && i < labels[a].n; i++) {
		for (unsigned k = 0; !err && k < labels[b].n; k++) {
			err = buf_puts(out, counters[c].name);
			err = err ? err : put_labels(out, a, i, b, k, "");
			err = err ? err
				  : buf_printf(out, " %llu\n",
					       (unsigned long long)sum_series(
						       m, counters[c].at + i * labels[b].n + k));
		}
	}
	return err;
}

static int put_sum(struct buf *out, const char *name, enum label a, unsigned i, uint64_t ns,
		   uint64_t count)
{
	int err = buf_printf(out, "%s_sum", name);

	err = err ? err : put_labels(out, a, i, LABEL_NONE, 0, "");
	err = err ? err
		  : buf_printf(out, " %llu.%09llu\n%s_count", (unsigned long long)(ns / 1000000000),
			       (unsigned long long)(ns % 1000000000), name);
	err = err ? err : put_labels(out, a, i, LABEL_NONE, 0, "");
	return err ? err : buf_printf(out, " %llu\n", (unsigned long long)count);
}

static int times_text(const struct metrics *m, unsigned h, unsigned i, struct buf *out)
{
	unsigned series = hists[h].at + i;
	uint64_t cumulative = 0, sum = 0;
	char le[40];
	int err = PD_OK;

	for (unsigned b = 0; !err && b <= METRICS_BUCKETS; b++) {
		for (unsigned s = 0; s < METRICS_STRIPES; s++)
			cumulative += load(&m->stripe[s].times[series].bucket[b]);
		(void)snprintf(le, sizeof(le), "le=\"%s\"",
			       b < METRICS_BUCKETS ? bound_text[hists[h].bounds][b] : "+Inf");
		err = buf_printf(out, "%s_bucket", hists[h].name);
		err = err ? err : put_labels(out, hists[h].a, i, LABEL_NONE, 0, le);
		err = err ? err : buf_printf(out, " %llu\n", (unsigned long long)cumulative);
	}
	for (unsigned s = 0; s < METRICS_STRIPES; s++)
		sum += load(&m->stripe[s].times[series].sum_ns);
	return err ? err : put_sum(out, hists[h].name, hists[h].a, i, sum, cumulative);
}

int metrics_text(const struct metrics *m, struct buf *out)
{
	int err = PD_OK;

	for (unsigned c = 0; !err && c < METRICS_COUNTERS_N; c++)
		err = counter_text(m, c, out);
	for (unsigned h = 0; !err && h < METRICS_HISTS_N; h++) {
		err = metrics_head(out, hists[h].name, "histogram", hists[h].help);
		for (unsigned i = 0; !err && i < labels[hists[h].a].n; i++)
			err = times_text(m, h, i, out);
	}
	return err;
}

/* -- what the documentation says of them -- */

int metrics_counter_labels(struct buf *out, enum metrics_counter c)
{
	int err = buf_puts(out, labels[counters[c].a].name);

	if (!err && counters[c].b != LABEL_NONE)
		err = buf_printf(out, ", %s", labels[counters[c].b].name);
	return err;
}

const char *metrics_hist_label(enum metrics_hist h)
{
	return labels[hists[h].a].name;
}

/* The family that gives a label of this name values of its own; NULL: the name is unique. */
static const char *family_of(enum label l)
{
	bool shared = false;

	for (unsigned k = 0; k < sizeof(labels) / sizeof(labels[0]); k++)
		shared |= k != l && strcmp(labels[k].name, labels[l].name) == 0;
	for (unsigned c = 0; shared && l != LABEL_STAGE && c < METRICS_COUNTERS_N; c++)
		if (counters[c].a == l || counters[c].b == l)
			return counters[c].name;
	return NULL;
}

int metrics_label_values(struct buf *out)
{
	int err = PD_OK;

	for (unsigned l = LABEL_ROUTE; !err && l < sizeof(labels) / sizeof(labels[0]); l++) {
		const char *family = family_of((enum label)l);

		err = family ? buf_printf(out, "| `%s` of `%s` |", labels[l].name, family)
			     : buf_printf(out, "| `%s` |", labels[l].name);
		for (unsigned i = 0; !err && i < labels[l].n; i++)
			err = buf_printf(out, " `%s`", label_value((enum label)l, i));
		err = err ? err : buf_puts(out, " |\n");
	}
	return err;
}
