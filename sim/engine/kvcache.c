/*
 * Blocks live in one array and are linked by number: two list links (the free list) and
 * one chain link (the hash index). That keeps a block at 32 bytes, makes every move O(1), and the
 * order of everything depends on the calls alone, never on addresses.
 */
#include "sim/engine/kvcache.h"

#include <stdbool.h>
#include <stdlib.h>

#define NIL UINT32_MAX

struct block {
	uint64_t hash;
	uint32_t refs;
	uint32_t prev, next; /* free list; `next` also links the spare stack */
	uint32_t chain;	     /* next block of the same index slot */
	bool hashed;
};

struct kvcache {
	struct block *block;
	size_t made, room, capacity;
	uint32_t head, tail; /* free list: head is used next */
	uint32_t spare;	     /* unlimited only: free blocks without a hash */
	uint32_t *slot;	     /* hash index: first block of each chain */
	size_t nslots;	     /* power of two */
	size_t pinned, cached;
	uint64_t evictions;
};

struct kvcache *kvcache_new(size_t capacity)
{
	struct kvcache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->capacity = capacity > KVCACHE_BLOCKS_MAX ? KVCACHE_BLOCKS_MAX : capacity;
	c->head = c->tail = c->spare = NIL;
	return c;
}

void kvcache_free(struct kvcache *c)
{
	if (!c)
		return;
	free(c->block);
	free(c->slot);
	free(c);
}

static size_t slot_of(const struct kvcache *c, uint64_t hash)
{
	/* Callers may use small integers as hashes, so they are mixed first. */
	return (size_t)((hash * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (c->nslots - 1);
}

static uint32_t find(const struct kvcache *c, uint64_t hash)
{
	uint32_t b;

	if (c->nslots == 0)
		return NIL;
	for (b = c->slot[slot_of(c, hash)]; b != NIL && c->block[b].hash != hash;)
		b = c->block[b].chain;
	return b;
}

static void index_add(struct kvcache *c, uint32_t b, uint64_t hash)
{
	uint32_t *slot = &c->slot[slot_of(c, hash)];

	c->block[b].hash = hash;
	c->block[b].hashed = true;
	c->block[b].chain = *slot;
	*slot = b;
	c->cached++;
}

static void index_remove(struct kvcache *c, uint32_t b)
{
	uint32_t *at = &c->slot[slot_of(c, c->block[b].hash)];

	while (*at != b)
		at = &c->block[*at].chain;
	*at = c->block[b].chain;
	c->block[b].hashed = false;
	c->cached--;
}

/* Room for one index entry per block: grown together with the array, so that commits cannot fail.
 */
static int index_resize(struct kvcache *c, size_t nslots)
{
	uint32_t *slot = malloc(nslots * sizeof(*slot));

	if (!slot)
		return PD_ENOMEM;
	free(c->slot);
	c->slot = slot;
	c->nslots = nslots;
	c->cached = 0;
	for (size_t i = 0; i < nslots; i++)
		slot[i] = NIL;
	for (size_t i = 0; i < c->made; i++)
		if (c->block[i].hashed)
			index_add(c, (uint32_t)i, c->block[i].hash);
	return PD_OK;
}

/* Makes room for n more blocks in the array. */
static int grow(struct kvcache *c, size_t n)
{
	size_t want = c->made + n, room = c->room ? c->room : 64;
	struct block *block;

	if (want <= c->room)
		return PD_OK;
	if (want > KVCACHE_BLOCKS_MAX)
		return PD_ETOOBIG;
	while (room < want)
		room *= 2;
	block = realloc(c->block, room * sizeof(*block));
	if (!block)
		return PD_ENOMEM;
	c->block = block;
	c->room = room;
	return index_resize(c, room);
}

static void free_list_remove(struct kvcache *c, uint32_t b)
{
	struct block *k = &c->block[b];

	if (k->prev != NIL)
		c->block[k->prev].next = k->next;
	else
		c->head = k->next;
	if (k->next != NIL)
		c->block[k->next].prev = k->prev;
	else
		c->tail = k->prev;
}

static void free_list_append(struct kvcache *c, uint32_t b)
{
	struct block *k = &c->block[b];

	k->prev = c->tail;
	k->next = NIL;
	if (c->tail != NIL)
		c->block[c->tail].next = b;
	else
		c->head = b;
	c->tail = b;
}

/* Blocks that can be allocated without touching a pinned one. */
static size_t available(const struct kvcache *c)
{
	return (c->capacity ? c->capacity : KVCACHE_BLOCKS_MAX) - c->pinned;
}

/* Fresh blocks that would need new memory if n of them were taken now. */
static size_t to_make(const struct kvcache *c, size_t n)
{
	size_t left = c->capacity ? c->capacity - c->made : n;

	return n < left ? n : left;
}

/* A block without hash and outside the free list. The caller has checked available() and called
 * grow(); NIL when all is pinned. */
static uint32_t take(struct kvcache *c)
{
	uint32_t b = c->spare;

	if (b != NIL) {
		c->spare = c->block[b].next;
		return b;
	}
	if (!c->capacity || c->made < c->capacity) {
		b = (uint32_t)c->made++;
		c->block[b] = (struct block){.prev = NIL, .next = NIL, .chain = NIL};
		return b;
	}
	b = c->head;
	if (b == NIL)
		return NIL;
	free_list_remove(c, b);
	if (c->block[b].hashed) {
		index_remove(c, b);
		c->evictions++;
	}
	return b;
}

size_t kvcache_match(const struct kvcache *c, const uint64_t *hash, size_t n)
{
	size_t hits = 0;

	while (hits < n && find(c, hash[hits]) != NIL)
		hits++;
	return hits;
}

int kvcache_access(struct kvcache *c, const uint64_t *hash, size_t n, size_t *hits)
{
	int err = grow(c, to_make(c, n));

	*hits = kvcache_match(c, hash, n);
	if (err)
		return err;
	for (size_t i = n; i-- > 0;) {
		uint32_t b = find(c, hash[i]);

		if (b != NIL && c->block[b].refs > 0)
			continue;
		if (b != NIL)
			free_list_remove(c, b);
		else if ((b = take(c)) == NIL)
			continue;
		else
			index_add(c, b, hash[i]);
		free_list_append(c, b);
	}
	return PD_OK;
}

static void hold(struct kvcache *c, uint32_t b, bool unpinned)
{
	if (c->block[b].refs++ == 0) {
		c->pinned++;
		if (unpinned)
			free_list_remove(c, b);
	}
}

/* How many leading hits there are, and how many of them are in the free list (so that holding them
 * uses up a free block). */
static size_t count_hits(const struct kvcache *c, const uint64_t *hash, size_t max,
			 size_t *unpinned)
{
	size_t hits;

	*unpinned = 0;
	for (hits = 0; hits < max; hits++) {
		uint32_t b = find(c, hash[hits]);

		if (b == NIL)
			break;
		*unpinned += c->block[b].refs == 0;
	}
	return hits;
}

int kvcache_pin(struct kvcache *c, const uint64_t *hash, size_t max_hits, size_t nblocks,
		struct kvcache_pin *pin)
{
	size_t unpinned, hits = count_hits(c, hash, max_hits, &unpinned), fresh = nblocks - hits;
	uint32_t *block;
	int err;

	if (nblocks > (c->capacity ? c->capacity : KVCACHE_BLOCKS_MAX))
		return PD_ETOOBIG;
	if (unpinned + fresh > available(c))
		return PD_EBUSY;
	err = grow(c, to_make(c, fresh));
	if (err)
		return err;
	block = malloc((nblocks ? nblocks : 1) * sizeof(*block));
	if (!block)
		return PD_ENOMEM;
	for (size_t i = 0; i < hits; i++) {
		block[i] = find(c, hash[i]);
		hold(c, block[i], true);
	}
	for (size_t i = hits; i < nblocks; i++) {
		block[i] = take(c);
		hold(c, block[i], false);
	}
	*pin = (struct kvcache_pin){.block = block, .n = nblocks, .hits = hits};
	return PD_OK;
}

void kvcache_commit(struct kvcache *c, const struct kvcache_pin *pin, size_t at, uint64_t hash)
{
	if (at < pin->n && !c->block[pin->block[at]].hashed)
		index_add(c, pin->block[at], hash);
}

void kvcache_unpin(struct kvcache *c, struct kvcache_pin *pin)
{
	for (size_t i = pin->n; i-- > 0;) {
		struct block *k = &c->block[pin->block[i]];

		if (--k->refs > 0)
			continue;
		c->pinned--;
		if (c->capacity || k->hashed) {
			free_list_append(c, pin->block[i]);
		} else {
			k->next = c->spare;
			c->spare = pin->block[i];
		}
	}
	free(pin->block);
	*pin = (struct kvcache_pin){0};
}

void kvcache_clear(struct kvcache *c)
{
	for (uint32_t b = c->head, next; b != NIL; b = next) {
		next = c->block[b].next;
		if (c->block[b].hashed)
			index_remove(c, b);
		if (c->capacity)
			continue;
		free_list_remove(c, b);
		c->block[b].next = c->spare;
		c->spare = b;
	}
}

void kvcache_stats(const struct kvcache *c, struct kvcache_stats *out)
{
	*out = (struct kvcache_stats){.capacity = c->capacity,
				      .pinned = c->pinned,
				      .cached = c->cached,
				      .evictions = c->evictions};
}
