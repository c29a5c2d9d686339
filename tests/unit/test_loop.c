/* Fibers and event loops: switching, waiting, sleeping, posted work, stopping. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "lib/net/fiber.h"
#include "lib/net/loop.h"
#include "lib/net/shelf.h"

/* -- fibers alone -- */

#define NFIBERS 8
#define TURNS	200

static struct fiber_stack home, fiber[NFIBERS];
static double result[NFIBERS];

/* Keeps values in registers, on the stack and in floating point across every switch. */
static void turner(void *arg)
{
	size_t me = (size_t)(uintptr_t)arg;
	double sum = (double)me;
	char room[3000];

	for (int i = 0;; i++) {
		memset(room, (int)me + i % 7, sizeof(room));
		sum += 0.25 * i;
		fiber_switch(&fiber[me], &home);
		for (size_t k = 0; k < sizeof(room); k++)
			assert_int_equal(room[k], (int)me + i % 7);
		result[me] = sum;
		if (i % 50 == 3)
			fiber_trim(&fiber[me]);
	}
}

static void fibers_keep_what_is_theirs(void **state)
{
	double want = 0;

	(void)state;
	fiber_stack_thread(&home);
	for (size_t i = 0; i < NFIBERS; i++)
		assert_int_equal(fiber_stack_init(&fiber[i], 65536, turner, (void *)i), PD_OK);
	for (int turn = 0; turn <= TURNS; turn++)
		for (size_t i = 0; i < NFIBERS; i++)
			fiber_switch(&home, &fiber[i]);
	for (int i = 0; i < TURNS; i++)
		want += 0.25 * i;
	for (size_t i = 0; i < NFIBERS; i++) {
		assert_true(result[i] == want + (double)i);
		fiber_stack_release(&fiber[i]);
	}
}

static int dig(volatile int depth)
{
	volatile char room[1024];

	room[0] = (char)depth;
	return depth == 0 ? room[0] : dig(depth - 1) + room[0];
}

static void digger(void *arg)
{
	(void)arg;
	_exit(dig(1 << 20) == 1);
}

/* A stack that is used up meets the page without access, not its neighbour. */
static void an_overflow_is_a_fault(void **state)
{
	struct fiber_stack f;
	int status = 0;
	pid_t pid;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)close(2); /* a sanitizer's report of it */
		fiber_stack_thread(&home);
		if (fiber_stack_init(&f, 65536, digger, NULL))
			_exit(0);
		fiber_switch(&home, &f);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* -- loops -- */

static struct loop *start(unsigned max_fibers)
{
	struct loop_config cfg = {
		.name = "test", .stack_bytes = 256u << 10, .max_fibers = max_fibers};
	struct loop *l;

	assert_int_equal(loop_start(&l, &cfg), PD_OK);
	return l;
}

static void stop(struct loop *l)
{
	assert_true(loop_stop(l, clock_now() + 20 * NS_PER_S));
	loop_free(l);
}

static void until(_Atomic int *value, int wanted)
{
	int64_t end = clock_now() + 30 * NS_PER_S;

	while (atomic_load(value) != wanted && clock_now() < end)
		clock_sleep_until(clock_now() + NS_PER_MS);
	assert_int_equal(atomic_load(value), wanted);
}

#define SLEEPERS 200

struct sleeper {
	struct loop_task task;
	int64_t at;
	bool in_time;
};

static struct sleeper sleeper[SLEEPERS];
static _Atomic int woken_up, out_of_order;
static _Atomic int64_t last_at;

static void sleep_once(void *arg)
{
	struct sleeper *s = arg;

	s->in_time = loop_wait(s->at, true);
	if (clock_now() < s->at || s->at < atomic_exchange(&last_at, s->at))
		atomic_fetch_add(&out_of_order, 1);
	atomic_fetch_add(&woken_up, 1);
}

static void spawn_sleeper(struct loop_task *t)
{
	assert_int_equal(loop_spawn(loop_self(), sleep_once, t), PD_OK);
}

static void sleepers_wake_in_order_and_never_early(void **state)
{
	struct loop *l = start(SLEEPERS);
	int64_t base = clock_now() + 500 * NS_PER_MS; /* all lie down before the first wakes */
	struct rng rng;

	(void)state;
	rng_seed(&rng, 7);
	atomic_store(&woken_up, 0);
	atomic_store(&out_of_order, 0);
	atomic_store(&last_at, 0);
	for (int i = 0; i < SLEEPERS; i++) {
		/* so far apart that a late wake-up of the whole loop cannot mix them up */
		sleeper[i].at = base + (int64_t)(rng_u64(&rng) % 1000) * 100 * NS_PER_US;
		sleeper[i].task.run = spawn_sleeper;
		loop_post(l, &sleeper[i].task);
	}
	until(&woken_up, SLEEPERS);
	assert_int_equal(atomic_load(&out_of_order), 0);
	for (int i = 0; i < SLEEPERS; i++)
		assert_false(sleeper[i].in_time);
	stop(l);
}

/* -- waking -- */

static struct fiber *_Atomic waits;
static _Atomic int outcome, waker_ran;

static void wait_long(void *arg)
{
	bool exact = arg != NULL;

	atomic_store(&waits, loop_fiber());
	atomic_store(&outcome, loop_wait(clock_now() + 600 * NS_PER_S, exact) ? 1 : 2);
}

static void wait_short(void *arg)
{
	(void)arg;
	atomic_store(&outcome, loop_wait(clock_now() + 30 * NS_PER_MS, false) ? 1 : 2);
}

struct kind {
	struct loop_task task; /* first member */
	size_t kind;
};

static void spawn_kind(struct loop_task *t)
{
	static void (*const what[])(void *) = {wait_long, wait_long, wait_short};
	struct kind *k = (struct kind *)t;

	assert_int_equal(loop_spawn(loop_self(), what[k->kind], k->kind == 1 ? k : NULL), PD_OK);
}

static void wake_it(struct loop_task *t)
{
	struct fiber *f = atomic_load(&waits);

	(void)t;
	for (int i = 0; f && i < 2; i++) /* twice is once */
		loop_wake(f);
	atomic_fetch_add(&waker_ran, 1);
}

static void a_wait_ends_by_waking_or_by_its_deadline(void **state)
{
	struct loop *l = start(4);
	struct loop_task waker = {.run = wake_it};
	struct kind kind = {.task.run = spawn_kind};

	(void)state;
	for (kind.kind = 0; kind.kind < 2; kind.kind++) {
		atomic_store(&waits, NULL);
		atomic_store(&outcome, 0);
		atomic_store(&waker_ran, 0);
		loop_post(l, &kind.task);
		loop_post(l, &waker); /* before it waits: there is nothing to wake */
		until(&waker_ran, 1);
		for (int tries = 1; atomic_load(&outcome) == 0; tries++) {
			clock_sleep_until(clock_now() + NS_PER_MS);
			loop_post(l, &waker);
			until(&waker_ran, tries + 1);
		}
		until(&outcome, 1);
	}
	atomic_store(&outcome, 0);
	loop_post(l, &kind.task);
	until(&outcome, 2);
	stop(l);
}

/* -- bounds and ends -- */

static _Atomic int spawned, refused;

static void wait_for_ever(void *arg)
{
	(void)arg;
	(void)loop_wait(CLOCK_NEVER, false);
}

static void spawn_five(struct loop_task *t)
{
	(void)t;
	for (int i = 0; i < 5; i++)
		atomic_fetch_add(loop_spawn(loop_self(), wait_for_ever, NULL) ? &refused : &spawned,
				 1);
}

static _Atomic int released;

static void release_local(void *local)
{
	free(local);
	atomic_fetch_add(&released, 1);
}

static void set_local_and_wait(void *arg)
{
	(void)arg;
	assert_null(fiber_local(loop_fiber()));
	fiber_set_local(loop_fiber(), malloc(10), release_local);
	atomic_fetch_add(&spawned, 1);
	(void)loop_wait(CLOCK_NEVER, true);
}

static void spawn_local(struct loop_task *t)
{
	(void)t;
	assert_int_equal(loop_spawn(loop_self(), set_local_and_wait, NULL), PD_OK);
}

static void fibers_are_bounded_and_a_stopped_loop_drops_them(void **state)
{
	struct loop *l = start(3);
	struct loop_task t = {.run = spawn_five}, late = {.run = spawn_five};
	struct loop_stats stats;

	(void)state;
	atomic_store(&spawned, 0);
	atomic_store(&refused, 0);
	loop_post(l, &t);
	until(&refused, 2);
	assert_int_equal(atomic_load(&spawned), 3);
	loop_stats(l, &stats);
	assert_int_equal(stats.fibers, 3);
	assert_int_equal(stats.failures, 2);
	stop(l);
	l = start(3);
	atomic_store(&spawned, 0);
	atomic_store(&released, 0);
	late.run = spawn_local;
	loop_post(l, &late);
	until(&spawned, 1);
	stop(l);
	assert_int_equal(atomic_load(&released), 1);
}

static _Atomic int ran_here;
static _Atomic bool on_loop;

static void note(struct loop_task *t)
{
	(void)t;
	atomic_store(&on_loop, loop_self() != NULL);
	atomic_fetch_add(&ran_here, 1);
}

static void posted_work_is_never_lost(void **state)
{
	struct loop_task t[64] = {{.run = note}};
	struct loop *l = start(1);

	(void)state;
	atomic_store(&ran_here, 0);
	for (size_t i = 0; i < 63; i++) {
		t[i].run = note;
		loop_post(l, &t[i]);
	}
	assert_true(loop_stop(l, clock_now() + 20 * NS_PER_S));
	assert_int_equal(atomic_load(&ran_here), 63);
	assert_true(atomic_load(&on_loop));
	t[63].run = note;
	loop_post(l, &t[63]); /* nobody is there: it runs on this thread */
	assert_int_equal(atomic_load(&ran_here), 64);
	assert_false(atomic_load(&on_loop));
	loop_free(l);
}

static void *poster(void *arg)
{
	static _Thread_local struct loop_task t[500];
	struct loop *l = arg;

	for (size_t i = 0; i < 500; i++) {
		t[i].run = note;
		loop_post(l, &t[i]);
	}
	return NULL;
}

static void many_threads_post(void **state)
{
	struct loop *l = start(1);
	pthread_t thread[4];

	(void)state;
	atomic_store(&ran_here, 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, poster, l), 0);
	/* a task lives until it ran */
	until(&ran_here, 2000);
	for (int i = 0; i < 4; i++)
		(void)pthread_join(thread[i], NULL);
	stop(l);
}

static void every_loop_has_a_number_of_its_own(void **state)
{
	struct loop *l[LOOPS_MAX + 1] = {NULL};
	struct loop_config cfg = {.name = "test", .stack_bytes = 65536, .max_fibers = 1};
	bool seen[LOOPS_MAX] = {false};

	(void)state;
	for (size_t i = 0; i < LOOPS_MAX; i++) {
		l[i] = start(1);
		assert_true(loop_index(l[i]) < LOOPS_MAX);
		assert_false(seen[loop_index(l[i])]);
		seen[loop_index(l[i])] = true;
	}
	assert_int_equal(loop_start(&l[LOOPS_MAX], &cfg), PD_EBUSY);
	for (size_t i = 0; i < LOOPS_MAX; i++)
		stop(l[i]);
	stop(start(1));
}

/* -- buffers that are lent -- */

static void lent_buffers(void **state)
{
	struct buf a, b, small;
	char *first;

	(void)state;
	buf_init(&a, 64u << 20);
	buf_init(&b, 64u << 20);
	buf_init(&small, 100);
	assert_int_equal(shelf_take(&small), PD_ETOOBIG);
	assert_int_equal(shelf_take(&a), PD_OK);
	first = a.data;
	assert_int_equal(buf_puts(&a, "text"), PD_OK);
	shelf_give(&a); /* something is in it: it stays */
	assert_ptr_equal(a.data, first);
	buf_clear(&a);
	shelf_give(&a);
	assert_null(a.data);
	assert_int_equal(shelf_take(&b), PD_OK);
	assert_ptr_equal(b.data, first);
	/* A large one is found again by whoever outgrows his own, with his bytes in it. */
	assert_int_equal(buf_reserve(&b, 5u << 20), PD_OK);
	buf_clear(&b);
	shelf_give(&b);
	assert_null(b.data);
	assert_int_equal(buf_puts(&a, "kept"), PD_OK);
	assert_false(shelf_grow(&a, 32u << 20));
	assert_true(shelf_grow(&a, 1u << 20));
	assert_string_equal(a.data, "kept");
	assert_true(a.cap > 5u << 20);
	assert_false(shelf_grow(&b, 10));
	/* More than is kept is freed, and the smallest goes first. */
	buf_clear(&a);
	shelf_give(&a);
	for (size_t i = 0; i < 8; i++) {
		assert_int_equal(buf_reserve(&b, (size_t)(i + 1) << 20), PD_OK);
		shelf_give(&b);
		assert_null(b.data);
	}
	assert_true(shelf_grow(&a, 7u << 20));
	buf_release(&a);
	shelf_clear();
	assert_false(shelf_grow(&a, 10));
}

/* -- contracts: what only the loop's own thread may do -- */

static void spawn_from_outside(struct loop *l)
{
	(void)!loop_spawn(l, wait_for_ever, NULL);
}

static void wait_without_a_fiber(struct loop *l)
{
	(void)l;
	(void)loop_wait(clock_now(), false);
}

static void watch_from_outside(struct loop *l)
{
	struct loop_watch w = {.notify = NULL};

	(void)!loop_watch(l, 0, &w);
}

static void checks_find_a_wrong_thread(void **state)
{
	static void (*const wrong[])(struct loop *) = {spawn_from_outside, wait_without_a_fiber,
						       watch_from_outside};

	(void)state;
#ifndef PD_CHECKS
	skip();
#endif
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		int status = 0;
		pid_t child = fork();

		if (child == 0) {
			(void)close(STDERR_FILENO);
			(void)signal(SIGABRT, SIG_DFL);
			wrong[i](start(1));
			_exit(0);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fibers_keep_what_is_theirs),
		cmocka_unit_test(an_overflow_is_a_fault),
		cmocka_unit_test(sleepers_wake_in_order_and_never_early),
		cmocka_unit_test(a_wait_ends_by_waking_or_by_its_deadline),
		cmocka_unit_test(fibers_are_bounded_and_a_stopped_loop_drops_them),
		cmocka_unit_test(posted_work_is_never_lost),
		cmocka_unit_test(many_threads_post),
		cmocka_unit_test(every_loop_has_a_number_of_its_own),
		cmocka_unit_test(lent_buffers),
		cmocka_unit_test(checks_find_a_wrong_thread),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
