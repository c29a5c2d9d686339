/*
 * A named engine in a YAML file: how long its steps take, its limits, and how far it may be
 * trusted. Written by `simulate --calibrate`, read by `simulate` and `worker` (--profile).
 */
#ifndef PD_SIM_ENGINE_PROFILE_H
#define PD_SIM_ENGINE_PROFILE_H

#include "lib/base/buf.h"
#include "sim/engine/params.h"

#define PROFILE_TEXT_MAX 200

struct profile {
	char name[PROFILE_TEXT_MAX], model[PROFILE_TEXT_MAX], gpu[PROFILE_TEXT_MAX],
		engine[PROFILE_TEXT_MAX], source[PROFILE_TEXT_MAX];
	struct stepcost cost;
	uint32_t max_num_seqs, max_num_batched_tokens; /* 0: not said */
	uint32_t block_size, num_blocks; /* num_blocks with the null block; 0: not said */
	uint32_t tensor_parallel, data_parallel;
	bool expert_parallel;
	/* Of the fit; band_percent < 0: none. */
	uint32_t fitted, tested; /* requests */
	double condition;
	double band_percent; /* the greatest mean error on requests that were not fitted */
};

#define PROFILE_DEFAULTS                                                                           \
	((struct profile){.tensor_parallel = 1, .data_parallel = 1, .band_percent = -1})

/* PD_EINVAL: the message begins with "FILE:LINE:COLUMN: ". A profile that breaks the floors of its
 * hardware is read; *warning says so (empty: nothing to say). */
int profile_load(struct profile *p, const char *path, struct pd_msg *warning,
		 struct pd_msg *msg) PD_MUST;
int profile_write(const struct profile *p, struct buf *out) PD_MUST;

/* What the profile says in the words of options; what it does not say stays. */
void profile_apply(const struct profile *p, struct engine_params *params);

/* Appends which costs are below what the hardware allows, if it is known. */
void profile_floors(const struct profile *p, struct pd_msg *warning);

#endif
