/*
 * Message heads and chunked bodies against two oracles.
 *
 * First byte: bit 0 response, bit 1 response to HEAD, the rest the size of the first piece; the
 * message follows. (1) The verdict and every span must be the same when the message arrives in two
 * pieces and byte by byte. (2) Whatever we accept, llhttp must accept, and agree about method,
 * target, status, fields, framing, payload and keep-alive. One way only: llhttp accepts folded
 * lines and a missing Host, we do not.
 *
 * Differences that are left out because they are safe: methods that llhttp does not know; a tab
 * after the value of a framing field, which it refuses; a tab between the items of Connection,
 * which it takes for part of an item; trailers, which we check and drop while it reads meaning into
 * their names; an extension after one with a token value, and quoted pairs in extensions, which it
 * refuses; the framing fields of a 304, which has no body whatever they say.
 *
 * llhttp comes as C source with Debian's package node-llhttp and is used by this test only. Its
 * automaton is compiled in oracle.c, because its two halves declare the callbacks between them with
 * different types.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/http/chunk.h"
#include "lib/http/head.h"

#if __has_include("/usr/share/llhttp/llhttp.c") &&                                                 \
		  __has_include("/usr/share/include/llhttp/llhttp.h")
#define ORACLE 1
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#pragma GCC diagnostic ignored "-Wold-style-definition"
#pragma GCC diagnostic ignored "-Wundef"
#pragma GCC diagnostic ignored "-Wpointer-arith"
#pragma GCC diagnostic ignored "-Wimplicit-fallthrough"
#include "/usr/share/llhttp/api.c"
#include "/usr/share/llhttp/http.c"
#pragma GCC diagnostic pop
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define PAYLOAD_MAX (1u << 20)

struct mode {
	bool response, to_head;
	size_t first;
};

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_http: %s\n", what);
		abort();
	}
}

/* NOLINTNEXTLINE(readability-non-const-parameter): the type that libFuzzer calls */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
#ifndef ORACLE
	puts("# SKIP the comparison with llhttp: install the package node-llhttp to have it");
#endif
	return 0;
}

static int parse(struct http_head *h, const struct mode *m, const char *p, size_t n,
		 size_t *scanned)
{
	return m->response ? http_response_parse(h, p, n, scanned, m->to_head)
			   : http_request_parse(h, p, n, scanned);
}

static void same_head(const struct http_head *a, const struct http_head *b)
{
	expect(a->len == b->len && a->nfields == b->nfields && a->status == b->status,
	       "a piece changed the size");
	expect(span_eq(a->method, b->method) && span_eq(a->target, b->target) &&
		       span_eq(a->path, b->path) && span_eq(a->reason, b->reason),
	       "a piece changed the first line");
	expect(a->body == b->body && a->length == b->length && a->keep_alive == b->keep_alive &&
		       a->minor == b->minor && a->expect_continue == b->expect_continue,
	       "a piece changed the framing");
	for (size_t i = 0; i < a->nfields; i++)
		expect(span_eq(a->field[i].name, b->field[i].name) &&
			       span_eq(a->field[i].value, b->field[i].value) &&
			       a->field[i].tag == b->field[i].tag,
		       "a piece changed a field");
}

/* Pieces of `step` bytes after the first; verdict and head must be those of the whole. */
static void in_pieces(const struct mode *m, const char *p, size_t n, size_t first, size_t step,
		      const struct http_head *whole, int verdict)
{
	static struct http_head h;
	size_t scanned = 0, have = first < n ? first : n;
	int err;

	while ((err = parse(&h, m, p, have, &scanned)) == PD_EAGAIN && have < n)
		have = n - have < step ? n : have + step;
	if (verdict == PD_OK) {
		expect(err == PD_OK, "accepted whole, refused in pieces");
		same_head(whole, &h);
	} else {
		/* a fault may be reported later when the end of the head is still missing, but
		 * never as success */
		expect(err != PD_OK, "refused whole, accepted in pieces");
	}
}

/* What must hold for every accepted head, whoever else agrees. */
static void plausible(const struct http_head *h, const struct mode *m, const char *p, size_t n)
{
	expect(h->len <= n && h->len >= 4 && memcmp(p + h->len - 4, "\r\n\r\n", 4) == 0,
	       "the head's end");
	expect(h->nfields <= HTTP_FIELDS_MAX, "too many fields");
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

#ifdef ORACLE
struct seen {
	llhttp_t parser;			/* first: callbacks cast back */
	struct buf url, names, values, payload; /* names and values: one per line */
	bool skip_body, headers, complete, keep_alive, keep_known, needs_eof;
	unsigned flags;
	uint64_t length;
	int status, major, minor;
	unsigned method;
};

static int put(struct buf *b, const char *p, size_t n)
{
	expect(buf_append(b, p, n) == PD_OK, "memory");
	return 0;
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
	return put(&((struct seen *)p)->url, at, n);
}

static int on_name(llhttp_t *p, const char *at, size_t n)
{
	return put(&((struct seen *)p)->names, at, n);
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
	return put(&((struct seen *)p)->values, at, n);
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
	return put(&((struct seen *)p)->payload, at, n);
}

static int on_name_end(llhttp_t *p)
{
	struct seen *s = (struct seen *)p;

	return s->headers ? 0 : put(&s->names, "\n", 1);
}

static int on_value_end(llhttp_t *p)
{
	struct seen *s = (struct seen *)p;

	return s->headers ? 0 : put(&s->values, "\n", 1);
}

static int on_headers(llhttp_t *p)
{
	struct seen *s = (struct seen *)p;

	s->headers = true;
	s->flags = p->flags;
	s->length = p->content_length;
	s->status = p->status_code;
	s->major = p->http_major;
	s->minor = p->http_minor;
	s->method = p->method;
	s->needs_eof = llhttp_message_needs_eof(p) != 0;
	s->keep_alive = llhttp_should_keep_alive(p) != 0;
	return s->skip_body ? 1 : 0;
}

static int on_complete(llhttp_t *p)
{
	struct seen *s = (struct seen *)p;

	s->complete = true;
	s->keep_alive = llhttp_should_keep_alive(p) != 0;
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_url = on_url,
	.on_header_field = on_name,
	.on_header_value = on_value,
	.on_header_field_complete = on_name_end,
	.on_header_value_complete = on_value_end,
	.on_headers_complete = on_headers,
	.on_body = on_body,
	.on_message_complete = on_complete,
};

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
	const char *p = all->data + *at, *lf = memchr(p, '\n', all->len - *at);

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

static void compare_head(const struct seen *s, const struct http_head *h, const struct mode *m)
{
	size_t name = 0, value = 0;

	expect(s->major == 1 && s->minor == h->minor, "llhttp reads another version");
	if (m->response) {
		expect(s->status == h->status, "llhttp reads another status");
	} else {
		expect(span_eq(span_of(llhttp_method_name((llhttp_method_t)s->method)), h->method),
		       "llhttp reads another method");
		expect(span_eq(buf_span(&s->url), h->target), "llhttp reads another target");
	}
	for (size_t i = 0; i < h->nfields; i++) {
		next_is(&s->names, &name, h->field[i].name, "llhttp reads another field name");
		next_is(&s->values, &value, h->field[i].value, "llhttp reads another field value");
	}
	expect(name == s->names.len && value == s->values.len, "llhttp reads more fields");
	switch (h->body) {
	case HTTP_BODY_CHUNKED:
		expect((s->flags & F_CHUNKED) != 0, "llhttp does not see chunks");
		break;
	case HTTP_BODY_LENGTH:
		expect(!(s->flags & F_CHUNKED) && (s->flags & F_CONTENT_LENGTH) &&
			       s->length == h->length,
		       "llhttp reads another length");
		break;
	case HTTP_BODY_CLOSE:
		expect(s->needs_eof, "llhttp does not read until the end");
		break;
	default:
		expect(m->response || !(s->flags & (F_CHUNKED | F_CONTENT_LENGTH)),
		       "llhttp sees a body");
		expect(!m->response || m->to_head || s->complete || s->status == 304,
		       "llhttp waits for a body");
		break;
	}
	/* "keep-alive, close" under 1.0: we close, llhttp does not */
	expect(s->keep_alive == h->keep_alive || (h->minor == 0 && !h->keep_alive) ||
		       tab_in(h, HTTP_CONNECTION),
	       "llhttp disagrees about keep-alive");
}

static void compare_payload(struct seen *s, const char *p, size_t n)
{
	struct buf ours;
	size_t used;
	bool done, refused;
	llhttp_errno_t code;
	int err;

	buf_init(&ours, PAYLOAD_MAX);
	done = our_payload(p, n, &ours, &used, &err);
	if (err == PD_OK) {
		code = llhttp_execute(&s->parser, p, used);
		refused = code != HPE_OK && code != HPE_PAUSED && code != HPE_PAUSED_UPGRADE;
		/* trailers and extensions: see the top of the file */
		if (!refused || (!(s->parser.flags & F_TRAILING) && !memchr(p, ';', used))) {
			expect(!refused, "llhttp refuses a chunked body");
			expect(span_eq(buf_span(&ours), buf_span(&s->payload)),
			       "llhttp reads another payload");
			expect(s->complete == done, "llhttp disagrees about the end of the body");
		}
	}
	buf_release(&ours);
}

static void seen_release(struct seen *s)
{
	buf_release(&s->url);
	buf_release(&s->names);
	buf_release(&s->values);
	buf_release(&s->payload);
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

static void compare(const struct http_head *h, const struct mode *m, const char *p, size_t n)
{
	struct seen s = {.skip_body = m->response && m->to_head};
	llhttp_errno_t code;

	if ((!m->response && !knows_method(h->method)) || tab_after_framing(h))
		return;
	llhttp_init(&s.parser, m->response ? HTTP_RESPONSE : HTTP_REQUEST, &settings);
	buf_init(&s.url, PAYLOAD_MAX);
	buf_init(&s.names, PAYLOAD_MAX);
	buf_init(&s.values, PAYLOAD_MAX);
	buf_init(&s.payload, PAYLOAD_MAX);
	code = llhttp_execute(&s.parser, p, h->len);
	if (code != HPE_OK && code != HPE_PAUSED && code != HPE_PAUSED_UPGRADE)
		fprintf(stderr, "llhttp: %s\n", llhttp_get_error_reason(&s.parser));
	expect(code == HPE_OK || code == HPE_PAUSED || code == HPE_PAUSED_UPGRADE,
	       "llhttp refuses a head");
	expect(s.headers, "llhttp does not see the end of the head");
	compare_head(&s, h, m);
	if (h->body == HTTP_BODY_CHUNKED && code == HPE_OK)
		compare_payload(&s, p + h->len, n - h->len);
	seen_release(&s);
}
#else
static void compare(const struct http_head *h, const struct mode *m, const char *p, size_t n)
{
	struct buf ours;
	size_t used;
	int err;

	(void)m;
	buf_init(&ours, PAYLOAD_MAX);
	if (h->body == HTTP_BODY_CHUNKED)
		(void)our_payload(p + h->len, n - h->len, &ours, &used, &err);
	buf_release(&ours);
}
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct http_head h;
	struct mode m;
	const char *p;
	size_t scanned = 0;
	int err;

	if (n < 2 || n > PAYLOAD_MAX / 2)
		return 0;
	m = (struct mode){data[0] & 1, (data[0] & 2) != 0, (size_t)(data[0] >> 2) + 1};
	p = (const char *)data + 1;
	n--;
	err = parse(&h, &m, p, n, &scanned);
	expect(err == PD_OK || err == PD_EAGAIN || err == PD_EPROTO || err == PD_ETOOBIG,
	       "an unknown verdict");
	expect((err == PD_EPROTO || err == PD_ETOOBIG) == (h.why != NULL),
	       "a refusal without reason, or the reverse");
	in_pieces(&m, p, n, m.first, n, &h, err);
	in_pieces(&m, p, n, m.first, 1, &h, err);
	if (err == PD_OK) {
		plausible(&h, &m, p, n);
		compare(&h, &m, p, n);
	}
	return 0;
}
