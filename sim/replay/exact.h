/*
 * A capture replayed as it happened: each pick, computed prompt and end in the order of its number,
 * on workers that were available when they were. Each decision is made anew from the state that the
 * router had, by the same code, and compared with the captured one; then the captured one counts,
 * so that a difference does not lead to others.
 *
 * A decision whose span overlaps no other event has exactly one state before it. Where several
 * threads decided or released at once, the order inside their spans is not known: a decision agrees
 * when it agrees in one of the states that this order leaves open, or with the loads that the
 * capture says it found.
 *
 * Pure apart from the log that it reads. Deterministic.
 */
#ifndef PD_SIM_REPLAY_EXACT_H
#define PD_SIM_REPLAY_EXACT_H

#include "lib/route/policy/policies.h"
#include "lib/workload/capture_log.h"

struct exact_pool {
	bool used; /* the router had workers of this role, and they were picked */
	char policy[ROUTE_SPEC_MAX];
	size_t workers;	    /* different ones, in all fleets */
	uint64_t decisions; /* compared */
	uint64_t agreed;
	uint64_t overlapped; /* of decisions: other events in their span */
	uint64_t hashed;     /* not compared: their key is a stand-in */
};

struct exact_result {
	struct exact_pool pool[CAPTURE_ROLES];
	uint64_t events, requests, retries;
	uint64_t dropped; /* records that the capture lacks */
};

/* An event, after it was replayed. Valid during the call. */
struct exact_event {
	const struct capture_event *e;
	const struct capture_call *call;
	const char *worker;  /* captured */
	const char *decided; /* PICKED: by the replay; NULL: nobody could be picked */
	enum route_reason reason;
	bool compared, agreed;
};

struct exact_options {
	/* NULL: the captured policy of each fleet. Else these, by role. */
	const struct route_spec *policy[CAPTURE_ROLES];
	const struct route_settings *settings; /* parameters that the policies' texts do not tell */
	/* NULL: not. Its error ends the replay. */
	int (*event)(void *ctx, const struct exact_event *e);
	void *ctx;
};

int exact_run(const struct capture_log *log, const struct exact_options *opt,
	      struct exact_result *out, struct pd_msg *msg) PD_MUST;

#endif
