/*
 * A run over time, for its report: what was sent and ended in equal steps, requests in flight in
 * all and per worker, sessions as lanes of requests; and the distributions as points of their
 * cumulative curves. Everything is bounded, however long the run. Pure.
 */
#ifndef PD_LOAD_TIMELINE_H
#define PD_LOAD_TIMELINE_H

#include "lib/results/result.h"

#define TIMELINE_STEPS	  120
#define TIMELINE_WORKERS  16
#define TIMELINE_LANES	  32
#define TIMELINE_LANE_MAX 64 /* requests of a lane */

/*
 * The object {"step_s": 0.5, "sent": [...], "ended": [...], "failed": [...], "in_flight": [...],
 * "workers": [{"name": "...", "in_flight": [...]}], "more_workers": false,
 * "lanes": [{"session": "...", "requests": [[sent, first token, end, "worker", ok]]}],
 * "more_sessions": false}, in s since the first request was sent; null when nothing was sent.
 */
int timeline_json(const struct result_run *run, struct buf *out) PD_MUST;

/* The object {"ttft": {"count": 9, "cdf": [[ms, percent]]}, "itl": ..., "e2el": ...} of the
 * successful requests; without values nothing stands under the name. */
int timeline_distributions(const struct result_run *run, struct buf *out) PD_MUST;

#endif
