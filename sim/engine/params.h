/*
 * An engine in the words of options and scenario files, and the stepper that it means.
 */
#ifndef PD_SIM_ENGINE_PARAMS_H
#define PD_SIM_ENGINE_PARAMS_H

#include "sim/engine/stepper.h"

struct engine_params {
	double step_ms;		     /* fixed cost of a step */
	double prefill_us;	     /* per prompt token computed */
	double attention_us;	     /* per prompt token and token that it attends to */
	double request_us;	     /* per decoding request in the step */
	double context_us;	     /* per token of context of the decoding requests */
	uint32_t max_num_seqs;	     /* requests in a batch */
	uint32_t max_batched_tokens; /* tokens in a step */
	uint64_t kv_tokens;  /* KV memory, shared by requests and prefix cache; 0: no limit */
	bool synchronous;    /* without asynchronous scheduling */
	char profile[64];    /* whose costs these are; \"\": the defaults or options */
	double band_percent; /* of its predictions; < 0: not known */
};

/* Llama-3.1-8B, bf16, on one H100: data-sheet floors at 65-70 % of the peak. Calibrated against
 * nothing. */
#define ENGINE_DEFAULTS                                                                            \
	((struct engine_params){.step_ms = 7.0,                                                    \
				.prefill_us = 22.0,                                                \
				.request_us = 0.0,                                                 \
				.context_us = 0.056,                                               \
				.max_num_seqs = 256,                                               \
				.max_batched_tokens = 8192})

/* PD_EINVAL when a parameter is not finite, negative, or a limit is 0, or a step would take no
 * time. */
int engine_params_check(const struct engine_params *p, struct pd_msg *msg) PD_MUST;

/* cache_blocks: another name of the memory, in blocks; 0: not said. The smaller of both counts. */
struct stepper_config engine_params_stepper(const struct engine_params *p, uint32_t block_size,
					    uint64_t cache_blocks);

#endif
