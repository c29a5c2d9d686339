#include "lib/route/memory/holders.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define WAYS   8
#define PLANE  64 /* workers whose ages lie together */
#define PLANES (HOLDERS_CELLS / PLANE)
#define WINDOW 64 /* ages that count */
#define JUMP   (WINDOW + 1)
#define AHEAD  32 /* blocks that are looked up together */
#define SWEPT  3  /* blocks that are looked at per block that a worker gets */

struct cell {
	uint64_t worker; /* 0 refs: free */
	uint32_t refs;
	uint32_t got; /* since its age went up */
};

struct holders {
	atomic_flag lock;
	size_t blocks, step; /* places; what a worker gets at one age */
	size_t swept;
	uint32_t clock;
	uint64_t *hash;		    /* 0: free */
	uint32_t *used;		    /* the clock of its last use */
	uint8_t *plane[PLANES];	    /* [blocks][PLANE] ages; 0: not held */
	uint8_t age[HOLDERS_CELLS]; /* 1 to 255, in a circle */
	struct cell cell[HOLDERS_CELLS];
	uint32_t top; /* cells below it were used */
};

static void lock(struct holders *h)
{
	while (atomic_flag_test_and_set_explicit(&h->lock, memory_order_acquire))
		continue;
}

static void unlock(struct holders *h)
{
	atomic_flag_clear_explicit(&h->lock, memory_order_release);
}

int holders_new(struct holders **out, size_t capacity)
{
	struct holders *h = calloc(1, sizeof(*h));

	*out = NULL;
	if (!h || capacity == 0 || capacity > HOLDERS_CAPACITY_MAX) {
		free(h);
		return h ? PD_EINVAL : PD_ENOMEM;
	}
	h->step = (capacity + WINDOW - 1) / WINDOW;
	for (h->blocks = 64; h->blocks < 4 * capacity && h->blocks < HOLDERS_BLOCKS_MAX;)
		h->blocks *= 2;
	h->hash = calloc(h->blocks, sizeof(*h->hash));
	h->used = calloc(h->blocks, sizeof(*h->used));
	memset(h->age, 1, sizeof(h->age));
	if (!h->hash || !h->used) {
		holders_free(h);
		return PD_ENOMEM;
	}
	*out = h;
	return PD_OK;
}

void holders_free(struct holders *h)
{
	if (!h)
		return;
	for (size_t i = 0; i < PLANES; i++)
		free(h->plane[i]);
	free(h->hash);
	free(h->used);
	free(h);
}

/* -- workers -- */

static uint32_t find_cell(const struct holders *h, uint64_t worker)
{
	for (uint32_t i = 0; i < h->top; i++)
		if (h->cell[i].refs > 0 && h->cell[i].worker == worker)
			return i;
	return HOLDERS_CELLS;
}

static void grow_older(struct holders *h, uint32_t cell, unsigned by)
{
	h->age[cell] = (uint8_t)((h->age[cell] - 1u + by) % 255 + 1);
	h->cell[cell].got = 0;
}

uint32_t holders_cell(struct holders *h, uint64_t worker)
{
	uint32_t at;

	lock(h);
	at = find_cell(h, worker);
	for (uint32_t i = 0; at == HOLDERS_CELLS && i < HOLDERS_CELLS; i++)
		at = h->cell[i].refs == 0 ? i : at;
	if (at < HOLDERS_CELLS && !h->plane[at / PLANE])
		h->plane[at / PLANE] = calloc(h->blocks, PLANE);
	if (at < HOLDERS_CELLS && !h->plane[at / PLANE])
		at = HOLDERS_CELLS;
	if (at < HOLDERS_CELLS) {
		h->cell[at].worker = worker;
		h->cell[at].refs++;
		h->top = at >= h->top ? at + 1 : h->top;
	}
	unlock(h);
	return at;
}

void holders_drop(struct holders *h, uint32_t cell)
{
	if (cell >= HOLDERS_CELLS)
		return;
	lock(h);
	if (--h->cell[cell].refs == 0)
		grow_older(h, cell, JUMP);
	unlock(h);
}

void holders_forget(struct holders *h, uint64_t worker)
{
	uint32_t cell;

	lock(h);
	cell = find_cell(h, worker);
	if (cell < HOLDERS_CELLS)
		grow_older(h, cell, JUMP);
	unlock(h);
}

/* -- blocks -- */

/* How old an age is, by the worker's own; of a block that it never got: the oldest. */
static unsigned since(uint8_t now, uint8_t then)
{
	return then == 0 ? 255 : now >= then ? (unsigned)(now - then) : 255u - then + now;
}

/* Where the group of a block begins. */
static size_t group_of(const struct holders *h, uint64_t hash)
{
	return (hash >> 8) & (h->blocks - WAYS);
}

/* The place of a block; h->blocks: it has none. */
static size_t find(const struct holders *h, uint64_t hash)
{
	size_t at = group_of(h, hash);

	for (size_t i = 0; i < WAYS; i++)
		if (h->hash[at + i] == hash)
			return at + i;
	return h->blocks;
}

static void clear(struct holders *h, size_t at)
{
	for (size_t p = 0; p < PLANES && p * PLANE < h->top; p++)
		if (h->plane[p])
			memset(h->plane[p] + at * PLANE, 0, PLANE);
}

/* The place of a block, that of the longest unused one when it had none. */
static size_t find_or_make(struct holders *h, uint64_t hash)
{
	size_t group = group_of(h, hash), at = find(h, hash);

	if (at < h->blocks)
		return at;
	at = group;
	for (size_t i = 0; i < WAYS; i++) {
		if (h->hash[group + i] == 0) {
			at = group + i;
			break;
		}
		if (h->clock - h->used[group + i] > h->clock - h->used[at])
			at = group + i;
	}
	if (h->hash[at] != 0)
		clear(h, at);
	h->hash[at] = hash;
	return at;
}

/* Ages that count no more are taken away before the circle comes round to them. */
static void sweep(struct holders *h)
{
	for (int i = 0; i < SWEPT; i++) {
		size_t at = h->swept = (h->swept + 1) & (h->blocks - 1);

		for (size_t p = 0; h->hash[at] != 0 && p * PLANE < h->top; p++) {
			uint8_t *then = h->plane[p] ? h->plane[p] + at * PLANE : NULL;

			for (size_t c = 0; then && c < PLANE; c++)
				if (then[c] != 0 && since(h->age[p * PLANE + c], then[c]) >= WINDOW)
					then[c] = 0;
		}
	}
}

/* Never 0: that is a free place. */
static uint64_t hash_of(const struct holders_blocks *b, size_t i)
{
	size_t at = (i + 1) * b->stride;

	return (b->block[(at < b->n ? at : b->n) - 1] ^ b->salt) | 1;
}

bool holders_add(struct holders *h, uint64_t worker, const struct holders_blocks *b)
{
	size_t n = holders_count(b);
	bool known;
	uint32_t cell;

	if (n == 0)
		return false;
	lock(h);
	cell = find_cell(h, worker);
	known = find(h, hash_of(b, 0)) < h->blocks;
	h->clock++;
	for (size_t i = 0; cell < HOLDERS_CELLS && i < n; i++) {
		size_t at = find_or_make(h, hash_of(b, i));
		uint8_t *then = h->plane[cell / PLANE] + at * PLANE + cell % PLANE;

		h->used[at] = h->clock;
		if (*then == h->age[cell])
			continue;
		*then = h->age[cell];
		sweep(h);
		if (++h->cell[cell].got >= h->step)
			grow_older(h, cell, 1);
	}
	unlock(h);
	return known;
}

typedef uint8_t ages __attribute__((vector_size(16))); /* as wide as every x86-64 has them */
#define PARTS (PLANE / 16)

/* Adds a block's part to the match of a plane, 0 or 1 for each worker. False: nobody holds it. */
static bool add_block(const uint8_t *age, const uint8_t *block, ages *sum)
{
	ages some = {0};
	uint64_t any[2];

	for (size_t i = 0; i < PARTS; i++) {
		ages now, then, held;

		memcpy(&now, age + i * sizeof(now), sizeof(now));
		memcpy(&then, block + i * sizeof(then), sizeof(then));
		/* As since(), without a branch: the circle has 255 ages. A comparison gives 255. */
		held = (ages)(then != 0) & (ages)((now - then + (ages)(now < then)) < WINDOW);
		sum[i] -= held;
		some |= held;
	}
	memcpy(any, &some, sizeof(any));
	return (any[0] | any[1]) != 0;
}

/* Some blocks, at most 255, to `sum`. Returns how many were looked at until one that nobody holds.
 */
static size_t add_blocks(const struct holders *h, const struct holders_blocks *b, size_t from,
			 size_t n, uint16_t *sum)
{
	ages part[PLANES * PARTS];
	size_t planes = (h->top + PLANE - 1) / PLANE, i = 0;
	bool any = true;

	memset(part, 0, planes * PLANE);
	while (i < n && any) {
		size_t at[AHEAD], k = n - i < AHEAD ? n - i : AHEAD;

		/* Memory is asked for what all of them need before the first one is looked at. */
		for (size_t j = 0; j < k; j++)
			__builtin_prefetch(&h->hash[group_of(h, hash_of(b, from + i + j))]);
		for (size_t j = 0; j < k; j++) {
			at[j] = find(h, hash_of(b, from + i + j));
			for (size_t p = 0; at[j] < h->blocks && p < planes; p++)
				__builtin_prefetch(h->plane[p] ? h->plane[p] + at[j] * PLANE
							       : NULL);
		}
		for (size_t j = 0; j < k && any; j++) {
			any = false;
			for (size_t p = 0; at[j] < h->blocks && p < planes; p++)
				if (h->plane[p])
					any |= add_block(h->age + p * PLANE,
							 h->plane[p] + at[j] * PLANE,
							 &part[p * PARTS]);
			i += any;
		}
	}
	for (size_t c = 0; c < planes * PLANE; c++)
		sum[c] = (uint16_t)(sum[c] + ((const uint8_t *)part)[c]);
	return i;
}

void holders_match(struct holders *h, const struct holders_blocks *b, const uint16_t *cell,
		   size_t ncells, uint16_t *held)
{
	uint16_t sum[HOLDERS_CELLS];
	size_t n = holders_count(b);

	lock(h);
	memset(sum, 0, ((size_t)h->top + PLANE - 1) / PLANE * PLANE * sizeof(*sum));
	for (size_t i = 0, got = 1; i < n && got > 0; i += got) {
		size_t want = n - i < UINT8_MAX ? n - i : UINT8_MAX;

		got = add_blocks(h, b, i, want, sum);
		if (got < want)
			break;
	}
	unlock(h);
	for (size_t i = 0; i < ncells; i++)
		held[i] = cell[i] < HOLDERS_CELLS ? sum[cell[i]] : 0;
}
