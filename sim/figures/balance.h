/*
 * The figures of a replay that are about balance and about distributions. Pure functions.
 */
#ifndef PD_SIM_FIGURES_BALANCE_H
#define PD_SIM_FIGURES_BALANCE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* How evenly a load is spread over the workers. All zero when n is 0 or the load is 0. */
struct balance {
	double mean, max, min;
	double peak_to_mean; /* max / mean; 1 is perfect */
	double cv;	     /* population standard deviation / mean */
	double jain;   /* (sum x)^2 / (n * sum x^2); 1 is perfect, 1/n: one worker has everything */
	uint32_t idle; /* workers with no load */
};

void balance_of(const uint64_t *load, size_t n, struct balance *out);

/* Of a set of latencies in milliseconds; percentiles by linear interpolation between order
 * statistics. */
struct spread {
	size_t n;
	double mean, median, std, p90, p95, p99, max;
};

/* The number that a JSON document of 15 digits holds for this one. What is compared between arms is
 * rounded so, and comes out the same when it is read from documents. */
double balance_as_written(double v);

/* Sorts (*value)[0..n), frees it and sets it to NULL. */
void spread_take(double **value, size_t n, struct spread *out);

#endif
