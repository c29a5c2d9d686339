/*
 * The last decisions, for people who look on: a ring of texts of bounded size, each with the
 * session key that it is found by. A newer one takes the place of the oldest. Thread-safe; the lock
 * is held for the copy of one entry when adding, and of a few when reading.
 */
#ifndef PD_ROUTER_PAGE_RING_H
#define PD_ROUTER_PAGE_RING_H

#include <pthread.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/route/key.h"

#define PAGE_RING_MAX 2048 /* decisions */
#define PAGE_TEXT_MAX 1600 /* bytes of one */

struct page_entry {
	size_t key_n, text_n;
	char key[ROUTE_KEY_MAX];
	char text[PAGE_TEXT_MAX]; /* a JSON object */
};

struct page_ring {
	pthread_mutex_t lock;
	struct page_entry *entry; /* owned; NULL until the first use */
	uint64_t next;		  /* the number of the next entry, from 0 */
};

int page_ring_init(struct page_ring *r) PD_MUST;
void page_ring_release(struct page_ring *r);
/* PD_ENOMEM: there is no memory for the entries. */
int page_ring_open(struct page_ring *r) PD_MUST;
/* Forgets all entries and gives their memory back; the numbers go on. */
void page_ring_clear(struct page_ring *r);
/* Copies; a longer key is cut. False: not open, or the text is longer than PAGE_TEXT_MAX. */
bool page_ring_add(struct page_ring *r, struct span key, struct span text);
uint64_t page_ring_next(struct page_ring *r);
/*
 * Appends those from number *from on, "{...},{...}", oldest first, and moves *from behind the last.
 * Of more than `max` the newest. *missed counts those that were left out or overwritten.
 */
int page_ring_read(struct page_ring *r, uint64_t *from, size_t max, uint64_t *missed,
		   struct buf *out) PD_MUST;
/* Those whose key has this text somewhere, newest first, at most `max`; *n: how many. */
int page_ring_find(struct page_ring *r, struct span key, size_t max, struct buf *out,
		   size_t *n) PD_MUST;

#endif
