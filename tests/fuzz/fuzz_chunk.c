/*
 * The chunked decoder: whatever the pieces, the same verdict, the same payload, the same number of
 * bytes used. The first byte sets the size of the pieces.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/http/chunk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct result {
	struct buf payload;
	size_t used;
	int err;
	bool done, boundary;
};

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_chunk: %s\n", what);
		abort();
	}
}

static void decode(struct result *r, const char *p, size_t n, size_t step)
{
	struct http_chunked c;
	struct span piece;
	size_t have = 0, took;

	buf_init(&r->payload, n);
	r->used = 0;
	r->err = PD_OK;
	http_chunked_init(&c);
	while (r->used < n && !c.done && !r->err) {
		if (have == r->used)
			have = n - have < step ? n : have + step;
		r->err = http_chunked_feed(&c, p + r->used, have - r->used, &took, &piece);
		if (r->err)
			break;
		expect(took > 0 && took <= have - r->used, "no progress, or too much");
		expect(piece.n <= took, "more payload than bytes");
		expect(buf_append(&r->payload, piece.p, piece.n) == PD_OK,
		       "more payload than input");
		r->used += took;
	}
	r->done = c.done;
	r->boundary = http_chunked_at_boundary(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct result whole, pieces;
	const char *p = (const char *)data + 1;
	size_t steps[2];

	if (n < 2)
		return 0;
	steps[0] = 1;
	steps[1] = (size_t)data[0] + 2;
	n--;
	decode(&whole, p, n, n);
	expect(!whole.done || (whole.used >= 5 && memcmp(p + whole.used - 4, "\r\n\r\n", 4) == 0),
	       "an end without an empty line");
	for (size_t i = 0; i < 2; i++) {
		decode(&pieces, p, n, steps[i]);
		expect(pieces.err == whole.err && pieces.done == whole.done,
		       "a piece changed the verdict");
		if (!whole.err) {
			expect(pieces.used == whole.used && pieces.boundary == whole.boundary,
			       "a piece changed the end");
			expect(span_eq(buf_span(&pieces.payload), buf_span(&whole.payload)),
			       "a piece changed the payload");
		}
		buf_release(&pieces.payload);
	}
	buf_release(&whole.payload);
	return 0;
}
