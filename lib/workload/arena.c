#include "lib/workload/arena.h"

#include <stdlib.h>

#define BLOCK ((size_t)256 << 10)

struct arena_block {
	struct arena_block *next;
	size_t used, cap;
	char text[];
};

void arena_init(struct arena *a, size_t max)
{
	*a = (struct arena){.max = max};
}

void arena_release(struct arena *a)
{
	while (a->block) {
		struct arena_block *b = a->block;

		a->block = b->next;
		free(b);
	}
	arena_init(a, a->max);
}

int arena_copy(struct arena *a, struct span text, struct span *out)
{
	struct arena_block *b = a->block;

	if (text.n > a->max - a->used)
		return PD_ETOOBIG;
	if (!b || b->cap - b->used < text.n) {
		size_t cap = text.n > BLOCK / 4 ? text.n : BLOCK;

		b = malloc(sizeof(*b) + cap);
		if (!b)
			return PD_ENOMEM;
		b->used = 0;
		b->cap = cap;
		/* a big text has a block of its own, behind the one that still has room */
		if (cap != BLOCK && a->block) {
			b->next = a->block->next;
			a->block->next = b;
		} else {
			b->next = a->block;
			a->block = b;
		}
	}
	if (text.n > 0)
		memcpy(b->text + b->used, text.p, text.n);
	*out = (struct span){b->text + b->used, text.n};
	b->used += text.n;
	a->used += text.n;
	return PD_OK;
}
