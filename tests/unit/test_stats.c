/*
 * Student's t, changes of runs on logs and rank tests against scipy's answers (golden_stats.h), and
 * what the planning of runs promises: with the runs it asks for, the smallest change that is found
 * is the one that was asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "lib/base/rng.h"
#include "lib/stats/logratio.h"
#include "lib/stats/rank.h"
#include "lib/stats/student.h"
#include "tests/unit/golden_stats.h"

#define LEN(a) (sizeof(a) / sizeof((a)[0]))

static void near(double found, double expected)
{
	if (!(fabs(found - expected) <= 1e-9 * fmax(1, fabs(expected))))
		fail_msg("found %.17g, expected %.17g", found, expected);
}

static void tails_and_quantiles(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(golden_t); i++) {
		const struct golden_t *g = &golden_t[i];

		near(student_upper(g->t, g->df), g->upper);
		near(student_upper(-g->t, g->df), 1 - g->upper);
		near(student_quantile(g->tail, g->df), g->quantile);
	}
	near(normal_quantile(0.025), 1.959963984540054);
	near(normal_upper(1.959963984540054), 0.025);
	near(student_quantile(0.1, INFINITY), 1.2815515655446004);
	assert_true(isinf(student_quantile(0, 5)) && isnan(student_upper(NAN, 5)));
	assert_true(student_upper(INFINITY, 3) == 0 && student_upper(-INFINITY, 3) == 1);
}

static void changes_on_logs(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(golden_ratio); i++) {
		const struct golden_ratio *g = &golden_ratio[i];
		struct logratio r;

		assert_int_equal(logratio_welch(g->a, g->na, g->b, g->nb, &r), 0);
		near(r.shift, g->shift);
		near(r.df, g->df);
		near(logratio_p(&r, g->limit, 1), g->p);
		near(logratio_p(&r, g->limit, -1), 1 - g->p);
		near(logratio_bound(&r, 0.1, 1), g->lower);
		/* the bound is where the test turns */
		near(logratio_p(&r, logratio_bound(&r, 0.1, 1), 1), 0.1);
		near(logratio_p(&r, logratio_bound(&r, 0.1, -1), -1), 0.1);
		if (g->pair_p > 1)
			continue;
		assert_int_equal(logratio_paired(g->a, g->b, g->na, &r), 0);
		near(logratio_p(&r, g->limit, 1), g->pair_p);
	}
}

static void rank_tests(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(golden_rank); i++) {
		const struct golden_rank *g = &golden_rank[i];
		struct rank_test t;

		assert_int_equal(rank_mann_whitney(g->a, g->na, g->b, g->nb, &t), 0);
		near(t.u, g->u);
		near(t.p, g->p);
	}
}

static void odd_input(void **state)
{
	static const double zero[] = {0, 1, 2}, some[] = {1, 2, 4}, same[] = {3, 3, 3},
			    up[] = {6, 6, 6};
	struct logratio r;

	(void)state;
	assert_int_equal(logratio_welch(zero, 3, some, 3, &r), PD_EINVAL);
	assert_int_equal(logratio_paired(some, zero, 3, &r), PD_EINVAL);
	assert_int_equal(logratio_welch(some, 1, some, 3, &r), PD_EINVAL);
	/* without any spread a change is what it is */
	assert_int_equal(logratio_welch(same, 3, up, 3, &r), 0);
	assert_true(r.se == 0 && isinf(r.df));
	assert_true(logratio_p(&r, 0.69, 1) == 0 && logratio_p(&r, 0.7, 1) == 1);
	near(logratio_bound(&r, 0.1, 1), log(2));
	assert_true(logratio_detectable(&r, 0.1, 0.9) == 0);
	assert_int_equal(logratio_runs_needed(&r, 0.05, 0.1, 0.9, 4), 4);
}

/* Runs with the spread that the planning saw: the change it says is found in 9 of 10 is. */
static void what_is_promised_is_found(void **state)
{
	const double sd = 0.03, limit = 0.05, asked = 0.05;
	struct logratio plan = {0, 0, INFINITY, {sd, sd}, {5, 5}, false};
	size_t n = logratio_runs_needed(&plan, asked, 0.1, 0.9, 4), found = 0, loud = 0;
	const int rounds = 4000;
	struct rng rng;

	(void)state;
	assert_in_range(n, 4, 12);
	rng_seed(&rng, 41);
	for (int i = 0; i < rounds; i++) {
		double a[12], b[12], c[12];
		struct logratio r;

		for (size_t k = 0; k < n; k++) {
			a[k] = exp(sd * rng_normal(&rng));
			b[k] = exp(limit + asked + sd * rng_normal(&rng));
			c[k] = exp(limit + sd * rng_normal(&rng));
		}
		assert_int_equal(logratio_welch(a, n, b, n, &r), 0);
		found += logratio_p(&r, limit, 1) <= 0.1;
		assert_int_equal(logratio_welch(a, n, c, n, &r), 0);
		loud += logratio_p(&r, limit, 1) <= 0.1;
	}
	assert_in_range(found, rounds * 87 / 100, rounds * 97 / 100);
	/* and a change of just the limit fails as often as the level says */
	assert_in_range(loud, rounds * 8 / 100, rounds * 12 / 100);
	assert_int_equal(logratio_runs_needed(&plan, 0, 0.1, 0.9, 4), 0);
	assert_int_equal(logratio_runs_needed(&plan, 1e-6, 0.1, 0.9, 4), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tails_and_quantiles),
		cmocka_unit_test(changes_on_logs),
		cmocka_unit_test(rank_tests),
		cmocka_unit_test(odd_input),
		cmocka_unit_test(what_is_promised_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
