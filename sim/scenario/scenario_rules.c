/* What a scenario wants: objective, goals, repetitions; and its decider. */
#include "sim/scenario/scenario_rules.h"

#include <stdio.h>
#include <string.h>

int scn_read_decider(struct scenario *s, struct pd_msg *msg)
{
	const struct y_decider *d = s->y->decider;
	struct route_decider_spec *to = &s->spec.plan.decider;
	const struct {
		const char *path;
		const uint64_t *from;
		int64_t *to;
	} counts[] = {{"decider.non_cached_tokens", d ? d->non_cached_tokens : NULL,
		       &to->non_cached_tokens},
		      {"decider.prompt_tokens", d ? d->prompt_tokens : NULL, &to->prompt_tokens},
		      {"decider.max_local_prefill", d ? d->max_local_prefill : NULL,
		       &to->max_local_prefill}};
	int err = PD_OK;

	*to = ROUTE_DECIDER_DEFAULTS;
	if (!d)
		return PD_OK;
	if (!s->y->prefill)
		return scn_at(s, msg, "decider", 0, "a decider needs prefill and decode pools");
	if (route_decider_find(&to->kind, d->kind))
		return scn_at(s, msg, "decider.kind", 0,
			      "found '%.60s': expected always, never, prefix or cost", d->kind);
	for (size_t i = 0; !err && i < sizeof(counts) / sizeof(counts[0]); i++) {
		uint64_t value = (uint64_t)*counts[i].to;

		err = scn_whole(s, counts[i].path, counts[i].from, 0, 1000000000, &value, msg);
		*counts[i].to = (int64_t)value;
	}
	if (!err)
		err = scn_real(s, "decider.prefill_busy", d->prefill_busy, 0, 1e6,
			       &to->prefill_busy, msg);
	if (!err)
		err = scn_real(s, "decider.decode_busy", d->decode_busy, 0, 1e6, &to->decode_busy,
			       msg);
	return err;
}

static int read_goals(struct scenario *s, struct pd_msg *msg)
{
	const struct y_goals *g = s->y->goals;
	struct figures_goals *to = &s->spec.plan.goals;
	int err;

	if (!g)
		return PD_OK;
	err = scn_real(s, "goals.ttft_ms", g->ttft_ms, 0.001, 1e9, &to->ttft_ms, msg);
	if (!err)
		err = scn_real(s, "goals.tpot_ms", g->tpot_ms, 0.001, 1e9, &to->tpot_ms, msg);
	if (!err)
		err = scn_real(s, "goals.e2el_ms", g->e2el_ms, 0.001, 1e9, &to->e2el_ms, msg);
	if (!err)
		err = scn_real(s, "goals.share", g->share, 0, 1, &s->spec.rules.share, msg);
	if (!err && !g->ttft_ms && !g->tpot_ms && !g->e2el_ms)
		err = scn_at(s, msg, "goals", 0, "expected ttft_ms, tpot_ms or e2el_ms");
	return err;
}

int scn_read_rules(struct scenario *s, struct pd_msg *msg)
{
	struct pd_msg inner = {.text = ""};
	uint64_t repetitions = 1;
	size_t column;
	int err = read_goals(s, msg);

	if (!err)
		err = scn_whole(s, "repetitions", s->y->repetitions, 1, ARM_REPS_MAX, &repetitions,
				msg);
	s->spec.repetitions = (size_t)repetitions;
	s->spec.rules.base = s->y->base;
	if (!err && s->y->objective &&
	    objective_parse(&s->spec.rules.objective, s->y->objective, &column, &inner))
		err = scn_at(s, msg, "objective", column, "%s", inner.text);
	return err;
}
