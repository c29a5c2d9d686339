/*
 * What a decision cost: the replay is made again with the one choice changed, from the same state
 * to the same end, once for each other worker. So a choice that was best by its policy's own score
 * still has regret when another one would have been faster. Plain pools with engines only.
 */
#ifndef PD_SIM_FIGURES_REGRET_H
#define PD_SIM_FIGURES_REGRET_H

#include "sim/replay/replay.h"

#define REGRET_DECISIONS_MAX 1000
#define REGRET_WORKERS_MAX                                                                         \
	16 /* others that are tried for a decision: in pools of more some of them */

struct regret_decision {
	uint32_t request, chosen, better; /* better: the best other worker */
	double own_ms;	 /* TTFT of the request there, minus as it was: below 0 it was better */
	double total_ms; /* TTFT of all requests together, likewise, with the worker best for that
			  */
};

struct regret {
	struct regret_decision *item; /* owned */
	size_t n;
	double mean_ms; /* of max(0, -own_ms) */
	double mean_total_ms;
	double not_best; /* share of decisions for which another worker was better by 1 ms or more
			  */
};

/* `decisions` of them, evenly over the requests that completed. `was` is the replay as it was.
 * PD_ENOMEM and errors of replay_run. Release also after a failure. */
int regret_make(struct regret *out, const struct simtrace *t, const struct replay_config *cfg,
		const struct replay_result *was, size_t decisions, struct pd_msg *msg) PD_MUST;
void regret_release(struct regret *r);

#endif
