/*
 * Filters, scorers and a picker as one policy, `scores`: the scheduling profile of an endpoint
 * picker. For each candidate the scores, clamped to 0..1, are added up by their weights; the picker
 * chooses. Without a configuration it is llm-d's own default: queue-scorer 2,
 * kv-cache-utilization-scorer 2, prefix-cache-scorer 3, max-score-picker.
 *
 * A profile is immutable and outlives every state and pool that uses it.
 */
#ifndef PD_ROUTE_PIPELINE_H
#define PD_ROUTE_PIPELINE_H

#include "lib/route/decide.h"
#include "lib/route/score/handlers.h"
#include "lib/route/score/stage.h"

#define SCORE_STAGES_MAX 32 /* of a profile */

struct score_profile {
	const char *name;
	/* Filters in their order, then scorers, then the picker: a plugin that is both is in both
	 * parts. */
	struct score_stage stage[SCORE_STAGES_MAX];
	size_t nfilters, nscorers; /* the picker is stage[nfilters + nscorers] */
	struct score_prefix_producer prefix;
	struct score_flight flight;
	unsigned wants;
};

/* Completes a profile whose stages are set: what they want, and the default producer. */
void score_profile_close(struct score_profile *p);
extern const struct score_profile score_profile_default;

/* The policy of this profile. */
struct route_spec score_spec(const struct score_profile *p);
/* The profile of such a spec; NULL: it is another policy. */
const struct score_profile *score_spec_profile(const struct route_spec *s);

/*
 * The steps of a decision, for what decides without counting: recorded cases, explanations. What a
 * stage reads is in `run`; table and memory are those of the pool. Keeps what the filters keep of
 * the list; *out (NULL: nobody asks) says which filter dropped a worker.
 */
size_t score_filter(const struct score_run *run, uint16_t *list, size_t n,
		    struct route_verdict *out);
/* sum[i] of list[i]: weighted. raw (NULL: nobody asks): nscorers * n scores before that. */
void score_sum(const struct score_run *run, const uint16_t *list, size_t n, double *sum,
	       double *raw);
/* The best of those whose sum is a number, by the picker; the place in the list. SIZE_MAX: none.
 * *ties: others of equal rank. */
size_t score_best(const struct score_run *run, const uint16_t *list, size_t n, const double *sum,
		  uint32_t *ties);
/*
 * Appends the header lines that bind the next request to this worker, of stages that go by a token
 * ("x-session-token: ..."); nothing for other policies. `primary`: the pool that answers.
 */
int score_pins(const struct route_spec *s, bool primary, const char *worker,
	       struct buf *out) PD_MUST;
/* What a scheduler's pick teaches the stages. */
void score_picked(const struct score_run *run, uint32_t worker, bool cold);

extern const struct route_policy_type route_policy_scores, route_policy_scores_by_load;

#endif
