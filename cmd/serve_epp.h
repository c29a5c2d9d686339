/* --epp-config of `pdctl serve`: the file, and the policies that it is for. */
#ifndef PD_CMD_SERVE_EPP_H
#define PD_CMD_SERVE_EPP_H

#include "lib/base/opt.h"
#include "lib/router/config/config.h"

struct serve_epp {
	const char *file;
	double interval, stale;
};
extern struct serve_epp serve_epp;

/* clang-format off */
#define SERVE_EPP_OPTIONS                                                                          \
	{OPT_TEXT, "epp-config", &serve_epp.file, "FILE",                                          \
	 "an EndpointPickerConfig of llm-d: its filters, scorers and picker choose; the policy is then "\
	 "scores (none)",                                                                          \
	 NULL, 0, 0, NULL},                                                                        \
	{OPT_REAL, "metrics-scrape-interval-secs", &serve_epp.interval, "S",                       \
	 "how often /metrics of workers is read, for policies that look at it (0.1)", NULL, 0.01,  \
	 3600, NULL},                                                                              \
	{OPT_REAL, "metrics-staleness-secs", &serve_epp.stale, "S",                                \
	 "figures older than this do not count: what is in flight stands for a worker's load (2)", \
	 NULL, 0.01, 3600, NULL}
/* clang-format on */

/* Reads the file into c->epp, when there is one; *policy is then `scores` unless it was given. */
int serve_epp_read(struct router_config *c, const char **policy, bool given,
		   struct pd_msg *msg) PD_MUST;
/* Gives the policies of c->fleet their profiles. PD_EINVAL: none of them is `scores`. */
int serve_epp_apply(struct router_config *c, struct pd_msg *msg) PD_MUST;
/* What the file says and has no effect. */
void serve_epp_announce(const struct router_config *c);
void serve_epp_release(struct router_config *c);

#endif
