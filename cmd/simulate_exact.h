/* `pdctl simulate --replay exact`: a capture as it happened, each decision made anew. */
#ifndef PD_CMD_SIMULATE_EXACT_H
#define PD_CMD_SIMULATE_EXACT_H

#include <stdint.h>

#include "lib/base/opt.h"

struct simulate_exact {
	const char *workload, *json, *decisions, *epp_config; /* of the command line; NULL: none */
	const struct opt_list *policies;
	int64_t run; /* 0: the last one */
};

/* *agreed: no decision was made otherwise than by the captured router. */
int simulate_exact_run(const struct simulate_exact *o, bool *agreed, struct pd_msg *msg) PD_MUST;

#endif
