/*
 * A byte automaton for the few framing bytes and a jump over the payload. The framing is read
 * strictly because a decoder that forgives a bare line feed or a blank after a size sees other
 * chunks than its neighbour; see chunk.h.
 */
#include "lib/http/chunk.h"

#define SIZE_DIGITS_MAX 16

enum state {
	SIZE_FIRST, /* the first digit of a size */
	SIZE,
	EXTENSION,
	SIZE_LF,
	DATA,
	DATA_CR,
	DATA_LF,
	TRAILER_FIRST, /* the start of a trailer line, or the empty line */
	TRAILER_NAME,
	TRAILER_VALUE,
	TRAILER_LF,
	LAST_LF
};

void http_chunked_init(struct http_chunked *c)
{
	*c = (struct http_chunked){.state = SIZE_FIRST};
}

bool http_chunked_at_boundary(const struct http_chunked *c)
{
	return c->state == SIZE_FIRST;
}

static int hex(unsigned char b)
{
	if (b >= '0' && b <= '9')
		return b - '0';
	b |= 0x20;
	return b >= 'a' && b <= 'f' ? b - 'a' + 10 : -1;
}

static bool is_text(unsigned char b)
{
	return b == '\t' || (b >= 0x20 && b != 0x7f);
}

static bool is_name(unsigned char b)
{
	return b > 0x20 && b < 0x7f && !memchr("\"(),/:;<=>?@[\\]{}", b, 17);
}

/* A byte of the size line. */
static bool size_byte(struct http_chunked *c, unsigned char b)
{
	int digit = hex(b);

	if (digit >= 0) {
		c->left = c->left << 4 | (unsigned)digit;
		c->state = SIZE;
		return ++c->line <= SIZE_DIGITS_MAX && c->left <= INT64_MAX;
	}
	if (c->state == SIZE_FIRST)
		return false;
	c->line = 0;
	c->state = b == ';' ? EXTENSION : SIZE_LF;
	return b == ';' || b == '\r';
}

static bool extension_byte(struct http_chunked *c, unsigned char b)
{
	if (b == '\r')
		c->state = SIZE_LF;
	return b == '\r' || (is_text(b) && ++c->line <= HTTP_CHUNK_EXT_MAX);
}

static bool trailer_byte(struct http_chunked *c, unsigned char b)
{
	if (++c->line > HTTP_CHUNK_TRAILER_MAX)
		return false;
	switch (c->state) {
	case TRAILER_FIRST:
		c->state = b == '\r' ? LAST_LF : TRAILER_NAME;
		return b == '\r' || is_name(b);
	case TRAILER_NAME:
		if (b == ':')
			c->state = TRAILER_VALUE;
		return b == ':' || is_name(b);
	default:
		if (b == '\r')
			c->state = TRAILER_LF;
		return b == '\r' || is_text(b);
	}
}

static bool line_feed(struct http_chunked *c, unsigned char b, enum state next)
{
	c->state = (int)next;
	return b == '\n';
}

/* Any byte that is not payload. False: not chunked coding. */
static bool framing_byte(struct http_chunked *c, unsigned char b)
{
	switch (c->state) {
	case SIZE_FIRST:
	case SIZE:
		return size_byte(c, b);
	case EXTENSION:
		return extension_byte(c, b);
	case SIZE_LF:
		c->line = 0;
		return line_feed(c, b, c->left > 0 ? DATA : TRAILER_FIRST);
	case DATA_CR:
		c->state = DATA_LF;
		return b == '\r';
	case DATA_LF:
		return line_feed(c, b, SIZE_FIRST);
	case TRAILER_LF:
		return line_feed(c, b, TRAILER_FIRST);
	case LAST_LF:
		c->done = true;
		return line_feed(c, b, LAST_LF);
	default:
		return trailer_byte(c, b);
	}
}

int http_chunked_feed(struct http_chunked *c, const char *p, size_t n, size_t *used,
		      struct span *payload)
{
	size_t i = 0, take;

	*payload = (struct span){p, 0};
	while (i < n && !c->done) {
		if (c->state != DATA) {
			if (!framing_byte(c, (unsigned char)p[i++]))
				return PD_EPROTO;
			continue;
		}
		if (payload->n > 0)
			break;
		take = n - i;
		if (c->left < take)
			take = (size_t)c->left;
		*payload = (struct span){p + i, take};
		i += take;
		c->left -= take;
		if (c->left == 0)
			c->state = DATA_CR;
	}
	*used = i;
	return PD_OK;
}
