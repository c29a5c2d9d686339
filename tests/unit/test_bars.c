/* Bars and sparklines: what shows, what is blank, and that widths are kept. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lib/base/bars.h"

static size_t columns(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void test_sparks(void **state)
{
	const double v[] = {0, 1, 2, 4, 8, NAN, INFINITY, -1, 16};
	struct buf b;

	(void)state;
	buf_init(&b, 1000);
	assert_int_equal(bars_spark(v, 9, 0, true, &b), PD_OK);
	assert_string_equal(b.data, "__.:=   #");
	buf_clear(&b);
	assert_int_equal(bars_spark(v, 9, 8, false, &b), PD_OK);
	assert_string_equal(b.data, "▁▂▃▅█   █");
	buf_clear(&b);
	assert_int_equal(bars_spark((const double[]){0, 0}, 2, 0, true, &b), PD_OK);
	assert_string_equal(b.data, "__");
	buf_clear(&b);
	assert_int_equal(bars_spark((const double[]){NAN, NAN}, 2, NAN, true, &b), PD_OK);
	assert_string_equal(b.data, "  ");
	buf_release(&b);
	buf_init(&b, 4);
	assert_int_equal(bars_spark(v, 9, 0, false, &b), PD_ETOOBIG);
	buf_release(&b);
}

static void test_bars(void **state)
{
	const double shares[] = {0, 1e-9, 0.1, 0.24, 0.5,      0.999,
				 1, 2,	  -1,  NAN,  INFINITY, -INFINITY};
	struct buf b;

	(void)state;
	buf_init(&b, 1000);
	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		for (int ascii = 0; ascii < 2; ascii++) {
			buf_clear(&b);
			assert_int_equal(bars_bar(shares[i], 10, ascii, &b), PD_OK);
			assert_int_equal(columns(b.data), 10);
			assert_int_equal(b.data[0] != ' ', isfinite(shares[i]) && shares[i] > 0);
		}
	}
	buf_clear(&b);
	assert_int_equal(bars_bar(0.55, 10, false, &b), PD_OK);
	assert_string_equal(b.data, "█████▌    ");
	buf_clear(&b);
	assert_int_equal(bars_bar(0.55, 10, true, &b), PD_OK);
	assert_string_equal(b.data, "#####=    ");
	buf_release(&b);
}

static void test_counts(void **state)
{
	const double v[] = {1, 10, 100, 100, -5, 0, NAN, INFINITY, 1000};
	double count[3], lo = -1, hi = -1;

	(void)state;
	assert_int_equal(bars_count(v, 9, count, 3, &lo, &hi), 5);
	assert_true(lo == 1 && hi == 1000);
	assert_true(count[0] == 1 && count[1] == 1 && count[2] == 3);
	assert_int_equal(bars_count(v, 1, count, 3, &lo, &hi), 1);
	assert_true(lo == 1 && hi == 1 && count[0] == 1 && count[1] == 0);
	lo = -1;
	assert_int_equal(bars_count(v + 4, 3, count, 3, &lo, &hi), 0);
	assert_true(lo == -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sparks),
		cmocka_unit_test(test_bars),
		cmocka_unit_test(test_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
