/*
 * Costs of a step from measured times. Sums of what was in the steps that requests waited for give
 * a linear system, whose non-negative solution changes the steps; after a few rounds a simplex
 * search on means and single errors ends it. Only times of the first `nfit` requests are looked at;
 * lengths and arrivals of all, because they ran together.
 *
 * Pure: the same input gives the same fit on every machine.
 */
#ifndef PD_SIM_FIT_FIT_H
#define PD_SIM_FIT_FIT_H

#include "sim/fit/fitrun.h"

struct fit_limits {
	double floor[FIT_TERMS]; /* what the hardware cannot beat; 0: not known */
	double prior[FIT_TERMS]; /* expected; 0: not known */
	double known_e;		 /* attention cannot be seen in short prompts: it is given */
};

struct fit_result {
	struct stepcost cost;
	double cold_ms;	  /* that the first step took longer */
	double condition; /* of the scaled system: what an error in times may be multiplied by */
	double inflation[FIT_TERMS]; /* variance inflation of each term; above 10 it cannot be told
				      */
	int twin[FIT_TERMS];	     /* the term that it is most like, or -1 */
	bool used[FIT_TERMS];
	bool at_floor[FIT_TERMS];
	unsigned runs; /* of the engine */
};

int fit_costs(const struct fit_engine *engine, const struct fit_request *r, size_t n, size_t nfit,
	      const struct fit_limits *limits, struct fit_result *out, struct pd_msg *msg) PD_MUST;

#endif
