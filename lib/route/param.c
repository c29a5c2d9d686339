#include "lib/route/param.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *at(const struct route_param *p, const void *params)
{
	return (char *)(uintptr_t)params + p->offset;
}

static void store(const struct route_param *p, void *params, double v)
{
	if (p->type == ROUTE_PARAM_REAL)
		memcpy(at(p, params), &v, sizeof(v));
	else
		memcpy(at(p, params), &(int64_t){(int64_t)v}, sizeof(int64_t));
}

static int64_t whole_of(const struct route_param *p, const void *params)
{
	int64_t v;

	memcpy(&v, at(p, params), sizeof(v));
	return v;
}

static double real_of(const struct route_param *p, const void *params)
{
	double v;

	memcpy(&v, at(p, params), sizeof(v));
	return v;
}

void route_params_default(const struct route_param *list, void *params)
{
	for (const struct route_param *p = list; p && p->type; p++)
		store(p, params, p->fallback);
}

/* The nth word of "a|b|c"; p NULL when there are not so many. */
static struct span nth_word(const char *choices, int64_t n)
{
	for (; n > 0 && choices; n--) {
		choices = strchr(choices, '|');
		if (choices)
			choices++;
	}
	return (struct span){choices, choices ? strcspn(choices, "|") : 0};
}

int route_param_set(const struct route_param *p, void *params, struct span text, struct pd_msg *msg)
{
	int shown = text.n > 80 ? 80 : (int)text.n;
	char copy[64], *end;
	double v;

	if (p->type == ROUTE_PARAM_CHOICE) {
		for (int64_t i = 0; nth_word(p->choices, i).p; i++) {
			if (!span_eq(nth_word(p->choices, i), text))
				continue;
			store(p, params, (double)i);
			return PD_OK;
		}
		return pd_fail(msg, PD_EINVAL, "found '%.*s', expected one of %s", shown, text.p,
			       p->choices);
	}
	memcpy(copy, text.p, text.n < sizeof(copy) ? text.n : 0);
	copy[text.n < sizeof(copy) ? text.n : 0] = '\0';
	errno = 0;
	v = p->type == ROUTE_PARAM_INT ? (double)strtoll(copy, &end, 10) : strtod(copy, &end);
	if (end == copy || *end || errno || !(v >= p->min && v <= p->max))
		return pd_fail(msg, PD_EINVAL, "found '%.*s', expected a %snumber from %g to %.10g",
			       shown, text.p, p->type == ROUTE_PARAM_INT ? "whole " : "", p->min,
			       p->max);
	store(p, params, v);
	return PD_OK;
}

int route_param_print(const struct route_param *p, const void *params, struct buf *out)
{
	struct span word;

	if (p->type == ROUTE_PARAM_INT)
		return buf_printf(out, "%lld", (long long)whole_of(p, params));
	if (p->type == ROUTE_PARAM_REAL)
		return buf_printf(out, "%.17g", real_of(p, params));
	word = nth_word(p->choices, whole_of(p, params));
	return buf_append(out, word.p, word.n);
}

double route_param_number(const struct route_param *p, const void *params)
{
	return p->type == ROUTE_PARAM_REAL ? real_of(p, params) : (double)whole_of(p, params);
}

bool route_param_named(const char *name, struct span text)
{
	if (!name || strlen(name) != text.n)
		return false;
	for (size_t i = 0; i < text.n; i++)
		if (name[i] != text.p[i] && !(name[i] == '-' && text.p[i] == '_'))
			return false;
	return true;
}
