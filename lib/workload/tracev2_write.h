/*
 * A workload as TraceV2 of BLIS: a header (YAML) and rows (CSV), without texts: lengths, sessions,
 * think times, arrivals. The hash ids and their block size stand in columns of our own behind the
 * last of BLIS's, which it passes over. Pure.
 */
#ifndef PD_WORKLOAD_TRACEV2_WRITE_H
#define PD_WORKLOAD_TRACEV2_WRITE_H

#include "lib/workload/workload.h"

/* Appends both files. Lengths that the workload does not state: 4 bytes of text a token for the
 * prompt, `output_tokens` for the answer. Requests without a time stamp arrive at 0. PD_ETOOBIG,
 * PD_ENOMEM. */
int tracev2_write(const struct workload *w, int64_t output_tokens, struct buf *header,
		  struct buf *rows) PD_MUST;

#endif
