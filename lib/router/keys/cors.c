/* The lines for each origin are made once; a request costs a look for Origin. */
#include "lib/router/keys/cors.h"

#include <stdlib.h>
#include <string.h>

#define ALLOW "Access-Control-Allow-Origin: "
#define EXPOSE                                                                                     \
	"Access-Control-Expose-Headers: X-Request-Id, X-Worker, X-Prefill-Worker, "                \
	"X-Decode-Worker, Retry-After\r\n"
#define VARY	    "Vary: Origin\r\n"
#define ALLOW_MAX   1024 /* of an origin */
#define REQUEST_MAX 2048 /* of a preflight's list of fields */

static const char any_lines[] = ALLOW "*\r\n" EXPOSE, other_lines[] = VARY;

static bool is_word(const char *s, const char *word)
{
	return strcmp(s, word) == 0;
}

/* What a browser sends: an origin in its serialised form, RFC 6454 6.2. */
static bool is_origin(const char *s)
{
	const char *at = strstr(s, "://");

	if (!at || at == s || !at[3] || strlen(s) > ALLOW_MAX)
		return false;
	for (const char *p = s; *p; p++)
		if (*p <= ' ' || *p > '~' || (*p >= 'A' && *p <= 'Z') || *p == ',' || *p == '*' ||
		    (p >= at + 3 && strchr("/?#@\\", *p)))
			return false;
	return true;
}

int cors_check(const char *const *origins, size_t n, struct pd_msg *msg)
{
	for (size_t i = 0; i < n; i++) {
		const char *s = origins[i];

		if (is_word(s, "none") && n > 1)
			return pd_fail(msg, PD_EINVAL,
				       "--cors-allowed-origins: found none among %zu words, "
				       "expected it alone",
				       n);
		if (!is_word(s, "*") && !is_word(s, "null") && !is_word(s, "none") && !is_origin(s))
			return pd_fail(
				msg, PD_EINVAL,
				"--cors-allowed-origins: found '%.200s', expected "
				"scheme://host[:port] in lower case without a path, *, or none",
				s);
	}
	return PD_OK;
}

int cors_init(struct cors *c, const char *const *origins, size_t n)
{
	int err = PD_OK;

	*c = (struct cors){.any = n == 0, .origin = origins};
	for (size_t i = 0; i < n; i++)
		c->any |= is_word(origins[i], "*");
	if (c->any || is_word(origins[0], "none"))
		return PD_OK;
	c->line = calloc(n, sizeof(*c->line));
	if (!c->line)
		return PD_ENOMEM;
	for (c->n = 0; !err && c->n < n; c->n++) {
		buf_init(&c->line[c->n], 2 * ALLOW_MAX);
		err = buf_printf(&c->line[c->n], ALLOW "%s\r\n" VARY EXPOSE, origins[c->n]);
	}
	return err;
}

void cors_release(struct cors *c)
{
	for (size_t i = 0; i < c->n; i++)
		buf_release(&c->line[i]);
	free(c->line);
	*c = (struct cors){0};
}

struct span cors_lines(const struct cors *c, const struct http_head *h)
{
	const struct field *f = http_field_tag(h, HTTP_ORIGIN);

	if (!f)
		return (struct span){0};
	if (c->any)
		return SPAN(any_lines);
	for (size_t i = 0; i < c->n; i++)
		if (span_eq(f->value, span_of(c->origin[i])))
			return buf_span(&c->line[i]);
	return SPAN(other_lines);
}

bool cors_is_preflight(const struct http_head *h)
{
	return span_eq(h->method, SPAN("OPTIONS")) && h->body == HTTP_BODY_NONE &&
	       http_field_tag(h, HTTP_ORIGIN) &&
	       http_field(h, "access-control-request-method") != NULL;
}

void cors_answer(struct http_conn *conn, struct span lines, const struct http_head *h)
{
	const struct field *asked = http_field(h, "access-control-request-headers");
	struct buf b;
	int err = PD_OK;

	buf_init(&b, REQUEST_MAX + 512);
	if (!span_eq(lines, SPAN(other_lines))) {
		err = buf_puts(&b, "Access-Control-Allow-Methods: GET, HEAD, POST, PUT, PATCH, "
				   "DELETE, OPTIONS\r\nAccess-Control-Max-Age: 3600\r\nVary: "
				   "Access-Control-Request-Headers\r\n");
		/* Named one by one, because * does not include Authorization. */
		if (!err && asked && asked->value.n > 0 && asked->value.n <= REQUEST_MAX)
			err = buf_printf(&b, "Access-Control-Allow-Headers: %.*s\r\n",
					 (int)asked->value.n, asked->value.p);
	}
	(void)http_reply(conn, 200, NULL, err ? NULL : b.data, "", 0);
	buf_release(&b);
}
