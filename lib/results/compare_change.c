/*
 * From runs to a change. The Hodges-Lehmann shift is used for two and more runs per side because
 * its interval belongs to the Mann-Whitney test: without ties it excludes zero exactly when the
 * test is significant.
 */
#include <math.h>
#include <string.h>

#include "lib/results/compare_change.h"
#include "lib/stats/bootstrap.h"
#include "lib/stats/rank.h"

#define BOOTSTRAP_SEED 1

bool compare_enough(const struct compare *c, size_t na, size_t nb)
{
	return na >= c->min_runs && nb >= c->min_runs && rank_min_p(na, nb) < c->alpha;
}

static int summarize(struct compare_cell *cell)
{
	int err = rank_median(cell->v, cell->n, &cell->median);
	double far = 0;

	for (size_t i = 0; !err && i < cell->n; i++)
		far = fmax(far, fabs(cell->v[i] - cell->median));
	cell->spread = cell->n > 1 && fabs(cell->median) > 0 ? far / fabs(cell->median) : NAN;
	return err;
}

static double ratio(double shift, double base)
{
	if (fabs(base) > 0)
		return shift / fabs(base);
	return shift > 0 ? INFINITY : shift < 0 ? -INFINITY : 0;
}

static const struct bootstrap_series *series_of(const struct result_doc *d, const char *base,
						unsigned n, struct bootstrap_series *out)
{
	static const char *const names[RESULT_SERIES] = {"ttft", "tpot", "e2el"};

	for (int k = 0; k < RESULT_SERIES; k++) {
		if (strlen(names[k]) != n || memcmp(names[k], base, n) != 0)
			continue;
		*out = (struct bootstrap_series){d->series[k].v, d->series[k].n};
		return out;
	}
	return NULL;
}

/* One run each with per-request values: an interval that is only an indication. */
static int single_interval(const struct compare *c, const struct result_doc *base,
			   const struct result_doc *now, const char *name,
			   struct compare_change *out)
{
	struct bootstrap_series a, b;
	struct bootstrap_interval ci;
	const char *stem;
	unsigned n;
	double q;
	int err;

	if (!metric_split(name, &stem, &n, &q) || !series_of(base, stem, n, &a) ||
	    !series_of(now, stem, n, &b) || a.n < 2 || b.n < 2)
		return PD_OK;
	err = bootstrap_change(a, b, q, c->alpha, BOOTSTRAP_SEED, &ci);
	if (err == PD_ENOMEM)
		return err;
	if (!err) {
		out->lo = ci.lo;
		out->hi = ci.hi;
	}
	return PD_OK;
}

static int change_of_runs(const struct compare *c, const struct compare_cell *a,
			  const struct compare_cell *b, struct compare_change *out)
{
	struct rank_test test;
	struct rank_shift shift;
	int err = rank_mann_whitney(a->v, a->n, b->v, b->n, &test);

	if (!err)
		err = rank_hodges_lehmann(a->v, a->n, b->v, b->n, c->alpha, &shift);
	if (err)
		return err;
	out->change = ratio(shift.shift, a->median);
	out->p = test.p;
	out->effect = test.effect;
	if (shift.bounded) {
		out->lo = ratio(shift.lo, a->median);
		out->hi = ratio(shift.hi, a->median);
	}
	out->basis = compare_enough(c, a->n, b->n) ? COMPARE_RUNS : COMPARE_FEW;
	out->significant = out->basis == COMPARE_RUNS && test.p < c->alpha;
	return PD_OK;
}

int compare_change_row(const struct compare *c, struct compare_row *row)
{
	int err = summarize(&row->cell[0]);

	for (size_t k = 1; !err && k < c->nsides; k++) {
		const struct compare_cell *a = &row->cell[0], *b = &row->cell[k];
		struct compare_change *out = &row->change[k];

		*out = (struct compare_change){COMPARE_SINGLE, NAN, NAN, NAN, NAN, NAN, false};
		err = summarize(&row->cell[k]);
		if (err)
			break;
		if (a->n > 1 && b->n > 1) {
			err = change_of_runs(c, a, b, out);
			continue;
		}
		out->change = ratio(b->median - a->median, a->median);
		if (a->n == 1 && b->n == 1)
			err = single_interval(c, &c->side[0].runs.doc[0], &c->side[k].runs.doc[0],
					      row->name, out);
	}
	return err;
}

int compare_why_unusable(const struct compare *c, const char *what, const char *name,
			 struct pd_msg *msg)
{
	for (size_t i = 0; i < c->nsides; i++)
		for (size_t r = 0; r < c->side[i].runs.n; r++) {
			const struct result_doc *d = &c->side[i].runs.doc[r];
			const struct result_field *f = result_get(d, name);

			if (!f)
				return pd_fail(msg, PD_ENOENT, "%s: '%s' is missing in '%s'", what,
					       name, d->source);
			if (f->type != RESULT_NUMBER || !isfinite(f->number))
				return pd_fail(msg, PD_ENOENT,
					       "%s: '%s' in '%s' is %s%s%s, expected a number",
					       what, name, d->source,
					       f->type == RESULT_TEXT ? "the text \"" : "", f->text,
					       f->type == RESULT_TEXT ? "\"" : "");
		}
	return pd_fail(msg, PD_ENOENT,
		       "%s: '%s' is per chunk in files of vllm bench and per token in files of "
		       "pdctl, so the two cannot be compared",
		       what, name);
}

enum compare_mark compare_mark(const struct compare_row *row, size_t side)
{
	const struct compare_change *ch = &row->change[side];
	bool higher = ch->change > 0;

	if (isnan(ch->change))
		return MARK_NONE;
	if ((ch->basis == COMPARE_RUNS && !ch->significant) || !(fabs(ch->change) > 0))
		return MARK_SAME;
	if (ch->basis == COMPARE_SINGLE && ch->lo <= 0 && ch->hi >= 0)
		return MARK_SAME;
	if (row->direction == METRIC_NEUTRAL)
		return MARK_DIFFERS;
	return higher == (row->direction == METRIC_HIGHER) ? MARK_BETTER : MARK_WORSE;
}
