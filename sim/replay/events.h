/*
 * The event queue of the simulator: a binary heap ordered by time, then kind, then insertion, so a
 * run is the same on every machine. Bounded by the maximum given to events_init. Not
 * thread-safe.
 */
#ifndef PD_SIM_REPLAY_EVENTS_H
#define PD_SIM_REPLAY_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct event {
	int64_t at;   /* virtual nanoseconds */
	uint64_t seq; /* set by events_push: the tie-break */
	uint32_t kind;
	uint32_t subject;
	uint64_t value;
};

struct events {
	struct event *heap; /* owned */
	size_t n, cap, max;
	uint64_t seq;
};

void events_init(struct events *q, size_t max);
void events_release(struct events *q);
/* PD_ETOOBIG when the queue holds `max` events, PD_ENOMEM. Only at, kind, subject and value of *e
 * count. */
int events_push(struct events *q, const struct event *e) PD_MUST;
/* The earliest event without removing it; NULL when empty. Valid until the next push or pop. */
const struct event *events_peek(const struct events *q);
/* False when empty. */
bool events_pop(struct events *q, struct event *out);

#endif
