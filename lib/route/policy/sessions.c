#include "lib/route/policy/sessions.h"

#include <stdlib.h>
#include <string.h>

int sessions_memory_new(const void *params, void **memory)
{
	const struct session_params *p = params;
	struct sessions *s = calloc(1, sizeof(*s));
	int err;

	*memory = NULL;
	if (!s)
		return PD_ENOMEM;
	err = tally_new(&s->tally);
	if (!err)
		err = bindings_new(&s->bindings, (size_t)p->max, (int64_t)(p->ttl * 1e9), s->tally);
	if (err) {
		sessions_memory_free(s);
		return err;
	}
	*memory = s;
	return PD_OK;
}

void sessions_memory_free(void *memory)
{
	struct sessions *s = memory;

	if (!s)
		return;
	bindings_free(s->bindings);
	tally_free(s->tally);
	free(s);
}

int sessions_table_new(const struct route_pool *pool, const void *params, void **table,
		       struct pd_msg *msg)
{
	struct sessions *s = pool->state->memory;
	struct tally_row *row;
	int err = tally_row_new(&row, s->tally, pool);

	(void)params;
	(void)msg;
	*table = row;
	return err;
}

void sessions_table_free(void *table)
{
	tally_row_free(table);
}

void sessions_learn(void *memory, const struct route_event *e)
{
	struct sessions *s = memory;

	if (e->kind == ROUTE_LEFT)
		bindings_drop_worker(s->bindings, e->worker);
	if (!e->request || !route_has_key(e->request) || !sessions_named(e->request))
		return;
	if (e->kind == ROUTE_PICKED) {
		bindings_set(s->bindings, sessions_id(e->request), e->worker, e->at_ns);
		bindings_sweep(s->bindings, e->at_ns);
	} else if (e->kind == ROUTE_FINISHED) {
		bindings_forget(s->bindings, sessions_id(e->request));
	}
}

bool sessions_named(const struct route_request *rq)
{
	return rq->key->level != ROUTE_KEY_PREFIX || strcmp(rq->key->source, "request") != 0;
}

struct span sessions_raw(const struct route_request *rq)
{
	const struct route_key *key = rq->key;
	static const struct span front[] = {{"session:", 8}, {"user:", 5}};
	struct span text = {key->text, key->len};
	size_t n = strlen(key->source);

	if (n > 0 && n < text.n && memcmp(text.p, key->source, n) == 0 && text.p[n] == ':')
		return (struct span){text.p + n + 1, text.n - n - 1};
	for (size_t i = 0; i < sizeof(front) / sizeof(front[0]); i++)
		if (strncmp(key->source, "body:", 5) == 0 && span_starts(text, front[i]))
			return (struct span){text.p + front[i].n, text.n - front[i].n};
	return text;
}

uint64_t sessions_id(const struct route_request *rq)
{
	struct span id = sessions_raw(rq);
	uint64_t hash = route_hash(ROUTE_HASH_XXH3, id.p, id.n);

	/* Where workers differ in their models a session has a home for each that it names. */
	if (rq->barred && rq->model.n > 0)
		hash ^= route_murmur64a(rq->model.p, rq->model.n, hash);
	return hash;
}

int64_t sessions_at(const struct route_view *v, uint32_t worker)
{
	const struct tally_row *row = v->pool->table;

	return tally_value(row->cell[worker]);
}

static bool serves(const struct route_view *v, uint32_t worker)
{
	const struct route_slot *s = v->pool->worker[worker].slot;

	if (v->rq->barred && v->rq->barred[worker])
		return false;
	return atomic_load_explicit(&s->available, memory_order_acquire) ||
	       atomic_load_explicit(&s->permits, memory_order_relaxed) > 0;
}

uint32_t sessions_home(const struct route_view *v, uint64_t session)
{
	struct sessions *s = v->memory;
	uint64_t id;
	uint32_t home;

	if (!bindings_find(s->bindings, session, v->rq->now_ns, &id))
		return ROUTE_NO_WORKER;
	home = route_pool_find(v->pool, id);
	return home != ROUTE_NO_WORKER && serves(v, home) ? home : ROUTE_NO_WORKER;
}

uint32_t sessions_claim(const struct route_view *v, uint64_t session, uint32_t worker)
{
	struct sessions *s = v->memory;
	uint64_t id;
	uint32_t home;

	if (v->settled || v->rq->dry || !sessions_named(v->rq))
		return worker;
	id = bindings_claim(s->bindings, session, v->pool->worker[worker].id, v->rq->now_ns);
	home = route_pool_find(v->pool, id);
	return home != ROUTE_NO_WORKER && serves(v, home) ? home : worker;
}
