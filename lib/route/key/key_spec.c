/* Reading the list of key sources that a user gives. */
#include "lib/route/key/key_text.h"

#include <string.h>

static bool is_user_level(bool header, struct span name)
{
	static const char *const headers[] = {"x-user-id", "x-tenant-id", "x-openwebui-user-id"};
	static const char *const fields[] = {"user", "user_id", "safety_identifier"};
	const char *const *list = header ? headers : fields;

	for (size_t i = name.n; !header && i > 0; i--) {
		if (name.p[i - 1] == '.') { /* the last step of a path says what it is */
			name.p += i;
			name.n -= i;
			break;
		}
	}
	return span_eq(name, span_of(list[0])) || span_eq(name, span_of(list[1])) ||
	       span_eq(name, span_of(list[2]));
}

static bool is_token_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_header_name(struct span name)
{
	for (size_t i = 0; i < name.n; i++) {
		if (!is_token_char(name.p[i]))
			return false;
	}
	return name.n > 0;
}

/* No empty step, nothing unprintable. */
static bool is_path(struct span name)
{
	char before = '.';

	for (size_t i = 0; i < name.n; before = name.p[i++]) {
		if ((unsigned char)name.p[i] <= ' ' || (name.p[i] == '.' && before == '.'))
			return false;
	}
	return before != '.';
}

static int parse_item(struct route_source *src, struct span item, size_t number, struct pd_msg *msg)
{
	int shown = item.n > 80 ? 80 : (int)item.n;
	struct span name;

	src->header = span_starts(item, SPAN("header:"));
	if (!src->header && !span_starts(item, SPAN("body:")))
		return pd_fail(msg, PD_EINVAL,
			       "session key item %zu '%.*s', expected header:NAME or body:PATH",
			       number, shown, item.p);
	name = item;
	name.p += src->header ? 7 : 5;
	name.n -= src->header ? 7 : 5;
	if (src->header ? !is_header_name(name) : !is_path(name))
		return pd_fail(msg, PD_EINVAL, "session key item %zu '%.*s', expected %s", number,
			       shown, item.p, src->header ? "a header name" : "a path like a.b.c");
	if (name.n >= sizeof(src->name))
		return pd_fail(msg, PD_EINVAL,
			       "session key item %zu '%.*s...' has a name of %zu bytes, expected "
			       "at most %zu",
			       number, shown, item.p, name.n, sizeof(src->name) - 1);
	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i];

		src->name[i] = src->header && c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
	}
	src->name[name.n] = '\0';
	src->level =
		is_user_level(src->header, span_of(src->name)) ? ROUTE_KEY_USER : ROUTE_KEY_SESSION;
	return PD_OK;
}

int route_keyspec_parse(struct route_keyspec *s, const char *text, struct pd_msg *msg)
{
	struct route_keyspec spec = {.compat = s->compat, .fields_only = s->fields_only};

	for (;;) {
		size_t n = strcspn(text, ",");
		int err;

		if (spec.n == ROUTE_SOURCES_MAX)
			return pd_fail(msg, PD_EINVAL, "more than %d session key items",
				       ROUTE_SOURCES_MAX);
		err = parse_item(&spec.source[spec.n], span_trim((struct span){text, n}),
				 spec.n + 1, msg);
		if (err)
			return err;
		spec.n++;
		if (text[n] == '\0')
			break;
		text += n + 1;
	}
	route_keyspec_index(&spec);
	*s = spec;
	return PD_OK;
}
