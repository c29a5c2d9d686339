/*
 * The connections to one server: those that are idle and kept, those that calls (client.h) are
 * using, and counters of all of them. Idle ones are
 * a stack for each event loop (a connection lives with the loop that opened it), last in first out,
 * so that hot connections stay hot and the rest age out. Thread-safe. An idle connection has no
 * reader.
 *
 * A call under way is listed, so that another thread can see when the server last said something
 * (http_pool_watch) and end calls that it will not answer (http_pool_cut). What a call writes for
 * that are atomics of its own.
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

/* A call under way, embedded in it. */
struct http_use {
	struct http_shelf *shelf; /* NULL: not listed; the owner's alone */
	size_t place;		  /* there */
	int fd;
	int64_t begun;	       /* monotonic ns */
	_Atomic int64_t heard; /* the last bytes of the answer; 0: none yet */
	_Atomic bool away;     /* it does not wait for the server now */
	_Atomic bool cut;      /* http_pool_cut ended it */
	int64_t gap;	       /* its longest wait that bytes have ended, ns */
};

/* What can be seen of a server's calls. Times are monotonic ns, 0: none. */
struct http_watch {
	unsigned calls, waiting; /* under way; those that wait for the server */
	int64_t unanswered;	 /* when the oldest one without a byte began */
	int64_t silent;		 /* when the server last said something to the one that has waited
				    longest; its begin when it was never answered */
	int64_t begun;		 /* when the oldest one that waits began */
	int64_t heard;		 /* the last bytes of any call, also of those that have ended */
	int64_t gap;		 /* the longest wait that bytes ended lately; fades, half in 45 s */
};

struct http_pool {
	struct http_shelf *_Atomic shelf[LOOPS_MAX + 1]; /* owned; made when first needed */
	size_t max;					 /* in all */
	int64_t max_idle_ns;
	_Atomic size_t n;
	_Atomic bool closed; /* put closes at once: the server was removed */
	int64_t faded;	     /* http_pool_watch's own */
	/* Kept by client.c, but for `ended`: connections closed, idle or after use. */
	_Atomic uint64_t connects, connect_failures, reused, stale, ended;
};

int http_pool_init(struct http_pool *p, size_t max, int64_t max_idle_ns) PD_MUST;
/* Closes what is idle and refuses more; http_pool_release must still follow. */
void http_pool_close(struct http_pool *p);
void http_pool_release(struct http_pool *p);
/* The connection of the calling loop that was used last and is still usable; NULL when there is
 * none. `u` is listed then. */
struct stream *http_pool_get(struct http_pool *p, int64_t now, struct http_use *u);
/* A new connection is about to be opened: lists `u`. */
void http_pool_use(struct http_pool *p, const struct stream *s, int64_t now, struct http_use *u);
/* `u` is not listed any more: before its stream is closed. Nothing when it is not. */
void http_use_end(struct http_use *u);
/* Takes a connection (back); it is closed when the pool is full or closed. Ends `u`. */
void http_pool_put(struct http_pool *p, struct stream *s, int64_t now, struct http_use *u);
/* Closes a connection that is not to be used again. Ends `u`. */
void http_pool_end(struct http_pool *p, struct stream *s, struct http_use *u);
/* From one thread at a time: what it says of the past fades with each look. */
void http_pool_watch(struct http_pool *p, int64_t now, struct http_watch *out);
/* The same from any thread; nothing fades. */
void http_pool_look(struct http_pool *p, struct http_watch *out);
/* Ends the calls that wait and have heard nothing since `before`: their connections are shut down,
 * which ends every wait on any thread. Returns how many. */
unsigned http_pool_cut(struct http_pool *p, int64_t before);
/* Closes connections that are idle for too long. */
void http_pool_trim(struct http_pool *p, int64_t now);
/* Drops all idle connections (the server was seen dead). */
void http_pool_flush(struct http_pool *p);
size_t http_pool_idle(struct http_pool *p);

#endif
