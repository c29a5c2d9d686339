/*
 * Requests that wait for a worker of a pool, first come first served. What they wait for (a place
 * below a worker's cap, a worker that becomes available, a new worker) is not kept here: something
 * has changed when waitlist_call says so, and the first waiter looks whether it can go on. No
 * request overtakes: newcomers ask waitlist_ahead first. Thread-safe; on an empty list a call is
 * one load.
 *
 *	struct waiter w = {.conn = c, .ticket = clock_now()};
 *
 *	waitlist_join(l, &w);
 *	while (!(err = waitlist_turn(l, &w, deadline)) && try() == PD_EBUSY)
 *		waitlist_pass(l, &w);
 *	waitlist_leave(l, &w);
 */
#ifndef PD_ROUTER_WAITLIST_H
#define PD_ROUTER_WAITLIST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/http/server.h"

#define WAITLIST_NO_TICKET INT64_MAX /* of requests that have not waited yet */

/* On the waiter's stack while it is in a list. */
struct waiter {
	struct http_conn *conn;
	int64_t ticket; /* when it began to wait, monotonic ns: kept when it goes to another list */
	bool particular; /* it cannot use what others could: a failure says nothing about them */
	struct waiter *next;
	bool called;
};

struct waitlist {
	pthread_mutex_t lock;
	struct waiter *first;
	_Atomic int64_t head; /* ticket of the first; WAITLIST_NO_TICKET: the list is empty */
};

int waitlist_init(struct waitlist *l) PD_MUST;
void waitlist_release(struct waitlist *l);

/* Does a request wait that came before this ticket? */
static inline bool waitlist_ahead(const struct waitlist *l, int64_t ticket)
{
	return atomic_load(&l->head) < ticket;
}

/* Something may be free for a waiter: the first one looks. */
void waitlist_call(struct waitlist *l);

/* In the order of tickets. The first, and one behind particular waiters only, has its
 * turn at once: what it waits for may have become free in between. */
void waitlist_join(struct waitlist *l, struct waiter *w);
/* Waits for its turn. PD_OK, PD_ETIMEOUT, PD_ECANCELED (the client left). */
int waitlist_turn(struct waitlist *l, struct waiter *w, int64_t deadline) PD_MUST;
/* It could not go on. When it is particular the next one looks. */
void waitlist_pass(struct waitlist *l, struct waiter *w);
/* It goes on, goes elsewhere or gives up; the first of the others looks. */
void waitlist_leave(struct waitlist *l, struct waiter *w);

#endif
