/* Errands: order, bound, deadlines, askers that give up, a thread that is stuck, the end; askers on
 * kernel threads and on the fibers of a server. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "lib/http/server.h"
#include "lib/net/errand.h"
#include "tests/unit/sock.h"

#define LONG (20 * NS_PER_S)

/* -- an asker that sleeps on a condition -- */

struct sleeper {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool woken, leave;
};

static void sleeper_init(struct sleeper *s)
{
	pthread_condattr_t attr;

	*s = (struct sleeper){.woken = false};
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
}

static void sleeper_release(struct sleeper *s)
{
	(void)pthread_cond_destroy(&s->wake);
	(void)pthread_mutex_destroy(&s->lock);
}

static bool sleep_here(void *who, int64_t deadline)
{
	struct timespec ts = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
	struct sleeper *s = who;
	bool leave;
	int rc = 0;

	(void)pthread_mutex_lock(&s->lock);
	while (!s->woken && !s->leave && rc == 0)
		rc = pthread_cond_timedwait(&s->wake, &s->lock, &ts);
	s->woken = false;
	leave = s->leave;
	(void)pthread_mutex_unlock(&s->lock);
	return leave;
}

static void rouse(struct sleeper *s, bool leave)
{
	(void)pthread_mutex_lock(&s->lock);
	s->woken = true;
	s->leave |= leave;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
}

static void wake_here(void *who)
{
	rouse(who, false);
}

static struct errand_sleeper sleeper_of(struct sleeper *s)
{
	return (struct errand_sleeper){sleep_here, wake_here, s};
}

/* -- errands that double a number -- */

static _Atomic int made, freed;

struct sum {
	struct errand errand;
	int in, out;
	int64_t takes;
};

static void sum_free(struct errand *e)
{
	atomic_fetch_add(&freed, 1);
	free((struct sum *)(void *)e);
}

static struct sum *sum_new(int in, int64_t takes)
{
	struct sum *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	atomic_fetch_add(&made, 1);
	errand_init(&s->errand, sum_free);
	s->in = in;
	s->takes = takes;
	return s;
}

/* The thread: one after the other; `hold` keeps it in the middle of one. */
struct desk {
	struct errands *errands;
	_Atomic bool hold, held;
	_Atomic int done, unwanted;
	_Atomic int order[64];
};

static void one_round(struct errands *errands, void *ctx)
{
	struct desk *d = ctx;
	struct errand *e;

	while ((e = errand_take(errands))) {
		struct sum *s = (struct sum *)(void *)e;
		int64_t until = clock_now() + s->takes;

		while (atomic_load(&d->hold) || clock_now() < until) {
			atomic_store(&d->held, true);
			clock_sleep_until(clock_now() + NS_PER_MS / 10);
		}
		if (!errand_wanted(e))
			atomic_fetch_add(&d->unwanted, 1);
		s->out = 2 * s->in;
		atomic_store(&d->order[atomic_load(&d->done) % 64], s->in);
		atomic_fetch_add(&d->done, 1);
		errand_done(e);
	}
	errands_pause(errands, clock_now() + LONG);
}

static void open_desk(struct desk *d, unsigned max)
{
	const struct errands_config cfg = {
		.name = "errand", .max = max, .round = one_round, .ctx = d};

	*d = (struct desk){.hold = false};
	atomic_store(&made, 0);
	atomic_store(&freed, 0);
	assert_int_equal(errands_start(&d->errands, &cfg), PD_OK);
}

static void close_desk(struct desk *d)
{
	atomic_store(&d->hold, false);
	assert_true(errands_stop(d->errands, clock_now() + LONG));
	errands_free(d->errands);
	assert_int_equal(atomic_load(&made), atomic_load(&freed));
}

static void until(_Atomic bool *what)
{
	int64_t end = clock_now() + LONG;

	while (!atomic_load(what) && clock_now() < end)
		clock_sleep_until(clock_now() + NS_PER_MS / 10);
	assert_true(atomic_load(what));
}

/* Keeps the thread busy with an errand of nobody. */
static void keep_busy(struct desk *d)
{
	struct sum *s = sum_new(-1, 0);

	atomic_store(&d->held, false);
	atomic_store(&d->hold, true);
	assert_int_equal(errand_post(d->errands, &s->errand), PD_OK);
	errand_drop(&s->errand);
	until(&d->held);
}

/* -- tests -- */

static void the_result_is_there_when_it_is_done(void **state)
{
	struct desk d;
	struct sleeper me;
	struct errand_sleeper who = sleeper_of(&me);

	(void)state;
	open_desk(&d, 4);
	sleeper_init(&me);
	for (int i = 0; i < 100; i++) {
		struct sum *s = sum_new(i, 0);

		assert_int_equal(errand_do(d.errands, &s->errand, &who, clock_now() + LONG), PD_OK);
		assert_int_equal(s->out, 2 * i);
		errand_drop(&s->errand);
	}
	assert_int_equal(atomic_load(&d.unwanted), 0);
	close_desk(&d);
	sleeper_release(&me);
}

static void the_queue_has_an_order_and_an_end(void **state)
{
	struct desk d;
	struct sum *s;

	(void)state;
	open_desk(&d, 4);
	keep_busy(&d);
	for (int i = 0; i < 5; i++) {
		s = sum_new(i, 0);
		assert_int_equal(errand_post(d.errands, &s->errand), i < 3 ? PD_OK : PD_EBUSY);
		errand_drop(&s->errand);
	}
	atomic_store(&d.hold, false);
	while (atomic_load(&d.done) < 4)
		clock_sleep_until(clock_now() + NS_PER_MS);
	for (int i = 0; i < 4; i++)
		assert_int_equal(atomic_load(&d.order[i]), i - 1);
	assert_int_equal(atomic_load(&d.unwanted), 0); /* nobody waits, and they are wanted */
	s = sum_new(9, 0);
	assert_int_equal(errand_post(d.errands, &s->errand), PD_OK);
	errand_drop(&s->errand);
	while (atomic_load(&d.done) < 5)
		clock_sleep_until(clock_now() + NS_PER_MS);
	close_desk(&d);
}

/* The thread is stuck: the asker goes at its deadline, and the errand is carried out all the same.
 */
static void a_deadline_ends_the_sleep_and_nothing_else(void **state)
{
	struct desk d;
	struct sleeper me;
	struct errand_sleeper who = sleeper_of(&me);
	struct sum *s;
	int64_t began;

	(void)state;
	open_desk(&d, 4);
	sleeper_init(&me);
	keep_busy(&d);
	s = sum_new(1, 0);
	began = clock_now();
	assert_int_equal(errand_do(d.errands, &s->errand, &who, began + 20 * NS_PER_MS),
			 PD_ETIMEOUT);
	assert_true(clock_now() >= began + 20 * NS_PER_MS);
	errand_drop(&s->errand);
	assert_int_equal(atomic_load(&freed), 0);
	atomic_store(&d.hold, false);
	while (atomic_load(&d.done) < 2)
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_int_equal(atomic_load(&d.unwanted), 1);
	close_desk(&d);
	assert_false(me.woken); /* not after it had gone */
	sleeper_release(&me);
}

struct asking {
	struct desk *desk;
	struct sum *sum;
	struct sleeper me;
	_Atomic int err;
};

static void *ask(void *arg)
{
	struct asking *a = arg;
	struct errand_sleeper who = sleeper_of(&a->me);

	atomic_store(&a->err, errand_wait(&a->sum->errand, &who, clock_now() + LONG));
	return NULL;
}

static void an_asker_that_gives_up_is_told_so(void **state)
{
	struct asking a = {.err = 1};
	struct desk d;
	struct errand_sleeper who = sleeper_of(&a.me);

	(void)state;
	open_desk(&d, 4);
	sleeper_init(&a.me);
	keep_busy(&d);
	a.sum = sum_new(1, 0);
	rouse(&a.me, true); /* its client left a moment ago */
	assert_int_equal(errand_do(d.errands, &a.sum->errand, &who, clock_now() + LONG),
			 PD_ECANCELED);
	errand_drop(&a.sum->errand);
	close_desk(&d);
	assert_int_equal(atomic_load(&d.unwanted), 1);
	sleeper_release(&a.me);
}

#define CROWD 8

static void many_may_wait_for_one(void **state)
{
	struct asking a[CROWD];
	pthread_t t[CROWD];
	struct desk d;
	struct sum *s;

	(void)state;
	open_desk(&d, 4);
	keep_busy(&d);
	s = sum_new(21, 0);
	assert_int_equal(errand_post(d.errands, &s->errand), PD_OK);
	for (int i = 0; i < CROWD; i++) {
		a[i] = (struct asking){.desk = &d, .sum = s, .err = 1};
		sleeper_init(&a[i].me);
		(void)errand_ref(&s->errand);
		assert_int_equal(pthread_create(&t[i], NULL, ask, &a[i]), 0);
	}
	rouse(&a[3].me, true);
	(void)pthread_join(t[3], NULL);
	assert_int_equal(atomic_load(&a[3].err), PD_ECANCELED);
	atomic_store(&d.hold, false);
	for (int i = 0; i < CROWD; i++) {
		if (i != 3)
			(void)pthread_join(t[i], NULL);
		assert_int_equal(atomic_load(&a[i].err), i == 3 ? PD_ECANCELED : PD_OK);
		errand_drop(&s->errand);
		sleeper_release(&a[i].me);
	}
	assert_int_equal(s->out, 42);
	/* Who comes late finds it done. */
	sleeper_init(&a[0].me);
	(void)ask(&a[0]);
	assert_int_equal(atomic_load(&a[0].err), PD_OK);
	sleeper_release(&a[0].me);
	errand_drop(&s->errand);
	close_desk(&d);
}

/* A thread that is stuck is not waited for; what is queued ends when the thread does. */
static void the_end_is_not_held_up(void **state)
{
	struct asking a = {.err = 1};
	struct desk d;
	struct sum *late;
	pthread_t t;

	(void)state;
	open_desk(&d, 4);
	sleeper_init(&a.me);
	keep_busy(&d);
	a.sum = sum_new(1, 0);
	assert_int_equal(errand_post(d.errands, &a.sum->errand), PD_OK);
	assert_int_equal(pthread_create(&t, NULL, ask, &a), 0);
	assert_false(errands_stop(d.errands, clock_now() + 20 * NS_PER_MS));
	late = sum_new(2, 0);
	assert_int_equal(errand_post(d.errands, &late->errand), PD_EBUSY);
	errand_drop(&late->errand);
	assert_int_equal(atomic_load(&a.err), 1);
	atomic_store(&d.hold, false);
	assert_true(errands_stop(d.errands, clock_now() + LONG));
	(void)pthread_join(t, NULL);
	/* The round goes on until its queue is empty, or the errand ended undone. */
	assert_true(atomic_load(&a.err) == PD_OK || atomic_load(&a.err) == PD_ECLOSED);
	errand_drop(&a.sum->errand);
	close_desk(&d);
	sleeper_release(&a.me);
}

static void idle_round(struct errands *errands, void *ctx)
{
	(void)ctx;
	errands_pause(errands, clock_now() + NS_PER_MS);
}

static void what_is_queued_ends_with_the_thread(void **state)
{
	const struct errands_config cfg = {.name = "errand", .max = 4, .round = idle_round};
	struct asking a = {.err = 1};
	struct desk d = {.hold = false};
	pthread_t t;

	(void)state;
	atomic_store(&made, 0);
	atomic_store(&freed, 0);
	assert_int_equal(errands_start(&d.errands, &cfg), PD_OK);
	sleeper_init(&a.me);
	a.sum = sum_new(1, 0);
	assert_int_equal(errand_post(d.errands, &a.sum->errand), PD_OK);
	assert_int_equal(pthread_create(&t, NULL, ask, &a), 0);
	assert_true(errands_stop(d.errands, clock_now() + LONG));
	(void)pthread_join(t, NULL);
	assert_int_equal(atomic_load(&a.err), PD_ECLOSED);
	errand_drop(&a.sum->errand);
	close_desk(&d);
	sleeper_release(&a.me);
}

/* -- many at once -- */

struct visitor {
	struct desk *desk;
	pthread_t thread;
	unsigned seed;
	int ok, busy, late;
};

static void *visit(void *arg)
{
	struct visitor *v = arg;
	struct sleeper me;
	struct errand_sleeper who = sleeper_of(&me);
	struct rng rng;

	rng_seed(&rng, v->seed);
	sleeper_init(&me);
	for (int i = 0; i < 300; i++) {
		struct sum *s = sum_new(i, (int64_t)rng_below(&rng, 20) * NS_PER_US);
		int64_t wait = (int64_t)rng_below(&rng, 4) * 50 * NS_PER_US;
		int err = errand_do(v->desk->errands, &s->errand, &who,
				    clock_now() + (rng_below(&rng, 2) ? LONG : wait));

		v->ok += err == PD_OK;
		v->busy += err == PD_EBUSY;
		v->late += err == PD_ETIMEOUT;
		if (err == PD_OK)
			assert_int_equal(s->out, 2 * i);
		errand_drop(&s->errand);
	}
	sleeper_release(&me);
	return NULL;
}

static void nothing_is_lost_in_a_crowd(void **state)
{
	struct visitor v[CROWD];
	struct desk d;
	int ok = 0, all = 0;

	(void)state;
	open_desk(&d, 5);
	for (unsigned i = 0; i < CROWD; i++) {
		v[i] = (struct visitor){.desk = &d, .seed = i};
		assert_int_equal(pthread_create(&v[i].thread, NULL, visit, &v[i]), 0);
	}
	for (int i = 0; i < CROWD; i++) {
		(void)pthread_join(v[i].thread, NULL);
		ok += v[i].ok;
		all += v[i].ok + v[i].busy + v[i].late;
	}
	assert_int_equal(all, CROWD * 300);
	assert_true(ok > 0);
	close_desk(&d);
}

/* -- handlers of a server -- */

static void on_request(void *ctx, struct http_conn *c, struct http_request *r)
{
	struct errand_sleeper who = http_conn_sleeper(c);
	struct desk *d = ctx;
	struct sum *s = sum_new(r->head.path.p[1], 0);
	int err = errand_do(d->errands, &s->errand, &who, clock_now() + LONG);
	char text[32];
	int n = snprintf(text, sizeof(text), "%d", err ? 0 : s->out);

	if (!err)
		(void)http_reply(c, 200, "text/plain", NULL, text, (size_t)n);
	else if (err != PD_ECANCELED)
		(void)http_reply(c, 503, NULL, NULL, NULL, 0);
	errand_drop(&s->errand);
}

static void handlers_sleep_on_their_connections(void **state)
{
	struct http_server_config cfg;
	struct http_server *server;
	struct desk d;
	struct pd_msg msg;
	char text[600];
	int fd[CROWD];

	(void)state;
	open_desk(&d, 64);
	http_server_config_default(&cfg);
	cfg.ctx = &d;
	cfg.on_request = on_request;
	assert_int_equal(http_server_start(&server, &cfg, &msg), PD_OK);
	for (int turn = 0; turn < 20; turn++) {
		keep_busy(&d);
		for (int i = 0; i < CROWD; i++) {
			int n = snprintf(text, sizeof(text), "GET /%c HTTP/1.1\r\nHost: x\r\n\r\n",
					 'a' + i);

			fd[i] = sock_dial(http_server_port(server));
			sock_say(fd[i], text, (size_t)n);
		}
		/* Some leave before the thread comes to theirs. */
		for (int i = 0; i < CROWD; i += 3)
			(void)close(fd[i]);
		atomic_store(&d.hold, false);
		for (int i = 0; i < CROWD; i++) {
			ssize_t n = i % 3 ? sock_recv(fd[i], text, sizeof(text) - 1) : 0;

			if (i % 3 == 0)
				continue;
			assert_true(n > 12);
			text[n] = '\0';
			assert_memory_equal(text + 9, "200", 3);
			assert_int_equal(strtol(text + n - 3, NULL, 10), 2 * ('a' + i));
			(void)close(fd[i]);
		}
	}
	http_server_drain(server);
	assert_int_equal(http_server_wait(server, clock_now() + LONG), 0);
	(void)http_server_free(server);
	close_desk(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_result_is_there_when_it_is_done),
		cmocka_unit_test(the_queue_has_an_order_and_an_end),
		cmocka_unit_test(a_deadline_ends_the_sleep_and_nothing_else),
		cmocka_unit_test(an_asker_that_gives_up_is_told_so),
		cmocka_unit_test(many_may_wait_for_one),
		cmocka_unit_test(the_end_is_not_held_up),
		cmocka_unit_test(what_is_queued_ends_with_the_thread),
		cmocka_unit_test(nothing_is_lost_in_a_crowd),
		cmocka_unit_test(handlers_sleep_on_their_connections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
