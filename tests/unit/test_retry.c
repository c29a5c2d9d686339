/* Backoff, Retry-After, the statuses and the budget of retries. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>

#include "lib/base/clock.h"
#include "lib/http/head.h"
#include "lib/router/way/retry.h"

static void backoff_is_the_formula(void **state)
{
	static const int64_t ms[] = {50, 75, 112, 168, 253};
	struct router_config c;
	struct rng rng;

	(void)state;
	router_config_default(&c);
	rng_seed(&rng, 1);
	c.retry_jitter = 0;
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(retry_backoff(&c, i, &rng) / NS_PER_MS, ms[i]);
	/* Capped, also when the power overflows everything. */
	assert_int_equal(retry_backoff(&c, 40, &rng), c.retry_cap);
	assert_int_equal(retry_backoff(&c, 100000, &rng), c.retry_cap);
}

static void jitter_stays_in_its_band(void **state)
{
	struct router_config c;
	struct rng rng;
	int64_t low = INT64_MAX, high = 0;

	(void)state;
	router_config_default(&c);
	rng_seed(&rng, 2);
	for (int i = 0; i < 10000; i++) {
		int64_t d = retry_backoff(&c, 1, &rng);

		low = d < low ? d : low;
		high = d > high ? d : high;
	}
	assert_true(low >= 60 * NS_PER_MS && low < 61 * NS_PER_MS);
	assert_true(high <= 90 * NS_PER_MS && high > 89 * NS_PER_MS);
	c.retry_jitter = 1;
	for (int i = 0; i < 1000; i++)
		assert_true(retry_backoff(&c, 0, &rng) >= 0);
}

static void statuses(void **state)
{
	(void)state;
	for (int s = 100; s < 600; s++)
		assert_int_equal(retry_status(s), s == 408 || s == 429 || s == 500 || s == 502 ||
							  s == 503 || s == 504);
}

static void retry_after_is_seconds(void **state)
{
	static const struct {
		const char *text;
		int64_t seconds;
	} rows[] = {
		{"", 0},
		{"0", 0},
		{"7", 7},
		{"007", 7},
		{"-1", 0},
		{"1.5", 0},
		{"3600", 3600},
		{"99999999999999999999999", 3600},
		{"soon", 0},
		{"5 ", 0},
		/* Against Wed, 21 Oct 2026 07:28:00 GMT. */
		{"Wed, 21 Oct 2026 07:28:09 GMT", 9},
		{"Wednesday, 21-Oct-26 07:29:00 GMT", 60},
		{"Wed Oct 21 07:28:03 2026", 3},
		{"Wed, 21 Oct 2026 07:28:00 GMT", 0},
		{"Wed, 21 Oct 2026 07:27:59 GMT", 0},
		{"Wed, 21 Oct 2027 07:28:00 GMT", 3600},
		{"Wed, 21 Oct 2026 07:28:09 CEST", 0},
		{"Wed, 21 Oct 2026 07:28:09 GMT and something that is much longer", 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(
			http_retry_after(span_of(rows[i].text), INT64_C(1792567680) * NS_PER_S),
			rows[i].seconds * NS_PER_S);
}

static void budget_is_spent_and_earned(void **state)
{
	struct retry_budget b;
	unsigned spent = 0;

	(void)state;
	retry_budget_init(&b, 0.5);
	while (retry_budget_spend(&b))
		spent++;
	assert_int_equal(spent, RETRY_BUDGET_START);
	retry_budget_earn(&b);
	assert_false(retry_budget_spend(&b));
	retry_budget_earn(&b);
	assert_true(retry_budget_spend(&b));
	assert_false(retry_budget_spend(&b));
	for (int i = 0; i < 100000; i++)
		retry_budget_earn(&b);
	for (spent = 0; retry_budget_spend(&b);)
		spent++;
	assert_in_range(spent, RETRY_BUDGET_START, RETRY_BUDGET_START + 1);
	retry_budget_init(&b, 0);
	for (int i = 0; i < RETRY_BUDGET_START; i++)
		assert_true(retry_budget_spend(&b));
	retry_budget_earn(&b);
	assert_false(retry_budget_spend(&b));
}

static void *spender(void *arg)
{
	struct retry_budget *b = arg;
	uintptr_t spent = 0;

	for (int i = 0; i < 2000; i++) {
		retry_budget_earn(b);
		spent += retry_budget_spend(b);
	}
	return (void *)spent;
}

/* 8 threads can never spend more than was there and was earned. */
static void budget_under_threads(void **state)
{
	struct retry_budget b;
	pthread_t t[8];
	uintptr_t total = 0;
	void *got;

	(void)state;
	retry_budget_init(&b, 0.1);
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&t[i], NULL, spender, &b), 0);
	for (int i = 0; i < 8; i++) {
		(void)pthread_join(t[i], &got);
		total += (uintptr_t)got;
	}
	assert_in_range(total, RETRY_BUDGET_START, RETRY_BUDGET_START + 1600);
	assert_true(atomic_load(&b.milli) >= 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(backoff_is_the_formula),
		cmocka_unit_test(jitter_stays_in_its_band),
		cmocka_unit_test(statuses),
		cmocka_unit_test(retry_after_is_seconds),
		cmocka_unit_test(budget_is_spent_and_earned),
		cmocka_unit_test(budget_under_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
