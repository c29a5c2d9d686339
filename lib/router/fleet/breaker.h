/*
 * Circuit breaker of one worker, as a state machine without clock or lock: the caller gives the
 * time and serialises the calls.
 *
 * Closed -> open after `failures` consecutive failures; open -> half-open when `timeout` has passed
 * (breaker_tick); half-open lets one request at a time through: `successes` successes close it, one
 * failure opens it again. A 4xx answer is a success: the worker did its work. Only the trial, the
 * request that was let through, judges a half-open breaker: streams that began before it opened may
 * end at any time and say nothing about now. A trial that ends without a verdict (the client left)
 * leaves the state as it is, and the next request is the trial.
 */
#ifndef PD_ROUTER_BREAKER_H
#define PD_ROUTER_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_STATES };
enum breaker_verdict { VERDICT_SUCCESS, VERDICT_FAILURE, VERDICT_NONE };

struct breaker_limits {
	unsigned failures, successes;
	int64_t timeout; /* ns */
	bool off;
};

struct breaker {
	enum breaker_state state;
	unsigned streak; /* failures when closed, successes when half-open */
	int64_t opened_ns;
	uint64_t transitions[BREAKER_STATES][BREAKER_STATES];
	uint64_t outcomes[2]; /* successes, failures */
};

void breaker_init(struct breaker *b);
/* The worker is known to be well again: closed, with no failures counted. */
void breaker_reset(struct breaker *b, int64_t now);
/* The outcome of one request; `trial`: it was the one that half-open let through. */
void breaker_report(struct breaker *b, const struct breaker_limits *l, enum breaker_verdict v,
		    bool trial, int64_t now);
/* There is reason to try an open breaker before its time. */
void breaker_try(struct breaker *b, int64_t now);
/* Time passes. True when the breaker became half-open. */
bool breaker_tick(struct breaker *b, const struct breaker_limits *l, int64_t now);
const char *breaker_state_name(enum breaker_state s);

#endif
