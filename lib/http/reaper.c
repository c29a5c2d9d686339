/*
 * Noticing clients that leave, at no cost per request: every client socket is registered once, when
 * accepted, for EPOLLRDHUP (edge-triggered). On the event the reaper sets the connection's flag and
 * shuts down the upstream leg that is published at that moment; the connection thread, blocked in
 * recv, wakes and cleans up. The event comes only once, so the owner tests the flag whenever it
 * publishes a leg. The descriptor cannot be reused in between: it is published, withdrawn and shut
 * down under the connection's lock.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/http/conn.h"

#define REAPER_STOP UINT64_MAX

static void client_gone(struct http_server *s, uint64_t tag)
{
	uint32_t index = (uint32_t)(tag >> 32), generation = (uint32_t)tag;
	struct http_conn *c = s->table[index];

	(void)pthread_mutex_lock(&c->lock);
	if (c->generation == generation && c->fd >= 0) {
		atomic_store(&c->client_left, true);
		if (c->up_fd >= 0)
			(void)shutdown(c->up_fd, SHUT_RDWR);
		(void)pthread_cond_signal(&c->wake);
	}
	(void)pthread_mutex_unlock(&c->lock);
}

static void *reap(void *arg)
{
	struct http_server *s = arg;
	struct epoll_event ev[64];

	for (;;) {
		int n = epoll_wait(s->epoll_fd, ev, 64, -1);

		for (int i = 0; i < n; i++) {
			if (ev[i].data.u64 == REAPER_STOP)
				return NULL;
			client_gone(s, ev[i].data.u64);
		}
		if (n < 0 && errno != EINTR)
			return NULL;
	}
}

int reaper_start(struct http_server *s)
{
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll_fd < 0)
		return PD_EIO;
	return pthread_create(&s->reaper, NULL, reap, s) == 0 ? PD_OK : PD_ENOMEM;
}

void reaper_stop(struct http_server *s)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = REAPER_STOP};
	int fd = eventfd(1, EFD_CLOEXEC);

	if (fd >= 0 && epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0)
		(void)pthread_join(s->reaper, NULL);
	if (fd >= 0)
		(void)close(fd);
	(void)close(s->epoll_fd);
}

void reaper_watch(struct http_conn *c)
{
	struct epoll_event ev = {
		.events = EPOLLRDHUP | EPOLLET,
		.data.u64 = (uint64_t)c->index << 32 | c->generation,
	};

	if (!c->server->cfg.half_close_ok)
		(void)epoll_ctl(c->server->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev);
}

void reaper_forget(struct http_conn *c)
{
	if (!c->server->cfg.half_close_ok)
		(void)epoll_ctl(c->server->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
}

bool http_conn_publish(struct http_conn *c, int fd)
{
	bool left;

	(void)pthread_mutex_lock(&c->lock);
	left = atomic_load(&c->client_left) || atomic_load(&c->server->cut);
	if (!left)
		c->up_fd = fd;
	(void)pthread_mutex_unlock(&c->lock);
	return !left;
}

bool http_conn_withdraw(struct http_conn *c)
{
	bool left;

	(void)pthread_mutex_lock(&c->lock);
	c->up_fd = -1;
	left = atomic_load(&c->client_left);
	(void)pthread_mutex_unlock(&c->lock);
	return left;
}

bool http_conn_client_left(const struct http_conn *c)
{
	return atomic_load(&c->client_left);
}

bool http_conn_sleep(struct http_conn *c, int64_t deadline)
{
	struct timespec ts = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
	int rc = 0;

	(void)pthread_mutex_lock(&c->lock);
	while (rc != ETIMEDOUT && !c->woken && !atomic_load(&c->client_left) &&
	       !atomic_load(&c->server->cut))
		rc = deadline >= CLOCK_NEVER ? pthread_cond_wait(&c->wake, &c->lock)
					     : pthread_cond_timedwait(&c->wake, &c->lock, &ts);
	c->woken = false;
	(void)pthread_mutex_unlock(&c->lock);
	return atomic_load(&c->client_left) || atomic_load(&c->server->cut);
}

void http_conn_wake(struct http_conn *c)
{
	(void)pthread_mutex_lock(&c->lock);
	c->woken = true;
	(void)pthread_cond_signal(&c->wake);
	(void)pthread_mutex_unlock(&c->lock);
}
