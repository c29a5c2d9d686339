/*
 * The arrivals of a measured run through the engine model, with given costs: what would have been
 * measured, and what was in the steps that each request waited for.
 */
#ifndef PD_SIM_FIT_FITRUN_H
#define PD_SIM_FIT_FITRUN_H

#include "sim/engine/stepper.h"

#define FIT_TERMS 5 /* of the cost: see fit_term_names */

/* "a", "b", "c", "d", "e": the order of all arrays of terms. */
extern const char *const fit_term_names[FIT_TERMS];

struct fit_request {
	int64_t arrival_ns; /* from the first one */
	uint32_t prompt, output;
	double ttft_ms, e2e_ms; /* measured */
};

struct fit_engine {
	struct sched_config sched;
	uint32_t ranks;	 /* data parallel; each has the memory and seats of `sched` */
	bool lockstep;	 /* ranks wait for the slowest in each step (expert parallel) */
	int64_t cold_ns; /* the first step takes so much longer: an engine that has just started */
};

struct fit_outcome {
	double ttft_ms, e2e_ms;
	/* Sums over the steps that began behind its arrival, until its first token; and over those
	 * from there to its last. */
	double until_first[FIT_TERMS], until_last[FIT_TERMS];
	double waited_ms; /* for the step that ran when it arrived */
};

/* out: n of them. PD_EINVAL when a request can never fit or waits for ever. */
int fit_run(const struct fit_engine *engine, const struct stepcost *cost,
	    const struct fit_request *r, size_t n, struct fit_outcome *out,
	    struct pd_msg *msg) PD_MUST;

#endif
