/* Members and types of errors are vLLM's. */
#include "sim/worker/api.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int api_fail(struct api_error *e, int status, const char *param, const char *fmt, ...)
{
	va_list ap;

	e->status = status;
	e->param = param;
	e->type = status >= 500	  ? "InternalServerError"
		  : status == 429 ? "TooManyRequests"
				  : "BadRequestError";
	va_start(ap, fmt);
	(void)vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return status == 404 ? PD_ENOENT : PD_EINVAL;
}

int api_check_json(const struct http_request *r, struct api_error *e)
{
	const struct field *f = http_field_tag(&r->head, HTTP_CONTENT_TYPE);
	struct span type = f ? f->value : (struct span){0};
	const char *semicolon = type.n ? memchr(type.p, ';', type.n) : NULL;

	if (semicolon)
		type.n = (size_t)(semicolon - type.p);
	if (span_eq_case(span_trim(type), SPAN("application/json")))
		return PD_OK;
	return api_fail(e, 400, NULL, "Unsupported Media Type: Only 'application/json' is allowed");
}

/* What vLLM's Anthropic router makes of its own types. */
static const char *anthropic_type(int status)
{
	return status == 404   ? "not_found_error"
	       : status == 429 ? "rate_limit_error"
	       : status >= 500 ? "internal_error"
			       : "invalid_request_error";
}

void api_reply_error(struct http_conn *c, const struct api_error *e, const char *extra)
{
	struct jout o;

	jout_init(&o, 8192);
	if (e->form == API_ANTHROPIC) {
		jout_fmt(&o, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":",
			 anthropic_type(e->status));
		jout_quote(&o, span_of(e->text));
		jout_put(&o, "}}");
	} else {
		jout_put(&o, "{\"error\":{\"message\":");
		jout_quote(&o, span_of(e->text));
		jout_fmt(&o, ",\"type\":\"%s\",\"param\":", e->type);
		if (e->param)
			jout_quote(&o, span_of(e->param));
		else
			jout_put(&o, "null");
		jout_fmt(&o, ",\"code\":%d}}", e->status);
	}
	if (!o.err)
		(void)http_reply(c, e->status, "application/json", extra, o.b.data, o.b.len);
	jout_release(&o);
}

void api_reply(struct http_conn *c, struct jout *o)
{
	if (o->err)
		(void)http_reply_error(c, 500, "InternalServerError", NULL,
				       "building the answer failed: %s", pd_err_text(o->err));
	else
		(void)http_reply(c, 200, "application/json", NULL, o->b.data, o->b.len);
}
