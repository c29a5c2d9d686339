/*
 * Rank statistics for a handful of benchmark runs: Mann-Whitney U and the Hodges-Lehmann shift with
 * its confidence interval. No normality is assumed; one outlier run cannot fake or hide a
 * difference. Pure functions, thread-safe; memory O(na * nb), at most RANK_RUNS_MAX values per
 * side. Values must be finite. Sources: Mann and Whitney 1947; Hodges and Lehmann 1963; Hollander
 * and Wolfe, Nonparametric Statistical Methods.
 */
#ifndef PD_STATS_RANK_H
#define PD_STATS_RANK_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

#define RANK_RUNS_MAX 1024 /* values per side */
#define RANK_EXACT_MAX                                                                             \
	50 /* na + nb up to which the permutation distribution is computed exactly, ties included  \
	    */

struct rank_test {
	double u;      /* pairs in which b is larger than a, a tie counting one half */
	double p;      /* two-sided: twice the smaller tail, at most 1 */
	double effect; /* rank-biserial correlation, -1 (all b below a) to +1 (all b above a) */
	bool exact; /* false: normal approximation with tie correction and continuity correction */
};

/* PD_EINVAL when a side is empty, too long or not finite; PD_ENOMEM. */
int rank_mann_whitney(const double *a, size_t na, const double *b, size_t nb,
		      struct rank_test *out) PD_MUST;

/* The smallest two-sided p that samples of these sizes can reach: 2 / C(na + nb, na). */
double rank_min_p(size_t na, size_t nb);

struct rank_shift {
	double shift;  /* median of all differences b - a */
	double lo, hi; /* confidence interval of at least 1 - alpha; infinite when `bounded` is
			  false */
	bool bounded;  /* false: too few values for an interval at this alpha */
};

/* 0 < alpha < 1, otherwise PD_EINVAL; other errors as above. */
int rank_hodges_lehmann(const double *a, size_t na, const double *b, size_t nb, double alpha,
			struct rank_shift *out) PD_MUST;

/* The median of n >= 1 values; PD_ENOMEM or PD_EINVAL. The values are not changed. */
int rank_median(const double *v, size_t n, double *out) PD_MUST;

#endif
