/* Options of `pdctl serve` about --epp-config (the file, and the policies that it is for) and about
 * who waits. */
#ifndef PD_CMD_SERVE_EPP_H
#define PD_CMD_SERVE_EPP_H

#include "lib/base/opt.h"
#include "lib/router/config/config.h"

struct serve_epp {
	const char *file;
	double interval, stale;
	/* of the admission queue */
	double rate;
	const char *priority_header, *fairness_header;
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
#define SERVE_WAIT_OPTIONS                                                                         \
	{OPT_REAL, "rate-limit-tokens-per-second", &serve_epp.rate, "X",                           \
	 "requests that may begin per second, after a burst of --max-concurrent-requests; others wait "\
	 "in the admission queue; 0: no limit (0)",                                                \
	 NULL, 0, 1e6, NULL},                                                                      \
	{OPT_TEXT, "priority-header", &serve_epp.priority_header, "NAME",                          \
	 "of requests that wait the highest number in this field comes first; without it 0 (none)",\
	 NULL, 0, 0, NULL},                                                                        \
	{OPT_TEXT, "fairness-header", &serve_epp.fairness_header, "NAME",                          \
	 "requests that wait take turns by the value of this field, and a full queue is shared (none)",\
	 NULL, 0, 0, NULL}
/* clang-format on */

/* Reads the file into c->epp, when there is one; *policy is then `scores` unless it was given. */
int serve_epp_read(struct router_config *c, const char **policy, bool given,
		   struct pd_msg *msg) PD_MUST;
/* Gives the policies of c->fleet their profiles. PD_EINVAL: none of them is `scores`. */
int serve_epp_apply(struct router_config *c, struct pd_msg *msg) PD_MUST;
/* After --pd-decider was read: the file's decider and order of picks, unless the flag was `given`,
 * which goes first. */
void serve_epp_decider(struct router_config *c, bool given);
/* Logs what decides in each pool, and what the file says and has no effect. */
void serve_epp_announce(const struct router_config *c);
void serve_epp_release(struct router_config *c);

#endif
