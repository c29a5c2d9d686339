/*
 * Why the exact distribution with ties: CI users have 4 to 10 runs per side, where the normal
 * approximation is wrong by more than the alpha people choose, and counters such as `failed` tie
 * all the time. Midranks are multiples of one half, so doubled midranks are integers and "how many
 * subsets of size k have the rank sum s" is a small table (at most 50 x 2,550 entries). The counts
 * stay below C(50, 25) < 2^53 and are exact in a double.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/stats/rank.h"

static int by_value(const void *x, const void *y)
{
	double a = *(const double *)x, b = *(const double *)y;

	return (a > b) - (a < b);
}

static bool usable(const double *v, size_t n)
{
	if (n == 0 || n > RANK_RUNS_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isfinite(v[i]))
			return false;
	return true;
}

/* Median of a sorted array. */
static double middle(const double *v, size_t n)
{
	return n % 2 ? v[n / 2] : v[n / 2 - 1] / 2 + v[n / 2] / 2;
}

int rank_median(const double *v, size_t n, double *out)
{
	double *copy;

	if (!usable(v, n))
		return PD_EINVAL;
	copy = malloc(n * sizeof(*copy));
	if (!copy)
		return PD_ENOMEM;
	memcpy(copy, v, n * sizeof(*copy));
	qsort(copy, n, sizeof(*copy), by_value);
	*out = middle(copy, n);
	free(copy);
	return PD_OK;
}

/*
 * ways[s] = number of subsets of `take` elements of rank2[0..n) with sum s, for s <= sum of all.
 * The caller frees; NULL when out of memory.
 */
static double *subset_sums(const size_t *rank2, size_t n, size_t take, size_t total)
{
	size_t width = total + 1;
	double *table = calloc((take + 1) * width, sizeof(*table));

	if (!table)
		return NULL;
	table[0] = 1;
	for (size_t i = 0; i < n; i++)
		for (size_t k = i + 1 < take ? i + 1 : take; k > 0; k--)
			for (size_t s = total; s >= rank2[i]; s--)
				table[k * width + s] += table[(k - 1) * width + s - rank2[i]];
	memmove(table, table + take * width, width * sizeof(*table));
	return table;
}

struct pooled {
	double value;
	bool second;
};

static int by_pooled(const void *x, const void *y)
{
	return by_value(&((const struct pooled *)x)->value, &((const struct pooled *)y)->value);
}

struct ranks {
	size_t *rank2; /* doubled midranks of the sorted pool */
	size_t sum2;   /* their sum over the second sample */
	double ties;   /* sum of t^3 - t over groups of equal values */
};

static void rank_pool(const struct pooled *pool, size_t n, struct ranks *r)
{
	r->sum2 = 0;
	r->ties = 0;
	for (size_t i = 0, j; i < n; i = j) {
		double t;

		for (j = i + 1; j < n && !(pool[i].value < pool[j].value);)
			j++;
		t = (double)(j - i);
		r->ties += t * t * t - t;
		for (size_t k = i; k < j; k++) {
			r->rank2[k] = i + 1 + j;
			r->sum2 += pool[k].second ? r->rank2[k] : 0;
		}
	}
}

static int exact_p(const struct ranks *r, size_t n, size_t nb, double *p)
{
	size_t total = n * (n + 1);
	double all = 0, low = 0, high = 0;
	double *ways = subset_sums(r->rank2, n, nb, total);

	if (!ways)
		return PD_ENOMEM;
	for (size_t s = 0; s <= total; s++) {
		all += ways[s];
		low += s <= r->sum2 ? ways[s] : 0;
		high += s >= r->sum2 ? ways[s] : 0;
	}
	free(ways);
	*p = fmin(1.0, 2 * fmin(low, high) / all);
	return PD_OK;
}

static double normal_p(double u, double na, double nb, double ties)
{
	double n = na + nb;
	double var = na * nb / 12 * (n + 1 - ties / (n * (n - 1)));
	double z;

	if (var <= 0)
		return 1;
	z = (fabs(u - na * nb / 2) - 0.5) / sqrt(var);
	return z <= 0 ? 1 : fmin(1.0, erfc(z / M_SQRT2));
}

int rank_mann_whitney(const double *a, size_t na, const double *b, size_t nb, struct rank_test *out)
{
	size_t n = na + nb;
	struct pooled *pool;
	struct ranks r;
	int err = PD_OK;

	if (!usable(a, na) || !usable(b, nb))
		return PD_EINVAL;
	pool = calloc(n, sizeof(*pool));
	r.rank2 = calloc(n, sizeof(*r.rank2));
	if (!pool || !r.rank2) {
		err = PD_ENOMEM;
		goto out;
	}
	for (size_t i = 0; i < n; i++)
		pool[i] = (struct pooled){i < na ? a[i] : b[i - na], i >= na};
	qsort(pool, n, sizeof(*pool), by_pooled);
	rank_pool(pool, n, &r);
	out->u = (double)r.sum2 / 2 - (double)(nb * (nb + 1)) / 2;
	out->effect = 2 * out->u / (double)(na * nb) - 1;
	out->exact = n <= RANK_EXACT_MAX;
	if (out->exact)
		err = exact_p(&r, n, nb, &out->p);
	else
		out->p = normal_p(out->u, (double)na, (double)nb, r.ties);
out:
	free(pool);
	free(r.rank2);
	return err;
}

double rank_min_p(size_t na, size_t nb)
{
	double p = 2;

	for (size_t i = 1; i <= na; i++)
		p *= (double)i / (double)(nb + i);
	return fmin(p, 1.0);
}

/* x with P(Z > x) = tail, by bisection: called once per metric, precision matters more than speed.
 */
static double normal_upper(double tail)
{
	double lo = 0, hi = 40;

	for (int i = 0; i < 200; i++) {
		double mid = (lo + hi) / 2;

		if (erfc(mid / M_SQRT2) / 2 > tail)
			lo = mid;
		else
			hi = mid;
	}
	return hi;
}

/* The largest k with P(U <= k - 1) <= tail without ties: the interval runs from the k-th to the
 * k-th last difference. */
static int critical_exact(size_t na, size_t nb, double tail, size_t *k)
{
	size_t n = na + nb, total = n * (n + 1), base = nb * (nb + 1);
	size_t rank2[RANK_EXACT_MAX];
	double all = 0, sum = 0;
	double *ways;

	for (size_t i = 0; i < n; i++)
		rank2[i] = 2 * (i + 1);
	ways = subset_sums(rank2, n, nb, total);
	if (!ways)
		return PD_ENOMEM;
	for (size_t s = 0; s <= total; s++)
		all += ways[s];
	for (*k = 0; *k < na * nb; ++*k) {
		sum += ways[base + 2 * *k];
		if (sum / all > tail)
			break;
	}
	free(ways);
	return PD_OK;
}

static int critical(size_t na, size_t nb, double tail, size_t *k)
{
	double pairs = (double)na * (double)nb, n = (double)(na + nb);
	double at;

	if (na + nb <= RANK_EXACT_MAX)
		return critical_exact(na, nb, tail, k);
	at = floor(pairs / 2 - normal_upper(tail) * sqrt(pairs * (n + 1) / 12));
	*k = at < 0 ? 0 : (size_t)at;
	return PD_OK;
}

int rank_hodges_lehmann(const double *a, size_t na, const double *b, size_t nb, double alpha,
			struct rank_shift *out)
{
	size_t n = na * nb, k;
	double *diff;
	int err;

	if (!usable(a, na) || !usable(b, nb) || !(alpha > 0 && alpha < 1))
		return PD_EINVAL;
	diff = malloc(n * sizeof(*diff));
	if (!diff)
		return PD_ENOMEM;
	for (size_t i = 0; i < na; i++)
		for (size_t j = 0; j < nb; j++)
			diff[i * nb + j] = b[j] - a[i];
	qsort(diff, n, sizeof(*diff), by_value);
	out->shift = middle(diff, n);
	out->lo = -INFINITY;
	out->hi = INFINITY;
	err = critical(na, nb, alpha / 2, &k);
	out->bounded = !err && k > 0;
	if (out->bounded) {
		out->lo = diff[k - 1];
		out->hi = diff[n - k];
	}
	free(diff);
	return err;
}
