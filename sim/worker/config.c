/* One set of defaults, for the command and for tests. */
#include "sim/worker/config.h"

void worker_config_default(struct worker_config *cfg)
{
	*cfg = (struct worker_config){
		.host = "127.0.0.1",
		.engine = ENGINE_DEFAULTS,
		.block_size = 16,
		.num_blocks = 16384,
		.speedup = 1,
		.transfer_ms = 1,
		.transfer_us_token = 5.24,
		.max_model_len = 131072,
		.kv_lease_s = 30,
		.seed = 1,
		.tp_size = 1,
		.dp_size = 1,
		.shared_path = "/tmp",
		.faults = {.fail_status = 500,
			   .fail_retry_after_s = -1,
			   .crash_after = -1,
			   .stall_after = -1,
			   .close_after = -1},
	};
}

struct stepper_config worker_engine(const struct worker_config *cfg)
{
	struct engine_params p = cfg->engine;
	struct stepper_config c;

	p.kv_tokens = 0;
	c = engine_params_stepper(&p, cfg->block_size, cfg->num_blocks);
	c.cost.a /= cfg->speedup;
	c.cost.b /= cfg->speedup;
	c.cost.c /= cfg->speedup;
	c.cost.d /= cfg->speedup;
	c.cost.e /= cfg->speedup;
	/* Every step's tokens are sent when they exist. */
	c.jump = false;
	c.sched.role = SCHED_BOTH;
	c.sched.prefix_caching = !cfg->no_prefix_cache;
	return c;
}
