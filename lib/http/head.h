/*
 * Strict HTTP/1.1 message heads (RFC 9112), requests and responses.
 *
 * Rejected, because proxies that disagree about them can be tricked: bare LF, folded lines, NUL,
 * bare CR or control bytes in values, space before a colon, Content-Length with Transfer-Encoding,
 * repeated or malformed Content-Length, any Transfer-Encoding but exactly "chunked", unknown
 * versions, missing or double Host in 1.1, double Authorization or Content-Type in a request, a
 * known name spelt with underscores in a request (some readers take them for hyphens), CONNECT and
 * TRACE. Only new bytes are scanned when a head arrives
 * in pieces. Results are spans into the caller's buffer: valid until it changes. Pure, thread-safe.
 */
#ifndef PD_HTTP_HEAD_H
#define PD_HTTP_HEAD_H

#include <stdint.h>
#include <sys/types.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

#define HTTP_HEAD_MAX	65536
#define HTTP_FIELDS_MAX 100
#define HTTP_FIELDS_FEW 16 /* more take memory of their own */

enum http_body { HTTP_BODY_NONE, HTTP_BODY_LENGTH, HTTP_BODY_CHUNKED, HTTP_BODY_CLOSE };

/* field.tag: the names that the program acts on, recognised once while parsing. */
enum http_name {
	HTTP_OTHER,
	HTTP_HOST,
	HTTP_CONNECTION,
	HTTP_KEEP_ALIVE,
	HTTP_PROXY_CONNECTION,
	HTTP_PROXY_AUTHENTICATE,
	HTTP_PROXY_AUTHORIZATION,
	HTTP_TE,
	HTTP_TRAILER,
	HTTP_TRANSFER_ENCODING,
	HTTP_UPGRADE,
	HTTP_CONTENT_LENGTH,
	HTTP_CONTENT_TYPE,
	HTTP_CONTENT_ENCODING,
	HTTP_EXPECT,
	HTTP_RETRY_AFTER,
	HTTP_X_REQUEST_ID,
	HTTP_TRACEPARENT,
	HTTP_TRACESTATE,
	HTTP_AUTHORIZATION,
	HTTP_DATE,
	HTTP_SERVER,
	HTTP_ACCEPT,
	HTTP_ACCEPT_ENCODING,
	HTTP_VIA,
	HTTP_ORIGIN,
	HTTP_X_API_KEY,
	HTTP_X_FORWARDED_FOR,
	HTTP_FORWARDED, /* Forwarded, X-Real-IP and the other X-Forwarded fields */
	HTTP_RANK,	/* X-data-parallel-rank */
	HTTP_ROUTING,	/* names a host: for gateways and sidecars to say, never for clients */
	HTTP_NAMED_BY_CONNECTION /* a field that Connection names: hop by hop */
};

struct http_head {
	struct span method;  /* requests */
	struct span target;  /* requests: as sent; origin form ("/...") or "*" (OPTIONS); absolute
				form is accepted and kept */
	struct span path;    /* requests: the path of target, without query; lies inside target */
	int status;	     /* responses */
	struct span reason;  /* responses */
	int minor;	     /* HTTP/1.minor: 0 or 1 */
	struct field *field; /* `few`, or `many` */
	size_t nfields;
	struct field *many; /* owned; kept for the next head */
	size_t len;	    /* bytes of the head including the empty line */
	enum http_body body;
	uint64_t length; /* with HTTP_BODY_LENGTH */
	bool keep_alive; /* by version and Connection */
	bool expect_continue;
	int refuse; /* parse failed: the status to answer (400, 413?, 414, 417, 431, 501, 505) */
	const char *why;   /* parse failed: a constant sentence */
	const char *rule;  /* the rule that says so, "RFC 9112 2.2"; constant */
	size_t at;	   /* of the byte that breaks it, or of the value that does */
	const char *start; /* private: where the message begins */
	struct field few[HTTP_FIELDS_FEW]; /* last: what is not filled needs no zeros */
};

/*
 * A head is all zero (but for `few`) before its first use, is parsed into as often as wanted, and
 * is released in the end. It points into itself: never copy it.
 */
void http_head_release(struct http_head *h);
/* Room for one more field, which the caller writes before counting it in; NULL: too many. */
struct field *http_head_room(struct http_head *h);

/*
 * Parses buf[0..n). *scanned must be 0 for a new message and is advanced over bytes already seen.
 * Returns PD_OK (head complete), PD_EAGAIN (incomplete), PD_EPROTO or PD_ETOOBIG (h->refuse,
 * h->why, h->rule and h->at are set). Leading empty lines (at most 2) before a request line are
 * skipped, as RFC 9112 2.2 asks; h->len counts them.
 */
int http_request_parse(struct http_head *h, const char *buf, size_t n, size_t *scanned) PD_MUST;

/* For a response to `head_request` (HEAD) there is no body whatever the fields say; 1xx, 204 and
 * 304 have none either. */
int http_response_parse(struct http_head *h, const char *buf, size_t n, size_t *scanned,
			bool head_request) PD_MUST;

/* First field with this tag or (case-insensitive) name; NULL when absent. */
const struct field *http_field_tag(const struct http_head *h, enum http_name tag);
const struct field *http_field(const struct http_head *h, const char *name);

/* True for fields that end at this hop (RFC 9110 7.6.1), including those named in Connection. */
bool http_hop_by_hop(const struct field *f);

/* What a Retry-After asks for, ns, at most one hour: a number of seconds, or a date (RFC 9110,
 * 10.2.3) against the wall clock, ns since the epoch. 0: it is neither, or has passed. */
int64_t http_retry_after(struct span value, int64_t wall);

/* Reason phrase of a status code; "Unknown" for others. */
const char *http_reason(int status);

#endif
