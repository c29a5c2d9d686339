/* The index of an engine's blocks against a plain array, with many collisions. */
#include <stdlib.h>
#include <string.h>

#include "lib/base/rng.h"
#include "lib/router/fleet/kvindex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define KEYS 400

static void test_against_a_list(void **state)
{
	struct kvindex x = {0};
	unsigned tiers[KEYS] = {0};
	uint64_t block[KEYS] = {0}, dice = 7, found;
	size_t n = 0;

	(void)state;
	for (int round = 0; round < 200000; round++) {
		uint64_t r = rng_splitmix(&dice);
		size_t k = (size_t)(r % KEYS);
		/* Multiples of 2^40: home places repeat. */
		uint64_t hash = (uint64_t)k << 40;
		unsigned tier = (unsigned)(r >> 32) % 4;

		if ((r >> 60) < 9) {
			assert_int_equal(kvindex_put(&x, hash, r, tier), 0);
			n += tiers[k] == 0;
			tiers[k] |= 1u << tier;
			block[k] = r;
		} else {
			bool there = tiers[k] & (1u << tier);

			assert_int_equal(kvindex_remove(&x, hash, tier, &found), there);
			if (there)
				assert_true(found == block[k]);
			n -= there && tiers[k] == 1u << tier;
			tiers[k] &= ~(1u << tier);
		}
		assert_true(x.n == n);
		k = (size_t)(rng_splitmix(&dice) % KEYS);
		assert_int_equal(kvindex_get(&x, (uint64_t)k << 40, &found), tiers[k] != 0);
		if (tiers[k])
			assert_true(found == block[k]);
	}
	kvindex_release(&x);
	assert_false(kvindex_get(&x, 0, &found));
	assert_false(kvindex_remove(&x, 0, 0, &found));
}

static void test_it_is_bounded(void **state)
{
	struct kvindex x = {0};
	uint64_t found;

	(void)state;
	for (uint64_t i = 0; i < KVINDEX_MAX; i++)
		assert_int_equal(kvindex_put(&x, i, i, 0), 0);
	assert_int_equal(kvindex_put(&x, KVINDEX_MAX, 1, 0), PD_EBUSY);
	assert_int_equal(kvindex_put(&x, 5, 6, 1), 0);
	assert_true(kvindex_get(&x, 5, &found) && found == 6);
	assert_true(kvindex_remove(&x, 7, 0, &found));
	assert_int_equal(kvindex_put(&x, KVINDEX_MAX, 1, 0), 0);
	kvindex_release(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_a_list),
		cmocka_unit_test(test_it_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
