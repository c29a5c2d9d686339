/* Changes of the fleet and questions to workers without a router: handlers that wait for them,
 * clients that leave, a change that is stuck, the end. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/router/fleet/asks.h"
#include "lib/router/fleet/changes.h"
#include "tests/unit/sock.h"

#define LONG (20 * NS_PER_S)

static struct router_config config;

/* -- a worker -- */

struct engine {
	struct http_server *server;
	_Atomic bool hang, asked, left;
	bool old; /* knows the second path only */
};

static void engine_answer(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct engine *e = ctx;
	bool known = span_eq(r->head.path, e->old ? SPAN("/second") : SPAN("/first"));

	while (atomic_load(&e->hang)) {
		atomic_store(&e->asked, true);
		if (http_conn_sleep(c, clock_now() + NS_PER_MS)) {
			atomic_store(&e->left, true);
			return;
		}
	}
	(void)http_reply(c, known ? 200 : 404, "text/plain", NULL, e->old ? "old" : "new", 3);
}

static struct http_server *serve(void (*fn)(void *, struct http_conn *, struct http_request *),
				 void *ctx)
{
	struct http_server_config cfg;
	struct http_server *s;
	struct pd_msg msg;

	http_server_config_default(&cfg);
	cfg.ctx = ctx;
	cfg.on_request = fn;
	assert_int_equal(http_server_start(&s, &cfg, &msg), PD_OK);
	return s;
}

static void end(struct http_server *s)
{
	http_server_drain(s);
	(void)http_server_wait(s, clock_now() + LONG);
	assert_true(http_server_free(s));
}

/* -- a small router: /add?PORT, /reload, /ask -- */

struct desk {
	struct fleet_holder fleet;
	struct health *health;
	struct changes *changes;
	struct asks *asks;
	struct http_server *server;
	_Atomic bool block, blocked;
	_Atomic int reloads, err, begun, done;
	_Atomic unsigned good[2];
	char said[2][8];
};

static int reload(void *ctx, struct pd_msg *msg)
{
	struct desk *d = ctx;

	atomic_store(&d->blocked, true);
	while (atomic_load(&d->block))
		clock_sleep_until(clock_now() + NS_PER_MS);
	atomic_fetch_add(&d->reloads, 1);
	return pd_fail(msg, PD_EINVAL, "no file");
}

static int ask_all(struct desk *d, struct http_conn *c)
{
	struct fleet *f = fleet_get(&d->fleet);
	struct ask *q = ask_new(f, "GET", "/first", "/second", NULL);
	const struct fleet_pool *p = &f->pool[ROLE_REGULAR];
	int err;

	assert_non_null(q);
	q->keep_body = true;
	for (size_t i = 0; i < p->n; i++) {
		assert_int_equal(ask_worker(q, p->worker[i]), PD_OK);
		assert_int_equal(ask_worker(q, p->worker[i]), PD_OK); /* one server, once */
	}
	fleet_put(f);
	assert_int_equal(q->n, 2);
	err = ask_run(d->asks, c, q);
	for (size_t i = 0; !err && i < q->n; i++) {
		atomic_store(&d->good[i], ask_good(&q->one[i]));
		(void)snprintf(d->said[i], sizeof(d->said[i]), "%.*s", (int)q->one[i].body.len,
			       q->one[i].body.data ? q->one[i].body.data : "");
	}
	ask_free(q);
	return err;
}

static void handle(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct desk *d = ctx;
	struct change ch = {.kind = CHANGE_RELOAD, .role = ROLE_REGULAR};
	int err;

	atomic_fetch_add(&d->begun, 1);
	if (span_eq(r->head.path, SPAN("/ask"))) {
		err = ask_all(d, c);
	} else {
		if (span_eq(r->head.path, SPAN("/add"))) {
			ch.kind = CHANGE_ADD;
			(void)snprintf(ch.text, sizeof(ch.text), "http://127.0.0.1:%.*s",
				       (int)(r->head.target.n - 5), r->head.target.p + 5);
		}
		err = changes_do(d->changes, c, &ch);
		err = err ? err : ch.err;
	}
	atomic_store(&d->err, err);
	atomic_fetch_add(&d->done, 1);
	if (err != PD_ECANCELED)
		(void)http_reply(c, err ? 400 : 200, NULL, NULL, NULL, 0);
}

static void desk_open(struct desk *d)
{
	struct fleet_config none = {.workers = {0}};
	struct changes_config cc = {
		.fleet = &d->fleet, .router = &config, .reload = reload, .ctx = d};
	struct pd_msg msg;

	for (int r = 0; r < ROLES; r++)
		none.policy[r] = route_spec_of(route_policy_find(SPAN("random")));
	memset(d, 0, sizeof(*d));
	assert_int_equal(fleet_holder_init(&d->fleet), PD_OK);
	assert_int_equal(fleet_load(&d->fleet, &config, &none, &msg), PD_OK);
	assert_int_equal(health_start(&d->health, &d->fleet, &config, &msg), PD_OK);
	cc.health = d->health;
	assert_int_equal(changes_start(&d->changes, &cc, &msg), PD_OK);
	assert_int_equal(asks_start(&d->asks, &config, &msg), PD_OK);
	d->server = serve(handle, d);
}

static void desk_close(struct desk *d)
{
	atomic_store(&d->block, false);
	end(d->server);
	assert_true(changes_stop(d->changes));
	asks_stop(d->asks);
	health_stop(d->health);
	fleet_holder_release(&d->fleet);
}

static int send_to(struct desk *d, const char *target, unsigned n)
{
	char text[100];
	int fd = sock_dial(http_server_port(d->server)),
	    len = snprintf(text, sizeof(text), "GET %s", target);

	len += snprintf(text + len, sizeof(text) - (size_t)len, n ? "%u" : "", n);
	len += snprintf(text + len, sizeof(text) - (size_t)len, " HTTP/1.1\r\nHost: x\r\n\r\n");
	sock_say(fd, text, (size_t)len);
	return fd;
}

static int answer(int fd)
{
	char text[512];
	ssize_t n = sock_recv(fd, text, sizeof(text) - 1);

	(void)close(fd);
	assert_true(n > 12);
	return (int)strtol(text + 9, NULL, 10);
}

static void until(_Atomic bool *what)
{
	int64_t deadline = clock_now() + LONG;

	while (!atomic_load(what) && clock_now() < deadline)
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_true(atomic_load(what));
}

static size_t workers(struct desk *d)
{
	struct fleet *f = fleet_get(&d->fleet);
	size_t n = f->pool[ROLE_REGULAR].n;

	fleet_put(f);
	return n;
}

/* -- tests -- */

static void a_handler_gets_what_came_of_its_change(void **state)
{
	struct desk *d = aligned_alloc(64, sizeof(*d));
	int64_t deadline = clock_now() + LONG;
	struct fleet *f;

	(void)state;
	assert_non_null(d);
	desk_open(d);
	assert_int_equal(answer(send_to(d, "/add?", 1)), 200);
	assert_int_equal(workers(d), 1);
	assert_int_equal(answer(send_to(d, "/add?", 1)), 400);
	assert_int_equal(atomic_load(&d->err), PD_EEXIST);
	assert_int_equal(answer(send_to(d, "/add?", 2)), 200);
	assert_int_equal(workers(d), 2);
	assert_int_equal(answer(send_to(d, "/reload", 0)), 400);
	assert_int_equal(atomic_load(&d->err), PD_EINVAL);
	assert_int_equal(atomic_load(&d->reloads), 1);
	/* One that leaves and has nothing to do goes by itself. */
	f = fleet_get(&d->fleet);
	worker_leave(f->pool[ROLE_REGULAR].worker[0], false);
	fleet_put(f);
	changes_reap(d->changes);
	while (workers(d) == 2 && clock_now() < deadline)
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_int_equal(workers(d), 1);
	desk_close(d);
	free(d);
}

/* A client that waits behind a change that is stuck may leave; what it asked for happens later. */
static void a_stuck_change_holds_up_changes_only(void **state)
{
	struct desk *d = aligned_alloc(64, sizeof(*d));
	int fd, stuck, patient;

	(void)state;
	assert_non_null(d);
	desk_open(d);
	atomic_store(&d->block, true);
	stuck = send_to(d, "/reload", 0);
	until(&d->blocked);
	fd = send_to(d, "/add?", 1);
	while (atomic_load(&d->begun) < 2)
		clock_sleep_until(clock_now() + NS_PER_MS);
	(void)close(fd);
	while (atomic_load(&d->done) == 0)
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_int_equal(atomic_load(&d->err), PD_ECANCELED);
	assert_int_equal(workers(d), 0);
	patient = send_to(d, "/add?", 2);
	clock_sleep_until(clock_now() + 10 * NS_PER_MS);
	assert_int_equal(atomic_load(&d->done), 1);
	atomic_store(&d->block, false);
	assert_int_equal(answer(patient), 200);
	assert_int_equal(answer(stuck), 400);
	assert_int_equal(workers(d), 2);
	desk_close(d);
	free(d);
}

static _Atomic bool told;

static void tell(void)
{
	atomic_store(&told, true);
}

static void the_end_does_not_wait_for_a_stuck_change(void **state)
{
	struct desk *d = aligned_alloc(64, sizeof(*d));

	(void)state;
	assert_non_null(d);
	desk_open(d);
	atomic_store(&told, false);
	atomic_store(&d->block, true);
	assert_true(changes_reload(d->changes, tell));
	until(&d->blocked);
	assert_false(changes_stop(d->changes));
	assert_false(changes_reload(d->changes, tell)); /* no more */
	assert_false(atomic_load(&told));
	desk_close(d);
	assert_true(atomic_load(&told));
	free(d);
}

static void all_workers_are_asked_at_once(void **state)
{
	struct desk *d = aligned_alloc(64, sizeof(*d));
	struct engine e[2] = {{.old = false}, {.old = true}};
	int fd;

	(void)state;
	assert_non_null(d);
	desk_open(d);
	for (int i = 0; i < 2; i++) {
		e[i].server = serve(engine_answer, &e[i]);
		assert_int_equal(answer(send_to(d, "/add?", http_server_port(e[i].server))), 200);
	}
	assert_int_equal(answer(send_to(d, "/ask", 0)), 200);
	assert_true(atomic_load(&d->good[0]) && atomic_load(&d->good[1]));
	assert_string_equal(d->said[0], "new");
	assert_string_equal(d->said[1], "old"); /* by the second path */
	/* A client that leaves ends the question, also at the workers. */
	atomic_store(&e[0].hang, true);
	atomic_store(&e[1].hang, true);
	atomic_store(&d->done, 0);
	fd = send_to(d, "/ask", 0);
	until(&e[0].asked);
	until(&e[1].asked);
	(void)close(fd);
	while (atomic_load(&d->done) == 0)
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_int_equal(atomic_load(&d->err), PD_ECANCELED);
	until(&e[0].left);
	until(&e[1].left);
	desk_close(d);
	for (int i = 0; i < 2; i++)
		end(e[i].server);
	free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_handler_gets_what_came_of_its_change),
		cmocka_unit_test(a_stuck_change_holds_up_changes_only),
		cmocka_unit_test(the_end_does_not_wait_for_a_stuck_change),
		cmocka_unit_test(all_workers_are_asked_at_once),
	};

	(void)curl_global_init(CURL_GLOBAL_NOTHING);
	router_config_default(&config);
	config.health_endpoint = "/first";
	config.health_interval = 3600 * NS_PER_S;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
