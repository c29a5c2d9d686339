/*
 * From a workload and the options of a run to the input of its schedule: own times, think times,
 * which request follows which. `bench` and `simulate` both call this, with the same names of
 * options. Pure: the same workload, options and seed give the same plan on every machine.
 */
#ifndef PD_WORKLOAD_SCHEDULE_PLAN_H
#define PD_WORKLOAD_SCHEDULE_PLAN_H

#include "lib/workload/arrivals.h"
#include "lib/workload/schedule.h"
#include "lib/workload/workload.h"

struct schedule_options {
	size_t requests; /* how many of the workload's requests, from its start; 0: all */
	bool timestamps; /* own times are the workload's; else they are made */
	double speedup;	 /* more than 0; divides time stamps and think times */
	bool spread; /* with timestamps: requests of one time stamp move to random moments before
			the next one, in their order */
	double request_rate; /* without timestamps: requests per second; INFINITY: all at 0 */
	double burstiness;   /* see arrivals.h; 1 is Poisson */
	const struct arrivals_phase *phase; /* instead of request_rate when nphases > 0; borrowed */
	size_t nphases;
	double session_rate; /* > 0, instead of both: each session is a user that sends at this
				rate, Poisson, on its own; requests without a session are one user
				each, all starting at random in the first mean gap */
	uint64_t seed;
};

struct schedule_plan {
	int64_t *at_ns;	   /* owned, as the following; n each */
	int64_t *think_ns; /* NULL when no request has one */
	uint32_t *before;  /* NULL when no request follows another */
	uint32_t *session; /* NULL likewise */
	size_t n;
	uint32_t nsessions;
	bool stamped; /* the times are the workload's */
};

/* PD_EINVAL with a message that names the option as both commands spell it. */
int schedule_plan_make(struct schedule_plan *p, const struct workload *w,
		       const struct schedule_options *o, struct pd_msg *msg) PD_MUST;
void schedule_plan_release(struct schedule_plan *p);

/* A view; valid as long as the plan. */
struct schedule_input schedule_plan_input(const struct schedule_plan *p);

#endif
