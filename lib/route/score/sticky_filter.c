/*
 * prefix-cache-affinity-filter: sticky until saturated. Only workers that hold most of the prompt
 * are candidates, unless the best of them would take too much longer to its first token than the
 * best of the others.
 */
#include <math.h>

#include "lib/route/score/stage.h"

struct params {
	double threshold, explore, penalty_ms, peak;
	const char *source, *producer;
	bool predicted;
};

static const struct score_param params[] = {
	{.type = SCORE_PARAM_REAL,
	 .name = "affinityThreshold",
	 .offset = offsetof(struct params, threshold),
	 .fallback = 0.8},
	{.type = SCORE_PARAM_REAL,
	 .name = "explorationProbability",
	 .offset = offsetof(struct params, explore)},
	{.type = SCORE_PARAM_REAL,
	 .name = "maxTTFTPenaltyMs",
	 .offset = offsetof(struct params, penalty_ms),
	 .fallback = 18000},
	{.type = SCORE_PARAM_TEXT,
	 .name = "ttftSource",
	 .offset = offsetof(struct params, source),
	 .text = "prefillThroughput"},
	{.type = SCORE_PARAM_REAL,
	 .name = "peakPrefillThroughput",
	 .offset = offsetof(struct params, peak),
	 .fallback = 15928},
	{.type = SCORE_PARAM_TEXT,
	 .name = "prefixMatchInfoProducerName",
	 .offset = offsetof(struct params, producer)},
	{.type = SCORE_PARAM_END},
};

static int check(struct score_reader *r, void *given)
{
	struct params *p = given;

	if (p->threshold > 1)
		return score_wrong(r, "affinityThreshold", "found %g, expected at most 1",
				   p->threshold);
	if (!(p->explore >= 0 && p->explore <= 1))
		return score_wrong(r, "explorationProbability", "found %g, expected 0 to 1",
				   p->explore);
	if (p->penalty_ms < 0)
		return score_wrong(r, "maxTTFTPenaltyMs", "found %g, expected at least 0",
				   p->penalty_ms);
	if (strcmp(p->source, "latencyPredictor") != 0 &&
	    strcmp(p->source, "prefillThroughput") != 0)
		return score_wrong(r, "ttftSource",
				   "found '%.60s', expected prefillThroughput or latencyPredictor",
				   p->source);
	p->predicted = p->source[0] == 'l';
	if (p->peak < 0 || (p->peak == 0 && p->penalty_ms > 0 && !p->predicted))
		return score_wrong(r, "peakPrefillThroughput",
				   "found %g, expected more than 0 tokens per second", p->peak);
	return PD_OK;
}

/* Until the first token, ms. Not known: infinite, never the fastest. */
static double ttft(const struct score_call *c, uint32_t w)
{
	const struct params *p = c->params;

	if (!p->predicted)
		return (double)route_tokens(c->run->pool->worker[w].slot) / p->peak * 1000;
	if (!c->run->given || c->run->given[w].ttft_ms < 0)
		return INFINITY;
	return c->run->given[w].ttft_ms;
}

static bool is_sticky(const struct score_call *c, uint32_t w)
{
	struct score_match m = score_match_of(c->run, w);

	return m.total > 0 &&
	       (double)m.match / (double)m.total >= ((const struct params *)c->params)->threshold;
}

static size_t filter(const struct score_call *c, uint16_t *list, size_t n)
{
	const struct params *p = c->params;
	double best = INFINITY, other = INFINITY;
	size_t sticky = 0, kept = 0;

	if (p->threshold <= 0 || n <= 1 || (p->explore > 0 && score_unit(c, 0) < p->explore))
		return n;
	for (size_t i = 0; i < n; i++) {
		bool is = is_sticky(c, list[i]);

		sticky += is;
		if (p->penalty_ms > 0 && is)
			best = fmin(best, ttft(c, list[i]));
		else if (p->penalty_ms > 0)
			other = fmin(other, ttft(c, list[i]));
	}
	if (sticky == 0 ||
	    (p->penalty_ms > 0 && sticky < n && isfinite(other) && best - other > p->penalty_ms))
		return n;
	for (size_t i = 0; i < n; i++)
		if (is_sticky(c, list[i]))
			list[kept++] = list[i];
	return kept;
}

const struct score_type score_sticky = {
	.name = "prefix-cache-affinity-filter",
	.kinds = SCORE_FILTER,
	.wants = SCORE_WANTS_PREFIX | SCORE_WANTS_TOKENS | SCORE_DRAWS,
	.help = "workers that hold most of the prompt, until they are too busy",
	.params = params,
	.params_size = sizeof(struct params),
	.check = check,
	.filter = filter,
};
