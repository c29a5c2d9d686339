/* Open addressing with linear probing; a place that becomes free is filled by what stands behind
 * it. */
#include "lib/router/fleet/kvindex.h"

#include <stdlib.h>
#include <string.h>

void kvindex_release(struct kvindex *x)
{
	free(x->at);
	*x = (struct kvindex){0};
}

static size_t home_of(const struct kvindex *x, uint64_t hash)
{
	return (size_t)((hash * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (x->cap - 1);
}

/* The entry of the hash, or the free place where it belongs. */
static struct kvindex_entry *place(const struct kvindex *x, uint64_t hash)
{
	size_t i = home_of(x, hash);

	while (x->at[i].tiers && x->at[i].hash != hash)
		i = (i + 1) & (x->cap - 1);
	return &x->at[i];
}

static int grow(struct kvindex *x)
{
	struct kvindex bigger = {.cap = x->cap ? 2 * x->cap : 256, .n = x->n};

	bigger.at = calloc(bigger.cap, sizeof(*bigger.at));
	if (!bigger.at)
		return PD_ENOMEM;
	for (size_t i = 0; i < x->cap; i++)
		if (x->at[i].tiers)
			*place(&bigger, x->at[i].hash) = x->at[i];
	free(x->at);
	*x = bigger;
	return PD_OK;
}

int kvindex_put(struct kvindex *x, uint64_t hash, uint64_t block, unsigned tier)
{
	struct kvindex_entry *e;
	int err = PD_OK;

	if (2 * (x->n + 1) > x->cap)
		err = grow(x);
	if (err)
		return err;
	e = place(x, hash);
	if (!e->tiers && x->n == KVINDEX_MAX)
		return PD_EBUSY;
	x->n += e->tiers == 0;
	e->hash = hash;
	e->block = block;
	e->tiers |= (unsigned char)(1u << tier);
	return PD_OK;
}

bool kvindex_get(const struct kvindex *x, uint64_t hash, uint64_t *block)
{
	const struct kvindex_entry *e = x->cap ? place(x, hash) : NULL;

	if (!e || !e->tiers)
		return false;
	*block = e->block;
	return true;
}

bool kvindex_remove(struct kvindex *x, uint64_t hash, unsigned tier, uint64_t *block)
{
	struct kvindex_entry *e = x->cap ? place(x, hash) : NULL;
	size_t hole, i;

	if (!e || !(e->tiers & (1u << tier)))
		return false;
	*block = e->block;
	e->tiers &= (unsigned char)~(1u << tier);
	if (e->tiers)
		return true;
	x->n--;
	hole = i = (size_t)(e - x->at);
	for (;;) {
		i = (i + 1) & (x->cap - 1);
		if (!x->at[i].tiers)
			return true;
		/* What is at home behind the hole stays. */
		if (((i - home_of(x, x->at[i].hash)) & (x->cap - 1)) < ((i - hole) & (x->cap - 1)))
			continue;
		x->at[hole] = x->at[i];
		x->at[i].tiers = 0;
		hole = i;
	}
}
