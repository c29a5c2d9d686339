/* Bucket number = position of the leading bit and the HIST_SUB_BITS bits after it: two
 * instructions, no logarithm. */
#include <math.h>
#include <string.h>

#include "lib/stats/hist.h"

static unsigned bucket_of(uint64_t v)
{
	unsigned shift;

	if (v < HIST_SUB)
		return (unsigned)v;
	shift = 63u - (unsigned)__builtin_clzll(v) - HIST_SUB_BITS;
	return (shift << HIST_SUB_BITS) + (unsigned)(v >> shift);
}

/* The largest value of the bucket. */
static uint64_t bucket_end(unsigned b)
{
	unsigned shift;

	if (b < 2 * HIST_SUB)
		return b;
	shift = (b >> HIST_SUB_BITS) - 1;
	return ((uint64_t)(b - (shift << HIST_SUB_BITS)) << shift) + ((UINT64_C(1) << shift) - 1);
}

void hist_init(struct hist *h)
{
	memset(h, 0, sizeof(*h));
	h->min = UINT64_MAX;
}

void hist_add(struct hist *h, uint64_t value)
{
	h->bucket[bucket_of(value)]++;
	h->count++;
	h->sum += (double)value;
	h->min = value < h->min ? value : h->min;
	h->max = value > h->max ? value : h->max;
}

void hist_merge(struct hist *h, const struct hist *from)
{
	for (unsigned b = 0; b < HIST_BUCKETS; b++)
		h->bucket[b] += from->bucket[b];
	h->count += from->count;
	h->sum += from->sum;
	h->min = from->min < h->min ? from->min : h->min;
	h->max = from->max > h->max ? from->max : h->max;
}

uint64_t hist_quantile(const struct hist *h, double q)
{
	double want = ceil(q * (double)h->count);
	uint64_t seen = 0;

	if (h->count == 0)
		return 0;
	if (want < 1)
		want = 1;
	for (unsigned b = 0; b < HIST_BUCKETS; b++) {
		seen += h->bucket[b];
		if ((double)seen >= want)
			return bucket_end(b) < h->max ? bucket_end(b) : h->max;
	}
	return h->max;
}

void hist_add_bucket(struct hist *h, unsigned bucket, uint64_t count)
{
	h->bucket[bucket] += count;
	h->count += count;
}

static uint64_t bucket_start(unsigned b)
{
	return b ? bucket_end(b - 1) + 1 : 0;
}

double hist_middle(unsigned bucket)
{
	return ((double)bucket_start(bucket) + (double)bucket_end(bucket)) / 2;
}

/* The value of rank k (from 0) when the n values of its bucket lie evenly in it. */
static double value_at(const struct hist *h, uint64_t k)
{
	uint64_t before = 0;
	unsigned b = 0;
	double start, end, v;

	while (b < HIST_BUCKETS - 1 && before + h->bucket[b] <= k)
		before += h->bucket[b++];
	start = (double)bucket_start(b);
	end = (double)bucket_end(b);
	v = start + (end - start) * ((double)(k - before) + 0.5) / (double)h->bucket[b];
	return fmin(fmax(v, (double)h->min), (double)h->max);
}

double hist_percentile(const struct hist *h, double p)
{
	double rank = p / 100 * (double)(h->count - 1), low;
	uint64_t k = (uint64_t)rank;

	if (h->count == 0)
		return NAN;
	if (k + 1 >= h->count)
		return (double)h->max;
	low = value_at(h, k);
	return low + (value_at(h, k + 1) - low) * (rank - (double)k);
}

double hist_mean(const struct hist *h)
{
	return h->count ? h->sum / (double)h->count : 0;
}
