/*
 * An event ends with an empty line: a line end directly after another line end, or at the very
 * start. Line ends may be LF, CRLF or CR, so a CR as the last byte we have counts as a line end at
 * once (waiting for its LF would hold a token back); the LF that may follow then is an empty block
 * of its own, which carries nothing.
 */
#include "lib/http/sse.h"

#include <stdint.h>
#include <string.h>

static bool ends_line(char c)
{
	return c == '\n' || c == '\r';
}

/* True when the line end whose last byte is p[i] closes an empty line of the text that starts at p.
 * A CR before a LF is no end. */
static bool closes_empty_line(const char *p, size_t n, size_t i)
{
	size_t start = i;

	if (p[i] == '\n' && i > 0 && p[i - 1] == '\r')
		start--;
	else if (p[i] == '\r' && i + 1 < n && p[i + 1] == '\n')
		return false;
	return start == 0 || ends_line(p[start - 1]);
}

size_t sse_complete_from(const char *p, size_t n, size_t from)
{
	if (n > from + 1 && p[n - 1] == '\n' && p[n - 2] == '\n')
		return n;
	for (size_t i = n; i > from; i--)
		if (ends_line(p[i - 1]) && closes_empty_line(p, n, i - 1))
			return i;
	return 0;
}

size_t sse_complete(const char *p, size_t n)
{
	return sse_complete_from(p, n, 0);
}

size_t sse_comments(const char *p, size_t n)
{
	size_t len = 0, i;

	for (i = 0; i < n && p[i] == ':'; i = len) {
		while (i < n && !ends_line(p[i]))
			i++;
		if (i == n)
			break;
		len = p[i] == '\r' && i + 1 < n && p[i + 1] == '\n' ? i + 2 : i + 1;
	}
	return len;
}

/* The first end of a line in p[from..n), or n. */
static size_t line_end(const char *p, size_t n, size_t from)
{
	const char *lf = memchr(p + from, '\n', n - from), *cr;
	size_t end = lf ? (size_t)(lf - p) : n;

	cr = memchr(p + from, '\r', end - from);
	return cr ? (size_t)(cr - p) : end;
}

/* Length of the first event of p[0..n) when it ends after `from`; 0 when it is not complete. */
static size_t first_event(const char *p, size_t n, size_t from)
{
	for (size_t i = line_end(p, n, from); i < n; i = line_end(p, n, i + 1))
		if (closes_empty_line(p, n, i))
			return i + 1;
	return 0;
}

/* -- the reader -- */

void sse_reader_init(struct sse_reader *r, size_t max)
{
	*r = (struct sse_reader){.max = max};
	buf_init(&r->in,
		 SIZE_MAX / 4); /* bounded by max and the size of one feed, see sse_reader_feed */
	buf_init(&r->data, max);
}

void sse_reader_release(struct sse_reader *r)
{
	buf_release(&r->in);
	buf_release(&r->data);
}

size_t sse_reader_pending(const struct sse_reader *r)
{
	return r->in.len - r->ready;
}

static void forget_read(struct sse_reader *r)
{
	if (r->at == 0)
		return;
	buf_consume(&r->in, r->at);
	r->ready -= r->at;
	r->scanned -= r->at;
	r->at = 0;
}

/* A byte order mark at the start of the stream is no part of the first line. */
static void skip_mark(struct sse_reader *r)
{
	static const char mark[] = "\xef\xbb\xbf";
	size_t have = r->in.len < 3 ? r->in.len : 3;

	if (r->begun || (have < 3 && memcmp(r->in.data, mark, have) == 0))
		return;
	r->begun = true;
	if (memcmp(r->in.data, mark, 3) == 0)
		buf_consume(&r->in, 3);
}

/* What counts for the limit: the LF behind the last CR does not, because it may come later as a
 * block of its own. */
static size_t event_size(const char *p, size_t n)
{
	return n > 1 && p[n - 1] == '\n' && p[n - 2] == '\r' ? n - 1 : n;
}

int sse_reader_feed(struct sse_reader *r, const char *p, size_t n)
{
	size_t len, size, largest = 0;
	int err;

	if (n == 0)
		return PD_OK;
	forget_read(r);
	err = buf_append(&r->in, p, n);
	if (err)
		return err;
	skip_mark(r);
	if (!r->begun)
		return PD_OK;
	while ((len = first_event(r->in.data + r->ready, r->in.len - r->ready,
				  r->scanned - r->ready)) > 0) {
		size = event_size(r->in.data + r->ready, len);
		largest = size > largest ? size : largest;
		r->ready += len;
		r->scanned = r->ready;
	}
	r->scanned = r->in.len;
	if (largest > r->max || sse_reader_pending(r) > r->max)
		return PD_ETOOBIG;
	buf_clear(&r->data);
	return buf_reserve(&r->data, largest);
}

/* The next line of *rest without its end. */
static struct span next_line(struct span *rest)
{
	struct span line = {rest->p, line_end(rest->p, rest->n, 0)};
	size_t skip;

	skip = line.n + (line.n < rest->n);
	if (skip < rest->n && rest->p[skip - 1] == '\r' && rest->p[skip] == '\n')
		skip++;
	rest->p += skip;
	rest->n -= skip;
	return line;
}

/* "name: value" of a line; one space after the colon belongs to it. A line without colon is a name.
 */
static struct span split_line(struct span line, struct span *value)
{
	const char *colon = line.n ? memchr(line.p, ':', line.n) : NULL;
	size_t n = colon ? (size_t)(colon - line.p) : line.n;

	*value = (struct span){line.p + n, 0};
	if (colon) {
		*value = (struct span){colon + 1, line.n - n - 1};
		if (value->n > 0 && value->p[0] == ' ')
			value->p++, value->n--;
	}
	return (struct span){line.p, n};
}

/* Puts one data line into e; several lines are joined in r->data, whose room was made by feed. */
static bool add_data(struct sse_reader *r, struct sse_event *e, struct span value, unsigned nth)
{
	if (nth == 0) {
		e->data = value;
		return true;
	}
	if (nth == 1) {
		buf_clear(&r->data);
		if (buf_append(&r->data, e->data.p, e->data.n))
			return false;
	}
	if (buf_putc(&r->data, '\n') || buf_append(&r->data, value.p, value.n))
		return false;
	e->data = buf_span(&r->data);
	return true;
}

static bool parse_event(struct sse_reader *r, struct sse_event *e)
{
	struct span rest = e->raw, name, value;
	unsigned lines = 0;

	e->event = SPAN("");
	e->data = SPAN("");
	while (rest.n > 0) {
		name = split_line(next_line(&rest), &value);
		if (span_eq(name, SPAN("event")))
			e->event = value;
		else if (span_eq(name, SPAN("data")) && !add_data(r, e, value, lines++))
			return false;
	}
	return lines > 0;
}

bool sse_reader_next(struct sse_reader *r, struct sse_event *e)
{
	size_t len;

	while (r->at < r->ready) {
		len = first_event(r->in.data + r->at, r->in.len - r->at, 0);
		if (len == 0 || len > r->ready - r->at)
			len = r->ready - r->at;
		e->raw = (struct span){r->in.data + r->at, len};
		r->at += len;
		if (parse_event(r, e))
			return true;
	}
	return false;
}
