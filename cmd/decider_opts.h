/* The options of --pd-decider, the same for serve and simulate. */
#ifndef PD_CMD_DECIDER_OPTS_H
#define PD_CMD_DECIDER_OPTS_H

#include "lib/base/opt.h"
#include "lib/route/policy/decider.h"

struct decider_opts {
	const char *kind;
	int64_t non_cached_tokens, prompt_tokens, max_local_prefill;
	double prefill_busy, decode_busy;
	struct opt rows[7]; /* for OPT_ROWS */
};

/* Before the options are parsed. */
void decider_opts_init(struct decider_opts *o);
/* After. */
void decider_opts_spec(const struct decider_opts *o, struct route_decider_spec *out);

#endif
