/* The server with a kernel thread per request in flight: how many threads there are, what happens
 * when there is none, and how connections come back to a thread. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/http/server.h"
#include "tests/unit/sock.h"

static _Atomic int held, let_go;

static void on_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	(void)ctx;
	if (span_eq(r->head.path, SPAN("/hold"))) {
		held++;
		while (!let_go && !http_conn_sleep(c, clock_now() + NS_PER_MS))
			continue;
	}
	(void)http_reply(c, 200, NULL, NULL, "done", 4);
}

static struct http_server *start(struct http_server_config *cfg)
{
	struct http_server *s;
	struct pd_msg msg;

	held = let_go = 0;
	cfg->io = HTTP_IO_THREADS;
	cfg->on_request = on_request;
	assert_int_equal(http_server_start(&s, cfg, &msg), PD_OK);
	return s;
}

/* In one packet: whoever refuses it has read all of it. */
static void say(int fd, const char *path)
{
	char text[100];
	int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);

	sock_say(fd, text, (size_t)n);
}

/* The status of the next answer, which has the body "done" or none; 0 at the end. */
static int hear(int fd)
{
	char text[1024];
	size_t n = 0;
	ssize_t got = 1;

	memset(text, 0, sizeof(text));
	while (got > 0 && !strstr(text, "\r\n\r\ndone") && !strstr(text, "Length: 0\r\n")) {
		got = sock_recv(fd, text + n, sizeof(text) - 1 - n);
		n += got > 0 ? (size_t)got : 0;
	}
	return n > 12 ? (text[9] - '0') * 100 + (text[10] - '0') * 10 + text[11] - '0' : 0;
}

static struct http_server_stats stats_of(struct http_server *s)
{
	struct http_server_stats stats;

	http_server_stats(s, &stats);
	return stats;
}

static void a_parked_connection_finds_a_thread_again(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	char byte;
	int fd;

	(void)state;
	http_server_config_default(&cfg);
	cfg.idle_timeout_ns = 600 * NS_PER_MS;
	s = start(&cfg);
	fd = sock_dial(http_server_port(s));
	for (int i = 0; i < 3; i++) {
		say(fd, "/");
		assert_int_equal(hear(fd), 200);
		/* The thread gives the connection up and waits; the next request takes it again. */
		while (stats_of(s).idle_fibers == 0)
			(void)usleep(5000);
		assert_int_equal(stats_of(s).fibers, 1);
		assert_int_equal(stats_of(s).connections, 1);
	}
	assert_int_equal(sock_recv(fd, &byte, 1), 0); /* the end of its idle time */
	(void)close(fd);
	assert_true(http_server_free(s));
}

static void requests_beyond_the_threads_queue_in_order(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	int fd[4];

	(void)state;
	http_server_config_default(&cfg);
	cfg.threads = 2;
	s = start(&cfg);
	for (int i = 0; i < 4; i++) {
		fd[i] = sock_dial(http_server_port(s));
		say(fd[i], "/hold");
		while (i < 2 && held <= i)
			(void)usleep(1000);
	}
	(void)usleep(100000);
	assert_int_equal(held, 2);
	assert_int_equal(stats_of(s).fibers, 2);
	let_go = 1;
	for (int i = 0; i < 4; i++) {
		assert_int_equal(hear(fd[i]), 200);
		(void)close(fd[i]);
	}
	assert_int_equal(stats_of(s).fibers, 2);
	assert_true(http_server_free(s));
}

static void a_wait_for_a_thread_ends(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	int busy, late;

	(void)state;
	http_server_config_default(&cfg);
	cfg.threads = 1;
	cfg.head_timeout_ns = 100 * NS_PER_MS;
	s = start(&cfg);
	busy = sock_dial(http_server_port(s));
	say(busy, "/hold");
	while (!held)
		(void)usleep(1000);
	late = sock_dial(http_server_port(s));
	say(late, "/");
	assert_int_equal(hear(late), 503);
	assert_int_equal(stats_of(s).refused, 1);
	let_go = 1;
	assert_int_equal(hear(busy), 200);
	(void)close(busy);
	(void)close(late);
	assert_true(http_server_free(s));
}

static void a_thread_that_cannot_be_created_is_a_503(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	int fd;

	(void)state;
	http_server_config_default(&cfg);
	cfg.stack_bytes = (size_t)1 << 47; /* more than there are addresses */
	s = start(&cfg);
	for (unsigned i = 1; i <= 3; i++) {
		fd = sock_dial(http_server_port(s));
		say(fd, "/");
		assert_int_equal(hear(fd), 503);
		assert_int_equal(hear(fd), 0);
		(void)close(fd);
		assert_int_equal(stats_of(s).fiber_failures, i);
		assert_int_equal(stats_of(s).fibers, 0);
	}
	assert_true(http_server_free(s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_parked_connection_finds_a_thread_again),
		cmocka_unit_test(requests_beyond_the_threads_queue_in_order),
		cmocka_unit_test(a_wait_for_a_thread_ends),
		cmocka_unit_test(a_thread_that_cannot_be_created_is_a_503),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
