/*
 * A run's statistic is drawn many times on its own (log values), then sides are put together from
 * these: which runs, and which of their draws.
 *
 * Means and rates come from prefix sums: a block is two look-ups. Quantiles of short series are
 * selected from the values drawn. For long ones the values near the quantile are cut into cells,
 * each block keeps its counts up to each cell, and a draw adds up counts: one binary search over
 * cells instead of n values.
 */
#include "lib/stats/bootstrap.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/stats/summary.h"

#define BLOCKS_MAX 512 /* in a draw of a long series */
#define CELLS	   128
#define WINDOW	   6.0 /* standard errors on each side of the quantile that the cells cover */
#define FEW_RUNS   4

size_t bootstrap_block(size_t n, double rho)
{
	double block = cbrt((double)n) - 1e-9, longer;

	if (n == 0)
		return 0;
	if (rho > 0) {
		rho = fmin(rho, 0.999);
		longer = block * pow(2 * rho / (1 - rho * rho), 2.0 / 3);
		block = fmax(block, fmin(longer, (double)n / 8));
	}
	return (size_t)ceil(fmax(block, 1e-9));
}

double bootstrap_mean(const double *v, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += v[i];
	return sum / (double)n;
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

double bootstrap_quantile(double *v, size_t n, double q)
{
	double at = q * (double)(n - 1), low, next;
	size_t k = (size_t)at;

	low = select_nth(v, n, k);
	if (k + 1 >= n)
		return low;
	next = v[k + 1];
	for (size_t i = k + 2; i < n; i++)
		next = fmin(next, v[i]);
	return low + (next - low) * (at - (double)k);
}

/* Of a long series its middle tells enough. */
static double neighbour_correlation(const double *v, size_t n)
{
	double mean, with = 0, all = 0;

	if (n > BOOTSTRAP_LONG) {
		v += (n - BOOTSTRAP_LONG) / 2;
		n = BOOTSTRAP_LONG;
	}
	mean = bootstrap_mean(v, n);

	for (size_t i = 0; i < n; i++) {
		all += (v[i] - mean) * (v[i] - mean);
		if (i > 0)
			with += (v[i] - mean) * (v[i - 1] - mean);
	}
	return all > 0 ? with / all : 0;
}

/* -- one run -- */

struct drawing {
	struct bootstrap_series s;
	enum bootstrap_stat stat;
	double q;
	size_t block;
	struct rng rng;
	double *out; /* `count` statistics */
	size_t count;
	double estimate;
};

/* Sums over the series and its repetition, so that a block may run over the end. */
static double *prefix_sums(const double *v, size_t n, size_t more)
{
	double *sum = malloc((n + more + 1) * sizeof(*sum));

	if (!sum)
		return NULL;
	sum[0] = 0;
	for (size_t i = 0; i < n + more; i++)
		sum[i + 1] = sum[i] + (v ? v[i < n ? i : i - n] : 1);
	return sum;
}

/* The statistic of the run as it is: a mean, or a count over gaps. */
static double whole(const struct drawing *d)
{
	double weight = 0;

	if (d->stat == BOOTSTRAP_MEAN || !d->s.weight)
		return d->stat == BOOTSTRAP_MEAN ? bootstrap_mean(d->s.v, d->s.n)
						 : 1 / bootstrap_mean(d->s.v, d->s.n);
	for (size_t i = 0; i < d->s.n; i++)
		weight += d->s.weight[i];
	return weight / (double)d->s.n / bootstrap_mean(d->s.v, d->s.n);
}

static int draw_sums(struct drawing *d)
{
	size_t n = d->s.n, block = d->block > n / BLOCKS_MAX ? d->block : n / BLOCKS_MAX;
	double *below = prefix_sums(d->stat == BOOTSTRAP_RATE ? d->s.v : NULL, n, block);
	double *above = prefix_sums(d->stat == BOOTSTRAP_RATE ? d->s.weight : d->s.v, n, block);
	int err = below && above ? PD_OK : PD_ENOMEM;

	for (size_t i = 0; !err && i < d->count; i++) {
		double sum = 0, count = 0;

		for (size_t filled = 0; filled < n;) {
			size_t at = (size_t)rng_below(&d->rng, n);
			size_t take = n - filled < block ? n - filled : block;

			sum += above[at + take] - above[at];
			count += below[at + take] - below[at];
			filled += take;
		}
		d->out[i] = count > 0 ? sum / count : NAN;
	}
	if (!err)
		d->estimate = whole(d);
	free(below);
	free(above);
	return err;
}

static int draw_quantile_exact(struct drawing *d)
{
	size_t n = d->s.n;
	double *work = malloc(n * sizeof(*work));

	if (!work)
		return PD_ENOMEM;
	memcpy(work, d->s.v, n * sizeof(*work));
	d->estimate = bootstrap_quantile(work, n, d->q);
	for (size_t i = 0; i < d->count; i++) {
		for (size_t filled = 0; filled < n;) {
			size_t at = (size_t)rng_below(&d->rng, n);

			for (size_t k = 0; k < d->block && filled < n; k++)
				work[filled++] = d->s.v[(at + k) % n];
		}
		d->out[i] = bootstrap_quantile(work, n, d->q);
	}
	free(work);
	return PD_OK;
}

struct cells {
	size_t blocks;
	double edge[CELLS]; /* ascending; a count is of values up to its edge */
	uint32_t *count;    /* owned; blocks x CELLS, cumulative */
	double *pool;	    /* owned; a copy of the values that selection reorders */
};

/* Standard error, in ranks, of how many values lie below the quantile. */
static double rank_error(const struct drawing *d, size_t blocks)
{
	size_t len = d->s.n / blocks;
	double sum = 0, squares = 0, mean;

	for (size_t b = 0; b < blocks; b++) {
		double below = 0;

		for (size_t i = b * len; i < (b + 1) * len; i++)
			below += d->s.v[i] <= d->estimate;
		sum += below;
		squares += below * below;
	}
	mean = sum / (double)blocks;
	return sqrt(fmax(squares / (double)blocks - mean * mean, 1) * (double)blocks);
}

/* Edges at equal distances of rank around the quantile. */
static void choose_edges(const struct drawing *d, struct cells *c)
{
	size_t n = d->s.n, last = n - 1;
	double middle = d->q * (double)last, half = WINDOW * rank_error(d, c->blocks);
	size_t lo = middle > half ? (size_t)(middle - half) : 0;
	size_t hi = middle + half < (double)last ? (size_t)(middle + half) : last;

	(void)select_nth(c->pool, n, lo);
	(void)select_nth(c->pool + lo, n - lo, hi - lo);
	summary_sort(c->pool + lo, hi - lo + 1);
	for (size_t g = 0; g < CELLS; g++)
		c->edge[g] = c->pool[lo + (size_t)((double)(hi - lo) * (double)g / (CELLS - 1))];
}

static size_t cell_of(const struct cells *c, double v)
{
	size_t lo = 0, hi = CELLS;

	if (v <= c->edge[0])
		return 0;
	if (v > c->edge[CELLS - 1])
		return CELLS;
	while (hi - lo > 1) {
		size_t mid = (lo + hi) / 2;

		if (v <= c->edge[mid - 1])
			hi = mid;
		else
			lo = mid;
	}
	return lo;
}

static void count_blocks(const struct drawing *d, struct cells *c)
{
	size_t len = d->s.n / c->blocks;

	for (size_t b = 0; b < c->blocks; b++) {
		uint32_t *row = c->count + b * CELLS;

		for (size_t i = b * len; i < (b + 1) * len; i++) {
			size_t cell = cell_of(c, d->s.v[i]);

			if (cell < CELLS)
				row[cell]++;
		}
		for (size_t g = 1; g < CELLS; g++)
			row[g] += row[g - 1];
	}
}

static double added(const struct cells *c, const uint32_t *chosen, size_t g)
{
	uint64_t sum = 0;

	for (size_t b = 0; b < c->blocks; b++)
		sum += c->count[(size_t)chosen[b] * CELLS + g];
	return (double)sum;
}

/* The value whose rank is the wanted one among the values drawn, linear inside a cell. */
static double drawn_quantile(const struct cells *c, const uint32_t *chosen, double rank)
{
	size_t lo = 0, hi = CELLS - 1;
	double below, above;

	if (added(c, chosen, 0) > rank)
		return c->edge[0];
	if (added(c, chosen, hi) <= rank)
		return c->edge[hi];
	while (hi - lo > 1) {
		size_t mid = (lo + hi) / 2;

		if (added(c, chosen, mid) > rank)
			hi = mid;
		else
			lo = mid;
	}
	below = added(c, chosen, lo);
	above = added(c, chosen, hi);
	return c->edge[lo] + (c->edge[hi] - c->edge[lo]) * (rank - below) / (above - below);
}

static int draw_quantile_cells(struct drawing *d)
{
	size_t n = d->s.n, most = n / d->block;
	struct cells c = {.blocks = most < BLOCKS_MAX ? most : BLOCKS_MAX};
	uint32_t chosen[BLOCKS_MAX];
	size_t used = c.blocks * (n / c.blocks);
	double rank = d->q * (double)(used - 1);

	c.pool = malloc(n * sizeof(*c.pool));
	c.count = calloc(c.blocks * CELLS, sizeof(*c.count));
	if (!c.pool || !c.count) {
		free(c.pool);
		free(c.count);
		return PD_ENOMEM;
	}
	memcpy(c.pool, d->s.v, n * sizeof(*c.pool));
	d->estimate = bootstrap_quantile(c.pool, n, d->q);
	choose_edges(d, &c);
	count_blocks(d, &c);
	for (size_t i = 0; i < d->count; i++) {
		for (size_t b = 0; b < c.blocks; b++)
			chosen[b] = (uint32_t)rng_below(&d->rng, c.blocks);
		d->out[i] = drawn_quantile(&c, chosen, rank);
	}
	free(c.pool);
	free(c.count);
	return PD_OK;
}

/* Logs of the statistic of one run. */
static int draw_run(struct drawing *d)
{
	int err;

	if (d->s.n < 2 || d->s.n > BOOTSTRAP_VALUES_MAX)
		return PD_EINVAL;
	d->block = bootstrap_block(d->s.n, neighbour_correlation(d->s.v, d->s.n));
	if (d->stat != BOOTSTRAP_QUANTILE)
		err = draw_sums(d);
	else if (d->s.n <= BOOTSTRAP_EXACT)
		err = draw_quantile_exact(d);
	else
		err = draw_quantile_cells(d);
	if (!err && !(d->estimate > 0))
		err = PD_EINVAL;
	for (size_t i = 0; !err && i < d->count; i++) {
		if (!(d->out[i] > 0) || !isfinite(d->out[i]))
			err = PD_EINVAL;
		else
			d->out[i] = log(d->out[i]);
	}
	return err;
}

/* -- sides -- */

/* Adds `sign` times a draw of the side to each element of out; returns the side's own log in
 * *estimate. */
static int draw_side(const struct bootstrap_series *run, size_t n, struct drawing *d, double spread,
		     double sign, double *out, double *estimate)
{
	double *draws = malloc(n * d->count * sizeof(*draws));
	double *own = malloc(n * sizeof(*own));
	double widen = n > 1 ? sqrt((double)n / (double)(n - 1)) : 0, mean = 0;
	int err = draws && own ? PD_OK : PD_ENOMEM;

	for (size_t r = 0; !err && r < n; r++) {
		d->s = run[r];
		d->out = draws + r * d->count;
		err = draw_run(d);
		own[r] = err ? 0 : log(d->estimate);
		mean += own[r] / (double)n;
	}
	for (size_t i = 0; !err && i < d->count; i++) {
		double runs = 0, within = 0;

		for (size_t k = 0; k < n; k++) {
			size_t r = (size_t)rng_below(&d->rng, n);
			size_t which = (size_t)rng_below(&d->rng, d->count);

			runs += (own[r] - mean) / (double)n;
			within += (draws[r * d->count + which] - own[r]) / (double)n;
		}
		out[i] += sign * (mean + widen * runs + within);
		if (n < FEW_RUNS)
			out[i] += spread / sqrt((double)n) * rng_normal(&d->rng);
	}
	*estimate = mean;
	free(draws);
	free(own);
	return err;
}

static int by_value(const void *x, const void *y)
{
	double a = *(const double *)x, b = *(const double *)y;

	return (a > b) - (a < b);
}

int bootstrap_change(const struct bootstrap_series *a, size_t na, const struct bootstrap_series *b,
		     size_t nb, enum bootstrap_stat stat, double q, double run_spread,
		     uint64_t seed, struct bootstrap_draws *out)
{
	struct drawing d = {.stat = stat, .q = q, .count = BOOTSTRAP_DRAWS};
	double base = 0, now = 0;
	int err = PD_EINVAL;

	*out = (struct bootstrap_draws){NULL, 0, NAN};
	if (na == 0 || nb == 0 || (stat == BOOTSTRAP_QUANTILE && !(q >= 0 && q <= 1)))
		return err;
	for (size_t i = 0; i < na + nb; i++)
		if ((i < na ? a[i] : b[i - na]).n > BOOTSTRAP_LONG)
			d.count = BOOTSTRAP_DRAWS / 2;
	out->v = calloc(d.count, sizeof(*out->v));
	if (!out->v)
		return PD_ENOMEM;
	rng_seed(&d.rng, seed);
	err = draw_side(a, na, &d, run_spread, -1, out->v, &base);
	if (!err)
		err = draw_side(b, nb, &d, run_spread, 1, out->v, &now);
	if (err) {
		bootstrap_release(out);
		return err;
	}
	out->n = d.count;
	out->estimate = now - base;
	qsort(out->v, out->n, sizeof(*out->v), by_value);
	return PD_OK;
}

void bootstrap_release(struct bootstrap_draws *d)
{
	free(d->v);
	d->v = NULL;
	d->n = 0;
}

double bootstrap_p(const struct bootstrap_draws *d, double limit, int direction)
{
	size_t against = 0;

	for (size_t i = 0; i < d->n; i++)
		against += direction > 0 ? d->v[i] <= limit : d->v[i] >= limit;
	return ((double)against + 1) / ((double)d->n + 1);
}

double bootstrap_bound(const struct bootstrap_draws *d, double level, int direction)
{
	double at = (direction > 0 ? level : 1 - level) * (double)(d->n - 1);
	size_t k = (size_t)at;

	return k + 1 < d->n ? d->v[k] + (d->v[k + 1] - d->v[k]) * (at - (double)k) : d->v[k];
}
