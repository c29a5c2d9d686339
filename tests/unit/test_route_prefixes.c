/*
 * Policies that match prompts against what workers hold, and the memory below them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/rng.h"
#include "lib/route/hash.h"
#include "lib/route/memory/holdings.h"
#include "tests/unit/route_kit.h"

#define MOST   6
#define BLOCKS 64

struct fixture {
	struct route_slot slot[MOST];
	struct route_pool *pool;
};

static const char *const names[MOST] = {"w1", "w2", "w3", "w4", "w5", "w6"};

static void make(struct fixture *f, const char *policy, size_t n)
{
	struct route_spec spec = spec_named(policy);
	struct route_slot *slots[MOST];

	memset(f, 0, sizeof(*f));
	for (size_t i = 0; i < n; i++) {
		slots[i] = &f->slot[i];
		atomic_store(&f->slot[i].available, true);
	}
	assert_int_equal(pool_of(&f->pool, &spec, names, slots, n, NULL), PD_OK);
}

/* n blocks of the chain number `id`; two chains share nothing. */
static const uint64_t *chain(uint64_t id, size_t n)
{
	static uint64_t block[BLOCKS];

	for (size_t i = 0; i < n; i++)
		block[i] = route_dice(id, 2, i, 0) | 1;
	return block;
}

static struct route_decision ask(struct fixture *f, uint64_t id, size_t n, uint32_t tokens)
{
	struct route_request rq = {.block = chain(id, n), .nblocks = n, .tokens = tokens};
	struct route_decision d;

	assert_int_equal(route_decide(f->pool, &rq, &d), PD_OK);
	return d;
}

static struct route_decision once(struct fixture *f, uint64_t id, size_t n, uint32_t tokens)
{
	struct route_decision d = ask(f, id, n, tokens);
	struct route_request rq = {.counted = d.tokens};

	route_end(f->pool, d.worker, &rq);
	return d;
}

static void tell(struct fixture *f, enum route_event_kind kind, uint32_t worker, unsigned tier,
		 uint64_t id, size_t from, size_t n)
{
	route_tell(f->pool->state, &(struct route_event){.kind = kind,
							 .worker = f->pool->worker[worker].id,
							 .block = chain(id, BLOCKS) + from,
							 .nblocks = n,
							 .tier = tier});
}

/* -- holdings -- */

static void test_matches(void **state)
{
	struct holdings_match m[MOST];
	struct holdings *h;
	struct fixture f;
	uint64_t id[MOST];

	(void)state;
	make(&f, "random", MOST);
	for (size_t i = 0; i < MOST; i++)
		id[i] = f.pool->worker[i].id;
	assert_int_equal(holdings_new(&h, 0, 1 << 20), PD_OK);
	holdings_match(h, f.pool, chain(1, 8), 8, m);
	for (size_t i = 0; i < MOST; i++)
		assert_true(m[i].device == 0 && m[i].end == 0);
	holdings_add(h, id[0], TIER_DEVICE, chain(1, 8), 4);
	holdings_add(h, id[1], TIER_DEVICE, chain(1, 8), 8);
	holdings_add(h, id[2], TIER_DEVICE, chain(1, 8) + 2, 6); /* no beginning */
	holdings_add(h, id[3], TIER_DEVICE, chain(1, 8), 2);
	holdings_add(h, id[3], TIER_HOST, chain(1, 8), 5);
	holdings_add(h, id[3], TIER_DISK, chain(1, 8), 7);
	holdings_add(h, id[4], TIER_EXTERNAL, chain(1, 8), 3);
	holdings_add(h, 12345, TIER_DEVICE, chain(1, 8), 8); /* not in this pool */
	holdings_match(h, f.pool, chain(1, 8), 8, m);
	assert_true(m[0].device == 4 && m[0].end == 4);
	assert_true(m[1].device == 8 && m[1].end == 8);
	assert_true(m[2].device == 0 && m[2].end == 0);
	assert_true(m[3].device == 2 && m[3].end == 7 && m[3].tier == TIER_DISK);
	assert_true(m[4].device == 0 && m[4].end == 3 && m[4].tier == TIER_EXTERNAL);
	assert_true(m[5].device == 0 && m[5].end == 0);
	holdings_remove(h, id[3], TIER_DISK, chain(1, 8) + 4, 1);
	holdings_match(h, f.pool, chain(1, 8), 8, m);
	assert_true(m[3].device == 2 && m[3].end == 5 && m[3].tier == TIER_HOST);
	holdings_remove(h, id[1], TIERS, chain(1, 8) + 3, 1);
	holdings_match(h, f.pool, chain(1, 8), 8, m);
	assert_true(m[1].device == 3);
	holdings_drop_worker(h, id[0]);
	assert_int_equal(holdings_count(h, id[0]), 0);
	holdings_match(h, f.pool, chain(1, 8), 8, m);
	assert_true(m[0].device == 0 && m[1].device == 3);
	holdings_free(h);
	route_pool_free(f.pool);
}

/* Against a plain table of who holds what, with random adds, removes and drops. */
static void test_against_a_table(void **state)
{
	static bool has[MOST][40][BLOCKS];
	struct holdings *h;
	struct fixture f;
	struct rng rng;

	(void)state;
	rng_seed(&rng, 11);
	make(&f, "random", MOST);
	assert_int_equal(holdings_new(&h, 0, 1 << 20), PD_OK);
	for (unsigned step = 0; step < 20000; step++) {
		uint32_t w = (uint32_t)rng_below(&rng, MOST), c = (uint32_t)rng_below(&rng, 40);
		size_t from = rng_below(&rng, BLOCKS), n = 1 + rng_below(&rng, BLOCKS - from);
		uint64_t id = f.pool->worker[w].id;
		struct holdings_match m[MOST];

		if (rng_below(&rng, 500) == 0) {
			holdings_drop_worker(h, id);
			memset(has[w], 0, sizeof(has[w]));
		} else if (rng_below(&rng, 3)) {
			holdings_add(h, id, TIER_DEVICE, chain(c, BLOCKS) + from, n);
			memset(has[w][c] + from, 1, n);
		} else {
			holdings_remove(h, id, TIER_DEVICE, chain(c, BLOCKS) + from, n);
			memset(has[w][c] + from, 0, n);
		}
		holdings_match(h, f.pool, chain(c, BLOCKS), BLOCKS, m);
		for (size_t k = 0; k < MOST; k++) {
			size_t want = 0;

			while (want < BLOCKS && has[k][c][want])
				want++;
			assert_int_equal(m[k].device, want);
		}
	}
	holdings_free(h);
	route_pool_free(f.pool);
}

/* Ten million blocks of four workers: each worker's bound and the bound in all hold, and what was
 * used last is there. */
static void test_bound_of_holdings(void **state)
{
	const uint64_t all = 10000000;
	struct holdings *h;
	size_t bytes;

	(void)state;
	assert_int_equal(holdings_new(&h, 100000, 250000), PD_OK);
	for (uint64_t i = 0; i < all; i++) {
		uint64_t block = route_dice(4, 0, i, 0);

		holdings_add(h, i % 4 + 1, TIER_DEVICE, &block, 1);
	}
	bytes = holdings_bytes(h);
	assert_int_equal(holdings_all(h), 250000);
	for (uint64_t w = 1; w <= 4; w++)
		assert_in_range(holdings_count(h, w), 50000, 100000);
	assert_true(bytes < (size_t)250000 * 48);
	for (uint64_t i = all - 100000; i < all; i++) {
		uint64_t block = route_dice(4, 0, i, 0);
		size_t before = holdings_all(h);

		holdings_remove(h, i % 4 + 1, TIERS, &block, 1);
		assert_int_equal(holdings_all(h), before - 1);
	}
	print_message("10 million blocks: %zu bytes for 250000\n", bytes);
	holdings_free(h);
	/* Without a bound per worker the one in all still holds; a trim gives back. */
	assert_int_equal(holdings_new(&h, 0, 5000), PD_OK);
	for (uint64_t i = 0; i < 20000; i++)
		holdings_add(h, 7, TIER_DEVICE, &i, 1);
	assert_int_equal(holdings_count(h, 7), 5000);
	holdings_trim(h, 10);
	assert_int_equal(holdings_count(h, 7), 10);
	holdings_free(h);
}

/* -- cache_aware -- */

static void test_cache_aware(void **state)
{
	struct route_decision d;
	uint32_t home;
	struct fixture f;

	(void)state;
	make(&f, "cache_aware", 4);
	home = once(&f, 1, 40, 640).worker;
	for (unsigned i = 0; i < 20; i++)
		(void)once(&f, 100 + i, 40, 640);
	d = once(&f, 1, 40, 640);
	assert_true(d.worker == home && d.reason == ROUTE_REASON_PREFIX && d.tokens == 1);
	/* A match of exactly the threshold is not enough, a little more is. */
	assert_int_equal(once(&f, 1, 12, 640).reason, ROUTE_REASON_LOAD);
	d = once(&f, 1, 13, 640);
	assert_true(d.worker == home && d.tokens == 640 - 13 * 16);
	/* Uneven: 65 more than the least, and more than 1.5 times as many. */
	atomic_store(&f.slot[home].in_flight, 64);
	assert_int_equal(once(&f, 1, 40, 640).worker, home);
	atomic_store(&f.slot[home].in_flight, 65);
	d = once(&f, 1, 40, 640);
	assert_true(d.worker != home && d.reason == ROUTE_REASON_LOAD);
	for (unsigned w = 0; w < 4; w++) /* by far, but less than half as many again */
		atomic_store(&f.slot[w].in_flight, w == home ? 265 : 200);
	d = once(&f, 1, 40, 640);
	assert_int_equal(d.reason, ROUTE_REASON_PREFIX);
	route_pool_free(f.pool);
}

/* vllm-router 0.1.17 sends idle ties to the first worker, 7 of 7; here they take turns unless
 * asked. */
static void test_cache_aware_ties(void **state)
{
	unsigned count[4] = {0};
	struct fixture f;

	(void)state;
	make(&f, "cache_aware:cache-ties=first", 4);
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(once(&f, 200 + i, 20, 320).worker, 0);
	route_pool_free(f.pool);
	make(&f, "cache_aware", 4);
	for (unsigned i = 0; i < 8; i++)
		count[once(&f, 200 + i, 20, 320).worker]++;
	for (unsigned w = 0; w < 4; w++)
		assert_int_equal(count[w], 2);
	route_pool_free(f.pool);
	/* SMG: to the smallest tree. */
	make(&f, "cache_aware:cache-miss=smallest-tree:cache-ties=first", 3);
	assert_int_equal(once(&f, 1, 30, 480).worker, 0);
	assert_int_equal(once(&f, 2, 10, 160).worker, 1);
	assert_int_equal(once(&f, 3, 20, 320).worker, 2);
	assert_int_equal(once(&f, 4, 15, 240).worker, 1);
	assert_int_equal(once(&f, 5, 1, 16).worker, 2);
	route_pool_free(f.pool);
}

/* A tree keeps its size: at once with an interval of 0, else at the next trim. */
static void test_cache_aware_trims(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, "cache_aware:max-tree-size=2560:eviction-interval=0", 1); /* 40 blocks */
	(void)once(&f, 1, 30, 480);
	(void)once(&f, 2, 30, 480);
	assert_int_equal(once(&f, 1, 30, 480).reason, ROUTE_REASON_PREFIX); /* a third is left */
	(void)once(&f, 3, 40, 640);
	assert_int_equal(once(&f, 1, 30, 480).reason, ROUTE_REASON_LOAD);
	route_pool_free(f.pool);
}

/* -- kv_aware -- */

/* The vectors of vllm-router 0.1.17: 64 tokens in blocks of 16, and 65 and 50. */
static void test_kv_vectors(void **state)
{
	static const struct {
		uint32_t tokens, device, other;
		unsigned tier;
		uint32_t want;
	} vector[] = {
		{64, 4, 0, 0, 16}, {65, 4, 0, 0, 1},  {64, 2, 4, 1, 7},	 {64, 2, 4, 2, 13},
		{64, 2, 4, 3, 23}, {64, 0, 4, 1, 13}, {50, 0, 0, 0, 50},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(vector) / sizeof(vector[0]); i++) {
		struct fixture f;

		make(&f, "kv_aware", 1);
		if (vector[i].device)
			tell(&f, ROUTE_STORED, 0, 0, 1, 0, vector[i].device);
		if (vector[i].other)
			tell(&f, ROUTE_STORED, 0, vector[i].tier, 1, 0, vector[i].other);
		assert_int_equal(once(&f, 1, vector[i].tokens / 16, vector[i].tokens).tokens,
				 vector[i].want);
		route_pool_free(f.pool);
	}
}

static void test_kv_aware(void **state)
{
	struct route_decision d;
	struct fixture f;

	(void)state;
	make(&f, "kv_aware", 3);
	tell(&f, ROUTE_STORED, 1, 0, 1, 0, 40);
	d = once(&f, 1, 40, 641);
	assert_true(d.worker == 1 && d.tokens == 1 && d.reason == ROUTE_REASON_PREFIX);
	/* (1 + 0) * (9 + 1) < (641 + 0) * (0 + 1), and 900 in flight are too many */
	atomic_store(&f.slot[1].in_flight, 9);
	assert_int_equal(once(&f, 1, 40, 641).worker, 1);
	atomic_store(&f.slot[1].in_flight, 900);
	assert_int_not_equal(once(&f, 1, 40, 641).worker, 1);
	atomic_store(&f.slot[1].in_flight, 0);
	/* Having been sent there is not having it. */
	d = once(&f, 2, 40, 641);
	assert_int_equal(d.tokens, 641);
	assert_int_equal(once(&f, 2, 40, 641).tokens, 641);
	/* Evicted; then all forgotten, as after a gap. */
	tell(&f, ROUTE_EVICTED, 1, 0, 1, 10, 1);
	assert_int_equal(once(&f, 1, 40, 641).tokens, 641 - 160);
	tell(&f, ROUTE_EVICTED, 1, 0, 1, 0, 0);
	assert_int_equal(once(&f, 1, 40, 641).tokens, 641);
	tell(&f, ROUTE_STORED, 2, 0, 1, 0, 40);
	tell(&f, ROUTE_LEFT, 2, 0, 1, 0, 0);
	assert_int_equal(once(&f, 1, 40, 641).tokens, 641);
	route_pool_free(f.pool);
}

/* Softmax over costs: at T as large as the difference the better one gets e times as many. */
static void test_kv_temperature(void **state)
{
	unsigned first = 0;
	struct fixture f;

	(void)state;
	make(&f, "kv_aware:router-temperature=640", 2);
	tell(&f, ROUTE_STORED, 1, 0, 1, 0, 40);
	for (unsigned i = 0; i < 20000; i++) {
		struct route_request rq = {.block = chain(1, 40),
					   .nblocks = 40,
					   .tokens = 641,
					   .draw = route_dice(1, 0, i, 0)};
		struct route_decision d;

		assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
		rq.counted = d.tokens;
		route_end(f.pool, d.worker, &rq);
		first += d.worker == 1;
	}
	assert_in_range(first, 20000 * 0.72, 20000 * 0.742); /* e / (1 + e) = 0.731 */
	route_pool_free(f.pool);
}

static void test_kv_affinity(void **state)
{
	struct route_key key = key_of("s");
	struct route_request rq = {.key = &key, .tokens = 100, .now_ns = 1};
	struct route_decision d;
	uint32_t home;
	struct fixture f;

	(void)state;
	make(&f, "kv_aware:kv-aware-session-affinity-ttl-secs=60", 3);
	assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
	home = d.worker;
	for (int i = 0; i < 20; i++) { /* whatever the load */
		assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
		assert_int_equal(d.worker, home);
	}
	rq.now_ns = INT64_C(62000000000);
	assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
	assert_int_not_equal(d.worker, home);
	route_pool_free(f.pool);
}

/* -- least_tokens, prefix_hash -- */

static void test_least_tokens(void **state)
{
	struct route_decision d;
	uint32_t home;
	struct fixture f;

	(void)state;
	make(&f, "least_tokens", 3);
	home = once(&f, 1, 40, 640).worker;
	d = once(&f, 1, 40, 700);
	assert_true(d.worker == home && d.tokens == 60);
	atomic_store(&f.slot[home].tokens, 650); /* more than the prompt costs elsewhere */
	assert_int_not_equal(once(&f, 1, 40, 700).worker, home);
	atomic_store(&f.slot[home].tokens, 0);
	/* One long prompt weighs as many short ones. */
	for (unsigned w = 0; w < 3; w++)
		atomic_store(&f.slot[w].tokens, w == 0 ? 100 : 10000);
	atomic_store(&f.slot[0].in_flight, 5);
	assert_int_equal(once(&f, 9, 1, 16).worker, 0);
	route_pool_free(f.pool);
}

static void test_prefix_hash(void **state)
{
	struct route_decision d;
	bool used[MOST] = {false};
	unsigned n = 0;
	uint32_t home;
	struct fixture f;

	(void)state;
	make(&f, "prefix_hash", MOST);
	home = once(&f, 1, 16, 256).worker;
	for (size_t blocks = 16; blocks < BLOCKS; blocks++) /* only the first 256 tokens count */
		assert_int_equal(once(&f, 1, blocks, 2000).worker, home);
	for (unsigned i = 0; i < 100; i++)
		used[once(&f, 50 + i, 20, 320).worker] = true;
	for (unsigned w = 0; w < MOST; w++)
		n += used[w];
	assert_int_equal(n, MOST);
	/* Over the bound: the least loaded, not the next on the ring. */
	for (unsigned w = 0; w < MOST; w++)
		atomic_store(&f.slot[w].in_flight, w == home		    ? 20
						   : w == (home + 2) % MOST ? 1
									    : 10);
	d = once(&f, 1, 16, 256);
	assert_int_equal(d.worker, (home + 2) % MOST);
	route_pool_free(f.pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_matches),		  cmocka_unit_test(test_against_a_table),
		cmocka_unit_test(test_bound_of_holdings), cmocka_unit_test(test_cache_aware),
		cmocka_unit_test(test_cache_aware_ties),  cmocka_unit_test(test_cache_aware_trims),
		cmocka_unit_test(test_kv_vectors),	  cmocka_unit_test(test_kv_aware),
		cmocka_unit_test(test_kv_temperature),	  cmocka_unit_test(test_kv_affinity),
		cmocka_unit_test(test_least_tokens),	  cmocka_unit_test(test_prefix_hash),
	};

	return cmocka_run_group_tests_name("route_prefixes", tests, NULL, NULL);
}
