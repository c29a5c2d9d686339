/* How long a call may wait, and what ends its waits: every deadline, cancelling, a client that
 * leaves. */
#include "tests/unit/client_kit.h"

/* -- deadlines -- */

static void silent(int fd, unsigned nth)
{
	(void)nth;
	drain(fd);
}

static void head_in_time(void)
{
	struct http_call c = new_call();

	c.limit.first_byte = SHORT;
	assert_int_equal(get(&c), HTTP_CALL_TIMEOUT);
	(void)http_call_end(&c);
	c = new_call();
	c.deadline = clock_now() + SHORT;
	assert_int_equal(get(&c), HTTP_CALL_TIMEOUT);
	(void)http_call_end(&c);
	assert_int_equal(pool.stale, 0);
}

static void half(int fd, unsigned nth)
{
	(void)nth;
	if (hear(fd))
		tell(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
	drain(fd);
}

static void body_in_time(void)
{
	struct http_call c = new_call();
	struct span whole;

	c.limit.between = SHORT;
	assert_int_equal(get(&c), HTTP_CALL_OK);
	assert_int_equal(http_call_collect(&c, &body), PD_ETIMEOUT);
	(void)http_call_end(&c);
	c = new_call();
	c.limit.between = SHORT;
	assert_int_equal(get(&c), HTTP_CALL_OK);
	assert_int_equal(http_call_whole(&c, &whole), PD_ETIMEOUT);
	(void)http_call_end(&c);
}

/* Never silent for long, and never ready. */
static void drips(int fd, unsigned nth)
{
	(void)nth;
	if (hear(fd))
		tell(fd, "HTTP/1.1 200 OK\r\n\r\n");
	while (send(fd, ".", 1, MSG_NOSIGNAL) == 1)
		clock_sleep_until(clock_now() + 5 * NS_PER_MS);
}

static void whole_in_time(void)
{
	struct http_call c = new_call();

	c.deadline = clock_now() + 4 * SHORT;
	assert_int_equal(get(&c), HTTP_CALL_OK);
	assert_int_equal(http_call_collect(&c, &body), PD_ETIMEOUT);
	(void)http_call_end(&c);
}

static void reads_nothing(int fd, unsigned nth)
{
	(void)nth;
	(void)fd;
	await_go();
}

static void sent_in_time(void)
{
	struct http_call c = new_call();
	char *text = calloc(1, 4 * BIG);
	struct iovec iov = {text, 4 * BIG};

	assert_non_null(text);
	c.limit.send = SHORT;
	assert_int_equal(http_call_begin(&c, &iov, 1, &why), HTTP_CALL_TIMEOUT);
	(void)http_call_end(&c);
	atomic_store(&peer.go, true);
	free(text);
}

/* A listener whose queue is full lets nobody in. */
static void connected_in_time(void)
{
	struct http_call c = new_call();
	struct net_addrs full;
	uint16_t port = 0;
	int listener, fd[8];

	assert_int_equal(net_listen("127.0.0.1", &port, 0, &listener, NULL), PD_OK);
	assert_int_equal(net_resolve_all(&full, "127.0.0.1", port, NULL), PD_OK);
	for (size_t i = 0; i < 8; i++) {
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)!connect(fd[i], &full.a[0].sa.any, full.a[0].len);
	}
	c.to.ctx = &full;
	c.limit.connect = SHORT;
	assert_int_equal(get(&c), HTTP_CALL_CONNECT);
	(void)http_call_end(&c);
	assert_int_equal(pool.connect_failures, 1);
	/* The caller ran out of time: no failure of the peer's. */
	c.limit.connect = LONG;
	c.deadline = clock_now() + SHORT;
	assert_int_equal(get(&c), HTTP_CALL_TIMEOUT);
	(void)http_call_end(&c);
	assert_int_equal(pool.connect_failures, 1);
	for (size_t i = 0; i < 8; i++)
		(void)close(fd[i]);
	(void)close(listener);
	/* And now nobody listens there. */
	c = new_call();
	c.to.ctx = &full;
	assert_int_equal(get(&c), HTTP_CALL_CONNECT);
	(void)http_call_end(&c);
	assert_int_equal(pool.connect_failures, 2);
	assert_int_equal(pool.ended, 0);
}

static void deadlines(void **state)
{
	(void)state;
	both_ways(head_in_time, silent, 2);
	both_ways(body_in_time, half, 2);
	both_ways(whole_in_time, drips, 1);
	both_ways(sent_in_time, reads_nothing, 1);
	both_ways(connected_in_time, silent, 0);
}

/* -- while a call waits -- */

static struct http_call waiting;

/* A few bytes, and more of them when the test says so. */
static void with_a_pause(int fd, unsigned nth)
{
	(void)nth;
	if (!hear(fd))
		return;
	tell(fd, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
	await_go();
	tell(fd, "cd");
	drain(fd);
}

static void waits_for_the_rest(void)
{
	struct span piece;
	int err;

	waiting = new_call();
	assert_int_equal(get(&waiting), HTTP_CALL_OK);
	assert_true(http_call_piece(&waiting, &piece, &err));
	while (!waiting.ended) {
		ssize_t n = http_call_more(&waiting);

		assert_true(n > 0 && atomic_load(&peer.go));
		while (http_call_piece(&waiting, &piece, &err))
			continue;
	}
	(void)http_call_end(&waiting);
}

/* Runs between two waits of the other fiber. */
static void holds_no_buffer(void)
{
	while (waiting.head_ns == 0 || in.data)
		(void)loop_wait(clock_now() + NS_PER_MS, true);
	atomic_store(&peer.go, true);
}

/* One answer at once, the next when the test says so. */
static void second_after_a_pause(int fd, unsigned nth)
{
	(void)nth;
	if (!hear(fd))
		return;
	tell(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab");
	if (!hear(fd))
		return;
	await_go();
	tell(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
	drain(fd);
}

/* The second call has the buffer of the first one, which the caller did not give back. */
static void waits_for_the_next_head(void)
{
	struct http_call first = new_call();

	answers(&first, 200, "ab");
	assert_non_null(in.data);
	waiting = new_call();
	assert_int_equal(get(&waiting), HTTP_CALL_OK);
	assert_true(atomic_load(&peer.go));
	(void)http_call_end(&waiting);
}

static void next_head_has_no_buffer(void)
{
	while (waiting.sent_ns == 0)
		(void)loop_wait(clock_now() + NS_PER_MS, true);
	atomic_store(&peer.go, in.data == NULL);
}

static void is_canceled(void)
{
	waiting = new_call();
	assert_int_equal(get(&waiting), HTTP_CALL_CANCELED);
	(void)http_call_end(&waiting);
	assert_null(waiting.up);
	assert_int_equal(http_pool_idle(&pool), 0);
	/* And it stays so. */
	assert_int_equal(get(&waiting), HTTP_CALL_CANCELED);
	(void)http_call_end(&waiting);
	assert_int_equal(pool.connects, 1);
}

static void cancels(void)
{
	while (waiting.sent_ns == 0)
		(void)loop_wait(clock_now() + NS_PER_MS, true);
	http_call_cancel(&waiting);
}

static void waits(void **state)
{
	(void)state;
	waiting = (struct http_call){.in = NULL};
	on_fiber(waits_for_the_rest, holds_no_buffer, with_a_pause, 1);
	waiting = (struct http_call){.in = NULL};
	on_fiber(waits_for_the_next_head, next_head_has_no_buffer, second_after_a_pause, 1);
	waiting = (struct http_call){.in = NULL};
	on_fiber(is_canceled, cancels, silent, 2);
}

/* -- a server that says nothing, seen and ended from another thread -- */

static pthread_t watcher;

/* Ends what has waited for SHORT, again and again, until as many have ended as a call of ours asks
 * for. */
static void *cuts(void *arg)
{
	unsigned want = *(const unsigned *)arg;
	struct http_watch w;

	for (int64_t end = clock_now() + LONG; want > 0 && clock_now() < end;) {
		http_pool_look(&pool, &w);
		want -= http_pool_cut(&pool, clock_now() - SHORT);
		clock_sleep_until(clock_now() + NS_PER_MS);
	}
	return NULL;
}

static void begin_to_watch(const unsigned *want)
{
	assert_int_equal(pthread_create(&watcher, NULL, cuts, (void *)(uintptr_t)want), 0);
}

static void heads_are_cut(void)
{
	static const unsigned two = 2;
	struct http_call c = new_call();

	begin_to_watch(&two);
	assert_int_equal(get(&c), HTTP_CALL_CUT);
	(void)http_call_end(&c);
	assert_int_equal(get(&c), HTTP_CALL_CUT); /* the same call again */
	(void)http_call_end(&c);
	(void)pthread_join(watcher, NULL);
	assert_int_equal(http_pool_idle(&pool), 0);
	assert_int_equal(pool.stale, 0);
}

static void half_until_close(int fd, unsigned nth)
{
	if (hear(fd))
		tell(fd, nth == 0 ? "HTTP/1.1 200 OK\r\n\r\nhalf"
				  : "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
	drain(fd);
}

/* A body that ends with the connection has not ended when the connection was cut. */
static void bodies_are_cut(void)
{
	static const unsigned three = 3;
	struct http_call c = new_call();
	struct span whole;

	begin_to_watch(&three);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(get(&c), HTTP_CALL_OK);
		assert_int_equal(http_call_collect(&c, &body), PD_ETIMEOUT);
		(void)http_call_end(&c);
	}
	assert_int_equal(get(&c), HTTP_CALL_OK);
	assert_int_equal(http_call_whole(&c, &whole), PD_ETIMEOUT);
	(void)http_call_end(&c);
	(void)pthread_join(watcher, NULL);
	assert_int_equal(http_pool_idle(&pool), 0);
}

static void two_answers(int fd, unsigned nth)
{
	(void)nth;
	if (hear(fd))
		tell(fd, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
	clock_sleep_until(clock_now() + SHORT);
	tell(fd, "cd");
	while (hear(fd))
		tell(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

/* What can be seen of a call while it waits, while it does not, and of the past. */
static void calls_can_be_seen(void)
{
	struct http_call c = new_call();
	struct http_watch w;
	struct span piece;
	int err;

	http_pool_look(&pool, &w);
	assert_int_equal(w.calls, 0);
	assert_int_equal(get(&c), HTTP_CALL_OK);
	http_pool_look(&pool, &w);
	assert_int_equal(w.calls, 1);
	assert_int_equal(w.waiting, 0); /* it is our turn: nobody waits for the server */
	assert_int_equal(w.unanswered, 0);
	assert_true(w.heard == c.head_ns && w.heard >= c.use.begun);
	assert_int_equal(http_pool_cut(&pool, CLOCK_NEVER), 0);
	while (!c.ended) {
		while (http_call_piece(&c, &piece, &err))
			continue;
		if (!c.ended) {
			assert_true(http_call_more(&c) > 0);
			http_call_heard(&c, clock_now());
		}
	}
	(void)http_call_end(&c);
	http_pool_look(&pool, &w);
	assert_int_equal(w.calls, 0);
	assert_true(w.heard > c.head_ns && w.gap > SHORT / 2);
	answers(&c, 200, ""); /* on the same connection */
	assert_true(c.reused);
	/* The past fades. */
	for (int i = 1; i < 200; i++)
		http_pool_watch(&pool, clock_now() + i * 2 * NS_PER_S, &w);
	assert_true(w.gap < SHORT / 4);
}

static void silence(void **state)
{
	(void)state;
	both_ways(heads_are_cut, silent, 2);
	both_ways(bodies_are_cut, half_until_close, 3);
	both_ways(calls_can_be_seen, two_answers, 1);
}

/* -- addresses -- */

/* The first that takes the connection; it is told when that is not the first one. */
static const struct net_addr *preferred;

static void connected(void *ctx, const struct net_addr *a)
{
	struct net_addrs *to = ctx;

	for (unsigned i = 0; i < to->n; i++)
		if (net_addr_same(&to->a[i], a))
			preferred = &to->a[i];
}

static void quick(int fd, unsigned nth)
{
	(void)nth;
	while (hear(fd))
		tell(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

static void in_order(void)
{
	struct http_call c = new_call();
	struct net_addrs to = {.n = 3};
	struct net_addrs none;

	assert_int_equal(net_resolve(&to.a[0], "::1", 1, NULL), PD_OK);
	assert_int_equal(net_resolve(&to.a[1], "127.0.0.1", 1, NULL), PD_OK);
	to.a[2] = peer.addr.a[0];
	none = to;
	none.n = 2;
	preferred = NULL;
	c.to.ctx = &to;
	c.to.connected = connected;
	answers(&c, 200, "");
	assert_ptr_equal(preferred, &to.a[2]);
	assert_int_equal(pool.connects, 1);
	assert_int_equal(pool.connect_failures, 0);
	c.to.ctx = &none;
	http_pool_flush(&pool);
	assert_int_equal(get(&c), HTTP_CALL_CONNECT);
	(void)http_call_end(&c);
	assert_int_equal(pool.connect_failures, 1);
}

static void addresses(void **state)
{
	(void)state;
	both_ways(in_order, quick, 1);
}

/* -- a call for a client of ours who leaves -- */

static _Atomic int result, ends;

static void on_request(void *ctx, struct http_conn *conn, struct http_request *r)
{
	struct http_call c = new_call();

	(void)ctx;
	(void)r;
	c.of = conn;
	atomic_store(&result, (int)get(&c));
	atomic_store(&ends, http_call_end(&c) ? 1 : 2);
	buf_release(&in);
}

static void clients_that_leave(void **state)
{
	struct http_server_config cfg;
	struct http_server *s;
	int fd;

	(void)state;
	start_peer(silent, 1);
	set_up();
	http_server_config_default(&cfg);
	cfg.host = "127.0.0.1";
	cfg.threads = 1;
	cfg.on_request = on_request;
	assert_int_equal(http_server_start(&s, &cfg, NULL), PD_OK);
	fd = sock_dial(http_server_port(s));
	tell(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
	while (atomic_load(&pool.connects) == 0)
		clock_sleep_until(clock_now() + NS_PER_MS);
	(void)close(fd);
	/* Long before any limit of the call. */
	for (int64_t end = clock_now() + LONG / 2; !atomic_load(&ends) && clock_now() < end;)
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_int_equal(atomic_load(&ends), 1);
	assert_int_equal(atomic_load(&result), HTTP_CALL_CANCELED);
	assert_int_equal(http_pool_idle(&pool), 0);
	http_server_drain(s);
	(void)http_server_wait(s, clock_now() + LONG);
	assert_true(http_server_free(s));
	tear_down();
	stop_peer();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(deadlines),
		cmocka_unit_test(waits),
		cmocka_unit_test(silence),
		cmocka_unit_test(addresses),
		cmocka_unit_test(clients_that_leave),
	};

	return cmocka_run_group_tests_name("client_waits", tests, NULL, NULL);
}
