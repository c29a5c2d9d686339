/*
 * The sum is compensated (Neumaier), because means of a million small gaps beside a few long ones
 * must not depend on their order.
 */
#include "lib/stats/summary.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void summary_sort(double *v, size_t n)
{
	if (n > 1)
		qsort(v, n, sizeof(*v), ascending);
}

double summary_percentile(const double *sorted, size_t n, double p)
{
	double rank, part;
	size_t i;

	if (n == 0)
		return NAN;
	rank = p / 100 * (double)(n - 1);
	if (!(rank > 0))
		return sorted[0];
	i = (size_t)rank;
	if (i >= n - 1)
		return sorted[n - 1];
	part = rank - (double)i;
	return sorted[i] + (sorted[i + 1] - sorted[i]) * part;
}

struct sum {
	double total, rest;
};

static void sum_add(struct sum *s, double x)
{
	double t = s->total + x;

	s->rest += fabs(s->total) >= fabs(x) ? (s->total - t) + x : (x - t) + s->total;
	s->total = t;
}

struct summary summary_of(const double *sorted, size_t n)
{
	struct summary out = {n, NAN, NAN, NAN, NAN, NAN};
	struct sum total = {0}, squares = {0};

	if (n == 0)
		return out;
	for (size_t i = 0; i < n; i++)
		sum_add(&total, sorted[i]);
	out.mean = (total.total + total.rest) / (double)n;
	for (size_t i = 0; i < n; i++)
		sum_add(&squares, (sorted[i] - out.mean) * (sorted[i] - out.mean));
	out.std = sqrt((squares.total + squares.rest) / (double)n);
	out.min = sorted[0];
	out.max = sorted[n - 1];
	out.median = summary_percentile(sorted, n, 50);
	return out;
}
