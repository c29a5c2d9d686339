/*
 * From a workload and options to the list of what is sent when, with which session key. Pure: the
 * same input gives the same plan.
 */
#ifndef PD_LOAD_LOADPLAN_H
#define PD_LOAD_LOADPLAN_H

#include "lib/load/load.h"
#include "lib/workload/schedule_plan.h"

/* What the key on the wire stands for. A pattern replaces all but NONE. */
enum load_affinity {
	LOAD_AFFINITY_KEY,     /* the record's own key */
	LOAD_AFFINITY_SESSION, /* its session */
	LOAD_AFFINITY_PREFIX,  /* its prefix group */
	LOAD_AFFINITY_NONE     /* no key is sent; sessions keep their names in the records */
};

struct load_plan_options {
	struct schedule_options schedule;
	const char *pattern; /* session pattern that makes the names, or NULL */
	enum load_affinity affinity;
};

struct load_plan {
	struct load_item *item; /* owned */
	size_t n;
	struct schedule_plan schedule;
	char **name; /* owned session names */
	size_t nnames, names_cap;
	size_t keyed; /* requests with a key */
	bool scheduled;
};

/* PD_EINVAL with a message that names the flag or the line. The workload must outlive the plan. */
int load_plan_make(struct load_plan *p, const struct workload *w, const struct load_plan_options *o,
		   struct pd_msg *msg) PD_MUST;
void load_plan_release(struct load_plan *p);

/* Do requests of one prefix group have different keys? How many groups have keys, and how many of
 * them are split: these defeat a router that keeps keys together. */
bool load_plan_splits_groups(const struct load_plan *p, size_t *groups, size_t *split);

/* Keeps the part-th (from 1) of `parts` parts: whole sessions, else every parts-th request. Their
 * times stay. PD_ENOMEM. */
int load_plan_shard(struct load_plan *p, int64_t part, int64_t parts) PD_MUST;

struct load_builtin {
	int64_t requests;
	int64_t sessions, turns; /* sessions > 0: that many of so many turns, instead of requests */
	int64_t input_tokens;
	int64_t output_tokens; /* stated in each record; 0: not stated */
	int64_t prefixes;      /* > 0: each prompt begins with one of so many prefixes, in turn */
	int64_t prefix_tokens; /* of input_tokens; whole blocks of 16 */
	double range;	       /* lengths are uniform in length * (1 - range, 1 + range) */
	uint64_t seed;
};

/*
 * The built-in workload as text in the format of a workload file: independent prompts, or sessions,
 * three quarters of whose prompt is the session's own and always the same.
 */
int load_plan_builtin(struct buf *out, const struct load_builtin *b) PD_MUST;

#endif
