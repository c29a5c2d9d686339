/*
 * Server-sent events: any pieces give the same events; sse_complete agrees with a slow forward
 * search, so that a relay which sends only complete prefixes sends all of the stream and never half
 * an event. The first byte sets the pieces.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/http/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define EVENT_MAX 4096

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_sse: %s\n", what);
		abort();
	}
}

static void note(struct buf *out, struct span s)
{
	expect(buf_printf(out, "%zu:", s.n) == PD_OK && buf_append(out, s.p, s.n) == PD_OK,
	       "memory");
}

/* All events as text, and the verdict. */
static int events(struct buf *out, const char *p, size_t n, size_t step)
{
	struct sse_reader r;
	struct sse_event e;
	int err = PD_OK;

	buf_init(out, 1u << 24);
	sse_reader_init(&r, EVENT_MAX);
	for (size_t at = 0; at < n && !err; at += step) {
		err = sse_reader_feed(&r, p + at, n - at < step ? n - at : step);
		while (!err && sse_reader_next(&r, &e)) {
			expect(e.raw.n <= EVENT_MAX && e.data.n < e.raw.n, "a size");
			expect(sse_complete(e.raw.p, e.raw.n) == e.raw.n,
			       "an event that is not whole");
			note(out, e.event);
			note(out, e.data);
		}
	}
	expect(err || sse_reader_pending(&r) <= EVENT_MAX, "too much kept");
	sse_reader_release(&r);
	return err;
}

/* The definition, read forward: lines one after the other, an empty one ends an event. */
static size_t slow_complete(const char *p, size_t n)
{
	size_t at = 0, last = 0, len;

	while (at < n) {
		for (len = 0; at + len < n && p[at + len] != '\r' && p[at + len] != '\n'; len++)
			;
		if (at + len == n)
			break;
		at += len +
		      (p[at + len] == '\r' && at + len + 1 < n && p[at + len + 1] == '\n' ? 2 : 1);
		if (len == 0)
			last = at;
	}
	return last;
}

/* As a relay does it: keeps what is no whole event yet. */
static void relay(const char *p, size_t n, size_t step)
{
	size_t sent = 0, seen = 0, have, whole;

	for (have = step < n ? step : n;; have = n - have < step ? n : have + step) {
		whole = sse_complete_from(p + sent, have - sent, seen - sent);
		expect(whole == sse_complete(p + sent, have - sent),
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
	const char *p = (const char *)data + 1;
	struct buf whole, pieces;
	size_t steps[2];
	int err;

	if (n < 2)
		return 0;
	steps[0] = 1;
	steps[1] = (size_t)data[0] + 2;
	n--;
	expect(sse_complete(p, n) == slow_complete(p, n), "sse_complete");
	err = events(&whole, p, n, n);
	for (size_t i = 0; i < 2; i++) {
		bool failed = events(&pieces, p, n, steps[i]) != PD_OK;

		expect(failed == (err != PD_OK), "a piece changed the verdict");
		if (!failed)
			expect(span_eq(buf_span(&pieces), buf_span(&whole)),
			       "a piece changed an event");
		buf_release(&pieces);
		relay(p, n, steps[i]);
	}
	buf_release(&whole);
	return 0;
}
