/* The line of requests that wait for a worker, under real connections on several loops: order, no
 * lost turn, particular waiters, time, clients that leave. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/router/fleet/waitlist.h"
#include "tests/unit/sock.h"

/* A pool of two kinds of places. The path's first letter says what a request may take: 'b' only
 * places of kind 1 (it is particular), others both. The second one is its name. */
struct club {
	struct waitlist list;
	struct http_server *server;
	int64_t wait;
	_Atomic int free[2];
	_Atomic int64_t ticket;
	_Atomic unsigned waiting, entered, late, left;
	_Atomic int order[64];
};

static bool take(_Atomic int *n)
{
	int now = atomic_load(n);

	while (now > 0)
		if (atomic_compare_exchange_weak(n, &now, now - 1))
			return true;
	return false;
}

static int try_place(struct club *club, bool particular, int *kind)
{
	for (*kind = particular ? 1 : 0; *kind < 2; (*kind)++)
		if (take(&club->free[*kind]))
			return PD_OK;
	return PD_EBUSY;
}

static void give_back(struct club *club, int kind)
{
	atomic_fetch_add(&club->free[kind], 1);
	waitlist_call(&club->list);
}

static void on_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct club *club = ctx;
	struct waiter w = {.conn = c, .particular = r->head.path.p[1] == 'b'};
	int kind = 0, err = PD_EBUSY;
	bool stays = r->head.path.n > 3; /* "/ab+": it keeps its place for a moment */

	if (!waitlist_ahead(&club->list, WAITLIST_NO_TICKET))
		err = try_place(club, w.particular, &kind);
	if (err) {
		w.ticket = atomic_fetch_add(&club->ticket, 1);
		waitlist_join(&club->list, &w);
		atomic_fetch_add(&club->waiting, 1);
		while (!(err = waitlist_turn(&club->list, &w, clock_now() + club->wait)) &&
		       (err = try_place(club, w.particular, &kind)) == PD_EBUSY)
			waitlist_pass(&club->list, &w);
		waitlist_leave(&club->list, &w);
		atomic_fetch_sub(&club->waiting, 1);
	}
	if (err) {
		(*(err == PD_ETIMEOUT ? &club->late : &club->left))++;
		(void)http_reply(c, 408, NULL, NULL, NULL, 0);
		return;
	}
	club->order[club->entered++ % 64] = r->head.path.p[2];
	if (stays)
		(void)http_conn_sleep(c, clock_now() + NS_PER_MS / 10);
	if (stays)
		give_back(club, kind);
	(void)http_reply(c, 200, NULL, NULL, NULL, 0);
}

static void club_open(struct club *club, int64_t wait)
{
	struct http_server_config cfg;
	struct pd_msg msg;

	*club = (struct club){.wait = wait, .ticket = 1};
	assert_int_equal(waitlist_init(&club->list), PD_OK);
	http_server_config_default(&cfg);
	cfg.ctx = club;
	cfg.threads = 4;
	cfg.on_request = on_request;
	assert_int_equal(http_server_start(&club->server, &cfg, &msg), PD_OK);
}

static void club_close(struct club *club)
{
	http_server_drain(club->server);
	assert_int_equal(http_server_wait(club->server, clock_now() + 20 * NS_PER_S), 0);
	http_server_free(club->server);
	assert_false(waitlist_ahead(&club->list, WAITLIST_NO_TICKET));
	waitlist_release(&club->list);
}

static int knock(struct club *club, const char *path)
{
	char text[64];
	int fd = sock_dial(http_server_port(club->server)),
	    n = snprintf(text, sizeof(text), "GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", path);

	sock_say(fd, text, (size_t)n);
	return fd;
}

static int answer(int fd)
{
	char text[512];
	ssize_t n = sock_recv(fd, text, sizeof(text) - 1);

	(void)close(fd);
	assert_true(n > 12);
	text[n] = '\0';
	return (int)strtol(text + 9, NULL, 10);
}

static void until(_Atomic unsigned *value, unsigned wanted)
{
	int64_t end = clock_now() + 20 * NS_PER_S;

	while (atomic_load(value) != wanted && clock_now() < end)
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_int_equal(atomic_load(value), wanted);
}

static void first_come_first_served(void **state)
{
	struct club club;
	char path[3] = "a?";
	int fd[8];

	(void)state;
	club_open(&club, 60 * NS_PER_S);
	for (int i = 0; i < 8; i++) {
		path[1] = (char)('a' + i);
		fd[i] = knock(&club, path);
		until(&club.waiting, (unsigned)i + 1);
	}
	for (int i = 0; i < 8; i++) {
		give_back(&club, 0);
		assert_int_equal(answer(fd[i]), 200);
		assert_int_equal(club.order[i], 'a' + i);
	}
	club_close(&club);
}

/* Several places become free with one call: the turn goes on from one to the next. */
static void one_call_serves_as_many_as_there_are_places(void **state)
{
	struct club club;
	int fd[4];

	(void)state;
	club_open(&club, 60 * NS_PER_S);
	for (int i = 0; i < 4; i++) {
		fd[i] = knock(&club, "aa");
		until(&club.waiting, (unsigned)i + 1);
	}
	atomic_store(&club.free[0], 3);
	waitlist_call(&club.list);
	for (int i = 0; i < 3; i++)
		assert_int_equal(answer(fd[i]), 200);
	assert_int_equal(club.waiting, 1);
	give_back(&club, 1);
	assert_int_equal(answer(fd[3]), 200);
	club_close(&club);
}

/* A waiter that cannot use what is free does not keep it from the ones behind it. */
static void a_particular_waiter_holds_up_no_other(void **state)
{
	struct club club;
	int first, second;

	(void)state;
	club_open(&club, 60 * NS_PER_S);
	first = knock(&club, "b1");
	until(&club.waiting, 1);
	second = knock(&club, "a2");
	until(&club.waiting, 2);
	give_back(&club, 0);
	assert_int_equal(answer(second), 200);
	atomic_store(&club.free[0], 1);
	assert_int_equal(answer(knock(&club, "a3")), 200);
	give_back(&club, 1);
	assert_int_equal(answer(first), 200);
	club_close(&club);
}

static void waits_end(void **state)
{
	struct club club;
	int fd, gone;

	(void)state;
	club_open(&club, 50 * NS_PER_MS);
	assert_int_equal(answer(knock(&club, "aa")), 408);
	assert_int_equal(club.late, 1);
	club.wait = 60 * NS_PER_S;
	gone = knock(&club, "aa");
	until(&club.waiting, 1);
	fd = knock(&club, "aa");
	until(&club.waiting, 2);
	(void)close(gone);
	until(&club.left, 1);
	give_back(&club, 0);
	assert_int_equal(answer(fd), 200);
	club_close(&club);
}

/* Places come and go on all loops at once: no waiter is forgotten. */
static void no_turn_is_lost(void **state)
{
	enum { CLIENTS = 40, ROUNDS = 30 };
	struct club club;
	int fd[CLIENTS];

	(void)state;
	club_open(&club, 60 * NS_PER_S);
	give_back(&club, 0);
	give_back(&club, 1);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < CLIENTS; i++)
			fd[i] = knock(&club, i % 4 ? "aa+" : "ba+");
		for (int i = 0; i < CLIENTS; i++)
			assert_int_equal(answer(fd[i]), 200);
	}
	assert_int_equal(club.entered, CLIENTS * ROUNDS);
	assert_int_equal(club.free[0] + club.free[1], 2);
	club_close(&club);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_come_first_served),
		cmocka_unit_test(one_call_serves_as_many_as_there_are_places),
		cmocka_unit_test(a_particular_waiter_holds_up_no_other),
		cmocka_unit_test(waits_end),
		cmocka_unit_test(no_turn_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
