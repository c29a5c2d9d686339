/*
 * May these runs be compared at all? Settings that must agree: model, number of prompts, request
 * rate, concurrency, data set, token totals of the input, simulated or measured; and no run may say
 * that its own client was too slow.
 */
#ifndef PD_RESULTS_COMPARE_CONFIG_H
#define PD_RESULTS_COMPARE_CONFIG_H

#include "lib/results/compare_data.h"

/*
 * `allow` is a comma-separated list of keys whose difference is only noted ("all": every one), or
 * NULL. PD_ENOENT: differences that are not allowed, in msg with the flag that allows them.
 * PD_EINVAL: a name in `allow` that is no setting. Softer doubts become notes of `c`.
 */
int compare_config(struct compare *c, const char *allow, struct pd_msg *msg) PD_MUST;

#endif
