/* Parsing and judging of gates; see the header for the rules and why signs are checked. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/results/compare_change.h"
#include "lib/results/compare_gate.h"

const char *gate_flag(enum gate_kind kind)
{
	static const char *const flags[] = {"--fail-on", "--warn-on", "--require"};

	return flags[kind];
}

const char *gate_verdict_text(enum gate_verdict v)
{
	static const char *const texts[] = {"pass", "WARN", "FAIL", "inconclusive"};

	return texts[v];
}

/* A plain decimal number: strtod alone would take "nan", "inf" and hexadecimal. */
static bool decimal(const char *text, double *out, const char **end)
{
	char *stop;

	if (!text[0] || strspn(text, "0123456789.") == 0)
		return false;
	*out = strtod(text, &stop);
	*end = stop;
	return stop != text && isfinite(*out) && !memchr(text, 'x', (size_t)(stop - text)) &&
	       !memchr(text, 'X', (size_t)(stop - text));
}

static int take_metric(struct gate *g, const char *text, size_t n, struct pd_msg *msg)
{
	struct span name = span_trim((struct span){text, n});

	if (name.n == 0 || name.n >= sizeof(g->metric))
		return pd_fail(msg, PD_EINVAL,
			       "%s: found '%s', expected the name of a metric first, such as "
			       "p99_ttft_ms",
			       gate_flag(g->kind), text);
	memcpy(g->metric, name.p, name.n);
	g->metric[name.n] = '\0';
	return PD_OK;
}

static int parse_relative(struct gate *g, const char *text, struct pd_msg *msg)
{
	const char *colon = strrchr(text, ':'), *at, *end;
	enum metric_direction better;
	double percent;
	char sign;
	int err;

	if (!colon)
		return pd_fail(msg, PD_EINVAL,
			       "%s: found '%s', expected METRIC:+N%% or METRIC:-N%%, such as "
			       "p99_ttft_ms:+5%%",
			       gate_flag(g->kind), text);
	err = take_metric(g, text, (size_t)(colon - text), msg);
	if (err)
		return err;
	at = colon + 1 + strspn(colon + 1, " ");
	sign = *at == '+' || *at == '-' ? *at++ : '\0';
	if (!decimal(at, &percent, &end) || strcmp(end, "%") != 0)
		return pd_fail(msg, PD_EINVAL,
			       "%s: found '%s' after '%s:', expected a percentage such as +5%%",
			       gate_flag(g->kind), colon + 1, g->metric);
	better = metric_direction(g->metric);
	if (!sign && better == METRIC_NEUTRAL)
		return pd_fail(msg, PD_EINVAL,
			       "%s: '%s' has no better direction, expected a sign: +N%% or -N%%",
			       gate_flag(g->kind), g->metric);
	if ((sign == '-' && better == METRIC_LOWER) || (sign == '+' && better == METRIC_HIGHER))
		return pd_fail(msg, PD_EINVAL,
			       "%s: found '%s', which fails on an improvement because %s is better "
			       "when %s, expected '%s:%c%s'",
			       gate_flag(g->kind), text, g->metric,
			       better == METRIC_LOWER ? "lower" : "higher", g->metric,
			       better == METRIC_LOWER ? '+' : '-', at);
	g->op = sign == '-' || (!sign && better == METRIC_HIGHER) ? GATE_FALL : GATE_RISE;
	g->limit = percent / 100;
	return PD_OK;
}

static int parse_absolute(struct gate *g, const char *text, struct pd_msg *msg)
{
	size_t n = strcspn(text, "<>=");
	const char *at = text + n, *end;
	bool negative, less;
	int err;

	if (*at != '<' && *at != '>')
		return pd_fail(msg, PD_EINVAL,
			       "%s: found '%s', expected METRIC<=N, METRIC>=N, METRIC<N or "
			       "METRIC>N, such as p99_ttft_ms<=500",
			       gate_flag(g->kind), text);
	err = take_metric(g, text, n, msg);
	if (err)
		return err;
	less = *at++ == '<';
	g->op = less ? GATE_LT : GATE_GT;
	if (*at == '=') {
		at++;
		g->op = less ? GATE_LE : GATE_GE;
	}
	at += strspn(at, " ");
	negative = *at == '-';
	at += negative;
	if (!decimal(at, &g->limit, &end) || end[strspn(end, " ")])
		return pd_fail(msg, PD_EINVAL,
			       "%s: found '%s' in '%s', expected a number without a unit",
			       gate_flag(g->kind), at, text);
	g->limit = negative ? -g->limit : g->limit;
	return PD_OK;
}

int gate_parse(struct gate *g, enum gate_kind kind, const char *text, struct pd_msg *msg)
{
	memset(g, 0, sizeof(*g));
	g->kind = kind;
	g->text = text;
	return kind == GATE_REQUIRE ? parse_absolute(g, text, msg) : parse_relative(g, text, msg);
}

int gate_check(const struct compare *c, const struct gate *g, struct pd_msg *msg)
{
	const char *near;

	if (!compare_known(c, g->metric)) {
		near = compare_nearest(c, g->metric);
		return pd_fail(msg, PD_EINVAL, "%s: unknown metric '%s'%s%s%s", gate_flag(g->kind),
			       g->metric, near ? ", did you mean '" : "", near ? near : "",
			       near ? "'?" : "");
	}
	if (!compare_usable(c, g->metric))
		return compare_why_unusable(c, gate_flag(g->kind), g->metric, msg);
	return PD_OK;
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
	size_t broken = 0;
	double worst = cell->v[0];

	for (size_t i = 0; i < cell->n; i++) {
		bool up = g->op == GATE_LE || g->op == GATE_LT;

		broken += !holds(g->op, cell->v[i], g->limit);
		worst = up ? fmax(worst, cell->v[i]) : fmin(worst, cell->v[i]);
	}
	out->verdict = broken ? GATE_FAIL : GATE_PASS;
	(void)snprintf(out->why, sizeof(out->why), "worst run %.6g%s%s, %zu of %zu runs hold",
		       worst, metric_unit(g->metric)[0] ? " " : "", metric_unit(g->metric),
		       cell->n - broken, cell->n);
}

static double percent(double ratio)
{
	return ratio * 100;
}

/* Changes are judged as "how far in the direction of the gate", so that one comparison serves both
 * signs. */
static void judge_relative(const struct gate *g, const struct compare_row *row, size_t side,
			   bool strict, struct gate_result *out)
{
	const struct compare_change *ch = &row->change[side];
	double towards = g->op == GATE_RISE ? ch->change : -ch->change;
	double bound = g->op == GATE_RISE ? ch->lo : -ch->hi;
	bool beyond = towards > g->limit, proven = ch->significant && bound > g->limit;
	enum gate_verdict bad = g->kind == GATE_WARN_ON ? GATE_WARN : GATE_FAIL;
	size_t n = 0;

	out->indicative = ch->basis != COMPARE_RUNS;
	if (out->indicative) {
		out->verdict = strict ? GATE_INCONCLUSIVE : beyond ? bad : GATE_PASS;
		n = (size_t)snprintf(out->why, sizeof(out->why), "change %+.2f%%, %s",
				     percent(ch->change),
				     ch->basis == COMPARE_SINGLE ? "single run, indicative"
								 : "too few runs, indicative");
	} else {
		out->verdict = proven ? bad : beyond && strict ? GATE_INCONCLUSIVE : GATE_PASS;
		n = (size_t)snprintf(out->why, sizeof(out->why), "change %+.2f%%, p=%.3g%s",
				     percent(ch->change), ch->p,
				     beyond && !proven ? ", beyond the limit but not proven" : "");
	}
	if (n < sizeof(out->why) && !isnan(ch->lo))
		(void)snprintf(out->why + n, sizeof(out->why) - n, ", interval [%+.2f%%, %+.2f%%]",
			       percent(ch->lo), percent(ch->hi));
}

int gate_judge(struct compare *c, const struct gate *g, size_t side, bool strict,
	       struct gate_result *out)
{
	struct compare_row *row;
	int err = compare_row(c, g->metric, &row);

	if (err)
		return err;
	memset(out, 0, sizeof(*out));
	out->gate = g;
	out->side = side;
	if (g->kind == GATE_REQUIRE)
		judge_absolute(g, &row->cell[side], out);
	else
		judge_relative(g, row, side, strict, out);
	return PD_OK;
}
