/*
 * Log-linear histogram of unsigned integers (nanoseconds, bytes): fixed size, no allocation, exact
 * below 2 * HIST_SUB, then HIST_SUB buckets per power of two, so a quantile is at most 1/HIST_SUB
 * (0.1 %) too high and never too low. Not thread-safe: one writer per histogram, merged at the end.
 * 440 KiB each.
 */
#ifndef PD_STATS_HIST_H
#define PD_STATS_HIST_H

#include <stdint.h>

#define HIST_SUB_BITS 10
#define HIST_SUB      (1u << HIST_SUB_BITS)
#define HIST_BUCKETS  ((64u - HIST_SUB_BITS + 1u) * HIST_SUB)

struct hist {
	uint64_t count, min, max;
	double sum;
	uint64_t bucket[HIST_BUCKETS];
};

void hist_init(struct hist *h);
void hist_add(struct hist *h, uint64_t value);
/* Adds everything of `from` to `h`. */
void hist_merge(struct hist *h, const struct hist *from);
/* The smallest bucket end that at least q (0..1) of the values do not exceed, never above max; 0
 * when empty. */
uint64_t hist_quantile(const struct hist *h, double q);
/* Puts `count` values into bucket `bucket` (< HIST_BUCKETS), as a histogram that was written down
 * says; min, max and sum are the caller's. */
void hist_add_bucket(struct hist *h, unsigned bucket, uint64_t count);
/* The middle of a bucket. */
double hist_middle(unsigned bucket);
/* Percentile p (0..100) with numpy's definition (summary_percentile), a bucket's values taken as
 * evenly spread over it: the error is below 1/HIST_SUB. NaN when empty. */
double hist_percentile(const struct hist *h, double p);
/* Exact up to rounding; 0 when empty. */
double hist_mean(const struct hist *h);

#endif
