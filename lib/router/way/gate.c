/*
 * The usual request takes its place with one atomic operation; only when all are taken does it
 * queue under the lock. Places are handed to waiters in order, so a newcomer cannot overtake them.
 */
#include "lib/router/way/gate.h"

#include "lib/base/clock.h"

struct gate_waiter {
	struct gate_waiter *next;
	struct http_conn *conn;
	bool granted;
};

int gate_init(struct gate *g, unsigned limit, unsigned queue_size)
{
	*g = (struct gate){.limit = limit, .queue_size = queue_size};
	g->last = &g->first;
	return pthread_mutex_init(&g->lock, NULL) == 0 ? PD_OK : PD_ENOMEM;
}

void gate_release(struct gate *g)
{
	(void)pthread_mutex_destroy(&g->lock);
}

static bool take_place(struct gate *g)
{
	unsigned n = atomic_load(&g->in_work);

	while (n < g->limit)
		if (atomic_compare_exchange_weak(&g->in_work, &n, n + 1))
			return true;
	return false;
}

/* Gives free places to waiters in order. Called with the lock held. */
static void grant(struct gate *g)
{
	struct gate_waiter *w;

	while (g->first && take_place(g)) {
		w = g->first;
		g->first = w->next;
		if (!g->first)
			g->last = &g->first;
		atomic_fetch_sub(&g->waiting, 1);
		w->granted = true;
		http_conn_wake(w->conn);
	}
}

static void unlink_waiter(struct gate *g, struct gate_waiter *w)
{
	struct gate_waiter **p = &g->first;

	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
	if (g->last == &w->next)
		g->last = p;
	atomic_fetch_sub(&g->waiting, 1);
}

static int wait_in_line(struct gate *g, struct gate_waiter *w, int64_t deadline)
{
	bool left = false, over = false;

	/* With the lock held. A place may have become free between the first look and now. */
	for (grant(g); !w->granted && !left && !over; grant(g)) {
		(void)pthread_mutex_unlock(&g->lock);
		left = http_conn_sleep(w->conn, deadline);
		over = clock_now() >= deadline;
		(void)pthread_mutex_lock(&g->lock);
	}
	if (w->granted)
		return PD_OK;
	unlink_waiter(g, w);
	atomic_fetch_add_explicit(left ? &g->left : &g->timed_out, 1, memory_order_relaxed);
	return left ? PD_ECANCELED : PD_ETIMEOUT;
}

bool gate_try(struct gate *g)
{
	return atomic_load(&g->waiting) == 0 && take_place(g);
}

int gate_enter(struct gate *g, struct http_conn *c, int64_t deadline)
{
	struct gate_waiter w = {.conn = c};
	int err;

	if (gate_try(g))
		return PD_OK;
	(void)pthread_mutex_lock(&g->lock);
	if (atomic_load(&g->waiting) >= g->queue_size) {
		/* No queue, or it is full; a place may have become free all the same. */
		err = atomic_load(&g->waiting) == 0 && take_place(g) ? PD_OK : PD_EBUSY;
		if (err)
			atomic_fetch_add_explicit(&g->full, 1, memory_order_relaxed);
		(void)pthread_mutex_unlock(&g->lock);
		return err;
	}
	*g->last = &w;
	/* cppcheck-suppress autoVariables ; wait_in_line takes w out again */
	g->last = &w.next;
	atomic_fetch_add(&g->waiting, 1);
	atomic_fetch_add_explicit(&g->queued, 1, memory_order_relaxed);
	err = wait_in_line(g, &w, deadline);
	(void)pthread_mutex_unlock(&g->lock);
	return err;
}

void gate_leave(struct gate *g)
{
	atomic_fetch_sub(&g->in_work, 1);
	if (atomic_load(&g->waiting) == 0)
		return;
	(void)pthread_mutex_lock(&g->lock);
	grant(g);
	(void)pthread_mutex_unlock(&g->lock);
}
