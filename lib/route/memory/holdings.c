/*
 * A pair of block and worker is a node in one array: chained from the table by block, so that one
 * chain tells all holders of a block, and linked in the order of use with the other nodes of its
 * worker. Workers are few: their heads lie in a list that is searched by id.
 */
#include "lib/route/memory/holdings.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct node {
	uint64_t block;
	uint32_t chain;	       /* next of the same bucket; of free nodes the next free one */
	uint32_t newer, older; /* of the same worker */
	uint16_t holder;       /* place in holdings.holder */
	uint8_t tiers;	       /* bits 1 << enum holdings_tier */
};

struct holder {
	uint64_t id;
	uint32_t newest, oldest, n;
	bool used;
};

struct holdings {
	pthread_mutex_t lock;
	size_t per_worker, in_all;
	struct node *node;
	uint32_t cap, top, count, free; /* nodes: room, ever used, in use, list of unused */
	uint32_t *bucket;
	uint32_t mask; /* buckets - 1 */
	struct holder *holder;
	uint32_t holders, holder_cap;
};

int holdings_new(struct holdings **out, size_t per_worker, size_t in_all)
{
	struct holdings *h = calloc(1, sizeof(*h));

	*out = NULL;
	if (!h)
		return PD_ENOMEM;
	h->per_worker = per_worker;
	h->in_all = in_all < HOLDINGS_MAX ? in_all : HOLDINGS_MAX;
	h->free = NONE;
	if (pthread_mutex_init(&h->lock, NULL) != 0) {
		free(h);
		return PD_ENOMEM;
	}
	*out = h;
	return PD_OK;
}

void holdings_free(struct holdings *h)
{
	if (!h)
		return;
	(void)pthread_mutex_destroy(&h->lock);
	free(h->node);
	free(h->bucket);
	free(h->holder);
	free(h);
}

/* -- with the lock -- */

static uint32_t bucket_of(const struct holdings *h, uint64_t block)
{
	return (uint32_t)(block * UINT64_C(0x9e3779b97f4a7c15) >> 32) & h->mask;
}

static struct holder *holder_of(struct holdings *h, uint64_t id)
{
	for (uint32_t i = 0; i < h->holders; i++)
		if (h->holder[i].used && h->holder[i].id == id)
			return &h->holder[i];
	return NULL;
}

static struct holder *holder_add(struct holdings *h, uint64_t id)
{
	struct holder *x = holder_of(h, id);

	if (x)
		return x;
	for (uint32_t i = 0; !x && i < h->holders; i++)
		x = h->holder[i].used ? NULL : &h->holder[i];
	if (!x && h->holders == h->holder_cap) {
		uint32_t cap = h->holder_cap ? h->holder_cap * 2 : 16;
		struct holder *grown;

		if (cap > UINT16_MAX)
			return NULL;
		grown = reallocarray(h->holder, cap, sizeof(*grown));
		if (!grown)
			return NULL;
		h->holder = grown;
		h->holder_cap = cap;
	}
	x = x ? x : &h->holder[h->holders++];
	*x = (struct holder){.id = id, .newest = NONE, .oldest = NONE, .used = true};
	return x;
}

static uint32_t look(const struct holdings *h, uint64_t block, uint32_t holder)
{
	if (!h->bucket)
		return NONE;
	for (uint32_t i = h->bucket[bucket_of(h, block)]; i != NONE; i = h->node[i].chain)
		if (h->node[i].block == block && h->node[i].holder == holder)
			return i;
	return NONE;
}

static void unlink_use(struct holdings *h, uint32_t i)
{
	struct node *n = &h->node[i];
	struct holder *x = &h->holder[n->holder];

	*(n->newer == NONE ? &x->newest : &h->node[n->newer].older) = n->older;
	*(n->older == NONE ? &x->oldest : &h->node[n->older].newer) = n->newer;
}

static void link_newest(struct holdings *h, uint32_t i)
{
	struct node *n = &h->node[i];
	struct holder *x = &h->holder[n->holder];

	n->newer = NONE;
	n->older = x->newest;
	*(x->newest == NONE ? &x->oldest : &h->node[x->newest].newer) = i;
	x->newest = i;
}

static void drop(struct holdings *h, uint32_t i)
{
	struct node *n = &h->node[i];
	uint32_t *at = &h->bucket[bucket_of(h, n->block)];

	unlink_use(h, i);
	while (*at != i)
		at = &h->node[*at].chain;
	*at = n->chain;
	h->holder[n->holder].n--;
	n->chain = h->free;
	h->free = i;
	h->count--;
}

/* Twice the nodes and buckets, up to the bound. False: no memory, or the bound is reached. */
static bool grow(struct holdings *h)
{
	size_t cap = h->cap ? (size_t)h->cap * 2 : 1024, buckets = 1024;
	struct node *node;
	uint32_t *bucket;

	cap = cap < h->in_all ? cap : h->in_all;
	if (cap <= h->cap)
		return false;
	while (buckets < cap)
		buckets *= 2;
	node = reallocarray(h->node, cap, sizeof(*node));
	if (!node)
		return false;
	h->node = node;
	bucket = malloc(buckets * sizeof(*bucket));
	if (!bucket)
		return false;
	memset(bucket, 0xff, buckets * sizeof(*bucket));
	free(h->bucket);
	h->bucket = bucket;
	h->mask = (uint32_t)buckets - 1;
	h->cap = (uint32_t)cap;
	for (uint32_t x = 0; x < h->holders; x++) {
		for (uint32_t i = h->holder[x].newest; h->holder[x].used && i != NONE;
		     i = node[i].older) {
			uint32_t b = bucket_of(h, node[i].block);

			node[i].chain = bucket[b];
			bucket[b] = i;
		}
	}
	return true;
}

/* The worker with the most blocks gives its oldest. */
static void give_one(struct holdings *h)
{
	struct holder *most = NULL;

	for (uint32_t i = 0; i < h->holders; i++)
		if (h->holder[i].used && (!most || h->holder[i].n > most->n))
			most = &h->holder[i];
	if (most && most->oldest != NONE)
		drop(h, most->oldest);
}

static uint32_t new_node(struct holdings *h)
{
	uint32_t i;

	if (h->free == NONE && h->top == h->cap && !grow(h))
		give_one(h);
	if (h->free != NONE) {
		i = h->free;
		h->free = h->node[i].chain;
		return i;
	}
	return h->top < h->cap ? h->top++ : NONE;
}

static void add_one(struct holdings *h, struct holder *x, uint8_t tier, uint64_t block)
{
	uint32_t place = (uint32_t)(x - h->holder), i = look(h, block, place), b;

	if (i != NONE) {
		h->node[i].tiers |= tier;
		unlink_use(h, i);
		link_newest(h, i);
		return;
	}
	if (h->per_worker > 0 && x->n >= h->per_worker)
		drop(h, x->oldest);
	i = new_node(h);
	if (i == NONE)
		return;
	b = bucket_of(h, block);
	h->node[i] = (struct node){
		.block = block, .chain = h->bucket[b], .holder = (uint16_t)place, .tiers = tier};
	h->bucket[b] = i;
	link_newest(h, i);
	x->n++;
	h->count++;
}

/* -- the calls -- */

size_t holdings_bytes(struct holdings *h)
{
	size_t n;

	(void)pthread_mutex_lock(&h->lock);
	n = sizeof(*h) + h->cap * sizeof(*h->node) +
	    (h->bucket ? (h->mask + (size_t)1) * sizeof(*h->bucket) : 0) +
	    h->holder_cap * sizeof(*h->holder);
	(void)pthread_mutex_unlock(&h->lock);
	return n;
}

size_t holdings_count(struct holdings *h, uint64_t worker)
{
	const struct holder *x;
	size_t n;

	(void)pthread_mutex_lock(&h->lock);
	x = holder_of(h, worker);
	n = x ? x->n : 0;
	(void)pthread_mutex_unlock(&h->lock);
	return n;
}

size_t holdings_all(struct holdings *h)
{
	size_t n;

	(void)pthread_mutex_lock(&h->lock);
	n = h->count;
	(void)pthread_mutex_unlock(&h->lock);
	return n;
}

/* From the last to the first, so that the beginning is the newest and goes last. */
void holdings_add(struct holdings *h, uint64_t worker, enum holdings_tier tier,
		  const uint64_t *block, size_t n)
{
	struct holder *x;

	(void)pthread_mutex_lock(&h->lock);
	x = n > 0 ? holder_add(h, worker) : NULL;
	for (size_t i = n; x && i-- > 0;)
		add_one(h, x, (uint8_t)(1u << tier), block[i]);
	(void)pthread_mutex_unlock(&h->lock);
}

void holdings_remove(struct holdings *h, uint64_t worker, enum holdings_tier tier,
		     const uint64_t *block, size_t n)
{
	struct holder *x;

	(void)pthread_mutex_lock(&h->lock);
	x = holder_of(h, worker);
	for (size_t k = 0; x && k < n; k++) {
		uint32_t i = look(h, block[k], (uint32_t)(x - h->holder));

		if (i == NONE)
			continue;
		h->node[i].tiers &= (uint8_t)(tier < TIERS ? ~(1u << tier) : 0u);
		if (h->node[i].tiers == 0)
			drop(h, i);
	}
	(void)pthread_mutex_unlock(&h->lock);
}

void holdings_drop_worker(struct holdings *h, uint64_t worker)
{
	struct holder *x;

	(void)pthread_mutex_lock(&h->lock);
	x = holder_of(h, worker);
	while (x && x->oldest != NONE)
		drop(h, x->oldest);
	if (x)
		x->used = false;
	(void)pthread_mutex_unlock(&h->lock);
}

void holdings_trim(struct holdings *h, size_t per_worker)
{
	(void)pthread_mutex_lock(&h->lock);
	for (uint32_t i = 0; i < h->holders; i++)
		while (h->holder[i].used && h->holder[i].n > per_worker)
			drop(h, h->holder[i].oldest);
	(void)pthread_mutex_unlock(&h->lock);
}

/* One more block of the chain at one worker, of which `held` are the tiers. `state` has bit 7 as
 * long as the device has all blocks, and the tiers of the run behind it. False: nothing goes on. */
static bool match_one(struct holdings_match *m, uint8_t *state, uint8_t held, uint32_t length)
{
	bool on_device = *state & 0x80;
	uint8_t run;

	if (on_device && (held & (1u << TIER_DEVICE))) {
		m->device = m->end = length;
		return true;
	}
	/* Right behind the device a run may begin in any tier; then it goes on in those it has. */
	run = (uint8_t)(held & ~(1u << TIER_DEVICE) & (on_device ? (1u << TIERS) - 1 : *state));
	*state = run;
	if (run == 0)
		return false;
	m->end = length;
	for (m->tier = TIER_HOST; !(run & (1u << m->tier));)
		m->tier++;
	return true;
}

void holdings_match(struct holdings *h, const struct route_pool *pool, const uint64_t *block,
		    size_t n, struct holdings_match *match)
{
	uint8_t held[ROUTE_WORKERS_MAX], state[ROUTE_WORKERS_MAX];
	uint16_t place[ROUTE_WORKERS_MAX]; /* of the holder, to that of the worker */
	uint16_t active[ROUTE_WORKERS_MAX];
	size_t left = 0;

	memset(match, 0, pool->n * sizeof(*match));
	memset(place, 0xff, sizeof(place));
	(void)pthread_mutex_lock(&h->lock);
	for (uint32_t i = 0; i < h->holders && i < ROUTE_WORKERS_MAX; i++) {
		const struct holder *x = &h->holder[i];
		uint32_t w = x->used && x->n > 0 ? route_pool_find(pool, x->id) : ROUTE_NO_WORKER;

		if (w == ROUTE_NO_WORKER)
			continue;
		place[i] = (uint16_t)w;
		active[left++] = (uint16_t)w;
		state[w] = 0x80;
		held[w] = 0;
	}
	for (size_t i = 0; i < n && left > 0; i++) {
		size_t still = 0;

		for (uint32_t k = h->bucket[bucket_of(h, block[i])]; k != NONE;
		     k = h->node[k].chain) {
			const struct node *node = &h->node[k];

			if (node->block == block[i] && node->holder < ROUTE_WORKERS_MAX &&
			    place[node->holder] != UINT16_MAX)
				held[place[node->holder]] = node->tiers;
		}
		for (size_t k = 0; k < left; k++) {
			uint16_t w = active[k];

			if (match_one(&match[w], &state[w], held[w], (uint32_t)i + 1))
				active[still++] = w;
			held[w] = 0;
		}
		left = still;
	}
	(void)pthread_mutex_unlock(&h->lock);
}
