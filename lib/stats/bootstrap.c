/* Quantiles by selection instead of sorting: a resample needs one order statistic (and its
 * neighbour), not all. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "lib/stats/bootstrap.h"

#define RESAMPLES_MAX 2000
#define RESAMPLES_MIN 200
#define WORK_MAX      40000000u /* values touched in one call, roughly */
#define VALUES_MAX    ((size_t)1 << 24)

size_t bootstrap_block(size_t n)
{
	return n == 0 ? 0 : (size_t)ceil(cbrt((double)n) - 1e-9);
}

void bootstrap_resample(struct rng *r, struct bootstrap_series s, size_t block, double *out)
{
	size_t filled = 0;

	while (filled < s.n) {
		size_t at = (size_t)rng_below(r, s.n);

		for (size_t i = 0; i < block && filled < s.n; i++)
			out[filled++] = s.v[(at + i) % s.n];
	}
}

static void swap(double *a, double *b)
{
	double t = *a;

	*a = *b;
	*b = t;
}

/* Hoare's FIND: afterwards v[k] is what sorting would put there, nothing before it is larger,
 * nothing after smaller. */
static double select_nth(double *v, size_t n, size_t nth)
{
	ptrdiff_t k = (ptrdiff_t)nth, lo = 0, hi = (ptrdiff_t)n - 1;

	while (lo < hi) {
		double pivot = v[k];
		ptrdiff_t i = lo, j = hi;

		do {
			while (v[i] < pivot)
				i++;
			while (pivot < v[j])
				j--;
			if (i <= j)
				swap(&v[i++], &v[j--]);
		} while (i <= j);
		if (j < k)
			lo = i;
		if (k < i)
			hi = j;
	}
	return v[k];
}

double bootstrap_stat(double *v, size_t n, double q)
{
	double at, low, next, sum = 0;
	size_t k;

	if (q < 0) {
		for (size_t i = 0; i < n; i++)
			sum += v[i];
		return sum / (double)n;
	}
	at = q * (double)(n - 1);
	k = (size_t)at;
	low = select_nth(v, n, k);
	if (k + 1 >= n)
		return low;
	next = v[k + 1];
	for (size_t i = k + 2; i < n; i++)
		next = fmin(next, v[i]);
	return low + (next - low) * (at - (double)k);
}

static int by_value(const void *x, const void *y)
{
	double a = *(const double *)x, b = *(const double *)y;

	return (a > b) - (a < b);
}

static size_t resamples_for(size_t n)
{
	size_t fit = WORK_MAX / n;

	return fit > RESAMPLES_MAX ? RESAMPLES_MAX : fit < RESAMPLES_MIN ? RESAMPLES_MIN : fit;
}

/* Fills change[]; returns false when a resampled base is zero. */
static bool draw_changes(struct bootstrap_series a, struct bootstrap_series b, double q,
			 uint64_t seed, double *work, double *change, size_t count)
{
	size_t block_a = bootstrap_block(a.n), block_b = bootstrap_block(b.n);
	struct rng r;

	rng_seed(&r, seed);
	for (size_t i = 0; i < count; i++) {
		double base, now;

		bootstrap_resample(&r, a, block_a, work);
		base = bootstrap_stat(work, a.n, q);
		bootstrap_resample(&r, b, block_b, work);
		now = bootstrap_stat(work, b.n, q);
		if (!(fabs(base) > 0))
			return false;
		change[i] = (now - base) / fabs(base);
	}
	return true;
}

int bootstrap_change(struct bootstrap_series a, struct bootstrap_series b, double q, double alpha,
		     uint64_t seed, struct bootstrap_interval *out)
{
	size_t longest = a.n > b.n ? a.n : b.n, count;
	double *work, *change;
	int err = PD_ENOMEM;

	if (a.n < 2 || b.n < 2 || longest > VALUES_MAX || q > 1 || !(alpha > 0 && alpha < 1))
		return PD_EINVAL;
	count = resamples_for(a.n + b.n);
	work = malloc(longest * sizeof(*work));
	change = malloc(count * sizeof(*change));
	if (!work || !change)
		goto out;
	err = PD_EINVAL;
	if (!draw_changes(a, b, q, seed, work, change, count))
		goto out;
	qsort(change, count, sizeof(*change), by_value);
	out->lo = bootstrap_stat(change, count, alpha / 2);
	out->hi = bootstrap_stat(change, count, 1 - alpha / 2);
	out->resamples = count;
	err = PD_OK;
out:
	free(work);
	free(change);
	return err;
}
