/*
 * An event loop: one thread, one epoll instance, and fibers that run on it in turn. A fiber that
 * waits for its peer costs a stack and no thread; one wake-up of the thread runs all fibers that
 * have become ready.
 *
 * A fiber is never preempted: between two waits it owns the loop. So it must wait through loop_wait
 * only (no sleep, no name look-up, no lock that is held across a wait). Functions are for the
 * loop's own thread unless they say otherwise; PD_CHECK enforces it.
 */
#ifndef PD_NET_LOOP_H
#define PD_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

#define LOOPS_MAX 64 /* in one process at a time */

struct loop;
struct fiber;

/* A task that another thread posts to a loop. Embedded in its subject; posted again only after it
 * ran. */
struct loop_task {
	struct loop_task *next;
	void (*run)(struct loop_task *t);
};

/* Called with the events of a descriptor. `notify` must not wait. */
struct loop_watch {
	void (*notify)(struct loop_watch *w, uint32_t epoll_events);
};

struct loop_config {
	const char *name;    /* of the thread, up to 15 characters */
	size_t stack_bytes;  /* of a fiber */
	unsigned max_fibers; /* at once */
	bool batch;	     /* SCHED_BATCH */
	void *ctx;
	void (*tick)(void *ctx, int64_t now); /* about every 50 ms; may be NULL */
};

int loop_start(struct loop **out, const struct loop_config *cfg) PD_MUST;
/* From another thread. Runs what was posted, then ends. False when a fiber does not come back
 * within the time (monotonic ns deadline): then the loop must stay. Fibers that still wait are
 * dropped. */
bool loop_stop(struct loop *l, int64_t deadline);
/* After loop_stop. */
void loop_free(struct loop *l);
/* Runs t->run(t) on the loop's thread, soon. From any thread. After loop_stop it runs here and now.
 */
void loop_post(struct loop *l, struct loop_task *t);
/* The loop of the calling thread, or NULL. */
struct loop *loop_self(void);
/* A small number of its own among the loops that live: < LOOPS_MAX. */
unsigned loop_index(const struct loop *l);
/* Time of the last wake-up, monotonic ns: cheap, and good enough for limits of seconds. */
int64_t loop_now(const struct loop *l);

/* Reports all events of fd, edge-triggered, to w, which must outlive fd. */
int loop_watch(struct loop *l, int fd, struct loop_watch *w) PD_MUST;

/* Runs fn(arg) on a fiber of this loop, after the events of this round. PD_ENOMEM, PD_EBUSY. */
int loop_spawn(struct loop *l, void (*fn)(void *arg), void *arg) PD_MUST;
/* The fiber that runs, or NULL on the loop's own stack and on other threads. */
struct fiber *loop_fiber(void);
/* Suspends the fiber until loop_wake or the deadline; false when the deadline passed first. Exact
 * to a fraction of a millisecond with `exact`; else up to 50 ms late, and free. */
bool loop_wait(int64_t deadline, bool exact);
/* Ends the wait of a fiber of this loop; nothing when it does not wait. */
void loop_wake(struct fiber *f);
/* Memory that stays with the fiber from one function to the next; freed by `release` with it. */
void *fiber_local(const struct fiber *f);
void fiber_set_local(struct fiber *f, void *local, void (*release)(void *));
/* Gives back what the running fiber's stack used deeper than here. */
void loop_trim_stack(void);

struct loop_stats {
	unsigned fibers, idle; /* idle: kept for the next */
	uint64_t failures;     /* of loop_spawn */
};
/* From any thread. */
void loop_stats(const struct loop *l, struct loop_stats *out);

#endif
