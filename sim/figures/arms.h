/*
 * The arms of an experiment: replays of one trace that differ in policy, number of workers or cache
 * size, each with its result and the figures that follow from it.
 */
#ifndef PD_SIM_FIGURES_ARMS_H
#define PD_SIM_FIGURES_ARMS_H

#include "sim/figures/figures.h"

#define ARM_LABEL_MAX 520 /* two policies with their parameters, a hash */

/* One arm: the input of one replay, and its results. */
struct arm {
	char policy[ARM_LABEL_MAX]; /* as the user wrote it */
	uint32_t workers;	    /* of the plain pool; P/D: prefill + decode */
	uint64_t cache;
	struct replay_config cfg;
	struct replay_result result;
	struct figures figures;
	char **names[REPLAY_POOLS];  /* owned */
	bool *absent[REPLAY_POOLS];  /* owned */
	struct replay_event *events; /* owned */
};

struct arms {
	struct arm *arm; /* owned */
	size_t n;
};

/* Workers failed, and no request completed. */
bool arm_is_dead(const struct arm *a);
/* Runs all of them over one trace. */
int arms_run(struct arms *a, const struct simtrace *t, struct pd_msg *msg) PD_MUST;
void arms_release(struct arms *a);

#endif
