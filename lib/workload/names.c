/* Open addressing at most half full; the full hash is kept so that growing does not read the names
 * again. */
#include "lib/workload/names.h"

#include <stdlib.h>
#include <xxhash.h>

struct names_slot {
	uint64_t hash;
	struct span name;
	uint32_t number;
	bool used;
};

void names_init(struct names *t)
{
	*t = (struct names){0};
}

void names_release(struct names *t)
{
	free(t->slot);
	names_init(t);
}

static struct names_slot *find(struct names_slot *slot, size_t cap, uint64_t hash, struct span name)
{
	size_t i = hash & (cap - 1);

	while (slot[i].used && !(slot[i].hash == hash && span_eq(slot[i].name, name)))
		i = (i + 1) & (cap - 1);
	return &slot[i];
}

static int grow(struct names *t)
{
	size_t cap = t->cap ? t->cap * 2 : 1024;
	struct names_slot *slot = calloc(cap, sizeof(*slot));

	if (!slot)
		return PD_ENOMEM;
	for (size_t i = 0; i < t->cap; i++)
		if (t->slot[i].used)
			*find(slot, cap, t->slot[i].hash, t->slot[i].name) = t->slot[i];
	free(t->slot);
	t->slot = slot;
	t->cap = cap;
	return PD_OK;
}

int names_number(struct names *t, struct span name, uint32_t *out)
{
	uint64_t hash = XXH3_64bits(name.p, name.n);
	struct names_slot *s;

	if ((size_t)t->n * 2 >= t->cap && grow(t))
		return PD_ENOMEM;
	s = find(t->slot, t->cap, hash, name);
	if (!s->used)
		*s = (struct names_slot){hash, name, t->n++, true};
	*out = s->number;
	return PD_OK;
}

bool names_find(const struct names *t, struct span name, uint32_t *out)
{
	const struct names_slot *s;

	if (t->cap == 0)
		return false;
	s = find(t->slot, t->cap, XXH3_64bits(name.p, name.n), name);
	if (s->used)
		*out = s->number;
	return s->used;
}
