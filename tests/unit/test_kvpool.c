/* The block pool against a naive model: one queue as an array, searched from end to end. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "lib/base/rng.h"
#include "sim/engine/kvpool.h"

#define BLOCKS 40
#define HELD   8 /* requests at a time */
#define LEN    12

struct naive {
	struct {
		uint64_t name, born;
		bool named;
		unsigned refs;
	} block[BLOCKS];
	size_t queue[BLOCKS * 4], n; /* the head first */
	size_t blocks;
	uint64_t clock, evictions;
};

static void naive_init(struct naive *m, size_t blocks)
{
	memset(m, 0, sizeof(*m));
	m->blocks = blocks;
	for (size_t i = 0; i < blocks; i++)
		m->queue[m->n++] = i;
}

static int naive_find(const struct naive *m, uint64_t name)
{
	int best = -1;

	for (size_t i = 0; i < m->blocks; i++)
		if (m->block[i].named && m->block[i].name == name &&
		    (best < 0 || m->block[i].born < m->block[best].born))
			best = (int)i;
	return best;
}

static size_t naive_match(const struct naive *m, const uint64_t *name, size_t n, size_t *idle)
{
	size_t hits = 0;

	*idle = 0;
	for (; hits < n && naive_find(m, name[hits]) >= 0; hits++)
		*idle += m->block[naive_find(m, name[hits])].refs == 0;
	return hits;
}

static void naive_hold(struct naive *m, uint64_t name, uint32_t *out)
{
	size_t b = (size_t)naive_find(m, name), i = 0;

	if (m->block[b].refs++ == 0) {
		while (m->queue[i] != b)
			i++;
		memmove(&m->queue[i], &m->queue[i + 1], (--m->n - i) * sizeof(m->queue[0]));
	}
	*out = (uint32_t)b;
}

static uint32_t naive_take(struct naive *m)
{
	size_t b = m->queue[0];

	memmove(m->queue, m->queue + 1, --m->n * sizeof(m->queue[0]));
	m->evictions += m->block[b].named;
	m->block[b].named = false;
	m->block[b].refs = 1;
	return (uint32_t)b;
}

static void naive_name(struct naive *m, size_t b, uint64_t name)
{
	m->block[b].name = name;
	m->block[b].named = true;
	m->block[b].born = ++m->clock;
}

static void naive_drop(struct naive *m, const uint32_t *block, size_t n)
{
	size_t front[LEN], nfront = 0;

	for (size_t i = n; i-- > 0;) {
		if (--m->block[block[i]].refs > 0)
			continue;
		if (m->block[block[i]].named)
			m->queue[m->n++] = block[i];
		else
			front[nfront++] = block[i];
	}
	memmove(m->queue + nfront, m->queue, m->n * sizeof(m->queue[0]));
	memcpy(m->queue, front, nfront * sizeof(front[0]));
	m->n += nfront;
}

struct request {
	uint64_t name[LEN];
	uint32_t block[LEN], theirs[LEN];
	size_t n, named;
};

/* Numbers of blocks differ (the pool counts them in the order of first use, and so does the
 * model), so held blocks must be the same ones. */
static void play(uint64_t seed, size_t blocks, uint64_t names)
{
	struct kvpool *p = kvpool_new(blocks);
	struct kvpool_stats stats;
	struct request held[HELD];
	size_t nheld = 0;
	struct naive m;
	struct rng rng;

	naive_init(&m, blocks);
	rng_seed(&rng, seed);
	for (int step = 0; step < 4000; step++) {
		struct request *r = &held[nheld];
		size_t idle, their_idle, hits, at;

		if (nheld == HELD || (nheld > 0 && rng_below(&rng, 2))) {
			at = rng_below(&rng, nheld);
			kvpool_drop(p, held[at].block, held[at].n);
			naive_drop(&m, held[at].theirs, held[at].n);
			held[at] = held[--nheld];
			continue;
		}
		/* A name stands for its whole prefix: the group, then the place. */
		r->n = 1 + rng_below(&rng, LEN);
		for (size_t i = 0, g = rng_below(&rng, names); i < r->n; i++)
			r->name[i] = g * 100 + i;
		hits = kvpool_match(p, r->name, r->n, &idle);
		assert_int_equal(hits, naive_match(&m, r->name, r->n, &their_idle));
		assert_int_equal(idle, their_idle);
		assert_int_equal(kvpool_available(p), m.n);
		if (r->n - hits + idle > m.n)
			continue;
		if (hits > 0 && rng_below(&rng, 4) == 0)
			hits--; /* the last block is computed again: a second copy */
		kvpool_hold(p, r->name, hits, r->block);
		for (size_t i = 0; i < hits; i++)
			naive_hold(&m, r->name[i], &r->theirs[i]);
		if (r->n - hits > kvpool_available(p)) {
			kvpool_drop(p, r->block, hits);
			naive_drop(&m, r->theirs, hits);
			continue;
		}
		assert_int_equal(kvpool_take(p, r->block + hits, r->n - hits), PD_OK);
		r->named = hits + rng_below(&rng, r->n - hits + 1);
		for (size_t i = hits; i < r->n; i++)
			r->theirs[i] = naive_take(&m);
		for (size_t i = hits; i < r->named; i++) {
			kvpool_name(p, r->block[i], r->name[i]);
			naive_name(&m, r->theirs[i], r->name[i]);
		}
		assert_memory_equal(r->block, r->theirs, r->n * sizeof(r->block[0]));
		kvpool_stats(p, &stats);
		assert_int_equal(stats.evictions, m.evictions);
		assert_int_equal(stats.held, blocks - m.n);
		nheld++;
	}
	kvpool_free(p);
}

static void test_same_blocks_as_the_model(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++)
		play(seed, 12 + seed % 28, 1 + seed % 9);
}

static void test_unlimited_keeps_all_names_and_reuses_the_others(void **state)
{
	struct kvpool *p = kvpool_new(0);
	uint32_t block[3], again[3];
	uint64_t name[3] = {7, 8, 9};
	struct kvpool_stats s;

	(void)state;
	assert_int_equal(kvpool_take(p, block, 3), PD_OK);
	kvpool_name(p, block[0], name[0]);
	kvpool_drop(p, block, 3);
	assert_int_equal(kvpool_take(p, again, 3), PD_OK);
	assert_int_equal(again[0], block[2]); /* the last one without a name is the head */
	assert_int_equal(again[1], block[1]);
	assert_int_equal(again[2], 3);
	kvpool_drop(p, again, 3);
	assert_int_equal(kvpool_match(p, name, 3, NULL), 1);
	kvpool_forget(p);
	assert_int_equal(kvpool_match(p, name, 3, NULL), 0);
	kvpool_stats(p, &s);
	assert_int_equal(s.evictions + s.named + s.held, 0);
	kvpool_free(p);
}

/* Hits as before the call; then the first block is the most recent. */
static void test_access_evicts_the_tail_first(void **state)
{
	struct kvpool *p = kvpool_new(4);
	uint64_t a[3] = {1, 2, 3}, b[2] = {4, 5}, big[6] = {10, 11, 12, 13, 14, 15};
	size_t hits;

	(void)state;
	assert_int_equal(kvpool_access(p, a, 3, &hits), PD_OK);
	assert_int_equal(hits, 0);
	assert_int_equal(kvpool_access(p, b, 2, &hits), PD_OK);
	assert_int_equal(kvpool_match(p, a, 3, NULL), 2);
	assert_int_equal(kvpool_access(p, big, 6, &hits), PD_OK);
	assert_int_equal(kvpool_match(p, big, 6, NULL), 4);
	kvpool_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_blocks_as_the_model),
		cmocka_unit_test(test_unlimited_keeps_all_names_and_reuses_the_others),
		cmocka_unit_test(test_access_evicts_the_tail_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
