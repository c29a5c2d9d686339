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
	for (size_t k = 0; k < s->nrouters; k++)
		route_tell(s->router[k].pool->state,
			   &(struct route_event){.kind = kind,
						 .worker = s->router[k].pool->worker[worker].id,
						 .at_ns = now});
}

void side_available(struct side *s, uint32_t worker, bool is)
{
	for (size_t k = 0; k < s->nrouters; k++)
		s->router[k].slot[worker].available = is;
}

size_t side_replica(const struct side *s, const struct simtrace *t, uint32_t req)
{
	uint32_t key;

	if (s->nrouters == 1)
		return 0;
	key = simtrace_request(t, req).key;
	return (s->by_session && key != SIM_NO_KEY ? key : req) % s->nrouters;
}

/* ---- scrapes ---- */

/* The last tick at or before `now`; each router and worker has a phase of its own. */
static int64_t tick_before(const struct side *s, size_t reading, int64_t now)
{
	int64_t phase = (int64_t)(route_dice(s->router[0].seed, s->router[0].role, reading, 0) %
				  (uint64_t)s->scrape_ns);
	int64_t since = now - phase, ticks = since / s->scrape_ns;

	return phase + (since < 0 ? ticks - 1 : ticks) * s->scrape_ns;
}

static void show(struct side *s, size_t router, uint32_t worker, const struct side_load *l,
		 int64_t at)
{
	route_signal_set(&s->router[router].slot[worker].signal, l->waiting, l->running,
			 l->kv_usage, at > 0 ? at : 1);
}

/* Ticks until `now` have read the state that has been there since the last change. */
static void catch_up(struct side *s, size_t router, uint32_t worker, int64_t now)
{
	size_t i = router * s->n + worker;
	struct side_reading *r = &s->reading[i];
	int64_t tick = tick_before(s, i, now);

	if (r->pending && r->tick + s->delay_ns <= now) {
		show(s, router, worker, &r->next, r->tick);
		r->pending = false;
	}
	if (tick <= r->tick)
		return;
	/* a tick between the two is known by now, as the delay is at most the period */
	if (tick - s->scrape_ns > r->tick)
		show(s, router, worker, &s->load[worker], tick - s->scrape_ns);
	r->next = s->load[worker];
	r->tick = tick;
	r->pending = tick + s->delay_ns > now;
	if (!r->pending)
		show(s, router, worker, &r->next, tick);
}

void side_signal(struct side *s, uint32_t worker, const struct side_load *load, int64_t now)
{
	for (size_t k = 0; k < s->nrouters; k++) {
		if (s->reading)
			catch_up(s, k, worker, now - 1); /* what a tick at `now` reads is new */
		else
			show(s, k, worker, load, now);
	}
	s->load[worker] = *load;
}

void side_refresh(struct side *s, const struct simtrace *t, uint32_t req, int64_t now)
{
	size_t router = s->reading && s->nrouters > 1 ? side_replica(s, t, req) : 0;

	for (size_t w = 0; s->reading && w < s->n; w++)
		catch_up(s, router, (uint32_t)w, now);
}

/* ---- life ---- */

static int make_routers(struct side *s, const struct replay_config *cfg, size_t pool,
			struct pd_msg *msg)
{
	const struct replay_pool *p = &cfg->pool[pool];
	struct route_labels *labels = NULL;
	struct vrouter_config v = {.names = p->names,
				   .n = p->n,
				   .policy = p->policy,
				   .role = cfg->npools == 1 ? 0 : (unsigned)pool + 1,
				   .seed = cfg->seed};
	int err = PD_OK;

	s->router = calloc(cfg->routers ? cfg->routers : 1, sizeof(*s->router));
	if (p->node)
		labels = calloc(p->n + 1, sizeof(*labels));
	if (!s->router || (p->node && !labels))
		err = PD_ENOMEM;
	for (size_t i = 0; labels && i < p->n; i++)
		labels[i] = p->node[i].labels;
	v.labels = labels;
	while (!err && s->nrouters < (cfg->routers ? cfg->routers : 1)) {
		err = vrouter_init(&s->router[s->nrouters], &v, msg);
		s->nrouters += !err;
	}
	free(labels);
	return err == PD_ENOMEM ? pd_fail(msg, err, "out of memory") : err;
}

static int make_engine(struct side *s, const struct simtrace *t, const struct replay_config *cfg,
		       size_t i)
{
	const struct replay_node *node =
		cfg->pool[s->pool].node ? &cfg->pool[s->pool].node[i] : NULL;
	struct stepper_config engine =
		engine_params_stepper(node ? &node->engine : &cfg->engine, t->block_tokens,
				      node ? node->cache_blocks : cfg->cache_blocks);

	if (t->made) {
		s->turns[i] = calloc(t->made->nsessions, 1);
		s->groups[i] = calloc(t->made->ngroups + 1, sizeof(bool));
		return s->turns[i] && s->groups[i] ? PD_OK : PD_ENOMEM;
	}
	engine.sched.role = cfg->npools == 1 ? SCHED_ALONE : SCHED_BOTH;
	engine.jump = engine.jump && !cfg->detailed;
	s->cost[i] = engine.cost;
	if (!s->cache)
		return stepper_init(&s->engine[i], &engine, NULL);
	s->cache[i] = kvpool_new(node ? node->cache_blocks : cfg->cache_blocks);
	return s->cache[i] ? PD_OK : PD_ENOMEM;
}

int side_init(struct side *s, const struct simtrace *t, const struct replay_config *cfg,
	      size_t pool, struct pd_msg *msg)
{
	const struct replay_pool *p = &cfg->pool[pool];
	size_t n = p->n ? p->n : 1, keys = t->nkeys ? t->nkeys : 1;
	bool ok;
	int err;

	memset(s, 0, sizeof(*s));
	s->n = p->n;
	s->pool = pool;
	s->hide_keys = cfg->hide_keys;
	s->by_session = cfg->routers_by_session;
	s->scrape_ns = cfg->scrape_ns;
	s->delay_ns = cfg->scrape_delay_ns;
	err = make_routers(s, cfg, pool, msg);
	if (err)
		return err;
	if (t->made) {
		s->turns = calloc(n, sizeof(*s->turns));
		s->groups = calloc(n, sizeof(*s->groups));
	} else if (cfg->routing_only)
		s->cache = calloc(n, sizeof(struct kvpool *));
	else
		s->engine = calloc(n, sizeof(*s->engine));
	s->watched = calloc(n, sizeof(*s->watched));
	s->dirty = calloc(n, sizeof(*s->dirty));
	s->work = calloc(n, sizeof(*s->work));
	s->flying = calloc(n, sizeof(*s->flying));
	s->cost = calloc(n, sizeof(*s->cost));
	s->load = calloc(n, sizeof(*s->load));
	if (cfg->scrape_ns > 0)
		s->reading = calloc(n * s->nrouters, sizeof(*s->reading));
	for (size_t i = 0; s->reading && i < n * s->nrouters; i++)
		s->reading[i].tick = INT64_MIN / 2;
	s->last = reallocarray(NULL, keys, sizeof(*s->last));
	s->broken = calloc(keys, sizeof(*s->broken));
	s->failed = calloc(n, sizeof(*s->failed));
	s->alias = reallocarray(NULL, t->nworkers + 1, sizeof(*s->alias));
	ok = (s->engine || s->cache || (s->turns && s->groups)) && s->watched && s->dirty &&
	     s->work && s->flying && s->cost && s->load && (s->reading || cfg->scrape_ns == 0) &&
	     s->last && s->broken && s->failed && s->alias;
	for (size_t i = 0; ok && i < s->n; i++) {
		side_available(s, (uint32_t)i, !p->absent || !p->absent[i]);
		if (!p->absent || !p->absent[i])
			side_tell(s, (uint32_t)i, ROUTE_JOINED, 0);
		ok = make_engine(s, t, cfg, i) == PD_OK;
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
		if (s->turns)
			free(s->turns[i]);
		if (s->groups)
			free(s->groups[i]);
	}
	free(s->turns);
	free(s->groups);
	free(s->engine);
	free(s->watched);
	free(s->dirty);
	free(s->cache);
	free(s->work);
	free(s->last);
	free(s->broken);
	free(s->failed);
	free(s->alias);
	free(s->flying);
	free(s->cost);
	free(s->load);
	free(s->reading);
	for (size_t k = 0; k < s->nrouters; k++)
		vrouter_release(&s->router[k]);
	free(s->router);
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
			if (s->router->slot[s->last[key]].available)
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
	    (pick->key_hashed && (s->router->pool->state->spec.type->flags & ROUTE_BY_KEY)))
		return;
	s->compared++;
	s->agreed += s->alias[theirs] == worker;
}

/* As route_key_of_text(), for a text that is short and has no blanks. */
static void made_key(const struct simtrace *t, uint32_t req, struct route_key *key)
{
	key->len = simtrace_made_key(t, req, key->text);
	key->text[key->len] = '\0';
	key->source[0] = '\0';
	key->level = key->len > 0 ? ROUTE_KEY_SESSION : ROUTE_KEY_NONE;
}

struct route_request side_request(const struct side *s, const struct simtrace *t, uint32_t req,
				  int64_t now, struct route_key *key)
{
	const struct sim_request r = simtrace_request(t, req);
	const struct sim_pick *pick = r.pick == SIM_NO_PICK ? NULL : &t->pick[r.pick];
	bool captured = pick && pick->has_draw[s->pool];

	if (t->made && !s->hide_keys)
		made_key(t, req, key);
	else
		route_key_of_text(r.key == SIM_NO_KEY || s->hide_keys ? SPAN("")
								      : simtrace_key(t, r.key),
				  key);
	return (struct route_request){
		.key = key,
		/* Of requests that are computed no policy asks for blocks. */
		.block = t->made ? NULL : t->block + r.block,
		.nblocks = t->made			  ? 0
			   : r.nblocks < ROUTE_BLOCKS_MAX ? r.nblocks
							  : ROUTE_BLOCKS_MAX,
		.block_tokens = t->block_tokens,
		.tokens = r.input_tokens,
		.output_tokens = r.output_tokens,
		.brief = true,
		.now_ns = now,
		/* Replays the router's random draws. */
		.draw = captured ? pick->draw[s->pool] : vrouter_draw(s->router, req),
	};
}

void side_hit(struct side *s, const struct simtrace *t, uint32_t worker, uint32_t tokens)
{
	struct replay_worker *w = &s->work[worker];

	w->hit_blocks += (tokens + t->block_tokens - 1) / t->block_tokens;
	w->hit_tokens += tokens;
	w->uncached_tokens -= tokens;
}

void side_forget(struct side *s, const struct simtrace *t, uint32_t worker)
{
	if (s->cache)
		kvpool_forget(s->cache[worker]);
	if (t->made) {
		memset(s->turns[worker], 0, t->made->nsessions);
		memset(s->groups[worker], 0, t->made->ngroups * sizeof(bool));
	}
}

/* kvpool_access() without a limit, for requests of which all is known: an earlier turn of the
 * session has all blocks that it had, and the session's group those of its prefix. */
static size_t hits_made(struct side *s, const struct simtrace *t, uint32_t req, uint32_t worker)
{
	const struct sim_made *m = t->made;
	uint32_t session = m->session[req], turn = m->turn[req];
	uint8_t *seen = &s->turns[worker][session];
	uint32_t tokens = *seen > 0 ? sim_made_tokens(m, *seen - 1u) : 0;

	*seen = (uint8_t)(turn + 1);
	if (m->group) {
		if (tokens == 0 && s->groups[worker][m->group[session]])
			tokens = m->prefix;
		s->groups[worker][m->group[session]] = true;
	}
	return tokens / t->block_tokens;
}

int side_routed(struct side *s, const struct simtrace *t, uint32_t req,
		const struct route_decision *d)
{
	const struct sim_request got = simtrace_request(t, req), *r = &got;
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
	if (t->made)
		hits = hits_made(s, t, req, d->worker);
	else if (s->cache)
		err = kvpool_access(s->cache[d->worker], t->block + r->block, r->nblocks, &hits);
	cached = (uint64_t)hits * t->block_tokens;
	if (hits > 0)
		side_hit(s, t, d->worker,
			 cached < r->input_tokens ? (uint32_t)cached : r->input_tokens);
	in_flight = ++s->flying[d->worker];
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
