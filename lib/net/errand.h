/*
 * Errands: work that the asker must not do itself, because it reads files, looks names up or talks
 * to servers. A thread carries it out while the asker sleeps where it is: a handler on its fiber or
 * on its kernel thread. Functions are thread-safe unless they say otherwise.
 *
 * An errand is a member of the user's structure, which lives on the heap and has one reference for
 * each side:
 *
 *	struct look_up {
 *		struct errand errand;
 *		char name[256];
 *		struct net_addr found; // written by the thread, before errand_done
 *	};
 *
 *	errand_init(&l->errand, look_up_free);
 *	err = errand_do(errands, &l->errand, &sleeper, clock_now() + 5 * NS_PER_S);
 *	if (!err)
 *		use(&l->found);
 *	errand_drop(&l->errand); // also when it is still under way: the thread drops it last
 */
#ifndef PD_NET_ERRAND_H
#define PD_NET_ERRAND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

struct errands;
struct errand_waiter;

struct errand {
	struct errand *next;	       /* in the queue */
	struct errands *home;	       /* since it was posted */
	struct errand_waiter *waiters; /* this and the rest under the lock of `home` */
	bool done, ended;	       /* ended: it will not be done */
	bool unattended;	       /* posted without a waiter */
	_Atomic unsigned refs;
	void (*release)(struct errand *e);
};

/* How the asker sleeps (http_conn_sleeper has one for handlers). */
struct errand_sleeper {
	/* Until `wake`, also one that came before, or until the deadline (monotonic ns); may end
	 * early. True: the asker gives up. */
	bool (*sleep)(void *who, int64_t deadline);
	/* From any thread, with a lock held: must not wait. */
	void (*wake)(void *who);
	void *who;
};

/* -- the asker -- */

/* One reference, the caller's; `release` is called when the last one is dropped. */
void errand_init(struct errand *e, void (*release)(struct errand *e));
struct errand *errand_ref(struct errand *e);
void errand_drop(struct errand *e);
/* Into the queue, with a reference for the thread. PD_EBUSY: there are `max` errands, or the thread
 * is to end. */
int errand_post(struct errands *s, struct errand *e) PD_MUST;
/* Sleeps until a posted errand is done; any number may wait for one. PD_ETIMEOUT: it is still under
 * way. PD_ECANCELED: the asker gave up. PD_ECLOSED: the thread ended before. */
int errand_wait(struct errand *e, const struct errand_sleeper *who, int64_t deadline) PD_MUST;
/* Both. What it returns, and for the thread: as long as the asker sleeps the errand is wanted. */
int errand_do(struct errands *s, struct errand *e, const struct errand_sleeper *who,
	      int64_t deadline) PD_MUST;

/* -- the thread -- */

struct errands_config {
	const char *name; /* of the thread, up to 15 characters */
	unsigned max;	  /* errands that are queued or taken; more are refused */
	/* Takes errands, gets on with them, waits for more; called again and again until
	 * errands_stop. */
	void (*round)(struct errands *s, void *ctx);
	/* Ends the wait of a round, from any thread, also one that is about to begin; NULL: the
	 * round waits in errands_pause. */
	void (*wake)(void *ctx);
	void *ctx;
};

/* PD_ENOMEM. */
int errands_start(struct errands **out, const struct errands_config *cfg) PD_MUST;
/* The thread ends after its round, and errands in the queue end undone. False when it has not by
 * the deadline (monotonic ns): it is stuck, and everything it uses must stay. May be called again.
 */
bool errands_stop(struct errands *s, int64_t deadline);
/* After errands_stop, when all that were taken have ended and no asker sleeps. Accepts NULL. */
void errands_free(struct errands *s);
/* Ends the wait of the round that runs, or of the next one. */
void errands_wake(struct errands *s);

/* On the thread: the oldest errand of the queue, or NULL. It ends with errand_done. */
struct errand *errand_take(struct errands *s);
/* The result is in the errand: wakes its waiters, drops the thread's reference. */
void errand_done(struct errand *e);
/* It has a waiter, or was posted without one. False: it can be cut short. */
bool errand_wanted(struct errand *e);
/* On the thread, for rounds without a wait of their own: until there is an errand in the queue,
 * errands_wake, or the time (monotonic ns). */
void errands_pause(struct errands *s, int64_t until);

#endif
