/* The chunked decoder: valid bodies cut everywhere give one payload; everything else is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/buf.h"
#include "lib/http/chunk.h"

/* Feeds all of text in pieces of `step` bytes after a first piece; the payload is appended to out.
 * Returns the verdict; *used counts taken bytes. */
static int decode(struct http_chunked *c, const char *text, size_t n, size_t first, size_t step,
		  struct buf *out, size_t *used)
{
	size_t at = 0, have = first, took;
	struct span payload;
	int err;

	http_chunked_init(c);
	buf_clear(out);
	while (at < n && !c->done) {
		have = have > n ? n : have;
		while (at < have && !c->done) {
			err = http_chunked_feed(c, text + at, have - at, &took, &payload);
			if (err)
				return err;
			assert_true(took > 0 && took <= have - at);
			assert_true(payload.n == 0 || (payload.p >= text + at &&
						       payload.p + payload.n <= text + at + took));
			assert_int_equal(buf_append(out, payload.p, payload.n), PD_OK);
			at += took;
		}
		have += step;
	}
	*used = at;
	return PD_OK;
}

struct good {
	const char *text, *payload, *rest;
};

static const struct good good[] = {
	{"0\r\n\r\n", "", ""},
	{"5\r\nhello\r\n0\r\n\r\n", "hello", ""},
	{"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET / HTTP/1.1\r\n", "hello world",
	 "GET / HTTP/1.1\r\n"},
	{"A\r\n0123456789\r\n0a\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n",
	 "0123456789\r\n\r\n\r\n\r\n\r\n", ""},
	{"0000000000000003\r\nabc\r\n0000\r\n\r\n", "abc", ""},
	{"3;name=value;other=\"quoted text\"\r\nabc\r\n0;last\r\n\r\n", "abc", ""},
	{"3;a=\"\";b=\"\\\"\\\\;\"\r\nabc\r\n0\r\n\r\n", "abc", ""},
	{"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Empty:\r\n\r\n", "abc", ""},
};

static void valid_bodies_in_any_pieces(void **state)
{
	struct http_chunked c;
	struct buf out;
	size_t used;

	(void)state;
	buf_init(&out, 4096);
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		size_t n = strlen(good[i].text);

		for (size_t first = 1; first <= n; first++)
			for (size_t step = 1; step <= n; step += step < 4 ? 1 : n) {
				if (decode(&c, good[i].text, n, first, step, &out, &used))
					fail_msg("body %zu refused at first %zu step %zu", i, first,
						 step);
				assert_true(c.done);
				assert_true(span_eq(buf_span(&out), span_of(good[i].payload)));
				assert_string_equal(good[i].text + used, good[i].rest);
			}
	}
	buf_release(&out);
}

static const char *const bad[] = {
	"\r\n",
	"g\r\n",
	"-1\r\n",
	"+1\r\n",
	"0x5\r\nhello\r\n",
	" 5\r\nhello\r\n",
	"5 \r\nhello\r\n",
	"5\t;x\r\nhello\r\n",
	"5\nhello\r\n",
	"5\rhello\r\n",
	"5;ext\nhello\r\n",
	"5;ext\rhello\r\n",
	"5;e\x01t\r\nhello\r\n",
	"5;\r\nhello\r\n",
	"5;;x\r\nhello\r\n",
	"5;=x\r\nhello\r\n",
	"5;x=\r\nhello\r\n",
	"5; x\r\nhello\r\n",
	"5;x \r\nhello\r\n",
	"5;x=\"y\r\nhello\r\n",
	"5;x=\"y\"z\r\nhello\r\n",
	"5;x=y\"\r\nhello\r\n",
	"5;x=\"\\\r\nhello\r\n",
	"5,5\r\nhello\r\n",
	"5\r\nhello0\r\n\r\n",
	"5\r\nhello\n0\r\n\r\n",
	"5\r\nhello\r0\r\n\r\n",
	"5\r\nhello!\r\n",
	"8000000000000000\r\n",
	"ffffffffffffffff\r\n",
	"10000000000000005\r\nhello\r\n",
	"00000000000000005\r\nhello\r\n",
	"0\r\n\n",
	"0\n\r\n",
	"0\r\nX: y\n\r\n",
	"0\r\nX: y\rz\r\n\r\n",
	"0\r\nX : y\r\n\r\n",
	"0\r\n: y\r\n\r\n",
	"0\r\n X: y\r\n\r\n",
	"0\r\nX: y\r\n folded\r\n\r\n",
	"0\r\nX\r\n\r\n",
	"0\r\nX: \x02\r\n\r\n",
};

static void invalid_bodies_are_refused(void **state)
{
	struct http_chunked c;
	struct buf out;
	size_t used;

	(void)state;
	buf_init(&out, 4096);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		size_t n = strlen(bad[i]);

		for (size_t first = 1; first <= n; first++)
			if (decode(&c, bad[i], n, first, 1, &out, &used) != PD_EPROTO)
				fail_msg("body %zu accepted when cut at %zu", i, first);
	}
	buf_release(&out);
}

static void a_nul_in_the_framing_is_refused(void **state)
{
	static const char text[] = "3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n";
	char copy[sizeof(text)];
	struct http_chunked c;
	struct buf out;
	size_t used;

	(void)state;
	buf_init(&out, 4096);
	for (size_t i = 0; i + 1 < sizeof(text); i++) {
		bool payload = i >= 7 && i < 10;

		memcpy(copy, text, sizeof(text));
		copy[i] = '\0';
		assert_int_equal(decode(&c, copy, sizeof(text) - 1, 1, 1, &out, &used),
				 payload ? PD_OK : PD_EPROTO);
	}
	buf_release(&out);
}

/* head + n times 'x' + tail. */
static void fill(struct buf *b, const char *head, size_t n, const char *tail)
{
	buf_clear(b);
	assert_int_equal(buf_puts(b, head), PD_OK);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(buf_putc(b, 'x'), PD_OK);
	assert_int_equal(buf_puts(b, tail), PD_OK);
}

static void limits_hold_exactly(void **state)
{
	const size_t trailer = HTTP_CHUNK_TRAILER_MAX - strlen("a:\r\r");
	struct http_chunked c;
	struct buf text, out;
	size_t used;

	(void)state;
	buf_init(&text, 1 << 16);
	buf_init(&out, 4096);
	fill(&text, "0;", HTTP_CHUNK_EXT_MAX, "\r\n\r\n");
	assert_int_equal(decode(&c, text.data, text.len, text.len, 1, &out, &used), PD_OK);
	fill(&text, "0;", HTTP_CHUNK_EXT_MAX + 1, "\r\n\r\n");
	assert_int_equal(decode(&c, text.data, text.len, text.len, 1, &out, &used), PD_EPROTO);
	fill(&text, "0\r\na:", trailer, "\r\n\r\n");
	assert_int_equal(decode(&c, text.data, text.len, text.len, 1, &out, &used), PD_OK);
	assert_true(c.done);
	fill(&text, "0\r\na:", trailer + 1, "\r\n\r\n");
	assert_int_equal(decode(&c, text.data, text.len, text.len, 1, &out, &used), PD_EPROTO);
	buf_release(&text);
	buf_release(&out);
}

static void boundaries_and_long_chunks(void **state)
{
	struct http_chunked c;
	struct span payload;
	size_t used;

	(void)state;
	http_chunked_init(&c);
	assert_true(http_chunked_at_boundary(&c));
	assert_int_equal(http_chunked_feed(&c, "2\r\nab", 5, &used, &payload), PD_OK);
	assert_int_equal(payload.n, 2);
	assert_false(http_chunked_at_boundary(&c));
	assert_int_equal(http_chunked_feed(&c, "\r\n", 2, &used, &payload), PD_OK);
	assert_true(http_chunked_at_boundary(&c));
	/* the largest size is counted, not added to anything */
	assert_int_equal(http_chunked_feed(&c, "7fffffffffffffff\r\nxyz", 21, &used, &payload),
			 PD_OK);
	assert_int_equal(used, 21);
	assert_int_equal(payload.n, 3);
	assert_int_equal(c.left, INT64_MAX - 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_bodies_in_any_pieces),
		cmocka_unit_test(invalid_bodies_are_refused),
		cmocka_unit_test(a_nul_in_the_framing_is_refused),
		cmocka_unit_test(limits_hold_exactly),
		cmocka_unit_test(boundaries_and_long_chunks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
