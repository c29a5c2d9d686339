/* Pools, engines and events of a scenario. */
#include "sim/scenario/scenario_cluster.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine/kvpool.h"
#include "sim/engine/profile.h"

#define EVENTS_FLAPS_MAX 100 /* of one line */

static int read_profile(struct scenario *s, const char *path, const char *file,
			struct engine_params *to, struct pd_msg *msg)
{
	struct pd_msg inner = {.text = ""}, warning = {.text = ""};
	char *beside = scn_beside(s, file), at[160];
	struct profile profile;
	int err = beside ? profile_load(&profile, beside, &warning, &inner) : PD_ENOMEM;

	(void)snprintf(at, sizeof(at), "%s.profile", path);
	if (!err)
		profile_apply(&profile, to);
	else if (beside)
		err = scn_at(s, msg, at, 0, "%s", inner.text);
	if (!err && warning.text[0] && !s->spec.note) {
		if (asprintf(&s->note, "%s: %s", beside, warning.text) < 0)
			err = PD_ENOMEM;
		s->spec.note = err ? NULL : s->note;
	}
	free(beside);
	return err;
}

/* Sets what is stated; the profile first. `path` is where the engine stands. */
static int read_engine(struct scenario *s, const char *path, const struct y_engine *e,
		       struct engine_params *to, struct pd_msg *msg)
{
	uint64_t seqs = to->max_num_seqs, batched = to->max_batched_tokens, kv = to->kv_tokens;
	double rate = 1e6 / to->prefill_us;
	const struct {
		const char *name;
		const double *from;
		double min, max;
		double *to;
	} reals[] = {
		{"prefill_tokens_per_s", e->prefill_tokens_per_s, 1, 1e9, &rate},
		{"decode_ms_per_token", e->decode_ms_per_token, 0.001, 1e6, &to->step_ms},
		{"decode_us_per_request", e->decode_us_per_request, 0, 1e6, &to->request_us},
		{"decode_us_per_context_token", e->decode_us_per_context_token, 0, 1e6,
		 &to->context_us},
	};
	const struct {
		const char *name;
		const uint64_t *from;
		uint64_t min, max;
		uint64_t *to;
	} wholes[] = {
		{"max_num_seqs", e->max_num_seqs, 1, 65536, &seqs},
		{"max_num_batched_tokens", e->max_num_batched_tokens, 1, 1 << 24, &batched},
		{"kv_tokens", e->kv_tokens, 0, UINT64_C(1) << 50, &kv},
	};
	char at[160];
	int err = e->profile ? read_profile(s, path, e->profile, to, msg) : PD_OK;

	if (!err && e->profile) {
		seqs = to->max_num_seqs;
		batched = to->max_batched_tokens;
		kv = to->kv_tokens;
	}
	for (size_t i = 0; !err && i < sizeof(reals) / sizeof(reals[0]); i++) {
		(void)snprintf(at, sizeof(at), "%s.%s", path, reals[i].name);
		err = scn_real(s, at, reals[i].from, reals[i].min, reals[i].max, reals[i].to, msg);
	}
	for (size_t i = 0; !err && i < sizeof(wholes) / sizeof(wholes[0]); i++) {
		(void)snprintf(at, sizeof(at), "%s.%s", path, wholes[i].name);
		err = scn_whole(s, at, wholes[i].from, wholes[i].min, wholes[i].max, wholes[i].to,
				msg);
	}
	if (e->prefill_tokens_per_s)
		to->prefill_us = 1e6 / rate;
	to->max_num_seqs = (uint32_t)seqs;
	to->max_batched_tokens = (uint32_t)batched;
	to->kv_tokens = kv;
	return err;
}

/* The transfer of an engine belongs to the whole cluster. */
static int no_transfer(struct scenario *s, const char *path, const struct y_engine *e,
		       struct pd_msg *msg)
{
	if (!e->transfer_ms && !e->transfer_us_per_token)
		return PD_OK;
	return scn_at(s, msg, path, 0,
		      "transfers are the same for all workers: expected them in "
		      "'link', or in 'engine' of the file");
}

/* Engines of the pool, and of single workers. */
static int read_kinds(struct scenario *s, const char *name, size_t slot, const struct y_pool *y,
		      struct plan_pool *to, struct pd_msg *msg)
{
	uint64_t hosts = 0;
	char path[96], at[128];
	int err;

	(void)snprintf(path, sizeof(path), "%s.hosts", name);
	err = scn_whole(s, path, y->hosts, 1, ROUTE_WORKERS_MAX, &hosts, msg);
	to->hosts = (uint32_t)hosts;
	to->own_engine = y->engine != NULL;
	to->engine = s->spec.plan.engine;
	(void)snprintf(path, sizeof(path), "%s.engine", name);
	if (!err && y->engine)
		err = no_transfer(s, path, y->engine, msg);
	if (!err && y->engine)
		err = read_engine(s, path, y->engine, &to->engine, msg);
	s->nodes[slot] = calloc(y->neach + 1, sizeof(*s->nodes[slot]));
	if (!err && !s->nodes[slot])
		return PD_ENOMEM;
	for (size_t i = 0; !err && i < y->neach; i++) {
		struct plan_node *n = &s->nodes[slot][i];
		const struct y_node *from = &y->each[i];
		double speed = 1;

		*n = (struct plan_node){.worker = from->worker,
					.engine = to->engine,
					.host = from->host,
					.labels = (const char *const *)from->labels,
					.nlabels = from->nlabels,
					.has_cache = from->cache_blocks != NULL};
		(void)snprintf(path, sizeof(path), "%s.each[%zu].engine", name, i);
		if (from->engine)
			err = no_transfer(s, path, from->engine, msg);
		if (!err && from->engine)
			err = read_engine(s, path, from->engine, &n->engine, msg);
		(void)snprintf(at, sizeof(at), "%s.each[%zu].speed", name, i);
		if (!err)
			err = scn_real(s, at, from->speed, 0.001, 1000, &speed, msg);
		(void)snprintf(at, sizeof(at), "%s.each[%zu].cache_blocks", name, i);
		if (!err)
			err = scn_whole(s, at, from->cache_blocks, 0, KVPOOL_BLOCKS_MAX,
					&n->cache_blocks, msg);
		n->engine.step_ms /= speed;
		n->engine.prefill_us /= speed;
		n->engine.attention_us /= speed;
		n->engine.request_us /= speed;
		n->engine.context_us /= speed;
	}
	to->each = s->nodes[slot];
	to->neach = y->neach;
	return err;
}

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
	if (err)
		return err;
	*to = (struct plan_pool){.names = (const char *const *)y->names,
				 .nnames = y->nnames,
				 .pattern = y->pattern,
				 .counts = s->counts[slot],
				 .ncounts = y->ncounts ? y->ncounts : 1};
	return read_kinds(s, name, slot, y, to, msg);
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
	int err;

	if (!e)
		return PD_OK;
	err = read_engine(s, "engine", e, &p->engine, msg);
	if (!err)
		err = scn_real(s, "engine.transfer_ms", e->transfer_ms, 0, 1e6, &p->transfer_ms,
			       msg);
	if (!err)
		err = scn_real(s, "engine.transfer_us_per_token", e->transfer_us_per_token, 0, 1e6,
			       &p->transfer_us_token, msg);
	return err;
}

/* ---- links, routers, signals, retries ---- */

/* Published figures of the connectors' links; bandwidth of one transfer alone. */
static const struct {
	const char *name;
	double gb_s, set_up_ms;
} kinds[] = {{"nvlink", 600, 0.092}, {"rdma", 25, 0.5},	    {"ethernet", 10, 1},
	     {"pcie", 10, 0.2},	     {"filesystem", 1, 10}, {NULL, 0, 0}};

#define KV_BYTES 131072 /* of a token: Llama-3.1-8B in bf16 */

static int read_link(struct scenario *s, const char *path, const struct y_link *l, double *ms,
		     double *us_token, struct pd_msg *msg)
{
	double gb_s = 0, set_up = 0;
	uint64_t bytes = KV_BYTES;
	char at[64];
	size_t k = 0;
	int err;

	(void)snprintf(at, sizeof(at), "%s.kind", path);
	while (l->kind && kinds[k].name && strcmp(kinds[k].name, l->kind) != 0)
		k++;
	if (l->kind && !kinds[k].name)
		return scn_at(s, msg, at, 0,
			      "found '%.60s': expected nvlink, rdma, ethernet, pcie or filesystem",
			      l->kind);
	if (l->kind) {
		gb_s = kinds[k].gb_s;
		set_up = kinds[k].set_up_ms;
	}
	(void)snprintf(at, sizeof(at), "%s.bandwidth_gb_s", path);
	err = scn_real(s, at, l->bandwidth_gb_s, 1e-3, 1e6, &gb_s, msg);
	(void)snprintf(at, sizeof(at), "%s.set_up_ms", path);
	if (!err)
		err = scn_real(s, at, l->set_up_ms, 0, 1e6, &set_up, msg);
	(void)snprintf(at, sizeof(at), "%s.kv_bytes_per_token", path);
	if (!err)
		err = scn_whole(s, at, l->kv_bytes_per_token, 1, 100000000, &bytes, msg);
	if (!err && !(gb_s > 0))
		return scn_at(s, msg, path, 0, "expected 'kind' or 'bandwidth_gb_s'");
	*ms = set_up;
	*us_token = (double)bytes / (gb_s * 1e3);
	return err;
}

static int read_links(struct scenario *s, struct pd_msg *msg)
{
	struct plan *p = &s->spec.plan;
	const struct y_scenario *y = s->y;
	int err = PD_OK;

	if ((y->link || y->host_link) && !y->prefill)
		return scn_at(s, msg, y->link ? "link" : "host_link", 0,
			      "a link needs prefill and decode pools");
	if (y->link && y->engine && (y->engine->transfer_ms || y->engine->transfer_us_per_token))
		return scn_at(s, msg, "link", 0,
			      "the engine has transfer times: expected them or a link");
	if (y->link)
		err = read_link(s, "link", y->link, &p->transfer_ms, &p->transfer_us_token, msg);
	if (!err && y->host_link)
		err = read_link(s, "host_link", y->host_link, &p->host_transfer_ms,
				&p->host_transfer_us_token, msg);
	p->host_link = y->host_link != NULL;
	return err;
}

int scn_read_network(struct scenario *s, struct pd_msg *msg)
{
	static const char *const by[] = {"request", "session", NULL};
	struct plan *p = &s->spec.plan;
	const struct y_scenario *y = s->y;
	double scrape = 0, delay = 0, backoff = 0;
	uint64_t routers = 1, attempts = REPLAY_ATTEMPTS;
	int pick = 0, err = read_links(s, msg);

	if (!err && y->routers) {
		err = scn_whole(s, "routers.count", y->routers->count, 1, REPLAY_ROUTERS_MAX,
				&routers, msg);
		if (!err)
			err = scn_choice(s, "routers.by", y->routers->by, by, &pick, msg);
	}
	if (!err && y->signals) {
		err = scn_real(s, "signals.scrape_ms", y->signals->scrape_ms, 0, 1e7, &scrape, msg);
		if (!err)
			err = scn_real(s, "signals.delay_ms", y->signals->delay_ms, 0, scrape,
				       &delay, msg);
	}
	if (!err && y->retries) {
		err = scn_whole(s, "retries.attempts", y->retries->attempts, 1, 100, &attempts,
				msg);
		if (!err)
			err = scn_real(s, "retries.backoff_ms", y->retries->backoff_ms, 0.001, 1e6,
				       &backoff, msg);
	}
	p->routers = (uint32_t)routers;
	p->routers_by_session = pick == 1;
	p->scrape_ns = llround(scrape * 1e6);
	p->scrape_delay_ns = llround(delay * 1e6);
	p->attempts = (uint32_t)attempts;
	p->backoff_ns = llround(backoff * 1e6);
	return err;
}

/* ---- events ---- */

enum event_word { JOIN, LEAVE, FAIL, SLOW, DRAIN, FLAP };

/* One or, for a worker that flaps, several events: each time it fails and comes back. */
static int add_events(struct scenario *s, const struct y_event *y, enum event_word word,
		      const char *place, uint64_t times, double down, double period, double factor)
{
	bool by_request = y->at_request != NULL;
	double at = by_request ? (double)*y->at_request : *y->at_ms * 1e6,
	       unit = by_request ? 1 : 1e6;

	for (uint64_t i = 0; i < times; i++)
		for (int half = 0; half < (word == FLAP ? 2 : 1); half++) {
			struct plan_event *to = &s->events[s->spec.plan.nevents++];
			double when = at + ((double)i * period + half * down) * unit;

			*to = (struct plan_event){
				.worker = y->worker, .pool = y->pool, .place = place};
			to->event = (struct replay_event){
				.by_request = by_request,
				.request = by_request ? (uint64_t)when : 0,
				.at_ns = by_request ? 0 : llround(when),
				.factor = factor,
				.action = word == FLAP	  ? half ? REPLAY_JOIN : REPLAY_FAIL
					  : word == DRAIN ? REPLAY_LEAVE
							  : (enum replay_action)word};
		}
	return PD_OK;
}

static int read_event(struct scenario *s, size_t i, struct pd_msg *msg)
{
	static const char *const words[] = {"join", "leave", "fail", "slow", "drain", "flap", NULL};
	const struct y_event *y = &s->y->events[i];
	char path[64], field[96];
	double ms = 0, factor = 1, down = 0, period = 0;
	const char *place;
	uint64_t times = 1;
	int word = 0, err;

	(void)snprintf(path, sizeof(path), "events[%zu]", i);
	if ((y->at_request != NULL) == (y->at_ms != NULL))
		return scn_at(s, msg, path, 0, "expected either 'at_request' or 'at_ms'");
	(void)snprintf(field, sizeof(field), "%s.action", path);
	err = scn_choice(s, field, y->action, words, &word, msg);
	if (!err && (y->factor != NULL) != (word == SLOW))
		return scn_at(s, msg, path, 0,
			      word == SLOW
				      ? "a slow worker needs 'factor', which its steps take longer"
				      : "'factor' goes with 'slow'");
	if (!err && (y->times || y->down || y->period) != (word == FLAP))
		return scn_at(s, msg, path, 0,
			      word == FLAP ? "a flapping worker needs 'times', 'down' and 'period'"
					   : "'times', 'down' and 'period' go with 'flap'");
	(void)snprintf(field, sizeof(field), "%s.at_ms", path);
	if (!err)
		err = scn_real(s, field, y->at_ms, 0, 1e12, &ms, msg);
	(void)snprintf(field, sizeof(field), "%s.factor", path);
	if (!err)
		err = scn_real(s, field, y->factor, 0.01, 1000, &factor, msg);
	(void)snprintf(field, sizeof(field), "%s.times", path);
	if (!err)
		err = scn_whole(s, field, y->times, 1, EVENTS_FLAPS_MAX, &times, msg);
	(void)snprintf(field, sizeof(field), "%s.period", path);
	if (!err)
		err = scn_real(s, field, y->period, 1e-3, 1e9, &period, msg);
	(void)snprintf(field, sizeof(field), "%s.down", path);
	if (!err)
		err = scn_real(s, field, y->down, 1e-3, period, &down, msg);
	if (!err && word == FLAP && !(y->times && y->down && y->period))
		return scn_at(s, msg, path, 0,
			      "a flapping worker needs 'times', 'down' and 'period'");
	(void)snprintf(field, sizeof(field), "%s.pool", path);
	if (!err && y->pool && strcmp(y->pool, "prefill") != 0 && strcmp(y->pool, "decode") != 0)
		err = scn_at(s, msg, field, 0, "found '%.60s': expected prefill or decode",
			     y->pool);
	(void)snprintf(field, sizeof(field), "%s.%s", path, y->at_request ? "at_request" : "at_ms");
	place = scn_place(s, field);
	if (err || !place)
		return err ? err : PD_ENOMEM;
	return add_events(s, y, (enum event_word)word, place, times, down, period, factor);
}

int scn_read_events(struct scenario *s, struct pd_msg *msg)
{
	int err = PD_OK;

	s->events = calloc(s->y->nevents * 2 * EVENTS_FLAPS_MAX + 1, sizeof(*s->events));
	if (!s->events)
		return PD_ENOMEM;
	s->spec.plan.events = s->events;
	s->spec.plan.nevents = 0;
	for (size_t i = 0; !err && i < s->y->nevents; i++)
		err = read_event(s, i, msg);
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
