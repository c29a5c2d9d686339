/* A stack, so that the buffer given last, which the cache still holds, is the next to be taken. */
#include "lib/http/shelf.h"

#include <stdlib.h>

#define KEEP 8

static _Thread_local struct {
	char *data[KEEP];
	unsigned n;
} kept;

int shelf_take(struct buf *b)
{
	if (b->max + 1 < SHELF_BYTES)
		return PD_ETOOBIG;
	b->data = kept.n > 0 ? kept.data[--kept.n] : malloc(SHELF_BYTES);
	if (!b->data)
		return PD_ENOMEM;
	b->data[0] = '\0';
	b->len = 0;
	b->cap = SHELF_BYTES;
	return PD_OK;
}

void shelf_give(struct buf *b)
{
	if (!b->data || b->len > 0)
		return;
	if (b->cap != SHELF_BYTES || kept.n == KEEP) {
		buf_release(b);
		return;
	}
	kept.data[kept.n++] = b->data;
	b->data = NULL;
	b->cap = 0;
}

void shelf_clear(void)
{
	while (kept.n > 0)
		free(kept.data[--kept.n]);
}
