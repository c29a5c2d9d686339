/*
 * The driver --io events. Each connection lives with one event loop from accept to close, and only
 * that loop's thread touches it. Bytes on an idle connection start a fiber, which serves requests
 * as long as there are bytes and then parks; so the number of stacks follows the requests in
 * flight, not the connections. The same events tell when a client leaves.
 */
#include <sched.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/http/conn.h"

#define STOP_WAIT (5 * NS_PER_S)

/* The server's part of one loop. */
struct http_loop {
	struct http_server *server;
	struct loop *loop;
	struct http_idle_list idle;
	_Atomic unsigned connections;
	bool starved; /* a request waits for a fiber */
	struct loop_task cut;
};

struct http_events {
	struct http_loop *loop; /* n of them */
	unsigned n;
};

static struct http_loop *home_of(const struct http_conn *c)
{
	return atomic_load_explicit(&c->home, memory_order_relaxed);
}

/* Its fields are ours. */
static bool on_its_loop(const struct http_conn *c)
{
	return home_of(c) && home_of(c)->loop == loop_self();
}

static void free_slot(struct http_conn *c)
{
	atomic_fetch_sub_explicit(&home_of(c)->connections, 1, memory_order_relaxed);
	atomic_store_explicit(&c->home, NULL, memory_order_relaxed);
	slot_give(c);
}

/* A wake-up that is still posted names the slot: then wake_here frees it, so that it reaches no
 * connection of another loop. */
static void close_connection(struct http_conn *c)
{
	PD_CHECK(on_its_loop(c) && !c->busy);
	idle_remove(&home_of(c)->idle, c);
	stream_close(&c->io);
	if (atomic_load(&c->wake_posted))
		c->closed = true;
	else
		free_slot(c);
}

/* -- fibers -- */

static void work_free(void *arg)
{
	work_release(arg);
	free(arg);
}

static struct http_work *work_here(struct http_server *s)
{
	struct http_work *w = fiber_local(loop_fiber());

	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	work_init(w, s, loop_index(loop_self()));
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
		idle_add(&home_of(c)->idle, c, loop_now(loop_self()));
}

static void start(struct http_conn *c)
{
	struct http_loop *h = home_of(c);

	PD_CHECK(on_its_loop(c) && !c->busy && c->idle);
	if (loop_spawn(h->loop, serve, c) != PD_OK) {
		h->starved = true; /* it stays idle until a fiber is free */
		return;
	}
	idle_remove(&h->idle, c);
	c->busy = true;
}

static void on_event(struct stream *io, uint32_t events)
{
	struct http_conn *c = (struct http_conn *)io;

	client_event(c, events);
	if (c->client_left && c->sleeper)
		loop_wake(c->sleeper);
	if (!c->busy && io->readable)
		start(c);
}

/* -- time -- */

static void end_idle(struct http_conn *c)
{
	if (idle_has_bytes(c)) {
		start(c);
		return;
	}
	stream_goodbye(&c->io);
	close_connection(c);
}

static void tick(void *ctx, int64_t now)
{
	struct http_loop *h = ctx;
	bool draining = atomic_load(&h->server->draining), starved = h->starved;
	struct http_conn *c, *newer;

	h->starved = false;
	for (c = h->idle.oldest; c; c = newer) {
		newer = c->newer;
		if (starved && c->io.readable)
			start(c);
		else if (idle_is_over(c, now))
			end_idle(c);
		else if (!draining && !starved)
			break; /* the rest is younger */
	}
}

/* -- opening -- */

static struct http_loop *least_busy(struct http_server *s)
{
	struct http_loop *best = &s->events->loop[0];

	for (unsigned i = 1; i < s->events->n; i++) {
		struct http_loop *h = &s->events->loop[i];

		if (atomic_load_explicit(&h->connections, memory_order_relaxed) <
		    atomic_load_explicit(&best->connections, memory_order_relaxed))
			best = h;
	}
	return best;
}

static void open_here(struct loop_task *t)
{
	struct http_conn *c = (struct http_conn *)((char *)t - offsetof(struct http_conn, open));

	idle_add(&home_of(c)->idle, c, loop_now(loop_self()));
	if (stream_open(&c->io, c->io.fd, loop_self()))
		close_connection(c);
}

static bool open_connection(struct http_server *s, int fd, uint64_t peer)
{
	struct http_conn *c = slot_take(s, fd, peer);
	struct http_loop *h = least_busy(s);

	if (!c)
		return false;
	c->closed = false;
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
			if (c->sleeper)
				loop_wake(c->sleeper);
		} else if (c->idle) {
			close_connection(c);
		}
	}
}

static void cut_all(struct http_server *s)
{
	for (unsigned i = 0; i < s->events->n; i++)
		loop_post(s->events->loop[i].loop, &s->events->loop[i].cut);
}

static unsigned cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

static int start_loops(struct http_server *s)
{
	unsigned n = s->cfg.threads ? s->cfg.threads : cpus();
	struct loop_config cfg = {.name = "pdctl-loop",
				  .stack_bytes = s->cfg.stack_bytes,
				  .max_fibers = s->max_connections + 1,
				  .batch = s->cfg.batch_threads,
				  .tick = tick};
	struct http_events *e = calloc(1, sizeof(*e));
	int err;

	s->events = e;
	n = n < HTTP_LOOPS_MAX ? n : HTTP_LOOPS_MAX;
	if (e)
		e->loop = calloc(n, sizeof(*e->loop));
	if (!e || !e->loop)
		return PD_ENOMEM;
	for (; e->n < n; e->n++) {
		struct http_loop *h = &e->loop[e->n];

		h->server = s;
		h->cut.run = cut_here;
		cfg.ctx = h;
		err = loop_start(&h->loop, &cfg);
		if (err)
			return err;
	}
	return PD_OK;
}

static bool stop_loops(struct http_server *s)
{
	int64_t deadline = clock_now() + STOP_WAIT;
	bool all = true;

	for (unsigned i = 0; s->events && i < s->events->n; i++)
		all = loop_stop(s->events->loop[i].loop, deadline) && all;
	return all;
}

static void free_loops(struct http_server *s)
{
	for (unsigned i = 0; s->events && i < s->events->n; i++)
		loop_free(s->events->loop[i].loop);
	if (s->events)
		free(s->events->loop);
	free(s->events);
}

static void stats(const struct http_server *s, struct http_server_stats *out)
{
	struct loop_stats loop;

	out->threads = s->events->n;
	for (unsigned i = 0; i < s->events->n; i++) {
		loop_stats(s->events->loop[i].loop, &loop);
		out->fibers += loop.fibers;
		out->idle_fibers += loop.idle;
		out->fiber_failures += loop.failures;
	}
}

/* -- sleeping and waking -- */

static void sleep_on_fiber(struct http_conn *c, int64_t deadline)
{
	if (!c->woken) {
		c->sleeper = loop_fiber();
		(void)loop_wait(deadline, true);
		c->sleeper = NULL;
	}
	c->woken = false;
}

static void wake(struct http_conn *c)
{
	PD_CHECK(on_its_loop(c));
	c->woken = true;
	if (c->sleeper)
		loop_wake(c->sleeper);
}

/* The request it was meant for may have ended: then the next sleep is a short one, after
 * which its caller looks at the clock. */
static void wake_here(struct loop_task *t)
{
	struct http_conn *c = (struct http_conn *)((char *)t - offsetof(struct http_conn, wake));

	atomic_store(&c->wake_posted, false);
	if (c->closed)
		free_slot(c);
	else
		wake(c);
}

static void wake_from_anywhere(struct http_conn *c)
{
	if (c->io.loop == loop_self())
		wake(c);
	else if (!atomic_exchange(&c->wake_posted, true))
		loop_post(c->io.loop, &c->wake);
}

static void prepare(struct http_conn *c)
{
	c->open.run = open_here;
	c->wake.run = wake_here;
}

const struct http_driver http_events = {
	.start = start_loops,
	.stop = stop_loops,
	.free = free_loops,
	.open = open_connection,
	.cut = cut_all,
	.stats = stats,
	.sleep = sleep_on_fiber,
	.wake = wake_from_anywhere,
	.prepare = prepare,
};
