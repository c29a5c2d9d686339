/*
 * From a workload and options to the list of what is sent when, with which session key. Pure: the
 * same input gives the same plan.
 */
#ifndef PD_LOAD_LOADPLAN_H
#define PD_LOAD_LOADPLAN_H

#include "lib/load/load.h"

struct load_plan_options {
	size_t requests; /* how many of the workload's requests, from its start; 0: all */
	const char
		*pattern; /* session pattern that makes the keys, or NULL: the record's own key */
	double request_rate; /* per second; INFINITY: as soon as possible */
	double burstiness;
	bool timestamps; /* the workload's own arrival times instead of a rate */
	double speedup;	 /* divides them, and think times */
	uint64_t seed;
};

struct load_plan {
	struct load_item *item; /* owned */
	size_t n;
	struct workload_request *request; /* owned copies, with scaled think times */
	char **name;			  /* owned session names */
	size_t nnames;
	bool scheduled;
};

/* PD_EINVAL with a message that names the flag or the line. The workload must outlive the plan. */
int load_plan_make(struct load_plan *p, const struct workload *w, const struct load_plan_options *o,
		   struct pd_msg *msg) PD_MUST;
void load_plan_release(struct load_plan *p);

/*
 * The built-in workload as text in the format of a workload file: `requests` independent prompts of
 * input_tokens each, or, with sessions > 0, that many sessions of `turns` requests, three quarters
 * of whose prompt is the session's own and always the same.
 */
int load_plan_builtin(struct buf *out, int64_t requests, int64_t sessions, int64_t turns,
		      int64_t input_tokens, uint64_t seed) PD_MUST;

#endif
