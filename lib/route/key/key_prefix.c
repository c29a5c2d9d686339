/*
 * The key of a request that names no session: the beginning of its prompt. Requests that share it
 * share cache blocks, so they should meet. Of a chat only the messages up to the first one of the
 * user count: they stay the same while the conversation grows.
 */
#include "lib/route/key/key_text.h"
#include "lib/route/prefix.h"

#include <stdio.h>
#include <string.h>

struct prompt {
	char text[ROUTE_PREFIX_MAX +
		  8]; /* unescaping may leave 3 bytes unused; they must not decide */
	size_t n;
	bool content; /* there was something besides roles */
};

static bool is_full(const struct prompt *p)
{
	return sizeof(p->text) - p->n < 4;
}

static void add_bytes(struct prompt *p, struct span s)
{
	size_t room = sizeof(p->text) - p->n, n = s.n < room ? s.n : room;

	memcpy(p->text + p->n, s.p, n);
	p->n += n;
}

/* A separator keeps ["ab","c"] and ["a","bc"] apart; it is no byte of any text. */
static void add_end(struct prompt *p)
{
	add_bytes(p, SPAN("\xff"));
}

static void add_string(struct prompt *p, struct span value)
{
	const char *at = value.p + 1, *end = value.p + value.n - 1;

	p->content |= at < end;
	if (!is_full(p))
		p->n += json_unescape(&at, end, p->text + p->n, sizeof(p->text) - p->n);
	add_end(p);
}

/* Numbers and things that are not text (images) as they are written. */
static void add_raw(struct prompt *p, struct span value)
{
	p->content = true;
	add_bytes(p, value);
	add_end(p);
}

/* One part of a message's content: its text, else the whole part. */
static void add_part(struct prompt *p, struct span part, enum json_type type)
{
	struct json_member m, text = {.type = JSON_NONE};
	size_t at = 0;

	if (type == JSON_OBJECT) {
		while (json_object_next(part, &at, &m)) {
			if (json_member_is(&m, "text"))
				text = m;
		}
	}
	if (type == JSON_STRING)
		add_string(p, part);
	else if (text.type == JSON_STRING)
		add_string(p, text.value);
	else
		add_raw(p, part);
}

static void add_content(struct prompt *p, const struct json_member *content)
{
	enum json_type type;
	struct span part;
	size_t at = 0;

	if (content->type == JSON_STRING)
		add_string(p, content->value);
	if (content->type != JSON_ARRAY)
		return;
	while (!is_full(p) && json_array_next(content->value, &at, &part, &type))
		add_part(p, part, type);
}

/* Returns true for a message of the user, whose role is not written: a prompt that comes as a chat
 * has the key of the same prompt as a completion. */
static bool add_message(struct prompt *p, struct span message)
{
	struct json_member m, role = {.type = JSON_NONE}, content = {.type = JSON_NONE};
	bool user;
	size_t at = 0;

	while (json_object_next(message, &at, &m)) {
		if (json_member_is(&m, "role"))
			role = m;
		else if (json_member_is(&m, "content"))
			content = m;
	}
	user = role.type == JSON_STRING && span_eq(role.value, SPAN("\"user\""));
	if (role.type == JSON_STRING && !user) {
		add_bytes(p, role.value);
		add_end(p);
	}
	add_content(p, &content);
	return user;
}

/* Messages, strings, token ids, or arrays of these. */
static void add_value(struct prompt *p, struct span value, enum json_type type, int depth)
{
	enum json_type item_type;
	struct span item;
	size_t at = 0;

	if (type == JSON_STRING)
		add_string(p, value);
	else if (type == JSON_NUMBER)
		add_raw(p, value);
	if (type != JSON_ARRAY || depth == 0)
		return;
	while (!is_full(p) && json_array_next(value, &at, &item, &item_type)) {
		if (item_type == JSON_OBJECT && add_message(p, item))
			break;
		add_value(p, item, item_type, depth - 1);
	}
}

void route_key_prefix(const struct json_object *body, struct route_key *out)
{
	static const char *const name[] = {"system", "instructions", "messages", "prompt",
					   "input",  "input_ids",    "text"};
	struct prompt p;

	p.n = 0;
	p.content = false;
	key_clear(out);
	for (size_t i = 0; i < sizeof(name) / sizeof(name[0]) && !is_full(&p); i++) {
		const struct json_member *m = json_object_get(body, name[i]);

		if (m)
			add_value(&p, m->value, m->type, 2);
	}
	if (!p.content)
		return;
	if (p.n > ROUTE_PREFIX_MAX)
		p.n = ROUTE_PREFIX_MAX;
	(void)snprintf(out->text, sizeof(out->text), "prefix:%016llx",
		       (unsigned long long)route_block(0, p.text, p.n));
	out->len = strlen(out->text);
	out->level = ROUTE_KEY_PREFIX;
	key_source(out, "prefix", "");
}

struct span route_prompt(const struct json_object *body)
{
	static const char *const name[] = {"messages", "prompt", "input"};

	for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
		const struct json_member *m = json_object_get(body, name[i]);

		if (m && (m->type == JSON_STRING || m->type == JSON_ARRAY))
			return m->value;
	}
	return (struct span){NULL, 0};
}
