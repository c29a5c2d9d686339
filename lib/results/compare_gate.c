/* Parsing and checking of gates; see the header for the rules and why signs are checked. */
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

bool gate_percent(const char *text, double *ratio)
{
	const char *end;

	if (!decimal(text, ratio, &end) || strcmp(end, "%") != 0)
		return false;
	*ratio /= 100;
	return true;
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
