/*
 * A bounded queue of records of any size in one block of memory: many producers, one consumer, no
 * lock. A producer reserves room with one compare-and-swap, fills it and commits it; records come
 * out in the order of their reservations. Memory is bounded in bytes and in records, and allocated
 * once.
 *
 * Threads: reserve and commit from any; the others from the consumer only.
 */
#ifndef PD_ROUTER_CAPTURE_RING_H
#define PD_ROUTER_CAPTURE_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define CAPTURE_RING_MIN 65536u
#define CAPTURE_RING_MAX ((size_t)1 << 30)

struct capture_ring {
	unsigned char *data; /* owned; zero wherever nothing is reserved */
	size_t size;	     /* power of two */
	uint32_t records_max;
	/* Written by producers, far from what the consumer writes. */
	_Atomic uint64_t head __attribute__((aligned(64)));
	_Atomic uint64_t tail __attribute__((aligned(64)));
	_Atomic uint32_t records;
};

/* `bytes` is rounded up to a power of two from CAPTURE_RING_MIN to CAPTURE_RING_MAX. */
int capture_ring_init(struct capture_ring *r, size_t bytes, uint32_t records_max) PD_MUST;
void capture_ring_release(struct capture_ring *r);

/* The largest record that is sure to fit into an empty ring. */
static inline size_t capture_ring_largest(const struct capture_ring *r)
{
	return r->size / 4;
}

/* Room for n bytes, aligned to 8, or NULL: the queue is full (or n is above the largest). */
void *capture_ring_reserve(struct capture_ring *r, size_t n);
/* The record is complete; it belongs to the consumer now. */
void capture_ring_commit(void *record);

/* The oldest record, or NULL: there is none before `until`, or it is not committed yet. Valid until
 * the pop. */
void *capture_ring_peek(struct capture_ring *r, uint64_t until, size_t *n);
void capture_ring_pop(struct capture_ring *r);
/* Everything that is reserved now lies before it. */
uint64_t capture_ring_mark(const struct capture_ring *r);
size_t capture_ring_used(const struct capture_ring *r);

#endif
