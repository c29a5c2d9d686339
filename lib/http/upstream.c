/*
 * Idle connections of one server as stacks: the one used last is the most likely to be alive and
 * warm, and the oldest gather at the bottom, where the trim ends them in one move. The loops never
 * meet at a lock; only the trim visits all of them.
 */
#include "lib/http/upstream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"

/* A connection that was in use a moment ago is not asked again whether it lives: that is a system
 * call per request. Not so when the loop has heard of bytes on it: no request asked for them, so
 * they would be taken for the answer to the next request. And not without a loop, which would hear.
 */
#define TRUST_NS (20 * NS_PER_MS)

struct http_shelf {
	pthread_mutex_t lock;
	struct http_idle *idle; /* owned; oldest first */
	size_t n, cap;
	struct use_place *place; /* owned; calls under way, and free places */
	size_t places, place_cap;
	size_t free;	    /* the first free place; == places: none */
	int64_t heard, gap; /* of the calls that have ended */
};

/* A list would be linked through the calls, which lie on the stacks of other fibers: two or three
 * lines of cold memory for each request. */
struct use_place {
	struct http_use *use; /* NULL: free */
	size_t next_free;
};

int http_pool_init(struct http_pool *p, size_t max, int64_t max_idle_ns)
{
	memset(p, 0, sizeof(*p));
	p->max = max;
	p->max_idle_ns = max_idle_ns;
	return PD_OK;
}

/* The calling loop's own; threads without a loop share the last one, so that the thread
 * of the next request finds the connection. */
static struct http_shelf *shelf_of(struct http_pool *p, bool make)
{
	struct loop *l = loop_self();
	struct http_shelf *_Atomic *at = &p->shelf[l ? loop_index(l) : LOOPS_MAX];
	struct http_shelf *s = atomic_load_explicit(at, memory_order_acquire), *other = NULL;

	if (s || !make)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	(void)pthread_mutex_init(&s->lock, NULL);
	if (atomic_compare_exchange_strong(at, &other, s))
		return s;
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
	return other;
}

/* Closes idle[0..k) and moves the rest down. Called with the lock held. */
static void drop_oldest(struct http_pool *p, struct http_shelf *s, size_t k)
{
	PD_CHECK(pd_lock_held(&s->lock) && k <= s->n);
	for (size_t i = 0; i < k; i++)
		stream_free(s->idle[i].stream);
	if (k > 0 && s->n > k)
		memmove(s->idle, s->idle + k, (s->n - k) * sizeof(*s->idle));
	s->n -= k;
	atomic_fetch_sub_explicit(&p->n, k, memory_order_relaxed);
	atomic_fetch_add_explicit(&p->ended, k, memory_order_relaxed);
}

/* Those of all shelves that have been idle since `before` or longer. */
static void drop_before(struct http_pool *p, int64_t before)
{
	for (size_t i = 0; i <= LOOPS_MAX; i++) {
		struct http_shelf *s = atomic_load_explicit(&p->shelf[i], memory_order_acquire);
		size_t k = 0;

		if (!s)
			continue;
		(void)pthread_mutex_lock(&s->lock);
		while (k < s->n && s->idle[k].since <= before)
			k++;
		drop_oldest(p, s, k);
		(void)pthread_mutex_unlock(&s->lock);
	}
}

void http_pool_flush(struct http_pool *p)
{
	drop_before(p, CLOCK_NEVER);
}

void http_pool_trim(struct http_pool *p, int64_t now)
{
	drop_before(p, now - p->max_idle_ns);
}

void http_pool_close(struct http_pool *p)
{
	atomic_store(&p->closed, true);
	http_pool_flush(p);
}

void http_pool_release(struct http_pool *p)
{
	http_pool_close(p);
	for (size_t i = 0; i <= LOOPS_MAX; i++) {
		struct http_shelf *s = atomic_load_explicit(&p->shelf[i], memory_order_acquire);

		if (!s)
			continue;
		(void)pthread_mutex_destroy(&s->lock);
		free(s->idle);
		free(s->place);
		free(s);
	}
}

/* -- calls under way: listed and taken out under a lock that a call takes anyway -- */

static bool make_place(struct http_shelf *s)
{
	size_t cap = s->place_cap ? s->place_cap * 2 : 8;
	struct use_place *place;

	if (s->places == s->place_cap) {
		place = realloc(s->place, cap * sizeof(*place));
		if (!place)
			return false;
		s->place = place;
		s->place_cap = cap;
	}
	s->place[s->places] = (struct use_place){.next_free = s->places + 1};
	s->places++;
	return true;
}

/* Without memory the call is not seen by others. */
static void use_begin(struct http_shelf *s, struct http_use *u, int fd, int64_t now)
{
	struct use_place *at;

	PD_CHECK(pd_lock_held(&s->lock) && !u->shelf);
	*u = (struct http_use){.fd = fd, .begun = now};
	if (s->free == s->places && !make_place(s))
		return;
	u->shelf = s;
	u->place = s->free;
	at = &s->place[u->place];
	s->free = at->next_free;
	at->use = u;
}

static void use_finish(struct http_use *u)
{
	struct http_shelf *s = u->shelf;
	int64_t heard = atomic_load_explicit(&u->heard, memory_order_relaxed);

	PD_CHECK(pd_lock_held(&s->lock) && s->place[u->place].use == u);
	s->place[u->place] = (struct use_place){.next_free = s->free};
	s->free = u->place;
	u->shelf = NULL;
	s->heard = heard > s->heard ? heard : s->heard;
	s->gap = u->gap > s->gap ? u->gap : s->gap;
}

void http_use_end(struct http_use *u)
{
	struct http_shelf *s = u->shelf;

	if (!s)
		return;
	(void)pthread_mutex_lock(&s->lock);
	use_finish(u);
	(void)pthread_mutex_unlock(&s->lock);
}

void http_pool_use(struct http_pool *p, const struct stream *stream, int64_t now,
		   struct http_use *u)
{
	struct http_shelf *s = shelf_of(p, true);

	if (!s)
		return;
	(void)pthread_mutex_lock(&s->lock);
	use_begin(s, u, stream->fd, now);
	(void)pthread_mutex_unlock(&s->lock);
}

static int64_t older(int64_t a, int64_t b)
{
	return a == 0 || b < a ? b : a;
}

static void watch_one(const struct http_use *u, struct http_watch *out)
{
	int64_t heard = atomic_load_explicit(&u->heard, memory_order_relaxed);

	out->calls++;
	out->heard = heard > out->heard ? heard : out->heard;
	if (heard == 0)
		out->unanswered = older(out->unanswered, u->begun);
	if (atomic_load_explicit(&u->away, memory_order_relaxed))
		return;
	out->waiting++;
	out->silent = older(out->silent, heard ? heard : u->begun);
	out->begun = older(out->begun, u->begun);
}

static void look(struct http_pool *p, int64_t fade, struct http_watch *out)
{
	*out = (struct http_watch){0};
	for (size_t i = 0; i <= LOOPS_MAX; i++) {
		struct http_shelf *s = atomic_load_explicit(&p->shelf[i], memory_order_acquire);

		if (!s)
			continue;
		(void)pthread_mutex_lock(&s->lock);
		for (size_t k = 0; k < s->places; k++)
			if (s->place[k].use)
				watch_one(s->place[k].use, out);
		s->gap -= fade ? s->gap / fade : 0;
		out->heard = s->heard > out->heard ? s->heard : out->heard;
		out->gap = s->gap > out->gap ? s->gap : out->gap;
		(void)pthread_mutex_unlock(&s->lock);
	}
}

void http_pool_watch(struct http_pool *p, int64_t now, struct http_watch *out)
{
	bool fade = now - p->faded >= NS_PER_S;

	p->faded = fade ? now : p->faded;
	look(p, fade ? 64 : 0, out);
}

void http_pool_look(struct http_pool *p, struct http_watch *out)
{
	look(p, 0, out);
}

unsigned http_pool_cut(struct http_pool *p, int64_t before)
{
	unsigned n = 0;

	for (size_t i = 0; i <= LOOPS_MAX; i++) {
		struct http_shelf *s = atomic_load_explicit(&p->shelf[i], memory_order_acquire);

		if (!s)
			continue;
		(void)pthread_mutex_lock(&s->lock);
		for (size_t k = 0; k < s->places; k++) {
			struct http_use *u = s->place[k].use;
			int64_t heard =
				u ? atomic_load_explicit(&u->heard, memory_order_relaxed) : 0;

			if (!u || (heard ? heard : u->begun) > before ||
			    atomic_load_explicit(&u->away, memory_order_relaxed) ||
			    atomic_exchange(&u->cut, true))
				continue;
			/* It is open: its owner takes it off this list before it closes it. */
			(void)shutdown(u->fd, SHUT_RDWR);
			n++;
		}
		(void)pthread_mutex_unlock(&s->lock);
	}
	return n;
}

/* -- idle connections, taken and given back -- */

static struct stream *pop(struct http_pool *p, struct http_shelf *s, int64_t *since, int64_t now,
			  struct http_use *u)
{
	struct stream *found = NULL;

	(void)pthread_mutex_lock(&s->lock);
	if (s->n > 0) {
		*since = s->idle[--s->n].since;
		found = s->idle[s->n].stream;
		use_begin(s, u, found->fd, now);
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (found)
		atomic_fetch_sub_explicit(&p->n, 1, memory_order_relaxed);
	return found;
}

void http_pool_end(struct http_pool *p, struct stream *s, struct http_use *u)
{
	http_use_end(u);
	stream_free(s);
	atomic_fetch_add_explicit(&p->ended, 1, memory_order_relaxed);
}

struct stream *http_pool_get(struct http_pool *p, int64_t now, struct http_use *u)
{
	struct http_shelf *shelf = shelf_of(p, false);
	struct stream *s;
	int64_t since = 0;

	while (shelf && (s = pop(p, shelf, &since, now, u))) {
		int64_t age = now - since;

		if (!s->ended && ((age < TRUST_NS && s->loop && !s->readable) ||
				  (age < p->max_idle_ns && stream_idle_ok(s))))
			return s;
		http_pool_end(p, s, u);
	}
	return NULL;
}

static bool room_for_one(struct http_pool *p, struct http_shelf *s)
{
	size_t cap = s->cap ? s->cap * 2 : 8;
	struct http_idle *idle;

	if (atomic_load(&p->closed) || atomic_load_explicit(&p->n, memory_order_relaxed) >= p->max)
		return false;
	if (s->n < s->cap)
		return true;
	idle = realloc(s->idle, cap * sizeof(*idle));
	if (!idle)
		return false;
	s->idle = idle;
	s->cap = cap;
	return true;
}

void http_pool_put(struct http_pool *p, struct stream *stream, int64_t now, struct http_use *u)
{
	struct http_shelf *s = shelf_of(p, true);
	bool kept = false;

	if (s) {
		(void)pthread_mutex_lock(&s->lock);
		if (u->shelf == s)
			use_finish(u);
		kept = room_for_one(p, s);
		if (kept) {
			s->idle[s->n++] = (struct http_idle){stream, now};
			atomic_fetch_add_explicit(&p->n, 1, memory_order_relaxed);
		}
		(void)pthread_mutex_unlock(&s->lock);
	}
	if (!kept)
		http_pool_end(p, stream, u);
}

size_t http_pool_idle(struct http_pool *p)
{
	return atomic_load_explicit(&p->n, memory_order_relaxed);
}
