#include "sim/simstats.h"

#include <math.h>
#include <stdlib.h>

void balance_of(const uint64_t *load, size_t n, struct balance *out)
{
	double sum = 0, squares = 0, variance = 0;

	*out = (struct balance){0};
	if (n == 0)
		return;
	out->min = (double)load[0];
	for (size_t i = 0; i < n; i++) {
		double x = (double)load[i];

		sum += x;
		squares += x * x;
		out->max = x > out->max ? x : out->max;
		out->min = x < out->min ? x : out->min;
		out->idle += load[i] == 0;
	}
	if (sum <= 0)
		return;
	out->mean = sum / (double)n;
	for (size_t i = 0; i < n; i++)
		variance += ((double)load[i] - out->mean) * ((double)load[i] - out->mean);
	out->peak_to_mean = out->max / out->mean;
	out->cv = sqrt(variance / (double)n) / out->mean;
	out->jain = sum * sum / ((double)n * squares);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

double sorted_percentile(const double *value, size_t n, double p)
{
	double rank, part;
	size_t low;

	if (n == 0)
		return 0;
	rank = p / 100.0 * (double)(n - 1);
	low = (size_t)rank;
	if (low + 1 >= n)
		return value[n - 1];
	part = rank - (double)low;
	return value[low] + (value[low + 1] - value[low]) * part;
}

void spread_of(double *value, size_t n, struct spread *out)
{
	double sum = 0, variance = 0;

	*out = (struct spread){.n = n};
	if (n == 0)
		return;
	qsort(value, n, sizeof(*value), by_value);
	for (size_t i = 0; i < n; i++)
		sum += value[i];
	out->mean = sum / (double)n;
	for (size_t i = 0; i < n; i++)
		variance += (value[i] - out->mean) * (value[i] - out->mean);
	out->std = sqrt(variance / (double)n);
	out->median = sorted_percentile(value, n, 50);
	out->p90 = sorted_percentile(value, n, 90);
	out->p95 = sorted_percentile(value, n, 95);
	out->p99 = sorted_percentile(value, n, 99);
	out->max = value[n - 1];
}
