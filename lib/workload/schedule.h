/*
 * Which request goes next, and when: the one place where time stamps, arrival processes, the order
 * of turns, think times and the limits of concurrency become an order of sending. `bench` drives it
 * with the clock, `simulate` with virtual time, so the same input gives the same order in both.
 *
 *   schedule_new(&s, &input, ...)
 *   while (!schedule_finished(s)) {
 *           if (schedule_due(s) <= now)
 *                   send(schedule_take(s).item);          the request is in flight from here
 *           else
 *                   wait until schedule_due(s), or until a request ends;
 *           for each request that ended:
 *                   schedule_ended(s, item, now);         answered, failed or never sent
 *   }
 *
 * The rules. A request is released at its own time; one that follows another (the next turn of a
 * session, a branch) at the later of its own time and the end of the one before plus its think
 * time. Released requests leave by time of release, then by number. When `in_flight_max` are in
 * flight nothing is due until one ends. When `sessions_max` sessions are open, the first request of
 * a further session waits, in order of release, until a session has ended; requests of open
 * sessions and requests without a session pass it. A session is open from its first request taken
 * to its last one ended.
 *
 * Ends at one instant are told in the order in which they are known; the caller tells all that it
 * knows before it takes. Times are ns on one axis of the caller's choice (the start of the run is 0
 * in the arrays, `origin_ns` moves them). Pure bookkeeping: no clock, no I/O. Not thread-safe: one
 * owner.
 */
#ifndef PD_WORKLOAD_SCHEDULE_H
#define PD_WORKLOAD_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define SCHEDULE_NONE	  UINT32_MAX /* no request before, no session */
#define SCHEDULE_NEVER	  INT64_MAX  /* nothing is due before a request ends */
#define SCHEDULE_REQUESTS ((size_t)UINT32_MAX - 1)

/* What the schedule knows of n requests. The arrays are borrowed until schedule_free. */
struct schedule_input {
	size_t n;
	const int64_t *at_ns;	 /* own time, 0 or more; NULL: all 0 */
	size_t at_stride;	 /* bytes from one own time to the next; 0: they are an array */
	const int64_t *think_ns; /* pause after the end of `before`; negative is 0; NULL: none */
	const uint32_t *before;	 /* the request that must have ended, or SCHEDULE_NONE; several may
				    name the same; NULL: none */
	const uint32_t *session; /* below nsessions, or SCHEDULE_NONE; NULL: none */
	uint32_t nsessions;
	bool stamped; /* at_ns are times that the requests themselves state (--timestamps): a turn
			 whose turn before was late keeps its own time as intended time */
};

struct schedule_limits {
	uint64_t in_flight_max; /* 0: no limit */
	uint64_t sessions_max;	/* 0: no limit */
	int64_t origin_ns;	/* added to every at_ns */
};

struct schedule_entry {
	uint32_t item;
	int64_t intended_ns; /* when a client without a limit would have sent it: its own time when
				stamped, else its release */
	int64_t released_ns; /* own time reached, the request before ended, think time over */
	int64_t eligible_ns; /* ... and there was room for it: what lateness is measured against */
};

struct schedule; /* opaque */

/* PD_EINVAL with a message when `before` or `session` is out of range or `before` goes in a circle,
 * PD_ETOOBIG, PD_ENOMEM. *out is NULL on failure. Memory: 8 bytes a request with `before`, 4 when
 * at_ns does not rise, else none, and what is released and waits. */
int schedule_new(struct schedule **out, const struct schedule_input *in,
		 const struct schedule_limits *limits, struct pd_msg *msg) PD_MUST;
void schedule_free(struct schedule *s);

/* When the next request may be sent, with the requests now in flight; SCHEDULE_NEVER when one must
 * end first, or none is left. May lie in the past. */
int64_t schedule_due(struct schedule *s);
/* Takes it. Only when schedule_due is not SCHEDULE_NEVER. */
struct schedule_entry schedule_take(struct schedule *s);
/* A request that was taken has ended, whatever came of it. PD_ENOMEM: what it released is lost. */
int schedule_ended(struct schedule *s, uint32_t item, int64_t now_ns) PD_MUST;

/* Everything was taken and has ended. */
bool schedule_finished(const struct schedule *s);
uint64_t schedule_in_flight(const struct schedule *s);
size_t schedule_left(const struct schedule *s); /* not taken yet */

#endif
