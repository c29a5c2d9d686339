/*
 * Peaks are dense bf16 figures of the vendors' data sheets. What is reached of them, and the fixed
 * costs of a step, are published figures, none of them chosen for a measured run; docs/profiles.md
 * names the sources and says how far the prior is off.
 */
#include "sim/engine/hardware.h"

#include <math.h>
#include <string.h>

#define UTILISATION 0.9 /* gpu_memory_utilization */
#define GIB	    1073741824.0

#define MEMORY	   0.775 /* of the bandwidth: the middle of what is published */
#define STEP_US	   126.0 /* fixed costs of a step, of a layer in it, of a decoding request */
#define LAYER_US   32.1
#define REQUEST_US 4.42

static const struct hardware_gpu gpus[] = {
	{"NVIDIA H100", "h100", 989.5, 3.35, 80, 450, 0.80, MEMORY},
	{"NVIDIA H200", "h200", 989.5, 4.8, 141, 450, 0.84, MEMORY},
	{"NVIDIA A100-SXM4-80GB", "a100", 312, 2.039, 80, 300, 0.87, MEMORY},
	{"NVIDIA L40S", "l40s", 362.05, 0.864, 48, 32, 0.92, MEMORY},
	{"NVIDIA RTX PRO 6000", "rtx pro 6000", 503.8, 1.792, 96, 64, 0.776, MEMORY},
	{"NVIDIA RTX PRO 6000", "rtxpro6000", 503.8, 1.792, 96, 64, 0.776, MEMORY},
	{"NVIDIA GeForce RTX 4090", "rtx 4090", 165.2, 1.008, 24, 32, 0.92, MEMORY},
	{"NVIDIA GeForce RTX 4090", "rtx4090", 165.2, 1.008, 24, 32, 0.92, MEMORY},
};

static const struct hardware_model models[] = {
	{"Llama-3.1-8B", "llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, 0, 0},
	{"Llama-3.1-70B", "llama-3.1-70b", 80, 8192, 64, 8, 128, 28672, 128256, 0, 0},
	{"Llama-3.3-70B", "llama-3.3-70b", 80, 8192, 64, 8, 128, 28672, 128256, 0, 0},
	{"Qwen3-8B", "qwen3-8b", 36, 4096, 32, 8, 128, 12288, 151936, 0, 0},
	{"Qwen3-14B", "qwen3-14b", 40, 5120, 40, 8, 128, 17408, 151936, 0, 0},
	{"Qwen3-32B", "qwen3-32b", 64, 5120, 64, 8, 128, 25600, 151936, 0, 0},
	{"Qwen3-30B-A3B", "qwen3-30b-a3b", 48, 2048, 32, 4, 128, 768, 151936, 128, 8},
	{"Mixtral-8x7B", "mixtral-8x7b", 32, 4096, 32, 8, 128, 14336, 32000, 8, 2},
};

/* strcasestr, without its being an extension. */
static bool contains(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (; text && *text; text++)
		if (strncasecmp(text, key, n) == 0)
			return true;
	return false;
}

const struct hardware_gpu *hardware_gpu_find(const char *text)
{
	for (size_t i = 0; i < sizeof(gpus) / sizeof(gpus[0]); i++)
		if (contains(text, gpus[i].key))
			return &gpus[i];
	return NULL;
}

const struct hardware_model *hardware_model_find(const char *text)
{
	for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++)
		if (contains(text, models[i].key))
			return &models[i];
	return NULL;
}

/* Parameters of one layer: attention, and of one expert (or the whole feed-forward part). */
static double attention(const struct hardware_model *m)
{
	double q = (double)m->heads * m->head_size, kv = (double)m->kv_heads * m->head_size;

	return m->width * (2 * q + 2 * kv);
}

static double feed_forward(const struct hardware_model *m)
{
	return 3.0 * m->width * m->ffn;
}

/* Bytes that one GPU reads when `experts` experts of each layer are in use. */
static double weights(const struct hardware_setup *h, double experts)
{
	const struct hardware_model *m = h->model;
	double spread = h->expert ? (double)h->tensor * h->data : h->tensor;

	if (m->experts == 0) {
		experts = 1;
		spread = h->tensor;
	}
	return h->weight_bytes *
	       (m->layers * (attention(m) / h->tensor + experts * feed_forward(m) / spread) +
		(double)m->width * m->vocab / h->tensor);
}

static struct stepcost costs(const struct hardware_setup *h, double experts)
{
	const struct hardware_model *m = h->model;
	double peak = h->gpu->tflops * 1e6 * h->tensor, bytes = h->gpu->hbm_tbs * 1e6;
	double flops =
		2 * m->layers * (attention(m) + (m->active ? m->active : 1) * feed_forward(m));

	return (struct stepcost){.a = weights(h, experts) / bytes,
				 .b = flops / peak,
				 .d = 4.0 * m->layers * m->kv_heads * m->head_size / h->tensor /
				      bytes,
				 .e = 4.0 * m->layers * m->heads * m->head_size / peak};
}

struct stepcost hardware_floor(const struct hardware_setup *h)
{
	return costs(h, h->model->active);
}

struct stepcost hardware_prior(const struct hardware_setup *h)
{
	const struct hardware_model *m = h->model;
	struct stepcost c = costs(h, m->experts);
	double ring = 2.0 * (h->tensor - 1) / h->tensor;

	c.a /= h->gpu->memory;
	c.b /= h->gpu->compute;
	c.d /= h->gpu->memory;
	c.e /= h->gpu->compute;
	c.a += STEP_US + m->layers * LAYER_US;
	c.c += REQUEST_US;
	/* Two sums over the group per layer: a latency each, and a token's activations. */
	if (h->tensor > 1) {
		c.a += m->layers * 2 * 8.0;
		c.b += m->layers * 2 * (m->width * 2.0) * ring / (h->gpu->link_gbs * 1e3);
		c.c += m->layers * 2 * (m->width * 2.0) * ring / (h->gpu->link_gbs * 1e3);
	}
	return c;
}

uint32_t hardware_blocks(const struct hardware_setup *h, uint32_t block_size)
{
	const struct hardware_model *m = h->model;
	double all = h->gpu->gib * GIB * UTILISATION;
	double taken = weights(h, m->experts ? m->experts : 1) +
		       h->weight_bytes * m->width * m->vocab / h->tensor +
		       (m->experts ? 8 : 5.5) * GIB / h->tensor + 0.6 * GIB;
	double kv_heads = m->kv_heads > h->tensor ? (double)m->kv_heads / h->tensor : 1;
	double block = 4.0 * m->layers * kv_heads * m->head_size * block_size;

	return all > taken ? (uint32_t)floor((all - taken) / block) : 0;
}
