#include "lib/base/msgpackcheck.h"

#include <stdint.h>

/* The big-endian number of `size` bytes at p. */
static uint64_t number(const unsigned char *p, unsigned size)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < size; i++)
		n = n << 8 | p[i];
	return n;
}

/* What follows the first byte of an object: a number of `size` bytes, `fixed` bytes, and as many
 * bytes or elements as the number says. */
struct form {
	unsigned char size;
	unsigned fixed;
	enum { NOTHING, BYTES, ELEMENTS, PAIRS } of;
};

static const struct form forms[] = {
	[0xc4] = {1, 0, BYTES},
	[0xc5] = {2, 0, BYTES},
	[0xc6] = {4, 0, BYTES},
	[0xc7] = {1, 1, BYTES},
	[0xc8] = {2, 1, BYTES},
	[0xc9] = {4, 1, BYTES},
	[0xca] = {0, 4, NOTHING},
	[0xcb] = {0, 8, NOTHING},
	[0xcc] = {0, 1, NOTHING},
	[0xcd] = {0, 2, NOTHING},
	[0xce] = {0, 4, NOTHING},
	[0xcf] = {0, 8, NOTHING},
	[0xd0] = {0, 1, NOTHING},
	[0xd1] = {0, 2, NOTHING},
	[0xd2] = {0, 4, NOTHING},
	[0xd3] = {0, 8, NOTHING},
	[0xd4] = {0, 2, NOTHING},
	[0xd5] = {0, 3, NOTHING},
	[0xd6] = {0, 5, NOTHING},
	[0xd7] = {0, 9, NOTHING},
	[0xd8] = {0, 17, NOTHING},
	[0xd9] = {1, 0, BYTES},
	[0xda] = {2, 0, BYTES},
	[0xdb] = {4, 0, BYTES},
	[0xdc] = {2, 0, ELEMENTS},
	[0xdd] = {4, 0, ELEMENTS},
	[0xde] = {2, 0, PAIRS},
	[0xdf] = {4, 0, PAIRS},
	[0xff] = {0},
};

bool msgpack_is_bounded(struct span text)
{
	const unsigned char *p = (const unsigned char *)text.p, *end = p + text.n;
	uint64_t objects = 1, n;

	while (objects > 0) {
		uint64_t left = (uint64_t)(end - p);
		unsigned char b;
		struct form f;

		/* Each object has a byte at least. */
		if (objects > left)
			return false;
		b = *p++;
		left--;
		objects--;
		if (b >= 0x80 && b <= 0x9f) {
			objects += b < 0x90 ? 2 * (b & 0x0fu) : b & 0x0fu;
			continue;
		}
		f = forms[b];
		n = b >= 0xa0 && b <= 0xbf ? b & 0x1fu : f.fixed;
		if (f.size > left)
			return false;
		if (f.of == BYTES)
			n += number(p, f.size);
		else if (f.of != NOTHING)
			objects += number(p, f.size) * (f.of == PAIRS ? 2 : 1);
		p += f.size;
		if (n > left - f.size)
			return false;
		p += n;
	}
	return true;
}
