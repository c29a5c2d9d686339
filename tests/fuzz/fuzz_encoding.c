/*
 * Any bytes as a JSON text in whatever encoding its first bytes say. What comes out is UTF-8 whose
 * code points, written again in the encoding that was found, are the bytes that came in; the same
 * bytes give the same text twice.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/encoding.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void expect(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}

/* One code point of strict UTF-8 at *p: no overlong form, no surrogate, nothing above U+10FFFF. */
static bool utf8_next(const unsigned char **p, const unsigned char *end, uint32_t *out)
{
	static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
	const unsigned char *s = *p;
	unsigned more = *s < 0x80	? 0
			: *s >> 5 == 6	? 1
			: *s >> 4 == 14 ? 2
			: *s >> 3 == 30 ? 3
					: 4;
	uint32_t c;

	if (more > 3 || (size_t)(end - s) <= more)
		return false;
	c = more == 0 ? *s : *s & (0x3fu >> more);
	for (unsigned i = 1; i <= more; i++) {
		if (s[i] >> 6 != 2)
			return false;
		c = c << 6 | (s[i] & 0x3f);
	}
	*p = s + more + 1;
	*out = c;
	return c >= least[more] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
}

/* A unit of `width` bytes; big: the high byte first. */
static void put_unit(struct buf *b, uint32_t unit, unsigned width, bool big)
{
	for (unsigned i = 0; i < width; i++) {
		unsigned shift = 8 * (big ? width - 1 - i : i);

		expect(buf_putc(b, (char)(unit >> shift & 0xff)) == PD_OK, "memory");
	}
}

static bool same_again(struct span text, unsigned width, bool big, const uint8_t *data, size_t n)
{
	const unsigned char *p = (const unsigned char *)text.p, *end = text.n > 0 ? p + text.n : p;
	struct buf b;
	uint32_t c;
	bool same = false;

	buf_init(&b, 4 * n + 16);
	while (p < end) {
		expect(utf8_next(&p, end, &c), "the text is not UTF-8");
		if (width == 2 && c > 0xffff) {
			put_unit(&b, 0xd800 + ((c - 0x10000) >> 10), 2, big);
			put_unit(&b, 0xdc00 + ((c - 0x10000) & 0x3ff), 2, big);
		} else {
			put_unit(&b, c, width, big);
		}
	}
	/* With a mark in front, or without. */
	for (size_t mark = 0; mark <= width && !same; mark += width)
		same = b.len + mark == n && (b.len == 0 || memcmp(b.data, data + mark, b.len) == 0);
	buf_release(&b);
	return same;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span in = {(const char *)data, n}, text, again;
	struct buf utf8 = {0}, second = {0};
	int err;

	if (n > 4096)
		return 0;
	err = json_text_utf8(in, &utf8, &text);
	expect(json_text_utf8(in, &second, &again) == err, "another verdict");
	if (!err) {
		expect(span_eq(text, again), "another text");
		if (text.p >= in.p && text.p <= in.p + in.n) {
			/* Already UTF-8, or taken for it: the bytes themselves, without a mark. */
			expect(text.p + text.n == in.p + in.n, "not all of it");
			expect(text.n == n ||
				       (text.n + 3 == n && memcmp(data, "\xef\xbb\xbf", 3) == 0),
			       "more than a mark is gone");
		} else {
			expect(same_again(text, 2, true, data, n) ||
				       same_again(text, 2, false, data, n) ||
				       same_again(text, 4, true, data, n) ||
				       same_again(text, 4, false, data, n),
			       "no encoding of the text is what came in");
		}
	}
	buf_release(&utf8);
	buf_release(&second);
	return 0;
}
