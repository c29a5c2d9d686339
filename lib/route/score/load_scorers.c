/*
 * Scorers of what workers said about themselves: the shorter queue, the smaller batch, the emptier
 * KV memory. A worker that was never read counts as idle, as in llm-d.
 */
#include "lib/route/score/stage.h"

static int32_t waiting(const struct route_slot *s)
{
	return atomic_load_explicit(&s->signal.waiting, memory_order_relaxed);
}

static int32_t running(const struct route_slot *s)
{
	return atomic_load_explicit(&s->signal.running, memory_order_relaxed);
}

/* (max - x) / (max - min); all equal: 1. */
static void spread(const struct score_call *c, const uint16_t *list, size_t n, double *out,
		   int32_t (*figure)(const struct route_slot *s))
{
	int32_t min = INT32_MAX, max = INT32_MIN;

	for (size_t i = 0; i < n; i++) {
		int32_t x = figure(c->run->pool->worker[list[i]].slot);

		out[i] = x;
		min = x < min ? x : min;
		max = x > max ? x : max;
	}
	for (size_t i = 0; i < n; i++)
		out[i] = max == min ? 1 : ((double)max - out[i]) / ((double)max - (double)min);
}

static void queue(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	spread(c, list, n, out, waiting);
}

static void batch(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	spread(c, list, n, out, running);
}

static void kv(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	for (size_t i = 0; i < n; i++)
		out[i] = 1 -
			 atomic_load_explicit(&c->run->pool->worker[list[i]].slot->signal.kv_usage,
					      memory_order_relaxed);
}

struct load_params {
	int64_t threshold;
};

static const struct score_param load_params[] = {
	{.type = SCORE_PARAM_INT,
	 .name = "threshold",
	 .offset = offsetof(struct load_params, threshold),
	 .fallback = 128},
	{.type = SCORE_PARAM_END},
};

static int load_check(struct score_reader *r, void *params)
{
	struct load_params *p = params;

	(void)r;
	p->threshold = p->threshold > 0 ? p->threshold : 128;
	return PD_OK;
}

/* At most 0.5, so that its weight counts half; one and more waiting: (1 - min(w, T) / T) / 2. */
static void load(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	const struct load_params *p = c->params;
	double limit = (double)p->threshold;

	for (size_t i = 0; i < n; i++) {
		double w = waiting(c->run->pool->worker[list[i]].slot);

		w = w > limit ? limit : w;
		out[i] = w == 0 ? 0.5 : 0.5 * (1 - w / limit);
	}
}

const struct score_type score_queue = {
	.name = "queue-scorer",
	.kinds = SCORE_SCORER,
	.wants = SCORE_WANTS_SIGNALS,
	.help = "the shorter the engine's queue, between the shortest and the longest",
	.unread = true,
	.score = queue,
};

const struct score_type score_running = {
	.name = "running-requests-size-scorer",
	.kinds = SCORE_SCORER,
	.wants = SCORE_WANTS_SIGNALS,
	.help = "the smaller the engine's batch, between the smallest and the largest",
	.unread = true,
	.score = batch,
};

const struct score_type score_kv = {
	.name = "kv-cache-utilization-scorer",
	.kinds = SCORE_SCORER,
	.wants = SCORE_WANTS_SIGNALS,
	.help = "1 minus the part of the KV memory in use",
	.unread = true,
	.score = kv,
};

const struct score_type score_load = {
	.name = "load-aware-scorer",
	.kinds = SCORE_SCORER,
	.wants = SCORE_WANTS_SIGNALS,
	.help = "0.5 without a queue, 0 at `threshold` waiting requests",
	.params = load_params,
	.params_size = sizeof(struct load_params),
	.check = load_check,
	.score = load,
};
