/* Tokenizer and text of the simulated model: determinism, splitting, round trips; and the table of
 * leases. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine/tokens.h"
#include "sim/worker/leases.h"

static size_t count(const char *text)
{
	struct tokens t;
	size_t n;

	tokens_init(&t, 1000);
	assert_int_equal(tokens_add_text(&t, text, strlen(text)), PD_OK);
	n = t.n;
	tokens_release(&t);
	return n;
}

static void test_splitting(void **state)
{
	(void)state;
	assert_int_equal(count(""), 0);
	assert_int_equal(count("word"), 1);
	assert_int_equal(count("two words"), 2);
	assert_int_equal(count("lengthy"), 2);
	assert_int_equal(count("a  b"), 3);
	assert_int_equal(count("a, b!\n"), 5);
	assert_int_equal(count(" "), 1);
	assert_int_equal(count("caf\xc3\xa9"), 1);
}

/* The ids are part of what tests and captured traffic may compare, so they never change. */
static void test_ids_are_fixed(void **state)
{
	struct tokens t;

	(void)state;
	tokens_init(&t, 10);
	assert_int_equal(tokens_add_text(&t, "hello world", 11), PD_OK);
	assert_int_equal(tokens_add_special(&t, "hello", 5), PD_OK);
	assert_int_equal(t.id[0], 1549982973);
	assert_int_equal(t.id[1], 860598577);
	assert_int_not_equal(t.id[2], t.id[0]);
	tokens_release(&t);
}

static void test_maximum(void **state)
{
	struct tokens t;

	(void)state;
	tokens_init(&t, 2);
	assert_int_equal(tokens_add_text(&t, "a b c", 5), PD_ETOOBIG);
	assert_int_equal(t.n, 2);
	tokens_release(&t);
}

/* Tokenising an answer gives back the ids it was made with. */
static void test_answer_round_trip(void **state)
{
	char text[4096];
	struct tokens t;
	uint32_t want[300];
	size_t len = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		len = 0;
		for (size_t i = 0; i < 300; i++)
			len += tokens_answer(seed * 77, i, text + len, &want[i]);
		assert_int_equal(strlen(text), len);
		tokens_init(&t, 300);
		assert_int_equal(tokens_add_text(&t, text, len), PD_OK);
		assert_int_equal(t.n, 300);
		assert_memory_equal(t.id, want, sizeof(want));
		tokens_release(&t);
	}
}

static void test_answers_differ(void **state)
{
	const uint32_t a[3] = {1, 2, 3}, b[3] = {1, 2, 4};
	char x[TOKEN_TEXT_MAX], y[TOKEN_TEXT_MAX];
	size_t same = 0;

	(void)state;
	for (size_t i = 1; i < 200; i++) {
		size_t n = tokens_answer(tokens_seed(a, 3), i, x, NULL);

		assert_int_equal(n, strlen(x));
		assert_true(n < TOKEN_TEXT_MAX);
		(void)tokens_answer(tokens_seed(b, 3), i, y, NULL);
		same += strcmp(x, y) == 0;
	}
	assert_true(same < 5);
}

static struct lease *add(struct lease_table *t, const char *id, int64_t expires)
{
	static const uint32_t block[1] = {7};
	const struct lease_blocks held = {.block = block, .n = 1};

	return leases_add(t, span_of(id), SPAN("x"), expires, &held);
}

static void test_leases(void **state)
{
	struct lease_table *t = calloc(1, sizeof(*t));
	struct lease_blocks pin;
	struct lease *l;

	(void)state;
	leases_init(t);
	assert_non_null(add(t, "a", 10));
	assert_non_null(add(t, "b", 20));
	assert_null(leases_find(t, SPAN("c")));
	assert_null(leases_due(t, 9));
	l = leases_due(t, 10);
	assert_string_equal(l->request_id, "a");
	leases_end(t, l, LEASE_EXPIRED, &pin);
	assert_int_equal(pin.n, 1);
	assert_null(leases_due(t, 19));
	assert_int_equal(leases_find(t, SPAN("a"))->state, LEASE_EXPIRED);
	assert_int_equal(leases_find(t, SPAN("b"))->state, LEASE_LIVE);
	leases_release(t);
	free(t);
}

static void test_leases_are_bounded(void **state)
{
	struct lease_table *t = calloc(1, sizeof(*t));
	struct lease_blocks pin;
	struct lease *l;
	char id[32];

	(void)state;
	leases_init(t);
	for (int i = 0; i < LEASES_MAX + 100; i++) {
		(void)snprintf(id, sizeof(id), "r%d", i);
		assert_non_null(add(t, id, INT64_MAX));
		if (i % 2 == 0)
			leases_end(t, leases_find(t, span_of(id)), LEASE_READ, &pin);
	}
	assert_true(t->live.n + t->dead.n <= LEASES_MAX);
	assert_null(leases_find(t, SPAN("r0")));
	assert_non_null(leases_find(t, SPAN("r1")));
	/* Live ones beyond the maximum are due at once, oldest first. */
	for (int i = 0; t->live.n <= LEASES_MAX; i++) {
		(void)snprintf(id, sizeof(id), "more%d", i);
		assert_non_null(add(t, id, INT64_MAX));
	}
	l = leases_due(t, 0);
	assert_non_null(l);
	assert_string_equal(l->request_id, "r1");
	leases_release(t);
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_splitting),
		cmocka_unit_test(test_ids_are_fixed),
		cmocka_unit_test(test_maximum),
		cmocka_unit_test(test_answer_round_trip),
		cmocka_unit_test(test_answers_differ),
		cmocka_unit_test(test_leases),
		cmocka_unit_test(test_leases_are_bounded),
	};

	return cmocka_run_group_tests_name("tokens", tests, NULL, NULL);
}
