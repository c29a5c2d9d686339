/*
 * Expectations of a run, each of which can fail:
 *
 *   split[=N]     in each role at least two workers (exactly N) were used, and the one with the
 *                 fewest requests got at least half of its fair share
 *   sticky        every session with two answers and more stayed on one worker in each role
 *   not-sticky    at most half of these sessions did
 *   hits-faster   the median TTFT of cache hits is below that of misses
 *
 * What cannot be judged (no worker named, no session, no hit) has failed. Pure.
 */
#ifndef PD_LOAD_ASSERTS_H
#define PD_LOAD_ASSERTS_H

#include "lib/load/figures.h"
#include "lib/results/verify.h"

#define ASSERTS_MAX 8

enum assert_kind { ASSERT_SPLIT, ASSERT_STICKY, ASSERT_NOT_STICKY, ASSERT_HITS_FASTER };

struct asserts {
	enum assert_kind kind[ASSERTS_MAX];
	int64_t workers[ASSERTS_MAX]; /* of split; 0: two and more */
	size_t n;
};

/* "split=2,sticky". PD_EINVAL names the wrong word. */
int asserts_parse(struct asserts *a, const char *list, struct pd_msg *msg) PD_MUST;
/* One line each; *failed counts those that do not hold. */
int asserts_judge(const struct asserts *a, const struct result_run *run, const struct verify *v,
		  const struct figures *f, struct buf *out, size_t *failed) PD_MUST;

#endif
