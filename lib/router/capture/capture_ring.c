/*
 * Positions grow for ever; a place in the ring is a position modulo its size. The first 16 bytes of
 * a record are its header, whose first word says "committed" and the length; the consumer clears a
 * record behind itself, so a reserved but unfinished record reads as zero whatever stood there
 * before. A record never wraps: the end of the ring is filled with a record that is skipped.
 */
#include "lib/router/capture/capture_ring.h"

#include <stdlib.h>
#include <string.h>

#define GRAIN	  16u
#define COMMITTED ((uint64_t)1 << 63)
#define SKIP	  ((uint64_t)1 << 62)
#define LENGTH	  (SKIP - 1)

struct header {
	_Atomic uint64_t word; /* bytes with the header, COMMITTED, SKIP */
	uint64_t n;	       /* bytes that were asked for */
};

_Static_assert(sizeof(struct header) == GRAIN, "records keep their alignment");

int capture_ring_init(struct capture_ring *r, size_t bytes, uint32_t records_max)
{
	size_t size = CAPTURE_RING_MIN;

	while (size < bytes && size < CAPTURE_RING_MAX)
		size *= 2;
	memset(r, 0, sizeof(*r));
	/* Pages that are never used are never there. */
	r->data = calloc(1, size);
	r->size = size;
	r->records_max = records_max;
	return r->data ? PD_OK : PD_ENOMEM;
}

void capture_ring_release(struct capture_ring *r)
{
	free(r->data);
	r->data = NULL;
}

static struct header *header_at(const struct capture_ring *r, uint64_t position)
{
	return (struct header *)(void *)(r->data + (position & (r->size - 1)));
}

static bool count_in(struct capture_ring *r)
{
	if (atomic_fetch_add_explicit(&r->records, 1, memory_order_relaxed) < r->records_max)
		return true;
	(void)atomic_fetch_sub_explicit(&r->records, 1, memory_order_relaxed);
	return false;
}

void *capture_ring_reserve(struct capture_ring *r, size_t n)
{
	uint64_t head, total = (sizeof(struct header) + n + GRAIN - 1) / GRAIN * GRAIN, pad, tail;
	struct header *h;

	if (n > capture_ring_largest(r) - sizeof(struct header) || !count_in(r))
		return NULL;
	head = atomic_load_explicit(&r->head, memory_order_relaxed);
	do {
		tail = atomic_load_explicit(&r->tail, memory_order_acquire);
		pad = r->size - (head & (r->size - 1));
		pad = pad < total ? pad : 0;
		/* A head that was read before the tail may even lie behind it. */
		if (head >= tail && head + pad + total - tail > r->size) {
			(void)atomic_fetch_sub_explicit(&r->records, 1, memory_order_relaxed);
			return NULL;
		}
	} while (!atomic_compare_exchange_weak_explicit(
		&r->head, &head, head + pad + total, memory_order_release, memory_order_relaxed));
	if (pad > 0)
		atomic_store_explicit(&header_at(r, head)->word, pad | SKIP | COMMITTED,
				      memory_order_release);
	h = header_at(r, head + pad);
	h->n = n;
	return h + 1;
}

void capture_ring_commit(void *record)
{
	struct header *h = (struct header *)record - 1;
	uint64_t total = (sizeof(*h) + h->n + GRAIN - 1) / GRAIN * GRAIN;

	atomic_store_explicit(&h->word, total | COMMITTED, memory_order_release);
}

/* Clears the record at the tail and gives its room back. */
static void advance(struct capture_ring *r, uint64_t tail, uint64_t bytes)
{
	memset(r->data + (tail & (r->size - 1)), 0, (size_t)bytes);
	atomic_store_explicit(&r->tail, tail + bytes, memory_order_release);
}

void *capture_ring_peek(struct capture_ring *r, uint64_t until, size_t *n)
{
	for (;;) {
		uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed), word;
		struct header *h = header_at(r, tail);

		if (tail >= until)
			return NULL;
		word = atomic_load_explicit(&h->word, memory_order_acquire);
		if (!(word & COMMITTED))
			return NULL;
		if (!(word & SKIP)) {
			*n = (size_t)h->n;
			return h + 1;
		}
		advance(r, tail, word & LENGTH);
	}
}

void capture_ring_pop(struct capture_ring *r)
{
	uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	uint64_t word = atomic_load_explicit(&header_at(r, tail)->word, memory_order_relaxed);

	advance(r, tail, word & LENGTH);
	(void)atomic_fetch_sub_explicit(&r->records, 1, memory_order_relaxed);
}

uint64_t capture_ring_mark(const struct capture_ring *r)
{
	return atomic_load_explicit(&r->head, memory_order_acquire);
}

size_t capture_ring_used(const struct capture_ring *r)
{
	uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

	return head > tail ? (size_t)(head - tail) : 0;
}
