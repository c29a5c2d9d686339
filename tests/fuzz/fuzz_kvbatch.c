/*
 * Any bytes as a batch of KV events: it is read, or refused with a sentence; an event that is read
 * has what its kind needs, within its limits. What was read goes into an index as the router does
 * it, which agrees with a count of its own.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/router/fleet/kvbatch.h"
#include "lib/router/fleet/kvindex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void take(void *ctx, const struct kvevent *e)
{
	struct kvindex *x = ctx;
	uint64_t block;
	uint32_t sum = 0;

	if (e->kind != KVEVENT_CLEARED && e->n > 0 && !e->hash)
		abort();
	if (e->tier > 3 || (e->kind == KVEVENT_STORED && e->block_size == 0))
		abort();
	for (size_t i = 0; e->kind == KVEVENT_STORED && i < e->n; i++) {
		for (uint32_t t = 0; t < e->block_size; t++)
			sum += e->token[i * e->block_size + t];
		if (kvindex_put(x, e->hash[i], sum, e->tier) != PD_OK)
			abort();
		if (!kvindex_get(x, e->hash[i], &block) || block != sum)
			abort();
	}
	for (size_t i = 0; e->kind == KVEVENT_REMOVED && i < e->n; i++) {
		size_t before = x->n;

		if (kvindex_remove(x, e->hash[i], e->tier, &block) &&
		    kvindex_remove(x, e->hash[i], e->tier, &block))
			abort();
		if (x->n > before)
			abort();
	}
	if (e->kind == KVEVENT_CLEARED)
		kvindex_release(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct kvindex x = {0};
	struct pd_msg msg = {0};
	size_t used = 0;
	int rank, err;

	err = kvbatch_read((struct span){(const char *)data, n}, take, &x, &rank, &msg);
	if (err && !msg.text[0])
		abort();
	if (rank < -1)
		abort();
	for (size_t i = 0; i < x.cap; i++)
		used += x.at[i].tiers != 0;
	if (used != x.n)
		abort();
	kvindex_release(&x);
	return 0;
}
