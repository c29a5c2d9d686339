#include "lib/router/breaker.h"

#include <string.h>

void breaker_init(struct breaker *b)
{
	memset(b, 0, sizeof(*b));
}

static bool move(struct breaker *b, enum breaker_state to, int64_t now)
{
	b->transitions[b->state][to]++;
	b->state = to;
	b->streak = 0;
	if (to == BREAKER_OPEN)
		b->opened_ns = now;
	return true;
}

static bool failed(struct breaker *b, const struct breaker_limits *l, int64_t now)
{
	if (b->state == BREAKER_HALF_OPEN)
		return move(b, BREAKER_OPEN, now);
	if (b->state == BREAKER_CLOSED && ++b->streak >= l->failures && !l->off)
		return move(b, BREAKER_OPEN, now);
	return false;
}

static bool succeeded(struct breaker *b, const struct breaker_limits *l, int64_t now)
{
	if (b->state == BREAKER_CLOSED)
		b->streak = 0;
	else if (b->state == BREAKER_HALF_OPEN && ++b->streak >= l->successes)
		return move(b, BREAKER_CLOSED, now);
	return b->state == BREAKER_HALF_OPEN;
}

bool breaker_report(struct breaker *b, const struct breaker_limits *l, enum breaker_verdict v,
		    int64_t now)
{
	if (v == VERDICT_NONE)
		return b->state == BREAKER_HALF_OPEN;
	b->outcomes[v]++;
	return v == VERDICT_FAILURE ? failed(b, l, now) : succeeded(b, l, now);
}

bool breaker_tick(struct breaker *b, const struct breaker_limits *l, int64_t now)
{
	if (b->state != BREAKER_OPEN || now - b->opened_ns < l->timeout)
		return false;
	return move(b, BREAKER_HALF_OPEN, now);
}

const char *breaker_state_name(enum breaker_state s)
{
	static const char *const names[] = {"closed", "open", "half_open"};

	return names[s];
}
