/* One set of defaults, for the command and for tests. */
#include "sim/worker/config.h"

void worker_config_default(struct worker_config *cfg)
{
	*cfg = (struct worker_config){
		.host = "127.0.0.1",
		.engine = {.block_size = 16,
			   .num_blocks = 16384,
			   .max_num_seqs = 256,
			   .prefill_tokens_per_s = 50000,
			   .decode_ms_per_token = 10,
			   .speedup = 1},
		.max_model_len = 131072,
		.kv_lease_s = 30,
		.seed = 1,
		.faults = {.fail_status = 500,
			   .fail_retry_after_s = -1,
			   .crash_after = -1,
			   .stall_after = -1,
			   .close_after = -1},
	};
}
