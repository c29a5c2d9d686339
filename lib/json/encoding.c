/* The order of the tests is that of json.detect_encoding in Python: a mark of UTF-32 begins like
 * one of UTF-16. */
#include "lib/json/encoding.h"

#include <stdint.h>
#include <string.h>

#include "lib/base/err.h"

struct encoding {
	unsigned unit; /* bytes; 1: UTF-8 */
	bool big;
	size_t mark;
};

static bool starts(struct span s, const char *with, size_t n)
{
	return s.n >= n && memcmp(s.p, with, n) == 0;
}

static struct encoding detect(struct span s)
{
	const char *p = s.p;

	if (starts(s, "\0\0\xfe\xff", 4))
		return (struct encoding){4, true, 4};
	if (starts(s, "\xff\xfe\0\0", 4))
		return (struct encoding){4, false, 4};
	if (starts(s, "\xfe\xff", 2))
		return (struct encoding){2, true, 2};
	if (starts(s, "\xff\xfe", 2))
		return (struct encoding){2, false, 2};
	if (starts(s, "\xef\xbb\xbf", 3))
		return (struct encoding){1, false, 3};
	if (s.n >= 4 && !p[0])
		return (struct encoding){p[1] ? 2 : 4, true, 0};
	if (s.n >= 4 && !p[1])
		return (struct encoding){p[2] || p[3] ? 2 : 4, false, 0};
	if (s.n == 2 && (!p[0] || !p[1]))
		return (struct encoding){2, !p[0], 0};
	return (struct encoding){1, false, 0};
}

static uint32_t unit_at(const char *p, struct encoding e)
{
	uint32_t u = 0;

	for (unsigned i = 0; i < e.unit; i++)
		u = u << 8 | (unsigned char)p[e.big ? i : e.unit - 1 - i];
	return u;
}

static size_t put_utf8(char *out, uint32_t u)
{
	if (u < 0x80) {
		out[0] = (char)u;
		return 1;
	}
	if (u < 0x800) {
		out[0] = (char)(0xc0 | u >> 6);
		out[1] = (char)(0x80 | (u & 0x3f));
		return 2;
	}
	if (u < 0x10000) {
		out[0] = (char)(0xe0 | u >> 12);
		out[1] = (char)(0x80 | (u >> 6 & 0x3f));
		out[2] = (char)(0x80 | (u & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | u >> 18);
	out[1] = (char)(0x80 | (u >> 12 & 0x3f));
	out[2] = (char)(0x80 | (u >> 6 & 0x3f));
	out[3] = (char)(0x80 | (u & 0x3f));
	return 4;
}

int json_text_utf8(struct span doc, struct buf *own, struct span *text)
{
	struct encoding e = detect(doc);
	int err = PD_OK;

	*text = (struct span){doc.p + e.mark, doc.n - e.mark};
	if (e.unit == 1)
		return PD_OK;
	if (text->n % e.unit != 0)
		return PD_EINVAL;
	/* A unit of two bytes becomes three at most, a pair of them four. */
	buf_init(own, text->n / 2 * 3 + 4);
	for (size_t i = 0; !err && i < text->n; i += e.unit) {
		uint32_t u = unit_at(text->p + i, e);
		char utf8[4];

		if (e.unit == 2 && u >= 0xd800 && u < 0xdc00 && i + 4 <= text->n) {
			uint32_t low = unit_at(text->p + i + 2, e);

			if (low < 0xdc00 || low > 0xdfff)
				return PD_EINVAL;
			u = 0x10000 + ((u & 0x3ff) << 10 | (low & 0x3ff));
			i += 2;
		} else if ((u >= 0xd800 && u < 0xe000) || u > 0x10ffff) {
			return PD_EINVAL;
		}
		err = buf_append(own, utf8, put_utf8(utf8, u));
	}
	*text = buf_span(own);
	return err;
}
