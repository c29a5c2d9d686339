/*
 * Which worker made an id. What a worker keeps to itself (a stored response, a conversation, a
 * file, a batch, a video) is known to that worker only: a request that names its id goes there.
 *
 * The table is learnt from answers, bounded, and outlives reloads: it holds hashes of ids and of
 * workers' URLs, and forgets what was used least recently. Only requests of the collections below
 * /v1 that make such ids look at it or pay for it. Thread-safe but for `struct exchange`, which is
 * its owner's.
 */
#ifndef PD_ROUTER_FOLLOW_H
#define PD_ROUTER_FOLLOW_H

#include <pthread.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/span.h"
#include "lib/router/fleet/worker.h"

struct exchange;
struct follow_set;

#define FOLLOW_LOCKS 16

struct follow_table {
	struct follow_set *set; /* owned; NULL: nothing is remembered */
	size_t nsets;		/* a power of two */
	uint64_t seed;
	pthread_mutex_t lock[FOLLOW_LOCKS]; /* of the sets by number modulo FOLLOW_LOCKS */
};

/* Room for at least `entries` ids, up to twice as many; 0: none. PD_ENOMEM. */
int follow_init(struct follow_table *t, size_t entries) PD_MUST;
/* Also after a failed follow_init, or when all is zero. */
void follow_release(struct follow_table *t);

/* Does a request for this path make ids, or name one? */
bool follow_path(struct span path);
/* x->follows is set and the body was read: the worker that made an id of the request is picked
 * first, as long as it may be picked; then the policy decides. True: the request names an id. */
bool follow_pin(struct exchange *x);
/* The same for one worker that the request names otherwise. */
void follow_pin_to(struct exchange *x, enum worker_role role, const struct worker *w);
/*
 * A request that names an unknown id (the router was restarted, or has forgotten it) is tried on
 * one worker after the other, as long as they answer 404, which an engine says before it computes
 * anything: at most FOLLOW_SEEK_MAX of them. True: the leg's answer is such a 404, and there is
 * another worker to ask; then *it* is the next attempt.
 */
#define FOLLOW_SEEK_MAX 16
bool follow_seek_on(struct exchange *x, int status, int role);
/* It was answered otherwise: the id is that worker's, when it was a 2xx. */
void follow_found(struct exchange *x, int status);
/* The document that a worker answered: its ids are that worker's. */
void follow_learn(struct exchange *x, struct span doc);
/* Whole events of its answer, until one had an id: x->learns is false then. */
void follow_learn_events(struct exchange *x, struct span events);

#endif
