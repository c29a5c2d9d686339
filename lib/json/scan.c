/*
 * The validating scan: one pass over the text, no recursion, no tree.
 *
 * The stack of open brackets holds the closing bracket that is expected, so a closing bracket is
 * checked by one comparison. descend() goes from the place where a value must start to the end of
 * the first complete value, ascend() from there to the place where the next value must start.
 * Members of the outermost object are noted on the way, which costs one comparison of the depth per
 * value.
 */
#include "lib/json/scan_lex.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scan {
	struct json_lex lex;
	struct json_object *object; /* NULL: only validate */
	unsigned depth;
	int err; /* what kind of failure; PD_EINVAL unless noted */
	char close[JSON_DEPTH_MAX + 1];
};

static void place_of(const char *text, const char *at, size_t *line, size_t *column)
{
	*line = 1;
	*column = 1;
	for (; text < at; text++) {
		if (*text == '\n') {
			++*line;
			*column = 1;
		} else if (((unsigned char)*text & 0xC0) != 0x80) {
			++*column;
		}
	}
}

static int complain(const struct scan *s, const char *text, struct pd_msg *msg)
{
	const char *at = s->lex.bad;
	char found[16] = "the end";
	size_t line, column;

	if (!msg)
		return s->err;
	place_of(text, at, &line, &column);
	if (at<s->lex.end && * at> ' ' && *at < 0x7F)
		(void)snprintf(found, sizeof(found), "'%c'", *at);
	else if (at < s->lex.end)
		(void)snprintf(found, sizeof(found), "byte 0x%02x", (unsigned)(unsigned char)*at);
	return pd_fail(msg, s->err,
		       "invalid JSON at byte %zu (line %zu, column %zu): found %s, expected %s",
		       (size_t)(at - text), line, column, found, s->lex.expect);
}

static int grow_members(struct json_object *o)
{
	size_t cap = o->cap * 2;
	struct json_member *m;

	if (o->n >= JSON_MEMBERS_MAX)
		return PD_ETOOBIG;
	if (cap > JSON_MEMBERS_MAX)
		cap = JSON_MEMBERS_MAX;
	m = realloc(o->member == o->fixed ? NULL : o->member, cap * sizeof(*m));
	if (!m)
		return PD_ENOMEM;
	if (o->member == o->fixed)
		memcpy(m, o->fixed, sizeof(o->fixed));
	o->member = m;
	o->cap = cap;
	return PD_OK;
}

/* The key is between from and to; its value starts at p. */
static const char *note_member(struct scan *s, const char *from, const char *to, const char *p)
{
	struct json_object *o = s->object;
	size_t n = (size_t)(to - from);
	bool escaped = memchr(from, '\\', n) != NULL;

	if (o->n == o->cap) {
		int err = grow_members(o);

		if (err) {
			s->err = err;
			return json_lex_bad(&s->lex, from, "fewer members in one object");
		}
	}
	o->member[o->n++] = (struct json_member){
		.key = {from, n},
		.value = {p, 0},
		.type = p < s->lex.end ? json_lex_type(*p) : JSON_NONE,
		.key_escaped = escaped,
	};
	o->lengths |= escaped ? UINT64_MAX : UINT64_C(1) << (n & 63);
	return p;
}

/* From the quote of a member's name to the first byte of its value. */
static inline const char *member_name(struct scan *s, const char *p)
{
	const char *from = p + 1, *to;

	if (p == s->lex.end || *p != '"')
		return json_lex_bad(&s->lex, p, "a member name in quotes");
	p = json_lex_string(&s->lex, from);
	if (!p)
		return NULL;
	to = p - 1;
	p = json_lex_space(p, s->lex.end);
	if (p == s->lex.end || *p != ':')
		return json_lex_bad(&s->lex, p, "':' after a member name");
	p = json_lex_space(p + 1, s->lex.end);
	if (s->depth == 1 && s->object)
		return note_member(s, from, to, p);
	return p;
}

/* Into a container: the first byte of its first value, or behind it when it is empty (then *empty
 * is set). */
static inline const char *enter(struct scan *s, const char *p, bool *empty)
{
	char close = *p == '{' ? '}' : ']';

	if (s->depth == JSON_DEPTH_MAX)
		return json_lex_bad(&s->lex, p, "at most 128 levels of nesting");
	s->close[++s->depth] = close;
	p = json_lex_space(p + 1, s->lex.end);
	*empty = p < s->lex.end && *p == close;
	if (*empty) {
		s->depth--;
		return p + 1;
	}
	return close == '}' ? member_name(s, p) : p;
}

/* From the first byte of a value to the end of the first value that is complete: a scalar or an
 * empty container. */
static const char *descend(struct scan *s, const char *p)
{
	bool empty = false;

	while (p != s->lex.end) {
		const char *next;

		if (*p == '"')
			return json_lex_string(&s->lex, p + 1);
		if (*p == '{' || *p == '[') {
			p = enter(s, p, &empty);
			if (!p || empty)
				return p;
			continue;
		}
		if (json_lex_type(*p) != JSON_NUMBER)
			return json_lex_literal(&s->lex, p);
		next = s->close[s->depth] == ']' ? json_lex_integers(p, s->lex.end) : p;
		if (next == p)
			return json_lex_number(&s->lex, p);
		p = json_lex_space(next, s->lex.end);
	}
	return json_lex_bad(&s->lex, p, "a value");
}

/* From the end of a value to the first byte of the next one, or to the end of the outermost value
 * (depth 0). */
static const char *ascend(struct scan *s, const char *p)
{
	while (s->depth > 0) {
		if (s->depth == 1 && s->object) {
			struct json_member *m = &s->object->member[s->object->n - 1];

			m->value.n = (size_t)(p - m->value.p);
		}
		p = json_lex_space(p, s->lex.end);
		if (p == s->lex.end || (*p != ',' && *p != s->close[s->depth]))
			return json_lex_bad(&s->lex, p,
					    s->close[s->depth] == '}' ? "',' or '}'"
								      : "',' or ']'");
		if (*p == ',') {
			p = json_lex_space(p + 1, s->lex.end);
			return s->close[s->depth] == '}' ? member_name(s, p) : p;
		}
		s->depth--;
		p++;
	}
	return p;
}

/* The whole text: white space, one value, white space. Fills the object's spans when there is one.
 */
static int scan_text(struct scan *s, const char *text, size_t n)
{
	const char *p = json_lex_space(text, text + n), *start = p;

	s->lex.end = text + n;
	s->err = PD_EINVAL;
	if (s->object && (p == s->lex.end || *p != '{')) {
		(void)json_lex_bad(&s->lex, p, "an object");
		return s->err;
	}
	do {
		p = descend(s, p);
		if (p)
			p = ascend(s, p);
	} while (p && s->depth > 0);
	if (!p)
		return s->err;
	if (s->object) {
		s->object->doc = (struct span){text, n};
		s->object->text = (struct span){start, (size_t)(p - start)};
	}
	p = json_lex_space(p, s->lex.end);
	if (p == s->lex.end)
		return PD_OK;
	(void)json_lex_bad(&s->lex, p, "nothing after the value");
	return s->err;
}

bool json_is_string(struct span text)
{
	struct json_lex x = {.end = text.p + text.n};

	return text.n >= 2 && *text.p == '"' && json_lex_string(&x, text.p + 1) == x.end;
}

int json_validate(const char *text, size_t n, struct pd_msg *msg)
{
	struct scan s;

	s.object = NULL;
	s.depth = 0;
	s.close[0] = '\0';
	if (!text)
		text = "";
	if (scan_text(&s, text, n) == PD_OK)
		return PD_OK;
	return complain(&s, text, msg);
}

int json_object_scan(struct json_object *o, const char *text, size_t n, struct pd_msg *msg)
{
	struct scan s;

	o->member = o->fixed;
	o->n = 0;
	o->lengths = 0;
	o->cap = sizeof(o->fixed) / sizeof(o->fixed[0]);
	s.object = o;
	s.depth = 0;
	s.close[0] = '\0';
	if (!text)
		text = "";
	if (scan_text(&s, text, n) == PD_OK)
		return PD_OK;
	json_object_release(o);
	return complain(&s, text, msg);
}

void json_object_release(struct json_object *o)
{
	if (o->member != o->fixed)
		free(o->member);
	o->member = o->fixed;
	o->n = 0;
	o->lengths = 0;
	o->cap = sizeof(o->fixed) / sizeof(o->fixed[0]);
	o->doc = (struct span){"", 0};
	o->text = (struct span){"", 0};
}
