/* Calls and their answers: every framing, dead connections, wrong and cut answers, TLS. */
#include "tests/unit/tls_kit.h"

#include <poll.h>

#include "tests/unit/client_kit.h"

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#define INFO	"HTTP/1.1 102 Processing\r\n\r\n"

/* -- answers that come in single bytes -- */

static void byte_by_byte(int fd, unsigned nth)
{
	static const char *const texts[] = {
		(INFO "HTTP/1.1 100 Continue\r\n\r\n" CHUNKED
		      "3\r\nabc\r\n04;ext=1\r\nd\r\ne\r\n0\r\nTrailer: x\r\n\r\n"),
		"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\ngone",
		"HTTP/1.1 204 Nothing\r\n\r\n",
		"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", /* to HEAD */
		"HTTP/1.0 200 OK\r\n\r\nuntil the end",
	};

	(void)nth;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) && hear(fd); i++)
		tell_slowly(fd, texts[i]);
}

static void reads_every_framing(void)
{
	static const struct {
		int status;
		const char *text;
		bool head, kept;
	} want[] = {{200, "abcd\r\ne", false, true}, {404, "gone", false, true},
		    {204, "", false, true},	     {304, "", false, true},
		    {200, "", true, true},	     {200, "until the end", false, false}};

	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		struct http_call c = new_call();

		c.is_head = want[i].head;
		answers(&c, want[i].status, want[i].text);
		assert_int_equal(c.reused, i > 0);
		assert_int_equal(c.open_ns > 0, i == 0);
		assert_true(c.sent_ns > 0 && c.head_ns >= c.sent_ns);
		assert_int_equal(http_pool_idle(&pool), want[i].kept);
	}
	assert_int_equal(pool.connects, 1);
	assert_int_equal(pool.reused, 5);
	assert_int_equal(pool.stale, 0);
	assert_int_equal(pool.ended, 1);
}

static void pieces(void)
{
	struct http_call c = new_call();
	struct span piece;
	int err = PD_OK;

	assert_int_equal(get(&c), HTTP_CALL_OK);
	while (!c.ended) {
		struct http_mark mark = http_call_mark(&c);

		/* What was taken back comes again. */
		while (http_call_piece(&c, &piece, &err))
			continue;
		assert_int_equal(err, PD_OK);
		http_call_rewind(&c, &mark);
		while (http_call_piece(&c, &piece, &err))
			assert_int_equal(buf_append(&body, piece.p, piece.n), PD_OK);
		assert_int_equal(err, PD_OK);
		if (!c.ended)
			assert_true(http_call_more(&c) > 0);
		http_call_heard(&c, clock_now());
	}
	assert_string_equal(body.data, "abcd\r\ne");
	assert_false(http_call_piece(&c, &piece, &err));
	(void)http_call_end(&c);
	answers(&c, 404, "gone"); /* and the same struct again */
}

static void framing(void **state)
{
	(void)state;
	both_ways(reads_every_framing, byte_by_byte, 1);
	both_ways(pieces, byte_by_byte, 1);
}

/* -- kept connections that are dead -- */

/* Answers once and closes: every kept connection is dead when it is used again. */
static void one_each(int fd, unsigned nth)
{
	(void)nth;
	if (hear(fd))
		tell(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

/* A kept connection that is dead. On a loop, which has not heard of the end, it is not asked
 * whether it lives, as it was used a moment ago; without a loop it always is. */
static void spoil(void)
{
	struct stream *s = calloc(1, sizeof(*s));
	int fd[2];

	assert_non_null(s);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	assert_int_equal(stream_open(s, fd[0], loop_self()), PD_OK);
	(void)close(fd[1]);
	s->readable = false;
	http_pool_put(&pool, s, clock_now(), &(struct http_use){0});
}

static void replaced_once(void)
{
	struct http_call c = new_call();

	spoil();
	answers(&c, 200, "ok");
	assert_false(c.reused);
	assert_int_equal(c.stale, loop_self() != NULL);
	assert_int_equal(pool.stale, loop_self() != NULL);
	assert_int_equal(pool.reused, loop_self() != NULL);
	assert_int_equal(pool.connects, 1);
	assert_int_equal(peer.requests, 1);
}

static void never_sent_twice(void)
{
	struct http_call c = new_call();

	c.repeat = false;
	spoil();
	if (!loop_self()) {
		answers(&c, 200, "ok");
		return;
	}
	assert_int_equal(get(&c), HTTP_CALL_CLOSED);
	assert_true(c.reused && !c.stale);
	(void)http_call_end(&c);
	assert_int_equal(pool.stale, 0);
	assert_int_equal(peer.requests, 0);
}

static void asked_before_use(void)
{
	struct http_call c = new_call();

	c.repeat = false;
	c.probe = true;
	spoil();
	answers(&c, 200, "ok");
	assert_true(!c.reused && !c.stale);
	assert_int_equal(pool.stale, 0);
}

/* The second request of a connection gets one byte. */
static void one_byte(int fd, unsigned nth)
{
	(void)nth;
	if (hear(fd))
		tell(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	if (hear(fd))
		tell(fd, "H");
}

static void a_byte_forbids_it(void)
{
	struct http_call c = new_call();

	answers(&c, 200, "ok");
	assert_int_equal(get(&c), HTTP_CALL_BROKEN);
	assert_true(c.reused && !c.stale);
	(void)http_call_end(&c);
	assert_int_equal(peer.requests, 2);
}

/* Nor is a new connection replaced. */
static void says_nothing(int fd, unsigned nth)
{
	(void)nth;
	(void)hear(fd);
}

static void no_answer(void)
{
	struct http_call c = new_call();

	assert_int_equal(get(&c), HTTP_CALL_CLOSED);
	(void)http_call_end(&c);
	assert_int_equal(peer.requests, 1);
	assert_int_equal(pool.stale, 0);
}

static void dead_connections(void **state)
{
	(void)state;
	both_ways(replaced_once, one_each, 2);
	both_ways(never_sent_twice, one_each, 2);
	both_ways(a_byte_forbids_it, one_byte, 1);
	both_ways(no_answer, says_nothing, 2);
	both_ways(asked_before_use, one_each, 2);
}

/* -- answers that are wrong or cut -- */

static const struct bad {
	const char *text;
	enum http_call_result begins;
	int collects;
} bad[] = {
	{"HTTP/1.1 200 OK\r\nContent-Le", HTTP_CALL_BROKEN, 0},
	{"HTTP/1.1 200 OK\nContent-Length: 0\n\n", HTTP_CALL_BROKEN, 0},
	{"SSH-2.0-x\r\n\r\n", HTTP_CALL_BROKEN, 0},
	{"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	 HTTP_CALL_BROKEN, 0},
	{INFO INFO INFO INFO INFO INFO INFO INFO INFO
	 "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	 HTTP_CALL_BROKEN, 0},
	{INFO, HTTP_CALL_BROKEN, 0}, /* something came: not to be sent again */
	{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
	 HTTP_CALL_BROKEN, 0},
	{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", HTTP_CALL_OK, PD_ECLOSED},
	{CHUNKED, HTTP_CALL_OK, PD_ECLOSED},
	{CHUNKED "5\r\nab", HTTP_CALL_OK, PD_ECLOSED},
	{CHUNKED "2\r\nab\r\n", HTTP_CALL_OK, PD_ECLOSED},
	{CHUNKED "2\r\nabc\r\n0\r\n\r\n", HTTP_CALL_OK, PD_EPROTO},
	{CHUNKED "zz\r\n", HTTP_CALL_OK, PD_EPROTO},
	/* More than the answer: what follows would be taken for the next one. */
	{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc", HTTP_CALL_OK, PD_OK},
	{CHUNKED "0\r\n\r\nHTTP/1.1 200 OK\r\n", HTTP_CALL_OK, PD_OK},
	{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", HTTP_CALL_OK, PD_OK},
};
#define NBAD (sizeof(bad) / sizeof(bad[0]))

static void bad_answer(int fd, unsigned nth)
{
	if (!hear(fd))
		return;
	tell(fd, bad[nth].text);
}

static void told_apart(void)
{
	for (size_t i = 0; i < NBAD; i++) {
		struct http_call c = new_call();
		enum http_call_result r = get(&c);

		buf_clear(&body);
		if (r != bad[i].begins)
			fail_msg("%zu: %s", i, http_call_text(r));
		if (r == HTTP_CALL_OK)
			assert_int_equal(http_call_collect(&c, &body), bad[i].collects);
		(void)http_call_end(&c);
		assert_int_equal(http_pool_idle(&pool), 0);
	}
	assert_int_equal(pool.ended, NBAD);
}

static void endless_head(int fd, unsigned nth)
{
	char line[1001];

	(void)nth;
	if (!hear(fd))
		return;
	memset(line, 'x', sizeof(line));
	memcpy(line, "X-Y: ", 5);
	memcpy(line + sizeof(line) - 2, "\r\n", 2);
	tell(fd, "HTTP/1.1 200 OK\r\n");
	for (int i = 0; i < 100; i++)
		if (send(fd, line, sizeof(line), MSG_NOSIGNAL) < 0)
			break;
	drain(fd);
}

static void bounded_head(void)
{
	struct http_call c = new_call();

	assert_int_equal(get(&c), HTTP_CALL_BROKEN);
	(void)http_call_end(&c);
}

static void bad_answers(void **state)
{
	(void)state;
	both_ways(told_apart, bad_answer, NBAD);
	both_ways(bounded_head, endless_head, 1);
}

/* -- large bodies -- */

#define LARGE 690000u

static void large(int fd, unsigned nth)
{
	char text[2300];

	(void)nth;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + i % 23);
	while (hear(fd)) {
		tell(fd, "HTTP/1.1 200 OK\r\nContent-Length: 690000\r\n\r\n");
		for (size_t i = 0; i < LARGE; i += sizeof(text))
			if (send(fd, text, sizeof(text), MSG_NOSIGNAL) != sizeof(text))
				return; /* it does not want all of it */
	}
}

static void in_one_piece(void)
{
	struct http_call c = new_call();
	struct span whole;

	assert_int_equal(get(&c), HTTP_CALL_OK);
	assert_int_equal(http_call_whole(&c, &whole), PD_OK);
	assert_int_equal(whole.n, LARGE);
	for (size_t i = 0; i < LARGE; i++)
		if (whole.p[i] != (char)('a' + i % 23))
			fail_msg("byte %zu", i);
	assert_true(c.ended);
	(void)http_call_end(&c);
	assert_int_equal(http_pool_idle(&pool), 1);

	/* More than there is room for: in the call's buffer, then in the caller's. */
	buf_release(&in);
	buf_init(&in, 100000);
	assert_int_equal(get(&c), HTTP_CALL_OK);
	assert_int_equal(http_call_whole(&c, &whole), PD_ETOOBIG);
	(void)http_call_end(&c);
	assert_int_equal(http_pool_idle(&pool), 0);
	buf_clear(&in);
	buf_release(&body);
	buf_init(&body, LARGE - 1);
	c = new_call();
	assert_int_equal(get(&c), HTTP_CALL_OK);
	assert_int_equal(http_call_collect(&c, &body), PD_ETOOBIG);
	(void)http_call_end(&c);
}

static void large_bodies(void **state)
{
	(void)state;
	both_ways(in_one_piece, large, 2);
}

/* -- an answer while the request is still being sent -- */

/* Reads a little of it, refuses it and closes. */
static void refuses_early(int fd, unsigned nth)
{
	char text[4096];

	(void)nth;
	if (sock_recv(fd, text, sizeof(text)) <= 0)
		return;
	tell(fd, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
	(void)shutdown(fd, SHUT_RD);
	clock_sleep_until(clock_now() + 20 * NS_PER_MS);
}

static void hears_the_refusal(void)
{
	struct http_call c = new_call();
	char *text = calloc(1, BIG);
	struct iovec iov[2] = {{(void *)(uintptr_t) "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: "
						    "8388608\r\n\r\n",
				54},
			       {text, BIG}};

	assert_non_null(text);
	assert_int_equal(http_call_begin(&c, iov, 2, NULL), HTTP_CALL_OK);
	assert_int_equal(c.head.status, 413);
	assert_int_equal(http_call_collect(&c, &body), PD_OK);
	assert_string_equal(body.data, "no");
	(void)http_call_end(&c);
	assert_int_equal(http_pool_idle(&pool), 0); /* half a request is on it */
	free(text);
}

static void early_answers(void **state)
{
	(void)state;
	both_ways(hears_the_refusal, refuses_early, 1);
}

/* -- TLS -- */

/* tls.h waits for nothing; what it wants here is always to read. */
static bool more_to_read(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 20000) == 1;
}

static void tls_peer(int fd, unsigned nth)
{
	struct tls *t = tls_accept_new(peer.tls, fd);
	enum tls_want want;
	char text[4096];
	ssize_t n;
	int err;

	(void)nth;
	while ((err = tls_handshake(t, &want, NULL)) == PD_EAGAIN && more_to_read(fd))
		continue;
	while (!err && ((n = tls_recv(t, text, sizeof(text), &want)) > 0 ||
			(n == PD_EAGAIN && more_to_read(fd))))
		if (n > 0)
			(void)say(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	tls_free(t);
}

static struct http_call tls_call(struct tls_context *ctx, struct tls_peer *name)
{
	struct http_call c = new_call();

	c.to.tls = ctx;
	c.to.name = name;
	return c;
}

static void over_tls(void)
{
	struct tls_context *ctx = kit_client("ca.pem"), *other = kit_client("otherca.pem");
	struct tls_peer *right = tls_peer_new("a.example"), *wrong = tls_peer_new("b.example");
	struct http_call c = tls_call(ctx, right);

	answers(&c, 200, "ok");
	assert_string_equal(why.text, "");
	c = tls_call(ctx, right);
	answers(&c, 200, "ok");
	assert_true(c.reused);
	http_pool_flush(&pool);

	c = tls_call(ctx, wrong);
	assert_int_equal(get(&c), HTTP_CALL_CONNECT);
	SAYS(why, "b.example");
	(void)http_call_end(&c);
	c = tls_call(other, right);
	assert_int_equal(get(&c), HTTP_CALL_CONNECT);
	assert_true(why.text[0]);
	(void)http_call_end(&c);
	assert_int_equal(pool.connects, 1);
	assert_int_equal(pool.connect_failures, 2);
	tls_peer_free(right);
	tls_peer_free(wrong);
	tls_context_free(ctx);
	tls_context_free(other);
}

/* With TLS 1.3 the client hears only after its request that its certificate is missing. */
static void without_certificate(void)
{
	struct tls_context *ctx = kit_client("ca.pem");
	struct tls_peer *name = tls_peer_new("a.example");
	struct http_call c = tls_call(ctx, name);
	enum http_call_result r = get(&c);

	assert_true(r == HTTP_CALL_CLOSED || r == HTTP_CALL_BROKEN);
	SAYS(why, "certificate");
	(void)http_call_end(&c);
	tls_peer_free(name);
	tls_context_free(ctx);
}

static void tls(void **state)
{
	struct tls_pair pair = {kit_path("a.pem"), kit_path("a.key")};

	(void)state;
	peer.tls = kit_server("a");
	both_ways(over_tls, tls_peer, 3);
	tls_context_free(peer.tls);
	peer.tls = kit_must(&(struct tls_config){.server = true,
						 .pairs = &pair,
						 .npairs = 1,
						 .ca = kit_path("ca.pem"),
						 .verify = TLS_VERIFY_REQUIRED});
	both_ways(without_certificate, tls_peer, 1);
	tls_context_free(peer.tls);
	peer.tls = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(framing),	 cmocka_unit_test(dead_connections),
		cmocka_unit_test(bad_answers),	 cmocka_unit_test(large_bodies),
		cmocka_unit_test(early_answers), cmocka_unit_test(tls),
	};

	return cmocka_run_group_tests_name("client", tests, kit_setup, kit_teardown);
}
