/*
 * Several results of one load become one: shards of `pdctl bench --shard I/N`, or runs of several
 * machines at the same time. Counts and token totals add up, per-request lists follow each other,
 * throughputs are recomputed over the longest run (the shards are taken to have run at the same
 * time). A distribution is made anew from all values where every shard has lists for it, which
 * gives the figures of one run exactly, else from the shards' histograms (within 0.1 %); what can
 * be told from neither is null. Only documents of pdctl; no I/O. Thread-safe.
 */
#ifndef PD_RESULTS_MERGE_H
#define PD_RESULTS_MERGE_H

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define MERGE_MAX 1024 /* documents */

struct merge_input {
	const char *name; /* for messages */
	struct span text; /* one JSON object */
};

/*
 * Appends one document with a line feed. `partial`: shards of the load may be missing. PD_EINVAL:
 * no document of pdctl bench; PD_ENOENT: they do not belong together, the message names the key and
 * the values, or a shard is there twice or not at all.
 */
int result_merge(const struct merge_input *in, size_t n, bool partial, struct buf *out,
		 struct pd_msg *msg) PD_MUST;

#endif
