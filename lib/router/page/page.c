/* The flag `watched` is all that a request reads while nobody looks. */
#include "lib/router/page/page.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/router/page/page_text.h"

int page_new(struct page **out, const struct page_config *c)
{
	struct page *p = calloc(1, sizeof(*p));

	*out = NULL;
	if (!p)
		return PD_ENOMEM;
	p->cfg = *c;
	buf_init(&p->state, PAGE_STATE_MAX);
	if (page_ring_init(&p->ring)) {
		free(p);
		return PD_ENOMEM;
	}
	if (pthread_mutex_init(&p->lock, NULL) != 0) {
		page_ring_release(&p->ring);
		free(p);
		return PD_ENOMEM;
	}
	*out = p;
	return PD_OK;
}

void page_stop(struct page *p)
{
	if (!p)
		return;
	atomic_store(&p->ending, true);
	(void)pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->viewers; i++)
		http_conn_wake(p->viewer[i]);
	(void)pthread_mutex_unlock(&p->lock);
}

void page_free(struct page *p)
{
	if (!p)
		return;
	for (int r = 0; r < ROLES; r++)
		free(p->shares[r].of);
	buf_release(&p->state);
	page_ring_release(&p->ring);
	(void)pthread_mutex_destroy(&p->lock);
	free(p);
}

int page_look(struct page *p)
{
	int err = page_ring_open(&p->ring);

	atomic_store(&p->until, clock_now() + PAGE_KEEP);
	if (!err)
		atomic_store(&p->watched, true);
	return err;
}

void page_tick(struct page *p, int64_t now)
{
	if (!p || !atomic_load(&p->watched) || now < atomic_load(&p->until))
		return;
	atomic_store(&p->watched, false);
	page_ring_clear(&p->ring);
}

bool page_enter(struct page *p, struct http_conn *c)
{
	bool entered = false;

	(void)pthread_mutex_lock(&p->lock);
	if (p->viewers < PAGE_VIEWERS && !atomic_load(&p->ending)) {
		p->viewer[p->viewers++] = c;
		entered = true;
	}
	(void)pthread_mutex_unlock(&p->lock);
	return entered;
}

void page_leave(struct page *p, struct http_conn *c)
{
	(void)pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->viewers; i++) {
		if (p->viewer[i] != c)
			continue;
		p->viewer[i] = p->viewer[--p->viewers];
		break;
	}
	(void)pthread_mutex_unlock(&p->lock);
}

static bool is_watched(const struct page *p)
{
	return p && atomic_load_explicit(&p->watched, memory_order_relaxed);
}

void page_decided(const struct record *r)
{
	struct page *p = r->to->page;
	struct span key;
	struct buf b;

	if (!is_watched(p))
		return;
	buf_init(&b, PAGE_TEXT_MAX);
	if (page_text_decision(r, &b, &key) == PD_OK)
		(void)page_ring_add(&p->ring, key, buf_span(&b));
	buf_release(&b);
}

/* Where a worker's tokens come from; decode's, with P/D. */
static struct worker *streamer(const struct record *r)
{
	const struct worker *w = r->pick[ROLE_DECODE].worker ? r->pick[ROLE_DECODE].worker
							     : r->pick[ROLE_REGULAR].worker;

	return (struct worker *)(uintptr_t)w; /* for its counters */
}

static void add_time(_Atomic uint64_t *n, _Atomic uint64_t *sum_us, int64_t ns, uint64_t count)
{
	if (ns < 0)
		return;
	atomic_fetch_add_explicit(n, count, memory_order_relaxed);
	atomic_fetch_add_explicit(sum_us, (uint64_t)ns / 1000, memory_order_relaxed);
}

void page_ended(const struct record *r)
{
	const struct record_times *t = &r->time;
	struct worker *w = streamer(r);

	if (!is_watched(r->to->page) || !w || !r->streaming || !t->first || r->status >= 400)
		return;
	add_time(&w->page.first_n, &w->page.first_us, t->first - t->accepted, 1);
	if (r->events > 1 && t->last > t->first)
		add_time(&w->page.gap_n, &w->page.gap_us, t->last - t->first, r->events - 1);
}
