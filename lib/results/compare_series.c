/* Latencies are means or quantiles of one series; a throughput is a count over the gaps between
 * completions. */
#include "lib/results/compare_series.h"

#include <stdlib.h>
#include <string.h>

#define SEED 1

struct recipe {
	enum bootstrap_stat stat;
	double q;
	enum result_series_kind v, weight; /* weight RESULT_SERIES: 1 each */
};

static bool recipe_of(const char *name, struct recipe *out)
{
	static const struct {
		const char *name;
		enum result_series_kind series;
	} latencies[] = {{"ttft", SERIES_TTFT},
			 {"tpot", SERIES_TPOT},
			 {"itl", SERIES_ITL},
			 {"e2el", SERIES_E2EL}},
	  rates[] = {{"request_throughput", RESULT_SERIES},
		     {"output_throughput", SERIES_OUTPUT},
		     {"total_token_throughput", SERIES_TOKENS}};
	const char *stem;
	unsigned n;
	double q;

	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
		if (strcmp(name, rates[i].name) == 0) {
			*out = (struct recipe){BOOTSTRAP_RATE, 0, SERIES_GAP, rates[i].series};
			return true;
		}
	if (!metric_split(name, &stem, &n, &q))
		return false;
	for (size_t i = 0; i < sizeof(latencies) / sizeof(latencies[0]); i++)
		if (strlen(latencies[i].name) == n && memcmp(stem, latencies[i].name, n) == 0) {
			*out = (struct recipe){q < 0 ? BOOTSTRAP_MEAN : BOOTSTRAP_QUANTILE, q,
					       latencies[i].series, RESULT_SERIES};
			return true;
		}
	return false;
}

static bool series_of(const struct result_doc *d, const struct recipe *r,
		      struct bootstrap_series *out)
{
	const struct result_series *v = &d->series[r->v];

	*out = (struct bootstrap_series){v->v, NULL, v->n};
	if (r->weight == RESULT_SERIES)
		return v->n > 1;
	out->weight = d->series[r->weight].v;
	return v->n > 1 && d->series[r->weight].n == v->n;
}

static struct bootstrap_series *runs_of(const struct result_set *runs, const struct recipe *r)
{
	struct bootstrap_series *s = calloc(runs->n ? runs->n : 1, sizeof(*s));

	for (size_t i = 0; s && i < runs->n; i++)
		if (!series_of(&runs->doc[i], r, &s[i])) {
			free(s);
			return NULL;
		}
	return s;
}

int compare_series_draw(const struct compare *c, struct compare_row *row, size_t side)
{
	const struct result_set *a = &c->side[0].runs, *b = &c->side[side].runs;
	struct bootstrap_series *base, *now;
	struct recipe r;
	int err = PD_ENOENT;

	if (row->draws[side].n > 0)
		return PD_OK;
	if (!recipe_of(row->name, &r))
		return err;
	base = runs_of(a, &r);
	now = runs_of(b, &r);
	if (base && now)
		err = bootstrap_change(base, a->n, now, b->n, r.stat, r.q, c->rules.run_spread,
				       SEED, &row->draws[side]);
	free(base);
	free(now);
	return err;
}
