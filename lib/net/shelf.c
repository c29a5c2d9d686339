/* A stack, so that the buffer given last, which the cache still holds, is the next to be taken. */
#include "lib/net/shelf.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define KEEP	    8
#define KEEP_LARGE  4
#define LARGE_MIN   (1u << 20)
#define LARGE_TOTAL (48u << 20)		/* bytes of large buffers that a thread keeps */
#define LARGE_ALL   ((size_t)256 << 20) /* and all threads together */

struct large {
	char *data;
	size_t cap;
};

static _Thread_local struct {
	char *data[KEEP];
	unsigned n;
	struct large large[KEEP_LARGE];
	unsigned nlarge;
	size_t total; /* of the large ones */
} kept;

static _Atomic size_t large_all; /* bytes of large buffers that threads keep */

static void count_large(size_t plus, size_t minus)
{
	kept.total += plus - minus;
	atomic_fetch_add_explicit(&large_all, plus - minus, memory_order_relaxed);
}

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

bool shelf_grow(struct buf *b, size_t more)
{
	struct large *best = NULL;

	for (unsigned i = 0; i < kept.nlarge; i++) {
		struct large *l = &kept.large[i];

		if (l->cap > b->len + more && l->cap <= b->max + 1 && (!best || l->cap > best->cap))
			best = l;
	}
	if (!best)
		return false;
	if (b->len > 0)
		memcpy(best->data, b->data, b->len);
	best->data[b->len] = '\0';
	free(b->data);
	b->data = best->data;
	b->cap = best->cap;
	count_large(0, best->cap);
	*best = kept.large[--kept.nlarge];
	return true;
}

static void give_large(struct buf *b)
{
	struct large *least = &kept.large[0];

	for (unsigned i = 1; i < kept.nlarge; i++)
		if (kept.large[i].cap < least->cap)
			least = &kept.large[i];
	if (kept.nlarge == KEEP_LARGE && least->cap < b->cap) {
		free(least->data);
		count_large(0, least->cap);
		*least = kept.large[--kept.nlarge];
	}
	if (kept.nlarge == KEEP_LARGE || kept.total + b->cap > LARGE_TOTAL ||
	    atomic_load_explicit(&large_all, memory_order_relaxed) + b->cap > LARGE_ALL) {
		buf_release(b);
		return;
	}
	kept.large[kept.nlarge++] = (struct large){b->data, b->cap};
	count_large(b->cap, 0);
	b->data = NULL;
	b->cap = 0;
}

void shelf_give(struct buf *b)
{
	if (!b->data || b->len > 0)
		return;
	if (b->cap >= LARGE_MIN) {
		give_large(b);
	} else if (b->cap != SHELF_BYTES || kept.n == KEEP) {
		buf_release(b);
	} else {
		kept.data[kept.n++] = b->data;
		b->data = NULL;
		b->cap = 0;
	}
}

void shelf_clear(void)
{
	while (kept.n > 0)
		free(kept.data[--kept.n]);
	while (kept.nlarge > 0)
		free(kept.large[--kept.nlarge].data);
	count_large(0, kept.total);
}
