/*
 * Sticky until saturated, without a session key. A conversation is known by its beginning: its last
 * prompt is part of the next one, block by block. So a request goes to the worker that computed the
 * longest known beginning of its prompt, as long as this is worth it:
 *
 * - A beginning that many conversations share is no reason to meet. Its share of the traffic says
 *   how many workers it needs: a system prompt of all requests needs all of them and decides
 *   nothing, one of 32 prefix groups needs one. Between those, the workers that may compute it are
 *   its first and the next in its rendezvous order, and the one with the least recent work is
 * taken. The same holds for a conversation that is hot by itself.
 * - A new conversation goes where the least was done lately, in requests and in tokens to compute,
 *   and the least is in flight, so that conversations are level before they grow.
 * - A worker is left when it is saturated (affinity-saturation times its share in flight, and two
 * more than the other) and the move pays: what waits there, in prompt tokens, is more than what
 *   waits at the other and the part of the prompt that only the old one has. The conversation then
 *   stays where it moved to.
 *
 * A session key, where there is one, finds the worker when the prompt does not: prompts of less
 * than a block, histories that were rewritten. What was seen fades with the number of picks, not
 * with time, so that a replay decides alike at any speed.
 */
#include <stdlib.h>

#include "lib/route/memory/anchors.h"
#include "lib/route/policy/hashing.h"
#include "lib/route/policy/ranking.h"
#include "lib/route/policy/sessions.h"
#include "lib/route/prefix.h"

#define OVER_MAX  0.25
#define ROOTS_MAX 4 /* shared beginnings below each other that hear of a pick */

struct params {
	double factor;
	int64_t anchors, window, request_tokens;
};

static const struct route_param params[] = {
	{.type = ROUTE_PARAM_REAL,
	 .name = "affinity-saturation",
	 .arg = "F",
	 .help = "a worker is saturated with so many times its share of the requests in flight",
	 .offset = offsetof(struct params, factor),
	 .min = 1,
	 .max = 100,
	 .fallback = 2.5},
	{.type = ROUTE_PARAM_INT,
	 .name = "affinity-anchors",
	 .arg = "N",
	 .help = "most beginnings of prompts that are remembered, 48 bytes each",
	 .offset = offsetof(struct params, anchors),
	 .min = ANCHORS_MIN,
	 .max = ANCHORS_MAX,
	 .fallback = 262144},
	{.type = ROUTE_PARAM_INT,
	 .name = "affinity-window",
	 .arg = "N",
	 .help = "decisions after which what was seen counts half",
	 .offset = offsetof(struct params, window),
	 .min = 16,
	 .max = 1048576,
	 .fallback = 1024},
	{.type = ROUTE_PARAM_INT,
	 .name = "affinity-request-tokens",
	 .arg = "N",
	 .help = "what a request in flight costs besides its prompt, in prompt tokens",
	 .offset = offsetof(struct params, request_tokens),
	 .min = 0,
	 .max = 1048576,
	 .fallback = 256},
	{.type = ROUTE_PARAM_END},
};

struct memory {
	struct anchors *anchors;
	struct tally *tally;
	uint32_t window;
	_Atomic uint32_t picks;
};

static void memory_free(void *memory)
{
	struct memory *m = memory;

	if (!m)
		return;
	anchors_free(m->anchors);
	tally_free(m->tally);
	free(m);
}

static int memory_new(const void *given, void **memory)
{
	const struct params *p = given;
	struct memory *m = calloc(1, sizeof(*m));
	int err;

	*memory = NULL;
	if (!m)
		return PD_ENOMEM;
	m->window = (uint32_t)p->window;
	err = anchors_new(&m->anchors, (size_t)p->anchors);
	err = err ? err : tally_new(&m->tally);
	if (err) {
		memory_free(m);
		return err;
	}
	*memory = m;
	return PD_OK;
}

static int table_new(const struct route_pool *pool, const void *given, void **table,
		     struct pd_msg *msg)
{
	struct memory *m = pool->state->memory;
	struct tally_row *row;
	int err = tally_row_new(&row, m->tally, pool);

	(void)given;
	(void)msg;
	*table = row;
	return err;
}

static void table_free(void *table)
{
	tally_row_free(table);
}

/* What is known of a request. */
struct walk {
	struct anchor hit; /* the longest known beginning */
	size_t depth;	   /* its blocks; 0: nothing is known */
	struct anchor session;
	uint64_t session_id; /* 0: no key that counts */
	bool has_session;
	bool moved, homeless; /* the anchor that decided points to the picked worker from now on */
	bool by_session;      /* the session decided, not the prompt */
	bool placed;	      /* a new conversation, or one without a home */
	bool narrow;	      /* the beginning is not for most workers */
	uint32_t picks;	      /* before this one */
	uint32_t missing[2];  /* tokens to compute: at home, elsewhere */
	uint64_t home_id;
	uint32_t home, first[2]; /* yielded before the others */
	uint32_t n, at;
	enum route_reason reason; /* of the first */
	struct ranking rest;
};

/* -- how much of the traffic -- */

static float faded(const struct memory *m, const struct anchor *a, uint32_t picks)
{
	float window = (float)m->window, passed = (float)(picks - a->used);

	return a->rate * window / (window + passed);
}

/* How many of n workers this beginning needs: as many as its share of the picks, with some air. */
static size_t spread_of(const struct memory *m, const struct anchor *a, uint32_t picks, size_t n)
{
	float all = (float)(picks < m->window ? picks : m->window), need;

	all = all < (float)n ? (float)n : all;
	need = faded(m, a, picks) / all * (float)n * 1.25F + 0.5F;
	return need < 1 ? 1 : need > (float)n ? n : (size_t)need;
}

/* -- where -- */

#define FEW 64

/* The workers that a beginning may use: its first, and the next in its rendezvous order. */
static void choose_by(const struct route_view *v, uint64_t block, uint32_t home, size_t spread,
		      bool *in, uint64_t *rank)
{
	uint64_t best;
	size_t n = v->pool->n, at;

	for (size_t i = 0; i < n; i++) {
		rank[i] = route_dice(block, 0, v->pool->worker[i].id, 0);
		in[i] = i == home;
	}
	for (size_t k = home < n ? 1 : 0; k < spread; k++) {
		best = 0;
		at = n;
		for (size_t i = 0; i < n; i++)
			if (!in[i] && (at == n || rank[i] > best)) {
				best = rank[i];
				at = i;
			}
		in[at] = true;
	}
}

/* Two frames, as in decide.c: few workers need little stack. */
static __attribute__((noinline)) void choose_of_many(const struct route_view *v, uint64_t block,
						     uint32_t home, size_t spread, bool *in)
{
	uint64_t rank[ROUTE_WORKERS_MAX];

	choose_by(v, block, home, spread, in, rank);
}

static void choose_some(const struct route_view *v, uint64_t block, uint32_t home, size_t spread,
			bool *in)
{
	uint64_t rank[FEW];

	if (v->pool->n > FEW)
		choose_of_many(v, block, home, spread, in);
	else
		choose_by(v, block, home, spread, in, rank);
}

static double share(double part, double mean)
{
	return mean > 0 ? part / mean : 0;
}

/* By how much a part is over its share; a tenth of it is noise, and one long prompt must not keep
 * others away for long. */
static double over(double part, double mean)
{
	double by = share(part, mean) - 1.1;

	return by < 0 ? 0 : by > OVER_MAX ? OVER_MAX : by;
}

/*
 * The worker for a new conversation among some (NULL: all) that can take it: the one that got the
 * fewest of them lately, as conversations of today are the requests of tomorrow. One that has more
 * than its share of the requests or of the tokens all the same counts as if it had got as many
 * more, and a quarter of what is in flight counts, so that equal ones fill alike. The weights are
 * those that did best over the workloads of docs/policies.md.
 */
static uint32_t least_work(const struct route_view *v, uint32_t epoch, uint64_t salt,
			   const bool *in)
{
	const struct params *p = v->params;
	const struct tally_row *row = v->pool->table;
	double mean[TALLY_KINDS] = {0}, loads = 0, best_score = 0;
	uint32_t best = ROUTE_NO_WORKER;
	struct route_bound bound;
	uint64_t best_rank = 0;

	route_bound_of(&bound, v, p->factor);
	for (uint32_t i = 0; i < v->pool->n; i++) {
		for (int k = 0; k < TALLY_KINDS; k++)
			mean[k] += (double)tally_recent(row->cell[i], epoch, (enum tally_kind)k) /
				   (double)v->pool->weight;
		loads += (double)route_load(v->pool->worker[i].slot) / (double)v->pool->weight;
	}
	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_worker *w = &v->pool->worker[i];
		uint32_t load = route_load(w->slot);
		double part[TALLY_KINDS], score;
		uint64_t rank;

		if ((in && !in[i]) || !route_may_pick(v, i) || !route_has_room(w->slot, load) ||
		    load >= route_bound_at(&bound, w))
			continue;
		for (int k = 0; k < TALLY_KINDS; k++)
			part[k] = (double)tally_recent(row->cell[i], epoch, (enum tally_kind)k) /
				  w->weight;
		score = share(part[TALLY_PLACED], mean[TALLY_PLACED]) +
			over(part[TALLY_PICKS], mean[TALLY_PICKS]) +
			over(part[TALLY_TOKENS], mean[TALLY_TOKENS]) +
			share((double)load / w->weight, loads) / 4;
		rank = route_dice(salt, 0, w->id, 0);
		if (best != ROUTE_NO_WORKER &&
		    (score > best_score || (score == best_score && rank < best_rank)))
			continue;
		best = i;
		best_score = score;
		best_rank = rank;
	}
	return best;
}

/* Tokens that wait at a worker for this request, with those of its own. */
static double cost_at(const struct route_view *v, const struct walk *w, uint32_t worker)
{
	const struct params *p = v->params;
	const struct route_worker *at = &v->pool->worker[worker];

	double waits =
		(double)route_tokens(at->slot) + (double)p->request_tokens * route_load(at->slot);

	/* Most weights are 1, and a division costs more than all the rest. */
	return (at->weight > 1 ? waits / at->weight : waits) + w->missing[worker != w->home];
}

/* Home has more than its share, and another is better by more than the prefix is worth. */
static bool should_move(const struct route_view *v, const struct walk *w, uint32_t *to)
{
	const struct params *p = v->params;
	const struct route_worker *home = &v->pool->worker[w->home];
	uint32_t load = route_load(home->slot), best = ROUTE_NO_WORKER;
	struct route_bound bound;
	double best_cost = 0;

	if (load < 2)
		return false;
	route_bound_of(&bound, v, p->factor);
	if (load < route_bound_at(&bound, home))
		return false;
	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_slot *slot = v->pool->worker[i].slot;
		double cost = cost_at(v, w, i);

		if (i == w->home || !route_may_pick(v, i) ||
		    !route_has_room(slot, route_load(slot)) || route_load(slot) + 2 > load ||
		    (best != ROUTE_NO_WORKER && cost >= best_cost))
			continue;
		best = i;
		best_cost = cost;
	}
	*to = best;
	return best != ROUTE_NO_WORKER && best_cost < cost_at(v, w, w->home);
}

/* -- the ranking -- */

static uint32_t block_tokens(const struct route_request *rq)
{
	return rq->block_tokens ? rq->block_tokens : ROUTE_BLOCK_TOKENS;
}

static uint32_t missing(const struct route_request *rq, size_t cached_blocks)
{
	uint64_t all = rq->tokens ? rq->tokens : (uint64_t)rq->nblocks * block_tokens(rq);
	uint64_t cached = (uint64_t)cached_blocks * block_tokens(rq);

	return cached < all ? (uint32_t)(all - cached) : 1;
}

static void look_up(const struct route_view *v, struct walk *w)
{
	const struct memory *m = v->memory;
	const struct route_request *rq = v->rq;

	w->picks = atomic_load_explicit(&m->picks, memory_order_relaxed);
	w->depth = anchors_deepest(m->anchors, rq->block, rq->nblocks, &w->hit);
	w->session_id = 0;
	/* A user may have many conversations: without a prompt it is better than nothing. */
	if (route_has_key(rq) && sessions_named(rq) &&
	    (rq->key->level == ROUTE_KEY_SESSION || rq->nblocks == 0))
		w->session_id = sessions_id(rq) | 1;
	w->has_session = w->session_id && anchors_get(m->anchors, w->session_id, &w->session);
	/* What the worker computed says more than a name, unless the session is hot. */
	w->by_session = w->has_session &&
			(w->depth == 0 ||
			 (!w->hit.tail && spread_of(m, &w->hit, w->picks, v->pool->n) > 1) ||
			 spread_of(m, &w->session, w->picks, v->pool->n) > 1);
}

/* Blocks of the prompt that other workers have too: a shared beginning that most of them serve. */
static size_t everywhere(const struct route_view *v, const struct walk *w, const struct anchor *by)
{
	const struct memory *m = v->memory;
	struct anchor root;

	if (!by || !by->root || !anchors_get(m->anchors, by->root, &root) ||
	    2 * spread_of(m, &root, w->picks, v->pool->n) < v->pool->n)
		return 0;
	return by->root_depth;
}

/* Where hashes of this conversation, or of this beginning, come from: what stays the same from turn
 * to turn, which is the first block behind what is shared. */
static uint64_t salt_of(const struct route_request *rq, const struct walk *w,
			const struct anchor *by)
{
	if (by && (w->by_session || !by->tail))
		return by->block;
	if (rq->nblocks > 0)
		return rq->block[by && by->root_depth < rq->nblocks ? by->root_depth
								    : rq->nblocks - 1];
	return w->session_id ? w->session_id : rq->draw;
}

/* More in flight than a quarter above its share. */
static bool is_crowded(const struct route_view *v, uint32_t worker)
{
	const struct route_worker *at = &v->pool->worker[worker];
	struct route_bound bound;

	route_bound_of(&bound, v, 1.25);
	return route_load(at->slot) >= route_bound_at(&bound, at);
}

/* A worker of its own. One that is hot, which is more than a worker is for, may use others beside
 * it while that one is crowded; its home stays. */
static void stay(const struct route_view *v, struct walk *w, const struct anchor *by, size_t spread)
{
	const struct memory *m = v->memory;
	uint32_t other = ROUTE_NO_WORKER;
	bool in[ROUTE_WORKERS_MAX];

	w->reason = w->by_session ? ROUTE_REASON_KEY : ROUTE_REASON_PREFIX;
	w->first[w->n++] = w->home;
	if (!route_may_pick(v, w->home))
		return;
	if (spread > 1 && is_crowded(v, w->home)) {
		choose_some(v, salt_of(v->rq, w, by), w->home, spread, in);
		other = least_work(v, w->picks / m->window, salt_of(v->rq, w, by), in);
		if (other == w->home)
			other = ROUTE_NO_WORKER;
		if (other != ROUTE_NO_WORKER)
			w->missing[1] = w->missing[0]; /* after the first time it is there, too */
	} else if (should_move(v, w, &other)) {
		w->reason = ROUTE_REASON_MOVED;
		w->moved = true;
	} else {
		other = ROUTE_NO_WORKER;
	}
	if (other != ROUTE_NO_WORKER) {
		w->first[w->n++] = w->home;
		w->first[0] = other;
	}
}

/* A place for what has none, or for one more that shares a beginning. */
static void settle(const struct route_view *v, struct walk *w, const struct anchor *by,
		   size_t spread)
{
	uint32_t epoch = w->picks / ((const struct memory *)v->memory)->window;
	uint32_t place = ROUTE_NO_WORKER;
	uint64_t salt = salt_of(v->rq, w, by);
	bool in[ROUTE_WORKERS_MAX];

	w->reason = ROUTE_REASON_LOAD;
	w->placed = true;
	if (spread < v->pool->n) {
		choose_some(v, salt, w->home, spread, in);
		place = least_work(v, epoch, salt, in);
		if (place != ROUTE_NO_WORKER)
			w->reason = ROUTE_REASON_PREFIX;
	}
	if (place == ROUTE_NO_WORKER)
		place = least_work(v, epoch, salt, NULL);
	if (spread == v->pool->n || w->reason == ROUTE_REASON_PREFIX)
		w->missing[1] = w->missing[0]; /* it is everywhere, or soon will be */
	if (place != ROUTE_NO_WORKER)
		w->first[w->n++] = place;
}

static void begin(const struct route_view *v, void *walk)
{
	const struct memory *m = v->memory;
	const struct route_request *rq = v->rq;
	const struct anchor *by;
	struct walk *w = walk;
	size_t spread = v->pool->n;

	look_up(v, w);
	w->n = w->at = 0;
	w->moved = w->homeless = w->placed = false;
	by = w->by_session ? &w->session : w->depth > 0 ? &w->hit : NULL;
	w->home = by ? route_pool_find(v->pool, by->worker) : ROUTE_NO_WORKER;
	w->homeless = by && w->home == ROUTE_NO_WORKER;
	w->home_id = by ? by->worker : 0;
	w->missing[0] = missing(rq, w->depth);
	w->missing[1] = missing(rq, everywhere(v, w, by));
	if (by)
		spread = spread_of(m, by, w->picks, v->pool->n);
	w->narrow = 2 * spread < v->pool->n;
	if (w->home != ROUTE_NO_WORKER && (spread == 1 || by->tail))
		stay(v, w, by, spread);
	else
		settle(v, w, by, spread);
	ranking_begin(&w->rest, v);
	for (uint32_t i = 0; i < v->pool->n; i++) {
		const struct route_slot *slot = v->pool->worker[i].slot;
		uint32_t load = route_load(slot);

		if (route_may_pick(v, i) && route_has_room(slot, load) &&
		    !(w->n > 0 && i == w->first[0]) && !(w->n > 1 && i == w->first[1]))
			ranking_add(&w->rest, i, load, cost_at(v, w, i));
	}
}

static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;

	*c = (struct route_choice){.reason = ROUTE_REASON_LOAD};
	if (w->at < w->n) {
		c->worker = w->first[w->at];
		c->reason = w->at++ == 0 ? w->reason : ROUTE_REASON_FAILOVER;
		c->seen = route_load(v->pool->worker[c->worker].slot);
		c->score = cost_at(v, w, c->worker);
	} else if (ranking_next(&w->rest, v, false, c)) {
		c->ties = 0;
		if (w->n > 0)
			c->reason = ROUTE_REASON_FAILOVER;
	} else {
		return false;
	}
	c->tokens = w->missing[c->worker != w->home];
	return true;
}

/* -- what was picked -- */

static void hear(const struct memory *m, uint64_t block, uint32_t pick)
{
	struct anchor a;

	for (int i = 0; block && i < ROOTS_MAX && anchors_get(m->anchors, block, &a); i++) {
		a.rate = faded(m, &a, pick) + 1;
		a.used = pick;
		anchors_put(m->anchors, &a);
		block = a.root;
	}
}

/* The longest known beginning was used once more. Going on with a conversation makes its old end a
 * beginning like others. */
static void use_hit(const struct memory *m, const struct walk *w, const struct route_event *e,
		    uint32_t pick, struct anchor *fresh)
{
	struct anchor hit = w->hit;
	bool goes_on = hit.tail && w->depth < e->request->nblocks;

	if (hit.tail) {
		fresh->root = hit.root;
		fresh->root_depth = hit.root_depth;
		hear(m, hit.root, pick);
	} else {
		fresh->root = hit.block;
		fresh->root_depth = (uint32_t)w->depth;
		hear(m, hit.root, pick);
	}
	hit.rate = faded(m, &hit, pick) + 1;
	/* What is hot stays hot where it goes on. */
	if (goes_on || w->narrow)
		fresh->rate = hit.rate;
	hit.used = pick;
	hit.tail = hit.tail && !goes_on;
	if (!w->by_session && (w->moved || w->homeless))
		hit.worker = e->worker;
	anchors_put(m->anchors, &hit);
}

static void picked(struct memory *m, const struct route_event *e)
{
	const struct route_request *rq = e->request;
	const struct walk *w = e->walk;
	uint32_t pick = atomic_fetch_add_explicit(&m->picks, 1, memory_order_relaxed) + 1;
	struct anchor fresh = {.worker = e->worker, .used = pick, .rate = 1};

	if (w->depth > 0)
		use_hit(m, w, e, pick, &fresh);
	for (size_t i = w->depth + 1; i <= rq->nblocks; i++) {
		struct anchor a = fresh;

		a.tail = i == rq->nblocks;
		if (!a.tail && !anchors_mark(i))
			continue;
		a.rate = a.tail ? fresh.rate : 1;
		a.block = rq->block[i - 1];
		anchors_put(m->anchors, &a);
	}
	if (w->session_id) {
		struct anchor a = fresh;

		a.block = w->session_id;
		a.tail = true;
		a.rate = w->has_session ? faded(m, &w->session, pick) + 1 : 1;
		if (w->has_session && w->by_session && !w->moved && !w->homeless)
			a.worker = w->session.worker;
		anchors_put(m->anchors, &a);
	}
	tally_work(tally_find(m->tally, e->worker), pick / m->window,
		   w->missing[e->worker != w->home_id], w->placed);
}

static void learn(void *memory, const struct route_event *e)
{
	struct memory *m = memory;

	if (e->kind == ROUTE_PICKED && e->walk)
		picked(m, e);
	else if (e->kind == ROUTE_FINISHED && e->request && route_has_key(e->request))
		anchors_forget(m->anchors, sessions_id(e->request) | 1);
}

const struct route_policy_type route_policy_affinity = {
	.name = "affinity",
	.help = "where the beginning of the prompt was computed, unless that worker is saturated; "
		"no key needed",
	.flags = ROUTE_BY_LOAD | ROUTE_WANTS_BLOCKS | ROUTE_DRAWS,
	.params = params,
	.params_size = sizeof(struct params),
	.walk_size = sizeof(struct walk),
	.table_new = table_new,
	.table_free = table_free,
	.memory_new = memory_new,
	.memory_free = memory_free,
	.begin = begin,
	.next = next,
	.learn = learn,
};
