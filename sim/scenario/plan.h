/*
 * What is simulated: a workload, pools, policies and the dimensions that are varied. A scenario
 * file and the command line fill the same struct. plan_arms() makes one arm per combination of
 * policy, worker count and cache size.
 */
#ifndef PD_SIM_SCENARIO_PLAN_H
#define PD_SIM_SCENARIO_PLAN_H

#include "lib/route/policy/policies.h"
#include "sim/figures/arms.h"
#include "sim/scenario/load.h"

#define PLAN_ARMS_MAX 256

/* A worker that differs from the others of its pool. */
struct plan_node {
	const char *worker; /* name, or number from 1 */
	struct engine_params engine;
	bool has_cache;
	uint64_t cache_blocks;
	const char *host;	   /* NULL: as `hosts` of the pool says */
	const char *const *labels; /* "NAME=VALUE" */
	size_t nlabels;
};

/* One pool as the user describes it: names, or a count and a pattern in which {i} is 1, 2, ... */
struct plan_pool {
	const char *const *names; /* explicit identities; then counts is one entry, nnames */
	size_t nnames;
	const char *pattern; /* NULL: the role's default */
	const uint32_t *counts;
	size_t ncounts; /* 0: the pool does not exist */
	bool own_engine;
	struct engine_params engine; /* when own_engine, else the plan's */
	const struct plan_node *each;
	size_t neach;
	uint32_t hosts; /* workers are spread over so many, "host-1", ... in turn; 0: not said */
};

/* An event as the user describes it. */
struct plan_event {
	struct replay_event event;
	const char *worker; /* name, or number from 1; resolved against each arm's pool */
	const char *pool;   /* "prefill", "decode" or NULL */
	const char *place;  /* "FILE:LINE:COLUMN" of the event; NULL: none */
};

struct epp_config;

struct plan {
	const char *name;   /* of the scenario; NULL from the command line */
	const char *source; /* file name of the scenario or of the workload, for messages and the
			       document */
	const char *point;  /* what a sweep set, "PATH=VALUE ..."; NULL: nothing */
	uint64_t seed;
	struct plan_pool workers, prefill, decode; /* workers, or the other two */
	const char *const *policies;		   /* POLICY[@HASH] or PREFILL/DECODE */
	size_t npolicies;
	struct route_settings settings; /* parameters that are not in a policy's text */
	const struct epp_config *epp;	/* of the policy `scores`; NULL: none */
	const uint64_t *caches;
	size_t ncaches; /* 0: one, unlimited */
	struct engine_params engine;
	double transfer_ms, transfer_us_token;
	bool host_link;
	double host_transfer_ms, host_transfer_us_token;
	uint32_t routers;
	bool routers_by_session;
	int64_t scrape_ns, scrape_delay_ns, backoff_ns;
	uint32_t attempts;
	uint32_t max_concurrency, concurrent_sessions;
	struct route_decider_spec decider;
	bool routing_only, hide_keys;
	struct figures_goals goals;
	size_t regret; /* decisions of each arm to ask about; 0: none */
	const struct plan_event *events;
	size_t nevents;
};

/* Builds the arms without running them. PD_EINVAL names what is wrong, without a file name. */
int plan_arms(const struct plan *p, struct arms *out, struct pd_msg *msg) PD_MUST;

/* "POLICY[/POLICY][@HASH]" into the policies of two pools. POLICY is a name with parameters as
 * route_spec_parse reads it; the hash is the parameter ring-hash of both. */
int plan_policy_parse(const char *text, const struct route_settings *settings,
		      struct route_spec policy[REPLAY_POOLS], struct pd_msg *msg) PD_MUST;

#endif
