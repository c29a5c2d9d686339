/* Pools, engines and events of a scenario. */
#include "sim/scenario/scenario_cluster.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine/kvpool.h"

static int read_pool(struct scenario *s, const char *name, size_t slot, const struct y_pool *y,
		     struct plan_pool *to, struct pd_msg *msg)
{
	char path[64];
	uint64_t n = 0;
	int stated, err = PD_OK;

	if (!y)
		return PD_OK;
	stated = (y->count != NULL) + (y->ncounts > 0) + (y->nnames > 0);
	if (stated != 1)
		return scn_at(s, msg, name, 0,
			      "found %d of 'count', 'counts' and 'names': expected one", stated);
	if (y->ncounts > 1 && slot > 0)
		return scn_at(s, msg, name, 0,
			      "several 'counts' in a P/D pool: expected one 'count'");
	(void)snprintf(path, sizeof(path), "%s.count", name);
	err = scn_whole(s, path, y->count, 1, ROUTE_WORKERS_MAX, &n, msg);
	s->counts[slot][0] = y->nnames ? y->nnames : (uint32_t)n;
	for (size_t i = 0; !err && i < y->ncounts; i++) {
		(void)snprintf(path, sizeof(path), "%s.counts[%zu]", name, i);
		err = scn_whole(s, path, &y->counts[i], 1, ROUTE_WORKERS_MAX, &n, msg);
		s->counts[slot][i] = (uint32_t)n;
	}
	*to = (struct plan_pool){.names = (const char *const *)y->names,
				 .nnames = y->nnames,
				 .pattern = y->pattern,
				 .counts = s->counts[slot],
				 .ncounts = y->ncounts ? y->ncounts : 1};
	return err;
}

int scn_read_pools(struct scenario *s, struct pd_msg *msg)
{
	struct plan *p = &s->spec.plan;
	const struct y_scenario *y = s->y;
	bool pd = y->prefill || y->decode;
	int err;

	if (pd && (!y->prefill || !y->decode))
		return scn_at(s, msg, y->prefill ? "prefill" : "decode", 0,
			      "a P/D scenario needs both 'prefill' and 'decode'");
	if (pd == (y->workers != NULL))
		return scn_at(s, msg, pd ? "workers" : "name", 0,
			      "expected either 'workers', or 'prefill' and 'decode'");
	err = read_pool(s, "workers", 0, y->workers, &p->workers, msg);
	if (!err)
		err = read_pool(s, "prefill", 1, y->prefill, &p->prefill, msg);
	if (!err)
		err = read_pool(s, "decode", 2, y->decode, &p->decode, msg);
	return err;
}

int scn_read_caches(struct scenario *s, struct pd_msg *msg)
{
	const struct y_cache *c = s->y->cache;
	char path[64];
	int err = PD_OK;

	if (!c)
		return PD_OK;
	s->caches = calloc(c->nblocks, sizeof(*s->caches));
	if (!s->caches)
		return PD_ENOMEM;
	for (size_t i = 0; !err && i < c->nblocks; i++) {
		(void)snprintf(path, sizeof(path), "cache.blocks[%zu]", i);
		err = scn_whole(s, path, &c->blocks[i], 0, KVPOOL_BLOCKS_MAX, &s->caches[i], msg);
	}
	s->spec.plan.caches = s->caches;
	s->spec.plan.ncaches = c->nblocks;
	return err;
}

int scn_read_engine(struct scenario *s, struct pd_msg *msg)
{
	struct plan *p = &s->spec.plan;
	const struct y_engine *e = s->y->engine;
	uint64_t seqs = p->engine.max_num_seqs, batched = p->engine.max_batched_tokens;
	double rate = 1e6 / p->engine.prefill_us;
	int err;

	if (!e)
		return PD_OK;
	err = scn_real(s, "engine.prefill_tokens_per_s", e->prefill_tokens_per_s, 1, 1e9, &rate,
		       msg);
	if (!err)
		err = scn_real(s, "engine.decode_ms_per_token", e->decode_ms_per_token, 0.001, 1e6,
			       &p->engine.step_ms, msg);
	if (!err)
		err = scn_real(s, "engine.decode_us_per_request", e->decode_us_per_request, 0, 1e6,
			       &p->engine.request_us, msg);
	if (!err)
		err = scn_real(s, "engine.decode_us_per_context_token",
			       e->decode_us_per_context_token, 0, 1e6, &p->engine.context_us, msg);
	if (!err)
		err = scn_real(s, "engine.transfer_ms", e->transfer_ms, 0, 1e6, &p->transfer_ms,
			       msg);
	if (!err)
		err = scn_real(s, "engine.transfer_us_per_token", e->transfer_us_per_token, 0, 1e6,
			       &p->transfer_us_token, msg);
	if (!err)
		err = scn_whole(s, "engine.max_num_seqs", e->max_num_seqs, 1, 65536, &seqs, msg);
	if (!err)
		err = scn_whole(s, "engine.max_num_batched_tokens", e->max_num_batched_tokens, 1,
				1 << 24, &batched, msg);
	if (!err)
		err = scn_whole(s, "engine.kv_tokens", e->kv_tokens, 0, UINT64_C(1) << 50,
				&p->engine.kv_tokens, msg);
	if (e->prefill_tokens_per_s)
		p->engine.prefill_us = 1e6 / rate;
	p->engine.max_num_seqs = (uint32_t)seqs;
	p->engine.max_batched_tokens = (uint32_t)batched;
	return err;
}

static int read_event(struct scenario *s, size_t i, struct pd_msg *msg)
{
	static const char *const actions[] = {"join", "leave", "fail", NULL};
	const struct y_event *y = &s->y->events[i];
	struct plan_event *to = &s->events[i];
	char path[64], field[96];
	double ms = 0;
	int pick = 0, err;

	(void)snprintf(path, sizeof(path), "events[%zu]", i);
	if ((y->at_request != NULL) == (y->at_ms != NULL))
		return scn_at(s, msg, path, 0, "expected either 'at_request' or 'at_ms'");
	(void)snprintf(field, sizeof(field), "%s.action", path);
	err = scn_choice(s, field, y->action, actions, &pick, msg);
	(void)snprintf(field, sizeof(field), "%s.at_ms", path);
	if (!err)
		err = scn_real(s, field, y->at_ms, 0, 1e12, &ms, msg);
	(void)snprintf(field, sizeof(field), "%s.pool", path);
	if (!err && y->pool && strcmp(y->pool, "prefill") != 0 && strcmp(y->pool, "decode") != 0)
		err = scn_at(s, msg, field, 0, "found '%.60s': expected prefill or decode",
			     y->pool);
	to->event = (struct replay_event){.by_request = y->at_request != NULL,
					  .request = y->at_request ? *y->at_request : 0,
					  .at_ns = llround(ms * 1e6),
					  .action = (enum replay_action)pick};
	to->worker = y->worker;
	to->pool = y->pool;
	(void)snprintf(field, sizeof(field), "%s.%s", path, y->at_request ? "at_request" : "at_ms");
	to->place = scn_place(s, field);
	return err || to->place ? err : PD_ENOMEM;
}

int scn_read_events(struct scenario *s, struct pd_msg *msg)
{
	int err = PD_OK;

	s->events = calloc(s->y->nevents + 1, sizeof(*s->events));
	if (!s->events)
		return PD_ENOMEM;
	for (size_t i = 0; !err && i < s->y->nevents; i++)
		err = read_event(s, i, msg);
	s->spec.plan.events = s->events;
	s->spec.plan.nevents = s->y->nevents;
	return err;
}

/* A worker's name is its identity on the ring. */
int scn_check_names(const struct scenario *s, const char *pool, const struct y_pool *y,
		    struct pd_msg *msg)
{
	char path[64];

	for (size_t i = 1; y && i < y->nnames; i++)
		for (size_t k = 0; k < i; k++) {
			if (strcmp(y->names[i], y->names[k]) != 0)
				continue;
			(void)snprintf(path, sizeof(path), "%s.names[%zu]", pool, i);
			return scn_at(
				s, msg, path, 0,
				"the name '%.60s' is given twice: expected a name of its own for "
				"each worker",
				y->names[i]);
		}
	return PD_OK;
}
