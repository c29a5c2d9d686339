/* When a worker, and a pool, is full: by the engines' own figures, or by what is in flight. */
#include "lib/route/score/stage.h"

/* -- utilization-detector -- */

struct use_params {
	int64_t queue, stale_ns;
	double kv, headroom;
};

static const struct score_param use_params[] = {
	{.type = SCORE_PARAM_INT,
	 .name = "queueDepthThreshold",
	 .offset = offsetof(struct use_params, queue),
	 .fallback = 5},
	{.type = SCORE_PARAM_REAL,
	 .name = "kvCacheUtilThreshold",
	 .offset = offsetof(struct use_params, kv),
	 .fallback = 0.8},
	{.type = SCORE_PARAM_DURATION,
	 .name = "metricsStalenessThreshold",
	 .offset = offsetof(struct use_params, stale_ns),
	 .fallback = 200e6},
	{.type = SCORE_PARAM_REAL,
	 .name = "headroom",
	 .offset = offsetof(struct use_params, headroom)},
	{.type = SCORE_PARAM_END},
};

static int use_check(struct score_reader *r, void *params)
{
	const struct use_params *p = params;

	if (p->queue <= 0)
		return score_wrong(r, "queueDepthThreshold", "found %lld, expected at least 1",
				   (long long)p->queue);
	if (!(p->kv > 0 && p->kv <= 1))
		return score_wrong(r, "kvCacheUtilThreshold",
				   "found %g, expected more than 0, at most 1", p->kv);
	if (p->stale_ns <= 0)
		return score_wrong(r, "metricsStalenessThreshold",
				   "found no time, expected a duration above 0");
	if (p->headroom < 0)
		return score_wrong(r, "headroom", "found %g, expected at least 0", p->headroom);
	return PD_OK;
}

struct use {
	double waiting, kv;
	bool fresh;
};

static struct use use_of(const struct score_call *c, uint32_t w)
{
	const struct use_params *p = c->params;
	const struct route_signal *s = &c->run->pool->worker[w].slot->signal;
	int64_t at = atomic_load_explicit(&s->at_ns, memory_order_acquire);

	return (struct use){
		.waiting = atomic_load_explicit(&s->waiting, memory_order_relaxed),
		.kv = atomic_load_explicit(&s->kv_usage, memory_order_relaxed),
		.fresh = at != 0 && c->run->rq->now_ns - at <= p->stale_ns,
	};
}

/* The mean of max(waiting / T, kv / T); figures that are old or missing count as 1. */
static double use_saturation(const struct score_call *c, const uint16_t *list, size_t n)
{
	const struct use_params *p = c->params;
	double sum = 0;

	for (size_t i = 0; i < n; i++) {
		struct use u = use_of(c, list[i]);
		double queue = u.waiting / (double)p->queue, kv = u.kv / p->kv;

		sum += !u.fresh ? 1 : queue > kv ? queue : kv;
	}
	return n > 0 ? sum / (double)n : 1;
}

/* Those with fresh figures below the limits; all when there are none. */
static size_t use_filter(const struct score_call *c, uint16_t *list, size_t n)
{
	const struct use_params *p = c->params;
	double queue = (double)p->queue * (1 + p->headroom), kv = p->kv * (1 + p->headroom);
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		struct use u = use_of(c, list[i]);

		kept += u.fresh && u.waiting < queue && u.kv < kv;
	}
	if (kept == 0)
		return n;
	kept = 0;
	for (size_t i = 0; i < n; i++) {
		struct use u = use_of(c, list[i]);

		if (u.fresh && u.waiting < queue && u.kv < kv)
			list[kept++] = list[i];
	}
	return kept;
}

/* -- concurrency-detector -- */

struct flight_params {
	int64_t requests, tokens;
	double headroom;
	const char *mode, *producer;
	bool by_requests, by_tokens;
};

static const struct score_param flight_params[] = {
	{.type = SCORE_PARAM_INT,
	 .name = "maxConcurrency",
	 .offset = offsetof(struct flight_params, requests),
	 .fallback = 100},
	{.type = SCORE_PARAM_INT,
	 .name = "maxTokenConcurrency",
	 .offset = offsetof(struct flight_params, tokens),
	 .fallback = 1000000},
	{.type = SCORE_PARAM_TEXT,
	 .name = "concurrencyMode",
	 .offset = offsetof(struct flight_params, mode),
	 .text = "requests"},
	{.type = SCORE_PARAM_REAL,
	 .name = "headroom",
	 .offset = offsetof(struct flight_params, headroom)},
	{.type = SCORE_PARAM_TEXT,
	 .name = "inFlightLoadProducerName",
	 .offset = offsetof(struct flight_params, producer)},
	{.type = SCORE_PARAM_END},
};

static int flight_check(struct score_reader *r, void *params)
{
	struct flight_params *p = params;
	bool hybrid = strcmp(p->mode, "hybrid") == 0;

	p->by_requests = hybrid || strcmp(p->mode, "requests") == 0;
	p->by_tokens = hybrid || strcmp(p->mode, "tokens") == 0;
	if (!p->by_requests && !p->by_tokens)
		return score_wrong(r, "concurrencyMode",
				   "found '%.60s', expected requests, tokens or hybrid", p->mode);
	if (p->requests <= 0)
		return score_wrong(r, "maxConcurrency", "found %lld, expected at least 1",
				   (long long)p->requests);
	if (p->tokens <= 0)
		return score_wrong(r, "maxTokenConcurrency", "found %lld, expected at least 1",
				   (long long)p->tokens);
	if (p->headroom < 0)
		return score_wrong(r, "headroom", "found %g, expected at least 0", p->headroom);
	return PD_OK;
}

/* What is in flight of what may be; hybrid: the mean of the larger part of each worker. */
static double flight_saturation(const struct score_call *c, const uint16_t *list, size_t n)
{
	const struct flight_params *p = c->params;
	double sum = 0;

	for (size_t i = 0; i < n; i++) {
		double requests = (double)c->run->load[list[i]] / (double)p->requests;
		double tokens = (double)route_tokens(c->run->pool->worker[list[i]].slot) /
				(double)p->tokens;

		if (p->by_requests && p->by_tokens)
			sum += requests > tokens ? requests : tokens;
		else
			sum += p->by_requests ? requests : tokens;
	}
	return n > 0 ? sum / (double)n : 1;
}

static size_t flight_filter(const struct score_call *c, uint16_t *list, size_t n)
{
	const struct flight_params *p = c->params;
	int64_t requests = (int64_t)((double)p->requests * (1 + p->headroom));
	int64_t tokens = (int64_t)((double)p->tokens * (1 + p->headroom));
	size_t kept = 0;

	for (size_t i = 0; i < n; i++)
		if ((!p->by_requests || c->run->load[list[i]] < requests) &&
		    (!p->by_tokens ||
		     (int64_t)route_tokens(c->run->pool->worker[list[i]].slot) < tokens))
			list[kept++] = list[i];
	return kept;
}

/* -- utilization-filter -- */

enum measure { USE_ACTIVE, USE_RUNNING, USE_WAITING, USE_KV };

struct limit {
	enum measure measure;
	double max;
};

struct limit_params {
	struct yamlnode conditions;
	bool fallback;
	struct limit *limit;
	size_t n;
};

static const struct score_param limit_params[] = {
	{.type = SCORE_PARAM_NODE,
	 .name = "conditions",
	 .offset = offsetof(struct limit_params, conditions)},
	{.type = SCORE_PARAM_BOOL,
	 .name = "fallbackOnEmpty",
	 .offset = offsetof(struct limit_params, fallback)},
	{.type = SCORE_PARAM_END},
};

static int read_limit(struct score_reader *r, struct yamlnode n, struct limit *out)
{
	static const char *const names[] = {"active-requests", "running-requests", "waiting-queue",
					    "kv-cache-utilization"};
	const char *metric = "";
	int i = 0;

	for (struct yamlnode k = yamlnode_first(n); k.pos; k = yamlnode_next(k))
		if (strcmp(yamlnode_key(k), "metric") != 0 &&
		    strcmp(yamlnode_key(k), "maxValue") != 0)
			return yamlnode_fail_key(k, r->file, r->msg,
						 "unknown key '%.60s', expected metric or maxValue",
						 yamlnode_key(k));
	if (yamlnode_get(n, "metric").pos && yamlnode_string(yamlnode_get(n, "metric"), &metric))
		metric = "";
	while (i < 4 && strcmp(names[i], metric) != 0)
		i++;
	if (i == 4)
		return yamlnode_fail(n, r->file, r->msg,
				     "metric: found '%.60s', expected active-requests, "
				     "running-requests, waiting-queue or kv-cache-utilization",
				     metric);
	out->measure = (enum measure)i;
	if (yamlnode_real(yamlnode_get(n, "maxValue"), &out->max))
		return yamlnode_fail(n, r->file, r->msg, "maxValue: expected a number");
	return PD_OK;
}

static int limit_check(struct score_reader *r, void *params)
{
	struct limit_params *p = params;
	size_t max = 0;
	int err = PD_OK;

	if (!p->conditions.pos || yamlnode_kind(p->conditions) != YAMLPOS_SEQUENCE ||
	    !yamlnode_first(p->conditions).pos)
		return score_wrong(r, "conditions", "expected a list of metric and maxValue");
	for (struct yamlnode n = yamlnode_first(p->conditions); n.pos; n = yamlnode_next(n))
		max++;
	p->limit = score_arena_get(r->arena, max * sizeof(*p->limit));
	if (!p->limit)
		return PD_ENOMEM;
	for (struct yamlnode n = yamlnode_first(p->conditions); !err && n.pos; n = yamlnode_next(n))
		err = read_limit(r, n, &p->limit[p->n++]);
	return err;
}

static bool within(const struct score_call *c, uint32_t w)
{
	const struct limit_params *p = c->params;
	const struct route_signal *s = &c->run->pool->worker[w].slot->signal;
	bool ok = true;

	for (size_t i = 0; i < p->n; i++) {
		const double value[] = {
			[USE_ACTIVE] = c->run->load[w],
			[USE_RUNNING] = atomic_load_explicit(&s->running, memory_order_relaxed),
			[USE_WAITING] = atomic_load_explicit(&s->waiting, memory_order_relaxed),
			[USE_KV] = atomic_load_explicit(&s->kv_usage, memory_order_relaxed),
		};

		ok = ok && value[p->limit[i].measure] <= p->limit[i].max;
	}
	return ok;
}

static size_t limit_filter(const struct score_call *c, uint16_t *list, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++)
		kept += within(c, list[i]);
	if (kept == 0 && ((const struct limit_params *)c->params)->fallback)
		return n;
	kept = 0;
	for (size_t i = 0; i < n; i++)
		if (within(c, list[i]))
			list[kept++] = list[i];
	return kept;
}

const struct score_type score_utilization = {
	.name = "utilization-detector",
	.kinds = SCORE_FILTER | SCORE_DETECTOR,
	.wants = SCORE_WANTS_SIGNALS,
	.help = "fresh figures below the thresholds; all when there are none",
	.params = use_params,
	.params_size = sizeof(struct use_params),
	.check = use_check,
	.filter = use_filter,
	.saturation = use_saturation,
};

const struct score_type score_concurrency = {
	.name = "concurrency-detector",
	.kinds = SCORE_FILTER | SCORE_DETECTOR,
	.wants = SCORE_WANTS_LOAD | SCORE_WANTS_TOKENS,
	.help = "fewer requests or tokens in flight than may be",
	.params = flight_params,
	.params_size = sizeof(struct flight_params),
	.check = flight_check,
	.filter = flight_filter,
	.saturation = flight_saturation,
};

const struct score_type score_limits = {
	.name = "utilization-filter",
	.kinds = SCORE_FILTER,
	.wants = SCORE_WANTS_LOAD | SCORE_WANTS_SIGNALS,
	.help = "no figure above its `maxValue`",
	.params = limit_params,
	.params_size = sizeof(struct limit_params),
	.check = limit_check,
	.filter = limit_filter,
};
