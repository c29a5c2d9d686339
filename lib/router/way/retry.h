/*
 * When to try again and how long to wait before: vllm-router's statuses, defaults and backoff
 * formula, plus a budget so that retries cannot multiply an outage. Pure except for the budget,
 * which is one atomic. Thread-safe.
 */
#ifndef PD_ROUTER_RETRY_H
#define PD_ROUTER_RETRY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/rng.h"
#include "lib/router/config/config.h"

/* 408, 429, 500, 502, 503, 504 */
bool retry_status(int status);

/* initial * multiplier^attempt, capped, plus a jitter of at most the given fraction either way.
 * attempt counts from 0. */
int64_t retry_backoff(const struct router_config *c, unsigned attempt, struct rng *rng);

#define RETRY_BUDGET_START                                                                         \
	100 /* retries that may be spent before any were earned, and the most that can be saved */

struct retry_budget {
	_Atomic int64_t milli;
	int64_t earn; /* thousandths of a retry per request */
};
void retry_budget_init(struct retry_budget *b, double per_request);
void retry_budget_earn(struct retry_budget *b);
bool retry_budget_spend(struct retry_budget *b);

#endif
