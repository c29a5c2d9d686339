/*
 * vllm-router's keys: its six headers in its order, four body fields, the body itself. Two things
 * are better on purpose: body fields are found by a real scan, so that text inside a prompt is
 * never taken for a field, and null is no value. For bodies without such accidents the keys are the
 * same bytes, and so sessions keep their worker.
 */
#include "lib/route/hash.h"
#include "lib/route/key/key_text.h"

#include <stdio.h>

#define TEXT_MAX 100 /* bytes of a body that is its own key */

static const struct {
	const char *name;
	enum route_key_level level;
} header[] = {
	{"x-session-id", ROUTE_KEY_SESSION}, {"x-user-id", ROUTE_KEY_USER},
	{"x-tenant-id", ROUTE_KEY_USER},     {"x-correlation-id", ROUTE_KEY_SESSION},
	{"x-request-id", ROUTE_KEY_SESSION}, {"x-trace-id", ROUTE_KEY_SESSION},
};

static const struct {
	const char *path, *prefix;
	enum route_key_level level;
} field[] = {
	{"session_params.session_id", "session:", ROUTE_KEY_SESSION},
	{"user", "user:", ROUTE_KEY_USER},
	{"session_id", "session:", ROUTE_KEY_SESSION},
	{"user_id", "user:", ROUTE_KEY_USER},
};

static bool from_headers(const struct field *headers, size_t n, struct route_key *out)
{
	for (size_t i = 0; i < sizeof(header) / sizeof(header[0]); i++) {
		struct key_piece piece[4] = {{SPAN("header:"), false},
					     {span_of(header[i].name), false},
					     {SPAN(":"), false}};

		if (!key_header(headers, n, header[i].name, &piece[3]))
			continue;
		key_build(out, piece, 4);
		key_source(out, "header:", header[i].name);
		out->level = header[i].level;
		return true;
	}
	return false;
}

static bool from_fields(const struct json_object *body, struct route_key *out)
{
	for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++) {
		struct key_piece piece[2] = {{span_of(field[i].prefix), false}};
		enum json_type type;
		struct span value;

		if (!json_object_path(body, field[i].path, &type, &value) ||
		    !key_value(type, value, &piece[1]))
			continue;
		key_build(out, piece, 2);
		key_source(out, "body:", field[i].path);
		out->level = field[i].level;
		return true;
	}
	return false;
}

static void from_text(struct span text, struct route_key *out)
{
	struct key_piece piece[2] = {{SPAN("request:"), false}, {text, false}};
	char hex[17];

	if (text.n > TEXT_MAX) {
		(void)snprintf(hex, sizeof(hex), "%016llx",
			       (unsigned long long)route_fbi_hash(text.p, text.n));
		piece[0].text = SPAN("request_hash:");
		piece[1].text = span_of(hex);
	}
	key_build(out, piece, 2);
	key_source(out, "request", "");
	out->level = ROUTE_KEY_PREFIX;
}

void key_extract_vllm_router(const struct field *headers, size_t nheaders,
			     const struct json_object *body, bool fields_only,
			     struct route_key *out)
{
	if (from_headers(headers, nheaders, out) || (body && from_fields(body, out)))
		return;
	if (!fields_only)
		from_text(body ? body->text : SPAN(""), out);
}
