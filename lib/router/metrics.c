/*
 * Counters in stripes, added up when somebody asks: threads on different cores must not share a
 * cache line for each request.
 */
#include "lib/router/metrics.h"

/* vllm-router's bucket bounds, in microseconds. */
static const int64_t bounds_us[METRICS_BUCKETS] = {
	1000,	  5000,	    10000,    25000,	 50000,	    100000,    250000,
	500000,	  1000000,  2500000,  5000000,	 10000000,  15000000,  30000000,
	45000000, 60000000, 90000000, 120000000, 180000000, 240000000,
};

static const char *const bound_text[METRICS_BUCKETS] = {
	"0.001", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1",	"2.5",
	"5",	 "10",	  "15",	  "30",	   "45",   "60",  "90",	  "120", "180", "240",
};

static const char *const route_text[METRICS_ROUTES] = {"/v1/chat/completions", "/v1/completions",
						       "/v1/embeddings", "/v1/responses", "other"};

struct named {
	const char *name, *help;
};

#define METRICS_NAME(id, n, h) {n, h},
static const struct named counter_names[] = {METRICS_COUNTERS(METRICS_NAME)};
static const struct named hist_names[] = {METRICS_HISTOGRAMS(METRICS_NAME)};

static void add(_Atomic uint64_t *p, uint64_t n)
{
	atomic_fetch_add_explicit(p, n, memory_order_relaxed);
}

void metrics_count(struct metrics *m, unsigned stripe, enum metrics_counter c, enum metrics_route r,
		   uint64_t n)
{
	add(&m->stripe[stripe % METRICS_STRIPES].count[c][r], n);
}

void metrics_code(struct metrics *m, unsigned stripe, enum metrics_route r, int status)
{
	unsigned class = status >= 100 && status < 600 ? (unsigned)status / 100 : 0;

	add(&m->stripe[stripe % METRICS_STRIPES].code[r][class], 1);
}

void metrics_observe(struct metrics *m, unsigned stripe, enum metrics_hist h, int64_t ns)
{
	struct metrics_stripe *s = &m->stripe[stripe % METRICS_STRIPES];
	int64_t us = ns > 0 ? ns / 1000 : 0;
	unsigned i = 0;

	while (i < METRICS_BUCKETS && us > bounds_us[i])
		i++;
	add(&s->bucket[h][i], 1);
	add(&s->sum_us[h], (uint64_t)us);
}

static uint64_t load(const _Atomic uint64_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

static uint64_t sum_count(const struct metrics *m, unsigned c, unsigned r)
{
	uint64_t n = 0;

	for (unsigned s = 0; s < METRICS_STRIPES; s++)
		n += load(&m->stripe[s].count[c][r]);
	return n;
}

uint64_t metrics_total(const struct metrics *m, enum metrics_counter c)
{
	uint64_t n = 0;

	for (unsigned r = 0; r < METRICS_ROUTES; r++)
		n += sum_count(m, c, r);
	return n;
}

static int counters_text(const struct metrics *m, struct buf *out)
{
	int err = PD_OK;

	for (unsigned c = 0; !err && c < METRICS_COUNTERS_N; c++) {
		err = buf_printf(out, "# HELP %s %s\n# TYPE %s counter\n", counter_names[c].name,
				 counter_names[c].help, counter_names[c].name);
		for (unsigned r = 0; !err && r < METRICS_ROUTES; r++)
			err = buf_printf(out, "%s{route=\"%s\"} %llu\n", counter_names[c].name,
					 route_text[r], (unsigned long long)sum_count(m, c, r));
	}
	return err;
}

static int codes_text(const struct metrics *m, struct buf *out)
{
	int err = buf_puts(out, "# HELP pdctl_responses_total Answers by status class (0xx: the "
				"client left before one)\n"
				"# TYPE pdctl_responses_total counter\n");

	for (unsigned r = 0; !err && r < METRICS_ROUTES; r++) {
		for (unsigned k = 0; !err && k < 6; k++) {
			uint64_t n = 0;

			for (unsigned s = 0; s < METRICS_STRIPES; s++)
				n += load(&m->stripe[s].code[r][k]);
			err = buf_printf(out,
					 "pdctl_responses_total{route=\"%s\",code=\"%uxx\"} %llu\n",
					 route_text[r], k, (unsigned long long)n);
		}
	}
	return err;
}

static int hist_text(const struct metrics *m, unsigned h, struct buf *out)
{
	const char *name = hist_names[h].name;
	uint64_t cumulative = 0, sum = 0;
	int err = buf_printf(out, "# HELP %s %s\n# TYPE %s histogram\n", name, hist_names[h].help,
			     name);

	for (unsigned b = 0; !err && b <= METRICS_BUCKETS; b++) {
		for (unsigned s = 0; s < METRICS_STRIPES; s++)
			cumulative += load(&m->stripe[s].bucket[h][b]);
		err = buf_printf(out, "%s_bucket{le=\"%s\"} %llu\n", name,
				 b < METRICS_BUCKETS ? bound_text[b] : "+Inf",
				 (unsigned long long)cumulative);
	}
	for (unsigned s = 0; s < METRICS_STRIPES; s++)
		sum += load(&m->stripe[s].sum_us[h]);
	if (!err)
		err = buf_printf(out, "%s_sum %llu.%06llu\n%s_count %llu\n", name,
				 (unsigned long long)(sum / 1000000),
				 (unsigned long long)(sum % 1000000), name,
				 (unsigned long long)cumulative);
	return err;
}

int metrics_text(const struct metrics *m, struct buf *out)
{
	int err = counters_text(m, out);

	if (!err)
		err = codes_text(m, out);
	for (unsigned h = 0; !err && h < METRICS_HISTS_N; h++)
		err = hist_text(m, h, out);
	return err;
}
