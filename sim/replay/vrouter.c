/* Wiring only: every choice is route_decide()'s. */
#include "sim/replay/vrouter.h"

#include <stdlib.h>
#include <string.h>

#include "lib/route/key/key_extract.h"

int vrouter_init(struct vrouter *v, const struct vrouter_config *cfg, struct pd_msg *msg)
{
	struct route_member *member = calloc(cfg->n + 1, sizeof(*member));
	struct route_state *state = NULL;
	struct route_labels role = {0};
	int err = PD_OK;

	memset(v, 0, sizeof(*v));
	v->slot = calloc(cfg->n ? cfg->n : 1, sizeof(*v->slot));
	if (!member || !v->slot) {
		free(member);
		vrouter_release(v);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	if (cfg->role > 0) /* as the fleet labels the workers of its two pools */
		err = route_labels_set(&role, SPAN(ROUTE_LABEL_ROLE),
				       cfg->role == 1 ? SPAN("prefill") : SPAN("decode"));
	for (size_t i = 0; i < cfg->n; i++) {
		member[i].name = cfg->names[i];
		member[i].slot = &v->slot[i];
		member[i].labels = cfg->labels ? cfg->labels[i] : role;
		v->slot[i].available = true;
	}
	err = err ? err : route_state_new(&state, &cfg->policy);
	if (!err)
		err = route_pool_new(&v->pool, member, cfg->n, state, msg);
	route_state_unref(state);
	route_labels_release(&role);
	free(member);
	if (err) {
		vrouter_release(v);
		return err;
	}
	v->role = cfg->role;
	v->seed = cfg->seed;
	return PD_OK;
}

void vrouter_release(struct vrouter *v)
{
	route_pool_free(v->pool);
	free(v->slot);
	v->pool = NULL;
	v->slot = NULL;
}

int vrouter_sequence(struct vrouter *v, const struct span *key, size_t n, uint32_t *worker)
{
	struct route_decision d;
	struct route_key k;
	int err;

	for (size_t i = 0; i < n; i++) {
		struct route_request rq = {.key = &k, .draw = vrouter_draw(v, i)};

		route_key_of_text(key[i], &k);
		err = route_decide(v->pool, &rq, &d);
		worker[i] = err ? VROUTER_REFUSED : d.worker;
		rq.counted = err ? 0 : d.tokens;
		if (!err)
			route_end(v->pool, d.worker, &rq);
		else if (err != PD_ENOENT && err != PD_EBUSY)
			return err;
	}
	return PD_OK;
}
