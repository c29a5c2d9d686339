/*
 * Idle keep-alive connections to one server, and counters of all that its calls opened (client.h):
 * a stack for each event loop (a connection lives with the loop that opened it), last in first out,
 * so that hot connections stay hot and the rest age out. Thread-safe. An idle connection has no
 * reader.
 */
#ifndef PD_HTTP_UPSTREAM_H
#define PD_HTTP_UPSTREAM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/net/stream.h"

struct http_idle {
	struct stream *stream;
	int64_t since; /* monotonic ns */
};

struct http_shelf;

struct http_pool {
	struct http_shelf *_Atomic shelf[LOOPS_MAX + 1]; /* owned; made when first needed */
	size_t max;					 /* in all */
	int64_t max_idle_ns;
	_Atomic size_t n;
	_Atomic bool closed; /* put closes at once: the server was removed */
	/* Kept by client.c, but for `ended`: connections closed, idle or after use. */
	_Atomic uint64_t connects, connect_failures, reused, stale, ended;
};

int http_pool_init(struct http_pool *p, size_t max, int64_t max_idle_ns) PD_MUST;
/* Closes what is idle and refuses more; http_pool_release must still follow. */
void http_pool_close(struct http_pool *p);
void http_pool_release(struct http_pool *p);
/* The connection of the calling loop that was used last and is still usable; NULL when there is
 * none. */
struct stream *http_pool_get(struct http_pool *p, int64_t now);
/* Takes a connection (back); it is closed when the pool is full or closed. */
void http_pool_put(struct http_pool *p, struct stream *s, int64_t now);
/* Closes a connection that is not to be used again. */
void http_pool_end(struct http_pool *p, struct stream *s);
/* Closes connections that are idle for too long. */
void http_pool_trim(struct http_pool *p, int64_t now);
/* Drops all idle connections (the server was seen dead). */
void http_pool_flush(struct http_pool *p);
size_t http_pool_idle(struct http_pool *p);

#endif
