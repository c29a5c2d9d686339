/* Wake-ups that other threads post to a connection: none reaches the connection that comes after it
 * in the same slot, and none is lost. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/http/server.h"
#include "tests/unit/forms.h"
#include "tests/unit/sock.h"

#define CLOSE "Host: x\r\nConnection: close\r\n\r\n"

/* -- one wake-up, step by step -- */

static _Atomic int held, let_go, asleep, early, loop_of_last;

/* Occupies the whole loop, as a handler must not. */
static void hold_the_loop(int turn)
{
	held = turn;
	while (let_go < turn)
		(void)usleep(1000);
}

static void *wake_it(void *arg)
{
	http_conn_wake(arg);
	return NULL;
}

static void steps(void *ctx, struct http_conn *c, struct http_request *r)
{
	int64_t until;
	pthread_t t;

	(void)ctx;
	if (span_eq(r->head.path, SPAN("/hold1"))) {
		hold_the_loop(1);
	} else if (span_eq(r->head.path, SPAN("/hold2"))) {
		hold_the_loop(2);
	} else if (span_eq(r->head.path, SPAN("/woken"))) {
		assert_int_equal(pthread_create(&t, NULL, wake_it, c), 0);
		(void)pthread_join(t, NULL);
	} else if (span_eq(r->head.path, SPAN("/sleep"))) {
		until = clock_now() + NS_PER_S;
		asleep = 1;
		(void)http_conn_sleep(c, until);
		early = clock_now() < until;
		asleep = 2;
	} else {
		loop_of_last = (int)loop_index(loop_self());
	}
	(void)http_reply(c, 200, NULL, NULL, "", 0);
}

static struct http_server *start(void (*handler)(void *, struct http_conn *, struct http_request *),
				 unsigned threads)
{
	struct http_server_config cfg;
	struct http_server *s;
	struct pd_msg msg;

	http_server_config_default(&cfg);
	cfg.io = io_form;
	cfg.threads = threads;
	cfg.on_request = handler;
	assert_int_equal(http_server_start(&s, &cfg, &msg), PD_OK);
	return s;
}

static void say(int fd, const char *text)
{
	sock_say(fd, text, strlen(text));
}

static void await(const _Atomic int *what, int value)
{
	while (*what < value)
		(void)usleep(1000);
}

static void a_late_wake_up_does_not_reach_the_next_connection(void **state)
{
	struct http_server *s = start(steps, 2);
	struct http_server_stats stats;
	int fd[6], mine[6], theirs[6], n = 0, m = 0, next;
	char answer[512];

	(void)state;
	held = let_go = asleep = early = 0;
	for (int i = 0; i < 6; i++) {
		fd[i] = sock_dial(http_server_port(s));
		say(fd[i], "GET /where HTTP/1.1\r\nHost: x\r\n\r\n");
		assert_true(sock_recv(fd[i], answer, sizeof(answer)) > 0);
		if (loop_of_last == 0)
			mine[n++] = fd[i];
		else
			theirs[m++] = fd[i];
	}
	assert_int_equal(n, 3);
	assert_int_equal(m, 3);
	(void)close(theirs[0]);
	(void)close(theirs[1]); /* so the next connection goes to the other loop */
	do {
		(void)usleep(1000);
		http_server_stats(s, &stats);
	} while (stats.connections > 4);

	/* One round of the loop: the first request is woken from outside and ends with its
	 * connection, the second keeps the loop from running what was posted. */
	say(mine[0], "GET /hold1 HTTP/1.1\r\nHost: x\r\n\r\n");
	await(&held, 1);
	say(mine[1], "GET /woken HTTP/1.1\r\n" CLOSE);
	say(mine[2], "GET /hold2 HTTP/1.1\r\nHost: x\r\n\r\n");
	let_go = 1;
	await(&held, 2);
	next = sock_dial(http_server_port(s));
	say(next, "GET /sleep HTTP/1.1\r\n" CLOSE);
	await(&asleep, 1);
	let_go = 2;
	await(&asleep, 2);
	assert_int_equal(early, 0);
	for (int i = 0; i < 3; i++)
		(void)close(mine[i]);
	(void)close(theirs[2]);
	(void)close(next);
	assert_true(http_server_free(s));
}

/* -- as many as possible -- */

#define CLIENTS 8
#define WAKERS	3
#define ROUNDS	400

struct nap {
	struct nap *next;
	struct http_conn *conn;
	bool woken;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct nap *naps;
static _Atomic int lost, left_behind, finished;
static _Atomic unsigned turns;

/* As the queue of the router does it: whoever wakes holds the lock that the sleeper takes before it
 * goes, so the connection is in its handler. Every other one is woken before it sleeps, and leaves
 * with its wake-up still posted. */
static void nap(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct nap n = {.conn = c};
	int64_t until = clock_now() + 20 * NS_PER_S;
	unsigned turn = turns++;
	bool woken = false, left = false;

	(void)ctx;
	(void)r;
	(void)pthread_mutex_lock(&lock);
	n.next = naps;
	naps = &n;
	(void)pthread_mutex_unlock(&lock);
	if (turn % 2)
		(void)usleep(100);
	for (;;) {
		(void)pthread_mutex_lock(&lock);
		woken = n.woken;
		if (!woken && (left || clock_now() >= until)) {
			struct nap **at = &naps;

			while (*at != &n)
				at = &(*at)->next;
			*at = n.next;
			atomic_fetch_add(left ? &left_behind : &lost, 1);
			woken = true;
		}
		(void)pthread_mutex_unlock(&lock);
		if (woken)
			break;
		left = http_conn_sleep(c, until);
	}
	(void)http_reply(c, 200, NULL, NULL, "", 0);
}

static void *waker(void *arg)
{
	struct nap *n;

	(void)arg;
	while (!finished) {
		(void)pthread_mutex_lock(&lock);
		n = naps;
		if (n) {
			naps = n->next;
			n->woken = true;
			http_conn_wake(n->conn);
		}
		(void)pthread_mutex_unlock(&lock);
		if (!n)
			(void)usleep(20);
	}
	return NULL;
}

static void *client(void *arg)
{
	struct http_server *s = arg;
	char answer[512];

	for (int i = 0; i < ROUNDS; i++) {
		int fd = sock_dial(http_server_port(s));

		for (int k = 0; k <= i % 3; k++) {
			say(fd, k == i % 3 ? "GET / HTTP/1.1\r\n" CLOSE
					   : "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
			assert_true(sock_recv(fd, answer, sizeof(answer)) > 0);
		}
		(void)close(fd);
	}
	return NULL;
}

static void no_wake_up_is_lost(void **state)
{
	struct http_server *s = start(nap, 4);
	pthread_t c[CLIENTS], w[WAKERS];

	(void)state;
	finished = lost = left_behind = 0;
	for (int i = 0; i < WAKERS; i++)
		assert_int_equal(pthread_create(&w[i], NULL, waker, NULL), 0);
	for (int i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&c[i], NULL, client, s), 0);
	for (int i = 0; i < CLIENTS; i++)
		(void)pthread_join(c[i], NULL);
	finished = 1;
	for (int i = 0; i < WAKERS; i++)
		(void)pthread_join(w[i], NULL);
	assert_int_equal(lost, 0);
	assert_int_equal(left_behind, 0);
	assert_true(http_server_free(s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_EVENTS(a_late_wake_up_does_not_reach_the_next_connection),
		IN_BOTH_FORMS(no_wake_up_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
