#include "sim/figures/balance.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/stats/summary.h"

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

double balance_as_written(double v)
{
	char text[40];

	if (!isfinite(v))
		return v;
	(void)snprintf(text, sizeof(text), "%.15g", v);
	return strtod(text, NULL);
}

void spread_take(double **value, size_t n, struct spread *out)
{
	struct summary sum;

	summary_sort(*value, n);
	sum = summary_of(*value, n);
	*out = (struct spread){.n = n,
			       .mean = sum.mean,
			       .median = sum.median,
			       .std = sum.std,
			       .p90 = summary_percentile(*value, n, 90),
			       .p95 = summary_percentile(*value, n, 95),
			       .p99 = summary_percentile(*value, n, 99),
			       .max = sum.max};
	free(*value);
	*value = NULL;
}
