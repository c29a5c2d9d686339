/*
 * Between JSON text and values: strings to bytes and back, integers. Numbers are never converted to
 * floating point here, so the locale has no effect.
 */
#include "lib/json/scan_lex.h"

#include <string.h>

int json_string_decode(struct span value, struct buf *out)
{
	size_t before = out->len;
	const char *p, *end;
	char piece[2048];

	if (value.n < 2 || *value.p != '"' || value.p[value.n - 1] != '"')
		return PD_EINVAL;
	p = value.p + 1;
	end = value.p + value.n - 1;
	do { /* also once for the empty string, so that out->data is never NULL */
		size_t n = json_unescape(&p, end, piece, sizeof(piece));
		int err = buf_append(out, piece, n);

		if (err) {
			out->len = before;
			if (out->data)
				out->data[before] = '\0';
			return err;
		}
	} while (p < end);
	return PD_OK;
}

int json_int(struct span value, int64_t *out)
{
	bool minus = value.n > 0 && *value.p == '-';
	int64_t n = 0;
	size_t i = minus;

	if (i == value.n || (value.p[i] == '0' && value.n > i + 1))
		return PD_EINVAL;
	for (; i < value.n; i++) {
		int digit = value.p[i] - '0';

		if (digit < 0 || digit > 9)
			return PD_EINVAL;
		/* Downwards, because the smallest integer has no positive counterpart. */
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_sub_overflow(n, digit, &n))
			return PD_EINVAL;
	}
	if (!minus && n == INT64_MIN)
		return PD_EINVAL;
	*out = minus ? n : -n;
	return PD_OK;
}

/* How the control characters, the quote and the backslash are written. */
static int quote_special(struct buf *out, unsigned char c)
{
	static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
	const char *hit = memchr(from, c, sizeof(from) - 1);

	if (hit) {
		const char pair[2] = {'\\', to[hit - from]};

		return buf_append(out, pair, 2);
	}
	return buf_printf(out, "\\u%04x", c);
}

int json_quote(struct buf *out, const char *s, size_t n)
{
	const char *p = s, *end = s + n, *plain = s;
	size_t before = out->len;
	int err = buf_putc(out, '"');

	while (!err && p < end) {
		unsigned char c = (unsigned char)*p;
		unsigned len = c < 0x80 ? 1 : json_lex_utf8(p, end);

		if (len > 0 && c >= 0x20 && c != '"' && c != '\\') {
			p += len;
			continue;
		}
		err = buf_append(out, plain, (size_t)(p - plain));
		if (!err)
			err = len == 0 ? buf_puts(out, "\xEF\xBF\xBD") : quote_special(out, c);
		plain = ++p;
	}
	if (!err)
		err = buf_append(out, plain, (size_t)(end - plain));
	if (!err)
		err = buf_putc(out, '"');
	if (err && out->data) {
		out->len = before;
		out->data[before] = '\0';
	}
	return err;
}
