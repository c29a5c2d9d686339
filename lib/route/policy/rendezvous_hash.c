/*
 * Highest random weight: each worker has a score for each key, the best one is the key's home. No
 * table; the cost of a decision is one hash per worker.
 */
#include <math.h>

#include "lib/route/policy/hashing.h"

#define EXPLAINED 4 /* workers that are shown whether or not they can be picked */

struct params {
	int64_t hash;
};

static const struct route_param params[] = {
	ROUTE_RING_HASH_PARAM(struct params, hash),
	{.type = ROUTE_PARAM_END},
};

struct walk {
	uint64_t score[ROUTE_WORKERS_MAX];
	uint32_t best[EXPLAINED + 1], nbest; /* the first of the order */
	uint32_t yielded, last;		     /* how many, and the last one */
};

/*
 * The hash as a number u in (0, 1) gives the weighted score -weight / ln u (Mosharaf and others,
 * "Weighted rendezvous hashing"): shares are as the weights, and a changed weight moves only the
 * keys that it must. Positive doubles are ordered as their bits, so both kinds of score are
 * compared as integers.
 */
static uint64_t weighted(uint64_t hash, uint32_t weight)
{
	double u = ((double)(hash >> 11) + 0.5) / 9007199254740992.0,
	       score = -(double)weight / log(u);
	uint64_t bits;

	memcpy(&bits, &score, sizeof(bits));
	return bits;
}

/* Of equal scores the later worker comes first. */
static bool before(const struct walk *w, uint32_t a, uint32_t b)
{
	return w->score[a] != w->score[b] ? w->score[a] > w->score[b] : a > b;
}

/* score[i] = hash of "{key}:{name of worker i}" */
static void begin(const struct route_view *v, void *walk)
{
	const struct route_key *key = v->rq->key;
	enum route_hash hash = (enum route_hash)((const struct params *)v->params)->hash;
	char text[ROUTE_KEY_MAX + 1 + ROUTE_NAME_MAX];
	size_t head = key->len + 1;
	struct walk *w = walk;

	memcpy(text, key->text, key->len);
	text[key->len] = ':';
	for (size_t i = 0; i < v->pool->n; i++) {
		const struct route_worker *worker = &v->pool->worker[i];

		memcpy(text + head, worker->name, worker->name_len);
		w->score[i] = route_hash(hash, text, head + worker->name_len);
		if (v->pool->weighted)
			w->score[i] = weighted(w->score[i], worker->weight);
	}
	w->yielded = w->nbest = 0;
	for (uint32_t i = 0; i < v->pool->n; i++) {
		uint32_t at;

		if (w->nbest > EXPLAINED && before(w, w->best[EXPLAINED], i))
			continue;
		at = w->nbest <= EXPLAINED ? w->nbest++ : EXPLAINED;
		for (; at > 0 && before(w, i, w->best[at - 1]); at--)
			w->best[at] = w->best[at - 1];
		w->best[at] = i;
	}
}

static double shown(const struct route_view *v, uint64_t score)
{
	double real;

	if (!v->pool->weighted)
		return (double)score / ROUTE_HASH_SPAN;
	memcpy(&real, &score, sizeof(real));
	return real / (1 + real); /* within 0 to 1, in the same order */
}

/* The best behind the last one. Behind the first few only workers that can be picked are looked
 * for, so that the cost stays linear however many are down or full. */
static bool next(const struct route_view *v, void *walk, struct route_choice *c)
{
	struct walk *w = walk;
	bool narrow = w->yielded >= EXPLAINED && !v->settled, found = false;
	uint32_t best = 0;

	if (w->yielded < w->nbest && !narrow) {
		best = w->best[w->yielded];
		found = true;
	}
	for (uint32_t i = found ? (uint32_t)v->pool->n : 0; i < v->pool->n; i++) {
		const struct route_slot *slot = v->pool->worker[i].slot;

		if ((found && !before(w, i, best)) || (w->yielded && !before(w, w->last, i)) ||
		    (narrow && (!route_may_pick(v, i) || !route_has_room(slot, route_load(slot)))))
			continue;
		best = i;
		found = true;
	}
	if (!found)
		return false;
	w->yielded++;
	w->last = best;
	*c = (struct route_choice){
		.worker = best, .reason = ROUTE_REASON_KEY, .score = shown(v, w->score[best])};
	return true;
}

const struct route_policy_type route_policy_rendezvous_hash = {
	.name = "rendezvous_hash",
	.help = "a key's requests stay on one worker; the highest score decides which",
	.flags = ROUTE_BY_KEY,
	.params = params,
	.params_size = sizeof(struct params),
	.walk_size = sizeof(struct walk),
	.keyless = &route_policy_least_request,
	.begin = begin,
	.next = next,
};
