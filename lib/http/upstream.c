/*
 * Idle connections of one worker as a stack: the one used last is the most likely to be alive and
 * warm, and the oldest gather at the bottom, where the trim ends them in one move.
 */
#include "lib/http/upstream.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/http/net.h"

/* A connection that was in use a moment ago is not asked again whether it lives: that is a system
 * call per request. */
#define TRUST_NS (20 * NS_PER_MS)

int http_pool_init(struct http_pool *p, size_t max, int64_t max_idle_ns)
{
	*p = (struct http_pool){.max = max, .max_idle_ns = max_idle_ns};
	return pthread_mutex_init(&p->lock, NULL) == 0 ? PD_OK : PD_ENOMEM;
}

/* Closes idle[0..k) and moves the rest down. Called with the lock held. */
static void drop_oldest(struct http_pool *p, size_t k)
{
	for (size_t i = 0; i < k; i++)
		(void)close(p->idle[i].fd);
	if (k > 0 && p->n > k)
		memmove(p->idle, p->idle + k, (p->n - k) * sizeof(*p->idle));
	p->n -= k;
}

void http_pool_flush(struct http_pool *p)
{
	(void)pthread_mutex_lock(&p->lock);
	drop_oldest(p, p->n);
	(void)pthread_mutex_unlock(&p->lock);
}

void http_pool_close(struct http_pool *p)
{
	(void)pthread_mutex_lock(&p->lock);
	p->closed = true;
	drop_oldest(p, p->n);
	(void)pthread_mutex_unlock(&p->lock);
}

void http_pool_release(struct http_pool *p)
{
	http_pool_close(p);
	free(p->idle);
	(void)pthread_mutex_destroy(&p->lock);
}

static bool pop(struct http_pool *p, struct http_idle *out)
{
	bool found;

	(void)pthread_mutex_lock(&p->lock);
	found = p->n > 0;
	if (found)
		*out = p->idle[--p->n];
	(void)pthread_mutex_unlock(&p->lock);
	return found;
}

bool http_pool_get(struct http_pool *p, int64_t now, struct http_idle *out)
{
	while (pop(p, out)) {
		int64_t age = now - out->since;

		if (age < TRUST_NS || (age < p->max_idle_ns && net_idle_ok(out->fd)))
			return true;
		(void)close(out->fd);
	}
	return false;
}

static bool room_for_one(struct http_pool *p)
{
	size_t cap = p->cap ? p->cap * 2 : 8;
	struct http_idle *idle;

	if (p->closed || p->n >= p->max)
		return false;
	if (p->n < p->cap)
		return true;
	idle = realloc(p->idle, cap * sizeof(*idle));
	if (!idle)
		return false;
	p->idle = idle;
	p->cap = cap;
	return true;
}

void http_pool_put(struct http_pool *p, const struct http_idle *c)
{
	bool kept;

	(void)pthread_mutex_lock(&p->lock);
	kept = room_for_one(p);
	if (kept)
		p->idle[p->n++] = *c;
	(void)pthread_mutex_unlock(&p->lock);
	if (!kept)
		(void)close(c->fd);
}

void http_pool_trim(struct http_pool *p, int64_t now)
{
	size_t k = 0;

	(void)pthread_mutex_lock(&p->lock);
	while (k < p->n && now - p->idle[k].since >= p->max_idle_ns)
		k++;
	drop_oldest(p, k);
	(void)pthread_mutex_unlock(&p->lock);
}

size_t http_pool_idle(struct http_pool *p)
{
	size_t n;

	(void)pthread_mutex_lock(&p->lock);
	n = p->n;
	(void)pthread_mutex_unlock(&p->lock);
	return n;
}
