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
	const char *what_if; /* "workers=6..12" */
	bool recommend;
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
	struct capture_info capture;  /* when the workload is one */
	struct simulate_point *point; /* of --what-if */
	size_t npoints, nwhat;	      /* nwhat: entries of counts that --what-if made */
	struct experiment_spec *spec; /* one, or one per point */
};

/* A number of workers that --what-if asks for. */
struct simulate_point {
	char label[80];
	uint32_t prefill, decode;
};

void simulate_args_defaults(struct simulate_args *a);
void simulate_args_release(struct simulate_args *a);

/* Makes a->spec, which borrows from *a; *n of them. The message names the option that is wrong. */
int simulate_args_spec(struct simulate_args *a, size_t *n, struct pd_msg *msg) PD_MUST;

#endif
