/*
 * Strings, numbers and literals of JSON.
 *
 * Request bodies are mostly long strings or long arrays of token ids, so these two have a fast path
 * over 16 bytes at a time: SSE2, which every x86-64 has, or plain 64-bit arithmetic elsewhere. One
 * signed comparison finds control characters and non-ASCII bytes together. Arrays of integers are
 * checked as bit masks (digits, commas, spaces and what may follow what), because a loop over
 * digits mispredicts once per number.
 */
#include "lib/json/scan_lex.h"

#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define ONES  0x0101010101010101u
#define HIGHS 0x8080808080808080u

const char *json_lex_bad(struct json_lex *x, const char *at, const char *expect)
{
	x->bad = at;
	x->expect = expect;
	return NULL;
}

static inline bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

#ifdef __SSE2__
/* One bit per byte of the 16 at p that ends a run of plain string text. */
static inline unsigned special16(const char *p)
{
	__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
	__m128i low = _mm_cmplt_epi8(v, _mm_set1_epi8(0x20)); /* signed: also all bytes >= 0x80 */
	__m128i quote = _mm_cmpeq_epi8(v, _mm_set1_epi8('"'));
	__m128i slash = _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'));

	return (unsigned)_mm_movemask_epi8(_mm_or_si128(low, _mm_or_si128(quote, slash)));
}
#else
/* Non-zero when one of the 8 bytes ends a run of plain string text. */
static inline uint64_t special8(const char *p)
{
	uint64_t v, quote, slash;

	memcpy(&v, p, sizeof(v));
	quote = v ^ (ONES * '"');
	slash = v ^ (ONES * '\\');
	return (v | (v - ONES * 0x20) | (quote - ONES) | (slash - ONES)) & HIGHS;
}
#endif

/* The first byte that is not plain ASCII string text. */
static inline const char *skip_plain(const char *p, const char *end)
{
#ifdef __SSE2__
	for (; end - p >= 16; p += 16) {
		unsigned m = special16(p);

		if (m)
			return p + __builtin_ctz(m);
	}
#else
	while (end - p >= 8 && !special8(p))
		p += 8;
#endif
	while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' &&
	       *p != '\\')
		p++;
	return p;
}

const char *json_lex_find_quote(const char *p, const char *end)
{
#ifdef __SSE2__
	for (; end - p >= 16; p += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
		__m128i quote = _mm_cmpeq_epi8(v, _mm_set1_epi8('"'));
		__m128i slash = _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'));
		unsigned m = (unsigned)_mm_movemask_epi8(_mm_or_si128(quote, slash));

		if (m)
			return p + __builtin_ctz(m);
	}
#endif
	while (p < end && *p != '"' && *p != '\\')
		p++;
	return p;
}

static inline bool continues(unsigned char c)
{
	return (c & 0xC0) == 0x80;
}

/* Table 3-7 of the Unicode standard: well-formed sequences only, no surrogates, nothing above
 * U+10FFFF. */
unsigned json_lex_utf8(const char *text, const char *end)
{
	const unsigned char *p = (const unsigned char *)text;
	ptrdiff_t left = end - text;
	unsigned char c = p[0];

	if (c < 0xC2 || left < 2 || !continues(p[1]))
		return 0;
	if (c < 0xE0)
		return 2;
	if (left < 3 || !continues(p[2]))
		return 0;
	if (c < 0xF0)
		return (c == 0xE0 && p[1] < 0xA0) || (c == 0xED && p[1] > 0x9F) ? 0 : 3;
	if (left < 4 || !continues(p[3]) || c > 0xF4)
		return 0;
	return (c == 0xF0 && p[1] < 0x90) || (c == 0xF4 && p[1] > 0x8F) ? 0 : 4;
}

/* A run of bytes >= 0x80. */
static const char *lex_utf8_run(struct json_lex *x, const char *p)
{
	while (p < x->end && (unsigned char)*p >= 0x80) {
		unsigned n = json_lex_utf8(p, x->end);

		if (n == 0)
			return json_lex_bad(x, p, "valid UTF-8");
		p += n;
	}
	return p;
}

static inline int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int json_lex_hex4(const char *p)
{
	int a = hex_digit(p[0]), b = hex_digit(p[1]), c = hex_digit(p[2]), d = hex_digit(p[3]);

	return (a | b | c | d) < 0 ? -1 : a << 12 | b << 8 | c << 4 | d;
}

/* p is at a backslash. */
static const char *lex_escape(struct json_lex *x, const char *p)
{
	if (x->end - p < 2)
		return json_lex_bad(x, x->end, "the rest of an escape sequence");
	switch (p[1]) {
	case '"':
	case '\\':
	case '/':
	case 'b':
	case 'f':
	case 'n':
	case 'r':
	case 't':
		return p + 2;
	case 'u':
		if (x->end - p < 6)
			return json_lex_bad(x, p, "\\u and four hexadecimal digits");
		if (json_lex_hex4(p + 2) < 0)
			return json_lex_bad(x, p + 2, "four hexadecimal digits");
		return p + 6;
	default:
		return json_lex_bad(x, p + 1, "one of \"\\/bfnrtu after a backslash");
	}
}

const char *json_lex_string(struct json_lex *x, const char *p)
{
	for (;;) {
		p = skip_plain(p, x->end);
		if (p == x->end)
			return json_lex_bad(x, p, "a closing quote");
		if (*p == '"')
			return p + 1;
		if (*p == '\\')
			p = lex_escape(x, p);
		else if ((unsigned char)*p >= 0x80)
			p = lex_utf8_run(x, p);
		else
			return json_lex_bad(x, p, "control characters to be escaped in strings");
		if (!p)
			return NULL;
	}
}

/* At least one digit. */
static inline const char *lex_digits(struct json_lex *x, const char *p)
{
	if (p == x->end || !is_digit(*p))
		return json_lex_bad(x, p, "a digit");
	while (p < x->end && is_digit(*p))
		p++;
	return p;
}

const char *json_lex_number(struct json_lex *x, const char *p)
{
	const char *start;

	if (*p == '-')
		p++;
	start = p;
	p = lex_digits(x, p);
	if (!p)
		return NULL;
	if (*start == '0' && p - start > 1)
		return json_lex_bad(x, start + 1, "no digit after a leading zero");
	if (p < x->end && *p == '.') {
		p = lex_digits(x, p + 1);
		if (!p)
			return NULL;
	}
	if (p < x->end && (*p | 0x20) == 'e') {
		p++;
		if (p < x->end && (*p == '+' || *p == '-'))
			p++;
		p = lex_digits(x, p);
	}
	return p;
}

const char *json_lex_literal(struct json_lex *x, const char *p)
{
	size_t left = (size_t)(x->end - p);

	if (left >= 4 && (memcmp(p, "true", 4) == 0 || memcmp(p, "null", 4) == 0))
		return p + 4;
	if (left >= 5 && memcmp(p, "false", 5) == 0)
		return p + 5;
	return json_lex_bad(x, p, "a value");
}

#ifdef __SSE2__
/* One bit per byte of a window of 16, by class. Bits 16 and up are 0. */
struct window {
	unsigned digit, zero, comma, space;
};

static inline struct window classify16(const char *p)
{
	__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
	__m128i d = _mm_sub_epi8(v, _mm_set1_epi8('0'));
	__m128i nine = _mm_min_epu8(d, _mm_set1_epi8(9));

	return (struct window){
		.digit = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(d, nine)),
		.zero = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('0'))),
		.comma = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8(','))),
		.space = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8(' '))),
	};
}

/*
 * A comma must follow a digit, a space must follow a comma, a zero that starts a number must not be
 * followed by a digit. `digit`, `comma` and `lead` (a number that is only a zero so far) say what
 * the byte before the window was.
 */
const char *json_lex_integers(const char *p, const char *end)
{
	unsigned digit = 0, comma = 0, lead = 0;
	const char *start = p;

	for (; end - p >= 16; p += 16) {
		struct window w = classify16(p);
		unsigned after_digit = w.digit << 1 | digit;
		unsigned after_comma = w.comma << 1 | comma;
		unsigned first_zero = w.zero & ~after_digit;
		unsigned wrong = (w.digit | w.comma | w.space) ^ 0xFFFF;

		wrong |= w.comma & ~after_digit;
		wrong |= w.space & ~after_comma;
		wrong |= (first_zero << 1 | lead) & w.digit;
		if (wrong)
			break;
		digit = w.digit >> 15;
		comma = w.comma >> 15;
		lead = first_zero >> 15;
	}
	while (p > start && is_digit(p[-1]))
		p--;
	return p;
}
#else
const char *json_lex_integers(const char *p, const char *end)
{
	(void)end;
	return p;
}
#endif

static size_t put_utf8(char *out, unsigned cp)
{
	if (cp < 0x80) {
		out[0] = (char)cp;
		return 1;
	}
	if (cp < 0x800) {
		out[0] = (char)(0xC0 | cp >> 6);
		out[1] = (char)(0x80 | (cp & 0x3F));
		return 2;
	}
	if (cp < 0x10000) {
		out[0] = (char)(0xE0 | cp >> 12);
		out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
		out[2] = (char)(0x80 | (cp & 0x3F));
		return 3;
	}
	out[0] = (char)(0xF0 | cp >> 18);
	out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
	out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
	out[3] = (char)(0x80 | (cp & 0x3F));
	return 4;
}

/* *p is at "\u" of a valid string; two halves of a pair are taken together. */
static unsigned take_unicode(const char **p, const char *end)
{
	unsigned hi = (unsigned)json_lex_hex4(*p + 2), lo;

	*p += 6;
	if (hi < 0xD800 || hi > 0xDFFF)
		return hi;
	if (hi > 0xDBFF || end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u')
		return 0xFFFD;
	lo = (unsigned)json_lex_hex4(*p + 2);
	if (lo < 0xDC00 || lo > 0xDFFF)
		return 0xFFFD;
	*p += 6;
	return 0x10000 + ((hi - 0xD800) << 10) + (lo - 0xDC00);
}

/* *p is at a backslash. Writes at most 4 bytes. */
static size_t unescape_one(const char **p, const char *end, char *out)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	const char *hit;

	if (end - *p < 2 ||
	    ((*p)[1] == 'u' && end - *p < 6)) { /* not a valid string: take the rest as nothing */
		*p = end;
		return 0;
	}
	if ((*p)[1] == 'u')
		return put_utf8(out, take_unicode(p, end));
	hit = memchr(from, (*p)[1], sizeof(from) - 1);
	out[0] = hit ? to[hit - from] : (*p)[1];
	*p += 2;
	return 1;
}

/* How many of the n bytes at p may be copied without cutting a character in two. */
static size_t whole_chars(const char *p, size_t n, size_t left)
{
	if (n == left)
		return n;
	while (n > 0 && continues((unsigned char)p[n]))
		n--;
	return n;
}

size_t json_unescape(const char **p, const char *end, char *out, size_t cap)
{
	size_t n = 0;

	while (*p < end && cap - n >= 4) {
		size_t left = (size_t)(end - *p), plain;
		const char *slash = memchr(*p, '\\', left < cap - n ? left : cap - n);

		if (slash == *p) {
			n += unescape_one(p, end, out + n);
			continue;
		}
		plain = slash ? (size_t)(slash - *p) : left < cap - n ? left : cap - n;
		plain = whole_chars(*p, plain, left);
		memcpy(out + n, *p, plain);
		n += plain;
		*p += plain;
	}
	return n;
}
