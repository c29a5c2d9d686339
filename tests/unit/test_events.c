/* The event queue of the simulator: time, then kind, then insertion. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lib/base/rng.h"
#include "sim/replay/events.h"

static void test_events_are_ordered_and_stable(void **state)
{
	struct events q;
	struct event e, last = {.at = -1};
	struct rng rng;

	(void)state;
	events_init(&q, 1000);
	rng_seed(&rng, 7);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(
			events_push(&q, &(struct event){.at = (int64_t)rng_below(&rng, 50),
							.kind = (uint32_t)rng_below(&rng, 3),
							.subject = i}),
			PD_OK);
	assert_int_equal(events_push(&q, &(struct event){.at = 1}), PD_ETOOBIG);
	for (unsigned i = 0; i < 1000; i++) {
		assert_ptr_equal(events_peek(&q), &q.heap[0]);
		assert_true(events_pop(&q, &e));
		assert_true(e.at > last.at || (e.at == last.at &&
					       (e.kind > last.kind || (e.kind == last.kind &&
								       e.subject > last.subject))));
		last = e;
	}
	assert_false(events_pop(&q, &e));
	assert_null(events_peek(&q));
	events_release(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_events_are_ordered_and_stable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
