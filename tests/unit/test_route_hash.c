/* The hashes against values computed by other implementations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/route/hash.h"

struct vector {
	const char *text;
	uint64_t murmur;
	uint32_t furc;
	uint64_t fbi;
};

/* Published values of vllm-router 0.1.17; the last four reach the rare branches of furc. */
static const struct vector golden[] = {
	{"", 0x4d408de62dee109a, 6173600, 0xc0663e029346e424},
	{"a", 0x3d6961c699914c7b, 7695180, 0x29d1ab12ec5fea11},
	{"request:", 0x8c010f980365af20, 2268526, 0x13b2f1ae12a8b5ab},
	{"http://w1:8000:0", 0xc7335c5ef26a7009, 2343105, 0x33f2d09e5831d9e2},
	{"http://w1:8000:159", 0x03113b90a30c1463, 389731, 0x47f6163f2919e23c},
	{"http://127.0.0.1:8000@3:7", 0x5e8558c3234734c0, 2224289, 0x051eec8033ac7882},
	{"header:x-session-id:session-123", 0x505631d1e2fd7069, 5820447, 0x1a62ce16fc8f5516},
	{"session:abc", 0x5606a3723829b48c, 1571008, 0x48af9c6d1f5cbc96},
	{"user:alice", 0x2efaeaa910d1b5ee, 7338526, 0xccb3ce7850815e85},
	{"header:x-session-id:193172", 0x3d03501b07000001, 1, 0x2bc9a566104875d8},
	{"header:x-session-id:10515516", 0x0c50be941f000000, 0, 0x6fbc031ec8190908},
	{"header:x-session-id:1518067", 0xb82145bd71b1703d, 1514915, 0xc237c88e78ca6748},
	{"header:x-session-id:7093675", 0xaa8a61c86cc374e0, 4064203, 0x9a5188e4dbcb28db},
	{"s0:http://w1:8000", 0, 0, 0xd8f664f2b18e2c3d},
	{"s0:http://w2:8000", 0, 0, 0x51ceaca874075909},
	{"s0:http://w3:8000", 0, 0, 0xd63886f2167e654f},
	{"s1:http://w1:8000", 0, 0, 0x7e978b40a9e2c057},
	{"s1:http://w2:8000", 0, 0, 0x991e39fdfe776eb5},
	{"s1:http://w3:8000", 0, 0, 0x3549f25ca649df18},
};

static void test_golden(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
		const struct vector *v = &golden[i];
		size_t n = strlen(v->text);

		assert_int_equal(route_fbi_hash(v->text, n), v->fbi);
		assert_int_equal(route_hash(ROUTE_HASH_FBI, v->text, n), v->fbi);
		if (v->murmur == 0)
			continue; /* only the last column is known */
		assert_int_equal(route_murmur64a(v->text, n, ROUTE_FBI_SEED), v->murmur);
		assert_int_equal(route_furc(v->text, n, 8388607), v->furc);
	}
}

/* rehash is murmur of the 8 little-endian bytes of a word. */
static void test_rehash(void **state)
{
	(void)state;
	assert_int_equal(route_murmur64a("\0\0\0\0\0\0\0\0", 8, ROUTE_FBI_SEED),
			 0x7f127f55af25855d);
	assert_int_equal(route_murmur64a("\1\0\0\0\0\0\0\0", 8, ROUTE_FBI_SEED),
			 0x3650aac745960306);
}

static void test_furc_range(void **state)
{
	static const uint32_t sizes[] = {2, 3, 5, 8, 9, 100, 8388607, 8388608, 0xFFFFFFFF};
	unsigned hits[5] = {0};

	(void)state;
	assert_int_equal(route_furc("x", 1, 0), 0);
	assert_int_equal(route_furc("x", 1, 1), 0);
	for (uint32_t key = 0; key < 20000; key++) {
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			assert_true(route_furc(&key, sizeof(key), sizes[i]) < sizes[i]);
		hits[route_furc(&key, sizeof(key), 5)]++;
	}
	/* Testing bit 0 at depth 0 moves half of the zeros to one, which does not matter for large
	 * ranges. */
	assert_in_range(hits[0], 1700, 2300);
	assert_in_range(hits[1], 5600, 6400);
	for (size_t i = 2; i < 5; i++)
		assert_in_range(hits[i], 3600, 4400);
}

/* Published test values of XXH3 with seed 0, so that a ring can be rebuilt by other programs. */
static void test_xxh3(void **state)
{
	(void)state;
	assert_int_equal(route_hash(ROUTE_HASH_XXH3, "", 0), 0x2d06800538d394c2);
	assert_int_equal(route_hash(ROUTE_HASH_XXH3, "abc", 3), 0x78af5f94892f3950);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_rehash),
		cmocka_unit_test(test_furc_range),
		cmocka_unit_test(test_xxh3),
	};

	return cmocka_run_group_tests_name("route_hash", tests, NULL, NULL);
}
