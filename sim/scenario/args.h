/* The options of `pdctl simulate --workload` as an experiment: lists separated by commas, defaults,
 * limits. */
#ifndef PD_SIM_SCENARIO_ARGS_H
#define PD_SIM_SCENARIO_ARGS_H

#include "lib/base/opt.h"
#include "lib/workload/capture_file.h"
#include "sim/scenario/experiment.h"

#define SIMULATE_SEED_MAX 9007199254740991 /* 2^53 - 1: a JSON number holds it exactly */
#define SIMULATE_LIST_MAX 64		   /* worker counts, cache sizes */

struct simulate_args {
	/* as the option table fills them; texts are borrowed from the command line */
	const char *workload, *workers, *caches, *json, *json_dir, *decisions, *format, *epp_config;
	struct opt_list policies, names, expects;
	int64_t capture_run, prefill, decode, limit, block_tokens, concurrency, concurrent_sessions,
		seqs, batched, kv_tokens, seed;
	struct route_settings settings; /* flags of policy parameters */
	bool routing_only, timestamps, wide, hide_keys;
	double prefill_rate, transfer_ms, transfer_us;
	struct route_decider_spec decider;
	struct engine_params engine;
	struct simload_options load;
	/* what simulate_args_spec makes of them; owned */
	char vnodes[16]; /* of the capture */
	char **policy;
	size_t npolicy;
	uint32_t counts[SIMULATE_LIST_MAX], prefill_count, decode_count;
	uint64_t cache[SIMULATE_LIST_MAX];
	struct expect *expect;
	struct epp_config *epp;
	struct capture_info capture; /* when the workload is one */
};

void simulate_args_defaults(struct simulate_args *a);
void simulate_args_release(struct simulate_args *a);

/* Fills *spec, which borrows from *a. The message names the option that is wrong. */
int simulate_args_spec(struct simulate_args *a, struct experiment_spec *spec,
		       struct pd_msg *msg) PD_MUST;

#endif
