/*
 * What follows from the counts and latencies of a replay: ratios, balance over the workers,
 * percentiles, and the bounds for every policy (which depend on the trace and the pool alone).
 */
#ifndef PD_SIM_FIGURES_FIGURES_H
#define PD_SIM_FIGURES_FIGURES_H

#include "sim/figures/balance.h"
#include "sim/figures/movedkeys.h"
#include "sim/figures/timeline.h"
#include "sim/replay/replay.h"

struct pool_figures {
	double session_consistency; /* share of multi_keys with all requests on one worker; NAN when
				       there are none */
	double stickiness; /* share of follow-up requests on the worker of the one before; NAN when
			      none */
	uint64_t blocks, hit_blocks, hit_tokens, input_tokens; /* sums over the workers */
	double block_hit_rate, token_hit_rate;		       /* NAN without blocks */
	struct balance requests, tokens, uncached, sessions;   /* over the workers */
	double floor_sessions; /* balls-in-bins: peak-to-mean that a perfect hash would give; 0
				  without keys */
	double floor_requests; /* the same, each session weighing its requests */
	double floor_idle;     /* workers that stay idle under a perfect hash */
	struct movedkeys moved;
};

struct figures {
	struct pool_figures pool[REPLAY_POOLS];
	struct spread ttft, tpot, e2el; /* ms, simulated; n 0 when routing only */
	struct spread queue;		/* ms until the first step that computes the prompt */
	double itl_ms;			/* mean time between two tokens; NAN without */
	uint64_t good, left_over;	/* requests within the goals; not over at the end */
	bool goals;			/* there are some */
	struct timeline time;
};

/* Takes the requests out of the result: they are summed up and freed. goals NULL: none. Release
 * also after a failure. */
int replay_figures(struct figures *out, const struct simtrace *t, const struct replay_config *cfg,
		   const struct figures_goals *goals, struct replay_result *r,
		   struct pd_msg *msg) PD_MUST;
void figures_release(struct figures *f);

#endif
