/* Scorers of cached prefixes: how much of the prompt a worker holds, and where a prompt goes that
 * nobody holds. */
#include <stdlib.h>

#include "lib/route/prefix.h"
#include "lib/route/score/handlers.h"
#include "lib/route/score/lock.h"
#include "lib/route/score/stage.h"

struct prefix_params {
	double weight;
	int64_t scale;
	const char *producer;
	struct score_prefix_producer own; /* the older form; block_tokens 0: it is the newer */
	int64_t block_bytes;
};

static const struct score_param prefix_params[] = {
	{.type = SCORE_PARAM_REAL,
	 .name = "matchLengthWeight",
	 .offset = offsetof(struct prefix_params, weight)},
	{.type = SCORE_PARAM_INT,
	 .name = "matchLengthScaleTokens",
	 .offset = offsetof(struct prefix_params, scale),
	 .fallback = 8192},
	{.type = SCORE_PARAM_TEXT,
	 .name = "prefixMatchInfoProducerName",
	 .offset = offsetof(struct prefix_params, producer)},
	{.type = SCORE_PARAM_BOOL,
	 .name = "autoTune",
	 .offset = offsetof(struct prefix_params, own.auto_tune),
	 .fallback = 1,
	 .without = true,
	 .old = true},
	{.type = SCORE_PARAM_INT,
	 .name = "blockSize",
	 .offset = offsetof(struct prefix_params, block_bytes),
	 .fallback = 64,
	 .old = true},
	{.type = SCORE_PARAM_INT,
	 .name = "maxPrefixBlocksToMatch",
	 .offset = offsetof(struct prefix_params, own.max_blocks),
	 .fallback = 256,
	 .old = true},
	{.type = SCORE_PARAM_INT,
	 .name = "lruCapacityPerServer",
	 .offset = offsetof(struct prefix_params, own.capacity),
	 .fallback = 31250,
	 .old = true},
	{.type = SCORE_PARAM_END},
};

/* The older form has its producer in it: blocks in bytes, and no trailing part of a block. */
static int own_check(struct score_reader *r, struct prefix_params *p)
{
	if (p->block_bytes < 1 || p->block_bytes > 65536)
		return score_wrong(r, "blockSize", "found %lld, expected 1 to 65536 bytes",
				   (long long)p->block_bytes);
	if (p->own.max_blocks < 1 || p->own.max_blocks > 65535)
		return score_wrong(r, "maxPrefixBlocksToMatch", "found %lld, expected 1 to 65535",
				   (long long)p->own.max_blocks);
	if (p->own.capacity < 1 || p->own.capacity > 1000000)
		return score_wrong(r, "lruCapacityPerServer", "found %lld, expected 1 to 1000000",
				   (long long)p->own.capacity);
	p->own.block_tokens =
		(p->block_bytes + ROUTE_BLOCK_BYTES - 1) / ROUTE_BLOCK_BYTES * ROUTE_BLOCK_TOKENS;
	return PD_OK;
}

const struct score_prefix_producer *score_prefix_own(const void *params)
{
	const struct prefix_params *p = params;

	return p && p->own.block_tokens ? &p->own : NULL;
}

static int prefix_check(struct score_reader *r, void *params)
{
	struct prefix_params *p = params;

	if (!(p->weight >= 0 && p->weight <= 1))
		return score_wrong(r, "matchLengthWeight", "found %g, expected 0 to 1", p->weight);
	if (p->weight > 0 && p->scale <= 0)
		return score_wrong(r, "matchLengthScaleTokens",
				   "found %lld, expected at least 1 with matchLengthWeight",
				   (long long)p->scale);
	return r->old ? own_check(r, p) : PD_OK;
}

/* w * min(1, match * block / S)^2 + (1 - w) * match / total */
static void prefix(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	const struct prefix_params *p = c->params;

	for (size_t i = 0; i < n; i++) {
		struct score_match m = score_match_of(c->run, list[i]);
		double ratio = m.total > 0 ? (double)m.match / (double)m.total : 0, part = 0;

		if (p->weight > 0 && m.total > 0) {
			part = (double)(m.match * m.block) / (double)p->scale;
			part = part > 1 ? 1 : part;
		}
		out[i] = m.total > 0 ? p->weight * (part * part) + (1 - p->weight) * ratio : 0;
	}
}

/* -- no-hit-lru-scorer -- */

struct lru_params {
	int64_t size;
	const char *producer, *type, *name;
};

static const struct score_param lru_params[] = {
	{.type = SCORE_PARAM_INT,
	 .name = "lruSize",
	 .offset = offsetof(struct lru_params, size),
	 .fallback = 1024},
	{.type = SCORE_PARAM_TEXT,
	 .name = "prefixMatchInfoProducerName",
	 .offset = offsetof(struct lru_params, producer)},
	{.type = SCORE_PARAM_TEXT,
	 .name = "prefixPluginType",
	 .offset = offsetof(struct lru_params, type),
	 .without = true},
	{.type = SCORE_PARAM_TEXT,
	 .name = "prefixPluginName",
	 .offset = offsetof(struct lru_params, name),
	 .without = true},
	{.type = SCORE_PARAM_END},
};

#define LRU_MAX 4096 /* more than there are workers */

static int lru_check(struct score_reader *r, void *params)
{
	struct lru_params *p = params;

	(void)r;
	p->size = p->size <= 0 ? 1024 : p->size > LRU_MAX ? LRU_MAX : p->size;
	return PD_OK;
}

/* Workers that computed a cold prompt, the oldest first. */
struct lru {
	struct score_lock lock;
	size_t n, max;
	uint64_t worker[];
};

static int lru_new(const void *params, void **memory)
{
	size_t max = (size_t)((const struct lru_params *)params)->size;
	struct lru *l = calloc(1, sizeof(*l) + max * sizeof(l->worker[0]));

	*memory = l;
	if (!l)
		return PD_ENOMEM;
	l->max = max;
	return PD_OK;
}

static size_t lru_find(const struct lru *l, uint64_t id)
{
	size_t i = 0;

	while (i < l->n && l->worker[i] != id)
		i++;
	return i;
}

static void lru_drop(struct lru *l, size_t at)
{
	l->n--;
	for (; at < l->n; at++)
		l->worker[at] = l->worker[at + 1];
}

static void lru_picked(const struct score_call *c, uint64_t worker, bool cold)
{
	struct lru *l = c->memory;
	size_t at;

	if (!cold)
		return;
	score_lock(&l->lock);
	at = lru_find(l, worker);
	if (at < l->n)
		lru_drop(l, at);
	else if (l->n == l->max)
		lru_drop(l, 0);
	l->worker[l->n++] = worker;
	score_unlock(&l->lock);
}

static void lru_left(void *memory, uint64_t worker)
{
	struct lru *l = memory;
	size_t at;

	score_lock(&l->lock);
	at = lru_find(l, worker);
	if (at < l->n)
		lru_drop(l, at);
	score_unlock(&l->lock);
}

/* A prompt that some candidate holds: 0.5 for all. A cold one: those that never had one first, in
 * the order of the list, then the one whose last is the oldest. */
static void lru(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	struct lru *l = c->memory;
	size_t fresh = 0;
	bool warm = false;

	for (size_t i = 0; i < n && !warm; i++)
		warm = score_match_of(c->run, list[i]).match > 0;
	for (size_t i = 0; i < n; i++)
		out[i] = warm ? 0.5 : 1;
	if (warm || n <= 1)
		return;
	score_lock(&l->lock);
	for (size_t i = 0; i < n; i++)
		if (lru_find(l, c->run->pool->worker[list[i]].id) == l->n)
			out[i] = 1 - (double)fresh++ / (double)(n - 1);
	for (size_t i = 0; i < n; i++) {
		size_t at = lru_find(l, c->run->pool->worker[list[i]].id);

		if (at == l->n)
			continue;
		out[i] = 1 - (double)(fresh + at) / (double)(n - 1);
		out[i] = out[i] < 0 ? 0 : out[i];
	}
	score_unlock(&l->lock);
}

const struct score_type score_prefix = {
	.name = "prefix-cache-scorer",
	.kinds = SCORE_SCORER,
	.wants = SCORE_WANTS_PREFIX,
	.help = "the part of the prompt that the worker holds; on request, its length too",
	.params = prefix_params,
	.params_size = sizeof(struct prefix_params),
	.check = prefix_check,
	.score = prefix,
};

const struct score_type score_no_hit_lru = {
	.name = "no-hit-lru-scorer",
	.kinds = SCORE_SCORER,
	.wants = SCORE_WANTS_PREFIX,
	.help = "a prompt that nobody holds goes to who had none for the longest time",
	.params = lru_params,
	.params_size = sizeof(struct lru_params),
	.check = lru_check,
	.score = lru,
	.memory_new = lru_new,
	.memory_free = free,
	.picked = lru_picked,
	.left = lru_left,
};
