/*
 * The chunked decoder. The first byte sets the size of the pieces, the rest is the body.
 *
 * (1) Whatever the pieces, the same verdict, the same payload, the same number of bytes used. (2) A
 * second decoder, which is written down from the grammar without any state between calls, agrees
 * about all of it. (3) What was decoded, coded again in other chunks and decoded, is the same
 * payload. (4) Whatever we accept, llhttp accepts with the same payload, and where llhttp accepts
 * and we refuse, the reason is one of a list; docs/http-strictness.md has an example of each.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/http/chunk.h"
#include "tests/fuzz/oracle.h"

#define BODY_MAX (1u << 18)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct result {
	struct buf payload;
	size_t used;
	int err;
	bool done, boundary, extras;
	uint64_t rest;
};

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_chunk: %s\n", what);
		abort();
	}
}

static void clear(struct buf *b)
{
	if (b->max == 0)
		buf_init(b, 2 * BODY_MAX);
	buf_clear(b);
}

static void decode(struct result *r, const char *p, size_t n, size_t step)
{
	struct http_chunked c;
	struct span piece;
	size_t have = 0, took;

	clear(&r->payload);
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
	r->extras = c.extras;
	r->rest = http_chunked_rest(&c);
}

/* -- the grammar, RFC 9112 7.1, with our limits -- */

enum stop {
	MORE,
	END,
	SIZE,
	SIZE_LONG,
	EXTENSION,
	EXTENSION_LONG,
	CHUNK_END,
	TRAILER,
	TRAILER_LONG
};

static const char *const stop_name[] = {
	[MORE] = "bytes are missing",
	[END] = "the end",
	[SIZE] = "a chunk size is malformed",
	[SIZE_LONG] = "a chunk size is too large",
	[EXTENSION] = "a chunk extension is malformed",
	[EXTENSION_LONG] = "a chunk extension is too long",
	[CHUNK_END] = "a chunk is longer than its size",
	[TRAILER] = "a trailer is malformed",
	[TRAILER_LONG] = "the trailers are too long",
};

struct text {
	const char *p;
	size_t n, at;
	uint64_t rest; /* payload of the current chunk that is missing */
	bool extras;   /* an extension or a trailer was seen */
};

static bool left(const struct text *t)
{
	return t->at < t->n;
}

static bool token_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool text_char(char c)
{
	return c == '\t' || (unsigned char)c >= 0x80 || (c >= ' ' && c < 0x7f);
}

/* One byte that must be there. */
static enum stop want(struct text *t, char c, enum stop otherwise)
{
	if (!left(t))
		return MORE;
	return t->p[t->at++] == c ? END : otherwise;
}

static enum stop token(struct text *t, enum stop otherwise)
{
	size_t from = t->at;

	while (left(t) && token_char(t->p[t->at]))
		t->at++;
	if (!left(t))
		return MORE;
	return t->at > from ? END : otherwise;
}

static enum stop quoted(struct text *t)
{
	t->at++;
	while (left(t) && t->p[t->at] != '"') {
		if (t->p[t->at] == '\\') {
			t->at++;
			if (!left(t))
				return MORE;
		}
		if (!text_char(t->p[t->at]))
			return EXTENSION;
		t->at++;
	}
	return want(t, '"', EXTENSION);
}

/* All extensions, up to the carriage return. */
static enum stop extensions(struct text *t)
{
	enum stop s = END;

	while (s == END && left(t) && t->p[t->at] == ';') {
		t->at++;
		t->extras = true;
		s = token(t, EXTENSION);
		if (s != END || t->p[t->at] != '=')
			continue;
		t->at++;
		if (!left(t))
			return MORE;
		s = t->p[t->at] == '"' ? quoted(t) : token(t, EXTENSION);
	}
	return s;
}

static enum stop size_line(struct text *t, uint64_t *size)
{
	size_t from = t->at, ext;
	enum stop s;

	*size = 0;
	for (; left(t) && strchr("0123456789abcdefABCDEF", t->p[t->at]) && t->p[t->at]; t->at++) {
		char c = t->p[t->at] | 0x20;

		*size = *size * 16 + (uint64_t)(c <= '9' ? (t->p[t->at] & 15) : c - 'a' + 10);
		if (t->at - from >= 16 || *size > INT64_MAX)
			return SIZE_LONG;
	}
	if (!left(t))
		return MORE;
	if (t->at == from || (t->p[t->at] != ';' && t->p[t->at] != '\r'))
		return SIZE;
	ext = t->at;
	s = extensions(t);
	/* the limit is on what lies between the first semicolon and the carriage return */
	if (t->at - ext > HTTP_CHUNK_EXT_MAX + 1)
		return EXTENSION_LONG;
	s = s == END ? want(t, '\r', EXTENSION) : s;
	return s == END ? want(t, '\n', SIZE) : s;
}

/* From behind the last size line. The limit does not count the line feeds. */
static enum stop trailers(struct text *t)
{
	size_t from = t->at, lines = 0;
	enum stop s = END;

	while (s == END && left(t) && t->p[t->at] != '\r') {
		t->extras = true;
		s = token(t, TRAILER);
		s = s == END ? want(t, ':', TRAILER) : s;
		while (s == END && left(t) && text_char(t->p[t->at]))
			t->at++;
		s = s == END ? want(t, '\r', TRAILER) : s;
		if (t->at - from - lines > HTTP_CHUNK_TRAILER_MAX)
			return TRAILER_LONG;
		s = s == END ? want(t, '\n', TRAILER) : s;
		lines += s == END;
	}
	s = s == END ? want(t, '\r', TRAILER) : s;
	if (t->at - from - lines > HTTP_CHUNK_TRAILER_MAX)
		return TRAILER_LONG;
	return s == END ? want(t, '\n', TRAILER) : s;
}

static enum stop by_grammar(struct text *t, struct buf *payload)
{
	enum stop s;

	for (;;) {
		uint64_t size;
		size_t take;

		s = size_line(t, &size);
		if (s != END)
			return s;
		if (size == 0)
			return trailers(t);
		take = t->n - t->at < size ? t->n - t->at : (size_t)size;
		expect(buf_append(payload, t->p + t->at, take) == PD_OK, "memory");
		t->at += take;
		t->rest = size - take;
		if (take < size)
			return MORE;
		s = want(t, '\r', CHUNK_END);
		s = s == END ? want(t, '\n', CHUNK_END) : s;
		if (s != END)
			return s;
	}
}

static enum stop same_as_grammar(const struct result *r, const char *p, size_t n)
{
	static struct buf payload;
	struct text t = {.p = p, .n = n};
	enum stop s;

	clear(&payload);
	s = by_grammar(&t, &payload);
	if (r->err != (s > END ? PD_EPROTO : PD_OK) || r->done != (s == END)) {
		fprintf(stderr, "grammar: %s\n", stop_name[s]);
		expect(false, "the grammar has another verdict");
	}
	expect(r->err || r->used == t.at, "the grammar ends elsewhere");
	expect(r->err || span_eq(buf_span(&payload), buf_span(&r->payload)),
	       "the grammar has another payload");
	expect(r->err || (r->rest == t.rest && r->extras == t.extras),
	       "the grammar has another rest, or other extras");
	return s;
}

/* -- the other properties -- */

static void coded_again(const struct result *r, size_t chunk)
{
	static struct buf text;
	static struct result again;
	size_t take;

	clear(&text);
	for (size_t at = 0; at < r->payload.len; at += take) {
		take = r->payload.len - at < chunk ? r->payload.len - at : chunk;
		expect(buf_printf(&text, "%zX\r\n", take) == PD_OK &&
			       buf_append(&text, r->payload.data + at, take) == PD_OK &&
			       buf_puts(&text, "\r\n") == PD_OK,
		       "memory");
	}
	expect(buf_puts(&text, "0\r\n\r\n") == PD_OK, "memory");
	decode(&again, text.data, text.len, text.len);
	expect(again.done && again.used == text.len, "coded again and refused");
	expect(span_eq(buf_span(&again.payload), buf_span(&r->payload)), "coded again and changed");
}

/* Where llhttp is more forgiving. */
static bool may_be_stricter(enum stop s)
{
	return s == SIZE || s == SIZE_LONG || s == EXTENSION || s == EXTENSION_LONG ||
	       s == CHUNK_END || s == TRAILER || s == TRAILER_LONG;
}

static void compare(const struct result *r, enum stop s, const char *p, size_t n)
{
	static const struct span head =
		SPAN("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
	const struct oracle *o = oracle_start(false, false);

	oracle_feed(head.p, head.n);
	oracle_feed(p, r->err ? n : r->used);
	if (r->err) {
		if (!o->complete || may_be_stricter(s))
			return;
		fprintf(stderr, "reason: %s\n", stop_name[s]);
		expect(false, "llhttp accepts what we refuse, for a reason that "
			      "docs/http-strictness.md and may_be_stricter() do not have");
	}
	/* it reads meaning into the names of trailers, and refuses some extensions */
	if (o->refused && (o->trailers || memchr(p, ';', r->used)))
		return;
	expect(!o->refused, "llhttp refuses a chunked body");
	expect(span_eq(buf_span(&r->payload), buf_span(&o->payload)),
	       "llhttp reads another payload");
	expect(o->complete == r->done, "llhttp disagrees about the end of the body");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct result whole, pieces;
	const char *p = (const char *)data + 1;
	size_t steps[2];
	enum stop s;

	if (n < 2 || n > BODY_MAX)
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
		if (whole.err)
			continue;
		expect(pieces.used == whole.used && pieces.boundary == whole.boundary &&
			       pieces.extras == whole.extras && pieces.rest == whole.rest,
		       "a piece changed the end");
		expect(span_eq(buf_span(&pieces.payload), buf_span(&whole.payload)),
		       "a piece changed the payload");
	}
	s = same_as_grammar(&whole, p, n);
	if (whole.done)
		coded_again(&whole, steps[1]);
	if (oracle_present())
		compare(&whole, s, p, n);
	return 0;
}
