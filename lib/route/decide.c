/*
 * The one entry point of all decisions, and what the policies share: counting a request in is a
 * compare-and-swap on the worker's counter, so that of a burst of concurrent callers each sees what
 * the ones before it took.
 */
#include "lib/route/choice.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/nearest.h"

static const char *const policy_names[ROUTE_POLICIES] = {
	[ROUTE_CONSISTENT_HASH] = "consistent_hash", [ROUTE_RENDEZVOUS_HASH] = "rendezvous_hash",
	[ROUTE_ROUND_ROBIN] = "round_robin",	     [ROUTE_RANDOM] = "random",
	[ROUTE_POWER_OF_TWO] = "power_of_two",	     [ROUTE_LEAST_REQUEST] = "least_request",
};

const char *route_policy_name(enum route_policy_kind k)
{
	return k < ROUTE_POLICIES ? policy_names[k] : "unknown";
}

const char *route_reason_name(enum route_reason r)
{
	static const char *const name[] = {
		[ROUTE_REASON_KEY] = "key",	      [ROUTE_REASON_FAILOVER] = "failover",
		[ROUTE_REASON_ROTATION] = "rotation", [ROUTE_REASON_RANDOM] = "random",
		[ROUTE_REASON_LOAD] = "load",	      [ROUTE_REASON_NO_KEY] = "no_key",
	};

	return r < sizeof(name) / sizeof(name[0]) ? name[r] : "unknown";
}

int route_policy_parse(const char *name, enum route_policy_kind *out, struct pd_msg *msg)
{
	const char *words[ROUTE_POLICIES + 1], *near;

	for (size_t k = 0; k < ROUTE_POLICIES; k++) {
		if (strcmp(name, policy_names[k]) == 0) {
			*out = (enum route_policy_kind)k;
			return PD_OK;
		}
		words[k] = policy_names[k];
	}
	words[ROUTE_POLICIES] = NULL;
	near = nearest_word(name, words);
	return pd_fail(msg, PD_EINVAL,
		       "unknown policy '%.60s'%s%s%s expected consistent_hash, rendezvous_hash, "
		       "round_robin, random, power_of_two or least_request",
		       name, near ? ", did you mean '" : "", near ? near : "", near ? "'?" : ",");
}

void route_policy_init(struct route_policy *p, enum route_policy_kind k)
{
	p->kind = k;
	atomic_init(&p->cursor, 0);
}

bool route_acquire(struct route_slot *s, uint32_t *before)
{
	uint32_t now = route_load(s);

	if (atomic_load_explicit(&s->cap, memory_order_relaxed) == 0) {
		*before = atomic_fetch_add_explicit(&s->in_flight, 1, memory_order_relaxed);
		return true;
	}
	do {
		if (!route_has_room(s, now))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		&s->in_flight, &now, now + 1, memory_order_relaxed, memory_order_relaxed));
	*before = now;
	return true;
}

bool route_acquire_at(struct route_slot *s, uint32_t expected)
{
	return atomic_compare_exchange_strong_explicit(&s->in_flight, &expected, expected + 1,
						       memory_order_relaxed, memory_order_relaxed);
}

void route_release(struct route_slot *slot)
{
	atomic_fetch_sub_explicit(&slot->in_flight, 1, memory_order_relaxed);
}

void route_note(struct route_decision *d, uint32_t worker, double score)
{
	if (d->ncandidates == ROUTE_CANDIDATES)
		return;
	d->candidate[d->ncandidates].worker = worker;
	d->candidate[d->ncandidates].score = score;
	d->ncandidates++;
}

size_t route_eligible(const struct route_pool *pool, const struct route_input *in, uint32_t *list,
		      int *why)
{
	size_t n = 0;

	*why = PD_ENOENT;
	for (uint32_t w = 0; w < pool->n; w++) {
		if (!route_may_pick(pool, in, w))
			continue;
		*why = PD_EBUSY;
		if (route_has_room(pool->worker[w].slot, route_load(pool->worker[w].slot)))
			list[n++] = w;
	}
	return n;
}

static bool has_key(const struct route_key *key)
{
	return key && key->level != ROUTE_KEY_NONE;
}

static int pick(struct route_policy *p, const struct route_pool *pool, const struct route_input *in,
		struct route_decision *d)
{
	int err;

	switch (p->kind) {
	case ROUTE_CONSISTENT_HASH:
	case ROUTE_RENDEZVOUS_HASH:
		if (has_key(in->key))
			return p->kind == ROUTE_CONSISTENT_HASH
				       ? route_pick_ring(pool, in, d)
				       : route_pick_rendezvous(pool, in, d);
		err = route_pick_least(p, pool, in, d);
		d->reason = ROUTE_REASON_NO_KEY;
		return err;
	case ROUTE_ROUND_ROBIN:
		return route_pick_rotation(p, pool, in, d);
	case ROUTE_RANDOM:
		return route_pick_random(pool, in, d);
	case ROUTE_POWER_OF_TWO:
		return route_pick_two(pool, in, d);
	case ROUTE_LEAST_REQUEST:
		return route_pick_least(p, pool, in, d);
	case ROUTE_POLICIES:
		break;
	}
	return PD_EINVAL;
}

/* An available worker needs no permit; of a worker on probation one is taken, if nobody was faster.
 */
static bool permitted(struct route_slot *s, bool *trial)
{
	uint32_t left = atomic_load_explicit(&s->permits, memory_order_relaxed);

	*trial = false;
	if (atomic_load_explicit(&s->available, memory_order_acquire))
		return true;
	while (left > 0 && !*trial)
		*trial = atomic_compare_exchange_weak_explicit(
			&s->permits, &left, left - 1, memory_order_relaxed, memory_order_relaxed);
	return *trial;
}

int route_decide(struct route_policy *p, const struct route_pool *pool,
		 const struct route_input *in, struct route_decision *out)
{
	bool hashed = p->kind <= ROUTE_RENDEZVOUS_HASH && has_key(in->key);
	int err;

	if (pool->n == 0)
		return PD_ENOENT;
	for (;;) {
		*out = (struct route_decision){.worker = 0};
		err = pick(p, pool, in, out);
		if (err)
			return err;
		if (permitted(pool->worker[out->worker].slot, &out->trial))
			break;
		route_release(pool->worker[out->worker].slot);
	}
	if (!hashed)
		out->home = out->worker;
	atomic_fetch_add_explicit(&pool->worker[out->worker].slot->picks, 1, memory_order_relaxed);
	return PD_OK;
}

int route_order(const struct route_policy *p, const struct route_pool *pool,
		const struct route_key *key, uint32_t *order)
{
	if (!has_key(key) || p->kind > ROUTE_RENDEZVOUS_HASH)
		return PD_EINVAL;
	if (p->kind == ROUTE_CONSISTENT_HASH)
		route_order_ring(pool, key, order);
	else
		route_order_rendezvous(pool, key, order);
	return PD_OK;
}
