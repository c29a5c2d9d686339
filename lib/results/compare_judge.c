/* Limits and changes are ratios for people and logs for the tests; log1p and expm1 go between. */
#include "lib/results/compare_judge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/results/compare_series.h"
#include "lib/stats/logratio.h"
#include "lib/stats/rank.h"

#define DETAILS_SHARE 5		  /* of the level, for too few runs with details */
#define ASKED_OF_ZERO 0.05	  /* what a gate of 0 % is asked to find */
#define LEAST	      (-0.999999) /* a fall has a logarithm only above -100 % */

const char *gate_verdict_text(enum gate_verdict v)
{
	static const char *const texts[] = {"pass", "WARN", "FAIL", "inconclusive"};

	return texts[v];
}

const char *gate_method_text(enum gate_method m)
{
	static const char *const texts[] = {"every run",	 "Welch's t", "paired t",
					    "Mann-Whitney",	 "bootstrap", "simulated, no noise",
					    "plain change only", "no test"};

	return texts[m];
}

static bool holds(enum gate_op op, double v, double limit)
{
	switch (op) {
	case GATE_LE:
		return v <= limit;
	case GATE_LT:
		return v < limit;
	case GATE_GE:
		return v >= limit;
	default:
		return v > limit;
	}
}

static void judge_absolute(const struct gate *g, const struct compare_cell *cell,
			   struct gate_result *out)
{
	bool up = g->op == GATE_LE || g->op == GATE_LT;

	out->method = JUDGE_ABSOLUTE;
	out->change = cell->v[0];
	out->runs = cell->n;
	for (size_t i = 0; i < cell->n; i++) {
		out->holds += holds(g->op, cell->v[i], g->limit);
		out->change = up ? fmax(out->change, cell->v[i]) : fmin(out->change, cell->v[i]);
	}
	out->verdict = out->holds < out->runs ? GATE_FAIL : GATE_PASS;
}

static int direction(const struct gate *g)
{
	return g->op == GATE_RISE ? 1 : -1;
}

static double log_limit(const struct gate *g)
{
	return log1p(fmax(direction(g) * g->limit, LEAST));
}

/* The change that the gate is asked to find. */
static void plan(const struct compare *c, struct gate_result *out)
{
	double limit = out->gate->limit;
	double asked = isnan(c->rules.detect) ? 2 * limit : c->rules.detect;

	if (!(asked > limit))
		asked = limit + ASKED_OF_ZERO;
	out->asked = fmax(direction(out->gate) * asked, LEAST);
}

/* What these runs can find, from the spread that was seen. */
static void outlook(const struct logratio *r, const struct compare *c, struct gate_result *out)
{
	int up = direction(out->gate);
	double limit = log_limit(out->gate);
	double reach = logratio_detectable(r, c->rules.level, JUDGE_POWER);

	out->detectable = expm1(limit + up * reach);
	out->runs_needed = logratio_runs_needed(r, up * (log1p(out->asked) - limit), c->rules.level,
						JUDGE_POWER, c->rules.min_runs);
}

static void judge_logs(const struct compare *c, const struct logratio *r, enum gate_method method,
		       struct gate_result *out)
{
	out->method = method;
	out->change = expm1(r->shift);
	out->p = logratio_p(r, log_limit(out->gate), direction(out->gate));
	outlook(r, c, out);
}

static void judge_draws(const struct compare *c, const struct compare_row *row, size_t side,
			struct gate_result *out)
{
	const struct bootstrap_draws *d = &row->draws[side];
	size_t na = row->cell[0].n, nb = row->cell[side].n;
	/* the spread of the draws, as if it came from runs */
	double se = (bootstrap_bound(d, 0.8413, 1) - bootstrap_bound(d, 0.1587, 1)) / 2;
	double sd = se / sqrt(1 / (double)na + 1 / (double)nb);
	struct logratio r = {d->estimate, se, INFINITY, {sd, sd}, {na, nb}, false};

	out->method = JUDGE_BOOTSTRAP;
	out->change = expm1(d->estimate);
	out->p = bootstrap_p(d, log_limit(out->gate), direction(out->gate));
	outlook(&r, c, out);
}

/* Values that have no logarithm: is the other side's rank too high even when the limit is taken off
 * it? */
static int judge_ranks(const struct compare_row *row, size_t side, struct gate_result *out)
{
	const struct compare_cell *a = &row->cell[0], *b = &row->cell[side];
	double off = direction(out->gate) * out->gate->limit * fabs(a->median);
	double *shifted = malloc(b->n * sizeof(*shifted));
	struct rank_test t;
	int err;

	if (!shifted)
		return PD_ENOMEM;
	for (size_t i = 0; i < b->n; i++)
		shifted[i] = b->v[i] - off;
	err = rank_mann_whitney(a->v, a->n, shifted, b->n, &t);
	free(shifted);
	if (err)
		return err;
	out->method = JUDGE_RANKS;
	out->p = direction(out->gate) * t.effect > 0 ? t.p / 2 : 1;
	return PD_OK;
}

static bool all_simulated(const struct compare *c, size_t side)
{
	const size_t sides[] = {0, side};

	for (int k = 0; k < 2; k++)
		for (size_t i = 0; i < c->side[sides[k]].runs.n; i++) {
			const struct result_field *f =
				result_get(&c->side[sides[k]].runs.doc[i], "pdctl.simulated");

			if (!f || f->type != RESULT_BOOL || !(f->number > 0))
				return false;
		}
	return true;
}

static int judge_enough(const struct compare *c, struct compare_row *row, size_t side,
			struct gate_result *out)
{
	const struct compare_cell *a = &row->cell[0], *b = &row->cell[side];
	struct logratio r;
	int err;

	if (c->rules.pairs && a->n == b->n && logratio_paired(a->v, b->v, a->n, &r) == PD_OK) {
		judge_logs(c, &r, JUDGE_PAIRS, out);
		return PD_OK;
	}
	err = c->rules.bootstrap ? compare_series_draw(c, row, side) : PD_ENOENT;
	if (err == PD_ENOMEM)
		return err;
	if (!err) {
		judge_draws(c, row, side, out);
		return PD_OK;
	}
	if (logratio_welch(a->v, a->n, b->v, b->n, &r) != PD_OK)
		return judge_ranks(row, side, out);
	judge_logs(c, &r, JUDGE_WELCH, out);
	return PD_OK;
}

static int judge_few(const struct compare *c, struct compare_row *row, size_t side,
		     struct gate_result *out)
{
	int err;

	out->indicative = true;
	if (all_simulated(c, side)) {
		out->method = JUDGE_SIMULATED;
		return PD_OK;
	}
	err = compare_series_draw(c, row, side);
	if (err == PD_ENOMEM)
		return err;
	if (!err)
		judge_draws(c, row, side, out);
	else
		out->method = c->rules.single ? JUDGE_PLAIN : JUDGE_NONE;
	return PD_OK;
}

int gate_judge(struct compare *c, const struct gate *g, size_t side, struct gate_result *out)
{
	struct compare_row *row;
	int err = compare_row(c, g->metric, &row);

	if (err)
		return err;
	*out = (struct gate_result){.gate = g,
				    .compare = c,
				    .side = side,
				    .row = (size_t)(row - c->row),
				    .change = row->change[side].change,
				    .p = NAN,
				    .level = c->rules.level,
				    .bound = NAN,
				    .detectable = NAN,
				    .asked = NAN};
	if (g->kind == GATE_REQUIRE) {
		judge_absolute(g, &row->cell[side], out);
		return PD_OK;
	}
	plan(c, out);
	return compare_enough(c, row->cell[0].n, row->cell[side].n)
		       ? judge_enough(c, row, side, out)
		       : judge_few(c, row, side, out);
}

/* -- verdicts -- */

/* The p that counts in the family: what is judged at a fifth of the level counts five times. */
static double family_p(const struct gate_result *r)
{
	return r->indicative ? fmin(1, r->p * DETAILS_SHARE) : r->p;
}

static bool beyond(const struct gate_result *r)
{
	return direction(r->gate) * r->change > r->gate->limit;
}

static void decide_one(struct gate_result *r, bool proven)
{
	bool strict = r->compare->rules.strict;
	enum gate_verdict bad = r->gate->kind == GATE_WARN_ON ? GATE_WARN : GATE_FAIL;

	if (r->method == JUDGE_NONE)
		r->verdict = GATE_INCONCLUSIVE;
	else if (r->method == JUDGE_PLAIN)
		r->verdict = strict ? GATE_INCONCLUSIVE : beyond(r) ? bad : GATE_PASS;
	else if (r->method == JUDGE_SIMULATED)
		r->verdict = beyond(r) ? bad : GATE_PASS;
	else
		r->verdict = proven ? bad : beyond(r) && strict ? GATE_INCONCLUSIVE : GATE_PASS;
}

/* Holm's step-down over the tests of one kind of gate: the smallest p against level / m, the next
 * against level / (m - 1), until one does not reach it. */
static void decide_family(struct gate_result *result, size_t n, enum gate_kind kind)
{
	size_t tests = 0, taken = 0;
	bool holding = true;

	for (size_t i = 0; i < n; i++)
		tests += result[i].gate->kind == kind && !isnan(result[i].p);
	for (size_t i = 0; i < n; i++) {
		if (result[i].gate->kind != kind)
			continue;
		if (isnan(result[i].p))
			decide_one(&result[i], false);
		else
			result[i].level = -1; /* not taken yet */
	}
	for (; taken < tests; taken++) {
		struct gate_result *least = NULL;
		double level;

		for (size_t i = 0; i < n; i++)
			if (result[i].gate->kind == kind && !isnan(result[i].p) &&
			    result[i].level < 0 &&
			    (!least || family_p(&result[i]) < family_p(least)))
				least = &result[i];
		if (!least)
			break;
		level = least->compare->rules.level / (double)(tests - taken);
		holding = holding && family_p(least) <= level;
		least->level = least->indicative ? level / DETAILS_SHARE : level;
		decide_one(least, holding);
	}
}

/* The bound that goes with the level each gate was judged at. */
static void add_bound(struct gate_result *r)
{
	const struct compare_row *row = &r->compare->row[r->row];
	const struct compare_cell *a = &row->cell[0], *b = &row->cell[r->side];
	int up = direction(r->gate);
	struct logratio lr;

	if (r->method == JUDGE_BOOTSTRAP)
		r->bound = expm1(bootstrap_bound(&row->draws[r->side], r->level, up));
	else if (r->method == JUDGE_WELCH && !logratio_welch(a->v, a->n, b->v, b->n, &lr))
		r->bound = expm1(logratio_bound(&lr, r->level, up));
	else if (r->method == JUDGE_PAIRS && !logratio_paired(a->v, b->v, a->n, &lr))
		r->bound = expm1(logratio_bound(&lr, r->level, up));
}

void gate_decide(struct gate_result *result, size_t n)
{
	decide_family(result, n, GATE_FAIL_ON);
	decide_family(result, n, GATE_WARN_ON);
	for (size_t i = 0; i < n; i++)
		if (result[i].gate->kind != GATE_REQUIRE)
			add_bound(&result[i]);
}

/* -- words -- */

static void percent(char *out, size_t cap, double ratio)
{
	double v = ratio * 100;

	if (isinf(v))
		(void)snprintf(out, cap, "%s", v > 0 ? "from 0 up" : "from 0 down");
	else if (fabs(v) < 0.005)
		(void)snprintf(out, cap, "0.00%%");
	else
		(void)snprintf(out, cap, "%+.2f%%", v);
}

static void why_absolute(const struct gate_result *r, char *why, size_t cap)
{
	const char *unit = metric_unit(r->gate->metric);

	(void)snprintf(why, cap, "worst run %.6g%s%s, %zu of %zu runs hold", r->change,
		       unit[0] ? " " : "", unit, r->holds, r->runs);
}

static void outlook_text(const struct gate_result *r, char *more, size_t cap)
{
	char least[32], asked[32];

	if (isnan(r->detectable)) {
		(void)snprintf(
			more, cap, "give at least %zu runs a side, best interleaved (A B B A)",
			r->compare->rules.min_runs > 4 ? r->compare->rules.min_runs : (size_t)4);
		return;
	}
	percent(least, sizeof(least), r->detectable);
	percent(asked, sizeof(asked), r->asked);
	if (r->runs_needed)
		(void)snprintf(more, cap, "finds %s in 9 of 10 cases; %s takes %zu runs a side",
			       least, asked, r->runs_needed);
	else
		(void)snprintf(more, cap,
			       "finds %s in 9 of 10 cases; %s takes more than 1,000 runs a side",
			       least, asked);
}

void gate_why(const struct gate_result *r, char *why, size_t cap, char *more, size_t more_cap)
{
	char change[32], bound[32], tail[64] = "";

	more[0] = '\0';
	if (r->gate->kind == GATE_REQUIRE) {
		why_absolute(r, why, cap);
		return;
	}
	percent(change, sizeof(change), r->change);
	percent(bound, sizeof(bound), r->bound);
	if (!isnan(r->bound))
		(void)snprintf(tail, sizeof(tail), ", %s %s",
			       direction(r->gate) > 0 ? "at least" : "at most", bound);
	if (isnan(r->p))
		(void)snprintf(why, cap, "change %s, %s", change, gate_method_text(r->method));
	else
		(void)snprintf(why, cap, "change %s%s (%s, level %.3g, p=%.3g)%s", change, tail,
			       gate_method_text(r->method), r->level, r->p,
			       r->verdict != GATE_FAIL && r->verdict != GATE_WARN && beyond(r)
				       ? ", not proven"
				       : "");
	if (r->method != JUDGE_SIMULATED && r->method != JUDGE_RANKS)
		outlook_text(r, more, more_cap);
}
