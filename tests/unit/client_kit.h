/*
 * For the tests of the HTTP client: a peer that follows a script on a thread of its own, and cases
 * that run on a fiber of a loop and again on a plain thread.
 */
#ifndef PD_TESTS_CLIENT_KIT_H
#define PD_TESTS_CLIENT_KIT_H

#include "tests/unit/sock.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/http/client.h"
#include "lib/net/shelf.h"

#define LONG  (20 * NS_PER_S)
#define SHORT (60 * NS_PER_MS)
#define BIG   (8u << 20)

/* -- the peer: takes connections one after the other and plays its part on each. It asserts
 * nothing: that is the caller's -- */

static struct peer {
	void (*play)(int fd, unsigned nth);
	unsigned n; /* connections it takes */
	struct net_addrs addr;
	int listener;
	pthread_t thread;
	_Atomic unsigned requests;
	_Atomic bool go; /* what a script may wait for */
	struct tls_context *tls;
} peer;

/* One request: its head, and as much of a body as its Content-Length says. False: closed. */
static inline bool hear(int fd)
{
	char text[4096], *end;
	size_t n = 0;
	ssize_t got;

	do {
		got = sock_recv(fd, text + n, sizeof(text) - 1 - n);
		if (got <= 0)
			return false;
		n += (size_t)got;
		text[n] = '\0';
	} while (!strstr(text, "\r\n\r\n"));
	end = strstr(text, "Content-Length: ");
	for (size_t want = end ? strtoul(end + 16, NULL, 10) : 0,
		    have = n - (size_t)(strstr(text, "\r\n\r\n") + 4 - text);
	     have < want; have += (size_t)got) {
		got = sock_recv(fd, text, want - have < sizeof(text) ? want - have : sizeof(text));
		if (got <= 0)
			return false;
	}
	atomic_fetch_add(&peer.requests, 1);
	return true;
}

static inline void tell(int fd, const char *text)
{
	sock_say(fd, text, strlen(text));
}

static inline void tell_slowly(int fd, const char *text)
{
	for (; *text; text++) {
		sock_say(fd, text, 1);
		if (*text == '\n')
			clock_sleep_until(clock_now() + NS_PER_MS / 2);
	}
}

/* Until the client closes, or has sent what the script does not want. */
static inline void drain(int fd)
{
	char text[8192];

	while (sock_recv(fd, text, sizeof(text)) > 0)
		continue;
}

static inline void *run_peer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < peer.n; i++) {
		int fd = accept4(peer.listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			break;
		peer.play(fd, i);
		(void)close(fd);
	}
	return NULL;
}

static inline void start_peer(void (*play)(int fd, unsigned nth), unsigned n)
{
	uint16_t port = 0;

	peer.play = play;
	peer.n = n;
	atomic_store(&peer.requests, 0);
	atomic_store(&peer.go, false);
	assert_int_equal(net_listen("127.0.0.1", &port, 8, &peer.listener, NULL), PD_OK);
	assert_int_equal(fcntl(peer.listener, F_SETFL, 0), 0);
	assert_int_equal(net_resolve_all(&peer.addr, "127.0.0.1", port, NULL), PD_OK);
	assert_int_equal(pthread_create(&peer.thread, NULL, run_peer, NULL), 0);
}

static inline void stop_peer(void)
{
	(void)shutdown(peer.listener, SHUT_RDWR);
	(void)pthread_join(peer.thread, NULL);
	(void)close(peer.listener);
}

static inline void await_go(void)
{
	for (int64_t end = clock_now() + LONG; !atomic_load(&peer.go) && clock_now() < end;)
		clock_sleep_until(clock_now() + NS_PER_MS);
}

/* -- the caller -- */

static struct http_pool pool;
static struct buf in, body;
static struct pd_msg why;

static inline int address(void *ctx, int64_t deadline, struct net_addrs *out, struct pd_msg *msg)
{
	(void)deadline;
	(void)msg;
	*out = *(struct net_addrs *)ctx;
	return PD_OK;
}

static inline struct http_call new_call(void)
{
	return (struct http_call){
		.to = {.pool = &pool, .address = address, .ctx = &peer.addr},
		.in = &in,
		.limit = {.connect = LONG, .send = LONG, .first_byte = LONG, .between = LONG},
		.deadline = clock_now() + 2 * LONG,
		.repeat = true,
	};
}

static inline enum http_call_result begin(struct http_call *c, const char *request)
{
	struct iovec iov[3] = {{(void *)(uintptr_t)request, strlen(request)},
			       {(void *)(uintptr_t) "X: 1\r\n", 6},
			       {(void *)(uintptr_t) "\r\n", 2}};

	return http_call_begin(c, iov, 3, &why);
}

static inline enum http_call_result get(struct http_call *c)
{
	return begin(c, "GET / HTTP/1.1\r\nHost: x\r\n");
}

static inline void answers(struct http_call *c, int status, const char *text)
{
	assert_int_equal(get(c), HTTP_CALL_OK);
	assert_int_equal(c->head.status, status);
	buf_clear(&body);
	assert_int_equal(http_call_collect(c, &body), PD_OK);
	assert_true(c->ended);
	assert_int_equal(body.len, strlen(text));
	assert_true(body.len == 0 || memcmp(body.data, text, body.len) == 0);
	assert_false(http_call_end(c));
}

static inline void set_up(void)
{
	assert_int_equal(http_pool_init(&pool, 4, LONG), PD_OK);
	buf_init(&in, 1u << 20);
	buf_init(&body, 1u << 20);
}

static inline void tear_down(void)
{
	http_pool_release(&pool);
	buf_release(&in);
	buf_release(&body);
}

/* -- each case twice -- */

static struct job {
	struct loop_task task; /* first member */
	void (*body)(void);
	void (*beside)(void); /* runs when the first one waits; NULL: nothing */
	_Atomic bool done;
} job;

static inline void run_beside(void *arg)
{
	((struct job *)arg)->beside();
}

static inline void run_job(void *arg)
{
	struct job *j = arg;

	if (j->beside)
		assert_int_equal(loop_spawn(loop_self(), run_beside, j), PD_OK);
	j->body();
	tear_down(); /* where the connections live */
	atomic_store(&j->done, true);
}

static inline void spawn_job(struct loop_task *t)
{
	assert_int_equal(loop_spawn(loop_self(), run_job, t), PD_OK);
}

static inline void on_fiber(void (*body_of)(void), void (*beside)(void),
			    void (*play)(int, unsigned), unsigned n)
{
	struct loop_config cfg = {.name = "test", .stack_bytes = 256u << 10, .max_fibers = 4};
	struct loop *l;

	start_peer(play, n);
	set_up();
	job = (struct job){.task.run = spawn_job, .body = body_of, .beside = beside};
	assert_int_equal(loop_start(&l, &cfg), PD_OK);
	loop_post(l, &job.task);
	while (!atomic_load(&job.done))
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_true(loop_stop(l, clock_now() + LONG));
	loop_free(l);
	stop_peer();
}

static inline void both_ways(void (*body_of)(void), void (*play)(int, unsigned), unsigned n)
{
	on_fiber(body_of, NULL, play, n);
	start_peer(play, n);
	set_up();
	body_of();
	tear_down();
	shelf_clear();
	stop_peer();
}

#endif
