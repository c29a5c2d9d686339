/* What bench tells beyond the document of lib/results: latencies from the intended time, and what
 * the prefix cache did. From the records; pure. */
#ifndef PD_LOAD_FIGURES_H
#define PD_LOAD_FIGURES_H

#include "lib/results/result.h"

/* Milliseconds; NaN without a sample. */
struct figure {
	size_t n;
	double mean, median, p99;
};

struct figures {
	bool scheduled;				    /* there are intended times */
	struct figure ttft, e2el;		    /* from the actual send */
	struct figure ttft_intended, e2el_intended; /* n is 0 unless scheduled */
	bool late; /* p99 or mean from the intended time are more than 1 ms or 5 % above */
	/* A hit: at least half of the prompt's tokens came from the cache, as the server says. */
	struct figure ttft_hit, ttft_miss;
	size_t hits, misses;
	double cached_share; /* of the prompt tokens of requests with a count; NaN: none */
	struct figure prefill, decode; /* stages that the router states */
};

int figures_make(struct figures *f, const struct result_run *run) PD_MUST;
/* Members of the object "pdctl", without braces. */
int figures_json(const struct figures *f, struct buf *out) PD_MUST;

#endif
