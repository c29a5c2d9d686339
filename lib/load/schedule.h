/*
 * What may be sent when: a heap of released requests by intended time, turns that wait for the turn
 * before, and sessions that wait for a slot. Pure bookkeeping, no clock, no I/O. Owner thread
 * only.
 */
#ifndef PD_LOAD_SCHEDULE_H
#define PD_LOAD_SCHEDULE_H

#include "lib/load/load.h"

struct schedule_entry {
	int64_t at_ns;	  /* intended */
	int64_t since_ns; /* since when the session had a slot; at_ns unless it waited for one */
	uint32_t item;
};

struct schedule {
	const struct load_item *items;
	size_t n;
	struct schedule_entry *heap; /* by time, then index */
	size_t nheap;
	struct schedule_entry
		*parked; /* first turns that wait for a slot, in order; [parked_at, nparked) */
	size_t parked_at, nparked;
	uint32_t *after;	/* the next turn of the same session, or LOAD_NO_TURN */
	uint32_t *session_left; /* requests not yet ended, per session */
	bool *session_open;
	size_t nsessions;
	int64_t sessions_max; /* 0: no limit */
	int64_t sessions_now;
};

/* PD_EINVAL when `before` is out of range, not earlier, or named twice. */
int schedule_init(struct schedule *s, const struct load_item *items, size_t n,
		  int64_t sessions_max) PD_MUST;
void schedule_release(struct schedule *s);

/* The intended time of the next request that may go, or CLOCK_NEVER. */
int64_t schedule_next(struct schedule *s);
/* Takes it. Only after schedule_next said its time has come. */
struct schedule_entry schedule_take(struct schedule *s);
/* The request has ended at now_ns (sent or not): releases the next turn and, at a session's end,
 * its slot. */
void schedule_ended(struct schedule *s, uint32_t item, int64_t now_ns);
/* Nothing is released and nothing waits. */
bool schedule_empty(const struct schedule *s);

#endif
