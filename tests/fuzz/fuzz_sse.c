/*
 * Server-sent events. The first byte sets the pieces, the rest is the stream.
 *
 * (1) Any pieces give the same events. (2) A second reader, written down from the specification
 * (WHATWG HTML 9.2.6) line by line, finds the same events. (3) Events printed and read again are
 * the same. (4) sse_complete agrees with a slow forward search, so that a relay which sends only
 * complete prefixes sends all of the stream and never half an event.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/http/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define EVENT_MAX  64
#define STREAM_MAX 65536 /* longer inputs teach nothing new */
#define NOTES_MAX  (1u << 20)
#define SLOW_MAX   64 /* what is compared at every byte of a relayed stream */

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_sse: %s\n", what);
		abort();
	}
}

static void put(struct buf *out, const void *p, size_t n)
{
	expect(buf_append(out, p, n) == PD_OK, "memory");
}

/* An event as bytes: lengths, then texts. */
static void note(struct buf *out, struct span event, struct span data)
{
	const size_t lengths[2] = {event.n, data.n};

	put(out, lengths, sizeof(lengths));
	put(out, event.p, event.n);
	put(out, data.p, data.n);
}

static void clear(struct buf *b)
{
	if (b->max == 0)
		buf_init(b, NOTES_MAX);
	buf_clear(b);
}

/* All events, and the verdict. */
static int events(struct buf *out, const char *p, size_t n, size_t step, size_t max)
{
	struct sse_reader r;
	struct sse_event e;
	int err = PD_OK;

	clear(out);
	sse_reader_init(&r, max);
	for (size_t at = 0; at < n && !err; at += step) {
		err = sse_reader_feed(&r, p + at, n - at < step ? n - at : step);
		while (!err && sse_reader_next(&r, &e)) {
			expect(e.raw.n <= max + 1 && e.data.n < e.raw.n, "a size");
			expect(sse_complete(e.raw.p, e.raw.n) == e.raw.n,
			       "an event that is not whole");
			note(out, e.event, e.data);
		}
	}
	expect(err || sse_reader_pending(&r) <= max, "too much kept");
	sse_reader_release(&r);
	return err;
}

/* -- the specification -- */

struct slow {
	struct span rest, event;
	struct buf *data;
	bool any; /* a data line was seen */
};

/* The next line; false when its end is missing. */
static bool slow_line(struct span *rest, struct span *line)
{
	for (size_t i = 0; i < rest->n; i++) {
		char c = rest->p[i];
		size_t skip = i + 1;

		if (c != '\n' && c != '\r')
			continue;
		if (c == '\r' && skip < rest->n && rest->p[skip] == '\n')
			skip++;
		*line = (struct span){rest->p, i};
		rest->p += skip;
		rest->n -= skip;
		return true;
	}
	return false;
}

static void slow_field(struct slow *s, struct span line)
{
	const char *colon = memchr(line.p, ':', line.n);
	struct span name = {line.p, colon ? (size_t)(colon - line.p) : line.n}, value = {"", 0};

	if (colon)
		value = (struct span){colon + 1, line.n - name.n - 1};
	if (value.n > 0 && value.p[0] == ' ')
		value = (struct span){value.p + 1, value.n - 1};
	if (name.n == 5 && memcmp(name.p, "event", 5) == 0)
		s->event = value;
	if (name.n != 4 || memcmp(name.p, "data", 4) != 0)
		return;
	if (s->any)
		put(s->data, "\n", 1);
	put(s->data, value.p, value.n);
	s->any = true;
}

static void slow_events(struct buf *out, const char *p, size_t n)
{
	static struct buf data;
	struct slow s = {.rest = {p, n}, .event = {"", 0}, .data = &data};
	struct span line;

	clear(out);
	clear(&data);
	if (n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
		s.rest = (struct span){p + 3, n - 3};
	while (slow_line(&s.rest, &line)) {
		if (line.n > 0) {
			slow_field(&s, line);
			continue;
		}
		if (s.any)
			note(out, s.event, buf_span(&data));
		buf_clear(&data);
		s.event = SPAN("");
		s.any = false;
	}
}

/* -- printed and read again -- */

static void print_data(struct buf *out, struct span data)
{
	for (;;) {
		const char *lf = data.n ? memchr(data.p, '\n', data.n) : NULL;
		size_t n = lf ? (size_t)(lf - data.p) : data.n;

		put(out, "data: ", 6);
		put(out, data.p, n);
		put(out, "\n", 1);
		if (!lf)
			return;
		data.p += n + 1;
		data.n -= n + 1;
	}
}

static void printed_again(const struct buf *notes)
{
	static struct buf text, again;
	size_t at = 0, lengths[2];

	clear(&text);
	while (at < notes->len) {
		memcpy(lengths, notes->data + at, sizeof(lengths));
		at += sizeof(lengths);
		put(&text, "event: ", 7);
		put(&text, notes->data + at, lengths[0]);
		put(&text, "\n", 1);
		print_data(&text, (struct span){notes->data + at + lengths[0], lengths[1]});
		put(&text, "\n", 1);
		at += lengths[0] + lengths[1];
	}
	if (text.len == 0)
		return;
	expect(events(&again, text.data, text.len, text.len, NOTES_MAX) == PD_OK,
	       "printed and refused");
	expect(span_eq(buf_span(notes), buf_span(&again)), "printed and changed");
}

/* -- where events end -- */

/* The definition, read forward: lines one after the other, an empty one ends an event. */
static size_t slow_complete(const char *p, size_t n)
{
	struct span rest = {p, n}, line;
	size_t last = 0;

	while (slow_line(&rest, &line))
		if (line.n == 0)
			last = n - rest.n;
	return last;
}

/* As a relay does it: keeps what is no whole event yet. */
static void relay(const char *p, size_t n, size_t step)
{
	size_t sent = 0, seen = 0, have, whole;

	for (have = step < n ? step : n;; have = n - have < step ? n : have + step) {
		whole = sse_complete_from(p + sent, have - sent, seen - sent);
		expect(have - sent > SLOW_MAX || whole == sse_complete(p + sent, have - sent),
		       "looking at new bytes only misses an event");
		sent += whole;
		seen = have;
		if (have == n)
			break;
	}
	expect(sent == slow_complete(p, n) || (sent == n && n > 0),
	       "the relay keeps a whole event");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct buf whole, pieces, slow;
	const char *p = (const char *)data + 1;
	size_t step;
	bool failed;
	int err;

	if (n < 2 || n > STREAM_MAX)
		return 0;
	step = data[0] & 1 ? 1 : (size_t)(data[0] >> 1) + 2;
	n--;
	expect(sse_complete(p, n) == slow_complete(p, n), "sse_complete");
	err = events(&whole, p, n, n, EVENT_MAX);
	failed = events(&pieces, p, n, step, EVENT_MAX) != PD_OK;
	expect(failed == (err != PD_OK), "a piece changed the verdict");
	relay(p, n, step);
	if (err)
		return 0;
	expect(span_eq(buf_span(&pieces), buf_span(&whole)), "a piece changed an event");
	slow_events(&slow, p, n);
	expect(span_eq(buf_span(&slow), buf_span(&whole)), "the specification has other events");
	printed_again(&whole);
	return 0;
}
