/* `pdctl simulate --engine-config`: one engine, or a P/D pair, step by step. */
#ifndef PD_CMD_SIMULATE_STEPS_H
#define PD_CMD_SIMULATE_STEPS_H

#include "lib/base/err.h"

struct simulate_steps {
	const char *config, *steps, *requests; /* of the command line */
};

/* Runs and writes the files; members of the configuration that are not used are named on standard
 * error. */
int simulate_steps_run(const struct simulate_steps *o, const char *workload,
		       struct pd_msg *msg) PD_MUST;

#endif
