/* Entries lie in one block, number i at i modulo the size. */
#include "lib/router/page/page_ring.h"

#include <stdlib.h>
#include <string.h>

#define READ_STEP 16 /* entries that are copied or looked at without letting others in */

int page_ring_init(struct page_ring *r)
{
	memset(r, 0, sizeof(*r));
	return pthread_mutex_init(&r->lock, NULL) == 0 ? PD_OK : PD_ENOMEM;
}

void page_ring_release(struct page_ring *r)
{
	free(r->entry);
	(void)pthread_mutex_destroy(&r->lock);
}

int page_ring_open(struct page_ring *r)
{
	int err = PD_OK;

	(void)pthread_mutex_lock(&r->lock);
	if (!r->entry)
		r->entry = calloc(PAGE_RING_MAX, sizeof(*r->entry));
	if (!r->entry)
		err = PD_ENOMEM;
	(void)pthread_mutex_unlock(&r->lock);
	return err;
}

void page_ring_clear(struct page_ring *r)
{
	(void)pthread_mutex_lock(&r->lock);
	free(r->entry);
	r->entry = NULL;
	/* Whatever number a reader remembers, nothing before this one is there. */
	r->next += PAGE_RING_MAX;
	(void)pthread_mutex_unlock(&r->lock);
}

bool page_ring_add(struct page_ring *r, struct span key, struct span text)
{
	struct page_entry *e;
	bool added = false;

	if (text.n > PAGE_TEXT_MAX)
		return false;
	if (key.n > ROUTE_KEY_MAX)
		key.n = ROUTE_KEY_MAX;
	(void)pthread_mutex_lock(&r->lock);
	if (r->entry) {
		e = &r->entry[r->next++ % PAGE_RING_MAX];
		e->key_n = key.n;
		e->text_n = text.n;
		if (key.n > 0)
			memcpy(e->key, key.p, key.n);
		memcpy(e->text, text.p, text.n);
		added = true;
	}
	(void)pthread_mutex_unlock(&r->lock);
	return added;
}

uint64_t page_ring_next(struct page_ring *r)
{
	uint64_t next;

	(void)pthread_mutex_lock(&r->lock);
	next = r->next;
	(void)pthread_mutex_unlock(&r->lock);
	return next;
}

/* The number of the oldest entry that is there. Under the lock. */
static uint64_t oldest(const struct page_ring *r)
{
	return r->next > PAGE_RING_MAX ? r->next - PAGE_RING_MAX : 0;
}

static int put_entry(const struct page_ring *r, uint64_t number, struct buf *out, bool *first)
{
	const struct page_entry *e = &r->entry[number % PAGE_RING_MAX];
	int err;

	if (e->text_n == 0)
		return PD_OK; /* cleared since */
	err = *first ? PD_OK : buf_putc(out, ',');
	*first = false;
	return err ? err : buf_append(out, e->text, e->text_n);
}

int page_ring_read(struct page_ring *r, uint64_t *from, size_t max, uint64_t *missed,
		   struct buf *out)
{
	uint64_t end = page_ring_next(r), begin = *from;
	bool first = true;
	int err = PD_OK;

	if (end - begin > max)
		begin = end - max;
	while (!err && begin < end) {
		uint64_t stop = end - begin < READ_STEP ? end : begin + READ_STEP;

		(void)pthread_mutex_lock(&r->lock);
		if (begin < oldest(r))
			begin = oldest(r) < end ? oldest(r) : end;
		for (; !err && r->entry && begin < stop; begin++) {
			err = put_entry(r, begin, out, &first);
			*from += 1; /* what remains of the distance was missed */
		}
		if (!r->entry)
			begin = end;
		(void)pthread_mutex_unlock(&r->lock);
	}
	if (end > *from)
		*missed += end - *from;
	*from = end;
	return err;
}

int page_ring_find(struct page_ring *r, struct span key, size_t max, struct buf *out, size_t *n)
{
	uint64_t at = page_ring_next(r);
	bool first = true;
	int err = PD_OK;

	*n = 0;
	while (!err && at > 0 && *n < max) {
		(void)pthread_mutex_lock(&r->lock);
		for (unsigned i = 0; !err && i < READ_STEP && at > 0 && *n < max; i++) {
			const struct page_entry *e;

			if (!r->entry || at <= oldest(r)) {
				at = 0;
				break;
			}
			e = &r->entry[--at % PAGE_RING_MAX];
			if (e->key_n < key.n ||
			    (key.n > 0 && !memmem(e->key, e->key_n, key.p, key.n)))
				continue;
			if (e->text_n == 0)
				continue;
			err = put_entry(r, at, out, &first);
			++*n;
		}
		(void)pthread_mutex_unlock(&r->lock);
	}
	return err;
}
