/*
 * The options that come from the table of policies: a flag for each parameter, and the list of
 * names in --help. A new policy changes no option table.
 */
#ifndef PD_CMD_POLICY_OPTS_H
#define PD_CMD_POLICY_OPTS_H

#include "lib/base/opt.h"
#include "lib/route/policy/policies.h"

struct policy_opts {
	struct route_settings settings;		 /* what the flags gave */
	struct opt rows[ROUTE_SETTINGS_MAX + 1]; /* for OPT_ROWS */
	char help[ROUTE_SETTINGS_MAX][160];
	char names[512]; /* "consistent_hash, ... (consistent_hash)", for the help of --policy */
};

/* Before the options are parsed. Help says the default as "(`before`160)". */
void policy_opts_init(struct policy_opts *p, const char *before);
/* PD_EINVAL names the flag whose value is wrong. */
int policy_opts_check(const struct policy_opts *p, struct pd_msg *msg) PD_MUST;
/* The name of a flag that was given and that none of the policies has; NULL: there is none. */
const char *policy_opts_useless(const struct policy_opts *p, const struct route_spec *spec,
				size_t n);

#endif
