/* The gate under real connections: the cap, the order, the queue's bound, its time, clients that
 * leave. */
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
#include "lib/router/way/gate.h"
#include "tests/unit/forms.h"
#include "tests/unit/sock.h"

/* Each request takes a place, stays until `open` lets it go (or for the time in its path), and
 * leaves. */
struct club {
	struct gate gate;
	struct http_server *server;
	int64_t wait;
	_Atomic bool open;
	_Atomic int inside, most, entered, full, late, left;
	_Atomic int order[64];
};

static void on_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct club *club = ctx;
	/* The letter is the flow, a capital one of a higher priority. */
	const char who = r->head.path.p[1];
	const struct gate_flow flow = {.priority = who < 'a' ? 5 : 0,
				       .id = (uint64_t)(unsigned char)who | 32};
	int err = gate_enter(&club->gate, c, &flow, clock_now() + club->wait), now, most;

	if (err) {
		(*(err == PD_EBUSY	? &club->full
		   : err == PD_ETIMEOUT ? &club->late
					: &club->left))++;
		(void)http_reply(c, err == PD_EBUSY ? 429 : 408, NULL, NULL, NULL, 0);
		return;
	}
	now = ++club->inside;
	for (most = club->most; now > most;)
		if (atomic_compare_exchange_weak(&club->most, &most, now))
			break;
	club->order[club->entered++ % 64] = r->head.path.p[1];
	while (!club->open)
		(void)http_conn_sleep(c, clock_now() + NS_PER_MS);
	club->inside--;
	gate_leave(&club->gate);
	(void)http_reply(c, 200, NULL, NULL, NULL, 0);
}

static void club_open(struct club *club, unsigned limit, unsigned queue, int64_t wait)
{
	struct http_server_config cfg;
	struct pd_msg msg;

	*club = (struct club){.wait = wait};
	assert_int_equal(gate_init(&club->gate, limit, queue), PD_OK);
	http_server_config_default(&cfg);
	cfg.io = io_form;
	cfg.ctx = club;
	cfg.on_request = on_request;
	assert_int_equal(http_server_start(&club->server, &cfg, &msg), PD_OK);
}

static void club_close(struct club *club)
{
	club->open = true;
	http_server_drain(club->server);
	assert_int_equal(http_server_wait(club->server, clock_now() + 20 * NS_PER_S), 0);
	http_server_free(club->server);
	assert_int_equal(atomic_load(&club->gate.in_work), 0);
	assert_int_equal(atomic_load(&club->gate.waiting), 0);
	gate_release(&club->gate);
}

static int knock(struct club *club, char name)
{
	char text[64];
	int fd = sock_dial(http_server_port(club->server)),
	    n = snprintf(text, sizeof(text), "GET /%c HTTP/1.1\r\nHost: x\r\n\r\n", name);

	sock_say(fd, text, (size_t)n);
	return fd;
}

/* The status of the answer; closes. */
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
	int fd[8];

	(void)state;
	club_open(&club, 1, 7, 60 * NS_PER_S);
	fd[0] = knock(&club, 'a');
	until(&club.gate.in_work, 1);
	for (unsigned i = 1; i < 8; i++) {
		fd[i] = knock(&club, (char)('a' + i));
		until(&club.gate.waiting, i);
	}
	club.open = true;
	for (int i = 0; i < 8; i++)
		assert_int_equal(answer(fd[i]), 200);
	for (int i = 0; i < 8; i++)
		assert_int_equal(club.order[i], 'a' + i);
	assert_int_equal(club.most, 1);
	assert_int_equal(atomic_load(&club.gate.queued), 7);
	club_close(&club);
}

/* Knocks in this order while the only place is taken, and says who entered in which order. */
static void in_turns(const char *knocks, unsigned queue, const char *entered)
{
	struct club club;
	int fd[64], n = (int)strlen(knocks), waiting = (int)queue < n ? (int)queue : n, taken,
		    ok = 0;

	club_open(&club, 1, queue, 60 * NS_PER_S);
	club.gate.fair = true;
	taken = knock(&club, '-');
	until(&club.gate.in_work, 1);
	for (int i = 0; i < n; i++) {
		int out = i + 1 - (int)queue;

		fd[i] = knock(&club, knocks[i]);
		until(&club.gate.waiting, (unsigned)i + 1 < queue ? (unsigned)i + 1 : queue);
		/* The one that goes has its answer before the next one knocks. */
		while (club.full < out)
			clock_sleep_until(clock_now() + NS_PER_MS);
	}
	assert_int_equal(club.full, n - waiting);
	club.open = true;
	assert_int_equal(answer(taken), 200);
	for (int i = 0; i < n; i++)
		ok += answer(fd[i]) == 200;
	assert_int_equal(ok, waiting);
	for (int i = 0; i < waiting; i++)
		assert_int_equal(club.order[i + 1], entered[i]);
	club_close(&club);
}

static void flows_take_turns(void **state)
{
	(void)state;
	/* Who floods waits behind his own: another is next but one at most. */
	in_turns("aaaaaaaab", 20, "abaaaaaaa");
	in_turns("aaaabbbbcc", 20, "abcabcabab");
	in_turns("zzzzaz", 20, "azzzzz");
	/* A higher priority first, whatever came before. */
	in_turns("aaaabBAB", 20, "ABBabaaa");
}

static void a_full_queue_is_shared(void **state)
{
	(void)state;
	/* The flood has filled the queue: another flow takes places from it, up to its share. */
	in_turns("aaaabbb", 4, "abab");
	in_turns("aaaab", 4, "abaa");
	/* Nobody is displaced by his own kind, or by a lower priority. */
	in_turns("aaaaa", 4, "aaaa");
	in_turns("AAAAbb", 4, "AAAA");
	in_turns("aaaaB", 4, "Baaa");
}

static void a_full_queue_refuses(void **state)
{
	struct club club;
	int fd[4];

	(void)state;
	club_open(&club, 2, 2, 60 * NS_PER_S);
	for (int i = 0; i < 4; i++)
		fd[i] = knock(&club, 'a');
	until(&club.gate.in_work, 2);
	until(&club.gate.waiting, 2);
	for (int i = 0; i < 5; i++)
		assert_int_equal(answer(knock(&club, 'x')), 429);
	assert_int_equal(atomic_load(&club.gate.full), 5);
	club.open = true;
	for (int i = 0; i < 4; i++)
		assert_int_equal(answer(fd[i]), 200);
	club_close(&club);
}

static void no_queue_at_all(void **state)
{
	struct club club;
	int fd;

	(void)state;
	club_open(&club, 1, 0, 60 * NS_PER_S);
	fd = knock(&club, 'a');
	until(&club.gate.in_work, 1);
	assert_int_equal(answer(knock(&club, 'x')), 429);
	club.open = true;
	assert_int_equal(answer(fd), 200);
	assert_int_equal(answer(knock(&club, 'y')), 200);
	club_close(&club);
}

/* The first of three waits in vain, the second leaves: the third gets the place. */
static void waits_end(void **state)
{
	struct club club;
	int fd, gone, last;

	(void)state;
	club_open(&club, 1, 8, 300 * NS_PER_MS);
	fd = knock(&club, 'a');
	until(&club.gate.in_work, 1);
	assert_int_equal(answer(knock(&club, 'b')), 408);
	assert_int_equal(club.late, 1);
	club.wait = 60 * NS_PER_S;
	gone = knock(&club, 'c');
	until(&club.gate.waiting, 1);
	last = knock(&club, 'd');
	until(&club.gate.waiting, 2);
	(void)close(gone);
	until(&club.gate.waiting, 1);
	assert_int_equal(atomic_load(&club.gate.left), 1);
	club.open = true;
	assert_int_equal(answer(fd), 200);
	assert_int_equal(answer(last), 200);
	assert_int_equal(club.order[1], 'd');
	club_close(&club);
}

#define GUESTS 12
#define VISITS 40

static void *guest(void *arg)
{
	struct club *club = arg;

	for (int i = 0; i < VISITS; i++) {
		int fd = knock(club, 'g');

		if (i % 3 == 0)
			(void)close(fd);
		else
			(void)answer(fd);
	}
	return NULL;
}

/* Many come, wait, time out and leave at once: never more inside than the limit, and zero at the
 * end. */
static void the_cap_holds_in_a_crowd(void **state)
{
	struct club club;
	pthread_t t[GUESTS];

	(void)state;
	club_open(&club, 3, 4, 2 * NS_PER_MS);
	club.open = true;
	for (int i = 0; i < GUESTS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, guest, &club), 0);
	for (int i = 0; i < GUESTS; i++)
		(void)pthread_join(t[i], NULL);
	until(&club.gate.in_work, 0);
	assert_in_range(club.most, 1, 3);
	assert_true(club.entered > 0);
	club_close(&club);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_BOTH_FORMS(flows_take_turns),	 IN_BOTH_FORMS(a_full_queue_is_shared),
		IN_BOTH_FORMS(first_come_first_served),	 IN_BOTH_FORMS(a_full_queue_refuses),
		IN_BOTH_FORMS(no_queue_at_all),		 IN_BOTH_FORMS(waits_end),
		IN_BOTH_FORMS(the_cap_holds_in_a_crowd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
