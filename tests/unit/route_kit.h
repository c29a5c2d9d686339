/* Pools of a policy by its name, for the tests of lib/route and of what builds on it. */
#ifndef PD_TESTS_ROUTE_KIT_H
#define PD_TESTS_ROUTE_KIT_H

#include <stdlib.h>
#include <string.h>

#include "lib/route/policy/policies.h"

static inline const struct route_policy_type *policy_named(const char *name)
{
	const struct route_policy_type *t = route_policy_find(span_of(name));

	if (!t)
		abort();
	return t;
}

/* "NAME:PARAMETER=VALUE:..." */
static inline struct route_spec spec_named(const char *text)
{
	struct route_spec s;

	if (route_spec_parse(&s, text, NULL, NULL))
		abort();
	return s;
}

/* A pool of workers without labels. */
static inline int pool_with(struct route_pool **out, const char *const *names,
			    struct route_slot *const *slots, size_t n, struct route_state *s,
			    struct pd_msg *msg)
{
	struct route_member *member = calloc(n + 1, sizeof(*member));
	int err;

	for (size_t i = 0; member && i < n; i++)
		member[i] = (struct route_member){.name = names[i], .slot = slots[i]};
	err = member ? route_pool_new(out, member, n, s, msg) : PD_ENOMEM;
	free(member);
	return err;
}

/* A pool with a state of its own. */
static inline int pool_of(struct route_pool **out, const struct route_spec *spec,
			  const char *const *names, struct route_slot *const *slots, size_t n,
			  struct pd_msg *msg)
{
	struct route_state *s;
	int err = route_state_new(&s, spec);

	*out = NULL;
	if (err)
		return err;
	err = pool_with(out, names, slots, n, s, msg);
	route_state_unref(s);
	return err;
}

static inline struct route_key key_of(const char *text)
{
	struct route_key k = {.level = ROUTE_KEY_SESSION, .len = strlen(text)};

	memcpy(k.text, text, k.len + 1);
	return k;
}

#endif
