/* `pdctl explain --key K | --body FILE`: a decision without a router, and why. */
#ifndef PD_CMD_EXPLAIN_PICK_H
#define PD_CMD_EXPLAIN_PICK_H

#include "cmd/policy_opts.h"

struct explain_pick {
	const char *key, *body, *policy, *epp, *workers_file;
	struct opt_list workers, headers;
	struct policy_opts policies;
	bool json;
};

/* Decides for an idle pool and appends what is to be printed. PD_EINVAL names the flag or file. */
int explain_pick(const struct explain_pick *e, struct buf *out, struct pd_msg *msg) PD_MUST;

#endif
