/* Sums first, one rounding at the end. */
#include "sim/engine/stepcost.h"

#include <math.h>

int stepcost_check(const struct stepcost *c, struct pd_msg *msg)
{
	const double value[] = {c->a, c->b, c->c, c->d, c->e};
	const char name[] = "abcde";

	for (size_t i = 0; i < sizeof(value) / sizeof(value[0]); i++)
		if (!isfinite(value[i]) || value[i] < 0 || value[i] > 1e9)
			return pd_fail(msg, PD_EINVAL,
				       "step time '%c': found %g, expected 0 to 1e9 microseconds",
				       name[i], value[i]);
	return PD_OK;
}

struct stepload stepcost_load(const struct sched_step *step)
{
	struct stepload l = {0};

	for (size_t i = 0; i < step->n; i++) {
		const struct sched_entry *e = &step->entry[i];

		if (e->tokens == 1 && e->start >= e->seq->prompt) {
			l.decodes++;
			l.context += (uint64_t)e->start + 1;
			continue;
		}
		l.prefill += e->tokens;
		l.attention += (double)e->tokens * (e->start + e->tokens / 2.0);
	}
	return l;
}

#define UNITS_PER_US (1e3 * (1 << STEPCOST_FRACTION))

stepcost_time stepcost_step(const struct stepcost *c, const struct stepload *l)
{
	/* This order of additions is part of the contract: roundings depend on it. */
	double us = c->a + c->b * l->prefill + c->e * l->attention + c->c * (double)l->decodes;

	if (c->whole_us) {
		us += c->d * (double)l->context;
		return (stepcost_time)(int64_t)nearbyint(us) * (1000 << STEPCOST_FRACTION);
	}
	return (stepcost_time)nearbyint(us * UNITS_PER_US) + stepcost_growth(c, l->context);
}

stepcost_time stepcost_growth(const struct stepcost *c, uint64_t decodes)
{
	return (stepcost_time)nearbyint(c->d * UNITS_PER_US) * (stepcost_time)decodes;
}
