/* Messages name the words of the user, not the letters of the formula. */
#include "sim/engine/params.h"

#include <math.h>

int engine_params_check(const struct engine_params *p, struct pd_msg *msg)
{
	const struct {
		const char *name;
		double value;
	} costs[] = {{"step_ms", p->step_ms},
		     {"prefill_us", p->prefill_us},
		     {"attention_us", p->attention_us},
		     {"request_us", p->request_us},
		     {"context_us", p->context_us}};

	for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++)
		if (!isfinite(costs[i].value) || costs[i].value < 0 || costs[i].value > 1e6)
			return pd_fail(
				msg, PD_EINVAL,
				"engine cost '%s' is %g, expected a number from 0 to 1000000",
				costs[i].name, costs[i].value);
	if (p->step_ms < 0.001)
		return pd_fail(msg, PD_EINVAL,
			       "engine cost 'step_ms' is %g, expected at least 0.001", p->step_ms);
	if (p->max_num_seqs == 0 || p->max_num_seqs > SCHED_SEATS_MAX)
		return pd_fail(msg, PD_EINVAL, "'max_num_seqs' is %u, expected 1 to %u",
			       p->max_num_seqs, SCHED_SEATS_MAX);
	if (p->max_batched_tokens == 0 || p->max_batched_tokens > SCHED_BUDGET_MAX)
		return pd_fail(msg, PD_EINVAL, "'max_batched_tokens' is %u, expected 1 to %u",
			       p->max_batched_tokens, SCHED_BUDGET_MAX);
	return PD_OK;
}

struct stepper_config engine_params_stepper(const struct engine_params *p, uint32_t block_size,
					    uint64_t cache_blocks)
{
	struct stepper_config c = {.sched = SCHED_DEFAULTS,
				   .cost = {.a = p->step_ms * 1e3,
					    .b = p->prefill_us,
					    .c = p->request_us,
					    .d = p->context_us,
					    .e = p->attention_us},
				   .jump = true};
	uint64_t blocks = p->kv_tokens / block_size;

	if (p->kv_tokens > 0 && blocks == 0)
		blocks = 1;
	if (blocks == 0 || (cache_blocks > 0 && cache_blocks < blocks))
		blocks = cache_blocks;
	c.sched.block_size = block_size;
	/* One more: the null block. */
	if (blocks > 0 && blocks < KVPOOL_BLOCKS_MAX)
		c.sched.num_blocks = (uint32_t)blocks + 1;
	c.sched.max_num_seqs = p->max_num_seqs;
	c.sched.max_num_batched_tokens = p->max_batched_tokens;
	c.sched.async_scheduling = !p->synchronous;
	return c;
}
