/* Health without a router: when a worker is probed, by a clock that the test turns, and what the
 * thread makes of workers that answer, refuse, hang and come back. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/http/server.h"
#include "lib/router/fleet/health.h"

#define LONG (20 * NS_PER_S)

static struct router_config config;
static int64_t limit; /* of the probe that is due */

/* One worker in a fleet of its own. */
struct one {
	struct fleet_holder holder;
	struct fleet *fleet;
	struct worker *worker;
};

static void one_init(struct one *o, uint16_t port)
{
	struct fleet_config fc = {.workers = {0}};
	char url[64];
	struct pd_msg msg;

	for (int r = 0; r < ROLES; r++)
		fc.policy[r] = route_spec_of(route_policy_find(SPAN("random")));
	(void)snprintf(url, sizeof(url), "http://127.0.0.1:%u", port);
	assert_int_equal(fleet_holder_init(&o->holder), PD_OK);
	assert_int_equal(worker_list_add(&fc.workers, ROLE_REGULAR, url, 1, &msg), PD_OK);
	assert_int_equal(fleet_load(&o->holder, &config, &fc, &msg), PD_OK);
	worker_list_release(&fc.workers);
	o->fleet = fleet_get(&o->holder);
	o->worker = o->fleet->pool[ROLE_REGULAR].worker[0];
}

static void one_release(struct one *o)
{
	fleet_put(o->fleet);
	fleet_holder_release(&o->holder);
}

/* -- the schedule -- */

/* How long until the worker is probed, to the millisecond; it is not probed meanwhile. */
static int64_t pause_ms(struct worker *w, int64_t now)
{
	int64_t ms = 0;

	while (!worker_probe_due(w, &config, now + ms * NS_PER_MS, &limit))
		ms++;
	return ms;
}

static void a_well_worker_is_probed_at_the_interval(void **state)
{
	int64_t now = 1000 * NS_PER_S;
	struct one o;

	(void)state;
	config.health_interval = 60 * NS_PER_S;
	one_init(&o, 1);
	assert_true(worker_probe_due(o.worker, &config, now, &limit));
	for (int i = 0; i < 50; i++) {
		worker_probed(o.worker, &config, true, true, now + i);
		assert_in_range(pause_ms(o.worker, now + i), 54000, 66000); /* 10 % of jitter */
	}
	one_release(&o);
}

static void an_ejected_one_soon_and_then_more_rarely(void **state)
{
	static const int64_t pauses[] = {400, 800, 1000, 1000};
	int64_t now = 1000 * NS_PER_S;
	struct one o;

	(void)state;
	config.health_interval = 60 * NS_PER_S;
	one_init(&o, 1);
	worker_probed(o.worker, &config, true, true, now);
	worker_eject(o.worker, now);
	assert_int_equal(worker_state(o.worker), WORKER_EJECTED);
	assert_int_equal(pause_ms(o.worker, now), 200);
	for (size_t i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
		now += NS_PER_S;
		worker_probed(o.worker, &config, false, true, now);
		assert_int_equal(pause_ms(o.worker, now), pauses[i]);
	}
	/* A probe that failed here concludes nothing, and counts for nothing. */
	worker_probe_later(o.worker, &config, now);
	assert_int_equal(atomic_load(&o.worker->checks_failed), 4);
	assert_int_equal(worker_state(o.worker), WORKER_EJECTED);
	/* One success is enough; with an interval of less than a second that is the longest pause.
	 */
	worker_probed(o.worker, &config, true, true, now);
	assert_int_equal(worker_state(o.worker), WORKER_AVAILABLE);
	config.health_interval = 300 * NS_PER_MS;
	worker_eject(o.worker, now);
	worker_probed(o.worker, &config, false, true, now);
	assert_int_equal(pause_ms(o.worker, now), 300);
	one_release(&o);
}

static void failures_and_successes_are_counted_in_a_row(void **state)
{
	int64_t now = 1000 * NS_PER_S;
	struct one o;

	(void)state;
	config.health_interval = 60 * NS_PER_S;
	one_init(&o, 1);
	for (int round = 0; round < 3; round++) {
		worker_probed(o.worker, &config, false, true, now);
		worker_probed(o.worker, &config, false, true, now);
		worker_probed(o.worker, &config, true, true, now);
		assert_int_equal(worker_state(o.worker), WORKER_AVAILABLE);
	}
	for (unsigned i = 0; i < config.health_failures; i++)
		worker_probed(o.worker, &config, false, true, now);
	assert_int_equal(worker_state(o.worker), WORKER_UNHEALTHY);
	assert_true(pause_ms(o.worker, now) <= 1100);
	worker_probed(o.worker, &config, true, true, now);
	worker_probed(o.worker, &config, false, true, now);
	worker_probed(o.worker, &config, true, true, now);
	assert_int_equal(worker_state(o.worker), WORKER_UNHEALTHY);
	worker_probed(o.worker, &config, true, true, now);
	assert_int_equal(worker_state(o.worker), WORKER_AVAILABLE);
	one_release(&o);
}

/* -- silence -- */

static bool may_be_picked(const struct worker *w)
{
	return atomic_load(&w->slot.available);
}

static void a_suspect_needs_two_bad_probes(void **state)
{
	int64_t now = 1000 * NS_PER_S;
	struct one o;

	(void)state;
	config.health_interval = 60 * NS_PER_S;
	for (int answered = 0; answered < 2; answered++) {
		one_init(&o, 1);
		assert_true(worker_probe_due(o.worker, &config, now, &limit));
		assert_int_equal(limit, config.health_timeout);
		worker_probed(o.worker, &config, true, true, now);
		worker_suspect(o.worker, true, now + NS_PER_S);
		assert_int_equal(pause_ms(o.worker, now + NS_PER_S), 0);
		assert_int_equal(limit, 3 * NS_PER_S);
		/* As long as it lives it is asked each second and stays. */
		worker_probed(o.worker, &config, true, true, now + NS_PER_S);
		assert_int_equal(pause_ms(o.worker, now + NS_PER_S), 1000);
		worker_probed(o.worker, &config, false, answered, now + 2 * NS_PER_S);
		assert_true(may_be_picked(o.worker));
		worker_probed(o.worker, &config, false, answered, now + 3 * NS_PER_S);
		assert_int_equal(worker_state(o.worker), WORKER_UNHEALTHY);
		assert_int_equal(worker_is_silent(o.worker), !answered);
		assert_true(pause_ms(o.worker, now + 3 * NS_PER_S) <= 1100);
		/* And one good one. */
		worker_probed(o.worker, &config, true, true, now + 4 * NS_PER_S);
		assert_true(may_be_picked(o.worker) && !worker_is_silent(o.worker));
		/* Not suspect any more: three again. */
		worker_probed(o.worker, &config, false, false, now + 5 * NS_PER_S);
		worker_probed(o.worker, &config, false, false, now + 6 * NS_PER_S);
		assert_true(may_be_picked(o.worker));
		one_release(&o);
	}
}

static void a_stalled_one_gets_one_request_when_it_has_none(void **state)
{
	struct one o;
	struct route_slot *s;

	(void)state;
	one_init(&o, 1);
	s = &o.worker->slot;
	atomic_store(&s->in_flight, 2);
	assert_true(worker_stall(o.worker, true, 5));
	assert_false(worker_stall(o.worker, true, 6));
	assert_int_equal(worker_stalled_at(o.worker), 5);
	assert_int_equal(worker_state(o.worker), WORKER_STALLED);
	assert_false(may_be_picked(o.worker));
	assert_int_equal(atomic_load(&s->permits), 0);
	atomic_store(&s->in_flight, 0);
	assert_false(worker_stall(o.worker, true, 7));
	assert_int_equal(atomic_load(&s->permits), 1);
	assert_true(worker_stall(o.worker, false, 8));
	assert_true(may_be_picked(o.worker) && atomic_load(&s->permits) == 0);
	one_release(&o);
}

static void open_the_breaker(struct worker *w, enum worker_fault fault, int64_t now)
{
	for (unsigned i = 0; i < config.cb_failures; i++) {
		worker_blame(w, fault, "broke", now);
		worker_report(w, &config, VERDICT_FAILURE, false, now);
	}
	assert_int_equal(worker_state(w), WORKER_OPEN);
}

static void a_good_probe_closes_the_breaker_of_a_restart(void **state)
{
	int64_t now = 1000 * NS_PER_S;
	struct worker_view v;
	struct one o;

	(void)state;
	config.cb_failures = 3;
	config.panic_threshold = 0; /* a lone worker's breaker takes it out */
	config.cb_timeout = 60 * NS_PER_S;
	one_init(&o, 1);
	worker_probed(o.worker, &config, true, true, now);
	/* Answers opened it: a good probe says nothing new. */
	open_the_breaker(o.worker, FAULT_ANSWER, now);
	worker_probed(o.worker, &config, true, true, now);
	assert_int_equal(worker_state(o.worker), WORKER_OPEN);
	worker_view(o.worker, &config, &v);
	assert_string_equal(v.failure, "broke");
	assert_true(v.out_at > 0 && v.failed_at > 0 && strstr(v.why, "circuit breaker"));
	/* It was out: what was counted is of the past. */
	worker_eject(o.worker, now);
	worker_probed(o.worker, &config, true, true, now);
	assert_int_equal(worker_state(o.worker), WORKER_AVAILABLE);
	worker_view(o.worker, &config, &v);
	assert_true(v.out_at == 0 && v.why[0] == '\0' && v.next == -1);
	/* Connections that ended: it is asked at once, and the breaker closed; once a minute. */
	now += 10 * NS_PER_S;
	open_the_breaker(o.worker, FAULT_CUT, now);
	assert_int_equal(pause_ms(o.worker, now), 0);
	worker_probed(o.worker, &config, true, true, now);
	assert_int_equal(worker_state(o.worker), WORKER_AVAILABLE);
	open_the_breaker(o.worker, FAULT_CUT, now + NS_PER_S);
	worker_probed(o.worker, &config, true, true, now + NS_PER_S);
	assert_int_equal(worker_state(o.worker), WORKER_OPEN);
	worker_probed(o.worker, &config, true, true, now + 61 * NS_PER_S);
	assert_int_equal(worker_state(o.worker), WORKER_AVAILABLE);
	one_release(&o);
	router_config_default(&config);
	config.health_timeout = LONG;
}

/* -- the thread -- */

struct engine {
	struct http_server *server;
	_Atomic int status; /* 0: no answer at all */
	_Atomic int probes;
};

static void answer(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct engine *e = ctx;

	assert_true(span_eq(r->head.path, SPAN("/health")));
	atomic_fetch_add(&e->probes, 1);
	while (atomic_load(&e->status) == 0)
		if (http_conn_sleep(c, clock_now() + NS_PER_MS))
			return;
	(void)http_reply(c, atomic_load(&e->status), NULL, NULL, NULL, 0);
}

static void engine_start(struct engine *e, uint16_t port)
{
	struct http_server_config cfg;
	struct pd_msg msg;

	http_server_config_default(&cfg);
	cfg.port = port;
	cfg.ctx = e;
	cfg.on_request = answer;
	assert_int_equal(http_server_start(&e->server, &cfg, &msg), PD_OK);
}

static void engine_stop(struct engine *e)
{
	http_server_drain(e->server);
	(void)http_server_wait(e->server, clock_now());
	assert_true(http_server_free(e->server));
}

static void becomes(struct worker *w, enum worker_state wanted)
{
	int64_t end = clock_now() + LONG;

	while (worker_state(w) != wanted && clock_now() < end)
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_int_equal(worker_state(w), wanted);
}

static void the_thread_sees_what_becomes_of_a_worker(void **state)
{
	struct engine e = {.status = 200};
	struct health *h;
	struct one o;
	struct pd_msg msg;
	uint16_t port;
	char note[160];

	(void)state;
	config.health_interval = 30 * NS_PER_MS;
	engine_start(&e, 0);
	port = http_server_port(e.server);
	one_init(&o, port);
	assert_int_equal(health_start(&h, &o.holder, &config, &msg), PD_OK);
	while (atomic_load(&e.probes) < 2)
		clock_sleep_until(clock_now() + NS_PER_MS);
	becomes(o.worker, WORKER_AVAILABLE);
	/* An answer that is not good has to come more than once. */
	atomic_store(&e.status, 503);
	becomes(o.worker, WORKER_UNHEALTHY);
	worker_note_get(o.worker, note, sizeof(note));
	assert_string_equal(note, "health check answered 503");
	atomic_store(&e.status, 200);
	becomes(o.worker, WORKER_AVAILABLE);
	worker_note_get(o.worker, note, sizeof(note));
	assert_string_equal(note, "");
	/* A refused connection is as good as a failed request. */
	engine_stop(&e);
	becomes(o.worker, WORKER_EJECTED);
	worker_note_get(o.worker, note, sizeof(note));
	assert_true(note[0]);
	engine_start(&e, port);
	becomes(o.worker, WORKER_AVAILABLE);
	health_stop(h);
	one_release(&o);
	engine_stop(&e);
}

/* A worker that is added is probed soon, whatever the interval, and once. */
static void a_new_worker_is_probed_soon(void **state)
{
	struct engine first = {.status = 200}, second = {.status = 200};
	struct health *h;
	struct worker *w;
	struct fleet *f;
	struct one o;
	struct pd_msg msg;
	char url[64];

	(void)state;
	config.health_interval = 600 * NS_PER_S;
	engine_start(&first, 0);
	engine_start(&second, 0);
	one_init(&o, http_server_port(first.server));
	assert_int_equal(health_start(&h, &o.holder, &config, &msg), PD_OK);
	(void)snprintf(url, sizeof(url), "http://127.0.0.1:%u", http_server_port(second.server));
	assert_int_equal(fleet_add(&o.holder, &config, ROLE_REGULAR, url, 0, NULL, &msg), PD_OK);
	health_nudge(h);
	f = fleet_get(&o.holder);
	w = f->pool[ROLE_REGULAR].worker[1];
	becomes(w, WORKER_AVAILABLE);
	assert_int_equal(atomic_load(&second.probes), 1);
	fleet_put(f);
	health_stop(h);
	one_release(&o);
	engine_stop(&first);
	engine_stop(&second);
}

/* The probe hangs and its worker has left every fleet but the one that the probe holds. */
static void the_end_cuts_a_probe_that_hangs(void **state)
{
	struct engine e = {.status = 0};
	struct fleet_config none = {.workers = {0}};
	struct health *h;
	struct one o;
	struct pd_msg msg;
	int64_t began;

	(void)state;
	config.health_interval = 30 * NS_PER_MS;
	for (int r = 0; r < ROLES; r++)
		none.policy[r] = route_spec_of(route_policy_find(SPAN("random")));
	engine_start(&e, 0);
	one_init(&o, http_server_port(e.server));
	assert_int_equal(health_start(&h, &o.holder, &config, &msg), PD_OK);
	while (atomic_load(&e.probes) == 0)
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_int_equal(fleet_load(&o.holder, &config, &none, &msg), PD_OK);
	fleet_put(o.fleet);
	began = clock_now();
	health_stop(h);
	assert_true(clock_now() - began < config.health_timeout);
	fleet_holder_release(&o.holder);
	engine_stop(&e);
	health_stop(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_well_worker_is_probed_at_the_interval),
		cmocka_unit_test(an_ejected_one_soon_and_then_more_rarely),
		cmocka_unit_test(failures_and_successes_are_counted_in_a_row),
		cmocka_unit_test(a_suspect_needs_two_bad_probes),
		cmocka_unit_test(a_stalled_one_gets_one_request_when_it_has_none),
		cmocka_unit_test(a_good_probe_closes_the_breaker_of_a_restart),
		cmocka_unit_test(the_thread_sees_what_becomes_of_a_worker),
		cmocka_unit_test(a_new_worker_is_probed_soon),
		cmocka_unit_test(the_end_cuts_a_probe_that_hangs),
	};

	(void)curl_global_init(CURL_GLOBAL_NOTHING);
	router_config_default(&config);
	config.health_timeout = LONG;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
