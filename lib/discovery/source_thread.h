/*
 * The thread of a source, of a worker that registers itself, of the registry: it runs until it is
 * told to end, rests between two looks, and its waits in sockets are ended by who stops it.
 * Functions are for the thread, where nothing else is said.
 */
#ifndef PD_DISCOVERY_SOURCE_THREAD_H
#define PD_DISCOVERY_SOURCE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/net/errand.h"

struct source_thread {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stop, woken, ended; /* under the lock */
	void (*run)(void *arg);
	void *arg;
	char name[16];
};

/* Calls run(arg) on a new thread, whose name has up to 15 characters; it returns soon after
 * source_thread_stopped is true. PD_ENOMEM: nothing is left behind. */
int source_thread_start(struct source_thread *t, const char *name, void (*run)(void *arg),
			void *arg) PD_MUST;
/* Waits for the end of `run`. `interrupt` (NULL: nothing waits) ends its waits in sockets; it is
 * called again until the thread has ended. From another thread, once. */
void source_thread_stop(struct source_thread *t, void (*interrupt)(void *arg), void *arg);

/* From any thread. */
bool source_thread_stopped(struct source_thread *t);
/* Until the time (monotonic ns) or the stop. False: stop. */
bool source_thread_rest(struct source_thread *t, int64_t until);
/* How the thread sleeps for an errand; it gives up when it is to stop. */
struct errand_sleeper source_thread_sleeper(struct source_thread *t);

#endif
