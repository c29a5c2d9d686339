/*
 * Which workers hold which blocks of prompts, as far as the requests tell that were sent to them:
 * an approximation of the engines' prefix caches.
 *
 * A table of block hashes in groups of eight; a new block takes the place of the one that was not
 * used for the longest time. Beside each stands a byte for each worker: the age at which the worker
 * got it last. A worker's age goes up with what it gets, and a block is forgotten once the worker
 * got `capacity` others since, to within a 64th. So memory is what holders_new took and 64 bytes a
 * block for each 64 workers, whatever is sent.
 *
 * Thread-safe: each call locks for its few blocks. Workers have a cell, from holders_cell.
 */
#ifndef PD_ROUTE_HOLDERS_H
#define PD_ROUTE_HOLDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define HOLDERS_CELLS	     1024
#define HOLDERS_CAPACITY_MAX 1000000
#define HOLDERS_BLOCKS_MAX   (1u << 18) /* distinct blocks that a table remembers at most */

struct holders;

/* Chained hashes, of which every `stride`th is looked at, and the last: a block of the table is
 * `stride` of those. `salt` keeps models apart. */
struct holders_blocks {
	const uint64_t *block;
	size_t n, stride;
	uint64_t salt;
};

/* How many blocks of the table that are. */
static inline size_t holders_count(const struct holders_blocks *b)
{
	return (b->n + b->stride - 1) / b->stride;
}

/* `capacity`: blocks of a worker, 1 to HOLDERS_CAPACITY_MAX. */
int holders_new(struct holders **out, size_t capacity) PD_MUST;
void holders_free(struct holders *h);

/* The cell of a worker, one more reference. HOLDERS_CELLS: there is no room. */
uint32_t holders_cell(struct holders *h, uint64_t worker);
/* Gives the reference back; with the last one the worker is forgotten. */
void holders_drop(struct holders *h, uint32_t cell);
/* The worker holds nothing any more. */
void holders_forget(struct holders *h, uint64_t worker);

/*
 * held[i] = how many of the n blocks the worker of cell[i] holds. The walk ends with the first
 * block that no worker at all holds; within it a worker's own gaps do not count against it.
 */
void holders_match(struct holders *h, const struct holders_blocks *b, const uint16_t *cell,
		   size_t ncells, uint16_t *held);
/* The worker gets these blocks. True: one of them was known before. */
bool holders_add(struct holders *h, uint64_t worker, const struct holders_blocks *b);

#endif
