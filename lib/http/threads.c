/*
 * The driver --io threads: each request in flight has a kernel thread of its own, which blocks in
 * poll, recv and send. The form to read, to debug (a debugger shows one thread per request, with
 * its whole call stack), to trace and to port; the same handlers as on event loops.
 *
 * DESIGN
 *
 *	acceptor --> parked in epoll --> poller --> a parked thread, or a new one
 *			  ^                                 |
 *			  |                            conn_serve()
 *			  |                                 |  next request within HOLD
 *			  +---- idle for HOLD --------------+<---+
 *
 * The poller only hands over what became readable, and ends connections whose idle time is over.
 * A thread keeps its connection for HOLD after an answer: a request that comes within it costs the
 * two context switches of a thread that waits, while the way through the poller costs four, an
 * epoll_ctl and a futex. So under load no connection is parked, and a client that thinks for longer
 * than HOLD costs no thread.
 *
 * A thread that waits, for its worker or in http_conn_sleep, polls the client's socket too: no
 * other thread tells it that the client has left. (For the first BLOCK_NS of client.c it waits in
 * recv alone, which is a system call less and long enough for most answers.) The end of a drain
 * shuts down the client's socket, which those polls see as well. So a connection shares nothing
 * with other threads but what a wake-up needs: `lock` of the slot.
 *
 * Guaranteed: at most `max` threads; a connection is parked, queued or owned by one thread; only
 * the poller closes a parked one, so that no event meets a descriptor that is gone; an event is
 * seen once (EPOLLONESHOT), and parking arms it again. A thread that cannot be created is a 503
 * and counted. With `max` threads busy requests queue in the order of their arrival, at most
 * head_timeout_ns, then 503.
 * Not guaranteed: that a queued request is served at once when a thread has only just begun to hold
 * an idle connection (HOLD at most).
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/http/conn.h"
#include "lib/net/epoll.h"
#include "lib/net/shelf.h"

#define EVENTS_MAX 64
#define TICK	   (50 * NS_PER_MS)
#define HOLD	   (100 * NS_PER_MS)
#define SPARE_TIME (30 * NS_PER_S) /* a thread without work ends after it */
#define STOP_WAIT  (5 * NS_PER_S)

struct http_thread {
	struct http_threads *pool;
	struct http_work work;
	struct http_conn *conn;		   /* handed over */
	struct http_thread *newer, *older; /* among the spare ones */
	pthread_cond_t given;
	int event_fd; /* ends a sleep; -1: none slept yet */
};

struct http_threads {
	struct http_server *server;
	int epoll_fd, event_fd; /* the latter wakes the poller */
	pthread_t poller;
	bool polls;
	pthread_mutex_t lock; /* what follows, and the connections of the two lists */
	pthread_cond_t ended;
	pthread_t last; /* that ended, not joined yet */
	bool any_ended;
	struct http_thread *spare; /* the one that worked last: its stack is warm */
	unsigned n, nspare, max;
	struct http_idle_list parked;
	struct http_idle_list queue; /* with a request, but there is no thread */
	uint64_t failures;
	unsigned lanes;
	_Atomic bool crowded; /* the queue is not empty */
	_Atomic bool stopping;
};

/* -- connections -- */

static void close_connection(struct http_conn *c)
{
	/* The lock keeps a cut from shutting down a descriptor that has been reused. */
	(void)pthread_mutex_lock(&c->lock);
	stream_close(&c->io);
	(void)pthread_mutex_unlock(&c->lock);
	slot_give(c);
}

/* Gives it to the poller; afterwards another thread may serve it already. */
static void park(struct http_threads *p, struct http_conn *c, int op)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, .data.ptr = c};
	bool parked;

	(void)pthread_mutex_lock(&p->lock);
	c->busy = false;
	idle_add(&p->parked, c, clock_now());
	parked = epoll_ctl(p->epoll_fd, op, c->io.fd, &ev) == 0;
	if (!parked)
		idle_remove(&p->parked, c);
	(void)pthread_mutex_unlock(&p->lock);
	if (!parked)
		close_connection(c);
}

static void on_event(struct stream *io, uint32_t events)
{
	client_event((struct http_conn *)io, events);
}

static bool open_connection(struct http_server *s, int fd, uint64_t peer)
{
	struct http_conn *c = slot_take(s, fd, peer);

	if (!c)
		return false;
	c->io.on_event = on_event;
	(void)!stream_open(&c->io, fd, NULL); /* cannot fail without a loop */
	if (!s->cfg.tls)
		stream_may_block(&c->io, HOLD);
	park(s->threads, c, EPOLL_CTL_ADD);
	return true;
}

/* No thread will serve it. What has arrived is read first: closing would turn it into a reset,
 * which destroys the answer. */
static void refuse(struct http_conn *c)
{
	char waste[4096];

	for (int i = 0; i < 64 && recv(c->io.fd, waste, sizeof(waste), MSG_DONTWAIT) > 0; i++)
		continue;
	atomic_fetch_add_explicit(&c->server->refused, 1, memory_order_relaxed);
	if (!c->io.tls)
		server_overloaded(c->server, c->io.fd);
	close_connection(c);
}

/* -- threads -- */

/* Waits for the next request, or lets conn_serve wait for it. False: there is none within HOLD, or
 * the thread is needed elsewhere. */
static bool hold(struct http_threads *p, struct http_conn *c)
{
	if (atomic_load_explicit(&p->crowded, memory_order_relaxed) ||
	    atomic_load_explicit(&p->server->draining, memory_order_relaxed))
		return false;
	c->io.readable = c->io.patient = c->io.may_block;
	c->io.deadline = clock_now() + HOLD;
	return stream_await(&c->io) == PD_OK;
}

/* Stays with the connection until there is no request for HOLD or it ends. */
static void serve(struct http_thread *t, struct http_conn *c)
{
	int64_t last = 0; /* request, at the begin of the hold */

	c->thread = t;
	while (!conn_serve(c, &t->work)) {
		if (t->work.req.accepted_ns == last || !hold(t->pool, c)) {
			park(t->pool, c, EPOLL_CTL_MOD);
			return;
		}
		last = t->work.req.accepted_ns;
	}
	close_connection(c);
}

static void unlink_spare(struct http_threads *p, struct http_thread *t)
{
	PD_CHECK(pd_lock_held(&p->lock));
	if (t->newer)
		t->newer->older = t->older;
	else
		p->spare = t->older;
	if (t->older)
		t->older->newer = t->newer;
	p->nspare--;
}

/* With the lock held. */
static struct http_conn *take_queued(struct http_threads *p)
{
	struct http_conn *c = p->queue.oldest;

	PD_CHECK(pd_lock_held(&p->lock));
	if (c)
		idle_remove(&p->queue, c);
	atomic_store_explicit(&p->crowded, p->queue.oldest != NULL, memory_order_relaxed);
	return c;
}

/* With the lock held: waits among the spare threads. NULL: not needed any more. */
static struct http_conn *wait_for_work(struct http_threads *p, struct http_thread *t)
{
	int64_t until = clock_now() + SPARE_TIME;
	struct timespec ts = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};
	struct http_conn *c;
	int rc = 0;

	t->newer = NULL;
	t->older = p->spare;
	if (p->spare)
		p->spare->newer = t;
	p->spare = t;
	p->nspare++;
	while (!t->conn && rc != ETIMEDOUT && !atomic_load(&p->stopping))
		rc = pthread_cond_timedwait(&t->given, &p->lock, &ts);
	c = t->conn;
	t->conn = NULL;
	if (!c)
		unlink_spare(p, t);
	return c;
}

static struct http_conn *next_connection(struct http_threads *p, struct http_thread *t)
{
	struct http_conn *c;

	/* A spare thread holds nothing but its stack. */
	work_release(&t->work);
	work_init(&t->work, p->server, t->work.lane);
	shelf_clear();
	if (t->event_fd >= 0)
		(void)close(t->event_fd);
	t->event_fd = -1;
	(void)pthread_mutex_lock(&p->lock);
	c = take_queued(p);
	if (!c)
		c = wait_for_work(p, t);
	if (c)
		c->busy = true;
	(void)pthread_mutex_unlock(&p->lock);
	return c;
}

static void thread_free(struct http_thread *t)
{
	work_release(&t->work);
	if (t->event_fd >= 0)
		(void)close(t->event_fd);
	(void)pthread_cond_destroy(&t->given);
	free(t);
}

static void *run(void *arg)
{
	struct http_thread *t = arg;
	struct http_threads *p = t->pool;
	struct sched_param zero = {0};
	struct http_conn *c;
	pthread_t before;
	bool join;

	(void)pthread_setname_np(pthread_self(), "pdctl-conn");
	if (p->server->cfg.batch_threads)
		(void)sched_setscheduler(0, SCHED_BATCH, &zero);
	for (c = t->conn, t->conn = NULL; c; c = next_connection(p, t))
		serve(t, c);
	thread_free(t);
	/* Each joins the one that ended before it, so that the stop joins the last one only, and no
	 * thread is still on its way out when the process ends. */
	(void)pthread_mutex_lock(&p->lock);
	join = p->any_ended;
	before = p->last;
	p->any_ended = true;
	p->last = pthread_self();
	if (--p->n == 0)
		(void)pthread_cond_broadcast(&p->ended);
	(void)pthread_mutex_unlock(&p->lock);
	if (join)
		(void)pthread_join(before, NULL);
	return NULL;
}

/* A thread that begins with this connection. */
static bool start_thread(struct http_threads *p, struct http_conn *c, unsigned lane)
{
	struct http_thread *t = calloc(1, sizeof(*t));
	pthread_condattr_t clock;
	pthread_attr_t attr;
	pthread_t id;
	int rc;

	if (!t)
		return false;
	t->pool = p;
	t->conn = c;
	t->event_fd = -1;
	work_init(&t->work, p->server, lane);
	(void)pthread_condattr_init(&clock);
	(void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&t->given, &clock);
	(void)pthread_condattr_destroy(&clock);
	(void)pthread_attr_init(&attr);
	rc = pthread_attr_setstacksize(&attr, p->server->cfg.stack_bytes);
	rc = rc ? rc : pthread_create(&id, &attr, run, t);
	(void)pthread_attr_destroy(&attr);
	if (rc)
		thread_free(t);
	return rc == 0;
}

/* -- the poller -- */

/* A parked connection has become readable. No thread is woken for a client that has left. */
static void hand_over(struct http_threads *p, struct http_conn *c, uint32_t events)
{
	bool start = false, left = false;
	unsigned lane = 0;

	(void)pthread_mutex_lock(&p->lock);
	PD_CHECK(c->idle && !c->busy);
	idle_remove(&p->parked, c);
	c->io.readable = true;
	if ((events & ~(uint32_t)EPOLLIN) && !idle_has_bytes(c)) {
		left = true;
	} else if (p->spare) {
		struct http_thread *t = p->spare;

		unlink_spare(p, t);
		t->conn = c;
		(void)pthread_cond_signal(&t->given);
	} else if (p->n < p->max) {
		start = c->busy = true;
		p->n++;
		lane = p->lanes++;
	} else {
		idle_add(&p->queue, c, clock_now());
		atomic_store_explicit(&p->crowded, true, memory_order_relaxed);
	}
	(void)pthread_mutex_unlock(&p->lock);
	if (left)
		close_connection(c);
	if (!start || start_thread(p, c, lane))
		return;
	(void)pthread_mutex_lock(&p->lock);
	p->n--;
	p->failures++;
	(void)pthread_mutex_unlock(&p->lock);
	refuse(c);
}

/* Takes out of a list what is over; one that has just become readable is about to be handed over.
 * All of them with `all`. Chained by `next`. */
static struct http_conn *take_over(struct http_idle_list *list, int64_t now, bool queue, bool all)
{
	struct http_conn *c, *newer, *over = NULL;

	for (c = list->oldest; c; c = newer) {
		const struct http_server *s = c->server;
		bool old =
			queue ? now - c->idle_since > s->cfg.head_timeout_ns : idle_is_over(c, now);

		newer = c->newer;
		if (!all && !old && !atomic_load(&s->draining))
			break; /* the rest is younger */
		if (!all && (!old || (!queue && idle_has_bytes(c))))
			continue;
		idle_remove(list, c);
		c->next = over;
		over = c;
	}
	return over;
}

static void tick(struct http_threads *p, bool all)
{
	int64_t now = clock_now();
	struct http_conn *parked, *queued, *next;

	(void)pthread_mutex_lock(&p->lock);
	parked = take_over(&p->parked, now, false, all);
	queued = take_over(&p->queue, now, true, all);
	atomic_store_explicit(&p->crowded, p->queue.oldest != NULL, memory_order_relaxed);
	(void)pthread_mutex_unlock(&p->lock);
	for (; parked; parked = next) {
		next = parked->next;
		stream_goodbye(&parked->io);
		close_connection(parked);
	}
	for (; queued; queued = next) {
		next = queued->next;
		refuse(queued);
	}
}

/* Each thread that waits sees the end of its client's socket. The acceptor has ended, so no slot is
 * taken meanwhile. */
static void cut_busy(struct http_server *s)
{
	unsigned n = atomic_load_explicit(&s->ntable, memory_order_acquire);

	for (unsigned i = 0; i < n; i++) {
		struct http_conn *c = s->table[i];

		(void)pthread_mutex_lock(&c->lock);
		if (c->io.fd >= 0)
			(void)shutdown(c->io.fd, SHUT_RDWR);
		(void)pthread_mutex_unlock(&c->lock);
	}
}

static void *poll_parked(void *arg)
{
	struct http_threads *p = arg;
	struct epoll_event ev[EVENTS_MAX];
	int64_t next_tick = 0;
	bool cut = false;
	uint64_t count;

	(void)pthread_setname_np(pthread_self(), "pdctl-poll");
	while (!atomic_load(&p->stopping)) {
		int n = net_epoll_wait(p->epoll_fd, ev, EVENTS_MAX, TICK);

		for (int i = 0; i < n; i++) {
			struct http_conn *c = ev[i].data.ptr;

			if (!c)
				(void)!read(p->event_fd, &count, sizeof(count));
			else
				hand_over(p, c, ev[i].events);
		}
		if (atomic_load(&p->server->cut)) {
			tick(p, true);
			if (!cut)
				cut_busy(p->server);
			cut = true;
		} else if (clock_now() >= next_tick) {
			next_tick = clock_now() + TICK;
			tick(p, false);
		}
	}
	return NULL;
}

/* -- start and stop -- */

static void kick(const struct http_threads *p)
{
	uint64_t one = 1;

	/* A write that fails finds the counter full: the poller wakes all the same. */
	(void)!write(p->event_fd, &one, sizeof(one));
}

static int start_pool(struct http_server *s)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	struct http_threads *p = calloc(1, sizeof(*p));
	pthread_condattr_t clock;

	s->threads = p;
	if (!p)
		return PD_ENOMEM;
	p->server = s;
	p->max = s->cfg.threads ? s->cfg.threads : HTTP_THREADS_DEFAULT;
	if (p->max > s->max_connections)
		p->max = s->max_connections;
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_condattr_init(&clock);
	(void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&p->ended, &clock);
	(void)pthread_condattr_destroy(&clock);
	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->epoll_fd < 0 || p->event_fd < 0 ||
	    epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->event_fd, &ev) < 0)
		return PD_EIO;
	p->polls = pthread_create(&p->poller, NULL, poll_parked, p) == 0;
	return p->polls ? PD_OK : PD_EIO;
}

static bool stop_pool(struct http_server *s)
{
	struct http_threads *p = s->threads;
	int64_t deadline = clock_now() + STOP_WAIT;
	struct timespec ts = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
	bool all;
	int rc = 0;

	if (!p)
		return true;
	atomic_store(&p->stopping, true);
	kick(p);
	if (p->polls)
		(void)pthread_join(p->poller, NULL);
	p->polls = false;
	(void)pthread_mutex_lock(&p->lock);
	for (struct http_thread *t = p->spare; t; t = t->older)
		(void)pthread_cond_signal(&t->given);
	while (p->n > 0 && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&p->ended, &p->lock, &ts);
	all = p->n == 0;
	(void)pthread_mutex_unlock(&p->lock);
	if (all && p->any_ended)
		(void)pthread_join(p->last, NULL);
	p->any_ended = p->any_ended && !all;
	return all;
}

static void free_pool(struct http_server *s)
{
	struct http_threads *p = s->threads;

	if (!p)
		return;
	if (p->epoll_fd >= 0)
		(void)close(p->epoll_fd);
	if (p->event_fd >= 0)
		(void)close(p->event_fd);
	(void)pthread_cond_destroy(&p->ended);
	(void)pthread_mutex_destroy(&p->lock);
	free(p);
}

static void cut_all(struct http_server *s)
{
	kick(s->threads);
}

static void stats(const struct http_server *s, struct http_server_stats *out)
{
	struct http_threads *p = s->threads;

	(void)pthread_mutex_lock(&p->lock);
	out->fibers = p->n;
	out->idle_fibers = p->nspare;
	out->fiber_failures = p->failures;
	(void)pthread_mutex_unlock(&p->lock);
}

/* -- sleeping and waking -- */

static void sleep_on_thread(struct http_conn *c, int64_t deadline)
{
	struct http_thread *t = c->thread;
	uint64_t count;

	(void)pthread_mutex_lock(&c->lock);
	if (!c->woken && t->event_fd < 0)
		t->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->asleep = !c->woken;
	(void)pthread_mutex_unlock(&c->lock);
	if (c->asleep) {
		/* Out of descriptors: short sleeps, after which the caller looks again. */
		if (t->event_fd < 0 && deadline > clock_now() + TICK)
			deadline = clock_now() + TICK;
		stream_rest(&c->io, t->event_fd, deadline);
	}
	(void)pthread_mutex_lock(&c->lock);
	if (c->asleep && c->woken && t->event_fd >= 0)
		(void)!read(t->event_fd, &count, sizeof(count));
	c->asleep = c->woken = false;
	(void)pthread_mutex_unlock(&c->lock);
}

static void wake(struct http_conn *c)
{
	uint64_t one = 1;

	(void)pthread_mutex_lock(&c->lock);
	if (c->asleep && !c->woken && c->thread->event_fd >= 0)
		(void)!write(c->thread->event_fd, &one, sizeof(one));
	c->woken = true;
	(void)pthread_mutex_unlock(&c->lock);
}

static void look(struct http_conn *c)
{
	stream_rest(&c->io, -1, 0);
}

static void prepare(struct http_conn *c)
{
	(void)pthread_mutex_init(&c->lock, NULL);
}

static void release(struct http_conn *c)
{
	(void)pthread_mutex_destroy(&c->lock);
}

const struct http_driver http_threads = {
	.start = start_pool,
	.stop = stop_pool,
	.free = free_pool,
	.open = open_connection,
	.cut = cut_all,
	.stats = stats,
	.sleep = sleep_on_thread,
	.wake = wake,
	.look = look,
	.prepare = prepare,
	.release = release,
};
