/*
 * The distributions of a run as sparse histograms, so that shards merge without losing percentiles:
 *
 *	"histograms": {"unit": "ns", "sub_bits": 10, "ttft": {"count": 3, "min": 9, "max": 99,
 *	 "sum": 120.0, "buckets": [[9, 1], [99, 2]]}, "e2el": …}
 *
 * Buckets are [number, count] with the numbers of lib/stats/hist.h: a value below 2^sub_bits has
 * its own, above that number = (shift << sub_bits) + (value >> shift) with shift = position of the
 * leading bit - sub_bits. A percentile is at most 1/2^sub_bits too high. Pure.
 */
#ifndef PD_LOAD_HISTS_H
#define PD_LOAD_HISTS_H

#include "lib/results/result.h"
#include "lib/stats/hist.h"

enum hists_kind {
	HISTS_TTFT,
	HISTS_TTFT_INTENDED,
	HISTS_TPOT,
	HISTS_ITL, /* one value per token */
	HISTS_E2EL,
	HISTS_E2EL_INTENDED,
	HISTS_LAG, /* of all requests that were sent; the others are of successful ones */
	HISTS_KINDS
};

/* Makes *h the distribution of this kind. */
void hists_fill(struct hist *h, const struct result_run *run, enum hists_kind kind);
/* The member, without a comma. */
int hists_json(const struct result_run *run, struct buf *out) PD_MUST;

#endif
