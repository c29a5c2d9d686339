/* The message heads that the router writes: what travels, what ends at this hop, what we add. */
#ifndef PD_ROUTER_HEADS_H
#define PD_ROUTER_HEADS_H

#include "lib/base/buf.h"
#include "lib/http/head.h"

struct exchange;
struct worker;

/*
 * Request head for a worker. Content-Length is `length` unless it is SIZE_MAX (no body). `pd`: the
 * answer is read here, so it must come uncompressed. Each of `add` takes the place of the client's
 * fields of that name. The result is in b.
 */
int head_for_worker(struct buf *b, const struct exchange *x, const struct worker *w, size_t length,
		    bool pd, struct span id, const struct field *add, size_t nadd) PD_MUST;
#define HEAD_CHUNKED SIZE_MAX	    /* chunked, or until close for an HTTP/1.0 client */
#define HEAD_NO_BODY (SIZE_MAX - 1) /* nothing to say */

/* Response head for the client: the worker's fields without hop-by-hop ones, ours added; without
 * framing and final empty line. */
int head_for_client(struct buf *b, const struct exchange *x, const struct http_head *h) PD_MUST;
/* Content-Length or one of the two above, Connection, and the empty line. */
int head_frame(struct buf *b, const struct exchange *x, size_t length) PD_MUST;
/* The lines that name the workers and the request id ("X-Worker: ...\r\n..."). */
int head_names(struct buf *b, const struct exchange *x) PD_MUST;
/* An error of our own in the OpenAI shape, with those lines. */
void answer_error(struct exchange *x, int status, const char *type, const char *text);

#endif
