/* The expectations of the shipped scenarios find a policy that does not do what its name says. Each
 * case runs a scenario as it is, and with the decisions of one policy made by another one's code.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim/figures/expect.h"
#include "sim/scenario/scenario.h"

static size_t missed(const char *file, const char *policy, const char *does)
{
	struct pd_msg msg = {.text = ""};
	struct scenario *s;
	struct expect_results r;
	struct experiment_spec spec;
	struct simtrace t;
	struct arms arms;
	size_t n;

	if (scenario_load(&s, file, &msg))
		fail_msg("%s", msg.text);
	spec = *scenario_spec(s);
	assert_int_equal(plan_arms(&spec.plan, &arms, &msg), PD_OK);
	for (size_t i = 0; does && i < arms.n; i++)
		for (size_t p = 0; p < arms.arm[i].cfg.npools; p++)
			if (strcmp(arms.arm[i].policy, policy) == 0)
				assert_int_equal(route_spec_parse(&arms.arm[i].cfg.pool[p].policy,
								  does, NULL, &msg),
						 PD_OK);
	simtrace_init(&t, 0);
	assert_int_equal(shape_make(spec.shape, spec.plan.seed, &t, &msg), PD_OK);
	assert_int_equal(arms_run(&arms, &t, &msg), PD_OK);
	assert_int_equal(expect_evaluate(spec.expect, spec.nexpect, &arms, &r, &msg), PD_OK);
	n = r.missed;
	expect_results_release(&r);
	simtrace_release(&t);
	arms_release(&arms);
	scenario_free(s);
	return n;
}

static void breaks(const char *file, const char *policy, const char *does)
{
	assert_int_equal(missed(file, policy, NULL), 0);
	assert_int_not_equal(missed(file, policy, does), 0);
}

/* A hash over the present number of workers: nearly all keys move when one joins. */
static void test_rendezvous_that_counts_workers(void **state)
{
	(void)state;
	breaks("scenarios/scale-out.yaml", "rendezvous_hash", "modulo");
}

/* Keys are not looked at. */
static void test_hash_that_forgets_the_key(void **state)
{
	(void)state;
	breaks("scenarios/consistent-hash-pd.yaml", "consistent_hash", "random");
}

/* Load is not looked at. */
static void test_least_request_that_sees_no_load(void **state)
{
	(void)state;
	breaks("scenarios/few-sessions.yaml", "least_request", "random");
}

/* The home is never left, however loaded it is. */
static void test_bound_that_does_not_hold(void **state)
{
	(void)state;
	breaks("scenarios/hot-session.yaml", "bounded_hash", "consistent_hash");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rendezvous_that_counts_workers),
		cmocka_unit_test(test_hash_that_forgets_the_key),
		cmocka_unit_test(test_least_request_that_sees_no_load),
		cmocka_unit_test(test_bound_that_does_not_hold),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
