/*
 * Is the client itself in the way? Three delays that only the client can cause, per second of the
 * run:
 *
 *   run queue   the loop's thread was ready and had no processor (/proc/thread-self/schedstat), per
 *               time it got one
 *   handling    from the moment the kernel could have reported an event to the moment its bytes
 * were stamped lag         from the moment a request could go to its sending
 *
 * A second is bad when the mean of one of them is above max(0.2 ms, 2 % of the median TTFT): so
 * much of the reported means is then the client's and not the server's. Owner thread only.
 */
#ifndef PD_LOAD_LOAD_PULSE_H
#define PD_LOAD_LOAD_PULSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"

#define PULSE_SECONDS_MAX 1000000 /* of a run; the last one takes the rest */

struct pulse_second {
	int64_t queue_ns, handling_ns, lag_ns; /* sums */
	uint32_t turns, events, sends;	       /* and how many they are of */
};

struct pulse {
	int64_t origin;
	struct pulse_second *second; /* owned */
	size_t n, cap;
	int schedstat; /* -1: this system does not tell */
	int64_t queue_ns;
	uint64_t turns;
	/* rounds of the loop */
	int64_t woke, woke_before, busy_until;
};

struct pulse_verdict {
	double limit_ms;
	bool ok;
	bool queue_known;
	double queue_ms, handling_ms, lag_ms; /* the worst second's means; NaN: nothing happened */
	size_t bad;
};

void pulse_init(struct pulse *p, int64_t origin);
void pulse_release(struct pulse *p);
/* On the thread that sends and receives: before the first event, and after the last. */
void pulse_open(struct pulse *p);
void pulse_close(struct pulse *p);
/* Every 50 ms or so. */
void pulse_tick(struct pulse *p, int64_t now);
/* Bytes were stamped at `now` in the round of the loop that woke at `woke`. */
void pulse_event(struct pulse *p, int64_t woke, int64_t now);
/* A request that could go at `eligible` was sent at `now`. */
void pulse_sent(struct pulse *p, int64_t eligible, int64_t now);

void pulse_judge(const struct pulse *p, double median_ttft_ms, struct pulse_verdict *out);
/* The bad seconds as "3-5, 9", at most so many ranges. */
int pulse_bad_seconds(const struct pulse *p, const struct pulse_verdict *v,
		      struct buf *out) PD_MUST;
/* JSON object: limit, the worst means, the bad seconds. */
int pulse_json(const struct pulse *p, const struct pulse_verdict *v, struct buf *out) PD_MUST;

#endif
