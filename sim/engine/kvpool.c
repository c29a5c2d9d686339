/*
 * Blocks live in one array and are linked by number, 32 bytes each. The free queue has three parts,
 * one behind the other: freed blocks without a name (a stack), blocks that were never used (a
 * count), named blocks (a list). They cannot mix: only freed blocks without a name are put before
 * the head, and only named ones behind the tail.
 *
 * Blocks of one name form a ring, oldest first; the oldest stands in the hash index.
 */
#include "sim/engine/kvpool.h"

#include <stdlib.h>

#include "lib/base/check.h"

#define NIL	   UINT32_MAX
#define NOT_OLDEST (UINT32_MAX - 1) /* in `chain`: another block of this name is in the index */

struct block {
	uint64_t name;
	uint32_t refs;
	uint32_t prev, next;   /* list of named free blocks; `next` also links the stack */
	uint32_t chain;	       /* next name of the same index slot */
	uint32_t older, newer; /* ring of equal names; newer == NIL: no name */
};

struct kvpool {
	struct block *block;
	size_t made, room, usable;
	uint32_t stack;	     /* freed blocks without a name */
	uint32_t head, tail; /* named free blocks */
	uint32_t *slot;	     /* hash index */
	size_t nslots;	     /* power of two */
	size_t held, named;
	uint64_t evictions;
	void (*lost)(void *ctx, uint64_t name);
	void *ctx;
};

struct kvpool *kvpool_new(size_t usable)
{
	struct kvpool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->usable = usable == 0 || usable > KVPOOL_BLOCKS_MAX ? KVPOOL_BLOCKS_MAX : usable;
	p->stack = p->head = p->tail = NIL;
	return p;
}

void kvpool_free(struct kvpool *p)
{
	if (!p)
		return;
	free(p->block);
	free(p->slot);
	free(p);
}

size_t kvpool_available(const struct kvpool *p)
{
	return p->usable - p->held;
}

static size_t slot_of(const struct kvpool *p, uint64_t name)
{
	/* Names may be small integers, so they are mixed first. */
	return (size_t)((name * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (p->nslots - 1);
}

static bool has_name(const struct block *k)
{
	return k->newer != NIL;
}

/* The oldest block of that name, or NIL. */
static uint32_t find(const struct kvpool *p, uint64_t name)
{
	uint32_t b;

	if (p->nslots == 0)
		return NIL;
	for (b = p->slot[slot_of(p, name)]; b != NIL && p->block[b].name != name;)
		b = p->block[b].chain;
	return b;
}

static void index_add(struct kvpool *p, uint32_t b)
{
	uint32_t *slot = &p->slot[slot_of(p, p->block[b].name)];

	p->block[b].chain = *slot;
	*slot = b;
}

void kvpool_name(struct kvpool *p, uint32_t b, uint64_t name)
{
	struct block *k = &p->block[b];
	uint32_t oldest = find(p, name);

	PD_CHECK(!has_name(k));
	k->name = name;
	p->named++;
	if (oldest == NIL) {
		k->older = k->newer = b;
		index_add(p, b);
		return;
	}
	k->chain = NOT_OLDEST;
	/* The ring's newest stands before its oldest. */
	k->newer = oldest;
	k->older = p->block[oldest].older;
	p->block[k->older].newer = b;
	p->block[oldest].older = b;
}

void kvpool_watch(struct kvpool *p, void (*lost)(void *ctx, uint64_t name), void *ctx)
{
	p->lost = lost;
	p->ctx = ctx;
}

static void lose_name(struct kvpool *p, uint32_t b)
{
	struct block *k = &p->block[b];
	bool alone = k->newer == b;
	uint32_t *at = &p->slot[slot_of(p, k->name)];

	if (k->chain != NOT_OLDEST) {
		while (*at != b)
			at = &p->block[*at].chain;
		*at = k->chain;
		/* The next of its ring takes its place in the index. */
		if (k->newer != b) {
			*at = k->newer;
			p->block[k->newer].chain = k->chain;
		}
	}
	p->block[k->newer].older = k->older;
	p->block[k->older].newer = k->newer;
	k->newer = NIL;
	p->named--;
	if (alone && p->lost)
		p->lost(p->ctx, k->name);
}

/* Room for n more blocks in the array and in the index, so that naming cannot fail. */
static int grow(struct kvpool *p, size_t n)
{
	size_t left = p->usable - p->made, want, room = p->room ? p->room : 64;
	struct block *block;
	uint32_t *slot;

	want = p->made + (n < left ? n : left);
	if (want <= p->room)
		return PD_OK;
	while (room < want)
		room *= 2;
	block = realloc(p->block, room * sizeof(*block));
	if (!block)
		return PD_ENOMEM;
	p->block = block;
	slot = malloc(room * sizeof(*slot));
	if (!slot)
		return PD_ENOMEM;
	p->room = room;
	free(p->slot);
	p->slot = slot;
	p->nslots = room;
	for (size_t i = 0; i < room; i++)
		slot[i] = NIL;
	for (size_t i = 0; i < p->made; i++)
		if (has_name(&block[i]) && block[i].chain != NOT_OLDEST)
			index_add(p, (uint32_t)i);
	return PD_OK;
}

static void list_remove(struct kvpool *p, uint32_t b)
{
	struct block *k = &p->block[b];

	if (k->prev != NIL)
		p->block[k->prev].next = k->next;
	else
		p->head = k->next;
	if (k->next != NIL)
		p->block[k->next].prev = k->prev;
	else
		p->tail = k->prev;
}

static void list_append(struct kvpool *p, uint32_t b)
{
	struct block *k = &p->block[b];

	k->prev = p->tail;
	k->next = NIL;
	if (p->tail != NIL)
		p->block[p->tail].next = b;
	else
		p->head = b;
	p->tail = b;
}

/* The head of the free queue, held once; the caller has checked that there is one. */
static uint32_t take_one(struct kvpool *p)
{
	uint32_t b = p->stack;

	if (b != NIL) {
		p->stack = p->block[b].next;
	} else if (p->made < p->usable) {
		b = (uint32_t)p->made++;
		p->block[b] = (struct block){.newer = NIL};
	} else {
		b = p->head;
		list_remove(p, b);
		lose_name(p, b);
		p->evictions++;
	}
	p->block[b].refs = 1;
	p->held++;
	return b;
}

void kvpool_stats(const struct kvpool *p, struct kvpool_stats *out)
{
	*out = (struct kvpool_stats){
		.usable = p->usable, .held = p->held, .named = p->named, .evictions = p->evictions};
}

size_t kvpool_match(const struct kvpool *p, const uint64_t *name, size_t n, size_t *idle)
{
	size_t hits, free_ones = 0;

	for (hits = 0; hits < n; hits++) {
		uint32_t b = find(p, name[hits]);

		if (b == NIL)
			break;
		free_ones += p->block[b].refs == 0;
	}
	if (idle)
		*idle = free_ones;
	return hits;
}

void kvpool_hold(struct kvpool *p, const uint64_t *name, size_t n, uint32_t *block)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t b = find(p, name[i]);

		PD_CHECK(b != NIL);
		if (p->block[b].refs++ == 0) {
			list_remove(p, b);
			p->held++;
		}
		block[i] = b;
	}
}

int kvpool_take(struct kvpool *p, uint32_t *block, size_t n)
{
	int err;

	PD_CHECK(n <= kvpool_available(p));
	err = grow(p, n);
	for (size_t i = 0; !err && i < n; i++)
		block[i] = take_one(p);
	return err;
}

void kvpool_drop(struct kvpool *p, const uint32_t *block, size_t n)
{
	/* The stack gets the group backwards: what is pushed last is its head. */
	for (size_t i = 0; i < n; i++) {
		struct block *k = &p->block[block[i]];

		PD_CHECK(k->refs > 0);
		if (--k->refs > 0)
			continue;
		p->held--;
		if (has_name(k))
			continue;
		k->next = p->stack;
		p->stack = block[i];
	}
	for (size_t i = n; i-- > 0;)
		if (p->block[block[i]].refs == 0 && has_name(&p->block[block[i]]))
			list_append(p, block[i]);
}

int kvpool_access(struct kvpool *p, const uint64_t *name, size_t n, size_t *hits)
{
	int err = grow(p, n);

	PD_CHECK(p->held == 0);
	*hits = kvpool_match(p, name, n, NULL);
	for (size_t i = n; !err && i-- > 0;) {
		uint32_t b = find(p, name[i]);

		if (b != NIL) {
			list_remove(p, b);
		} else {
			b = take_one(p);
			p->block[b].refs = 0;
			p->held--;
			kvpool_name(p, b, name[i]);
		}
		list_append(p, b);
	}
	return err;
}

void kvpool_forget(struct kvpool *p)
{
	for (uint32_t b = p->head, next; b != NIL; b = next) {
		next = p->block[b].next;
		lose_name(p, b);
		p->block[b].next = p->stack;
		p->stack = b;
	}
	p->head = p->tail = NIL;
}
