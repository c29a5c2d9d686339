/*
 * Bootstrap of the change between runs that have their per-request values. Blocks of neighbouring
 * requests are drawn together so that the dependence of neighbours survives (Kuensch 1989; blocks
 * side by side for long series, Carlstein 1986). With several runs on a side runs are drawn first
 * and blocks inside them (Davison and Hinkley 1997, section 3.8). What a single run cannot show,
 * its distance from the next run, is added as a spread that the caller assumes.
 *
 * Everything is log(new / base). Pure functions of their arguments and the seed, thread-safe. Work
 * is bounded for any length: BOOTSTRAP_DRAWS draws of at most BOOTSTRAP_EXACT values or 512 blocks;
 * half as many draws when a run is longer than BOOTSTRAP_LONG.
 */
#ifndef PD_STATS_BOOTSTRAP_H
#define PD_STATS_BOOTSTRAP_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/rng.h"

#define BOOTSTRAP_DRAWS	     2000
#define BOOTSTRAP_EXACT	     512 /* up to so many values a quantile is of the values drawn */
#define BOOTSTRAP_LONG	     65536
#define BOOTSTRAP_VALUES_MAX ((size_t)1 << 28)

enum bootstrap_stat {
	BOOTSTRAP_MEAN,
	BOOTSTRAP_QUANTILE, /* linear interpolation */
	BOOTSTRAP_RATE	    /* sum of weight over sum of v: a throughput from gaps */
};

/* One run, in the order of sending; finite values. */
struct bootstrap_series {
	const double *v;
	const double *weight; /* BOOTSTRAP_RATE: as long as v; NULL counts 1 each */
	size_t n;
};

struct bootstrap_draws {
	double *v; /* owned; ascending log ratios */
	size_t n;
	double estimate; /* log ratio of the sides as they are */
};

/* Block length for a series of n values whose neighbours correlate by rho (-1..1): the cube root of
 * n times (2 rho / (1 - rho^2))^(2/3), at least the cube root, at most n / 8. 0 for 0. */
size_t bootstrap_block(size_t n, double rho);

/* Mean, or the quantile q with linear interpolation. Reorders v. n >= 1. */
double bootstrap_mean(const double *v, size_t n);
double bootstrap_quantile(double *v, size_t n, double q);

/*
 * Draws the change from side a to side b. A side's value is the mean of the logs of its runs'
 * statistics. `run_spread` is the assumed deviation of a run's log (0.025: 2.5 %), with fewer than
 * 4 runs on a side added to what these runs show. PD_EINVAL: a run with fewer than 2 values or too
 * many, or a statistic that is not above 0. Released with bootstrap_release.
 */
int bootstrap_change(const struct bootstrap_series *a, size_t na, const struct bootstrap_series *b,
		     size_t nb, enum bootstrap_stat stat, double q, double run_spread,
		     uint64_t seed, struct bootstrap_draws *out) PD_MUST;
void bootstrap_release(struct bootstrap_draws *d);

/* One-sided p of "not beyond limit" and the bound at a level; direction +1: above, -1: below. */
double bootstrap_p(const struct bootstrap_draws *d, double limit, int direction);
double bootstrap_bound(const struct bootstrap_draws *d, double level, int direction);

#endif
