#include "lib/discovery/source_thread.h"

#include <stdio.h>

#include "lib/base/clock.h"

#define INTERRUPT_EVERY (20 * NS_PER_MS) /* a wait may begin right after it was interrupted */

static struct timespec time_of(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

static void *begin(void *arg)
{
	struct source_thread *t = arg;

	(void)pthread_setname_np(pthread_self(), t->name);
	t->run(t->arg);
	(void)pthread_mutex_lock(&t->lock);
	t->ended = true;
	(void)pthread_cond_broadcast(&t->wake);
	(void)pthread_mutex_unlock(&t->lock);
	return NULL;
}

int source_thread_start(struct source_thread *t, const char *name, void (*run)(void *arg),
			void *arg)
{
	pthread_condattr_t monotonic;

	*t = (struct source_thread){.run = run, .arg = arg};
	(void)snprintf(t->name, sizeof(t->name), "%s", name);
	(void)pthread_mutex_init(&t->lock, NULL);
	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&t->wake, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
	if (pthread_create(&t->thread, NULL, begin, t) == 0)
		return PD_OK;
	(void)pthread_cond_destroy(&t->wake);
	(void)pthread_mutex_destroy(&t->lock);
	return PD_ENOMEM;
}

void source_thread_stop(struct source_thread *t, void (*interrupt)(void *arg), void *arg)
{
	(void)pthread_mutex_lock(&t->lock);
	t->stop = true;
	(void)pthread_cond_broadcast(&t->wake);
	while (interrupt && !t->ended) {
		struct timespec until = time_of(clock_now() + INTERRUPT_EVERY);

		(void)pthread_mutex_unlock(&t->lock);
		interrupt(arg);
		(void)pthread_mutex_lock(&t->lock);
		if (!t->ended)
			(void)pthread_cond_timedwait(&t->wake, &t->lock, &until);
	}
	(void)pthread_mutex_unlock(&t->lock);
	(void)pthread_join(t->thread, NULL);
	(void)pthread_cond_destroy(&t->wake);
	(void)pthread_mutex_destroy(&t->lock);
}

bool source_thread_stopped(struct source_thread *t)
{
	bool stop;

	(void)pthread_mutex_lock(&t->lock);
	stop = t->stop;
	(void)pthread_mutex_unlock(&t->lock);
	return stop;
}

bool source_thread_rest(struct source_thread *t, int64_t until)
{
	struct timespec at = time_of(until);
	bool stop;

	(void)pthread_mutex_lock(&t->lock);
	while (!t->stop && clock_now() < until)
		(void)pthread_cond_timedwait(&t->wake, &t->lock, &at);
	stop = t->stop;
	(void)pthread_mutex_unlock(&t->lock);
	return !stop;
}

/* -- errands -- */

static bool sleep_here(void *who, int64_t deadline)
{
	struct source_thread *t = who;
	struct timespec at = time_of(deadline);
	bool stop;

	(void)pthread_mutex_lock(&t->lock);
	while (!t->stop && !t->woken && clock_now() < deadline)
		(void)pthread_cond_timedwait(&t->wake, &t->lock, &at);
	t->woken = false;
	stop = t->stop;
	(void)pthread_mutex_unlock(&t->lock);
	return stop;
}

static void wake_here(void *who)
{
	struct source_thread *t = who;

	(void)pthread_mutex_lock(&t->lock);
	t->woken = true;
	(void)pthread_cond_broadcast(&t->wake);
	(void)pthread_mutex_unlock(&t->lock);
}

struct errand_sleeper source_thread_sleeper(struct source_thread *t)
{
	return (struct errand_sleeper){sleep_here, wake_here, t};
}
