/* Who of a pool may be picked: random histories of its workers against the promises of rotation.h.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "lib/router/fleet/fleet.h"

#define WORKERS 5

static struct router_config config;

static void begin(struct fleet_holder *h, struct worker **w, unsigned n)
{
	struct fleet_config fc = {0};
	struct pd_msg msg;
	char text[64];

	for (int r = 0; r < ROLES; r++)
		fc.policy[r] = route_spec_of(route_policy_find(SPAN("random")));
	for (unsigned i = 0; i < n; i++) {
		(void)snprintf(text, sizeof(text), "w%u=http://127.0.0.1:%u", i, i + 1);
		assert_int_equal(worker_list_add(&fc.workers, ROLE_REGULAR, text, 1, &msg), PD_OK);
	}
	assert_int_equal(fleet_holder_init(h), PD_OK);
	assert_int_equal(fleet_load(h, &config, &fc, &msg), PD_OK);
	worker_list_release(&fc.workers);
	for (unsigned i = 0; i < n; i++)
		w[i] = h->now->pool[ROLE_REGULAR].worker[i];
}

static bool in(const struct worker *w)
{
	return atomic_load(&w->slot.available);
}

static void failures(struct worker *w, unsigned times)
{
	while (times-- > 0)
		worker_report(w, &config, VERDICT_FAILURE, false, 1000);
}

static void a_pool_of_one_never_closes(void **state)
{
	struct fleet_holder h;
	struct worker *w;

	(void)state;
	begin(&h, &w, 1);
	failures(w, config.cb_failures);
	assert_true(in(w) && w->breaker.state == BREAKER_OPEN);
	assert_true(atomic_load(&h.rotation[ROLE_REGULAR].panic));
	/* In a panic successes close it, without a trial. */
	for (unsigned i = 0; i < config.cb_successes; i++)
		worker_report(w, &config, VERDICT_SUCCESS, false, 2000);
	assert_true(in(w) && w->breaker.state == BREAKER_CLOSED);
	assert_false(atomic_load(&h.rotation[ROLE_REGULAR].panic));
	assert_int_equal(atomic_load(&h.rotation[ROLE_REGULAR].panics), 1);
	/* Who cannot be reached is out all the same. */
	worker_eject(w, 3000);
	assert_false(in(w));
	fleet_holder_release(&h);
}

static void half_of_a_pool_is_out_at_most(void **state)
{
	struct fleet_holder h;
	struct worker *w[4];

	(void)state;
	begin(&h, w, 4);
	failures(w[0], config.cb_failures);
	failures(w[1], config.cb_failures);
	assert_true(!in(w[0]) && !in(w[1]) && in(w[2]) && in(w[3]));
	/* One of the others dies: two of three that can be reached would be out. */
	worker_eject(w[2], 2000);
	assert_true(in(w[0]) && in(w[1]) && !in(w[2]) && in(w[3]));
	worker_eject(w[3], 2000);
	assert_true(in(w[0]) && in(w[1]) && !in(w[2]) && !in(w[3]));
	fleet_holder_release(&h);
}

static void a_pause_is_kept_while_others_are_awake(void **state)
{
	struct fleet_holder h;
	struct worker *w[2];

	(void)state;
	begin(&h, w, 2);
	worker_rest(w[0], 5000);
	assert_true(!in(w[0]) && in(w[1]));
	worker_rest(w[1], 6000);
	assert_true(in(w[0]) && in(w[1]));
	worker_tick(w[0], &config, 4999);
	worker_rest(w[0], 1); /* a shorter one changes nothing */
	assert_int_equal(w[0]->rest_until, 5000);
	worker_tick(w[0], &config, 5000);
	assert_true(in(w[0]) && !in(w[1]));
	worker_tick(w[1], &config, 6000);
	assert_true(in(w[0]) && in(w[1]));
	fleet_holder_release(&h);
}

/* Whatever happens in whatever order. */
static void random_histories(void **state)
{
	struct fleet_holder h;
	struct worker *w[WORKERS];
	struct rng rng;
	unsigned panics = 0;

	(void)state;
	rng_seed(&rng, 11);
	begin(&h, w, WORKERS);
	for (int64_t now = 1; now < 40000; now++) {
		struct worker *one = w[rng_u64(&rng) % WORKERS];
		unsigned usable = 0, open = 0, awake = 0, may = 0;
		bool panic;

		switch (rng_u64(&rng) % 8) {
		case 0:
			worker_eject(one, now);
			break;
		case 1:
		case 2:
			worker_probed(one, &config, true, true, now);
			break;
		case 3:
			worker_rest(one, now + (int64_t)(rng_u64(&rng) % 20));
			break;
		case 4:
			worker_set_draining(one, rng_u64(&rng) % 4 == 0);
			break;
		case 5:
			worker_tick(one, &config, now);
			break;
		case 6:
			failures(one, config.cb_failures);
			break;
		default:
			worker_report(one, &config, VERDICT_SUCCESS, false, now);
		}
		for (unsigned i = 0; i < WORKERS; i++) {
			bool reach = w[i]->healthy && !w[i]->draining,
			     closed = w[i]->breaker.state == BREAKER_CLOSED;

			usable += reach;
			open += reach && !closed;
			awake += reach && closed && w[i]->rest_until == 0;
			may += in(w[i]);
			assert_true(!in(w[i]) || reach);
		}
		panic = atomic_load(&h.rotation[ROLE_REGULAR].panic);
		assert_true(panic == (2 * open > usable));
		assert_true((may > 0) == (usable > 0));
		for (unsigned i = 0; i < WORKERS; i++)
			if (in(w[i]) && !panic)
				assert_true(w[i]->breaker.state == BREAKER_CLOSED &&
					    (awake == 0 || w[i]->rest_until == 0));
		panics += panic;
	}
	assert_true(panics > 1000 && panics < 39000);
	fleet_holder_release(&h);
}

static void *worry(void *arg)
{
	struct worker *w = arg;

	for (int64_t now = 1; now < 3000; now++) {
		failures(w, config.cb_failures);
		worker_rest(w, now + 2);
		worker_eject(w, now);
		worker_probed(w, &config, true, true, now);
		worker_report(w, &config, VERDICT_SUCCESS, false, now);
		worker_tick(w, &config, now);
	}
	for (int i = 0; i < 10; i++) {
		worker_probed(w, &config, true, true, 1000000);
		worker_report(w, &config, VERDICT_SUCCESS, false, 1000000);
		worker_tick(w, &config, 1000000 + i * (config.cb_timeout + 1));
	}
	return NULL;
}

static void many_at_once(void **state)
{
	struct fleet_holder h;
	struct worker *w[WORKERS];
	pthread_t thread[WORKERS];

	(void)state;
	begin(&h, w, WORKERS);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, worry, w[i]), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		(void)pthread_join(thread[i], NULL);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(in(w[i]),
				 w[i]->healthy && (w[i]->breaker.state == BREAKER_CLOSED ||
						   atomic_load(&h.rotation[ROLE_REGULAR].panic)));
	fleet_holder_release(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pool_of_one_never_closes),
		cmocka_unit_test(half_of_a_pool_is_out_at_most),
		cmocka_unit_test(a_pause_is_kept_while_others_are_awake),
		cmocka_unit_test(random_histories),
		cmocka_unit_test(many_at_once),
	};

	router_config_default(&config);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
