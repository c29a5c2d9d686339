/*
 * The figures of a replay by name: one table behind the expectations of scenarios, the columns of
 * the table and the JSON document, so a name means the same thing everywhere.
 */
#ifndef PD_SIM_FIGURES_METRICS_H
#define PD_SIM_FIGURES_METRICS_H

#include "sim/figures/arms.h"

enum simmetric_better { SIMMETRIC_NEITHER, SIMMETRIC_LOWER, SIMMETRIC_HIGHER };

struct simmetric {
	const char *name;
	bool per_pool; /* has a value per pool; else one for the whole replay */
	enum simmetric_better better;
	const char *unit;
	const char *help;
	double (*get)(const struct arm *a, size_t pool); /* of one replay that was just made;
							    NAN: not defined for it */
};

/* Ends with an entry whose name is NULL. */
extern const struct simmetric simmetrics[];

const struct simmetric *simmetric_find(const char *name, size_t len);
/* All of them for the replay whose result and figures the arm holds. */
void simmetrics_take(const struct arm *a, struct arm_values *out);
/* The mean over the repetitions of the arm; NAN: not defined in one of them. Of a metric of the
 * whole run `pool` does not count. */
double simmetric_value(const struct simmetric *m, const struct arm *a, size_t pool);

/* The nearest name by edit distance, or NULL when none is close. */
const char *simmetric_nearest(const char *word);

#endif
