/*
 * Looking around in a text that was validated: members by name, dotted paths, elements one by one.
 *
 * Nested containers are not recorded by the scan; they are walked again only on demand,
 * skipping values by quotes and brackets alone. Should a caller walk text that was never validated,
 * the answers are arbitrary, but nothing outside the given span is read.
 */
#include "lib/json/scan_lex.h"

#include <string.h>

/* Piece by piece. */
bool json_key_unescaped_is(struct span key, struct span name)
{
	const char *p = key.p, *end = key.p + key.n;
	char piece[64];

	while (p < end) {
		size_t got = json_unescape(&p, end, piece, sizeof(piece));

		if (got > name.n || memcmp(piece, name.p, got) != 0)
			return false;
		name.p += got;
		name.n -= got;
	}
	return name.n == 0;
}

/* Whether a name of that length is there. */
static bool may_have(const struct json_object *o, struct span name)
{
	return o->lengths >> (name.n & 63) & 1;
}

static const struct json_member *last_named(const struct json_object *o, struct span name)
{
	if (!may_have(o, name))
		return NULL;
	for (size_t i = o->n; i > 0; i--) {
		if (json_key_is(&o->member[i - 1], name))
			return &o->member[i - 1];
	}
	return NULL;
}

const struct json_member *json_object_get(const struct json_object *o, const char *name)
{
	return last_named(o, span_of(name));
}

size_t json_object_count(const struct json_object *o, const char *name)
{
	struct span wanted = span_of(name);
	size_t count = 0;

	for (size_t i = 0; may_have(o, wanted) && i < o->n; i++)
		count += json_key_is(&o->member[i], wanted);
	return count;
}

/* p is behind an opening quote; returns behind the closing one, or end. */
static const char *skip_string(const char *p, const char *end)
{
	for (;;) {
		p = json_lex_find_quote(p, end);
		if (p == end)
			return end;
		if (*p == '"')
			return p + 1;
		if (end - p < 2)
			return end;
		p += 2;
	}
}

static const char *skip_container(const char *p, const char *end)
{
	size_t depth = 0;

	while (p < end) {
		char c = *p++;

		if (c == '"') {
			p = skip_string(p, end);
		} else if (c == '{' || c == '[') {
			depth++;
		} else if (c == '}' || c == ']') {
			if (--depth == 0)
				return p;
		}
	}
	return end;
}

/* From the first byte of a value to the first byte after it. */
static const char *skip_value(const char *p, const char *end)
{
	if (*p == '"')
		return skip_string(p + 1, end);
	if (*p == '{' || *p == '[')
		return skip_container(p, end);
	while (p < end && *p != ',' && *p != '}' && *p != ']' && (unsigned char)*p > ' ')
		p++;
	return p;
}

/* The first byte of the next element or member name; NULL at the end of the container. */
static const char *next_item(struct span container, size_t at)
{
	const char *end = container.p + container.n, *p;

	if (at >= container.n)
		return NULL;
	p = at == 0 ? container.p + 1 : container.p + at;
	p = json_lex_space(p, end);
	if (p < end && *p == ',')
		p = json_lex_space(p + 1, end);
	return p == end || *p == ']' || *p == '}' ? NULL : p;
}

bool json_array_next(struct span array, size_t *at, struct span *value, enum json_type *type)
{
	const char *p = next_item(array, *at), *to;

	if (!p)
		return false;
	to = skip_value(p, array.p + array.n);
	*type = json_lex_type(*p);
	*value = (struct span){p, (size_t)(to - p)};
	*at = (size_t)(to - array.p);
	return to > p;
}

bool json_object_next(struct span object, size_t *at, struct json_member *m)
{
	const char *end = object.p + object.n, *p = next_item(object, *at), *to;

	if (!p || *p != '"')
		return false;
	to = json_lex_find_quote(p + 1, end);
	m->key_escaped = to < end && *to == '\\';
	to = m->key_escaped ? skip_string(to, end) : to < end ? to + 1 : end;
	if (to - p < 2)
		return false;
	m->key = (struct span){p + 1, (size_t)(to - p) - 2};
	p = json_lex_space(to, end);
	if (p == end || *p != ':')
		return false;
	p = json_lex_space(p + 1, end);
	if (p == end)
		return false;
	to = skip_value(p, end);
	m->type = json_lex_type(*p);
	m->value = (struct span){p, (size_t)(to - p)};
	*at = (size_t)(to - object.p);
	return true;
}

/* The last member with this name in a nested object. */
static bool member_of(struct span object, struct span name, struct json_member *found)
{
	struct json_member m;
	bool hit = false;
	size_t at = 0;

	while (json_object_next(object, &at, &m)) {
		if (json_key_is(&m, name)) {
			*found = m;
			hit = true;
		}
	}
	return hit;
}

bool json_object_path(const struct json_object *o, const char *path, enum json_type *type,
		      struct span *value)
{
	size_t n = strcspn(path, ".");
	const struct json_member *top = last_named(o, (struct span){path, n});
	struct json_member m;

	if (!top)
		return false;
	m = *top;
	while (path[n] == '.') {
		path += n + 1;
		n = strcspn(path, ".");
		if (m.type != JSON_OBJECT || !member_of(m.value, (struct span){path, n}, &m))
			return false;
	}
	*type = m.type;
	*value = m.value;
	return true;
}
