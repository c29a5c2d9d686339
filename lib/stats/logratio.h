/*
 * The change between two handfuls of runs as a ratio, on logarithms: a change of a latency or a
 * throughput is a factor, and logs of run means are close to normal where the values themselves are
 * skewed. Welch's t for two samples (1947), Student's for pairs. Pure functions, thread-safe.
 * Everything is log(new / base): 0 is no change.
 */
#ifndef PD_STATS_LOGRATIO_H
#define PD_STATS_LOGRATIO_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

struct logratio {
	double shift; /* mean log of b minus mean log of a */
	double se;    /* standard error of it; 0 when nothing varies */
	double df;    /* degrees of freedom; infinite when se is 0 */
	double sd[2]; /* deviation of the logs of each side (pairs: of the differences, both) */
	size_t n[2];  /* runs of each side */
	bool paired;
};

/* PD_EINVAL: fewer than 2 values on a side, or one that is not above 0 and finite. */
int logratio_welch(const double *a, size_t na, const double *b, size_t nb,
		   struct logratio *out) PD_MUST;
/* Run i of a with run i of b. */
int logratio_paired(const double *a, const double *b, size_t n, struct logratio *out) PD_MUST;

/* One-sided p of "the true shift is not above `limit`" (direction +1) or "not below" (-1): small
 * when the runs contradict it. */
double logratio_p(const struct logratio *r, double limit, int direction);
/* The bound that the true shift exceeds with confidence 1 - level: the lower one for direction +1,
 * the upper for -1. */
double logratio_bound(const struct logratio *r, double level, int direction);
/* The smallest true shift (a distance, >= 0, beyond `limit`) that a test of this level against
 * `limit` finds with this probability, with the spread that was seen. */
double logratio_detectable(const struct logratio *r, double level, double power);
/* Runs per side with which a true shift `distance` beyond the limit is found with this probability;
 * 0 when 1,000 are not enough or distance is not positive. At least `least`. */
size_t logratio_runs_needed(const struct logratio *r, double distance, double level, double power,
			    size_t least);

#endif
