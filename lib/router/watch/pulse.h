/*
 * What happens too often for a line each: refusals for want of a place, lost lines of a log, the
 * streams that a drain waits for. A thread of its own looks at counts that others keep and says the
 * first at once, then sums up once a second, so requests pay nothing.
 */
#ifndef PD_ROUTER_PULSE_H
#define PD_ROUTER_PULSE_H

#include "lib/router/config/config.h"

/* Since the start, each. */
enum pulse_count {
	PULSE_QUEUE_FULL,
	PULSE_QUEUE_TIMEOUT,
	PULSE_WORKERS_FULL, /* all workers of a pool at their limit */
	PULSE_CONNECTIONS,
	PULSE_CONNECTIONS_ADDRESS,
	PULSE_DESCRIPTORS,
	PULSE_LOCAL,  /* no descriptor or memory for a connection to a worker */
	PULSE_CAUSES, /* refusals up to here */
	PULSE_ACCESS_LOST = PULSE_CAUSES,
	PULSE_COUNTS
};

struct pulse_look {
	uint64_t count[PULSE_COUNTS];
	unsigned in_flight, queued;
	bool draining;
};

struct pulse_config {
	struct log *log; /* borrowed */
	void (*look)(void *ctx, struct pulse_look *out);
	void *ctx;
};

struct pulse;

int pulse_start(struct pulse **out, const struct pulse_config *c) PD_MUST;
/* Says what has not been said. Accepts NULL. */
void pulse_stop(struct pulse *p);

#endif
