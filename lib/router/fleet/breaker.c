/*
 * A state machine without clock, lock or thread of its own: the caller gives the time and holds
 * the worker's lock, so each transition can be tested.
 */
#include "lib/router/fleet/breaker.h"

#include <string.h>

void breaker_init(struct breaker *b)
{
	memset(b, 0, sizeof(*b));
}

static void move(struct breaker *b, enum breaker_state to, int64_t now)
{
	b->transitions[b->state][to]++;
	b->state = to;
	b->streak = 0;
	if (to == BREAKER_OPEN)
		b->opened_ns = now;
}

void breaker_reset(struct breaker *b, int64_t now)
{
	if (b->state != BREAKER_CLOSED)
		move(b, BREAKER_CLOSED, now);
	b->streak = 0;
}

static void closed_report(struct breaker *b, const struct breaker_limits *l, bool good, int64_t now)
{
	if (good)
		b->streak = 0;
	else if (++b->streak >= l->failures && !l->off)
		move(b, BREAKER_OPEN, now);
}

static void trial_report(struct breaker *b, const struct breaker_limits *l, bool good, int64_t now)
{
	if (!good)
		move(b, BREAKER_OPEN, now);
	else if (++b->streak >= l->successes)
		move(b, BREAKER_CLOSED, now);
}

void breaker_report(struct breaker *b, const struct breaker_limits *l, enum breaker_verdict v,
		    bool trial, int64_t now)
{
	if (v == VERDICT_NONE)
		return;
	b->outcomes[v]++;
	if (b->state == BREAKER_CLOSED)
		closed_report(b, l, v == VERDICT_SUCCESS, now);
	else if (b->state == BREAKER_HALF_OPEN && trial)
		trial_report(b, l, v == VERDICT_SUCCESS, now);
}

void breaker_try(struct breaker *b, int64_t now)
{
	if (b->state == BREAKER_OPEN)
		move(b, BREAKER_HALF_OPEN, now);
}

bool breaker_tick(struct breaker *b, const struct breaker_limits *l, int64_t now)
{
	if (b->state != BREAKER_OPEN || now - b->opened_ns < l->timeout)
		return false;
	move(b, BREAKER_HALF_OPEN, now);
	return true;
}

const char *breaker_state_name(enum breaker_state s)
{
	static const char *const names[] = {"closed", "open", "half_open"};

	return names[s];
}
