/*
 * Deadlines without timers: one thread looks at all connections 20 times a second. It ends idle
 * ones whose time is over (or all idle ones while the server drains) and shuts down upstream legs
 * whose deadline has passed. A socket timeout would cost a kernel timer for every blocking receive;
 * this costs some microseconds per thousand connections and second, and is late by 50 ms at most.
 */
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/http/conn.h"

#define SWEEP_MS    50
#define IDLE_MS	    200	     /* without connections */
#define FRESH_GRACE NS_PER_S /* a drain waits so long for the first request of a connection */

/* The idle connection reads its end; its thread, or the one that gets the event, closes it. */
static void end_idle(struct http_conn *c, uint64_t word)
{
	(void)pthread_mutex_lock(&c->lock);
	if (atomic_load(&c->word) == word && c->fd >= 0 && atomic_load(&c->idle_since) != 0)
		(void)shutdown(c->fd, SHUT_RD);
	(void)pthread_mutex_unlock(&c->lock);
}

static void end_leg(struct http_conn *c, int64_t now)
{
	int64_t deadline;

	(void)pthread_mutex_lock(&c->lock);
	deadline = atomic_load(&c->up_deadline);
	if (c->up_fd >= 0 && deadline > 0 && now > deadline) {
		atomic_store(&c->timed_out, true);
		(void)shutdown(c->up_fd, SHUT_RDWR);
		atomic_store(&c->up_deadline, 0);
	}
	(void)pthread_mutex_unlock(&c->lock);
}

/* While the server drains idle connections end at once, but not one that was accepted a moment ago:
 * its first request may be on the way, and a restart must not lose it. */
static int64_t idle_limit(const struct http_server *s, const struct http_conn *c, bool draining)
{
	if (!draining)
		return s->cfg.idle_timeout_ns;
	return atomic_load_explicit(&c->fresh, memory_order_relaxed) ? FRESH_GRACE : -1;
}

/* A thread has waited long enough on a silent connection: its recv returns, and the connection goes
 * back to epoll. */
static void interrupt_wait(struct http_conn *c)
{
	(void)pthread_mutex_lock(&c->lock);
	if (c->thread && atomic_load(&c->idle_since) != 0)
		(void)pthread_kill(c->thread->id, CONN_SIGNAL);
	(void)pthread_mutex_unlock(&c->lock);
}

static void look_at(struct http_server *s, struct http_conn *c, uint64_t word, int64_t now)
{
	int64_t idle = atomic_load_explicit(&c->idle_since, memory_order_relaxed), deadline;

	if (idle != 0) {
		if (now - idle > idle_limit(s, c, atomic_load(&s->draining)))
			end_idle(c, word);
		else if (CONN_STATE(word) != CONN_IDLE && now - idle > CONN_HOLD_NS)
			interrupt_wait(c);
		return;
	}
	deadline = atomic_load_explicit(&c->up_deadline, memory_order_relaxed);
	if (deadline > 0 && now > deadline)
		end_leg(c, now);
}

/* True when there is any connection to look after. */
static bool sweep(struct http_server *s, int64_t now)
{
	bool any = false;
	unsigned n = atomic_load_explicit(&s->ntable, memory_order_acquire);

	for (unsigned i = 0; i < n; i++) {
		struct http_conn *c = s->table[i];
		uint64_t word = atomic_load_explicit(&c->word, memory_order_relaxed);

		if (CONN_STATE(word) != CONN_FREE) {
			look_at(s, c, word, now);
			any = true;
		}
	}
	return any;
}

static void no_effect(int sig)
{
	(void)sig;
}

static void *run(void *arg)
{
	struct http_server *s = arg;
	struct pollfd p = {.fd = s->stop_fd, .events = POLLIN};
	bool any = false;

	(void)pthread_setname_np(pthread_self(), "pdctl-sweep");
	while (!atomic_load(&s->stopping)) {
		(void)poll(&p, 1, any ? SWEEP_MS : IDLE_MS);
		any = sweep(s, clock_now());
	}
	return NULL;
}

int sweeper_start(struct http_server *s)
{
	struct sigaction act = {.sa_handler = no_effect};

	/* Without SA_RESTART: the point is that recv returns. */
	if (sigaction(CONN_SIGNAL, &act, NULL) < 0)
		return PD_EIO;
	return pthread_create(&s->sweeper, NULL, run, s) == 0 ? PD_OK : PD_ENOMEM;
}

void sweeper_stop(struct http_server *s)
{
	(void)pthread_join(s->sweeper, NULL);
}
