/* The queue between requests and the capture's writer: order, bounds, and many producers at once.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/router/capture/capture_ring.h"

#define PRODUCERS 4
#define EACH	  20000

static void put(struct capture_ring *r, uint64_t value, size_t n)
{
	uint64_t *p = capture_ring_reserve(r, n);

	assert_non_null(p);
	assert_int_equal((uintptr_t)p % 8, 0);
	memset(p, 0xee, n); /* nothing that a record holds may look like a header */
	*p = value;
	capture_ring_commit(p);
}

static uint64_t take(struct capture_ring *r, size_t want)
{
	size_t n = 0;
	uint64_t *p = capture_ring_peek(r, capture_ring_mark(r), &n), value;

	assert_non_null(p);
	assert_int_equal(n, want);
	for (size_t i = sizeof(value); i < n; i++)
		assert_int_equal(((unsigned char *)p)[i], 0xee);
	value = *p;
	capture_ring_pop(r);
	return value;
}

static bool empty(struct capture_ring *r)
{
	size_t n;

	return capture_ring_peek(r, capture_ring_mark(r), &n) == NULL;
}

/* Every length from 8 on, many times around: what goes in comes out, in order. */
static void test_order_and_wrap(void **state)
{
	struct capture_ring r;
	uint64_t in = 0, out = 0;

	(void)state;
	assert_int_equal(capture_ring_init(&r, 1, 1000), 0);
	assert_int_equal(r.size, CAPTURE_RING_MIN);
	for (int round = 0; round < 500; round++) {
		for (size_t k = 0; k < 7; k++, in++)
			put(&r, in, 8 + in * 37 % 5000);
		for (size_t k = 0; k < 7; k++, out++)
			assert_int_equal(take(&r, 8 + out * 37 % 5000), out);
	}
	assert_true(empty(&r));
	assert_int_equal(capture_ring_used(&r), 0);
	capture_ring_release(&r);
}

static void test_full(void **state)
{
	struct capture_ring r;
	unsigned n = 0;
	uint64_t *p;

	(void)state;
	assert_int_equal(capture_ring_init(&r, CAPTURE_RING_MIN, 100000), 0);
	assert_null(capture_ring_reserve(&r, capture_ring_largest(&r) + 1));
	assert_null(capture_ring_reserve(&r, SIZE_MAX - 100));
	while ((p = capture_ring_reserve(&r, 1000)) != NULL) {
		*p = n++;
		capture_ring_commit(p);
	}
	assert_int_equal(n, CAPTURE_RING_MIN / 1024);
	assert_int_equal(capture_ring_used(&r), CAPTURE_RING_MIN);
	/* One record's room is enough for one record, and no more. */
	p = capture_ring_peek(&r, capture_ring_mark(&r), &(size_t){0});
	assert_int_equal(*p, 0);
	capture_ring_pop(&r);
	put(&r, 7, 1000);
	assert_null(capture_ring_reserve(&r, 1));
	capture_ring_release(&r);
}

static void test_records_max(void **state)
{
	struct capture_ring r;

	(void)state;
	assert_int_equal(capture_ring_init(&r, CAPTURE_RING_MIN, 3), 0);
	for (uint64_t i = 0; i < 3; i++)
		put(&r, i, 8);
	assert_null(capture_ring_reserve(&r, 8));
	assert_int_equal(take(&r, 8), 0);
	put(&r, 3, 8);
	assert_null(capture_ring_reserve(&r, 8));
	capture_ring_release(&r);
}

/* What was reserved first comes out first, even when it is committed last; nothing after a mark is
 * seen. */
static void test_commit_order_and_mark(void **state)
{
	struct capture_ring r;
	uint64_t *first, *second, mark;
	size_t n;

	(void)state;
	assert_int_equal(capture_ring_init(&r, CAPTURE_RING_MIN, 10), 0);
	first = capture_ring_reserve(&r, 8);
	second = capture_ring_reserve(&r, 8);
	*first = 1;
	*second = 2;
	mark = capture_ring_mark(&r);
	capture_ring_commit(second);
	assert_true(empty(&r));
	capture_ring_commit(first);
	put(&r, 3, 8);
	for (uint64_t i = 1; i <= 2; i++) {
		assert_int_equal(*(uint64_t *)capture_ring_peek(&r, mark, &n), i);
		capture_ring_pop(&r);
	}
	assert_null(capture_ring_peek(&r, mark, &n));
	assert_int_equal(take(&r, 8), 3);
	capture_ring_release(&r);
}

/* A place that was used before reads as empty, whatever stood there and wherever records began. */
static void test_nothing_shines_through(void **state)
{
	struct capture_ring r;

	(void)state;
	assert_int_equal(capture_ring_init(&r, CAPTURE_RING_MIN, 10), 0);
	for (size_t i = 0; i < 2000; i++) {
		put(&r, i, 8 + i % 7 * 100);
		assert_int_equal(take(&r, 8 + i % 7 * 100), i);
	}
	for (size_t i = 0; i < 300; i++) {
		void *record = capture_ring_reserve(&r, 40 + i % 5 * 16);

		assert_true(empty(&r));
		memset(record, 0xee, 40 + i % 5 * 16);
		assert_true(empty(&r));
		*(uint64_t *)record = i;
		capture_ring_commit(record);
		assert_int_equal(take(&r, 40 + i % 5 * 16), i);
	}
	capture_ring_release(&r);
}

struct producer {
	struct capture_ring *ring;
	_Atomic int *running;
	uint64_t id, lost;
};

static void *produce(void *arg)
{
	struct producer *p = arg;

	for (uint64_t i = 0; i < EACH; i++) {
		size_t n = 16 + (i * 31 + p->id) % 300;
		uint64_t *record = capture_ring_reserve(p->ring, n);

		if (!record) {
			p->lost++;
			(void)sched_yield();
			continue;
		}
		memset(record, (int)(i & 0xff), n);
		record[0] = p->id;
		record[1] = i;
		capture_ring_commit(record);
	}
	(*p->running)--;
	return NULL;
}

/* One consumer against four producers over a ring that is often full: each producer's records come
 * in its order and undamaged, and what did not come was counted. */
static void test_threads(void **state)
{
	struct capture_ring r;
	struct producer p[PRODUCERS];
	pthread_t thread[PRODUCERS];
	uint64_t next[PRODUCERS] = {0}, got[PRODUCERS] = {0}, lost = 0, total = 0;
	_Atomic int running = PRODUCERS;
	size_t n;

	(void)state;
	assert_int_equal(capture_ring_init(&r, CAPTURE_RING_MIN, 200), 0);
	for (uint64_t i = 0; i < PRODUCERS; i++) {
		p[i] = (struct producer){&r, &running, i, 0};
		assert_int_equal(pthread_create(&thread[i], NULL, produce, &p[i]), 0);
	}
	for (bool last = false;;) {
		uint64_t *record = capture_ring_peek(&r, capture_ring_mark(&r), &n);

		if (!record && last)
			break;
		if (!record) {
			last = running == 0;
			(void)sched_yield();
			continue;
		}
		assert_true(record[0] < PRODUCERS);
		assert_true(record[1] >= next[record[0]]);
		assert_int_equal(n, 16 + (record[1] * 31 + record[0]) % 300);
		for (size_t i = 16; i < n; i++)
			assert_int_equal(((unsigned char *)record)[i], record[1] & 0xff);
		next[record[0]] = record[1] + 1;
		got[record[0]]++;
		total++;
		capture_ring_pop(&r);
	}
	for (int i = 0; i < PRODUCERS; i++) {
		assert_int_equal(pthread_join(thread[i], NULL), 0);
		assert_int_equal(got[i] + p[i].lost, EACH);
		lost += p[i].lost;
	}
	assert_int_equal(total + lost, (uint64_t)PRODUCERS * EACH);
	assert_int_equal(r.records, 0);
	capture_ring_release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_and_wrap),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_records_max),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_commit_order_and_mark),
		cmocka_unit_test(test_nothing_shines_through),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
