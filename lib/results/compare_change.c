/*
 * From runs to a change. The Hodges-Lehmann shift is used for two and more runs per side because
 * its interval belongs to the Mann-Whitney test: without ties it excludes zero exactly when the
 * test is significant.
 */
#include <math.h>
#include <string.h>

#include "lib/results/compare_change.h"
#include "lib/results/compare_series.h"
#include "lib/stats/logratio.h"
#include "lib/stats/rank.h"

#define SHOWN 5e-5 /* half a unit of the last digit that a table shows of a change */

static int summarize(struct compare_cell *cell)
{
	double far = 0;
	int err;

	cell->median = cell->spread = NAN;
	for (size_t i = 0; i < cell->n; i++)
		if (!isfinite(cell->v[i]))
			return PD_OK;
	err = rank_median(cell->v, cell->n, &cell->median);
	for (size_t i = 0; !err && i < cell->n; i++)
		far = fmax(far, fabs(cell->v[i] - cell->median));
	if (cell->n > 1 && fabs(cell->median) > 0)
		cell->spread = far / fabs(cell->median);
	return err;
}

static double ratio(double shift, double base)
{
	if (fabs(base) > 0)
		return shift / fabs(base);
	return shift > 0 ? INFINITY : shift < 0 ? -INFINITY : 0;
}

/* Too few runs, but with per-request values: an interval that is only an indication. */
static int details_interval(const struct compare *c, struct compare_row *row, size_t side,
			    struct compare_change *out)
{
	int err = compare_series_draw(c, row, side);

	if (err)
		return err == PD_ENOMEM ? err : PD_OK;
	out->basis = COMPARE_DETAILS;
	out->lo = expm1(bootstrap_bound(&row->draws[side], c->rules.alpha / 2, 1));
	out->hi = expm1(bootstrap_bound(&row->draws[side], c->rules.alpha / 2, -1));
	return PD_OK;
}

/* Run i with run i. Values that have no logarithm are compared unpaired. */
static bool change_of_pairs(const struct compare *c, const struct compare_cell *a,
			    const struct compare_cell *b, struct compare_change *out)
{
	struct logratio r;

	if (a->n != b->n || a->n < c->rules.min_runs ||
	    logratio_paired(a->v, b->v, a->n, &r) != PD_OK)
		return false;
	out->basis = COMPARE_PAIRS;
	out->change = expm1(r.shift);
	out->lo = expm1(logratio_bound(&r, c->rules.alpha / 2, 1));
	out->hi = expm1(logratio_bound(&r, c->rules.alpha / 2, -1));
	out->p = 2 * fmin(logratio_p(&r, 0, 1), logratio_p(&r, 0, -1));
	out->significant = out->p < c->rules.alpha;
	return true;
}

static int change_of_runs(const struct compare *c, const struct compare_cell *a,
			  const struct compare_cell *b, struct compare_change *out)
{
	struct rank_test test;
	struct rank_shift shift;
	int err = rank_mann_whitney(a->v, a->n, b->v, b->n, &test);

	if (!err)
		err = rank_hodges_lehmann(a->v, a->n, b->v, b->n, c->rules.alpha, &shift);
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
	out->significant = out->basis == COMPARE_RUNS && test.p < c->rules.alpha;
	return PD_OK;
}

static int change_of(const struct compare *c, struct compare_row *row, size_t side,
		     struct compare_change *out)
{
	const struct compare_cell *a = &row->cell[0], *b = &row->cell[side];
	int err = PD_OK;

	*out = (struct compare_change){COMPARE_NONE, NAN, NAN, NAN, NAN, NAN, false};
	if (isnan(a->median) || isnan(b->median))
		return PD_OK;
	if (c->rules.pairs && change_of_pairs(c, a, b, out))
		return PD_OK;
	out->basis = COMPARE_SINGLE;
	out->change = ratio(b->median - a->median, a->median);
	if (a->n > 1 && b->n > 1)
		err = change_of_runs(c, a, b, out);
	if (!err && out->basis != COMPARE_RUNS)
		err = details_interval(c, row, side, out);
	return err;
}

int compare_change_row(const struct compare *c, struct compare_row *row)
{
	int err = summarize(&row->cell[0]);

	for (size_t k = 1; !err && k < c->nsides; k++) {
		err = summarize(&row->cell[k]);
		if (!err)
			err = change_of(c, row, k, &row->change[k]);
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
			if (f->type == RESULT_NULL)
				return pd_fail(msg, PD_ENOENT,
					       "%s: '%s' has no sample in '%s' (%s), expected a "
					       "number",
					       what, name, d->source, f->text);
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

	bool proven = ch->basis == COMPARE_RUNS || ch->basis == COMPARE_PAIRS;

	if (isnan(ch->change))
		return MARK_NONE;
	if ((proven && !ch->significant) || fabs(ch->change) < SHOWN)
		return MARK_SAME;
	if (ch->basis == COMPARE_DETAILS && ch->lo <= 0 && ch->hi >= 0)
		return MARK_SAME;
	if (row->direction == METRIC_NEUTRAL)
		return MARK_DIFFERS;
	return higher == (row->direction == METRIC_HIGHER) ? MARK_BETTER : MARK_WORSE;
}
