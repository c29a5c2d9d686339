/*
 * Scorers of what this router has in flight: requests, and prompt tokens that are still to be
 * computed. They need no metrics of workers and are never stale.
 */
#include "lib/route/score/stage.h"

struct active_params {
	int64_t idle;
	double busy;
	const char *timeout, *producer;
};

static const struct score_param active_params[] = {
	{.type = SCORE_PARAM_INT,
	 .name = "idleThreshold",
	 .offset = offsetof(struct active_params, idle)},
	{.type = SCORE_PARAM_REAL,
	 .name = "maxBusyScore",
	 .offset = offsetof(struct active_params, busy),
	 .fallback = 1},
	{.type = SCORE_PARAM_TEXT,
	 .name = "requestTimeout",
	 .offset = offsetof(struct active_params, timeout),
	 .without = true},
	{.type = SCORE_PARAM_TEXT,
	 .name = "inFlightLoadProducerName",
	 .offset = offsetof(struct active_params, producer)},
	{.type = SCORE_PARAM_END},
};

static int active_check(struct score_reader *r, void *params)
{
	struct active_params *p = params;

	(void)r;
	p->busy = p->busy >= 0 && p->busy <= 1 ? p->busy : 1;
	return PD_OK;
}

/* (max - count) / max * busy; 1 at the idle threshold and below. */
static void active(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	const struct active_params *p = c->params;
	uint32_t max = 0;

	for (size_t i = 0; i < n; i++)
		max = c->run->load[list[i]] > max ? c->run->load[list[i]] : max;
	for (size_t i = 0; i < n; i++) {
		uint32_t count = c->run->load[list[i]];

		out[i] = count == 0 || (int64_t)count <= p->idle
				 ? 1
				 : (double)(max - count) / (double)max * p->busy;
	}
}

struct token_params {
	int64_t threshold;
};

static const struct score_param token_params[] = {
	{.type = SCORE_PARAM_INT,
	 .name = "queueThresholdTokens",
	 .offset = offsetof(struct token_params, threshold),
	 .fallback = 4194304},
	{.type = SCORE_PARAM_END},
};

static int token_check(struct score_reader *r, void *params)
{
	struct token_params *p = params;

	(void)r;
	p->threshold = p->threshold > 0 ? p->threshold : 4194304;
	return PD_OK;
}

/* 1 - min(L, T) / T; L: tokens in flight there and those of this request that it does not hold. */
static void tokens(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	const struct token_params *p = c->params;
	double limit = (double)p->threshold;

	for (size_t i = 0; i < n; i++) {
		double load = (double)route_tokens(c->run->pool->worker[list[i]].slot) +
			      (double)score_uncached(c->run, list[i]);

		out[i] = 1 - (load > limit ? limit : load) / limit;
	}
}

const struct score_type score_active = {
	.name = "active-request-scorer",
	.kinds = SCORE_SCORER,
	.wants = SCORE_WANTS_LOAD,
	.help = "the fewer requests in flight there, compared with the busiest candidate",
	.params = active_params,
	.params_size = sizeof(struct active_params),
	.check = active_check,
	.score = active,
};

const struct score_type score_tokens = {
	.name = "token-load-scorer",
	.kinds = SCORE_SCORER,
	.wants = SCORE_WANTS_LOAD | SCORE_WANTS_TOKENS | SCORE_WANTS_PREFIX,
	.help = "the fewer prompt tokens to compute there, with those of this request",
	.params = token_params,
	.params_size = sizeof(struct token_params),
	.check = token_check,
	.score = tokens,
};
