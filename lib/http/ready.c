/*
 * Connections and events. Each connection lives with one loop. Bytes on a silent connection start a
 * fiber, which serves requests as long as they are there and then parks; so the number of stacks
 * follows the requests in work, not the connections.
 *
 * The same events tell when a client leaves: the flag is set, the upstream leg that is published is
 * interrupted, and the handler, wherever it waits, comes back and cleans up. The event comes only
 * once, so the handler tests the flag whenever it publishes a leg.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "lib/base/clock.h"
#include "lib/http/conn.h"

#define USER_TIMEOUT 60000 /* ms until unacknowledged bytes end a connection */
#define STOP_WAIT    (5 * NS_PER_S)
#define FRESH_GRACE  NS_PER_S /* a drain waits so long for the first request of a connection */

/* -- silent connections -- */

static void fall_silent(struct http_conn *c)
{
	struct http_loop *h = atomic_load_explicit(&c->home, memory_order_relaxed);

	c->idle = true;
	c->idle_since = loop_now(h->loop);
	c->newer = NULL;
	c->older = h->newest;
	if (h->newest)
		h->newest->newer = c;
	else
		h->oldest = c;
	h->newest = c;
}

static void not_silent(struct http_conn *c)
{
	struct http_loop *h = atomic_load_explicit(&c->home, memory_order_relaxed);

	if (!c->idle)
		return;
	c->idle = false;
	if (c->older)
		c->older->newer = c->newer;
	else
		h->oldest = c->newer;
	if (c->newer)
		c->newer->older = c->older;
	else
		h->newest = c->older;
}

static void free_slot(struct http_conn *c)
{
	struct http_loop *h = atomic_load_explicit(&c->home, memory_order_relaxed);
	struct http_server *s = c->server;

	atomic_fetch_sub_explicit(&h->connections, 1, memory_order_relaxed);
	atomic_store_explicit(&c->home, NULL, memory_order_relaxed);
	(void)pthread_mutex_lock(&s->lock);
	c->next = s->spare;
	s->spare = c;
	s->connections--;
	peers_leave(&s->peers, c->peer);
	if (s->connections == 0 || atomic_load(&s->draining))
		(void)pthread_cond_broadcast(&s->changed);
	(void)pthread_mutex_unlock(&s->lock);
}

/* A wake-up that is still posted names the slot: then wake_here frees it, so that it reaches no
 * connection of another loop. */
static void close_connection(struct http_conn *c)
{
	not_silent(c);
	stream_close(&c->io);
	if (atomic_load(&c->wake_posted))
		c->closed = true;
	else
		free_slot(c);
}

/* -- fibers -- */

static void work_free(void *arg)
{
	struct http_work *w = arg;

	if (w->data_release)
		w->data_release(w->data);
	buf_release(&w->in);
	http_head_release(&w->req.head);
	free(w);
}

static struct http_work *work_here(struct http_server *s)
{
	struct http_work *w = fiber_local(loop_fiber());

	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->server = s;
	buf_init(&w->in, s->cfg.max_body + 2 * HTTP_HEAD_MAX);
	fiber_set_local(loop_fiber(), w, work_free);
	return w;
}

static void serve(void *arg)
{
	struct http_conn *c = arg;
	struct http_work *w = work_here(c->server);
	bool close = !w || conn_serve(c, w);

	c->busy = false;
	if (close)
		close_connection(c);
	else
		fall_silent(c);
}

static void start(struct http_conn *c)
{
	struct http_loop *h = atomic_load_explicit(&c->home, memory_order_relaxed);

	if (loop_spawn(h->loop, serve, c) != PD_OK) {
		h->starved = true; /* it stays among the silent ones until a fiber is free */
		return;
	}
	not_silent(c);
	c->busy = true;
}

static void client_gone(struct http_conn *c)
{
	c->client_left = true;
	if (c->up)
		stream_interrupt(c->up);
	if (c->sleeper)
		loop_wake(c->sleeper);
	if (c->io.waiter && (c->io.waits_for & EPOLLOUT))
		stream_interrupt(&c->io);
}

static void on_event(struct stream *io, uint32_t events)
{
	struct http_conn *c = (struct http_conn *)io;

	if ((events & (EPOLLHUP | EPOLLERR)) ||
	    ((events & EPOLLRDHUP) && !c->server->cfg.half_close_ok))
		client_gone(c);
	if (!c->busy && io->readable)
		start(c);
}

/* -- time -- */

/* A last look: a request that has just arrived is served all the same. */
static void end_silent(struct http_conn *c)
{
	char byte;

	if (!c->io.ended && recv(c->io.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0) {
		start(c);
		return;
	}
	stream_goodbye(&c->io);
	close_connection(c);
}

/* While the server drains silent connections end at once, but not one that was accepted a moment
 * ago: its first request may be on the way, and a restart must not lose it. */
static bool is_over(const struct http_conn *c, int64_t now, bool draining)
{
	int64_t limit = !draining ? c->server->cfg.idle_timeout_ns : c->fresh ? FRESH_GRACE : -1;

	return now - c->idle_since > limit;
}

static void tick(void *ctx, int64_t now)
{
	struct http_loop *h = ctx;
	bool draining = atomic_load(&h->server->draining), starved = h->starved;
	struct http_conn *c, *newer;

	h->starved = false;
	for (c = h->oldest; c; c = newer) {
		newer = c->newer;
		if (starved && c->io.readable)
			start(c);
		else if (is_over(c, now, draining))
			end_silent(c);
		else if (!draining && !starved)
			break; /* the rest is younger */
	}
}

/* -- opening -- */

static void open_here(struct loop_task *t);
static void wake_here(struct loop_task *t);

static struct http_conn *new_slot(struct http_server *s)
{
	unsigned n = atomic_load_explicit(&s->ntable, memory_order_relaxed);
	struct http_conn *c = n < s->max_connections ? calloc(1, sizeof(*c)) : NULL;

	if (!c)
		return NULL;
	c->server = s;
	c->io.fd = -1;
	c->open.run = open_here;
	c->wake.run = wake_here;
	s->table[n] = c;
	atomic_store_explicit(&s->ntable, n + 1, memory_order_release);
	return c;
}

static struct http_conn *take_slot(struct http_server *s)
{
	struct http_conn *c;

	(void)pthread_mutex_lock(&s->lock);
	c = s->spare;
	if (c)
		s->spare = c->next;
	else
		c = new_slot(s);
	(void)pthread_mutex_unlock(&s->lock);
	return c;
}

static struct http_loop *least_busy(struct http_server *s)
{
	struct http_loop *best = &s->loop[0];

	for (unsigned i = 1; i < s->nloops; i++)
		if (atomic_load_explicit(&s->loop[i].connections, memory_order_relaxed) <
		    atomic_load_explicit(&best->connections, memory_order_relaxed))
			best = &s->loop[i];
	return best;
}

static void open_here(struct loop_task *t)
{
	struct http_conn *c = (struct http_conn *)((char *)t - offsetof(struct http_conn, open));

	fall_silent(c);
	if (stream_open(&c->io, c->io.fd, loop_self()))
		close_connection(c);
}

bool ready_open(struct http_server *s, int fd, uint64_t peer)
{
	unsigned user_timeout = USER_TIMEOUT;
	struct http_conn *c = take_slot(s);
	struct http_loop *h = least_busy(s);

	if (!c)
		return false;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
	c->busy = c->closed = c->client_left = c->woken = false;
	c->fresh = true;
	c->peer = peer;
	c->up = NULL;
	c->io.fd = fd;
	c->io.on_event = on_event;
	atomic_fetch_add_explicit(&h->connections, 1, memory_order_relaxed);
	atomic_store_explicit(&c->home, h, memory_order_release);
	loop_post(h->loop, &c->open);
	return true;
}

/* -- start and stop -- */

static void cut_here(struct loop_task *t)
{
	struct http_loop *h = (struct http_loop *)((char *)t - offsetof(struct http_loop, cut));
	struct http_server *s = h->server;
	unsigned n = atomic_load_explicit(&s->ntable, memory_order_acquire);

	for (unsigned i = 0; i < n; i++) {
		struct http_conn *c = s->table[i];

		if (atomic_load_explicit(&c->home, memory_order_acquire) != h)
			continue;
		if (c->busy) {
			client_gone(c);
			stream_interrupt(&c->io);
		} else if (c->idle) {
			close_connection(c);
		}
	}
}

void ready_cut(struct http_server *s)
{
	if (atomic_exchange(&s->cut, true))
		return;
	for (unsigned i = 0; i < s->nloops; i++)
		loop_post(s->loop[i].loop, &s->loop[i].cut);
}

static unsigned cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

int ready_start(struct http_server *s)
{
	unsigned n = s->cfg.threads ? s->cfg.threads : cpus();
	struct loop_config cfg = {.name = "pdctl-loop",
				  .stack_bytes = s->cfg.stack_bytes,
				  .max_fibers = s->max_connections + 1,
				  .batch = s->cfg.batch_threads,
				  .tick = tick};
	int err;

	n = n < HTTP_THREADS_MAX ? n : HTTP_THREADS_MAX;
	s->loop = calloc(n, sizeof(*s->loop));
	if (!s->loop)
		return PD_ENOMEM;
	for (; s->nloops < n; s->nloops++) {
		struct http_loop *h = &s->loop[s->nloops];

		h->server = s;
		h->cut.run = cut_here;
		cfg.ctx = h;
		err = loop_start(&h->loop, &cfg);
		if (err)
			return err;
	}
	return PD_OK;
}

bool ready_stop(struct http_server *s)
{
	int64_t deadline = clock_now() + STOP_WAIT;
	bool all = true;

	for (unsigned i = 0; i < s->nloops; i++)
		all = loop_stop(s->loop[i].loop, deadline) && all;
	return all;
}

void ready_free(struct http_server *s)
{
	for (unsigned i = 0; i < s->nloops; i++)
		loop_free(s->loop[i].loop);
	free(s->loop);
	for (unsigned i = 0; i < atomic_load(&s->ntable); i++)
		free(s->table[i]);
}

/* -- the handler's side of leaving clients and of the upstream leg -- */

static bool is_gone(const struct http_conn *c)
{
	return c->client_left || atomic_load(&c->server->cut);
}

bool http_conn_publish(struct http_conn *c, struct stream *up)
{
	if (is_gone(c))
		return false;
	c->up = up;
	return true;
}

bool http_conn_withdraw(struct http_conn *c)
{
	c->up = NULL;
	return c->client_left;
}

bool http_conn_client_left(const struct http_conn *c)
{
	return c->client_left;
}

bool http_conn_sleep(struct http_conn *c, int64_t deadline)
{
	if (!c->woken && !is_gone(c)) {
		c->sleeper = loop_fiber();
		(void)loop_wait(deadline, true);
		c->sleeper = NULL;
	}
	c->woken = false;
	return is_gone(c);
}

static void wake(struct http_conn *c)
{
	c->woken = true;
	if (c->sleeper)
		loop_wake(c->sleeper);
}

/* The request it was meant for may have ended: then the next sleep is a short one, and whoever
 * sleeps looks at the clock. */
static void wake_here(struct loop_task *t)
{
	struct http_conn *c = (struct http_conn *)((char *)t - offsetof(struct http_conn, wake));

	atomic_store(&c->wake_posted, false);
	if (c->closed)
		free_slot(c);
	else
		wake(c);
}

void http_conn_wake(struct http_conn *c)
{
	if (c->io.loop == loop_self())
		wake(c);
	else if (!atomic_exchange(&c->wake_posted, true))
		loop_post(c->io.loop, &c->wake);
}
