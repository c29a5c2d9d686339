/*
 * The usual request takes its place with one atomic operation; only when all are taken does it
 * queue under the lock. Places are handed to waiters in order, so a newcomer cannot overtake them.
 *
 * With priorities and flows the order is: the highest priority, there the flow whose turn it is
 * (flows by number, the one behind the last served), there who came first. One that finds the queue
 * full takes the place of the newest waiter of the lowest priority, there of the largest flow, when
 * that leaves the other flow no smaller than its own: so whoever floods fills the queue with
 * nothing but his own share of it.
 */
#include "lib/router/way/gate.h"

#include "lib/base/clock.h"

struct gate_waiter {
	struct gate_waiter *next;
	struct http_conn *conn;
	struct gate_flow flow;
	bool granted, displaced;
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

static bool is_same(const struct gate_flow *a, const struct gate_flow *b)
{
	return a->priority == b->priority && a->id == b->id;
}

/* The flow that a band served last; a new band begins before all of them. */
static uint64_t *last_of(struct gate *g, int priority)
{
	size_t at = g->bands;

	for (size_t i = 0; i < g->bands; i++)
		if (g->band[i].priority == priority)
			return &g->band[i].last;
	if (at == GATE_BANDS)
		at = GATE_BANDS - 1; /* its turns begin anew, nothing else is lost */
	else
		g->bands++;
	g->band[at].priority = priority;
	g->band[at].last = UINT64_MAX;
	return &g->band[at].last;
}

/* How far a flow is behind the last served: the nearest comes next. */
static uint64_t distance(uint64_t last, uint64_t id)
{
	return id - last - 1;
}

static struct gate_waiter *whose_turn(struct gate *g)
{
	struct gate_waiter *best = g->first;
	uint64_t last;

	if (!g->fair || !best)
		return best;
	for (struct gate_waiter *w = g->first; w; w = w->next)
		if (w->flow.priority > best->flow.priority)
			best = w;
	last = *last_of(g, best->flow.priority);
	for (struct gate_waiter *w = best; w; w = w->next)
		if (w->flow.priority == best->flow.priority &&
		    distance(last, w->flow.id) < distance(last, best->flow.id))
			best = w;
	*last_of(g, best->flow.priority) = best->flow.id;
	return best;
}

static void unlink_waiter(struct gate *g, struct gate_waiter *w);

/* May another request begin now, by the rate? With the lock held. */
static bool may_begin(struct gate *g)
{
	int64_t now;

	if (g->rate <= 0)
		return true;
	now = clock_now();
	g->tokens = g->filled ? g->tokens + (double)(now - g->filled) / (double)NS_PER_S * g->rate
			      : g->burst;
	g->tokens = g->tokens < g->burst ? g->tokens : g->burst;
	g->filled = now;
	return g->tokens >= 1;
}

/* A place and a token of the rate, or neither. With the lock held. */
static bool take_both(struct gate *g)
{
	if (!may_begin(g) || !take_place(g))
		return false;
	if (g->rate > 0)
		g->tokens--;
	return true;
}

/* Gives free places to waiters in order. Called with the lock held. */
static void grant(struct gate *g)
{
	while (g->first && take_both(g)) {
		struct gate_waiter *w = whose_turn(g);

		unlink_waiter(g, w);
		w->granted = true;
		http_conn_wake(w->conn);
	}
}

static size_t waiters_of(const struct gate *g, const struct gate_flow *flow)
{
	size_t n = 0;

	for (const struct gate_waiter *w = g->first; w; w = w->next)
		n += is_same(&w->flow, flow);
	return n;
}

/* The queue is full: another waiter leaves it for one of this flow, or (false) none does. */
static bool displace(struct gate *g, const struct gate_flow *flow)
{
	size_t mine = waiters_of(g, flow), most = 0;
	struct gate_waiter *victim = NULL;

	for (struct gate_waiter *w = g->first; g->fair && w; w = w->next) {
		size_t n;

		if (victim && (w->flow.priority > victim->flow.priority ||
			       is_same(&w->flow, &victim->flow))) {
			if (is_same(&w->flow, &victim->flow))
				victim = w; /* the newest */
			continue;
		}
		n = waiters_of(g, &w->flow);
		if (!victim || w->flow.priority < victim->flow.priority || n > most) {
			victim = w;
			most = n;
		}
	}
	if (!victim || victim->flow.priority > flow->priority ||
	    (victim->flow.priority == flow->priority && most < mine + 2))
		return false;
	unlink_waiter(g, victim);
	victim->displaced = true;
	http_conn_wake(victim->conn);
	return true;
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
	for (grant(g); !w->granted && !w->displaced && !left && !over; grant(g)) {
		/* By the rate a place is free without anybody leaving. */
		int64_t until = g->rate > 0
					? clock_now() + (int64_t)((double)NS_PER_S / g->rate) + 1
					: deadline;

		until = until < deadline ? until : deadline;
		(void)pthread_mutex_unlock(&g->lock);
		left = http_conn_sleep(w->conn, until);
		over = clock_now() >= deadline;
		(void)pthread_mutex_lock(&g->lock);
	}
	if (w->granted)
		return PD_OK;
	if (w->displaced) {
		atomic_fetch_add_explicit(&g->full, 1, memory_order_relaxed);
		return PD_EBUSY;
	}
	unlink_waiter(g, w);
	atomic_fetch_add_explicit(left ? &g->left : &g->timed_out, 1, memory_order_relaxed);
	return left ? PD_ECANCELED : PD_ETIMEOUT;
}

bool gate_try(struct gate *g)
{
	return g->rate <= 0 && atomic_load(&g->waiting) == 0 && take_place(g);
}

int gate_enter(struct gate *g, struct http_conn *c, const struct gate_flow *flow, int64_t deadline)
{
	struct gate_waiter w = {.conn = c, .flow = *flow};
	int err;

	if (gate_try(g))
		return PD_OK;
	(void)pthread_mutex_lock(&g->lock);
	if (g->rate > 0 && !g->first && take_both(g)) {
		(void)pthread_mutex_unlock(&g->lock);
		return PD_OK;
	}
	if (atomic_load(&g->waiting) >= g->queue_size && !displace(g, flow)) {
		/* No queue, or it is full; a place may have become free all the same. */
		err = atomic_load(&g->waiting) == 0 && take_both(g) ? PD_OK : PD_EBUSY;
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
