#include "lib/route/score/score_arena.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "lib/route/score/stage.h"

struct score_block {
	struct score_block *before;
	_Alignas(max_align_t) unsigned char data[];
};

void *score_arena_get(struct score_arena *a, size_t size)
{
	struct score_block *b = calloc(1, sizeof(*b) + size);

	if (!b)
		return NULL;
	b->before = a->last;
	a->last = b;
	return b->data;
}

const char *score_lower(struct score_arena *a, const char *text)
{
	char *copy = score_arena_get(a, strlen(text) + 1);

	for (size_t i = 0; copy && text[i]; i++)
		copy[i] = (char)tolower((unsigned char)text[i]);
	return copy;
}

void score_arena_release(struct score_arena *a)
{
	while (a->last) {
		struct score_block *before = a->last->before;

		free(a->last);
		a->last = before;
	}
}
