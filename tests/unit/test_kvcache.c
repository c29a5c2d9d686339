/* The block cache against a naive model that keeps everything in plain arrays, and the cases the
 * model cannot show. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/rng.h"
#include "sim/engine/kvcache.h"

#define NAIVE_MAX 64
#define REQ_MAX	  12

/* The rules of kvcache.h written down literally: a queue as an array, searched from end to end. */
struct naive {
	struct {
		uint64_t hash, born;
		bool hashed;
		unsigned refs;
	} block[NAIVE_MAX];
	size_t queue[NAIVE_MAX], nqueue, capacity;
	uint64_t clock, evictions;
};

static void naive_init(struct naive *m, size_t capacity)
{
	memset(m, 0, sizeof(*m));
	m->capacity = capacity;
	for (size_t i = 0; i < capacity; i++)
		m->queue[m->nqueue++] = i;
}

static int naive_find(const struct naive *m, uint64_t hash)
{
	int best = -1;

	for (size_t i = 0; i < m->capacity; i++)
		if (m->block[i].hashed && m->block[i].hash == hash &&
		    (best < 0 || m->block[i].born > m->block[best].born))
			best = (int)i;
	return best;
}

static void naive_dequeue(struct naive *m, size_t b)
{
	size_t i = 0;

	while (m->queue[i] != b)
		i++;
	memmove(&m->queue[i], &m->queue[i + 1], (--m->nqueue - i) * sizeof(m->queue[0]));
}

static size_t naive_match(const struct naive *m, const uint64_t *hash, size_t n)
{
	size_t hits = 0;

	while (hits < n && naive_find(m, hash[hits]) >= 0)
		hits++;
	return hits;
}

static size_t naive_take(struct naive *m)
{
	size_t b = m->queue[0];

	naive_dequeue(m, b);
	m->evictions += m->block[b].hashed;
	m->block[b].hashed = false;
	return b;
}

static void naive_name(struct naive *m, size_t b, uint64_t hash)
{
	if (m->block[b].hashed)
		return;
	m->block[b].hashed = true;
	m->block[b].hash = hash;
	m->block[b].born = ++m->clock;
}

static bool naive_pin(struct naive *m, const uint64_t *hash, size_t max_hits, size_t n,
		      size_t *block, size_t *hits)
{
	size_t need;

	*hits = naive_match(m, hash, max_hits);
	need = n - *hits;
	for (size_t i = 0; i < *hits; i++)
		need += m->block[naive_find(m, hash[i])].refs == 0;
	if (need > m->nqueue)
		return false;
	for (size_t i = 0; i < *hits; i++) {
		block[i] = (size_t)naive_find(m, hash[i]);
		if (m->block[block[i]].refs++ == 0)
			naive_dequeue(m, block[i]);
	}
	for (size_t i = *hits; i < n; i++) {
		block[i] = naive_take(m);
		m->block[block[i]].refs = 1;
	}
	return true;
}

static void naive_unpin(struct naive *m, const size_t *block, size_t n)
{
	while (n-- > 0)
		if (--m->block[block[n]].refs == 0)
			m->queue[m->nqueue++] = block[n];
}

static void naive_access(struct naive *m, const uint64_t *hash, size_t n)
{
	for (size_t i = n; i-- > 0;) {
		int b = naive_find(m, hash[i]);

		if (b >= 0 && m->block[b].refs > 0)
			continue;
		if (b >= 0)
			naive_dequeue(m, (size_t)b);
		else if (m->nqueue == 0)
			continue;
		else
			naive_name(m, (size_t)(b = (int)naive_take(m)), hash[i]);
		m->queue[m->nqueue++] = (size_t)b;
	}
}

struct request {
	struct kvcache_pin pin;
	uint64_t hash[REQ_MAX];
	size_t block[REQ_MAX], n;
	bool live;
};

static void compare(const struct kvcache *c, const struct naive *m)
{
	struct kvcache_stats st;
	size_t pinned = 0, cached = 0;

	for (size_t i = 0; i < m->capacity; i++) {
		pinned += m->block[i].refs > 0;
		cached += m->block[i].hashed;
	}
	kvcache_stats(c, &st);
	assert_int_equal(st.pinned, pinned);
	assert_int_equal(st.cached, cached);
	assert_int_equal(st.evictions, m->evictions);
}

/* A prompt is a path in a small tree of prefixes, so that requests share some blocks. */
static size_t random_prompt(struct rng *r, uint64_t *hash)
{
	size_t n = 1 + rng_below(r, REQ_MAX);
	uint64_t path = 1;

	for (size_t i = 0; i < n; i++)
		hash[i] = path = path * 31 + rng_below(r, 2);
	return n;
}

static void start(struct kvcache *c, struct naive *m, struct rng *r, struct request *q)
{
	size_t max_hits, hits = 0, got = 0;
	bool fits;
	int err;

	q->n = random_prompt(r, q->hash);
	max_hits = rng_below(r, q->n + 1);
	fits = naive_pin(m, q->hash, max_hits, q->n, q->block, &hits);
	err = kvcache_pin(c, q->hash, max_hits, q->n, &q->pin);
	if (q->n > m->capacity) {
		assert_int_equal(err, PD_ETOOBIG);
		return;
	}
	assert_int_equal(err, fits ? PD_OK : PD_EBUSY);
	if (!fits)
		return;
	assert_int_equal(q->pin.hits, hits);
	got = rng_below(r, q->n + 1); /* an aborted prefill computes only some of its blocks */
	for (size_t i = 0; i < got; i++) {
		kvcache_commit(c, &q->pin, i, q->hash[i]);
		naive_name(m, q->block[i], q->hash[i]);
	}
	q->live = true;
}

static void run_model(uint64_t seed, size_t capacity, unsigned steps)
{
	struct kvcache *c = kvcache_new(capacity);
	struct request q[8] = {0};
	struct naive m;
	struct rng r;

	assert_non_null(c);
	naive_init(&m, capacity);
	rng_seed(&r, seed);
	for (unsigned i = 0; i < steps; i++) {
		struct request *one = &q[rng_below(&r, 8)];
		uint64_t hash[REQ_MAX];
		size_t n, hits, want;

		if (rng_below(&r, 3) == 0) {
			n = random_prompt(&r, hash);
			want = naive_match(&m, hash, n);
			assert_int_equal(kvcache_match(c, hash, n), want);
			assert_int_equal(kvcache_access(c, hash, n, &hits), PD_OK);
			assert_int_equal(hits, want);
			naive_access(&m, hash, n);
		} else if (one->live) {
			kvcache_unpin(c, &one->pin);
			naive_unpin(&m, one->block, one->n);
			one->live = false;
		} else {
			start(c, &m, &r, one);
		}
		compare(c, &m);
	}
	for (size_t i = 0; i < 8; i++)
		kvcache_unpin(c, &q[i].pin);
	kvcache_free(c);
}

static void test_against_naive_model(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++)
		run_model(seed, 1 + (size_t)(seed * 7) % NAIVE_MAX, 2000);
}

static void test_unlimited_keeps_everything(void **state)
{
	struct kvcache *c = kvcache_new(0);
	struct kvcache_stats st;
	size_t hits;

	(void)state;
	for (uint64_t i = 0; i < 5000; i++) {
		uint64_t hash[3] = {i * 3, i * 3 + 1, i * 3 + 2};

		assert_int_equal(kvcache_access(c, hash, 3, &hits), PD_OK);
		assert_int_equal(hits, 0);
	}
	for (uint64_t i = 0; i < 15000; i++)
		assert_int_equal(kvcache_match(c, &i, 1), 1);
	kvcache_stats(c, &st);
	assert_int_equal(st.cached, 15000);
	assert_int_equal(st.evictions, 0);
	kvcache_clear(c);
	kvcache_stats(c, &st);
	assert_int_equal(st.cached, 0);
	kvcache_free(c);
}

/* Blocks that never got a hash are used again, so an unlimited cache does not grow with aborted
 * work. */
static void test_unlimited_reuses_unnamed_blocks(void **state)
{
	struct kvcache *c = kvcache_new(0);
	uint64_t hash[2] = {1, 2};
	struct kvcache_pin pin = {0};
	uint32_t first = 0;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(kvcache_pin(c, hash, 0, 2, &pin), PD_OK);
		if (i == 0)
			first = pin.block[0] + pin.block[1];
		assert_int_equal(pin.block[0] + pin.block[1], first);
		kvcache_unpin(c, &pin);
	}
	kvcache_free(c);
}

static void test_tail_goes_before_head(void **state)
{
	struct kvcache *c = kvcache_new(4);
	uint64_t a[3] = {10, 11, 12}, b[2] = {20, 21};
	struct kvcache_pin pin = {0};

	(void)state;
	assert_int_equal(kvcache_pin(c, a, 3, 3, &pin), PD_OK);
	for (size_t i = 0; i < 3; i++)
		kvcache_commit(c, &pin, i, a[i]);
	kvcache_unpin(c, &pin);
	assert_int_equal(kvcache_pin(c, b, 2, 2, &pin), PD_OK);
	assert_int_equal(kvcache_match(c, a, 3), 2);
	kvcache_unpin(c, &pin);
	kvcache_free(c);
}

static void test_full_of_pins(void **state)
{
	struct kvcache *c = kvcache_new(3);
	uint64_t a[4] = {1, 2, 3, 4}, b[1] = {9};
	struct kvcache_pin pin = {0}, other = {0};

	(void)state;
	assert_int_equal(kvcache_pin(c, a, 4, 4, &pin), PD_ETOOBIG);
	assert_int_equal(kvcache_pin(c, a, 3, 3, &pin), PD_OK);
	kvcache_commit(c, &pin, 0, a[0]);
	assert_int_equal(kvcache_pin(c, b, 1, 1, &other), PD_EBUSY);
	/* A block that is pinned already costs nothing. */
	assert_int_equal(kvcache_pin(c, a, 1, 1, &other), PD_OK);
	assert_int_equal(other.hits, 1);
	kvcache_unpin(c, &pin);
	assert_int_equal(kvcache_pin(c, a, 3, 3, &pin), PD_OK);
	kvcache_unpin(c, &pin);
	kvcache_unpin(c, &other);
	kvcache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_naive_model),
		cmocka_unit_test(test_unlimited_keeps_everything),
		cmocka_unit_test(test_unlimited_reuses_unnamed_blocks),
		cmocka_unit_test(test_tail_goes_before_head),
		cmocka_unit_test(test_full_of_pins),
	};

	return cmocka_run_group_tests_name("kvcache", tests, NULL, NULL);
}
