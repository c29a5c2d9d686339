/*
 * What may be repeated, when, and how often. The budget is earned by requests and spent by
 * retries, so that an outage costs the workers a fixed share of extra load and not a multiple.
 */
#include "lib/router/way/retry.h"

#include <math.h>

bool retry_status(int status)
{
	return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
	       status == 504;
}

int64_t retry_backoff(const struct router_config *c, unsigned attempt, struct rng *rng)
{
	double d = (double)c->retry_initial * pow(c->retry_multiplier, attempt),
	       cap = (double)c->retry_cap;

	d = d < cap ? d : cap;
	d += d * c->retry_jitter * (2.0 * rng_unit(rng) - 1.0);
	d = d < cap ? d : cap;
	return d > 0 ? (int64_t)d : 0;
}

void retry_budget_init(struct retry_budget *b, double per_request)
{
	b->earn = (int64_t)(per_request * 1000.0);
	atomic_store(&b->milli, RETRY_BUDGET_START * INT64_C(1000));
}

void retry_budget_earn(struct retry_budget *b)
{
	/* A full purse is the usual case and is only read: no shared line is written per request.
	 */
	if (atomic_load_explicit(&b->milli, memory_order_relaxed) <
	    RETRY_BUDGET_START * INT64_C(1000))
		atomic_fetch_add_explicit(&b->milli, b->earn, memory_order_relaxed);
}

bool retry_budget_spend(struct retry_budget *b)
{
	int64_t have = atomic_load_explicit(&b->milli, memory_order_relaxed);

	while (have >= 1000)
		if (atomic_compare_exchange_weak_explicit(&b->milli, &have, have - 1000,
							  memory_order_relaxed,
							  memory_order_relaxed))
			return true;
	return false;
}
