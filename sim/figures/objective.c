/* The language is one line, and its errors name a column, as expectations do. */
#include "sim/figures/objective.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int wrong(const char *text, const char *at, size_t *column, struct pd_msg *msg,
		 const char *expected)
{
	size_t n = strcspn(at, " \t+*");

	*column = (size_t)(at - text) + 1;
	if (*at == '\0')
		return pd_fail(msg, PD_EINVAL, "the objective ends here: expected %s", expected);
	return pd_fail(msg, PD_EINVAL, "found '%.*s': expected %s", (int)(n > 60 ? 60 : n), at,
		       expected);
}

static const char *skip(const char *p)
{
	return p + strspn(p, " \t");
}

static int read_term(const char *text, const char **at, struct objective_term *t, size_t *column,
		     struct pd_msg *msg)
{
	const char *p = skip(*at), *near;
	char name[64], *end;
	size_t n;

	*t = (struct objective_term){.weight = 1};
	if (isdigit((unsigned char)*p) || *p == '.') {
		t->weight = strtod(p, &end);
		if (!isfinite(t->weight) || !(t->weight > 0) || *skip(end) != '*')
			return wrong(text, p, column, msg, "a number above 0 and '*'");
		p = skip(skip(end) + 1);
	}
	n = strcspn(p, " \t+*");
	if (n > 8 && memcmp(p, "prefill.", 8) == 0) {
		p += 8;
		n -= 8;
	} else if (n > 7 && memcmp(p, "decode.", 7) == 0) {
		p += 7;
		n -= 7;
		t->pool = 1;
	}
	t->metric = n == 7 && memcmp(p, "goodput", 7) == 0 ? simmetric_find("goodput_share", 13)
							   : simmetric_find(p, n);
	if (!t->metric) {
		(void)snprintf(name, sizeof(name), "%.*s", (int)(n > 60 ? 60 : n), p);
		near = n > 0 ? simmetric_nearest(name) : NULL;
		if (!near)
			return wrong(text, p, column, msg,
				     "the name of a metric, such as p99_ttft_ms");
		*column = (size_t)(p - text) + 1;
		return pd_fail(msg, PD_EINVAL, "unknown metric '%s': did you mean '%s'?", name,
			       near);
	}
	if (t->metric->better == SIMMETRIC_NEITHER)
		return wrong(text, p, column, msg, "a metric that is better high or low");
	*at = skip(p + n);
	return PD_OK;
}

int objective_parse(struct objective *o, const char *text, size_t *column, struct pd_msg *msg)
{
	const char *p = text;
	int err;

	*o = (struct objective){.n = 0};
	*column = 1;
	if (strlen(text) >= sizeof(o->text))
		return pd_fail(msg, PD_EINVAL, "objective of %zu characters: expected at most %zu",
			       strlen(text), sizeof(o->text) - 1);
	(void)snprintf(o->text, sizeof(o->text), "%s", text);
	for (;;) {
		const char *start = skip(p);

		if (o->n == OBJECTIVE_TERMS_MAX)
			return wrong(text, start, column, msg, "at most 8 terms");
		err = read_term(text, &p, &o->term[o->n], column, msg);
		if (err)
			return err;
		if (o->n > 0 && o->term[o->n].metric->better != o->term[0].metric->better)
			return wrong(text, start, column, msg,
				     "metrics that are better in the same direction");
		o->n++;
		if (*p == '\0')
			break;
		if (*p != '+')
			return wrong(text, p, column, msg, "'+' or the end");
		p++;
	}
	o->higher = o->term[0].metric->better == SIMMETRIC_HIGHER;
	return PD_OK;
}

double objective_value(const struct objective *o, const struct arm *a, size_t rep)
{
	double sum = 0;

	for (size_t i = 0; i < o->n; i++) {
		const struct objective_term *t = &o->term[i];
		size_t pool = t->metric->per_pool ? (size_t)t->pool : 0;

		sum += t->weight * (rep == SIZE_MAX ? simmetric_value(t->metric, a, pool)
						    : a->rep[rep].v[t->metric - simmetrics][pool]);
	}
	return o->n > 0 ? sum : (double)NAN;
}

double objective_window(const struct objective *o, const struct arm *a, size_t window)
{
	double sum = 0;

	for (size_t i = 0; i < o->n; i++) {
		const struct objective_term *t = &o->term[i];
		size_t k = 0;

		while (k < TIMELINE_WINDOW_FIGURES &&
		       (t->pool > 0 || strcmp(timeline_window_metric[k], t->metric->name) != 0))
			k++;
		if (k == TIMELINE_WINDOW_FIGURES)
			return (double)NAN;
		sum += t->weight * a->figures.time.window[k][window];
	}
	return sum;
}

/* Values of both sides in pairs; how many are defined on both. */
static size_t pairs(const struct objective *o, const struct arm *a, const struct arm *b,
		    bool windows, double *x, double *y)
{
	size_t n = windows ? a->figures.time.nwindows : a->nreps, kept = 0;

	if (windows ? b->figures.time.nwindows != n : b->nreps != n)
		return 0;
	for (size_t i = 0; i < n; i++) {
		x[kept] = windows ? objective_window(o, a, i) : objective_value(o, a, i);
		y[kept] = windows ? objective_window(o, b, i) : objective_value(o, b, i);
		kept += isfinite(x[kept]) && isfinite(y[kept]);
	}
	return kept;
}

static bool all_equal(const double *v, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (v[i] < v[0] || v[i] > v[0])
			return false;
	return true;
}

/* The error of log(sum x / sum y): residuals of x from the line through the origin. */
static double error_of(const double *x, const double *y, size_t n)
{
	double sx = 0, sy = 0, squares = 0, ratio;

	for (size_t i = 0; i < n; i++) {
		sx += x[i];
		sy += y[i];
	}
	if (!(sx > 0) || !(sy > 0))
		return (double)NAN;
	ratio = sx / sy;
	for (size_t i = 0; i < n; i++)
		squares += (x[i] - ratio * y[i]) * (x[i] - ratio * y[i]);
	return sqrt(squares / (double)(n - 1) / (double)n) / (sx / (double)n);
}

struct contrast contrast_of(const struct objective *o, const struct arm *a, const struct arm *b)
{
	double x[ARM_REPS_MAX], y[ARM_REPS_MAX], va = objective_value(o, a, SIZE_MAX),
						 vb = objective_value(o, b, SIZE_MAX);
	struct contrast c = {.log_ratio = (double)NAN, .se = (double)NAN, .df = (double)NAN};
	size_t n = pairs(o, a, b, false, x, y);

	_Static_assert(TIMELINE_WINDOWS <= ARM_REPS_MAX, "room for windows");
	if (!isfinite(va) || !isfinite(vb))
		return c;
	if (va > 0 && vb > 0)
		c.log_ratio = log(va / vb);
	else if (!(va < vb) && !(va > vb))
		c.log_ratio = 0;
	else
		return c;
	c.windows = n < 2 || (all_equal(x, n) && all_equal(y, n));
	if (c.windows)
		n = pairs(o, a, b, true, x, y);
	c.equal = !(va < vb) && !(va > vb);
	for (size_t i = 0; i < n; i++)
		c.equal &= !(x[i] < y[i]) && !(x[i] > y[i]);
	if (n < 2)
		return c;
	c.n = n;
	c.se = c.equal ? 0 : error_of(x, y, n);
	c.df = (double)(n - 1);
	return c;
}
