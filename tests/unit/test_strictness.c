/*
 * The tables of docs/http-strictness.md are true: each message is put to our parser and to llhttp,
 * and each reason for which we are stricter than llhttp has a row, or a limit tested here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/file.h"
#include "lib/http/chunk.h"
#include "tests/fuzz/message.h"
#include "tests/fuzz/oracle.h"

#define PAGE "docs/http-strictness.md"

enum kind { NOTHING, REQUEST, ANSWER, CHUNKS };

struct row {
	struct span what, llhttp, ours;
	struct buf message;
};

static bool shown[64]; /* per reason of message_stricter */

static void note_reason(const char *why)
{
	for (size_t i = 0; message_stricter[i]; i++)
		if (strcmp(message_stricter[i], why) == 0)
			shown[i] = true;
}

/* "`GET / ...\r\n`" as bytes. */
static void unescape(struct span cell, struct buf *out)
{
	static const char escapes[] = "r\rn\nt\t\\\\";

	assert_true(cell.n > 2 && cell.p[0] == '`' && cell.p[cell.n - 1] == '`');
	for (const char *p = cell.p + 1; p < cell.p + cell.n - 1; p++) {
		char c = *p;
		const char *e;

		if (c == '\\' && p[1] == 'x') {
			char hex[3] = {p[2], p[3], 0};

			c = (char)strtol(hex, NULL, 16);
			p += 3;
		} else if (c == '\\') {
			e = strchr(escapes, *++p);
			assert_non_null(e);
			c = e[1];
		}
		assert_int_equal(buf_putc(out, c), PD_OK);
	}
}

/* The cells of "| a | b |"; false for other lines. */
static bool cells(struct span line, struct span *cell, size_t n)
{
	if (line.n < 2 || line.p[0] != '|' || line.p[1] != ' ')
		return false;
	for (size_t i = 0; i < n; i++) {
		const char *bar;

		line.p++;
		line.n--;
		bar = memchr(line.p, '|', line.n);
		if (!bar)
			return false;
		cell[i] = span_trim((struct span){line.p, (size_t)(bar - line.p)});
		line.n -= (size_t)(bar - line.p);
		line.p = bar;
	}
	return true;
}

static bool llhttp_accepts(enum kind kind, const struct buf *m)
{
	static const struct span head =
		SPAN("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
	const struct oracle *o = oracle_start(kind == ANSWER, false);

	if (kind == CHUNKS)
		oracle_feed(head.p, head.n);
	oracle_feed(m->data, m->len);
	return kind == CHUNKS ? o->complete : o->headers;
}

/* The status that we answer, 0 for accepted, -1 for unfinished. */
static int our_status(enum kind kind, const struct buf *m)
{
	struct http_chunked c;
	struct http_head h = {0};
	struct span piece;
	size_t at = 0, took;
	int err;

	if (kind != CHUNKS) {
		err = kind == REQUEST ? http_request_parse(&h, m->data, m->len, &at)
				      : http_response_parse(&h, m->data, m->len, &at, false);
		if (h.why)
			note_reason(h.why);
		http_head_release(&h);
		return err == PD_OK ? 0 : err == PD_EAGAIN ? -1 : h.refuse;
	}
	http_chunked_init(&c);
	while (at < m->len && !c.done) {
		if (http_chunked_feed(&c, m->data + at, m->len - at, &took, &piece))
			return 400;
		at += took;
	}
	return c.done ? 0 : -1;
}

static void check_row(enum kind kind, struct row *r)
{
	int status = our_status(kind, &r->message);
	bool accepts = span_eq(r->ours, SPAN("accepts"));

	if (accepts ? status != 0 : status != (int)strtol(r->ours.p, NULL, 10))
		fail_msg("%.*s: we say %d, the page %.*s", (int)r->what.n, r->what.p, status,
			 (int)r->ours.n, r->ours.p);
	if (!oracle_present())
		return;
	accepts = span_eq(r->llhttp, SPAN("accepts"));
	if (!accepts && !span_eq(r->llhttp, SPAN("refuses")))
		fail_msg("%.*s: llhttp neither accepts nor refuses", (int)r->what.n, r->what.p);
	if (llhttp_accepts(kind, &r->message) != accepts)
		fail_msg("%.*s: llhttp does not what the page says", (int)r->what.n, r->what.p);
}

static enum kind heading(struct span line, enum kind kind)
{
	if (span_eq(line, SPAN("## Requests")))
		return REQUEST;
	if (span_eq(line, SPAN("## Answers of workers")))
		return ANSWER;
	return span_eq(line, SPAN("## Chunked bodies")) ? CHUNKS : kind;
}

static void the_page_is_true(void **state)
{
	enum kind kind = NOTHING;
	size_t rows[CHUNKS + 1] = {0};
	struct buf page;
	struct row r;

	(void)state;
	buf_init(&page, 1u << 20);
	buf_init(&r.message, 65536);
	assert_int_equal(file_read(PAGE, &page, NULL), PD_OK);
	for (const char *p = page.data, *lf; (lf = strchr(p, '\n')) != NULL; p = lf + 1) {
		struct span line = {p, (size_t)(lf - p)}, cell[6];

		kind = heading(line, kind);
		if (kind == NOTHING || !cells(line, cell, 6) || cell[1].p[0] != '`')
			continue;
		r.what = cell[0];
		r.llhttp = cell[2];
		r.ours = cell[5];
		buf_clear(&r.message);
		unescape(cell[1], &r.message);
		check_row(kind, &r);
		rows[kind]++;
	}
	assert_true(rows[REQUEST] > 30 && rows[ANSWER] > 10 && rows[CHUNKS] > 10);
	buf_release(&page);
	buf_release(&r.message);
}

/* A head with a piece of text so many times in it. */
static int refusal(const char *begin, const char *piece, size_t times, const char *end)
{
	struct buf text;
	int status;

	buf_init(&text, 1u << 20);
	assert_int_equal(buf_puts(&text, begin), PD_OK);
	while (times-- > 0)
		assert_int_equal(buf_puts(&text, piece), PD_OK);
	assert_int_equal(buf_puts(&text, end), PD_OK);
	status = our_status(REQUEST, &text);
	if (oracle_present())
		assert_true(llhttp_accepts(REQUEST, &text));
	buf_release(&text);
	return status;
}

static void limits_are_refusals(void **state)
{
	static const char head[] = "GET / HTTP/1.1\r\nHost: a\r\n",
			  end[] = " HTTP/1.1\r\nHost: a\r\n\r\n";

	(void)state;
	assert_int_equal(refusal(head, "X: y\r\n", 99, "\r\n"), 0);
	assert_int_equal(refusal(head, "X: y\r\n", 100, "\r\n"), 431);
	assert_int_equal(refusal(head, "X: yyyyyyyyyyyyyyyyy", 1, "\r\n\r\n"), 0);
	assert_int_equal(
		refusal("GET / HTTP/1.1\r\nHost: a\r\nX: ", "0123456789", 6600, "\r\n\r\n"), 431);
	assert_int_equal(refusal("GET /", "0123456789", 6000, end), 0);
	assert_int_equal(refusal("GET /", "0123456789", 6600, end), 414);
	assert_int_equal(refusal("GET / HTTP/1.1\r\nHost: a\r\nConnection: ", "a,", 32, "\r\n\r\n"),
			 0);
	assert_int_equal(refusal("GET / HTTP/1.1\r\nHost: a\r\nConnection: ", "a,", 33, "\r\n\r\n"),
			 400);
}

/* Last: the others have noted what they saw. */
static void each_reason_is_shown(void **state)
{
	(void)state;
	for (size_t i = 0; message_stricter[i]; i++)
		if (!shown[i])
			fail_msg("%s has no row for: %s", PAGE, message_stricter[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_page_is_true),
		cmocka_unit_test(limits_are_refusals),
		cmocka_unit_test(each_reason_is_shown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
