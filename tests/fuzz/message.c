/*
 * Differences with llhttp that are left out because they are safe: methods that it does not know; a
 * tab after the value of a framing field, which it refuses; a tab between the items of Connection,
 * which it takes for part of an item; "keep-alive, close" under 1.0, where we close and it does
 * not; trailers, which we check and drop while it reads meaning into their names; an extension
 * after one with a token value, and quoted pairs in extensions, which it refuses; the framing
 * fields of a 304, which has no body whatever they say.
 */
#include "tests/fuzz/message.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/http/chunk.h"
#include "tests/fuzz/oracle.h"

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "message: %s\n", what);
		abort();
	}
}

static int parse(struct http_head *h, const struct message_mode *m, const char *p, size_t n,
		 size_t *scanned)
{
	return m->response ? http_response_parse(h, p, n, scanned, m->to_head)
			   : http_request_parse(h, p, n, scanned);
}

static void same_head(const struct http_head *a, const struct http_head *b)
{
	expect(a->nfields == b->nfields && a->status == b->status, "another size");
	expect(span_eq(a->method, b->method) && span_eq(a->target, b->target) &&
		       span_eq(a->path, b->path) && span_eq(a->reason, b->reason),
	       "another first line");
	expect(a->body == b->body && a->length == b->length && a->keep_alive == b->keep_alive &&
		       a->minor == b->minor && a->expect_continue == b->expect_continue,
	       "another framing");
	for (size_t i = 0; i < a->nfields; i++)
		expect(span_eq(a->field[i].name, b->field[i].name) &&
			       span_eq(a->field[i].value, b->field[i].value) &&
			       a->field[i].tag == b->field[i].tag,
		       "another field");
}

/* Pieces of `step` bytes after the first; verdict and head must be those of the whole. */
static void in_pieces(const struct message_mode *m, const char *p, size_t n, size_t first,
		      size_t step, const struct http_head *whole, int verdict)
{
	static struct http_head h;
	size_t scanned = 0, have = first < n ? first : n;
	int err;

	while ((err = parse(&h, m, p, have, &scanned)) == PD_EAGAIN && have < n)
		have = n - have < step ? n : have + step;
	if (verdict == PD_OK) {
		expect(err == PD_OK, "accepted whole, refused in pieces");
		expect(whole->len == h.len, "a piece changed the length");
		same_head(whole, &h);
	} else {
		/* a fault may be reported later when the end of the head is still missing, but
		 * never as success */
		expect(err != PD_OK, "refused whole, accepted in pieces");
	}
}

/* What must hold for every accepted head, whoever else agrees. */
static void plausible(const struct http_head *h, const struct message_mode *m, const char *p,
		      size_t n)
{
	expect(h->len <= n && h->len >= 4 && memcmp(p + h->len - 4, "\r\n\r\n", 4) == 0,
	       "the head's end");
	expect(h->len <= HTTP_HEAD_MAX && h->nfields <= HTTP_FIELDS_MAX, "a limit is crossed");
	expect(m->response || (h->method.n > 0 && h->path.n > 0),
	       "a request without method or path");
	expect(m->response || (h->path.p >= h->target.p &&
			       h->path.p + h->path.n <= h->target.p + h->target.n),
	       "a path outside of the target");
	expect(m->response || h->body != HTTP_BODY_CLOSE,
	       "a request that lasts until the connection closes");
	expect(!memchr(p, '\0', h->len), "a NUL in the head");
	for (size_t i = 0; i < h->nfields; i++) {
		struct span v = h->field[i].value;

		expect(h->field[i].name.n > 0 && span_trim(v).n == v.n, "a field");
		expect(v.n == 0 || (!memchr(v.p, '\r', v.n) && !memchr(v.p, '\n', v.n)),
		       "a line end in a value");
	}
}

static void put(struct buf *b, struct span s)
{
	expect(buf_append(b, s.p, s.n) == PD_OK, "memory");
}

void message_print(struct buf *out, const struct http_head *h, bool response)
{
	struct span version = h->minor ? SPAN("HTTP/1.1") : SPAN("HTTP/1.0");
	char status[16];

	buf_clear(out);
	if (response) {
		(void)snprintf(status, sizeof(status), " %d ", h->status);
		put(out, version);
		put(out, span_of(status));
		put(out, h->reason);
	} else {
		put(out, h->method);
		put(out, SPAN(" "));
		put(out, h->target);
		put(out, SPAN(" "));
		put(out, version);
	}
	put(out, SPAN("\r\n"));
	for (size_t i = 0; i < h->nfields; i++) {
		put(out, h->field[i].name);
		put(out, SPAN(":"));
		put(out, h->field[i].value);
		put(out, SPAN("\r\n"));
	}
	put(out, SPAN("\r\n"));
}

static void printed_again(const struct http_head *h, const struct message_mode *m)
{
	static struct http_head again;
	static struct buf text;
	size_t scanned = 0;

	if (text.max == 0)
		buf_init(&text, 2 * MESSAGE_MAX);
	message_print(&text, h, m->response);
	if (text.len > HTTP_HEAD_MAX) /* a status line may be one blank shorter than printed */
		return;
	expect(parse(&again, m, text.data, text.len, &scanned) == PD_OK, "printed and refused");
	expect(again.len == text.len, "printed and cut");
	same_head(h, &again);
}

/* Our payload of a chunked body; true when it ended within the input. */
static bool our_payload(const char *p, size_t n, struct buf *out, size_t *used, int *err)
{
	struct http_chunked c;
	struct span piece;
	size_t took;

	*used = 0;
	http_chunked_init(&c);
	while (*used < n && !c.done) {
		*err = http_chunked_feed(&c, p + *used, n - *used, &took, &piece);
		if (*err)
			return false;
		expect(buf_append(out, piece.p, piece.n) == PD_OK, "memory");
		*used += took;
	}
	*err = PD_OK;
	return c.done;
}

static bool knows_method(struct span method)
{
	static const char *const names[] = {"DELETE", "GET",	 "HEAD",  "POST",
					    "PUT",    "OPTIONS", "TRACE", "PATCH"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (span_eq(method, span_of(names[i])))
			return true;
	return false;
}

/* The next line of `all` (from *at) must be `want` apart from blanks around it. */
static void next_is(const struct buf *all, size_t *at, struct span want, const char *what)
{
	const char *p = all->data + *at, *lf = all->data ? memchr(p, '\n', all->len - *at) : NULL;

	expect(lf != NULL, what);
	expect(span_eq(span_trim((struct span){p, (size_t)(lf - p)}), want), what);
	*at += (size_t)(lf - p) + 1;
}

/* A tab in a list is blank for RFC 9110 5.6.1 and part of the item for llhttp. */
static bool tab_in(const struct http_head *h, enum http_name tag)
{
	for (size_t i = 0; i < h->nfields; i++)
		if (h->field[i].tag == (unsigned)tag && h->field[i].value.n > 0 &&
		    memchr(h->field[i].value.p, '\t', h->field[i].value.n))
			return true;
	return false;
}

/* llhttp refuses a tab after the value of a framing field, which RFC 9110 5.5 allows. */
static bool tab_after_framing(const struct http_head *h)
{
	for (size_t i = 0; i < h->nfields; i++) {
		const char *p = h->field[i].value.p + h->field[i].value.n;

		if (h->field[i].tag != HTTP_CONTENT_LENGTH &&
		    h->field[i].tag != HTTP_TRANSFER_ENCODING)
			continue;
		while (*p == ' ')
			p++;
		if (*p == '\t')
			return true;
	}
	return false;
}

static void compare_body(const struct oracle *o, const struct http_head *h,
			 const struct message_mode *m)
{
	switch (h->body) {
	case HTTP_BODY_CHUNKED:
		expect(o->chunked, "llhttp does not see chunks");
		break;
	case HTTP_BODY_LENGTH:
		expect(!o->chunked && o->has_length && o->length == h->length,
		       "llhttp reads another length");
		break;
	case HTTP_BODY_CLOSE:
		expect(o->needs_eof, "llhttp does not read until the end");
		break;
	default:
		expect(m->response || !(o->chunked || o->has_length), "llhttp sees a body");
		expect(!m->response || m->to_head || o->complete || o->status == 304,
		       "llhttp waits for a body");
		break;
	}
}

static void compare_head(const struct oracle *o, const struct http_head *h,
			 const struct message_mode *m)
{
	size_t name = 0, value = 0;

	expect(o->major == 1 && o->minor == h->minor, "llhttp reads another version");
	if (m->response) {
		expect(o->status == h->status, "llhttp reads another status");
	} else {
		expect(span_eq(span_of(o->method), h->method), "llhttp reads another method");
		expect(span_eq(buf_span(&o->target), h->target), "llhttp reads another target");
	}
	for (size_t i = 0; i < h->nfields; i++) {
		next_is(&o->names, &name, h->field[i].name, "llhttp reads another field name");
		next_is(&o->values, &value, h->field[i].value, "llhttp reads another field value");
	}
	expect(name == o->names.len && value == o->values.len, "llhttp reads more fields");
	compare_body(o, h, m);
	/* "keep-alive, close" under 1.0: we close, llhttp does not */
	expect(o->keep_alive == h->keep_alive || (h->minor == 0 && !h->keep_alive) ||
		       tab_in(h, HTTP_CONNECTION),
	       "llhttp disagrees about keep-alive");
}

static void compare_payload(const struct oracle *o, const char *p, size_t n)
{
	static struct buf ours;
	size_t used;
	bool done;
	int err;

	if (ours.max == 0)
		buf_init(&ours, MESSAGE_MAX);
	buf_clear(&ours);
	done = our_payload(p, n, &ours, &used, &err);
	if (err)
		return;
	oracle_feed(p, used);
	/* trailers and extensions: see the top of the file */
	if (o->refused && (o->trailers || memchr(p, ';', used)))
		return;
	expect(!o->refused, "llhttp refuses a chunked body");
	expect(span_eq(buf_span(&ours), buf_span(&o->payload)), "llhttp reads another payload");
	expect(o->complete == done, "llhttp disagrees about the end of the body");
}

static void compare_accepted(const struct http_head *h, const struct message_mode *m, const char *p,
			     size_t n)
{
	const struct oracle *o;

	if ((!m->response && !knows_method(h->method)) || tab_after_framing(h))
		return;
	o = oracle_start(m->response, m->response && m->to_head);
	oracle_feed(p, h->len);
	if (o->refused)
		fprintf(stderr, "llhttp: %s\n", o->reason);
	expect(!o->refused, "llhttp refuses a head");
	expect(o->headers, "llhttp does not see the end of the head");
	compare_head(o, h, m);
	if (h->body == HTTP_BODY_CHUNKED && !o->complete)
		compare_payload(o, p + h->len, n - h->len);
}

const char *const message_stricter[] = {
	"a line ends with a bare line feed",
	"a control byte in the message head",
	"a carriage return without a line feed",
	"the first line does not name an HTTP version",
	"only HTTP/1.0 and HTTP/1.1 are supported",
	"the request line does not start with a method",
	"the request target is malformed",
	"the request target is too long",
	"CONNECT is not supported",
	"the status code is malformed",
	"a field with obsolete line folding",
	"a space in a field name or before its colon",
	"a field name is malformed",
	"too many header fields",
	"the message head is too large",
	"Host is missing",
	"Host is repeated",
	"Host is malformed",
	"Content-Length is repeated or not a number",
	"Transfer-Encoding is repeated or not \"chunked\"",
	"HTTP/1.0 has no Transfer-Encoding",
	"Connection names too many fields",
	"unknown expectation, expected 100-continue",
	"Authorization is repeated",
	"Content-Type is repeated",
	"a known field name with underscores for hyphens",
	"TRACE is not supported: it would show the fields added for workers",
	"found 101 Switching Protocols, but no Upgrade was sent",
	"a status that allows no content announces some",
	NULL,
};

/* The reverse: it is fine to be stricter, for reasons that are written down. */
static void compare_refused(const struct http_head *h, const struct message_mode *m, const char *p,
			    size_t n)
{
	const struct oracle *o = oracle_start(m->response, m->response && m->to_head);

	oracle_feed(p, n);
	if (!o->headers)
		return;
	for (size_t i = 0; message_stricter[i]; i++)
		if (strcmp(message_stricter[i], h->why) == 0)
			return;
	fprintf(stderr, "reason: %s\n", h->why);
	expect(false, "llhttp accepts what we refuse, for a reason that docs/http-strictness.md "
		      "and message_stricter[] do not have");
}

int message_check(struct http_head *h, const struct message_mode *m, const char *p, size_t n)
{
	size_t scanned = 0;
	int err = parse(h, m, p, n, &scanned);

	expect(err == PD_OK || err == PD_EAGAIN || err == PD_EPROTO || err == PD_ETOOBIG,
	       "an unknown verdict");
	expect((err == PD_EPROTO || err == PD_ETOOBIG) == (h->why != NULL),
	       "a refusal without reason, or the reverse");
	expect(h->why == NULL || (m->response ? h->refuse == 502 : h->refuse >= 400),
	       "a refusal without status");
	expect(h->why == NULL || (h->rule && h->rule[0] && h->at <= n),
	       "a refusal without its rule, or of a byte that is not there");
	expect(scanned <= n, "scanned more than is there");
	in_pieces(m, p, n, m->first, n, h, err);
	in_pieces(m, p, n, m->first, 1, h, err);
	if (err == PD_OK) {
		plausible(h, m, p, n);
		printed_again(h, m);
		if (oracle_present())
			compare_accepted(h, m, p, n);
	} else if (h->why && oracle_present()) {
		compare_refused(h, m, p, n);
	}
	return err;
}
