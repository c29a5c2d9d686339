/* The circuit breaker: its table, and random histories against its promises. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "lib/router/fleet/fleet.h"

static const struct breaker_limits limits = {.failures = 3, .successes = 2, .timeout = 100};

static enum breaker_state after(const char *story, const struct breaker_limits *l)
{
	struct breaker b;
	int64_t now = 0;

	/* s, f, n: success, failure, none; upper case: of the trial; '.': the timeout passes. */
	breaker_init(&b);
	for (const char *p = story; *p; p++, now++) {
		bool trial = *p >= 'A' && *p <= 'Z';
		int c = trial ? *p + 32 : *p;

		if (c == '.')
			(void)breaker_tick(&b, l, now += l->timeout);
		else
			breaker_report(&b, l,
				       c == 's'	  ? VERDICT_SUCCESS
				       : c == 'f' ? VERDICT_FAILURE
						  : VERDICT_NONE,
				       trial, now);
	}
	return b.state;
}

static void follows_its_table(void **state)
{
	static const struct {
		const char *story;
		enum breaker_state end;
	} rows[] = {
		{"", BREAKER_CLOSED},
		{"ff", BREAKER_CLOSED},
		{"fff", BREAKER_OPEN},
		{"ffsff", BREAKER_CLOSED}, /* in a row */
		{"ffnf", BREAKER_OPEN},	   /* no verdict: as if it had not been */
		{"nnnnnnn", BREAKER_CLOSED},
		{"fffsss", BREAKER_OPEN}, /* old requests say nothing while it is open */
		{"fffffff", BREAKER_OPEN},
		{"fff.", BREAKER_HALF_OPEN},
		{"fff.S", BREAKER_HALF_OPEN},
		{"fff.SS", BREAKER_CLOSED},
		{"fff.F", BREAKER_OPEN},
		{"fff.SF", BREAKER_OPEN},
		{"fff.N", BREAKER_HALF_OPEN},
		{"fff.SNS", BREAKER_CLOSED},
		{"fff.ssss", BREAKER_HALF_OPEN}, /* old successes do not close it */
		{"fff.ffff", BREAKER_HALF_OPEN}, /* old failures do not open it */
		{"fff.F.SS", BREAKER_CLOSED},
		{"fff.SSff", BREAKER_CLOSED}, /* closed again: a new count */
		{"fff.SSfff", BREAKER_OPEN},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (after(rows[i].story, &limits) != rows[i].end)
			fail_msg("after '%s': %s, expected %s", rows[i].story,
				 breaker_state_name(after(rows[i].story, &limits)),
				 breaker_state_name(rows[i].end));
}

static void opens_for_its_whole_time(void **state)
{
	struct breaker b;

	(void)state;
	breaker_init(&b);
	for (int i = 0; i < 3; i++)
		breaker_report(&b, &limits, VERDICT_FAILURE, false, 1000);
	assert_false(breaker_tick(&b, &limits, 1099));
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_true(breaker_tick(&b, &limits, 1100));
	assert_false(breaker_tick(&b, &limits, 1300));
	assert_int_equal(b.transitions[BREAKER_CLOSED][BREAKER_OPEN], 1);
	assert_int_equal(b.transitions[BREAKER_OPEN][BREAKER_HALF_OPEN], 1);
}

static void stays_closed_when_off(void **state)
{
	struct breaker_limits off = limits;

	(void)state;
	off.off = true;
	assert_int_equal(after("ffffffffffffffff", &off), BREAKER_CLOSED);
}

/* -- the worker around it: permits -- */

static void worker_setup(struct worker *w)
{
	*w = (struct worker){.healthy = true, .addrs.n = 1};
	assert_int_equal(pthread_mutex_init(&w->lock, NULL), 0);
	assert_int_equal(http_pool_init(&w->pool, 4, NS_PER_S), PD_OK);
	breaker_init(&w->breaker);
	atomic_store(&w->slot.available, true);
	atomic_store(&w->quiet, true);
}

static void worker_teardown(struct worker *w)
{
	http_pool_release(&w->pool);
	(void)pthread_mutex_destroy(&w->lock);
}

/* What route_decide does with a worker's slot. */
static bool take_permit(struct worker *w, bool *trial)
{
	uint32_t one = 1;

	*trial = false;
	if (atomic_load(&w->slot.available))
		return true;
	*trial = atomic_compare_exchange_strong(&w->slot.permits, &one, 0);
	return *trial;
}

/* Whatever happens in whatever order, at most one trial runs, and a permit is never lost. */
static void one_trial_at_a_time(void **state)
{
	struct router_config c;
	struct rng rng;
	unsigned trials_seen = 0;

	(void)state;
	router_config_default(&c);
	c.cb_failures = 2;
	c.cb_successes = 2;
	c.cb_timeout = 50;
	c.health_failures = c.health_successes = 1;
	rng_seed(&rng, 7);
	for (int round = 0; round < 200; round++) {
		struct worker w;
		bool running[64];
		unsigned n = 0, trials = 0;
		int64_t now = 1;

		worker_setup(&w);
		for (int step = 0; step < 400; step++, now += 10) {
			bool trial;
			unsigned pick = n ? (unsigned)(rng_u64(&rng) % n) : 0;
			enum breaker_verdict v = (enum breaker_verdict)(rng_u64(&rng) % 3);

			switch (rng_u64(&rng) % 8) {
			case 0:
			case 1:
			case 2:
				if (n < 64 && take_permit(&w, &trial)) {
					running[n++] = trial;
					trials += trial;
					trials_seen += trial;
				}
				break;
			case 3:
			case 4:
			case 5:
				if (n == 0)
					break;
				trials -= running[pick];
				worker_report(&w, &c, v, running[pick], now);
				running[pick] = running[--n];
				break;
			case 6:
				worker_set_draining(&w, rng_u64(&rng) % 2);
				worker_tick(&w, &c, now);
				break;
			default:
				worker_probed(&w, &c, rng_u64(&rng) % 3 > 0, true, now);
				worker_tick(&w, &c, now);
			}
			assert_true(trials <= 1);
			assert_true(atomic_load(&w.slot.permits) + trials <= 1);
			if (w.breaker.state == BREAKER_HALF_OPEN && w.healthy && !w.draining)
				assert_int_equal(atomic_load(&w.slot.permits) + trials, 1);
			assert_true(
				atomic_load(&w.slot.available) ==
				(w.breaker.state == BREAKER_CLOSED && w.healthy && !w.draining));
		}
		worker_teardown(&w);
	}
	assert_true(trials_seen > 500);
}

static void ejection_needs_one_good_probe(void **state)
{
	struct router_config c;
	int64_t limit;
	struct worker w;

	(void)state;
	router_config_default(&c);
	worker_setup(&w);
	worker_eject(&w, 1000);
	assert_false(atomic_load(&w.slot.available));
	assert_false(worker_probe_due(&w, &c, 1000, &limit));
	assert_true(worker_probe_due(&w, &c, 1000 + NS_PER_S, &limit));
	worker_probe_later(&w, &c, 1000); /* our own fault: nothing is concluded */
	assert_false(atomic_load(&w.slot.available));
	worker_probed(&w, &c, false, true, 2000);
	assert_false(atomic_load(&w.slot.available));
	worker_probed(&w, &c, true, true, 3000);
	assert_true(atomic_load(&w.slot.available));
	assert_int_equal(atomic_load(&w.ejections), 1);
	/* An ordinary failed probe needs its threshold, and as many good ones. */
	for (unsigned i = 0; i < c.health_failures; i++) {
		assert_true(atomic_load(&w.slot.available));
		worker_probed(&w, &c, false, true, 4000);
	}
	assert_false(atomic_load(&w.slot.available));
	for (unsigned i = 0; i < c.health_successes; i++) {
		assert_false(atomic_load(&w.slot.available));
		worker_probed(&w, &c, true, true, 5000);
	}
	assert_true(atomic_load(&w.slot.available));
	worker_teardown(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(follows_its_table),
		cmocka_unit_test(opens_for_its_whole_time),
		cmocka_unit_test(stays_closed_when_off),
		cmocka_unit_test(one_trial_at_a_time),
		cmocka_unit_test(ejection_needs_one_good_probe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
