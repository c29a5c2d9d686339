/*
 * The sum is compensated (Neumaier), because means of a million small gaps beside a few long ones
 * must not depend on their order.
 */
#include "lib/stats/summary.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define RADIX_FROM 1024 /* values from which on eight passes beat comparisons */

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The bits of a double as an unsigned number of the same order, and back. */
static uint64_t ordered(uint64_t bits)
{
	return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

static uint64_t unordered(uint64_t key)
{
	return key >> 63 ? key ^ UINT64_C(1) << 63 : ~key;
}

/* Least significant byte first; bytes that all values share cost nothing. */
static bool radix_sort(double *v, size_t n)
{
	uint64_t *from = malloc(2 * n * sizeof(*from)), *owned = from, *to;
	size_t(*count)[256] = calloc(8, sizeof(*count)), at[256];

	if (!from || !count) {
		free(owned);
		free(count);
		return false;
	}
	to = from + n;
	memcpy(from, v, n * sizeof(*from));
	for (size_t i = 0; i < n; i++) {
		from[i] = ordered(from[i]);
		for (unsigned b = 0; b < 8; b++)
			count[b][from[i] >> (8 * b) & 255]++;
	}
	for (unsigned b = 0; b < 8; b++) {
		uint64_t *swap = from;

		if (count[b][from[0] >> (8 * b) & 255] == n)
			continue;
		for (size_t d = 0, sum = 0; d < 256; sum += count[b][d++])
			at[d] = sum;
		for (size_t i = 0; i < n; i++)
			to[at[from[i] >> (8 * b) & 255]++] = from[i];
		from = to;
		to = swap;
	}
	for (size_t i = 0; i < n; i++)
		from[i] = unordered(from[i]);
	memcpy(v, from, n * sizeof(*v));
	free(owned);
	free(count);
	return true;
}

void summary_sort(double *v, size_t n)
{
	if (n >= RADIX_FROM && radix_sort(v, n))
		return;
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
