/*
 * A turn is a baton: one waiter at a time is woken, and gives it on when it leaves. So a change
 * wakes one fiber and not all, and none is lost: a call that comes while the first waiter is
 * looking makes it look again.
 */
#include "lib/router/fleet/waitlist.h"

#include "lib/base/check.h"
#include "lib/base/clock.h"

int waitlist_init(struct waitlist *l)
{
	*l = (struct waitlist){.head = WAITLIST_NO_TICKET};
	return pthread_mutex_init(&l->lock, NULL) == 0 ? PD_OK : PD_ENOMEM;
}

void waitlist_release(struct waitlist *l)
{
	PD_CHECK(!l->first);
	(void)pthread_mutex_destroy(&l->lock);
}

/* With the lock held, as the others. */
static void call(struct waiter *w)
{
	if (!w || w->called)
		return;
	w->called = true;
	http_conn_wake(w->conn);
}

static void note_head(struct waitlist *l)
{
	atomic_store(&l->head, l->first ? l->first->ticket : WAITLIST_NO_TICKET);
}

void waitlist_call(struct waitlist *l)
{
	if (atomic_load(&l->head) == WAITLIST_NO_TICKET)
		return;
	(void)pthread_mutex_lock(&l->lock);
	call(l->first);
	(void)pthread_mutex_unlock(&l->lock);
}

void waitlist_join(struct waitlist *l, struct waiter *w)
{
	struct waiter **p = &l->first;
	bool behind_particular = true;

	(void)pthread_mutex_lock(&l->lock);
	for (; *p && (*p)->ticket <= w->ticket; p = &(*p)->next)
		behind_particular &= (*p)->particular;
	w->next = *p;
	*p = w;
	w->called = behind_particular;
	note_head(l);
	(void)pthread_mutex_unlock(&l->lock);
}

int waitlist_turn(struct waitlist *l, struct waiter *w, int64_t deadline)
{
	bool left = false, over = false, called;

	(void)pthread_mutex_lock(&l->lock);
	while (!w->called && !left && !over) {
		(void)pthread_mutex_unlock(&l->lock);
		left = http_conn_sleep(w->conn, deadline);
		over = clock_now() >= deadline;
		(void)pthread_mutex_lock(&l->lock);
	}
	called = w->called;
	/* A turn that is not used goes on with waitlist_leave. */
	w->called = false;
	(void)pthread_mutex_unlock(&l->lock);
	return left ? PD_ECANCELED : called ? PD_OK : PD_ETIMEOUT;
}

void waitlist_pass(struct waitlist *l, struct waiter *w)
{
	if (!w->particular)
		return;
	(void)pthread_mutex_lock(&l->lock);
	call(w->next);
	(void)pthread_mutex_unlock(&l->lock);
}

void waitlist_leave(struct waitlist *l, struct waiter *w)
{
	struct waiter **p = &l->first;

	(void)pthread_mutex_lock(&l->lock);
	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
	note_head(l);
	call(l->first);
	(void)pthread_mutex_unlock(&l->lock);
}
