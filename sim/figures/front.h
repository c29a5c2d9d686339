/* The Pareto front of an experiment: the arms that no other arm beats in one figure without losing
 * in another. */
#ifndef PD_SIM_FIGURES_FRONT_H
#define PD_SIM_FIGURES_FRONT_H

#include "sim/figures/verdict.h"

/* Sets `pareto` of the arms. An arm without one of the figures is not on the front. Figures: those
 * of the rules, else the objective with the number of workers, if that varies, or with the balance.
 */
void front_mark(struct arms *arms, const struct verdict_rules *rules,
		const struct objective *objective);
/* The same figures as text, "mean_ttft_ms, workers". */
int front_text(const struct arms *arms, const struct verdict_rules *rules,
	       const struct objective *objective, struct buf *out) PD_MUST;

#endif
