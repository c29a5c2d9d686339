/*
 * What a pool counts is counted here and not in its engines, so that a run without engines
 * (routing only) reports the same figures.
 */
#include "sim/replay/side.h"

#include <stdlib.h>
#include <string.h>

#include "lib/route/key/key_extract.h"
#include "lib/route/prefix.h"

void side_tell(struct side *s, uint32_t worker, enum route_event_kind kind, int64_t now)
{
	route_tell(s->router.pool->state,
		   &(struct route_event){.kind = kind,
					 .worker = s->router.pool->worker[worker].id,
					 .at_ns = now});
}

int side_init(struct side *s, const struct simtrace *t, const struct replay_config *cfg,
	      size_t pool, struct pd_msg *msg)
{
	const struct replay_pool *p = &cfg->pool[pool];
	struct vrouter_config v = {.names = p->names,
				   .n = p->n,
				   .policy = p->policy,
				   .role = cfg->npools == 1 ? 0 : (unsigned)pool + 1,
				   .seed = cfg->seed};
	size_t n = p->n ? p->n : 1, keys = t->nkeys ? t->nkeys : 1;
	struct stepper_config engine =
		engine_params_stepper(&cfg->engine, t->block_tokens, cfg->cache_blocks);
	bool ok;
	int err;

	engine.sched.role = cfg->npools == 1 ? SCHED_ALONE : SCHED_BOTH;
	memset(s, 0, sizeof(*s));
	err = vrouter_init(&s->router, &v, msg);
	if (err)
		return err;
	s->n = p->n;
	s->pool = pool;
	s->hide_keys = cfg->hide_keys;
	if (cfg->routing_only)
		s->cache = calloc(n, sizeof(struct kvpool *));
	else
		s->engine = calloc(n, sizeof(*s->engine));
	s->watched = calloc(n, sizeof(*s->watched));
	s->dirty = calloc(n, sizeof(*s->dirty));
	s->work = calloc(n, sizeof(*s->work));
	s->last = reallocarray(NULL, keys, sizeof(*s->last));
	s->broken = calloc(keys, sizeof(*s->broken));
	s->failed = calloc(n, sizeof(*s->failed));
	s->alias = reallocarray(NULL, t->nworkers + 1, sizeof(*s->alias));
	ok = (s->engine || s->cache) && s->watched && s->dirty && s->work && s->last && s->broken &&
	     s->failed && s->alias;
	for (size_t i = 0; ok && i < s->n; i++) {
		s->router.slot[i].available = !p->absent || !p->absent[i];
		if (s->router.slot[i].available)
			side_tell(s, (uint32_t)i, ROUTE_JOINED, 0);
		if (s->cache)
			ok = (s->cache[i] = kvpool_new(cfg->cache_blocks)) != NULL;
		else
			ok = stepper_init(&s->engine[i], &engine, NULL) == PD_OK;
	}
	if (!ok)
		return pd_fail(msg, PD_ENOMEM, "out of memory for %zu workers", s->n);
	memset(s->last, 0xff, keys * sizeof(*s->last));
	/* The workers of a capture by their names. */
	for (size_t i = 0; i < t->nworkers; i++) {
		s->alias[i] = VROUTER_REFUSED;
		for (size_t k = 0; k < s->n; k++)
			if (strcmp(t->worker[i], p->names[k]) == 0)
				s->alias[i] = (uint32_t)k;
	}
	return PD_OK;
}

void side_release(struct side *s)
{
	for (size_t i = 0; i < s->n; i++) {
		if (s->engine)
			stepper_release(&s->engine[i]);
		if (s->cache)
			kvpool_free(s->cache[i]);
	}
	free(s->engine);
	free(s->watched);
	free(s->dirty);
	free(s->cache);
	free(s->work);
	free(s->last);
	free(s->broken);
	free(s->failed);
	free(s->alias);
	vrouter_release(&s->router);
	memset(s, 0, sizeof(*s));
}

static void count_key(struct side *s, uint32_t key, uint32_t worker, enum route_reason reason)
{
	if (key == SIM_NO_KEY)
		return;
	if (s->last[key] == VROUTER_REFUSED) {
		s->work[worker].keys++;
	} else {
		s->follow_ups++;
		if (s->last[key] != worker) {
			s->moves++;
			if (s->router.slot[s->last[key]].available)
				s->moved[reason]++;
			else
				s->moved_gone++;
			s->broken[key] = true;
		}
	}
	s->last[key] = worker;
}

/* Not compared: a choice of a worker that is not in this pool, and that of a hash policy for a key
 * whose text is unknown. */
static void count_agreement(struct side *s, const struct sim_pick *pick, uint32_t worker)
{
	uint32_t theirs = pick->worker[s->pool];

	if (theirs == SIM_NO_PICK || s->alias[theirs] == VROUTER_REFUSED ||
	    (pick->key_hashed && (s->router.pool->state->spec.type->flags & ROUTE_BY_KEY)))
		return;
	s->compared++;
	s->agreed += s->alias[theirs] == worker;
}

struct route_request side_request(const struct side *s, const struct simtrace *t, uint32_t req,
				  int64_t now, struct route_key *key)
{
	const struct sim_request *r = &t->req[req];
	const struct sim_pick *pick = r->pick == SIM_NO_PICK ? NULL : &t->pick[r->pick];
	bool captured = pick && pick->has_draw[s->pool];

	route_key_of_text(r->key == SIM_NO_KEY || s->hide_keys ? SPAN("") : simtrace_key(t, r->key),
			  key);
	return (struct route_request){
		.key = key,
		.block = t->block + r->block,
		.nblocks = r->nblocks < ROUTE_BLOCKS_MAX ? r->nblocks : ROUTE_BLOCKS_MAX,
		.block_tokens = t->block_tokens,
		.tokens = r->input_tokens,
		.output_tokens = r->output_tokens,
		.now_ns = now,
		/* Replays the router's random draws. */
		.draw = captured ? pick->draw[s->pool] : vrouter_draw(&s->router, req),
	};
}

void side_hit(struct side *s, const struct simtrace *t, uint32_t worker, uint32_t tokens)
{
	struct replay_worker *w = &s->work[worker];

	w->hit_blocks += (tokens + t->block_tokens - 1) / t->block_tokens;
	w->hit_tokens += tokens;
	w->uncached_tokens -= tokens;
}

int side_routed(struct side *s, const struct simtrace *t, const struct sim_request *r,
		const struct route_decision *d)
{
	const struct sim_pick *pick = r->pick == SIM_NO_PICK ? NULL : &t->pick[r->pick];
	struct replay_worker *w;
	size_t hits = 0;
	uint64_t cached;
	uint32_t in_flight;
	int err = PD_OK;

	if (pick)
		count_agreement(s, pick, d->worker);
	w = &s->work[d->worker];
	count_key(s, r->key, d->worker, d->reason);
	s->reasons[d->reason]++;
	w->requests++;
	w->input_tokens += r->input_tokens;
	w->uncached_tokens += r->input_tokens;
	w->blocks += r->nblocks;
	if (s->cache)
		err = kvpool_access(s->cache[d->worker], t->block + r->block, r->nblocks, &hits);
	cached = (uint64_t)hits * t->block_tokens;
	if (hits > 0)
		side_hit(s, t, d->worker,
			 cached < r->input_tokens ? (uint32_t)cached : r->input_tokens);
	in_flight = s->router.slot[d->worker].in_flight;
	if (in_flight > w->peak_in_flight)
		w->peak_in_flight = in_flight;
	return err;
}

void side_result(struct side *s, const struct simtrace *t, const struct route_spec *policy,
		 struct replay_pool_result *out)
{
	*out = (struct replay_pool_result){.nworkers = s->n,
					   .policy = *policy,
					   .follow_ups = s->follow_ups,
					   .moves = s->moves,
					   .compared = s->compared,
					   .agreed = s->agreed};
	memcpy(out->reasons, s->reasons, sizeof(out->reasons));
	memcpy(out->moved, s->moved, sizeof(out->moved));
	out->moved_gone = s->moved_gone;
	for (size_t k = 0; k < t->nkeys; k++) {
		bool multi = t->key[k].requests >= 2;

		if (s->last[k] == VROUTER_REFUSED)
			continue;
		out->keys++;
		out->multi_keys += multi;
		out->kept_keys += multi && !s->broken[k];
	}
	for (size_t i = 0; s->engine && i < s->n; i++) {
		s->work[i].preemptions = s->engine[i].sched.preemptions;
		s->work[i].busy_s = (double)s->engine[i].busy / 1e9;
	}
	out->worker = s->work;
	s->work = NULL;
}
