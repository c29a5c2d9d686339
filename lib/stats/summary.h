/*
 * Mean, deviation and percentiles of an array, with numpy's definitions: linear interpolation
 * between the two nearest ranks, deviation of the population (divided by n). Pure functions of
 * their arguments, thread-safe. Values must be finite.
 */
#ifndef PD_STATS_SUMMARY_H
#define PD_STATS_SUMMARY_H

#include <stddef.h>

struct summary {
	size_t n;
	double mean, std, min, median, max; /* NaN when n is 0 */
};

/* Sorts v ascending, in place. */
void summary_sort(double *v, size_t n);
/* Percentile p (0..100) of ascending values; NaN when n is 0. */
double summary_percentile(const double *sorted, size_t n, double p);
/* Of ascending values. Sums are compensated (Neumaier 1974), so the order of a long list does not
 * show. */
struct summary summary_of(const double *sorted, size_t n);

#endif
