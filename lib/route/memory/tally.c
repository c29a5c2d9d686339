/*
 * Open addressing. A cell that no row has becomes a grave: searches go past it, the next new worker
 * takes it.
 */
#include "lib/route/memory/tally.h"

#include <pthread.h>
#include <stdlib.h>

#define NOBODY 0u
#define GRAVE  1u

struct tally {
	pthread_mutex_t lock;
	size_t used; /* cells with a worker */
	struct tally_cell cell[TALLY_CELLS];
};

int tally_new(struct tally **out)
{
	struct tally *t = calloc(1, sizeof(*t));

	*out = t;
	if (!t)
		return PD_ENOMEM;
	if (pthread_mutex_init(&t->lock, NULL) != 0) {
		free(t);
		*out = NULL;
		return PD_ENOMEM;
	}
	return PD_OK;
}

void tally_free(struct tally *t)
{
	if (!t)
		return;
	(void)pthread_mutex_destroy(&t->lock);
	free(t);
}

static uint64_t name_of(uint64_t id)
{
	return id > GRAVE ? id : id + 2;
}

struct tally_cell *tally_find(struct tally *t, uint64_t id)
{
	size_t at = id % TALLY_CELLS;

	id = name_of(id);
	for (size_t i = 0; i < TALLY_CELLS; i++, at = (at + 1) % TALLY_CELLS) {
		uint64_t here = atomic_load_explicit(&t->cell[at].id, memory_order_acquire);

		if (here == id)
			return &t->cell[at];
		if (here == NOBODY)
			break;
	}
	return NULL;
}

/* With the lock. */
static struct tally_cell *take(struct tally *t, uint64_t id)
{
	struct tally_cell *c = tally_find(t, id);
	size_t at = id % TALLY_CELLS;

	if (!c && t->used == TALLY_CELLS)
		return NULL;
	if (!c) {
		while (atomic_load_explicit(&t->cell[at].id, memory_order_relaxed) > GRAVE)
			at = (at + 1) % TALLY_CELLS;
		c = &t->cell[at];
		atomic_store_explicit(&c->value, 0, memory_order_relaxed);
		for (int k = 0; k < TALLY_KINDS; k++)
			atomic_store_explicit(&c->recent[k], 0, memory_order_relaxed);
		atomic_store_explicit(&c->id, name_of(id), memory_order_release);
		t->used++;
	}
	c->rows++;
	return c;
}

int tally_row_new(struct tally_row **out, struct tally *t, const struct route_pool *pool)
{
	struct tally_row *row = malloc(sizeof(*row) + pool->n * sizeof(struct tally_cell *));

	*out = row;
	if (!row)
		return PD_ENOMEM;
	row->tally = t;
	row->n = pool->n;
	(void)pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < pool->n; i++)
		row->cell[i] = take(t, pool->worker[i].id);
	(void)pthread_mutex_unlock(&t->lock);
	return PD_OK;
}

void tally_row_free(struct tally_row *row)
{
	if (!row)
		return;
	(void)pthread_mutex_lock(&row->tally->lock);
	for (size_t i = 0; i < row->n; i++) {
		struct tally_cell *c = row->cell[i];

		if (!c || --c->rows > 0)
			continue;
		atomic_store_explicit(&c->id, GRAVE, memory_order_release);
		row->tally->used--;
	}
	(void)pthread_mutex_unlock(&row->tally->lock);
	free(row);
}

/* Callers at once may both halve, or one add to what the other halves: a small error that fades. */
void tally_work(struct tally_cell *c, uint32_t epoch, uint64_t tokens, bool placed)
{
	uint32_t then;

	if (!c)
		return;
	then = atomic_load_explicit(&c->epoch, memory_order_relaxed);
	if (then != epoch && atomic_compare_exchange_strong(&c->epoch, &then, epoch)) {
		uint32_t by = epoch - then < 64 ? epoch - then : 63;

		for (int k = 0; k < TALLY_KINDS; k++)
			atomic_store_explicit(&c->recent[k], atomic_load(&c->recent[k]) >> by,
					      memory_order_relaxed);
	}
	atomic_fetch_add_explicit(&c->recent[TALLY_PICKS], TALLY_ONE, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->recent[TALLY_TOKENS], tokens * TALLY_ONE,
				  memory_order_relaxed);
	if (placed)
		atomic_fetch_add_explicit(&c->recent[TALLY_PLACED], TALLY_ONE,
					  memory_order_relaxed);
}
