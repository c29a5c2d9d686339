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
#include "lib/stats/summary.h"

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
		near(bootstrap_quantile(v, n, q), want, 1e-9);
	}
}

/* 95 % interval of the change, as a log. */
static void interval(const double *a, size_t na, const double *b, size_t nb,
		     enum bootstrap_stat stat, double q, double *lo, double *hi)
{
	const struct bootstrap_series base = {a, NULL, na}, now = {b, NULL, nb};
	struct bootstrap_draws d;

	assert_int_equal(bootstrap_change(&base, 1, &now, 1, stat, q, 0, 1, &d), 0);
	for (size_t i = 1; i < d.n; i++)
		assert_true(d.v[i - 1] <= d.v[i]);
	*lo = bootstrap_bound(&d, 0.025, 1);
	*hi = bootstrap_bound(&d, 0.025, -1);
	assert_true(*lo <= d.estimate && d.estimate <= *hi);
	bootstrap_release(&d);
}

static void bootstrap_covers_the_truth(void **state)
{
	static double a[3000], b[3000];
	const double truth = log(36.0 / 30);
	double lo, hi, again;
	struct rng r;

	(void)state;
	rng_seed(&r, 5);
	for (size_t i = 0; i < 3000; i++) {
		a[i] = 30 + rng_normal(&r);
		b[i] = 36 + rng_normal(&r);
	}
	interval(a, 400, b, 400, BOOTSTRAP_MEAN, 0, &lo, &hi);
	assert_true(lo > truth - 0.02 && lo < truth && hi > truth && hi < truth + 0.02);
	interval(a, 400, b, 400, BOOTSTRAP_MEAN, 0, &again, &hi);
	near(again, lo, 0);
	/* the short way, and the one with cells, of quantiles */
	interval(a, 400, b, 400, BOOTSTRAP_QUANTILE, 0.5, &lo, &hi);
	assert_true(lo > truth - 0.02 && lo < truth && hi > truth && hi < truth + 0.02);
	for (int k = 0; k < 3; k++) {
		static const double q[] = {0.5, 0.9, 0.99};
		static const double z[] = {0, 1.2815515655446004, 2.3263478740408408};
		double change = log((36 + z[k]) / (30 + z[k]));

		interval(a, 3000, b, 3000, BOOTSTRAP_QUANTILE, q[k], &lo, &hi);
		assert_true(lo > change - 0.02 && lo < change && hi > change && hi < change + 0.02);
	}
	assert_int_equal(bootstrap_block(1000, 0), 10);
	assert_int_equal(bootstrap_block(1001, 0), 11);
	assert_int_equal(bootstrap_block(1, 0), 1);
	assert_true(bootstrap_block(1000, 0.9) > 25 && bootstrap_block(1000, 0.999) == 125);
}

/* Both ways to a quantile agree on the same values. */
static void cells_agree_with_selection(void **state)
{
	static double a[600], b[600];
	double lo[2], hi[2];
	struct rng r;

	(void)state;
	rng_seed(&r, 17);
	for (size_t i = 0; i < 600; i++) {
		a[i] = exp(0.3 * rng_normal(&r));
		b[i] = exp(0.3 * rng_normal(&r) + 0.1);
	}
	interval(a, 512, b, 512, BOOTSTRAP_QUANTILE, 0.9, &lo[0], &hi[0]);
	interval(a, 513, b, 513, BOOTSTRAP_QUANTILE, 0.9, &lo[1], &hi[1]);
	near(lo[0], lo[1], 0.05);
	near(hi[0], hi[1], 0.05);
}

static void what_has_no_logarithm_is_refused(void **state)
{
	static const double zero[] = {0, 0, 0}, some[] = {1, 2, 3};
	const struct bootstrap_series a = {zero, NULL, 3}, b = {some, NULL, 3},
				      one = {some, NULL, 1};
	struct bootstrap_draws d;

	(void)state;
	assert_int_equal(bootstrap_change(&a, 1, &b, 1, BOOTSTRAP_MEAN, 0, 0, 1, &d), PD_EINVAL);
	assert_int_equal(bootstrap_change(&b, 1, &a, 1, BOOTSTRAP_MEAN, 0, 0, 1, &d), PD_EINVAL);
	assert_int_equal(bootstrap_change(&b, 1, &one, 1, BOOTSTRAP_MEAN, 0, 0, 1, &d), PD_EINVAL);
	assert_int_equal(bootstrap_change(&b, 0, &b, 1, BOOTSTRAP_MEAN, 0, 0, 1, &d), PD_EINVAL);
	assert_int_equal(bootstrap_change(&b, 1, &b, 1, BOOTSTRAP_QUANTILE, 2, 0, 1, &d),
			 PD_EINVAL);
}

static double width(const double *a, const double *b)
{
	double lo, hi;

	interval(a, 400, b, 400, BOOTSTRAP_MEAN, 0, &lo, &hi);
	return hi - lo;
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

/* Runs that lie apart widen the interval more than requests alone would; an assumed spread does so
 * for single runs, and a rate is a count over gaps. */
static void runs_and_assumed_spread_count(void **state)
{
	static double v[6][200];
	struct bootstrap_series near_runs[3], far_runs[3], gaps = {v[0], NULL, 200};
	struct bootstrap_draws d;
	double near_width, far_width, plain;
	struct rng r;

	(void)state;
	rng_seed(&r, 23);
	for (size_t k = 0; k < 6; k++)
		for (size_t i = 0; i < 200; i++)
			v[k][i] = (k < 3 ? 30 : 28 + 2 * (double)(k - 3)) + rng_normal(&r);
	for (size_t k = 0; k < 3; k++) {
		near_runs[k] = (struct bootstrap_series){v[k], NULL, 200};
		far_runs[k] = (struct bootstrap_series){v[3 + k], NULL, 200};
	}
	assert_int_equal(bootstrap_change(near_runs, 3, near_runs, 3, BOOTSTRAP_MEAN, 0, 0, 1, &d),
			 0);
	near_width = bootstrap_bound(&d, 0.1, -1) - bootstrap_bound(&d, 0.1, 1);
	bootstrap_release(&d);
	assert_int_equal(bootstrap_change(near_runs, 3, far_runs, 3, BOOTSTRAP_MEAN, 0, 0, 1, &d),
			 0);
	far_width = bootstrap_bound(&d, 0.1, -1) - bootstrap_bound(&d, 0.1, 1);
	bootstrap_release(&d);
	assert_true(far_width > 4 * near_width);
	assert_int_equal(bootstrap_change(&gaps, 1, &gaps, 1, BOOTSTRAP_RATE, 0, 0, 1, &d), 0);
	plain = bootstrap_p(&d, 0.01, -1);
	near(d.estimate, 0, 1e-12);
	bootstrap_release(&d);
	assert_int_equal(bootstrap_change(&gaps, 1, &gaps, 1, BOOTSTRAP_RATE, 0, 0.1, 1, &d), 0);
	assert_true(plain < 0.05 && bootstrap_p(&d, 0.01, -1) > 0.3);
	bootstrap_release(&d);
}

/* Long arrays are sorted byte by byte: the order of doubles, negative ones and zeros included. */
static void long_arrays_are_sorted(void **state)
{
	static double v[5000], want[5000];
	struct rng r;

	(void)state;
	rng_seed(&r, 31);
	for (size_t i = 0; i < 5000; i++)
		v[i] = want[i] =
			i % 7 == 0 ? 0 : ldexp(rng_normal(&r), (int)rng_below(&r, 80) - 40);
	v[17] = want[17] = -0.0;
	v[18] = want[18] = -INFINITY;
	v[19] = want[19] = INFINITY;
	qsort(want, 5000, sizeof(*want), by_value);
	summary_sort(v, 5000);
	for (size_t i = 0; i < 5000; i++)
		assert_true(v[i] == want[i]);
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
		cmocka_unit_test(cells_agree_with_selection),
		cmocka_unit_test(what_has_no_logarithm_is_refused),
		cmocka_unit_test(runs_and_assumed_spread_count),
		cmocka_unit_test(long_arrays_are_sorted),
		cmocka_unit_test(dependence_widens_the_interval),
		cmocka_unit_test(histogram_error_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
