/*
 * Incremental decoder of the chunked transfer coding (RFC 9112 7.1): strict CRLF, sizes of at most
 * 16 hex digits below 2^63, bounded extensions and trailers, which are checked and dropped. Pure;
 * owner thread.
 */
#ifndef PD_HTTP_CHUNK_H
#define PD_HTTP_CHUNK_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

#define HTTP_CHUNK_EXT_MAX     256
#define HTTP_CHUNK_TRAILER_MAX 8192

struct http_chunked {
	int state;
	uint64_t left; /* payload bytes of the current chunk still to come */
	size_t line;   /* bytes seen of the current size or extension, or of all trailers */
	bool extras;   /* an extension or trailer was read: the raw bytes are more than data */
	bool done;     /* the last chunk and its trailers were read */
	int fault;     /* the state in which a byte was refused */
};

void http_chunked_init(struct http_chunked *c);

/*
 * Consumes from p[0..n): sets *used and returns at most one piece of payload (span into p, may be
 * empty). Call again with the rest until *used == n or c->done (bytes after the end are not used).
 * PD_OK, or PD_EPROTO, after which the decoder is of no use; *used is the place of the byte that
 * was refused then. A piece of
 * payload in front of such a byte is returned first.
 */
int http_chunked_feed(struct http_chunked *c, const char *p, size_t n, size_t *used,
		      struct span *payload) PD_MUST;

/* After PD_EPROTO: what was wrong, and the rule; constants. */
const char *http_chunked_why(const struct http_chunked *c, const char **rule);

/* Payload bytes of the current chunk still to come; 0 while its size is being read. */
uint64_t http_chunked_rest(const struct http_chunked *c);

/* True when all bytes fed so far were whole chunks (the next byte starts a chunk size). */
bool http_chunked_at_boundary(const struct http_chunked *c);

#endif
