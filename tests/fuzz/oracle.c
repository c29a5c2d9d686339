/*
 * llhttp behind oracle.h. Its automaton is in automaton.c, because its two halves declare the
 * callbacks between them with different types.
 */
#include "tests/fuzz/oracle.h"

#include <stdio.h>
#include <stdlib.h>

#if __has_include("/usr/share/llhttp/llhttp.c") &&                                                 \
		  __has_include("/usr/share/include/llhttp/llhttp.h")
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

#define TEXT_MAX (1u << 20)

static struct {
	llhttp_t parser; /* first: callbacks cast back */
	struct oracle o;
	bool to_head;
} now;

bool oracle_present(void)
{
	return true;
}

static int put(struct buf *b, const char *p, size_t n)
{
	if (buf_append(b, p, n))
		abort();
	return 0;
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
	(void)p;
	return put(&now.o.target, at, n);
}

static int on_name(llhttp_t *p, const char *at, size_t n)
{
	(void)p;
	return now.o.headers ? 0 : put(&now.o.names, at, n);
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
	(void)p;
	return now.o.headers ? 0 : put(&now.o.values, at, n);
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
	(void)p;
	return put(&now.o.payload, at, n);
}

static int on_name_end(llhttp_t *p)
{
	(void)p;
	return now.o.headers ? 0 : put(&now.o.names, "\n", 1);
}

static int on_value_end(llhttp_t *p)
{
	(void)p;
	return now.o.headers ? 0 : put(&now.o.values, "\n", 1);
}

static int on_headers(llhttp_t *p)
{
	struct oracle *o = &now.o;

	o->headers = true;
	o->chunked = (p->flags & F_CHUNKED) != 0;
	o->has_length = (p->flags & F_CONTENT_LENGTH) != 0;
	o->length = p->content_length;
	o->status = p->status_code;
	o->major = p->http_major;
	o->minor = p->http_minor;
	o->method = p->type == HTTP_REQUEST ? llhttp_method_name((llhttp_method_t)p->method) : "";
	o->needs_eof = llhttp_message_needs_eof(p) != 0;
	o->keep_alive = llhttp_should_keep_alive(p) != 0;
	return now.to_head ? 1 : 0;
}

static int on_complete(llhttp_t *p)
{
	now.o.complete = true;
	now.o.keep_alive = llhttp_should_keep_alive(p) != 0;
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

static void clear(struct buf *b)
{
	if (b->max == 0)
		buf_init(b, TEXT_MAX);
	buf_clear(b);
}

const struct oracle *oracle_start(bool response, bool to_head)
{
	struct oracle *o = &now.o;

	llhttp_init(&now.parser, response ? HTTP_RESPONSE : HTTP_REQUEST, &settings);
	now.to_head = to_head;
	clear(&o->target);
	clear(&o->payload);
	clear(&o->names);
	clear(&o->values);
	o->headers = o->complete = o->refused = o->trailers = false;
	o->reason = "";
	return o;
}

void oracle_feed(const char *p, size_t n)
{
	struct oracle *o = &now.o;
	llhttp_errno_t code;

	if (n == 0 || o->complete || o->refused)
		return;
	code = llhttp_execute(&now.parser, p, n);
	o->refused = code != HPE_OK && code != HPE_PAUSED && code != HPE_PAUSED_UPGRADE;
	o->reason = o->refused ? llhttp_get_error_reason(&now.parser) : "";
	o->trailers = (now.parser.flags & F_TRAILING) != 0;
}
#else
bool oracle_present(void)
{
	return false;
}

const struct oracle *oracle_start(bool response, bool to_head)
{
	(void)response;
	(void)to_head;
	abort();
}

void oracle_feed(const char *p, size_t n)
{
	(void)p;
	(void)n;
	abort();
}
#endif
