#include "lib/route/state.h"

#include <stdlib.h>
#include <string.h>

#include "lib/route/policy.h"

struct route_spec route_spec_of(const struct route_policy_type *type)
{
	struct route_spec s;

	memset(&s, 0, sizeof(s));
	s.type = type;
	route_params_default(type->params, s.params);
	return s;
}

bool route_spec_same(const struct route_spec *a, const struct route_spec *b)
{
	return a->type == b->type && memcmp(a->params, b->params, sizeof(a->params)) == 0;
}

int route_state_new(struct route_state **out, const struct route_spec *spec)
{
	const struct route_policy_type *t = spec->type;
	struct route_state *s;

	*out = NULL;
	if (t->params_size > ROUTE_PARAMS_SIZE || t->walk_size > ROUTE_WALK_MAX ||
	    ((t->flags & ROUTE_BY_KEY) && (!t->keyless || t->keyless->walk_size > ROUTE_WALK_MAX)))
		return PD_EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return PD_ENOMEM;
	atomic_init(&s->refs, 1);
	s->spec = *spec;
	if (t->memory_new && t->memory_new(s->spec.params, &s->memory)) {
		free(s);
		return PD_ENOMEM;
	}
	*out = s;
	return PD_OK;
}

struct route_state *route_state_ref(struct route_state *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void route_state_unref(struct route_state *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (s->spec.type->memory_free)
		s->spec.type->memory_free(s->memory);
	free(s);
}

void route_tell(struct route_state *s, const struct route_event *e)
{
	if (s->spec.type->learn)
		s->spec.type->learn(s->memory, e);
}
