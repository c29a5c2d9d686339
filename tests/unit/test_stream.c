/* Streams on a loop's fibers and on plain threads: every end, every deadline; and the pool of them.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/http/upstream.h"
#include "tests/unit/sock.h"

/* -- a test body on a fiber, and the same on a thread -- */

struct job {
	struct loop_task task; /* first member */
	void (*body)(struct stream *s, int peer);
	struct stream s;
	int fd[2];
	_Atomic bool done;
};

static void run_job(void *arg)
{
	struct job *j = arg;

	assert_int_equal(stream_open(&j->s, j->fd[0], loop_self()), PD_OK);
	j->body(&j->s, j->fd[1]);
	stream_close(&j->s);
	atomic_store(&j->done, true);
}

static void spawn_job(struct loop_task *t)
{
	assert_int_equal(loop_spawn(loop_self(), run_job, t), PD_OK);
}

/* A pair of TCP sockets; the first one does not block. */
static void tcp_pair(int fd[2])
{
	uint16_t port = 0;
	int listener;

	assert_int_equal(net_listen("127.0.0.1", &port, 1, &listener, NULL), PD_OK);
	fd[1] = sock_dial(port);
	assert_int_equal(fcntl(listener, F_SETFL, 0), 0);
	fd[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert_true(fd[0] >= 0);
	(void)close(listener);
}

static void both_ways(void (*body)(struct stream *s, int peer))
{
	struct loop_config cfg = {.name = "test", .stack_bytes = 256u << 10, .max_fibers = 2};
	struct job j = {.task.run = spawn_job, .body = body};
	struct loop *l;

	tcp_pair(j.fd);
	assert_int_equal(loop_start(&l, &cfg), PD_OK);
	loop_post(l, &j.task);
	while (!atomic_load(&j.done))
		clock_sleep_until(clock_now() + NS_PER_MS);
	(void)close(j.fd[1]);
	assert_true(loop_stop(l, clock_now() + 20 * NS_PER_S));
	loop_free(l);
	tcp_pair(j.fd);
	run_job(&j);
	(void)close(j.fd[1]);
}

/* -- receiving -- */

static void bytes_then_the_end(struct stream *s, int peer)
{
	char text[64];

	sock_say(peer, "all", 3);
	assert_int_equal(shutdown(peer, SHUT_WR), 0);
	/* The bytes and the end make one event: a short read must not hide the end. */
	clock_sleep_until(clock_now() + 20 * NS_PER_MS);
	assert_int_equal(stream_recv(s, text, sizeof(text)), 3);
	assert_int_equal(stream_recv(s, text, sizeof(text)), 0);
	assert_int_equal(stream_recv(s, text, sizeof(text)), 0);
}

static void reads_that_fill_the_buffer(struct stream *s, int peer)
{
	char text[5];

	s->deadline = clock_now() + 20 * NS_PER_MS;
	sock_say(peer, "0123456789", 10);
	assert_int_equal(stream_recv(s, text, sizeof(text)), 5);
	assert_int_equal(stream_recv(s, text, sizeof(text)), 5);
	assert_int_equal(stream_recv(s, text, sizeof(text)), PD_ETIMEOUT);
	assert_int_equal(stream_recv_now(s, text, sizeof(text)), PD_EAGAIN);
	s->deadline = CLOCK_NEVER;
	sock_say(peer, "x", 1);
	assert_int_equal(stream_recv(s, text, sizeof(text)), 1);
}

static void a_thousand_turns(struct stream *s, int peer)
{
	char byte;

	for (int i = 0; i < 1000; i++) {
		sock_say(peer, &(char){(char)i}, 1);
		assert_int_equal(stream_recv(s, &byte, 1), 1);
		assert_int_equal(byte, (char)i);
		assert_int_equal(stream_send(s, &byte, 1, NS_PER_S), PD_OK);
		assert_int_equal(sock_recv(peer, &byte, 1), 1);
	}
}

static void what_had_arrived_comes_before_the_interruption(struct stream *s, int peer)
{
	char text[64];

	sock_say(peer, "late", 4);
	clock_sleep_until(clock_now() + 20 * NS_PER_MS);
	stream_interrupt(s);
	if (s->loop) /* the event is there only after a wait: make one */
		(void)loop_wait(clock_now() + NS_PER_MS, true);
	assert_int_equal(stream_recv(s, text, sizeof(text)), 4);
	assert_int_equal(stream_recv(s, text, sizeof(text)), PD_ECLOSED);
	assert_int_equal(stream_send(s, text, 1, NS_PER_S), PD_ECLOSED);
}

static void a_reset_is_no_end(struct stream *s, int peer)
{
	struct linger reset = {.l_onoff = 1};
	char byte;

	assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
	assert_int_equal(dup2(0, peer), peer); /* closes it; the number stays ours */
	assert_int_equal(stream_recv(s, &byte, 1), PD_ECLOSED);
}

static void receiving(void **state)
{
	(void)state;
	both_ways(bytes_then_the_end);
	both_ways(reads_that_fill_the_buffer);
	both_ways(a_thousand_turns);
	both_ways(what_had_arrived_comes_before_the_interruption);
	both_ways(a_reset_is_no_end);
}

/* -- sending -- */

static void nobody_reads(struct stream *s, int peer)
{
	size_t n = 32u << 20, sent = 0;
	char *text = calloc(1, n);
	struct iovec iov = {text, n};

	(void)peer;
	assert_non_null(text);
	assert_int_equal(stream_send_iov(s, &iov, 1, 50 * NS_PER_MS, &sent), PD_ETIMEOUT);
	assert_true(sent > 0 && sent < n);
	free(text);
}

static void *read_slowly(void *arg)
{
	int fd = *(int *)arg;
	size_t got = 0;
	char *text = malloc(65536);

	while (text && got < 4u << 20) {
		ssize_t n = recv(fd, text, 65536, 0);

		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++, got++)
			if (text[i] != (char)(got % 251))
				n = -1;
		clock_sleep_until(clock_now() + NS_PER_MS);
	}
	free(text);
	return (void *)(uintptr_t)got;
}

static void a_slow_reader_gets_every_byte(struct stream *s, int peer)
{
	size_t n = 4u << 20;
	char *text = malloc(n);
	struct iovec iov[100];
	pthread_t t;
	void *got;

	assert_non_null(text);
	for (size_t i = 0; i < n; i++)
		text[i] = (char)(i % 251);
	/* Pieces of odd sizes, empty ones among them, more than one call takes. */
	for (size_t i = 0, at = 0; i < 100; i++) {
		size_t take = i == 99 ? n - at : i % 7 == 3 ? 0 : n / 101 + i;

		iov[i] = (struct iovec){text + at, take};
		at += take;
	}
	assert_int_equal(pthread_create(&t, NULL, read_slowly, &peer), 0);
	assert_int_equal(stream_send_iov(s, iov, 100, 20 * NS_PER_S, NULL), PD_OK);
	(void)pthread_join(t, &got);
	assert_int_equal((uintptr_t)got, n);
	free(text);
}

static void nobody_is_there(struct stream *s, int peer)
{
	assert_int_equal(dup2(0, peer), peer);
	clock_sleep_until(clock_now() + 10 * NS_PER_MS);
	(void)!stream_send(s, "x", 1, NS_PER_S); /* makes the reset */
	clock_sleep_until(clock_now() + 10 * NS_PER_MS);
	assert_int_equal(stream_send(s, "x", 1, NS_PER_S), PD_ECLOSED);
}

static void sending(void **state)
{
	(void)state;
	both_ways(nobody_reads);
	both_ways(a_slow_reader_gets_every_byte);
	both_ways(nobody_is_there);
}

/* -- connecting -- */

static void connects(struct stream *unused, int peer)
{
	struct net_addr a;
	struct stream *s;
	uint16_t port = 0;
	int listener;
	char byte;

	(void)unused;
	(void)peer;
	assert_int_equal(net_listen("127.0.0.1", &port, 1, &listener, NULL), PD_OK);
	assert_int_equal(net_resolve(&a, "127.0.0.1", port, NULL), PD_OK);
	assert_int_equal(stream_new(&s, &a), PD_OK);
	assert_int_equal(stream_connect(s, &a, clock_now() + 5 * NS_PER_S), PD_OK);
	assert_true(stream_idle_ok(s));
	assert_int_equal(stream_send(s, "x", 1, NS_PER_S), PD_OK);
	assert_int_equal(stream_recv_now(s, &byte, 1), PD_EAGAIN);
	stream_free(s);
	(void)close(listener);
	assert_int_equal(stream_new(&s, &a), PD_OK);
	assert_int_equal(stream_connect(s, &a, clock_now() + 5 * NS_PER_S), PD_ECLOSED);
	stream_free(s);
	/* An address from which nothing comes back (RFC 5737). Where there is no route it is
	 * refused. */
	assert_int_equal(net_resolve(&a, "192.0.2.1", 9, NULL), PD_OK);
	assert_int_equal(stream_new(&s, &a), PD_OK);
	assert_int_not_equal(stream_connect(s, &a, clock_now() + 30 * NS_PER_MS), PD_OK);
	stream_free(s);
}

static void connecting(void **state)
{
	(void)state;
	both_ways(connects);
}

/* -- the pool -- */

static struct stream *kept_stream(int *peer)
{
	struct stream *s = calloc(1, sizeof(*s));
	int fd[2];

	assert_non_null(s);
	tcp_pair(fd);
	assert_int_equal(stream_open(s, fd[0], loop_self()), PD_OK);
	*peer = fd[1];
	return s;
}

static void pools(struct stream *unused, int unused_peer)
{
	struct http_use use = {0};
	struct http_pool p;
	struct stream *s[4];
	int64_t now = clock_now();
	int peer[4];

	(void)unused;
	(void)unused_peer;
	assert_int_equal(http_pool_init(&p, 3, NS_PER_S), PD_OK);
	assert_null(http_pool_get(&p, now, &use));
	for (size_t i = 0; i < 4; i++) {
		s[i] = kept_stream(&peer[i]);
		http_pool_put(&p, s[i], now + (int64_t)i, &use);
	}
	assert_int_equal(http_pool_idle(&p), 3); /* the fourth was one too many */
	assert_ptr_equal(http_pool_get(&p, now, &use), s[2]);
	http_pool_put(&p, s[2], now + 2, &use);
	/* Late enough to be asked: one has bytes, one is closed, one is good. */
	sock_say(peer[2], "?", 1);
	(void)close(peer[1]);
	clock_sleep_until(clock_now() + 20 * NS_PER_MS);
	assert_ptr_equal(http_pool_get(&p, now + 500 * NS_PER_MS, &use), s[0]);
	assert_int_equal(http_pool_idle(&p), 0);
	http_pool_put(&p, s[0], now, &use);
	http_pool_trim(&p, now + NS_PER_S / 2);
	assert_int_equal(http_pool_idle(&p), 1);
	http_pool_trim(&p, now + NS_PER_S);
	assert_int_equal(http_pool_idle(&p), 0);
	http_pool_close(&p);
	s[0] = kept_stream(&peer[1]);
	http_pool_put(&p, s[0], now, &use);
	assert_int_equal(http_pool_idle(&p), 0);
	http_pool_release(&p);
	(void)close(peer[0]);
	(void)close(peer[1]);
	(void)close(peer[2]);
	(void)close(peer[3]);
}

static void pool(void **state)
{
	(void)state;
	both_ways(pools);
}

/* A connection stays with its loop, and may be dropped from any thread. */
static struct http_pool shared;
static _Atomic int put, got_one;

static void put_one(struct stream *unused, int unused_peer)
{
	int peer;

	(void)unused;
	(void)unused_peer;
	http_pool_put(&shared, kept_stream(&peer), clock_now(), &(struct http_use){0});
	atomic_fetch_add(&put, 1);
	while (atomic_load(&got_one) < 1)
		(void)loop_wait(clock_now() + NS_PER_MS, true);
	(void)close(peer);
}

static void take_none(struct stream *unused, int unused_peer)
{
	(void)unused;
	(void)unused_peer;
	assert_null(http_pool_get(&shared, clock_now(), &(struct http_use){0}));
}

static void connections_stay_with_their_loop(void **state)
{
	struct loop_config cfg = {.name = "test", .stack_bytes = 256u << 10, .max_fibers = 2};
	struct job owner = {.task.run = spawn_job, .body = put_one},
		   other = {.task.run = spawn_job, .body = take_none};
	struct loop *l[2];

	(void)state;
	assert_int_equal(http_pool_init(&shared, 8, 60 * NS_PER_S), PD_OK);
	tcp_pair(owner.fd);
	tcp_pair(other.fd);
	for (int i = 0; i < 2; i++)
		assert_int_equal(loop_start(&l[i], &cfg), PD_OK);
	loop_post(l[0], &owner.task);
	while (atomic_load(&put) == 0)
		clock_sleep_until(clock_now() + NS_PER_MS);
	loop_post(l[1], &other.task);
	while (!atomic_load(&other.done))
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_int_equal(http_pool_idle(&shared), 1);
	http_pool_flush(&shared); /* from here: its own loop closes it */
	atomic_store(&got_one, 1);
	while (!atomic_load(&owner.done))
		clock_sleep_until(clock_now() + NS_PER_MS);
	for (int i = 0; i < 2; i++)
		assert_true(loop_stop(l[i], clock_now() + 20 * NS_PER_S));
	http_pool_release(&shared);
	for (int i = 0; i < 2; i++)
		loop_free(l[i]);
	(void)close(owner.fd[1]);
	(void)close(other.fd[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(receiving),
		cmocka_unit_test(sending),
		cmocka_unit_test(connecting),
		cmocka_unit_test(pool),
		cmocka_unit_test(connections_stay_with_their_loop),
	};

	return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
