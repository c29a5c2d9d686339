/*
 * The table of policies, and a policy as people write it: NAME, or NAME:PARAMETER=VALUE:... The
 * parameters of all policies together are also flags of their own (--virtual-nodes) and keys of
 * YAML files; such a setting goes to every policy that has the parameter, and what is written
 * behind the policy's name wins. Pure, thread-safe.
 */
#ifndef PD_ROUTE_POLICIES_H
#define PD_ROUTE_POLICIES_H

#include "lib/route/decide.h"
#include "lib/route/policy.h"

#define ROUTE_SETTINGS_MAX 64  /* distinct parameters of all policies */
#define ROUTE_SPEC_MAX	   256 /* bytes of a policy as text */

/* The table and its names, both end with NULL. */
extern const struct route_policy_type *const route_policies[];
extern const char *const route_policy_names[];

/* NULL: there is none of this name. */
const struct route_policy_type *route_policy_find(struct span name);

/* The distinct parameters of the table by name, in its order, ended by ROUTE_PARAM_END. Returns how
 * many there are. */
size_t route_param_list(struct route_param out[ROUTE_SETTINGS_MAX + 1]);

/* Their names as keys of a YAML file: with '_' for '-'. */
struct route_param_keys {
	char text[ROUTE_SETTINGS_MAX][40];
	const char *key[ROUTE_SETTINGS_MAX];
	size_t n;
};
void route_param_keys(struct route_param_keys *out);

/* What was said of parameters outside of a policy's text; value[i] belongs to the ith of
 * route_param_list(), borrowed; NULL: nothing. */
struct route_settings {
	const char *value[ROUTE_SETTINGS_MAX];
};

/* What was said of the parameter of this name; NULL: nothing. */
const char *route_setting(const struct route_settings *s, const char *name);
/* Sets one by its name or alias. PD_ENOENT: no policy has it. The value is borrowed, not checked.
 */
int route_settings_put(struct route_settings *s, const char *name, const char *value) PD_MUST;

/* Sets one parameter from "PARAMETER=VALUE". PD_EINVAL names what is wrong. */
int route_spec_set(struct route_spec *spec, struct span item, struct pd_msg *msg) PD_MUST;
/* Sets the parameters that the policy has. PD_EINVAL names the parameter, and what was expected. */
int route_spec_apply(struct route_spec *spec, const struct route_settings *s,
		     struct pd_msg *msg) PD_MUST;

/*
 * Reads "NAME[:PARAMETER=VALUE]..." on top of the settings (NULL: none). PD_EINVAL names the
 * unknown policy or parameter with the nearest known one, or the value with what was expected.
 */
int route_spec_parse(struct route_spec *out, const char *text, const struct route_settings *s,
		     struct pd_msg *msg) PD_MUST;
/* Appends the text that gives this spec again on top of `known` (NULL: none): parameters that
 * differ from that are named. */
int route_spec_print(const struct route_spec *s, const struct route_settings *known,
		     struct buf *out) PD_MUST;
/* The declaration of a policy's parameter by its name or alias, - and _ alike; NULL: it has none.
 */
const struct route_param *route_param_find(const struct route_policy_type *t, struct span name);
/* Checks the values alone, whatever policy they are for. *wrong is the place of a wrong one. */
int route_settings_check(const struct route_settings *s, size_t *wrong, struct pd_msg *msg) PD_MUST;

/* One name a line. */
int route_policies_print(struct buf *out) PD_MUST;
/* A Markdown table of policies, parameters and defaults, for docs/. */
int route_policies_markdown(struct buf *out) PD_MUST;

#endif
