/*
 * A number for each worker, kept over changes of the list: sessions bound to it, recent work.
 * Workers are known by id. A pool takes a row of cells when it is made (its policy's table) and
 * gives it back when it goes; a worker's cell lives as long as one row has it, so that nothing is
 * lost between two pools that share the memory. Thread-safe: cells are atomics, taking and giving
 * back locks. Bounded: TALLY_CELLS workers at once; those beyond have no cell and count as zero.
 */
#ifndef PD_ROUTE_TALLY_H
#define PD_ROUTE_TALLY_H

#include <stdatomic.h>

#include "lib/route/pool.h"

#define TALLY_CELLS 4096 /* a power of two */

/* Recent work of a worker: requests, prompt tokens to compute, new conversations. */
enum tally_kind { TALLY_PICKS, TALLY_TOKENS, TALLY_PLACED, TALLY_KINDS };

#define TALLY_ONE 1024u /* the unit, so that halving keeps fractions */

struct tally_cell {
	_Atomic uint64_t id;
	_Atomic int64_t value;
	/* Recent work, as of `epoch`: halved with each epoch that passed since. */
	_Atomic uint64_t recent[TALLY_KINDS];
	_Atomic uint32_t epoch;
	unsigned rows; /* under the lock */
};

struct tally;

struct tally_row {
	struct tally *tally;
	size_t n;
	struct tally_cell *cell[]; /* by place in the pool; NULL: no room */
};

int tally_new(struct tally **out) PD_MUST;
void tally_free(struct tally *t);

int tally_row_new(struct tally_row **out, struct tally *t, const struct route_pool *pool) PD_MUST;
void tally_row_free(struct tally_row *row);

/* NULL: no row has this worker. */
struct tally_cell *tally_find(struct tally *t, uint64_t id);

static inline int64_t tally_value(const struct tally_cell *c)
{
	return c ? atomic_load_explicit(&c->value, memory_order_relaxed) : 0;
}

static inline void tally_add(struct tally_cell *c, int64_t by)
{
	if (c)
		atomic_fetch_add_explicit(&c->value, by, memory_order_relaxed);
}

/* One more request in this epoch. */
void tally_work(struct tally_cell *c, uint32_t epoch, uint64_t tokens, bool placed);

/* In units of 1 / TALLY_ONE. */
static inline uint64_t tally_recent(const struct tally_cell *c, uint32_t epoch,
				    enum tally_kind kind)
{
	uint32_t passed;

	if (!c)
		return 0;
	passed = epoch - atomic_load_explicit(&c->epoch, memory_order_relaxed);
	return passed < 64 ? atomic_load_explicit(&c->recent[kind], memory_order_relaxed) >> passed
			   : 0;
}

#endif
