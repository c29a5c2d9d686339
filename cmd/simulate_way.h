/* How an experiment of `pdctl simulate` is run and judged: threads, shards, repetitions, objective,
 * goals. */
#ifndef PD_CMD_SIMULATE_WAY_H
#define PD_CMD_SIMULATE_WAY_H

#include "lib/base/opt.h"
#include "sim/figures/verdict.h"

/* As the option table fills it. */
struct simulate_way {
	int64_t threads, repetitions, regret;
	const char *shard, *objective;
	struct opt_list goals;
	bool progress, check;
	/* what simulate_way_read makes of them */
	size_t index, of; /* of the shard, from 0; of 0: all */
	struct verdict_rules rules;
	struct figures_goals goal;
};

/* PD_EINVAL names the option that is wrong. */
int simulate_way_read(struct simulate_way *way, struct pd_msg *msg) PD_MUST;

#endif
