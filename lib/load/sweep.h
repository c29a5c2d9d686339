/*
 * The search for the rate that a server just follows: doubling until a step is saturated, then
 * halving the interval between the last good and the first saturated rate (geometrically) until it
 * is narrow. And the sign that a step will not recover: requests in flight that only grow. Pure.
 */
#ifndef PD_LOAD_SWEEP_H
#define PD_LOAD_SWEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SWEEP_STEPS_MAX 24
#define SWEEP_NARROW	1.15 /* saturated rate / good rate at the end */

struct sweep {
	double rate;	  /* of the step to run */
	double good, bad; /* highest rate that was followed, lowest that was not; 0: none yet */
	unsigned steps;
};

void sweep_begin(struct sweep *s, double rate);
/* What the step came to; false: the search is over. */
bool sweep_next(struct sweep *s, bool saturated);

/* Requests in flight over time, looked at about five times a second. */
struct sweep_watch {
	double n, t, y, tt, ty, yy; /* sums for a line through the last looks */
	int64_t since;
};

void sweep_watch_begin(struct sweep_watch *w);
/*
 * True when the server cannot follow: over at least 3 s the number in flight grew by more than 10 %
 * of the rate per second, and the slope is four of its standard errors above zero. The first second
 * does not count.
 */
bool sweep_watch_add(struct sweep_watch *w, int64_t elapsed_ns, size_t in_flight, double rate);

#endif
