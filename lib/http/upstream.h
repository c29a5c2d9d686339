/*
 * Idle keep-alive connections to one worker: a mutex and a stack, last in first out, so that hot
 * connections stay hot and the rest age out. Thread-safe. A pooled connection is idle by
 * definition: nobody reads from it.
 */
#ifndef PD_HTTP_UPSTREAM_H
#define PD_HTTP_UPSTREAM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct http_idle {
	int fd;
	int64_t since; /* monotonic ns */
};

struct http_pool {
	pthread_mutex_t lock;
	struct http_idle *idle; /* owned; oldest first */
	size_t n, cap, max;
	int64_t max_idle_ns;
	bool closed; /* put closes at once: the worker was removed */
};

int http_pool_init(struct http_pool *p, size_t max, int64_t max_idle_ns) PD_MUST;
/* Closes what is idle and refuses more; http_pool_release must still follow. */
void http_pool_close(struct http_pool *p);
void http_pool_release(struct http_pool *p);
/* The most recently used connection that is still usable; false when there is none. */
bool http_pool_get(struct http_pool *p, int64_t now, struct http_idle *out);
/* Gives a connection (back); it is closed when the pool is full or closed. */
void http_pool_put(struct http_pool *p, const struct http_idle *c);
/* Closes connections that are idle for too long. */
void http_pool_trim(struct http_pool *p, int64_t now);
/* Drops all idle connections (the worker was seen dead). */
void http_pool_flush(struct http_pool *p);
size_t http_pool_idle(struct http_pool *p);

#endif
