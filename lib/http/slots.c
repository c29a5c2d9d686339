/*
 * What both drivers share: connection slots, the list of idle connections, and clients that leave.
 *
 * A leaving client is an event of its socket: the flag is set and the upstream leg that is
 * published is interrupted, so that the handler, wherever it waits, comes back and cleans up. The
 * event comes only once, so the flag is tested whenever a leg is published.
 */
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "lib/base/check.h"
#include "lib/base/clock.h"
#include "lib/http/conn.h"

#define USER_TIMEOUT 60000    /* ms until unacknowledged bytes end a connection */
#define FRESH_GRACE  NS_PER_S /* a drain waits so long for the first request of a connection */

/* -- slots -- */

static struct http_conn *new_slot(struct http_server *s)
{
	unsigned n = atomic_load_explicit(&s->ntable, memory_order_relaxed);
	struct http_conn *c = n < s->max_connections ? calloc(1, sizeof(*c)) : NULL;

	PD_CHECK(pd_lock_held(&s->lock));
	if (!c)
		return NULL;
	c->server = s;
	c->io.fd = -1;
	s->driver->prepare(c);
	s->table[n] = c;
	atomic_store_explicit(&s->ntable, n + 1, memory_order_release);
	return c;
}

struct http_conn *slot_take(struct http_server *s, int fd, uint64_t peer)
{
	unsigned user_timeout = USER_TIMEOUT;
	struct http_conn *c;

	(void)pthread_mutex_lock(&s->lock);
	c = s->spare;
	if (c)
		s->spare = c->next;
	else
		c = new_slot(s);
	(void)pthread_mutex_unlock(&s->lock);
	if (!c)
		return NULL;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
	c->busy = c->client_left = c->woken = false;
	c->fresh = true;
	c->peer = peer;
	c->up = NULL;
	c->next = NULL;
	c->io.fd = fd;
	return c;
}

void slot_give(struct http_conn *c)
{
	struct http_server *s = c->server;

	PD_CHECK(c->io.fd < 0 && !c->idle && !c->up);
	(void)pthread_mutex_lock(&s->lock);
	c->next = s->spare;
	s->spare = c;
	s->connections--;
	peers_leave(&s->peers, c->peer);
	if (s->connections == 0 || atomic_load(&s->draining))
		(void)pthread_cond_broadcast(&s->changed);
	(void)pthread_mutex_unlock(&s->lock);
}

void slots_free(struct http_server *s)
{
	for (unsigned i = 0; i < atomic_load(&s->ntable); i++) {
		if (s->driver->release)
			s->driver->release(s->table[i]);
		free(s->table[i]);
	}
}

/* -- idle connections -- */

void idle_add(struct http_idle_list *list, struct http_conn *c, int64_t now)
{
	PD_CHECK(!c->idle);
	c->idle = true;
	c->idle_since = now;
	c->newer = NULL;
	c->older = list->newest;
	if (list->newest)
		list->newest->newer = c;
	else
		list->oldest = c;
	list->newest = c;
}

void idle_remove(struct http_idle_list *list, struct http_conn *c)
{
	if (!c->idle)
		return;
	c->idle = false;
	if (c->older)
		c->older->newer = c->newer;
	else
		list->oldest = c->newer;
	if (c->newer)
		c->newer->older = c->older;
	else
		list->newest = c->older;
}

bool idle_is_over(const struct http_conn *c, int64_t now)
{
	const struct http_server *s = c->server;
	int64_t limit = !atomic_load(&s->draining) ? s->cfg.idle_timeout_ns
			: c->fresh		   ? FRESH_GRACE
						   : -1;

	return now - c->idle_since > limit;
}

bool idle_has_bytes(const struct http_conn *c)
{
	char byte;

	return !c->io.ended && recv(c->io.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* -- clients that leave -- */

void client_gone(struct http_conn *c)
{
	c->client_left = true;
	if (c->up)
		stream_interrupt(c->up);
	if (c->io.waits_for & EPOLLOUT)
		stream_interrupt(&c->io);
}

void client_event(struct http_conn *c, uint32_t events)
{
	if ((events & (EPOLLHUP | EPOLLERR)) ||
	    ((events & EPOLLRDHUP) && !c->server->cfg.half_close_ok))
		client_gone(c);
}

bool client_is_gone(const struct http_conn *c)
{
	return c->client_left || atomic_load(&c->server->cut);
}

bool http_conn_publish(struct http_conn *c, struct stream *up)
{
	PD_CHECK(c->work && !c->up);
	if (client_is_gone(c))
		return false;
	c->up = up;
	up->guard = &c->io;
	return true;
}

bool http_conn_withdraw(struct http_conn *c)
{
	if (c->up)
		c->up->guard = NULL;
	c->up = NULL;
	return c->client_left;
}

bool http_conn_client_left(struct http_conn *c)
{
	if (!c->client_left && c->server->driver->look)
		c->server->driver->look(c);
	return c->client_left;
}

bool http_conn_sleep(struct http_conn *c, int64_t deadline)
{
	PD_CHECK(c->work);
	if (!client_is_gone(c))
		c->server->driver->sleep(c, deadline);
	return client_is_gone(c);
}

void http_conn_wake(struct http_conn *c)
{
	c->server->driver->wake(c);
}

static bool sleep_of(void *who, int64_t deadline)
{
	return http_conn_sleep(who, deadline);
}

static void wake_of(void *who)
{
	http_conn_wake(who);
}

struct errand_sleeper http_conn_sleeper(struct http_conn *c)
{
	return (struct errand_sleeper){sleep_of, wake_of, c};
}
