/*
 * What data sheets and model configurations say about the time of a step: floors that no engine can
 * be below, and a prior for hardware that nobody has measured.
 *
 * Floors, per GPU of a tensor-parallel group: a >= bytes of the weights that every step reads / HBM
 * bandwidth; b >= floating-point operations per token / peak; d >= KV bytes per token / bandwidth;
 * e >= 4 * layers * heads * head size / peak. The prior divides them by what engines reach of the
 * peak, and adds the exchange of a tensor-parallel group.
 */
#ifndef PD_SIM_ENGINE_HARDWARE_H
#define PD_SIM_ENGINE_HARDWARE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/engine/stepcost.h"

struct hardware_gpu {
	const char *name, *key; /* key: how device names and file names contain it */
	double tflops;		/* bf16, dense */
	double hbm_tbs, gib;
	double link_gbs;	/* to the others of its group, one way */
	double compute, memory; /* what engines reach of the peaks: see docs/profiles.md */
};

struct hardware_model {
	const char *name, *key;
	uint32_t layers, width, heads, kv_heads, head_size, ffn, vocab;
	uint32_t experts, active; /* 0: dense */
};

/* NULL: not known. `text` contains the key, in any case. */
const struct hardware_gpu *hardware_gpu_find(const char *text);
const struct hardware_model *hardware_model_find(const char *text);

/* How far means that follow from the prior were off, at most, on measured runs (docs/profiles.md),
 * in percent and rounded up. */
#define HARDWARE_PRIOR_BAND 20.0

struct hardware_setup {
	const struct hardware_gpu *gpu;
	const struct hardware_model *model;
	uint32_t tensor, data; /* parallel sizes */
	bool expert;	       /* experts are spread over tensor * data */
	double weight_bytes;   /* per parameter: 2 for bf16, 1 for fp8 */
};

struct stepcost hardware_floor(const struct hardware_setup *h);
struct stepcost hardware_prior(const struct hardware_setup *h);
/* KV blocks of one rank with gpu_memory_utilization 0.9, the null block included; 0: the weights
 * alone do not fit. */
uint32_t hardware_blocks(const struct hardware_setup *h, uint32_t block_size);

#endif
