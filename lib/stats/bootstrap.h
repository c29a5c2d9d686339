/*
 * Moving-block bootstrap for one run with its per-request values: an indication, never a proof,
 * because requests of one run share queues and caches. Blocks of neighbouring requests are drawn
 * together so that short-range dependence survives (Kuensch 1989); the series is taken as a circle
 * so that every request is equally likely. The statistic is the relative change of a mean or a
 * quantile. Pure functions of their arguments and the seed.
 */
#ifndef PD_STATS_BOOTSTRAP_H
#define PD_STATS_BOOTSTRAP_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/rng.h"

#define BOOTSTRAP_MEAN (-1.0) /* instead of a quantile in [0, 1] */

struct bootstrap_series {
	const double *v; /* in the order of sending; finite */
	size_t n;
};

struct bootstrap_interval {
	double lo, hi; /* of stat(b) / stat(a) - 1 */
	size_t resamples;
};

/* The usual block length: the cube root of n, rounded up. 0 for 0. */
size_t bootstrap_block(size_t n);

/* Fills out[0..n) with a resample of s.v. */
void bootstrap_resample(struct rng *r, struct bootstrap_series s, size_t block, double *out);

/* Mean, or the quantile q with linear interpolation. Reorders v. n >= 1. */
double bootstrap_stat(double *v, size_t n, double q);

/*
 * The 1 - alpha percentile interval of the relative change from a to b. Work is bounded: 2,000
 * resamples, fewer (at least 200) when the series are long. PD_EINVAL: fewer than 2 values on a
 * side, more than 2^24, a base of zero.
 */
int bootstrap_change(struct bootstrap_series a, struct bootstrap_series b, double q, double alpha,
		     uint64_t seed, struct bootstrap_interval *out) PD_MUST;

#endif
