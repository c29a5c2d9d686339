/* Events: their ends found from behind, and a reader whose answer does not depend on how the bytes
 * arrived. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/http/sse.h"

struct ends {
	const char *text;
	size_t complete;
};

static const struct ends ends[] = {
	{"", 0},
	{"data: a", 0},
	{"data: a\n", 0},
	{"data: a\n\n", 9},
	{"data: a\n\ndata: b", 9},
	{"data: a\n\ndata: b\n", 9},
	{"data: a\n\ndata: b\n\n", 18},
	{"data: a\r\n", 0},
	{"data: a\r\n\r", 10},
	{"data: a\r\n\r\n", 11},
	{"data: a\r\n\r\nd", 11},
	{"data: a\r\r", 9},
	{"data: a\r\rdata", 9},
	{"data: a\n\r\n", 10},
	{"data: a\r\n\n", 10},
	{"data: a\r\r\n", 10},
	{"data: a\r", 0},
	{"\n", 1},
	{"\r\n", 2},
	{"\r", 1},
	{": ping\n\n", 8},
	{"data: a\n\n\n", 10},
	{"data: a\ndata: b\n", 0},
};

static void ends_are_found(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		size_t n = strlen(ends[i].text);

		if (sse_complete(ends[i].text, n) != ends[i].complete)
			fail_msg("case %zu: %zu", i, sse_complete(ends[i].text, n));
	}
}

static const struct ends comments[] = {
	{"", 0},	  {":", 0},
	{": ping", 0},	  {": ping\n", 7},
	{":\n", 2},	  {": ping\r\n", 8},
	{": ping\r", 7},  {": a\n: b\n: c", 8},
	{": a\n\n", 4},	  {": a\ndata: b\n", 4},
	{"data: a\n", 0}, {" : a\n", 0},
};

static void comments_are_found(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(comments) / sizeof(comments[0]); i++) {
		size_t n = strlen(comments[i].text);

		if (sse_comments(comments[i].text, n) != comments[i].complete)
			fail_msg("case %zu: %zu", i, sse_comments(comments[i].text, n));
	}
}

/* Looking only at new bytes finds the same ends as looking at everything. */
static void looking_from_the_middle(void **state)
{
	static const char text[] = "data: a\r\n\r\ndata: b\n\n\r\ndata: c\r\rdata: d\n\r\n";

	(void)state;
	for (size_t from = 0; from < sizeof(text); from++)
		for (size_t n = from; n < sizeof(text); n++) {
			size_t all = sse_complete(text, n);

			assert_int_equal(sse_complete_from(text, n, from), all > from ? all : 0);
		}
}

/* Events as "event|data;" into out. */
static void drain(struct sse_reader *r, struct buf *out)
{
	struct sse_event e;

	while (sse_reader_next(r, &e)) {
		assert_true(e.raw.n > e.data.n);
		assert_int_equal(buf_append(out, e.event.p, e.event.n), PD_OK);
		assert_int_equal(buf_putc(out, '|'), PD_OK);
		assert_int_equal(buf_append(out, e.data.p, e.data.n), PD_OK);
		assert_int_equal(buf_putc(out, ';'), PD_OK);
	}
}

struct stream {
	const char *text, *events;
	size_t pending;
};

static const struct stream streams[] = {
	{"data: {\"a\":1}\n\ndata: [DONE]\n\n", "|{\"a\":1};|[DONE];", 0},
	{"event: error\ndata: x\n\n", "error|x;", 0},
	{"data: a\ndata:b\ndata:  c\n\n", "|a\nb\n c;", 0},
	{"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", "|a\nb;|c;", 0},
	{"data: a\rdata: b\r\rdata: c\r\r", "|a\nb;|c;", 0},
	{": comment\n\n: another\ndata: a\n\n", "|a;", 0},
	{"event: only\n\ndata: a\n\n", "|a;", 0},
	{"\n\n\ndata: a\n\n\n\n", "|a;", 0},
	{"data\n\n", "|;", 0},
	{"data:\ndata\n\n", "|\n;", 0},
	{"\xef\xbb\xbf"
	 "data: a\n\n",
	 "|a;", 0},
	{"id: 1\nretry: 5\ndatax: no\ndata : no\ndata: a:b: c\n\n", "|a:b: c;", 0},
	{"data: a\n\ndata: half", "|a;", 10},
	{"data: a\n\nevent: x\ndata: half\n", "|a;", 20},
};

static void check_stream(const struct stream *s, size_t first, size_t step)
{
	size_t n = strlen(s->text), at = 0, take = first;
	struct sse_reader r;
	struct buf out;

	buf_init(&out, 4096);
	sse_reader_init(&r, 64);
	while (at < n) {
		/* exact copies, so that a read beyond what was fed is seen by the sanitizer */
		size_t k = take < n - at ? take : n - at;
		char *piece = malloc(k);

		assert_non_null(piece);
		memcpy(piece, s->text + at, k);
		assert_int_equal(sse_reader_feed(&r, piece, k), PD_OK);
		free(piece);
		at += k;
		take = step;
		drain(&r, &out);
	}
	if (!span_eq(buf_span(&out), span_of(s->events)))
		fail_msg("first %zu step %zu: got %s, not %s", first, step,
			 out.data ? out.data : "", s->events);
	assert_int_equal(sse_reader_pending(&r), s->pending);
	sse_reader_release(&r);
	buf_release(&out);
}

static void events_do_not_depend_on_the_pieces(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
		size_t n = strlen(streams[i].text);

		for (size_t first = 1; first <= n; first++)
			for (size_t step = 1; step <= 3; step++)
				check_stream(&streams[i], first, step);
		check_stream(&streams[i], n, n);
	}
}

static void raw_is_the_event_as_received(void **state)
{
	static const char text[] = ": c\n\nevent: a\r\ndata: x\r\ndata: y\r\n\r\ndata: z\n\n";
	struct sse_reader r;
	struct sse_event e;

	(void)state;
	sse_reader_init(&r, 64);
	assert_int_equal(sse_reader_feed(&r, text, sizeof(text) - 1), PD_OK);
	assert_true(sse_reader_next(&r, &e));
	assert_true(span_eq(e.raw, SPAN("event: a\r\ndata: x\r\ndata: y\r\n\r\n")));
	assert_true(sse_reader_next(&r, &e));
	assert_true(span_eq(e.raw, SPAN("data: z\n\n")));
	assert_false(sse_reader_next(&r, &e));
	sse_reader_release(&r);
}

/* 16 bytes is the largest event that the reader takes, in whatever pieces it comes. */
static void the_limit_counts_one_event(void **state)
{
	static const char fits[] = "data: 12345678\n\ndata: 12345678\n\n";
	static const char large[] = "data: a\n\ndata: 123456789\n\n";
	static const char crlf[] = "data: 1234567\r\n\r\n"; /* its last byte does not count */
	struct sse_reader r;
	struct buf out;
	int err;

	(void)state;
	buf_init(&out, 4096);
	for (size_t step = 1; step < sizeof(fits); step++) {
		sse_reader_init(&r, 16);
		for (size_t at = 0; at < sizeof(fits) - 1; at += step)
			assert_int_equal(sse_reader_feed(&r, fits + at,
							 step < sizeof(fits) - 1 - at
								 ? step
								 : sizeof(fits) - 1 - at),
					 PD_OK);
		drain(&r, &out);
		sse_reader_release(&r);
		sse_reader_init(&r, 16);
		for (size_t at = 0; at < sizeof(crlf) - 1; at += step)
			assert_int_equal(sse_reader_feed(&r, crlf + at,
							 step < sizeof(crlf) - 1 - at
								 ? step
								 : sizeof(crlf) - 1 - at),
					 PD_OK);
		sse_reader_release(&r);
		sse_reader_init(&r, 16);
		err = PD_OK;
		for (size_t at = 0; at < sizeof(large) - 1 && !err; at += step)
			err = sse_reader_feed(
				&r, large + at,
				step < sizeof(large) - 1 - at ? step : sizeof(large) - 1 - at);
		assert_int_equal(err, PD_ETOOBIG);
		sse_reader_release(&r);
	}
	buf_release(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ends_are_found),
		cmocka_unit_test(comments_are_found),
		cmocka_unit_test(looking_from_the_middle),
		cmocka_unit_test(events_do_not_depend_on_the_pieces),
		cmocka_unit_test(raw_is_the_event_as_received),
		cmocka_unit_test(the_limit_counts_one_event),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
