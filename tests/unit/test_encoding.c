/* Bodies in each encoding that Python's json.loads finds, and what fits none. The other side of the
 * comparison, Python itself, is in tests/blackbox/test_pd_alone.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/err.h"
#include "lib/json/encoding.h"

#define TEXT(s) s, sizeof(s) - 1

static const struct {
	const char *doc;
	size_t n;
	const char *text; /* NULL: refused */
} table[] = {
	{TEXT(""), ""},
	{TEXT("{}"), "{}"},
	{TEXT("{\"\xc3\xa9\":1}"), "{\"\xc3\xa9\":1}"},
	{TEXT("\xef\xbb\xbf{}"), "{}"},
	{TEXT("\xef\xbb\xbf"), ""},
	{TEXT("\xef\xbb"), "\xef\xbb"},
	/* with a mark */
	{TEXT("\xff\xfe{\0}\0"), "{}"},
	{TEXT("\xfe\xff\0{\0}"), "{}"},
	{TEXT("\xff\xfe\0\0{\0\0\0}\0\0\0"), "{}"},
	{TEXT("\0\0\xfe\xff\0\0\0{\0\0\0}"), "{}"},
	{TEXT("\xff\xfe"), ""},
	/* by the first zero bytes */
	{TEXT("{\0}\0"), "{}"},
	{TEXT("\0{\0}"), "{}"},
	{TEXT("{\0\0\0}\0\0\0"), "{}"},
	{TEXT("\0\0\0{\0\0\0}"), "{}"},
	{TEXT("1\0"), "1"},
	{TEXT("\0001"), "1"},
	/* one, two, three and four bytes of UTF-8 */
	{TEXT("\xff\xfe\x7f\0\x80\0\xff\x07\0\x08\xac\x20\x3d\xd8\0\xde"),
	 "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xe2\x82\xac\xf0\x9f\x98\x80"},
	{TEXT("\0\0\xfe\xff\0\x01\xf6\0\0\x10\xff\xff"), "\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf"},
	/* cut, alone, or beyond Unicode */
	{TEXT("\xff\xfe{"), NULL},
	{TEXT("\xff\xfe\0\0{\0\0"), NULL},
	{TEXT("\xff\xfe\x3d\xd8"), NULL},
	{TEXT("\xff\xfe\x3d\xd8x\0"), NULL},
	{TEXT("\xff\xfe\0\xde"), NULL},
	{TEXT("\0\0\xfe\xff\0\x11\0\0"), NULL},
	{TEXT("\0\0\xfe\xff\0\0\xd8\0"), NULL},
};

static void each_encoding(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct span text;
		struct buf own = {0};
		int err = json_text_utf8((struct span){table[i].doc, table[i].n}, &own, &text);

		if ((err == PD_OK) != (table[i].text != NULL))
			print_error("row %zu\n", i);
		assert_int_equal(err, table[i].text ? PD_OK : PD_EINVAL);
		if (table[i].text)
			assert_true(span_eq(text, span_of(table[i].text)));
		buf_release(&own);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_encoding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
