/* Shared links by hand: who shares with whom, and until when. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "lib/base/clock.h"
#include "sim/engine/links.h"

static int64_t ended(struct links *l, const void *owner)
{
	int64_t at = links_next(l);
	const void *got;

	while ((got = links_ended(l, at)) == NULL)
		at = links_next(l);
	assert_ptr_equal(got, owner);
	return at;
}

static void test_alone_and_together(void **state)
{
	int a, b, c;
	struct links l;

	(void)state;
	assert_int_equal(links_init(&l, 2, 2), PD_OK);
	assert_int_equal(links_next(&l), CLOCK_NEVER);
	assert_int_equal(links_start(&l, 0, 0, 0, 10, 100, &a), PD_OK);
	assert_int_equal(ended(&l, &a), 110);
	/* Two over one way out: half each until the first ends, then all. */
	assert_int_equal(links_start(&l, 1000, 0, 0, 0, 100, &a), PD_OK);
	assert_int_equal(links_start(&l, 1050, 0, 1, 0, 100, &b), PD_OK);
	assert_int_equal(ended(&l, &a), 1150); /* 50 alone, 50 at half rate */
	assert_int_equal(ended(&l, &b), 1200);
	/* Other nodes do not share. */
	assert_int_equal(links_start(&l, 2000, 0, 0, 0, 100, &a), PD_OK);
	assert_int_equal(links_start(&l, 2000, 1, 1, 0, 100, &b), PD_OK);
	assert_int_equal(ended(&l, &a), 2100);
	assert_int_equal(ended(&l, &b), 2100);
	/* Set-up takes no part of a link; a way in is shared like a way out. */
	assert_int_equal(links_start(&l, 3000, 0, 0, 0, 100, &a), PD_OK);
	assert_int_equal(links_start(&l, 3000, 1, 0, 100, 100, &b), PD_OK);
	assert_int_equal(ended(&l, &a), 3100);
	assert_int_equal(ended(&l, &b), 3200);
	/* What is cancelled gives its share back. */
	assert_int_equal(links_start(&l, 4000, 0, 0, 0, 100, &a), PD_OK);
	assert_int_equal(links_start(&l, 4000, 0, 1, 0, 100, &b), PD_OK);
	assert_int_equal(links_start(&l, 4000, 0, 1, 500, 100, &c), PD_OK);
	links_cancel(&l, 4100, &a);
	assert_int_equal(ended(&l, &b), 4150);
	assert_int_equal(ended(&l, &c), 4600);
	assert_int_equal(links_next(&l), CLOCK_NEVER);
	links_release(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alone_and_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
