/*
 * Rank statistics, bootstrap and histogram against golden values of scipy 1.10.1 (mannwhitneyu,
 * permutation_test) and against a brute-force walk over all subsets written here, which shares no
 * code with the table that is tested.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/rng.h"
#include "lib/stats/bootstrap.h"
#include "lib/stats/hist.h"
#include "lib/stats/rank.h"

#define LEN(a) (sizeof(a) / sizeof((a)[0]))

static void near(double found, double expected, double tolerance)
{
	if (!(fabs(found - expected) <= tolerance))
		fail_msg("found %.17g, expected %.17g", found, expected);
}

struct golden {
	double a[6], b[6];
	size_t na, nb;
	double u, p, shift, lo, hi;
};

static const struct golden goldens[] = {
	{{33.06, 32.57, 31.84, 33.32, 32.89},
	 {39.00, 38.42, 38.47, 39.18, 39.05},
	 5,
	 5,
	 25,
	 0.007936507936507936,
	 5.99,
	 5.36,
	 7.16},
	{{1.1, 2.5, 3.3, 4.8}, {2.0, 3.9, 5.1, 6.2}, 4, 4, 12, 0.34285714285714286, 1.4, -2.8, 5.1},
	{{12.5, 9.1, 14.2, 10.7, 11.3, 13.8},
	 {10.9, 15.1, 16.0},
	 6,
	 3,
	 14,
	 0.26190476190476186,
	 2.0,
	 -2.9,
	 6.0},
};

static void golden_values_of_scipy(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(goldens); i++) {
		const struct golden *g = &goldens[i];
		struct rank_test t;
		struct rank_shift s;

		assert_int_equal(rank_mann_whitney(g->a, g->na, g->b, g->nb, &t), 0);
		assert_true(t.exact);
		near(t.u, g->u, 0);
		near(t.p, g->p, 1e-14);
		assert_int_equal(rank_hodges_lehmann(g->a, g->na, g->b, g->nb, 0.05, &s), 0);
		near(s.shift, g->shift, 1e-12);
		assert_true(s.bounded);
		near(s.lo, g->lo, 1e-12);
		near(s.hi, g->hi, 1e-12);
	}
}

static void golden_values_with_ties(void **state)
{
	static const double a1[] = {0, 0, 0, 1}, b1[] = {0, 2, 3, 3};
	static const double a2[] = {1, 1, 2, 2, 3}, b2[] = {2, 2, 3, 4, 4};
	static const double same[] = {5, 5, 5, 5};
	struct rank_test t;

	(void)state;
	assert_int_equal(rank_mann_whitney(a1, 4, b1, 4, &t), 0);
	near(t.u, 13.5, 0);
	near(t.p, 0.14285714285714285, 1e-14);
	assert_int_equal(rank_mann_whitney(a2, 5, b2, 5, &t), 0);
	near(t.u, 20.5, 0);
	near(t.p, 0.14285714285714285, 1e-14);
	assert_int_equal(rank_mann_whitney(same, 4, same, 4, &t), 0);
	near(t.p, 1, 0);
	near(t.effect, 0, 0);
}

static void normal_approximation_above_fifty(void **state)
{
	double a[30], b[31];
	struct rank_test t;
	struct rank_shift s;

	(void)state;
	for (int i = 0; i < 30; i++)
		a[i] = i * 37 % 101;
	for (int i = 0; i < 31; i++)
		b[i] = i * 53 % 97 + 8;
	assert_int_equal(rank_mann_whitney(a, 30, b, 31, &t), 0);
	assert_false(t.exact);
	near(t.u, 500.5, 0);
	near(t.p, 0.6135738217923156, 1e-12);
	assert_int_equal(rank_hodges_lehmann(a, 30, b, 31, 0.05, &s), 0);
	near(s.shift, 4, 0);
	near(s.lo, -12, 0);
	near(s.hi, 20, 0);
}

/* U of the subset `mask` of v against the rest, by counting pairs: no ranks involved. */
static double pairs(const double *v, unsigned n, unsigned mask)
{
	double u = 0;

	for (unsigned i = 0; i < n; i++)
		for (unsigned j = 0; (mask >> i & 1) && j < n; j++)
			if (!(mask >> j & 1))
				u += v[i] > v[j] ? 1 : v[i] < v[j] ? 0 : 0.5;
	return u;
}

static double brute_force(const double *v, unsigned na, unsigned nb)
{
	unsigned n = na + nb, mine = ((1u << nb) - 1) << na;
	double u = pairs(v, n, mine), low = 0, high = 0, all = 0;

	for (unsigned mask = 0; mask < 1u << n; mask++) {
		double other;

		if ((unsigned)__builtin_popcount(mask) != nb)
			continue;
		other = pairs(v, n, mask);
		all++;
		low += other <= u;
		high += other >= u;
	}
	return fmin(1, 2 * fmin(low, high) / all);
}

static void every_small_sample_matches_brute_force(void **state)
{
	struct rng r;

	(void)state;
	rng_seed(&r, 7);
	for (int round = 0; round < 60; round++) {
		unsigned na = 1 + (unsigned)rng_below(&r, 5), nb = 1 + (unsigned)rng_below(&r, 5);
		uint64_t spread = round % 3 == 0 ? 3 : round % 3 == 1 ? 8 : 1000000;
		struct rank_test t;
		double v[10];

		for (unsigned i = 0; i < na + nb; i++)
			v[i] = (double)rng_below(&r, spread);
		assert_int_equal(rank_mann_whitney(v, na, v + na, nb, &t), 0);
		near(t.p, brute_force(v, na, nb), 1e-12);
	}
}

static void smallest_p_and_missing_interval(void **state)
{
	static const double a[] = {1, 2, 3}, b[] = {4, 5, 6};
	struct rank_shift s;

	(void)state;
	near(rank_min_p(3, 3), 0.1, 1e-15);
	near(rank_min_p(4, 4), 2.0 / 70, 1e-15);
	near(rank_min_p(5, 5), 2.0 / 252, 1e-15);
	assert_int_equal(rank_hodges_lehmann(a, 3, b, 3, 0.05, &s), 0);
	assert_false(s.bounded);
	assert_true(isinf(s.lo) && isinf(s.hi));
	near(s.shift, 3, 0);
}

static void hostile_input_is_refused(void **state)
{
	static const double good[] = {1, 2}, bad[] = {1, NAN}, endless[] = {INFINITY, 1};
	struct rank_test t;
	struct rank_shift s;
	double m;

	(void)state;
	assert_int_equal(rank_mann_whitney(good, 0, good, 2, &t), PD_EINVAL);
	assert_int_equal(rank_mann_whitney(good, 2, bad, 2, &t), PD_EINVAL);
	assert_int_equal(rank_mann_whitney(endless, 2, good, 2, &t), PD_EINVAL);
	assert_int_equal(rank_hodges_lehmann(good, 2, good, 2, 0, &s), PD_EINVAL);
	assert_int_equal(rank_hodges_lehmann(good, 2, good, 2, NAN, &s), PD_EINVAL);
	assert_int_equal(rank_median(good, RANK_RUNS_MAX + 1, &m), PD_EINVAL);
	assert_int_equal(rank_median(good, 2, &m), 0);
	near(m, 1.5, 0);
}

static int by_value(const void *x, const void *y)
{
	double a = *(const double *)x, b = *(const double *)y;

	return (a > b) - (a < b);
}

static void quantiles_by_selection_equal_sorting(void **state)
{
	struct rng r;

	(void)state;
	rng_seed(&r, 3);
	for (int round = 0; round < 400; round++) {
		size_t n = 1 + (size_t)rng_below(&r, 40), k;
		double q = rng_unit(&r), v[40], sorted[40], at, want;

		for (size_t i = 0; i < n; i++)
			sorted[i] = v[i] = (double)rng_below(&r, round % 2 ? 5 : 1000);
		qsort(sorted, n, sizeof(*sorted), by_value);
		at = q * (double)(n - 1);
		k = (size_t)at;
		want = sorted[k];
		if (k + 1 < n)
			want += (sorted[k + 1] - sorted[k]) * (at - (double)k);
		near(bootstrap_stat(v, n, q), want, 1e-9);
	}
}

static void bootstrap_covers_the_truth(void **state)
{
	double a[400], b[400];
	struct bootstrap_interval ci, again;
	struct rng r;

	(void)state;
	rng_seed(&r, 5);
	for (size_t i = 0; i < 400; i++) {
		a[i] = 30 + rng_normal(&r);
		b[i] = 36 + rng_normal(&r);
	}
	assert_int_equal(bootstrap_change((struct bootstrap_series){a, 400},
					  (struct bootstrap_series){b, 400}, BOOTSTRAP_MEAN, 0.05,
					  1, &ci),
			 0);
	assert_true(ci.lo > 0.18 && ci.lo < 0.2 && ci.hi > 0.2 && ci.hi < 0.22);
	assert_int_equal(bootstrap_change((struct bootstrap_series){a, 400},
					  (struct bootstrap_series){b, 400}, BOOTSTRAP_MEAN, 0.05,
					  1, &again),
			 0);
	near(again.lo, ci.lo, 0);
	memset(a, 0, sizeof(a));
	assert_int_equal(bootstrap_change((struct bootstrap_series){a, 400},
					  (struct bootstrap_series){b, 400}, 0.5, 0.05, 1, &ci),
			 PD_EINVAL);
	assert_int_equal(bootstrap_change((struct bootstrap_series){b, 1},
					  (struct bootstrap_series){b, 400}, 0.5, 0.05, 1, &ci),
			 PD_EINVAL);
	assert_int_equal(bootstrap_block(1000), 10);
	assert_int_equal(bootstrap_block(1001), 11);
	assert_int_equal(bootstrap_block(1), 1);
}

static double width(const double *a, const double *b)
{
	struct bootstrap_interval ci;

	assert_int_equal(bootstrap_change((struct bootstrap_series){a, 400},
					  (struct bootstrap_series){b, 400}, BOOTSTRAP_MEAN, 0.05,
					  1, &ci),
			 0);
	return ci.hi - ci.lo;
}

/* Requests that come slow in batches carry less information than the same values shuffled: the
 * interval must be wider, whichever side they are on. */
static void dependence_widens_the_interval(void **state)
{
	double batches[400], shuffled[400], flat[400];
	struct rng r;

	(void)state;
	rng_seed(&r, 13);
	for (size_t i = 0; i < 400; i++) {
		batches[i] = i % 8 ? batches[i - 1] : 30 + 5 * rng_normal(&r);
		flat[i] = 30;
	}
	for (size_t i = 0; i < 400; i++)
		shuffled[i] = batches[i * 163 % 400];
	assert_true(width(batches, flat) > 1.6 * width(shuffled, flat));
	assert_true(width(flat, batches) > 1.6 * width(flat, shuffled));
}

/* Neighbours stay together: in a resample of 0..n-1 nearly every step is +1 (modulo n). */
static void blocks_keep_neighbours(void **state)
{
	double v[1000], out[1000];
	size_t steps = 0;
	struct rng r;

	(void)state;
	rng_seed(&r, 9);
	for (size_t i = 0; i < 1000; i++)
		v[i] = (double)i;
	bootstrap_resample(&r, (struct bootstrap_series){v, 1000}, 10, out);
	for (size_t i = 0; i + 1 < 1000; i++)
		steps += (size_t)out[i + 1] == ((size_t)out[i] + 1) % 1000;
	assert_in_range(steps, 900, 910);
}

static void histogram_error_is_bounded(void **state)
{
	static struct hist h, part;
	struct rng r;

	(void)state;
	rng_seed(&r, 11);
	for (int round = 0; round < 2000; round++) {
		uint64_t v = rng_u64(&r) >> rng_below(&r, 64), got;

		hist_init(&h);
		hist_add(&h, v);
		hist_add(&h, UINT64_MAX);
		got = hist_quantile(&h, 0.5);
		assert_true(got >= v);
		assert_true(got - v <= v / HIST_SUB);
		assert_true(hist_quantile(&h, 1) == UINT64_MAX);
	}
	hist_init(&h);
	hist_init(&part);
	assert_true(hist_quantile(&h, 0.99) == 0);
	for (uint64_t i = 1; i <= 100; i++)
		hist_add(i % 2 ? &h : &part, i);
	hist_merge(&h, &part);
	assert_true(h.count == 100 && h.min == 1 && h.max == 100);
	assert_true(hist_quantile(&h, 0.5) == 50 && hist_quantile(&h, 0.99) == 99);
	assert_true(hist_quantile(&h, 0) == 1);
	near(hist_mean(&h), 50.5, 1e-12);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_values_of_scipy),
		cmocka_unit_test(golden_values_with_ties),
		cmocka_unit_test(normal_approximation_above_fifty),
		cmocka_unit_test(every_small_sample_matches_brute_force),
		cmocka_unit_test(smallest_p_and_missing_interval),
		cmocka_unit_test(hostile_input_is_refused),
		cmocka_unit_test(quantiles_by_selection_equal_sorting),
		cmocka_unit_test(bootstrap_covers_the_truth),
		cmocka_unit_test(blocks_keep_neighbours),
		cmocka_unit_test(dependence_widens_the_interval),
		cmocka_unit_test(histogram_error_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
