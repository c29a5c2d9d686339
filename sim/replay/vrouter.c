/* Wiring only: every choice is route_decide()'s. */
#include "sim/replay/vrouter.h"

#include <stdlib.h>
#include <string.h>

int vrouter_init(struct vrouter *v, const struct vrouter_config *cfg, struct pd_msg *msg)
{
	struct route_slot **slots = calloc(cfg->n ? cfg->n : 1, sizeof(struct route_slot *));
	int err;

	memset(v, 0, sizeof(*v));
	v->slot = calloc(cfg->n ? cfg->n : 1, sizeof(*v->slot));
	if (!slots || !v->slot) {
		free(slots);
		vrouter_release(v);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < cfg->n; i++) {
		slots[i] = &v->slot[i];
		v->slot[i].available = true;
	}
	err = route_pool_new(&v->pool, cfg->names, slots, cfg->n, cfg->hash, cfg->vnodes, msg);
	free(slots);
	if (err) {
		vrouter_release(v);
		return err;
	}
	route_policy_init(&v->policy, cfg->policy);
	rng_seed(&v->rng, cfg->seed);
	return PD_OK;
}

void vrouter_release(struct vrouter *v)
{
	route_pool_free(v->pool);
	free(v->slot);
	v->pool = NULL;
	v->slot = NULL;
}

/* The same form that route_key_extract gives: the raw value, whatever field it came from. */
static void set_key(struct route_key *key, struct span text)
{
	key->len = text.n < ROUTE_KEY_MAX ? text.n : ROUTE_KEY_MAX;
	if (key->len > 0)
		memcpy(key->text, text.p, key->len);
	key->text[key->len] = '\0';
	key->level = key->len > 0 ? ROUTE_KEY_SESSION : ROUTE_KEY_NONE;
}

int vrouter_pick(struct vrouter *v, struct span key, struct route_decision *out)
{
	struct route_input in = {.key = &v->key, .rng = &v->rng};

	set_key(&v->key, key);
	return route_decide(&v->policy, v->pool, &in, out);
}

void vrouter_done(struct vrouter *v, uint32_t worker)
{
	route_release(&v->slot[worker]);
}

int vrouter_sequence(struct vrouter *v, const struct span *key, size_t n, uint32_t *worker)
{
	struct route_decision d;
	int err;

	for (size_t i = 0; i < n; i++) {
		err = vrouter_pick(v, key[i], &d);
		worker[i] = err ? VROUTER_REFUSED : d.worker;
		if (!err)
			vrouter_done(v, d.worker);
		else if (err != PD_ENOENT && err != PD_EBUSY)
			return err;
	}
	return PD_OK;
}

bool vrouter_has_homes(enum route_policy_kind policy)
{
	return policy == ROUTE_CONSISTENT_HASH || policy == ROUTE_RENDEZVOUS_HASH;
}
