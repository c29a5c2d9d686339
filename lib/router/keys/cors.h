/*
 * Cross-origin requests of browsers, as the Fetch standard (https://fetch.spec.whatwg.org, HTTP
 * CORS protocol) has them and vllm-router offers them: which pages may read an answer. The router
 * answers preflights itself and speaks for its workers: what they say about it is replaced.
 * Credentials (cookies) are never allowed; keys travel in Authorization, which is a field like
 * others. Immutable after cors_init, thread-safe.
 */
#ifndef PD_ROUTER_CORS_H
#define PD_ROUTER_CORS_H

#include "lib/base/buf.h"
#include "lib/http/server.h"

struct cors {
	bool any;		   /* no list, or one with "*" */
	size_t n;		   /* of the list */
	struct buf *line;	   /* owned: for each origin what an answer to it says */
	const char *const *origin; /* borrowed */
};

/* SCHEME://HOST[:PORT], null, * or none. PD_EINVAL names the wrong one. */
int cors_check(const char *const *origins, size_t n, struct pd_msg *msg) PD_MUST;
/* The list must have passed cors_check. No origins: any. */
int cors_init(struct cors *c, const char *const *origins, size_t n) PD_MUST;
void cors_release(struct cors *c);
/* Lines for every answer to this request; empty for one that no browser marked with Origin. Valid
 * as long as *c. */
struct span cors_lines(const struct cors *c, const struct http_head *h);
/* A preflight: it is answered before any key is asked for, as browsers send none with it. */
bool cors_is_preflight(const struct http_head *h);
/* The answer; the lines above are set for the connection. */
void cors_answer(struct http_conn *conn, struct span lines, const struct http_head *h);

#endif
