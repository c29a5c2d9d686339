/* Trace contexts: which are passed on, and that ours are different each time. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "lib/router/watch/traceparent.h"

#define ID     "0af7651916cd43dd8448eb211c80319c"
#define PARENT "b7ad6b7169203331"
#define GOOD   "00-" ID "-" PARENT "-01"

static bool read_head(struct trace_context *t, struct http_head *h, const char *fields)
{
	static char text[2048];
	size_t scanned = 0;

	(void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n", fields);
	assert_int_equal(http_request_parse(h, text, strlen(text), &scanned), PD_OK);
	return trace_read(t, h);
}

static void a_head_is_read(void **state)
{
	struct trace_context t;
	struct http_head h;

	(void)state;
	assert_true(read_head(&t, &h, "A: b\r\nTRACEPARENT: " GOOD "\r\n"));
	assert_int_equal(t.id.n, 32);
	assert_memory_equal(t.id.p, ID, 32);
	assert_false(t.refused);
	assert_false(read_head(&t, &h, "tracestate: a=1\r\n"));
	assert_false(t.refused);
	assert_int_equal(t.id.n, 0);
	assert_false(read_head(&t, &h, "traceparent:\r\n"));
	assert_true(t.refused);
	assert_false(read_head(&t, &h, "traceparent: " GOOD "\r\ntraceparent: " GOOD "\r\n"));
	assert_true(t.refused);
	assert_int_equal(t.id.n, 0);
}

/* Every byte of a good one, replaced by every other byte. */
static void every_byte_counts(void **state)
{
	char text[TRACEPARENT_LEN + 1];

	(void)state;
	for (size_t i = 0; i < TRACEPARENT_LEN; i++) {
		for (int c = 0; c < 256; c++) {
			bool dash = GOOD[i] == '-', hex = c != 0 && strchr("0123456789abcdef", c);

			memcpy(text, GOOD, sizeof(text));
			text[i] = (char)c;
			assert_int_equal(trace_valid((struct span){text, TRACEPARENT_LEN}),
					 dash ? c == '-' : hex);
		}
	}
	for (size_t n = 0; n < TRACEPARENT_LEN; n++)
		assert_false(trace_valid((struct span){GOOD, n}));
	assert_false(trace_valid(SPAN("ff-" ID "-" PARENT "-01")));
	assert_false(trace_valid(SPAN(GOOD "-")));
	assert_true(trace_valid(SPAN("01-" ID "-" PARENT "-01-")));
	assert_false(trace_valid(SPAN("01-" ID "-" PARENT "-01.")));
}

static void ours_are_valid_and_differ(void **state)
{
	char before[TRACEPARENT_LEN + 1] = "";
	struct trace_context t;
	struct rng rng;

	(void)state;
	rng_seed(&rng, 1);
	for (int i = 0; i < 1000; i++) {
		trace_make(&t, &rng);
		assert_true(trace_valid((struct span){t.text, TRACEPARENT_LEN}));
		assert_ptr_equal(t.id.p, t.text + 3);
		assert_string_equal(t.text + 52, "-01");
		assert_string_not_equal(t.text, before);
		memcpy(before, t.text, sizeof(before));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_head_is_read),
		cmocka_unit_test(every_byte_counts),
		cmocka_unit_test(ours_are_valid_and_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
