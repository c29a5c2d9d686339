/* The server over real sockets: framing, splits, limits, leaving clients, drain. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/http/conn.h"
#include "tests/unit/forms.h"
#include "tests/unit/sock.h"

struct app {
	_Atomic int requests, abandoned, left, refused;
	_Atomic size_t buffer; /* bytes of the request's */
};

static struct app app;

static int on_head(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct app *a = ctx;

	if (!span_eq(r->head.path, SPAN("/refuse")))
		return 0;
	a->refused++;
	(void)http_reply_error(c, 429, "overloaded", "Retry-After: 1\r\n", "full");
	return -1;
}

static void wait_until_client_leaves(struct app *a, struct http_conn *c)
{
	struct stream up = {.on_event = NULL};
	int pair[2];
	char byte;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(stream_open(&up, pair[0], loop_self()), PD_OK);
	if (http_conn_publish(c, &up)) {
		assert_int_equal(stream_recv(&up, &byte, 1), PD_ECLOSED);
		assert_true(http_conn_withdraw(c));
	}
	a->left++;
	stream_close(&up);
	(void)close(pair[1]);
}

/* Until the client is gone or cut; it takes nothing. */
static void flood(struct app *a, struct http_conn *c)
{
	static const char bytes[65536];

	if (http_stream_begin(c, 200, NULL, NULL) != PD_OK)
		return;
	while (http_stream_write(c, bytes, sizeof(bytes)) == PD_OK)
		continue;
	a->left++;
}

static void on_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct app *a = ctx;

	a->requests++;
	a->buffer = c->work->in.cap;
	if (span_eq(r->head.path, SPAN("/echo")))
		(void)http_reply(c, 200, "text/plain", NULL, r->body.p, r->body.n);
	else if (span_eq(r->head.path, SPAN("/stream"))) {
		if (http_stream_begin(c, 200, "text/event-stream", NULL) == PD_OK &&
		    http_stream_write(c, "data: a\n\n", 9) == PD_OK &&
		    http_stream_write(c, "data: b\n\n", 9) == PD_OK)
			(void)http_stream_end(c);
	} else if (span_eq(r->head.path, SPAN("/wait")))
		wait_until_client_leaves(a, c);
	else if (span_eq(r->head.path, SPAN("/sleep")))
		a->left += http_conn_sleep(c, clock_now() + 20 * NS_PER_S);
	else if (span_eq(r->head.path, SPAN("/flood")))
		flood(a, c);
}

static void on_abandon(void *ctx, struct http_conn *c, struct http_request *r)
{
	(void)c;
	assert_true(span_eq(r->head.method, SPAN("POST")));
	((struct app *)ctx)->abandoned++;
}

static struct http_server *start(struct http_server_config *cfg)
{
	struct http_server *s;
	struct pd_msg msg;

	app = (struct app){0};
	cfg->ctx = &app;
	cfg->io = io_form;
	cfg->on_head = on_head;
	cfg->on_request = on_request;
	cfg->on_abandon = on_abandon;
	assert_int_equal(http_server_start(&s, cfg, &msg), PD_OK);
	return s;
}

static int dial(struct http_server *s)
{
	return sock_dial(http_server_port(s));
}

/* Reads until `needle` was seen or the stream ends; true when seen. */
static bool expect(int fd, const char *needle)
{
	char text[8192];
	size_t n = 0;
	ssize_t got;

	text[0] = '\0';
	while (n < sizeof(text) - 1) {
		got = sock_recv(fd, text + n, 1);
		if (got <= 0)
			return false;
		n += (size_t)got;
		text[n] = '\0';
		if (strstr(text, needle))
			return true;
	}
	return false;
}

static void say(int fd, const char *text)
{
	sock_say(fd, text, strlen(text));
}

static void requests_arrive_in_any_pieces(void **state)
{
	static const char *const requests[] = {
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
		"chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: v\r\n\r\n",
	};
	struct http_server_config cfg;
	struct http_server *s;
	int fd;

	(void)state;
	http_server_config_default(&cfg);
	s = start(&cfg);
	fd = dial(s);
	for (size_t k = 0; k < 2; k++) {
		for (const char *p = requests[k]; *p; p++)
			sock_say(fd, p, 1);
		assert_true(expect(fd, "\r\n\r\nhello"));
	}
	/* Pipelined: both in one packet, and a body that spans the end of the buffer. */
	say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
		"chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n"
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nsecond");
	assert_true(expect(fd, "first"));
	assert_true(expect(fd, "second"));
	say(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(expect(fd, "9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n0\r\n\r\n"));
	(void)close(fd);
	assert_int_equal(app.requests, 5);
	http_server_free(s);
}

/* A client that sends head and body apart gets a buffer for what it sent, not for what it might
 * have: the request holds it as long as it waits for its answer. */
static void a_body_of_its_own_gets_a_fitting_buffer(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	char body[1001];
	int fd;

	(void)state;
	http_server_config_default(&cfg);
	s = start(&cfg);
	fd = dial(s);
	memset(body, 'b', 1000);
	body[1000] = '\0';
	say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
	clock_sleep_until(clock_now() + 50 * NS_PER_MS);
	say(fd, body);
	assert_true(expect(fd, "bbb"));
	assert_in_range(app.buffer, 1000, 4096);
	(void)close(fd);
	http_server_free(s);
}

static void big_bodies_and_limits(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	size_t n = 3u << 20;
	char *body = malloc(n), head[128];
	int fd;

	(void)state;
	assert_non_null(body);
	memset(body, 'b', n);
	memcpy(body + n - 4, "tail", 4);
	http_server_config_default(&cfg);
	cfg.max_body = n;
	s = start(&cfg);
	fd = dial(s);
	(void)snprintf(head, sizeof(head),
		       "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", n);
	say(fd, head);
	sock_say(fd, body, n / 2);
	sock_say(fd, body + n / 2, n - n / 2);
	assert_true(expect(fd, "\r\n\r\nbbbb"));
	for (size_t got = 4; got < n;) {
		ssize_t r = sock_recv(fd, body, n - got);

		assert_true(r > 0);
		got += (size_t)r;
	}
	/* One byte too many: the answer must be readable although the body is still being sent. */
	(void)snprintf(head, sizeof(head),
		       "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", n + 1);
	say(fd, head);
	sock_say(fd, body, n);
	assert_true(expect(fd, "HTTP/1.1 413"));
	(void)close(fd);
	fd = dial(s);
	say(fd, "POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
	assert_true(expect(fd, "HTTP/1.1 429"));
	assert_true(expect(fd, "Retry-After: 1"));
	(void)close(fd);
	fd = dial(s);
	say(fd,
	    "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
	assert_true(expect(fd, "HTTP/1.1 100 Continue\r\n\r\n"));
	say(fd, "ok");
	assert_true(expect(fd, "\r\n\r\nok"));
	(void)close(fd);
	http_server_free(s);
	free(body);
}

static void slow_senders_meet_deadlines(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	int head, body;

	(void)state;
	http_server_config_default(&cfg);
	cfg.head_timeout_ns = 100 * NS_PER_MS;
	cfg.body_grace_ns = 100 * NS_PER_MS;
	s = start(&cfg);
	head = dial(s);
	body = dial(s);
	say(head, "POST /echo HTT");
	say(body, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe");
	assert_true(expect(head, "HTTP/1.1 408"));
	assert_true(expect(body, "HTTP/1.1 408"));
	(void)close(head);
	(void)close(body);
	http_server_free(s);
	assert_int_equal(app.abandoned, 1);
	assert_int_equal(app.requests, 0);
}

static void leaving_clients_are_noticed(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	int wait, doze, half;

	(void)state;
	http_server_config_default(&cfg);
	s = start(&cfg);
	wait = dial(s);
	doze = dial(s);
	half = dial(s);
	say(wait, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
	say(doze, "GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n");
	say(half, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
	while (app.requests < 3)
		(void)usleep(1000);
	(void)close(wait);
	(void)close(doze);
	(void)shutdown(half, SHUT_WR);
	while (app.left < 3)
		(void)usleep(1000);
	(void)close(half);
	http_server_free(s);
}

static void drain_lets_requests_finish(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	int idle, busy;
	char byte;

	(void)state;
	http_server_config_default(&cfg);
	s = start(&cfg);
	idle = dial(s);
	busy = dial(s);
	say(idle, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1");
	assert_true(expect(idle, "\r\n\r\n1"));
	say(busy, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n");
	(void)usleep(20000);
	http_server_drain(s);
	assert_int_equal(sock_recv(idle, &byte, 1), 0);
	say(busy, "ok");
	assert_true(expect(busy, "Connection: close"));
	assert_true(expect(busy, "\r\n\r\nok"));
	assert_int_equal(sock_recv(busy, &byte, 1), 0);
	assert_int_equal(http_server_wait(s, clock_now() + 5 * NS_PER_S), 0);
	(void)close(idle);
	(void)close(busy);
	http_server_free(s);
}

/* Wherever a handler waits: for a worker, for a time, for a client that takes nothing. */
static void a_cut_ends_every_wait(void **state)
{
	static const char *const path[] = {"/wait", "/sleep", "/flood"};
	struct http_server_config cfg;
	struct http_server *s;
	char text[64];
	int fd[3], half;

	(void)state;
	http_server_config_default(&cfg);
	s = start(&cfg);
	for (int i = 0; i < 3; i++) {
		fd[i] = dial(s);
		(void)snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path[i]);
		say(fd[i], text);
	}
	half = dial(s); /* and for the rest of a body */
	say(half, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n12");
	while (app.requests < 3)
		(void)usleep(1000);
	(void)usleep(50000);
	http_server_drain(s);
	assert_int_equal(http_server_wait(s, clock_now() + 20 * NS_PER_MS), 4);
	assert_true(http_server_stop(s));
	assert_int_equal(app.left, 3);
	assert_int_equal(app.abandoned, 1);
	for (int i = 0; i < 3; i++)
		(void)close(fd[i]);
	(void)close(half);
	assert_true(http_server_free(s));
}

/* A stalled client that then leaves, and one that leaves while nobody reads it. */
static void leaving_ends_a_stalled_send(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	int fd;

	(void)state;
	http_server_config_default(&cfg);
	s = start(&cfg);
	fd = dial(s);
	say(fd, "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n");
	while (app.requests < 1)
		(void)usleep(1000);
	(void)usleep(50000);
	(void)shutdown(fd, SHUT_WR);
	while (app.left < 1)
		(void)usleep(1000);
	(void)close(fd);
	assert_true(http_server_free(s));
}

#define CLIENTS 8
#define ROUNDS	200

static void *hammer(void *arg)
{
	struct http_server *s = arg;

	for (int i = 0; i < ROUNDS; i++) {
		int fd = dial(s);

		say(fd, i % 3 ? "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"
			      : "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
		if (i % 3 == 1)
			assert_true(expect(fd, "\r\n\r\nok"));
		(void)close(fd);
	}
	return NULL;
}

static void clients_that_come_and_go(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	struct http_server_stats stats;
	pthread_t t[CLIENTS];

	(void)state;
	http_server_config_default(&cfg);
	s = start(&cfg);
	for (int i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, hammer, s), 0);
	for (int i = 0; i < CLIENTS; i++)
		(void)pthread_join(t[i], NULL);
	http_server_drain(s);
	assert_int_equal(http_server_wait(s, clock_now() + 20 * NS_PER_S), 0);
	http_server_stats(s, &stats);
	assert_int_equal(stats.connections, 0);
	http_server_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_BOTH_FORMS(requests_arrive_in_any_pieces),
		IN_BOTH_FORMS(a_body_of_its_own_gets_a_fitting_buffer),
		IN_BOTH_FORMS(big_bodies_and_limits),
		IN_BOTH_FORMS(slow_senders_meet_deadlines),
		IN_BOTH_FORMS(leaving_clients_are_noticed),
		IN_BOTH_FORMS(drain_lets_requests_finish),
		IN_BOTH_FORMS(a_cut_ends_every_wait),
		IN_BOTH_FORMS(leaving_ends_a_stalled_send),
		IN_BOTH_FORMS(clients_that_come_and_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
