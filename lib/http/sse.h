/*
 * Server-sent events: where events end (for a relay that must never pass on half an event before
 * the source died), and a reader that hands out whole events (for bench, usage merge and tests).
 * Line ends may be LF, CRLF or CR. Pure, owner thread.
 */
#ifndef PD_HTTP_SSE_H
#define PD_HTTP_SSE_H

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/span.h"

/* Length of the longest prefix of p[0..n) that ends with an event's empty line; 0 when no event is
 * complete. Looks from the end first. */
size_t sse_complete(const char *p, size_t n);
/* The same when an earlier call has shown that no event ends in p[0..from): only the bytes after
 * that are looked at. p[0] starts an event. */
size_t sse_complete_from(const char *p, size_t n, size_t from);

/* Length of the whole comment lines (": ...") at the front of p[0..n), which starts an event or
 * follows such a line: they belong to no event, so they need not wait for an empty line. */
size_t sse_comments(const char *p, size_t n);

struct sse_event {
	struct span event; /* "" when absent */
	struct span data;  /* data lines joined by LF */
	struct span raw;   /* the event as received, empty line included */
};

/* Collects bytes and hands out events; a single event larger than `max` is PD_ETOOBIG, whatever the
 * pieces (a LF behind its last CR does not count). Holds at most `max` bytes and one feed. */
struct sse_reader {
	struct buf in;
	struct buf
		data; /* joined data of the event handed out last, when it had several data lines */
	size_t max;
	size_t at;	/* bytes of `in` already handed out */
	size_t ready;	/* whole events lie in [at, ready) */
	size_t scanned; /* no event ends in (ready, scanned] */
	bool begun; /* the start of the stream, where a byte order mark may stand, is behind us */
};

void sse_reader_init(struct sse_reader *r, size_t max);
void sse_reader_release(struct sse_reader *r);
int sse_reader_feed(struct sse_reader *r, const char *p, size_t n) PD_MUST;
/* True with the next event that carries data (spans valid until the next call of feed or next).
 * Blocks without a data line (comments, empty lines, a lone event name) are skipped, as the
 * specification asks, and appear in no raw. */
bool sse_reader_next(struct sse_reader *r, struct sse_event *e);
/* Bytes of an unfinished event. */
size_t sse_reader_pending(const struct sse_reader *r);

#endif
