/*
 * What is promised of each hash policy, measured over many keys: a change of the list moves the
 * keys that it must and no others, shares are as the weights, the order of the list decides
 * nothing, a bound holds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/rng.h"
#include "tests/unit/route_kit.h"

#define WORKERS 16
#define KEYS	20000

struct fixture {
	struct route_slot slot[WORKERS];
	char name[WORKERS][24];
	struct route_pool *pool;
};

/* Workers a..b of the numbered ones, in the order of `order` (NULL: as they are). */
static void make(struct fixture *f, const char *policy, size_t n, const uint32_t *weight,
		 const uint32_t *order)
{
	struct route_spec spec = spec_named(policy);
	struct route_member member[WORKERS] = {0};
	struct route_state *state;

	memset(f, 0, sizeof(*f));
	for (size_t i = 0; i < n; i++) {
		uint32_t who = order ? order[i] : (uint32_t)i;

		(void)snprintf(f->name[i], sizeof(f->name[i]), "http://10.0.0.%u:8000", who);
		member[i].name = f->name[i];
		member[i].slot = &f->slot[i];
		atomic_store(&f->slot[i].available, true);
		if (weight && weight[who] > 0) {
			char text[16];

			(void)snprintf(text, sizeof(text), "%u", weight[who]);
			assert_int_equal(
				route_labels_set(&member[i].labels, SPAN("weight"), span_of(text)),
				PD_OK);
		}
	}
	if (route_state_new(&state, &spec) || route_pool_new(&f->pool, member, n, state, NULL))
		fail_msg("no pool of %s", policy);
	route_state_unref(state);
	for (size_t i = 0; i < n; i++)
		route_labels_release(&member[i].labels);
}

/* The name of the worker that a key goes to; nothing stays in flight. */
static const char *home(struct fixture *f, unsigned key)
{
	struct route_key k = {.level = ROUTE_KEY_SESSION};
	struct route_request rq = {.key = &k};
	struct route_decision d;

	k.len = (size_t)snprintf(k.text, sizeof(k.text), "session-%u", key);
	assert_int_equal(route_decide(f->pool, &rq, &d), PD_OK);
	route_end(f->pool, d.worker, &rq);
	return f->pool->worker[d.worker].name;
}

static const char *const hashes[] = {"consistent_hash",
				     "consistent_hash:ring-lookup=nearest",
				     "consistent_hash:ring-hash=fbi",
				     "bounded_hash",
				     "rendezvous_hash",
				     "maglev"};
#define HASHES (sizeof(hashes) / sizeof(hashes[0]))

/* One of 16 leaves the list: its keys go to others, spread, and (maglev: all but a few) no other
 * key moves. The same when it is only unavailable, and then exactly. */
static void test_disruption(void **state)
{
	static const uint32_t without[] = {0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

	(void)state;
	for (size_t h = 0; h < HASHES; h++) {
		unsigned moved = 0, needless = 0, needless_down = 0;
		static struct fixture all, less;

		make(&all, hashes[h], WORKERS, NULL, NULL);
		make(&less, hashes[h], WORKERS - 1, NULL, without);
		for (unsigned k = 0; k < KEYS; k++) {
			const char *was = home(&all, k), *is = home(&less, k);
			bool must = strcmp(was, all.name[5]) == 0;

			moved += must;
			needless += !must && strcmp(was, is) != 0;
			atomic_store(&all.slot[5].available, false);
			needless_down += !must && home(&all, k) != was;
			atomic_store(&all.slot[5].available, true);
		}
		assert_in_range(moved, KEYS / WORKERS / 2, KEYS / WORKERS * 2);
		assert_int_equal(needless_down, 0);
		assert_true(needless <= (strcmp(hashes[h], "maglev") == 0 ? KEYS / 100 : 0));
		route_pool_free(all.pool);
		route_pool_free(less.pool);
	}
}

static void test_modulo_moves_most(void **state)
{
	static struct fixture all, less;
	unsigned moved = 0;

	(void)state;
	make(&all, "modulo", WORKERS, NULL, NULL);
	make(&less, "modulo", WORKERS - 1, NULL, NULL);
	for (unsigned k = 0; k < KEYS; k++)
		moved += strcmp(home(&all, k), home(&less, k)) != 0;
	assert_in_range(moved, KEYS * 9 / 10, KEYS * 97 / 100); /* 15/16 */
	route_pool_free(all.pool);
	route_pool_free(less.pool);
}

/* A list in another order gives every key the same worker. */
static void test_order_of_the_list(void **state)
{
	uint32_t order[WORKERS];
	struct rng rng;

	(void)state;
	rng_seed(&rng, 5);
	for (uint32_t i = 0; i < WORKERS; i++) {
		uint32_t k = (uint32_t)rng_below(&rng, i + 1);

		order[i] = order[k];
		order[k] = i;
	}
	for (size_t h = 0; h < HASHES; h++) {
		static struct fixture a, b;

		if (strstr(hashes[h], "fbi")) /* points that collide, as vllm-router has them */
			continue;
		make(&a, hashes[h], WORKERS, NULL, NULL);
		make(&b, hashes[h], WORKERS, NULL, order);
		for (unsigned k = 0; k < KEYS; k++)
			assert_string_equal(home(&a, k), home(&b, k));
		route_pool_free(a.pool);
		route_pool_free(b.pool);
	}
}

/* Shares follow the weights; a weight that grows only takes keys, it moves none between others. */
static void test_weights(void **state)
{
	static const char *const weighted[] = {"consistent_hash",
					       "consistent_hash:ring-lookup=nearest",
					       "bounded_hash", "rendezvous_hash", "maglev"};
	const uint32_t one[WORKERS] = {1, 2, 3, 4}, more[WORKERS] = {1, 2, 3, 8};

	(void)state;
	for (size_t h = 0; h < sizeof(weighted) / sizeof(weighted[0]); h++) {
		unsigned count[4] = {0}, needless = 0;
		static struct fixture a, b;

		make(&a, weighted[h], 4, one, NULL);
		make(&b, weighted[h], 4, more, NULL);
		for (unsigned k = 0; k < KEYS; k++) {
			const char *was = home(&a, k), *is = home(&b, k);

			for (unsigned i = 0; i < 4; i++)
				count[i] += was == a.pool->worker[i].name;
			needless += strcmp(was, is) != 0 && strcmp(is, b.name[3]) != 0;
		}
		for (unsigned i = 0; i < 4; i++)
			assert_in_range(count[i], KEYS * (i + 1) / 10 * 3 / 4,
					KEYS * (i + 1) / 10 * 5 / 4);
		assert_true(needless <= (strcmp(weighted[h], "maglev") == 0 ? KEYS / 10 : 0));
		route_pool_free(a.pool);
		route_pool_free(b.pool);
	}
}

/* Few points: the nearer of two neighbours levels the shares, for the same memory. */
static void test_nearest_is_more_even(void **state)
{
	double peak[2] = {0};

	(void)state;
	for (int n = 0; n < 2; n++) {
		unsigned count[8] = {0}, most = 0;
		struct fixture f;

		make(&f,
		     n ? "consistent_hash:virtual-nodes=16:ring-lookup=nearest"
		       : "consistent_hash:virtual-nodes=16",
		     8, NULL, NULL);
		for (unsigned k = 0; k < KEYS; k++)
			for (unsigned i = 0; i < 8; i++)
				count[i] += home(&f, k) == f.pool->worker[i].name;
		for (unsigned i = 0; i < 8; i++)
			most = count[i] > most ? count[i] : most;
		peak[n] = (double)most * 8 / KEYS;
		route_pool_free(f.pool);
	}
	if (peak[1] >= peak[0])
		fail_msg("peak to mean %.3f with the nearest, %.3f with the next", peak[1],
			 peak[0]);
}

/* Maglev's shares are even to a fraction of a percent of the table. */
static void test_maglev(void **state)
{
	struct route_spec spec = spec_named("maglev:maglev-size=65536");
	const char *names[] = {"a"};
	struct route_slot slot = {.available = true}, *slots[] = {&slot};
	struct route_pool *pool;
	struct pd_msg msg = {.text = ""};
	unsigned count[WORKERS] = {0};
	struct fixture f;

	(void)state;
	assert_int_equal(pool_of(&pool, &spec, names, slots, 1, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "found 65536, expected a prime number"));
	make(&f, "maglev", WORKERS, NULL, NULL);
	for (unsigned k = 0; k < 10 * KEYS; k++)
		for (unsigned i = 0; i < WORKERS; i++)
			count[i] += home(&f, k) == f.pool->worker[i].name;
	for (unsigned i = 0; i < WORKERS; i++)
		assert_in_range(count[i], 10 * KEYS / WORKERS * 96 / 100,
				10 * KEYS / WORKERS * 104 / 100);
	route_pool_free(f.pool);
	/* More workers than places: each key still has one. */
	make(&f, "maglev:maglev-size=7", WORKERS, NULL, NULL);
	for (unsigned k = 0; k < 100; k++) {
		uint32_t order[WORKERS];
		struct route_key key = key_of("x");

		assert_non_null(home(&f, k));
		assert_int_equal(route_order(f.pool, &key, order), PD_OK);
	}
	route_pool_free(f.pool);
}

/* Requests that stay: no worker ever has more than its bound, whatever the keys. */
static void test_bound(void **state)
{
	static const struct {
		const char *policy;
		double factor;
	} bounded[] = {{"bounded_hash", 1.25},
		       {"bounded_hash:load-factor=1", 1},
		       {"bounded_hash:load-factor=2", 2}};
	const uint32_t weight[WORKERS] = {1, 1, 2, 4, 1, 1, 1, 3};

	(void)state;
	for (size_t b = 0; b < 2 * sizeof(bounded) / sizeof(bounded[0]); b++) {
		bool by_weight = b % 2;
		double factor = bounded[b / 2].factor;
		struct fixture f;
		struct rng rng;
		unsigned held = 0;

		rng_seed(&rng, b);
		make(&f, bounded[b / 2].policy, 8, by_weight ? weight : NULL, NULL);
		for (unsigned k = 0; k < 3000; k++) {
			struct route_key key = key_of(k % 3 ? "hot" : "warm");
			struct route_request rq = {.key = &key};
			struct route_decision d;
			double share;

			if (held > 0 && rng_below(&rng, 3) == 0) {
				uint32_t w = (uint32_t)rng_below(&rng, 8);

				if (route_load(&f.slot[w]) > 0) {
					route_end(f.pool, w, &rq);
					held--;
				}
			}
			assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
			held++;
			share = factor * held * (by_weight ? weight[d.worker] / 14.0 : 1 / 8.0);
			assert_true(route_load(&f.slot[d.worker]) < share + 1);
			assert_true((d.worker == d.home) == (d.reason == ROUTE_REASON_KEY));
		}
		route_pool_free(f.pool);
	}
}

static void test_weighted_turns(void **state)
{
	static const char want[] = "0010200";
	const uint32_t weight[WORKERS] = {5, 1, 1};
	struct route_request rq = {.key = NULL};
	struct route_decision d;
	struct fixture f;

	(void)state;
	make(&f, "round_robin", 3, weight, NULL);
	for (unsigned i = 0; i < 21; i++) {
		assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
		assert_int_equal(d.worker, want[i % 7] - '0');
		route_end(f.pool, d.worker, NULL);
	}
	atomic_store(&f.slot[0].available, false);
	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
		assert_true(d.worker == 1 || d.worker == 2);
		route_end(f.pool, d.worker, NULL);
	}
	route_pool_free(f.pool);
}

static void test_wrong_weights(void **state)
{
	static const char *const wrong[] = {"0",   "101", "",	"x",
					    "1.5", "-1",  " 1", "99999999999999999999"};
	struct route_spec spec = spec_named("random");
	struct route_slot slot = {.available = true};
	struct route_state *s;

	(void)state;
	assert_int_equal(route_state_new(&s, &spec), PD_OK);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct route_member m = {.name = "a", .slot = &slot};
		struct pd_msg msg = {.text = ""};
		struct route_pool *pool;

		assert_int_equal(route_labels_set(&m.labels, SPAN("weight"), span_of(wrong[i])),
				 PD_OK);
		assert_int_equal(route_pool_new(&pool, &m, 1, s, &msg), PD_EINVAL);
		assert_non_null(strstr(msg.text, "worker 'a': label weight: found '"));
		assert_null(pool);
		route_labels_release(&m.labels);
	}
	route_state_unref(s);
}

static void test_find_by_id(void **state)
{
	struct fixture f;

	(void)state;
	for (size_t n = 0; n <= WORKERS; n++) {
		make(&f, "random", n, NULL, NULL);
		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(route_pool_find(f.pool, f.pool->worker[i].id), i);
		assert_int_equal(route_pool_find(f.pool, 12345), ROUTE_NO_WORKER);
		route_pool_free(f.pool);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_disruption),
		cmocka_unit_test(test_modulo_moves_most),
		cmocka_unit_test(test_order_of_the_list),
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_nearest_is_more_even),
		cmocka_unit_test(test_maglev),
		cmocka_unit_test(test_bound),
		cmocka_unit_test(test_weighted_turns),
		cmocka_unit_test(test_find_by_id),
		cmocka_unit_test(test_wrong_weights),
	};

	return cmocka_run_group_tests_name("route_hashing", tests, NULL, NULL);
}
