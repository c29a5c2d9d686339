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
	EXT_NAME_FIRST, /* ";name", ";name=token" or ";name=\"text\"" (RFC 9112 7.1.1) */
	EXT_NAME,
	EXT_VALUE_FIRST,
	EXT_VALUE,
	EXT_QUOTED,
	EXT_ESCAPED,
	EXT_QUOTED_END,
	SIZE_LF,
	DATA,
	DATA_CR,
	DATA_LF,
	TRAILER_FIRST, /* the start of a trailer line, or the empty line */
	TRAILER_NAME,
	TRAILER_VALUE,
	TRAILER_LF,
	LAST_LF,
	BAD /* a byte was refused */
};

void http_chunked_init(struct http_chunked *c)
{
	*c = (struct http_chunked){.state = SIZE_FIRST};
}

bool http_chunked_at_boundary(const struct http_chunked *c)
{
	return c->state == SIZE_FIRST;
}

uint64_t http_chunked_rest(const struct http_chunked *c)
{
	return c->state == DATA ? c->left : 0;
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

/* Goes to `next` and says whether that was allowed. */
static bool go(struct http_chunked *c, int next, bool allowed)
{
	c->state = next;
	return allowed;
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
	c->state = b == ';' ? EXT_NAME_FIRST : SIZE_LF;
	c->extras |= b == ';';
	return b == ';' || b == '\r';
}

/* A byte after a whole extension or its name. */
static bool extension_end(struct http_chunked *c, unsigned char b)
{
	return go(c, b == ';' ? EXT_NAME_FIRST : SIZE_LF, b == ';' || b == '\r');
}

/* Blanks around ';' and '=' are not taken: only bad senders make them. */
static bool extension_byte(struct http_chunked *c, unsigned char b)
{
	if (b != '\r' && ++c->line > HTTP_CHUNK_EXT_MAX)
		return false;
	switch (c->state) {
	case EXT_NAME_FIRST:
		return go(c, EXT_NAME, is_name(b));
	case EXT_NAME:
		if (b == '=')
			return go(c, EXT_VALUE_FIRST, true);
		return is_name(b) || extension_end(c, b);
	case EXT_VALUE_FIRST:
		return go(c, b == '"' ? EXT_QUOTED : EXT_VALUE, b == '"' || is_name(b));
	case EXT_VALUE:
		return is_name(b) || extension_end(c, b);
	case EXT_QUOTED:
		c->state = b == '"' ? EXT_QUOTED_END : b == '\\' ? EXT_ESCAPED : EXT_QUOTED;
		return is_text(b);
	case EXT_ESCAPED:
		return go(c, EXT_QUOTED, is_text(b));
	default:
		return extension_end(c, b);
	}
}

static bool trailer_byte(struct http_chunked *c, unsigned char b)
{
	if (++c->line > HTTP_CHUNK_TRAILER_MAX)
		return false;
	switch (c->state) {
	case TRAILER_FIRST:
		c->state = b == '\r' ? LAST_LF : TRAILER_NAME;
		c->extras |= b != '\r';
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

/* Any byte that is not payload. False: not chunked coding. */
static bool framing_byte(struct http_chunked *c, unsigned char b)
{
	switch (c->state) {
	case SIZE_FIRST:
	case SIZE:
		return size_byte(c, b);
	case SIZE_LF:
		c->line = 0;
		return go(c, c->left > 0 ? DATA : TRAILER_FIRST, b == '\n');
	case DATA_CR:
		return go(c, DATA_LF, b == '\r');
	case DATA_LF:
		return go(c, SIZE_FIRST, b == '\n');
	case TRAILER_LF:
		return go(c, TRAILER_FIRST, b == '\n');
	case LAST_LF:
		c->done = b == '\n';
		return c->done;
	case BAD:
		return false;
	case TRAILER_FIRST:
	case TRAILER_NAME:
	case TRAILER_VALUE:
		return trailer_byte(c, b);
	default:
		return extension_byte(c, b);
	}
}

const char *http_chunked_why(const struct http_chunked *c, const char **rule)
{
	switch (c->fault) {
	case SIZE_FIRST:
	case SIZE:
		*rule = "RFC 9112 7.1";
		return "a chunk size is not a hexadecimal number below 2^63";
	case SIZE_LF:
		*rule = "RFC 9112 7.1";
		return "the line of a chunk size does not end with CR LF";
	case DATA_CR:
	case DATA_LF:
		*rule = "RFC 9112 7.1";
		return "the data of a chunk is longer than its size";
	case LAST_LF:
	case TRAILER_LF:
		*rule = "RFC 9112 7.1.2";
		return "a line behind the last chunk does not end with CR LF";
	case TRAILER_FIRST:
	case TRAILER_NAME:
	case TRAILER_VALUE:
		*rule = "RFC 9112 7.1.2";
		return "a trailer field is malformed or too long";
	default:
		*rule = "RFC 9112 7.1.1";
		return "a chunk extension is malformed or too long";
	}
}

int http_chunked_feed(struct http_chunked *c, const char *p, size_t n, size_t *used,
		      struct span *payload)
{
	size_t i = 0, take;
	int state;

	*payload = (struct span){p, 0};
	while (i < n && !c->done) {
		if (c->state != DATA) {
			state = c->state;
			if (framing_byte(c, (unsigned char)p[i++]))
				continue;
			/* The payload before it counts: the next call says what is wrong. */
			c->fault = state == BAD ? c->fault : state;
			c->state = BAD;
			*used = i - 1;
			return payload->n > 0 ? PD_OK : PD_EPROTO;
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
