/*
 * The two policies by key. Both are an order of preference over all workers, and the pick is the
 * first one in that order that may be picked and has room: next on the ring or next by score, never
 * "the first healthy one". So the sessions of a worker that fails spread over all others, and each
 * returns to its home when the worker comes back.
 *
 * The ring walk visits distinct workers and not points: with few workers many neighbouring points
 * belong to the worker that was just passed over.
 */
#include "lib/route/choice.h"

#include <string.h>

#define TWO_TO_64 18446744073709551616.0

/* The state of one pick while the order of preference is walked. */
struct settle {
	const struct route_pool *pool;
	const struct route_input *in;
	struct route_decision *d;
	bool available; /* at least one worker may be picked */
	bool chosen;
	bool runner; /* the one behind the chosen was seen */
	bool first;  /* no worker was looked at yet */
};

static void settle_chosen(struct settle *s, uint32_t w, double score)
{
	struct route_decision *d = s->d;

	s->chosen = true;
	d->worker = w;
	d->score = score;
	d->reason = w == d->home ? ROUTE_REASON_KEY : ROUTE_REASON_FAILOVER;
	if (d->ncandidates == ROUTE_CANDIDATES) /* the chosen one is always shown */
		d->ncandidates--;
	route_note(d, w, score);
}

/* One worker of the order. Returns true when nothing more has to be known. */
static bool settle_step(struct settle *s, uint32_t w, double score)
{
	uint32_t before;

	if (s->first)
		s->d->home = w;
	s->first = false;
	if (s->chosen) {
		if (!s->runner)
			s->d->margin =
				score > s->d->score ? score - s->d->score : s->d->score - score;
		s->runner = true;
		route_note(s->d, w, score);
	} else if (route_may_pick(s->pool, s->in, w)) {
		s->available = true;
		if (route_acquire(s->pool->worker[w].slot, &before))
			settle_chosen(s, w, score);
		else
			route_note(s->d, w, score);
	} else {
		route_note(s->d, w, score);
	}
	return s->runner && s->d->ncandidates == ROUTE_CANDIDATES;
}

static int settle_result(const struct settle *s)
{
	if (s->chosen)
		return PD_OK;
	return s->available ? PD_EBUSY : PD_ENOENT;
}

/* The distinct workers of the ring from a key's place on. */
struct walk {
	const struct route_pool *pool;
	uint64_t hash;
	size_t at, left; /* next point, points left */
	size_t found,
		missing; /* distinct workers seen; where the search for pointless workers is */
	struct route_set seen;
};

static void walk_init(struct walk *w, const struct route_pool *pool, const struct route_key *key)
{
	w->pool = pool;
	w->hash = route_hash(pool->hash, key->text, key->len);
	w->at = pool->npoints ? route_pool_lookup(pool, w->hash) : 0;
	w->left = pool->npoints;
	w->found = 0;
	w->missing = 0;
	route_set_clear(&w->seen, pool->n);
}

static bool walk_next(struct walk *w, uint32_t *worker, double *score)
{
	const struct route_pool *pool = w->pool;

	while (w->left > 0 && w->found < pool->on_ring) {
		const struct route_point *p = &pool->point[w->at];

		w->at = w->at + 1 == pool->npoints ? 0 : w->at + 1;
		w->left--;
		if (route_set_has(&w->seen, p->worker))
			continue;
		route_set_add(&w->seen, p->worker);
		w->found++;
		*worker = p->worker;
		*score = (double)(p->pos - w->hash) / TWO_TO_64;
		return true;
	}
	/* A worker whose points all collided is still there, a whole turn away. */
	while (w->found < pool->n) {
		uint32_t i = (uint32_t)w->missing++;

		if (route_set_has(&w->seen, i))
			continue;
		w->found++;
		*worker = i;
		*score = 1;
		return true;
	}
	return false;
}

int route_pick_ring(const struct route_pool *pool, const struct route_input *in,
		    struct route_decision *d)
{
	struct settle s = {.pool = pool, .in = in, .d = d, .first = true};
	struct walk w;
	uint32_t worker;
	double score;

	walk_init(&w, pool, in->key);
	while (walk_next(&w, &worker, &score)) {
		if (settle_step(&s, worker, score))
			break;
	}
	return settle_result(&s);
}

void route_order_ring(const struct route_pool *pool, const struct route_key *key, uint32_t *order)
{
	struct walk w;
	uint32_t worker;
	double score;
	size_t n = 0;

	walk_init(&w, pool, key);
	while (walk_next(&w, &worker, &score))
		order[n++] = worker;
}

/* score[i] = hash of "{key}:{name of worker i}" */
static void rendezvous_scores(const struct route_pool *pool, const struct route_key *key,
			      uint64_t *score)
{
	char text[ROUTE_KEY_MAX + 1 + ROUTE_NAME_MAX];
	size_t head = key->len + 1;

	memcpy(text, key->text, key->len);
	text[key->len] = ':';
	for (size_t i = 0; i < pool->n; i++) {
		size_t len = strlen(pool->worker[i].name);

		memcpy(text + head, pool->worker[i].name, len);
		score[i] = route_hash(pool->hash, text, head + len);
	}
}

/*
 * The highest score of those not seen and not above `most`; of equal scores the last. `skip` leaves
 * out workers that cannot be picked.
 */
static bool next_score(const struct route_pool *pool, const uint64_t *score, struct route_set *seen,
		       uint64_t most, const struct route_input *skip, uint32_t *worker)
{
	bool found = false;

	for (uint32_t i = 0; i < pool->n; i++) {
		struct route_slot *slot = pool->worker[i].slot;

		if (score[i] > most || (found && score[i] < score[*worker]) ||
		    route_set_has(seen, i))
			continue;
		if (skip &&
		    (!route_may_pick(pool, skip, i) || !route_has_room(slot, route_load(slot))))
			continue;
		*worker = i;
		found = true;
	}
	if (found)
		route_set_add(seen, *worker);
	return found;
}

/* Are there available workers at all? Asked only when none was chosen. */
static int why_none(const struct route_pool *pool, const struct route_input *in)
{
	for (uint32_t i = 0; i < pool->n; i++) {
		if (route_may_pick(pool, in, i))
			return PD_EBUSY;
	}
	return PD_ENOENT;
}

/*
 * The best scores are looked at one after another; behind the first few, only workers that can be
 * picked, so that the cost stays linear however many are down or full.
 */
int route_pick_rendezvous(const struct route_pool *pool, const struct route_input *in,
			  struct route_decision *d)
{
	struct settle s = {.pool = pool, .in = in, .d = d, .first = true};
	uint64_t score[ROUTE_WORKERS_MAX];
	struct route_set seen;
	uint32_t worker = 0;

	rendezvous_scores(pool, in->key, score);
	route_set_clear(&seen, pool->n);
	for (unsigned i = 0;; i++) {
		const struct route_input *skip = i >= ROUTE_CANDIDATES && !s.chosen ? in : NULL;
		uint64_t most = s.chosen ? score[d->worker] : UINT64_MAX;

		if (!next_score(pool, score, &seen, most, skip, &worker) ||
		    settle_step(&s, worker, (double)score[worker] / TWO_TO_64))
			break;
	}
	return s.chosen ? PD_OK : why_none(pool, in);
}

void route_order_rendezvous(const struct route_pool *pool, const struct route_key *key,
			    uint32_t *order)
{
	uint64_t score[ROUTE_WORKERS_MAX];
	struct route_set seen = {0};

	rendezvous_scores(pool, key, score);
	for (size_t n = 0; n < pool->n; n++) {
		if (!next_score(pool, score, &seen, UINT64_MAX, NULL, &order[n]))
			break;
	}
}
