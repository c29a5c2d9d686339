/*
 * What happened when: a replay in slices of time, in windows of consecutive requests, and around
 * its events. Pure functions over the records of the requests; without engines (routing only) there
 * is no time and the slices are empty.
 */
#ifndef PD_SIM_FIGURES_TIMELINE_H
#define PD_SIM_FIGURES_TIMELINE_H

#include "sim/figures/balance.h"
#include "sim/replay/replay.h"

#define TIMELINE_SLICES	 60
#define TIMELINE_WINDOWS REPLAY_WINDOWS

/* Goals of a request in ms; 0: none. */
struct figures_goals {
	double ttft_ms, tpot_ms, e2el_ms;
};

/* Does a completed request keep them? False without any goal. */
bool figures_goals_met(const struct figures_goals *g, const struct replay_request *r,
		       uint32_t output_tokens);

struct timeline_slice {
	uint32_t arrivals, completed;
	double in_flight, waiting; /* mean over the slice; waiting: routed, no token yet */
	double ttft_ms, hit_rate;  /* of the requests that arrived in it; NAN without */
	double peak_to_mean;	   /* requests in flight per worker of the last pool; NAN: none */
};

/* Of requests that were routed one after another; NAN: not defined. */
enum timeline_window {
	TIMELINE_MEAN_TTFT,
	TIMELINE_P99_TTFT,
	TIMELINE_MEAN_TPOT,
	TIMELINE_MEAN_E2EL,
	TIMELINE_P99_E2EL,
	TIMELINE_TOKEN_HITS,
	TIMELINE_GOODPUT, /* share within the goals */
	TIMELINE_WINDOW_FIGURES
};
/* The metric that each of them is a window of. */
extern const char *const timeline_window_metric[TIMELINE_WINDOW_FIGURES];

/* The token hit rate around an event; NAN: too few requests before or behind it. */
struct timeline_dip {
	double before, lowest;
	double recovered_s; /* from the event until 95 % of `before` are back; NAN: not until the
			       next event or the end */
};

struct timeline {
	double start_s, slice_s; /* of the trace's time */
	size_t n;		 /* slices; 0: no times */
	struct timeline_slice slice[TIMELINE_SLICES];
	/* Requests that wait for their first token: mean over the third and the last quarter of the
	 * arrivals. Saturated: the queue grew by a quarter and by more than a request per
	 * worker, so that there is no steady state. */
	double queue_third, queue_last;
	bool saturated;
	struct balance in_flight[REPLAY_POOLS]; /* per worker, mean over the run, in 1/1000 */
	double window[TIMELINE_WINDOW_FIGURES][TIMELINE_WINDOWS];
	size_t nwindows;	  /* 0: too few requests */
	struct timeline_dip *dip; /* owned; one per event */
};

/* PD_ENOMEM. Release also after a failure. */
int timeline_make(struct timeline *l, const struct simtrace *t, const struct replay_config *cfg,
		  const struct figures_goals *goals, const struct replay_result *r) PD_MUST;
void timeline_release(struct timeline *l);

#endif
