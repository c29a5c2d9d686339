/* Whether a prompt is computed by a prefill worker, or by the decode worker itself. */
#include "lib/route/score/handlers.h"
#include "lib/route/score/stage.h"

static const struct score_param decider_params[] = {
	{.type = SCORE_PARAM_INT,
	 .name = "nonCachedTokens",
	 .offset = offsetof(struct score_decider_params, uncached)},
	{.type = SCORE_PARAM_INT,
	 .name = "promptTokens",
	 .offset = offsetof(struct score_decider_params, prompt)},
	{.type = SCORE_PARAM_END},
};

static int check(struct score_reader *r, void *given)
{
	const struct score_decider_params *p = given;

	if (p->uncached < 0)
		return score_wrong(r, "nonCachedTokens", "found %lld, expected at least 0",
				   (long long)p->uncached);
	if (p->prompt < 0)
		return score_wrong(r, "promptTokens", "found %lld, expected at least 0",
				   (long long)p->prompt);
	return PD_OK;
}

/* At least so many tokens, of which at least so many are not cached there. 0: never. */
static bool by_prefix(const void *given, int64_t prompt_tokens, const struct score_match *m)
{
	const struct score_decider_params *p = given;

	return p->uncached > 0 && m && m->known && prompt_tokens >= p->prompt &&
	       prompt_tokens - m->cached * m->block >= p->uncached;
}

static bool always(const void *given, int64_t prompt_tokens, const struct score_match *m)
{
	(void)given;
	(void)prompt_tokens;
	(void)m;
	return true;
}

const struct score_type score_prefix_decider = {
	.name = "prefix-based-pd-decider",
	.kinds = SCORE_DECIDER,
	.wants = SCORE_WANTS_PREFIX,
	.help = "prefill elsewhere when the decode worker would compute this much",
	.params = decider_params,
	.params_size = sizeof(struct score_decider_params),
	.check = check,
	.split = by_prefix,
};

const struct score_type score_always_decider = {
	.name = "always-disagg-pd-decider",
	.kinds = SCORE_DECIDER,
	.help = "prefill is always done by a prefill worker",
	.unread = true,
	.split = always,
};

const struct score_decider_params *score_decider_params(const struct score_type *t,
							const void *params)
{
	return t == &score_prefix_decider ? params : NULL;
}
