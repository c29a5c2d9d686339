/*
 * DESIGN
 *
 *	asker                          lock                         thread
 *	errand_do ---- queue, waiter ---->|
 *	sleeper.sleep                     |<---- errand_take --------- round
 *	     :                            |                            :  (no lock held)
 *	     :   <---- sleeper.wake ------|<---- done ---------------- errand_done
 *	done? result : give up  --------->|
 *
 * One mailbox for all threads that do what a handler may not wait for. It has one lock; it is held
 * for list work and for `wake`, never while an errand is carried out or an asker sleeps.
 *
 * Guaranteed:
 * - Errands are taken in the order in which they were posted. How many are carried out at once, and
 *   in which order they end, is the round's business.
 * - What the thread wrote before errand_done is visible where errand_wait returns PD_OK.
 * - An asker that gives up is not woken any more: its waiter is taken out under the lock before
 *   errand_wait returns. Its connection may be reused at once.
 * - The errand lives until both sides have dropped it, in either order: an asker that leaves takes
 *   nothing away from the thread, and a thread that is late writes into memory that is still there.
 * - There are never more than `max` errands. A full box refuses; it never makes the asker wait.
 * - No sleep is without a deadline, as errand_wait has one; an early end of a sleep is no answer.
 *
 * Not guaranteed:
 * - An errand whose asker gave up is carried out all the same, unless the round asks errand_wanted
 *   and cuts it short. A change that timed out for the asker may still happen.
 * - The thread cannot be interrupted. When it is stuck (a name look-up, a file on a dead server)
 *   the queue behind it waits, askers time out one by one, and errands_stop says so by its
 *   deadline: the owner then leaves the box and what it refers to where they are.
 * - After errands_stop nothing is carried out: errands in the queue end undone, PD_ECLOSED.
 */
#include "lib/net/errand.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/base/process.h"

struct errand_waiter {
	struct errand_waiter *next;
	const struct errand_sleeper *who;
};

struct errands {
	struct errands_config cfg;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct errand *first, **last; /* the queue */
	unsigned n;		      /* queued or taken */
	bool stop, awake, joined;
};

/* -- the errand -- */

void errand_init(struct errand *e, void (*release)(struct errand *e))
{
	*e = (struct errand){.release = release};
	atomic_store(&e->refs, 1);
}

struct errand *errand_ref(struct errand *e)
{
	atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
	return e;
}

void errand_drop(struct errand *e)
{
	unsigned before = atomic_fetch_sub(&e->refs, 1);

	PD_CHECK(before > 0);
	if (before == 1)
		e->release(e);
}

/* -- the asker -- */

/* Puts it into the queue, with this waiter (NULL: none). */
static int enqueue(struct errands *s, struct errand *e, struct errand_waiter *w)
{
	bool room;

	PD_CHECK(!e->home);
	(void)pthread_mutex_lock(&s->lock);
	room = s->n < s->cfg.max && !s->stop;
	if (room) {
		e->home = s;
		e->unattended = !w;
		e->waiters = w;
		*s->last = errand_ref(e);
		s->last = &e->next;
		s->n++;
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (room)
		errands_wake(s);
	return room ? PD_OK : PD_EBUSY;
}

/* With the waiter in the list. */
static int sleep_until_done(struct errand *e, struct errand_waiter *w, int64_t deadline)
{
	struct errands *s = e->home;
	struct errand_waiter **at;
	bool left = false;
	int err;

	(void)pthread_mutex_lock(&s->lock);
	while (!e->done && !e->ended && !left && clock_now() < deadline) {
		(void)pthread_mutex_unlock(&s->lock);
		left = w->who->sleep(w->who->who, deadline);
		(void)pthread_mutex_lock(&s->lock);
	}
	for (at = &e->waiters; *at != w; at = &(*at)->next)
		PD_CHECK(*at);
	*at = w->next;
	err = e->done ? PD_OK : e->ended ? PD_ECLOSED : left ? PD_ECANCELED : PD_ETIMEOUT;
	(void)pthread_mutex_unlock(&s->lock);
	if (err == PD_ECANCELED || err == PD_ETIMEOUT)
		errands_wake(s); /* it may not be wanted any more */
	return err;
}

int errand_post(struct errands *s, struct errand *e)
{
	return enqueue(s, e, NULL);
}

int errand_wait(struct errand *e, const struct errand_sleeper *who, int64_t deadline)
{
	struct errand_waiter w = {.who = who};

	PD_CHECK(e->home);
	(void)pthread_mutex_lock(&e->home->lock);
	w.next = e->waiters;
	/* cppcheck-suppress autoVariables ; sleep_until_done takes it out again */
	e->waiters = &w;
	(void)pthread_mutex_unlock(&e->home->lock);
	return sleep_until_done(e, &w, deadline);
}

int errand_do(struct errands *s, struct errand *e, const struct errand_sleeper *who,
	      int64_t deadline)
{
	struct errand_waiter w = {.who = who};
	int err = enqueue(s, e, &w);

	return err ? err : sleep_until_done(e, &w, deadline);
}

/* -- the thread -- */

struct errand *errand_take(struct errands *s)
{
	struct errand *e;

	(void)pthread_mutex_lock(&s->lock);
	e = s->first;
	if (e) {
		s->first = e->next;
		if (!s->first)
			s->last = &s->first;
		e->next = NULL;
	}
	(void)pthread_mutex_unlock(&s->lock);
	return e;
}

static void end(struct errand *e, bool done)
{
	struct errands *s = e->home;

	(void)pthread_mutex_lock(&s->lock);
	PD_CHECK(!e->done && !e->ended && s->n > 0);
	e->done = done;
	e->ended = !done;
	s->n--;
	for (struct errand_waiter *w = e->waiters; w; w = w->next)
		w->who->wake(w->who->who);
	(void)pthread_mutex_unlock(&s->lock);
	errand_drop(e);
}

void errand_done(struct errand *e)
{
	end(e, true);
}

bool errand_wanted(struct errand *e)
{
	bool wanted;

	(void)pthread_mutex_lock(&e->home->lock);
	wanted = e->unattended || e->waiters;
	(void)pthread_mutex_unlock(&e->home->lock);
	return wanted;
}

void errands_wake(struct errands *s)
{
	if (s->cfg.wake) {
		s->cfg.wake(s->cfg.ctx);
		return;
	}
	(void)pthread_mutex_lock(&s->lock);
	s->awake = true;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
}

void errands_pause(struct errands *s, int64_t until)
{
	struct timespec ts = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};
	int rc = 0;

	(void)pthread_mutex_lock(&s->lock);
	while (!s->first && !s->stop && !s->awake && rc == 0)
		rc = pthread_cond_timedwait(&s->wake, &s->lock, &ts);
	s->awake = false;
	(void)pthread_mutex_unlock(&s->lock);
}

static bool is_stopping(struct errands *s)
{
	bool stop;

	(void)pthread_mutex_lock(&s->lock);
	stop = s->stop;
	(void)pthread_mutex_unlock(&s->lock);
	return stop;
}

static void *run(void *arg)
{
	struct errands *s = arg;

	(void)pthread_setname_np(pthread_self(), s->cfg.name);
	while (!is_stopping(s))
		s->cfg.round(s, s->cfg.ctx);
	return NULL;
}

/* -- life -- */

static void release(struct errands *s)
{
	(void)pthread_cond_destroy(&s->wake);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

int errands_start(struct errands **out, const struct errands_config *cfg)
{
	struct errands *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	*out = NULL;
	if (!s)
		return PD_ENOMEM;
	s->cfg = *cfg;
	s->last = &s->first;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	if (pthread_create(&s->thread, NULL, run, s) != 0) {
		release(s);
		return PD_ENOMEM;
	}
	*out = s;
	return PD_OK;
}

bool errands_stop(struct errands *s, int64_t deadline)
{
	struct errand *e;

	(void)pthread_mutex_lock(&s->lock);
	s->stop = true;
	(void)pthread_mutex_unlock(&s->lock);
	errands_wake(s);
	if (!s->joined && !process_join(s->thread, deadline))
		return false;
	s->joined = true;
	while ((e = errand_take(s)))
		end(e, false);
	return true;
}

void errands_free(struct errands *s)
{
	if (!s)
		return;
	PD_CHECK(s->joined && s->n == 0);
	release(s);
}
