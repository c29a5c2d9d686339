/*
 * Who is picked of those that are left with their weighted scores. A picker gives each worker a
 * rank, and the highest is picked; equal ranks are drawn (pipeline.c). The workers behind the first
 * are those that the request goes to when the first fails.
 */
#include <math.h>

#include "lib/route/score/stage.h"

struct params {
	int64_t n;
};

static const struct score_param params[] = {
	{.type = SCORE_PARAM_INT,
	 .name = "maxNumOfEndpoints",
	 .offset = offsetof(struct params, n),
	 .fallback = 1},
	{.type = SCORE_PARAM_END},
};

static int check(struct score_reader *r, void *given)
{
	struct params *p = given;

	(void)r;
	p->n = p->n > 0 ? p->n : 1;
	return PD_OK;
}

static size_t count(const void *given)
{
	return (size_t)((const struct params *)given)->n;
}

static double by_chance(const struct score_call *c, uint32_t worker, double score)
{
	(void)score;
	return score_unit(c, c->run->pool->worker[worker].id);
}

/* U^(1/score): with one worker to pick its chance is score / sum. No score above 0: -1 to 0, behind
 * all others and by chance among themselves. */
static double by_weight(const struct score_call *c, uint32_t worker, double score)
{
	double u = score_unit(c, c->run->pool->worker[worker].id);

	return score > 0 ? pow(u, 1 / score) : u - 1;
}

#define PICKER(as, text, how)                                                                      \
	{                                                                                          \
		.name = as, .kinds = SCORE_PICKER, .wants = SCORE_DRAWS, .help = text,             \
		.params = params, .params_size = sizeof(struct params), .check = check,            \
		.rank = how, .count = count                                                        \
	}
const struct score_type score_max_picker =
	PICKER("max-score-picker", "the highest score; equal ones are drawn", NULL);
const struct score_type score_random_picker =
	PICKER("random-picker", "any of those that are left", by_chance);
const struct score_type score_weighted_picker =
	PICKER("weighted-random-picker", "drawn with chances like the scores", by_weight);
