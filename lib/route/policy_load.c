/*
 * The policies without a key. The two that look at load take the worker with a compare-and-swap on
 * the number they saw; when somebody was faster they look again. So a burst of callers spreads as
 * if they had come one by one.
 */
#include "lib/route/choice.h"

/* How often a pick that lost against others is repeated before the cap alone decides. */
#define TRIES_MAX 256

struct loads {
	uint32_t worker[ROUTE_WORKERS_MAX]; /* those with room */
	uint32_t load[ROUTE_WORKERS_MAX];   /* what was seen */
	size_t n;
	uint32_t least;
	size_t ties; /* how many have the least load */
};

static int look(struct loads *l, const struct route_pool *pool, const struct route_input *in)
{
	int why = PD_ENOENT;

	l->n = 0;
	l->ties = 0;
	l->least = 0;
	for (uint32_t w = 0; w < pool->n; w++) {
		const struct route_slot *slot = pool->worker[w].slot;
		uint32_t load = route_load(slot);

		if (!route_may_pick(pool, in, w))
			continue;
		why = PD_EBUSY;
		if (!route_has_room(slot, load))
			continue;
		if (l->ties == 0 || load < l->least) {
			l->least = load;
			l->ties = 0;
		}
		l->ties += load == l->least;
		l->worker[l->n] = w;
		l->load[l->n++] = load;
	}
	return l->n > 0 ? PD_OK : why;
}

/* The position of the k-th of the least loaded. */
static size_t nth_tie(const struct loads *l, uint64_t k)
{
	for (size_t i = 0;; i++) {
		if (l->load[i] == l->least && k-- == 0)
			return i;
	}
}

/* The chosen one first, then the others by load, in list order among equals. */
static void explain_least(const struct loads *l, size_t chosen, struct route_decision *d)
{
	route_note(d, l->worker[chosen], l->load[chosen]);
	for (size_t i = 0; i < l->n; i++) {
		uint32_t at = d->ncandidates;

		if (i == chosen)
			continue;
		while (at > 1 && d->candidate[at - 1].score > l->load[i])
			at--;
		if (at == ROUTE_CANDIDATES)
			continue;
		if (d->ncandidates < ROUTE_CANDIDATES)
			d->ncandidates++;
		for (uint32_t k = d->ncandidates - 1; k > at; k--)
			d->candidate[k] = d->candidate[k - 1];
		d->candidate[at].worker = l->worker[i];
		d->candidate[at].score = l->load[i];
	}
	d->worker = l->worker[chosen];
	d->score = l->load[chosen];
	d->reason = ROUTE_REASON_LOAD;
	d->ties = (uint32_t)l->ties - 1;
	d->margin = d->ncandidates > 1 ? d->candidate[1].score - d->score : 0;
}

int route_pick_least(struct route_policy *p, const struct route_pool *pool,
		     const struct route_input *in, struct route_decision *d)
{
	uint64_t ticket = 0;
	bool drawn = false;
	struct loads l;

	for (int try = 0;; try++) {
		struct route_slot *slot;
		uint32_t before;
		size_t i;
		int err = look(&l, pool, in);

		if (err)
			return err;
		if (l.ties > 1 && !drawn) { /* turns are used up only where there is a tie */
			ticket = atomic_fetch_add_explicit(&p->cursor, 1, memory_order_relaxed);
			drawn = true;
		}
		i = nth_tie(&l, ticket % l.ties);
		slot = pool->worker[l.worker[i]].slot;
		if (try < TRIES_MAX ? route_acquire_at(slot, l.load[i])
				    : route_acquire(slot, &before)) {
			explain_least(&l, i, d);
			return PD_OK;
		}
	}
}

static void explain_one(struct route_decision *d, uint32_t worker, enum route_reason reason)
{
	d->worker = worker;
	d->reason = reason;
	route_note(d, worker, 0);
}

/* The k-th eligible worker, or the next one when it filled up in between. */
static int take_from(const struct route_pool *pool, const uint32_t *list, size_t n, size_t k,
		     uint32_t *worker, uint32_t *before)
{
	for (size_t i = 0; i < n; i++) {
		*worker = list[(k + i) % n];
		if (route_acquire(pool->worker[*worker].slot, before))
			return PD_OK;
	}
	return PD_EBUSY;
}

int route_pick_rotation(struct route_policy *p, const struct route_pool *pool,
			const struct route_input *in, struct route_decision *d)
{
	uint32_t list[ROUTE_WORKERS_MAX], worker, before;
	int err;
	size_t n = route_eligible(pool, in, list, &err);

	if (n == 0)
		return err;
	err = take_from(pool, list, n,
			atomic_fetch_add_explicit(&p->cursor, 1, memory_order_relaxed) % n, &worker,
			&before);
	if (!err)
		explain_one(d, worker, ROUTE_REASON_ROTATION);
	return err;
}

int route_pick_random(const struct route_pool *pool, const struct route_input *in,
		      struct route_decision *d)
{
	uint32_t list[ROUTE_WORKERS_MAX], worker, before;
	int err;
	size_t n = route_eligible(pool, in, list, &err);

	if (n == 0)
		return err;
	if (!in->rng)
		return PD_EINVAL;
	err = take_from(pool, list, n, rng_below(in->rng, n), &worker, &before);
	if (!err)
		explain_one(d, worker, ROUTE_REASON_RANDOM);
	return err;
}

/* first and second are different; takes the one with less load, the first when they are equal. */
static bool take_lesser(const struct route_pool *pool, uint32_t first, uint32_t second,
			struct route_decision *d)
{
	for (int try = 0; try < TRIES_MAX; try++) {
		struct route_slot *a = pool->worker[first].slot, *b = pool->worker[second].slot;
		uint32_t la = route_load(a), lb = route_load(b);
		bool one = (la <= lb && route_has_room(a, la)) || !route_has_room(b, lb);
		uint32_t load = one ? la : lb, other = one ? lb : la;
		struct route_slot *slot = one ? a : b;

		if (!route_has_room(slot, load))
			return false;
		if (!route_acquire_at(slot, load))
			continue;
		d->worker = one ? first : second;
		d->reason = ROUTE_REASON_LOAD;
		d->score = load;
		d->ties = la == lb;
		d->margin = other > load ? other - load : 0;
		route_note(d, d->worker, load);
		route_note(d, one ? second : first, other);
		return true;
	}
	return false;
}

int route_pick_two(const struct route_pool *pool, const struct route_input *in,
		   struct route_decision *d)
{
	uint32_t list[ROUTE_WORKERS_MAX], worker, before;
	int err;
	size_t n = route_eligible(pool, in, list, &err), i, k;

	if (n == 0)
		return err;
	if (!in->rng)
		return PD_EINVAL;
	if (n > 1) {
		i = rng_below(in->rng, n);
		k = rng_below(in->rng, n - 1);
		k += k >= i;
		if (take_lesser(pool, list[i], list[k], d))
			return PD_OK;
	}
	/* One worker only, or both filled up in between. */
	err = take_from(pool, list, n, 0, &worker, &before);
	if (!err) {
		explain_one(d, worker, ROUTE_REASON_LOAD);
		d->score = before;
		d->candidate[0].score = d->score;
	}
	return err;
}
