/* Every arm with every other one: a few thousand arms are compared in a few milliseconds. */
#include "sim/figures/front.h"

#include <math.h>

static size_t figures_of(const struct arms *arms, const struct verdict_rules *rules,
			 const struct objective *objective, struct objective out[VERDICT_FRONT_MAX])
{
	bool varies = false;
	size_t column;

	for (size_t i = 0; i < rules->nfront; i++)
		out[i] = rules->front[i];
	if (rules->nfront > 0)
		return rules->nfront;
	for (size_t i = 1; i < arms->n; i++)
		varies |= arms->arm[i].workers != arms->arm[0].workers;
	out[0] = *objective;
	if (objective_parse(&out[1], varies ? "workers" : "peak_to_mean", &column, NULL))
		return 1;
	return 2;
}

/* Smaller is better. */
static double cost(const struct objective *o, const struct arm *a)
{
	double value = objective_value(o, a, SIZE_MAX);

	return o->higher ? -value : value;
}

static bool beaten(const struct arm *a, const struct arm *by, const struct objective *o, size_t n)
{
	bool better = false;

	for (size_t k = 0; k < n; k++) {
		double mine = cost(&o[k], a), other = cost(&o[k], by);

		if (!(other <= mine))
			return false;
		better |= other < mine;
	}
	return better;
}

void front_mark(struct arms *arms, const struct verdict_rules *rules,
		const struct objective *objective)
{
	struct objective o[VERDICT_FRONT_MAX];
	size_t n = figures_of(arms, rules, objective, o);

	for (size_t i = 0; i < arms->n; i++) {
		struct arm *a = &arms->arm[i];

		a->pareto = true;
		for (size_t k = 0; k < n; k++)
			a->pareto &= isfinite(cost(&o[k], a));
		for (size_t k = 0; a->pareto && k < arms->n; k++)
			a->pareto = !beaten(a, &arms->arm[k], o, n);
	}
}

int front_text(const struct arms *arms, const struct verdict_rules *rules,
	       const struct objective *objective, struct buf *out)
{
	struct objective o[VERDICT_FRONT_MAX];
	size_t n = figures_of(arms, rules, objective, o);
	int err = PD_OK;

	for (size_t i = 0; !err && i < n; i++)
		err = buf_printf(out, "%s%s", i ? ", " : "", o[i].text);
	return err;
}
