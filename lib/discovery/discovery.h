/*
 * Where workers come from besides flags, the workers file and the admin port. A source watches one
 * place on a thread of its own and publishes the whole list of what is there whenever it differs;
 * who takes it merges by source (lib/router/fleet). A source never says that a worker is healthy:
 * a new one takes traffic after its health check, and one that is not listed any more is drained.
 */
#ifndef PD_DISCOVERY_DISCOVERY_H
#define PD_DISCOVERY_DISCOVERY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/log.h"
#include "lib/route/pool.h"

#define DISCOVERY_WORKERS_MAX ROUTE_WORKERS_MAX
#define DISCOVERY_URL_MAX     512

enum discovery_role { DISCOVERY_REGULAR, DISCOVERY_PREFILL, DISCOVERY_DECODE };

struct discovery_worker {
	enum discovery_role role;
	char url[DISCOVERY_URL_MAX]; /* "http://host:port", with "@rank" when it is one of several
				      */
	char name[256];		     /* "": the URL */
	unsigned dp_size;	     /* ranks behind the URL; 0 or 1: one */
	int bootstrap;		     /* port; 0: none */
	struct route_labels labels;  /* owned */
};

struct discovery_list {
	struct discovery_worker *worker; /* owned */
	size_t n, cap;
};

/* One more entry, zeroed; NULL: out of memory, or DISCOVERY_WORKERS_MAX are there. Valid until the
 * next call. */
struct discovery_worker *discovery_add(struct discovery_list *l);
void discovery_release(struct discovery_list *l);
/* The same workers with the same labels, in the same order. */
bool discovery_same(const struct discovery_list *a, const struct discovery_list *b);

/* What a source says of itself, for metrics; atomics that its thread writes. */
struct discovery_stats {
	_Atomic uint64_t failures; /* answers that could not be had or used */
	_Atomic int64_t heard;	   /* the last good one, wall-clock ns; 0: none yet */
};

/* Who takes the lists. */
struct discovery_sink {
	/* On the source's thread; may block. The list is lent. */
	void (*publish)(void *ctx, const struct discovery_list *l);
	void *ctx;
	struct log *log;	       /* what a person should know; may be NULL */
	struct discovery_stats *stats; /* may be NULL */
};

/* Counts an answer: a good one now, or a failure. */
void discovery_note(const struct discovery_sink *s, bool good);
/* Publishes `now` when it differs from `last`, which it then is; empties it. On the source's
 * thread. */
void discovery_publish(const struct discovery_sink *s, struct discovery_list *last,
		       struct discovery_list *now);

#endif
