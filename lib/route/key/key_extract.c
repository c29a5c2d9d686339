/*
 * Extraction of session keys. Session before user: one user may have many conversations, and each
 * of them should stay where its cache is.
 */
#include "lib/route/key/key_text.h"

#include <string.h>

#define CONTEXT_PATH "vllm_xargs.agentic_context"
#define CONTEXT_MAX  16384

#define CLAUDE_SESSION "x-claude-code-session-id"
#define CLAUDE_AGENT   "x-claude-code-agent-id"
#define CLAUDE_USER    "metadata.user_id"
#define CLAUDE_MARK    "_session_"

/* Who sends what, and where it was seen, stands in docs/serve.md. */
static const struct route_source default_source[] = {
	{true, "x-session-id", ROUTE_KEY_SESSION},
	{true, CLAUDE_SESSION, ROUTE_KEY_SESSION},
	{true, "session-id", ROUTE_KEY_SESSION},
	{true, "session_id", ROUTE_KEY_SESSION},
	{true, "x-session-affinity", ROUTE_KEY_SESSION},
	{true, "x-opencode-session", ROUTE_KEY_SESSION},
	{true, "x-amp-thread-id", ROUTE_KEY_SESSION},
	{true, "x-kilocode-taskid", ROUTE_KEY_SESSION},
	{true, "x-hermes-session-id", ROUTE_KEY_SESSION},
	{true, "x-grok-conv-id", ROUTE_KEY_SESSION},
	{true, "x-litellm-session-id", ROUTE_KEY_SESSION},
	{true, "x-dynamo-session-id", ROUTE_KEY_SESSION},
	{true, "x-openwebui-chat-id", ROUTE_KEY_SESSION},
	{false, "session_params.session_id", ROUTE_KEY_SESSION},
	{false, "session_id", ROUTE_KEY_SESSION},
	{false, "prompt_cache_key", ROUTE_KEY_SESSION},
	{false, "conversation", ROUTE_KEY_SESSION},
	{false, CONTEXT_PATH, ROUTE_KEY_SESSION},
	{false, CLAUDE_USER, ROUTE_KEY_SESSION},
	{true, "x-user-id", ROUTE_KEY_USER},
	{true, "x-openwebui-user-id", ROUTE_KEY_USER},
	{false, "user", ROUTE_KEY_USER},
	{false, "user_id", ROUTE_KEY_USER},
	{false, "safety_identifier", ROUTE_KEY_USER},
	{false, CLAUDE_USER, ROUTE_KEY_USER},
};

void route_keyspec_index(struct route_keyspec *s)
{
	_Static_assert(ROUTE_SOURCES_MAX <= 32, "a bit for each source");

	s->users = 0;
	memset(s->of_header, 0, sizeof(s->of_header));
	memset(s->of_member, 0, sizeof(s->of_member));
	for (size_t i = 0; i < s->n; i++) {
		const struct route_source *src = &s->source[i];
		size_t step = src->header ? strlen(src->name) : strcspn(src->name, ".");
		uint32_t *of = src->header ? s->of_header : s->of_member;

		of[step % ROUTE_KEY_LENGTHS] |= UINT32_C(1) << i;
		s->users |= (uint32_t)(src->level == ROUTE_KEY_USER) << i;
	}
}

void route_keyspec_default(struct route_keyspec *s)
{
	s->compat = ROUTE_COMPAT_NONE;
	s->fields_only = false;
	s->n = sizeof(default_source) / sizeof(default_source[0]);
	memcpy(s->source, default_source, sizeof(default_source));
	route_keyspec_index(s);
}

static bool from_header(const struct route_source *src, const struct field *headers, size_t n,
			struct route_key *out)
{
	struct key_piece piece[3] = {[1] = {SPAN(":"), false}};
	size_t count = 1;

	if (!key_header(headers, n, src->name, &piece[0]))
		return false;
	if (strcmp(src->name, CLAUDE_SESSION) == 0 &&
	    key_header(headers, n, CLAUDE_AGENT, &piece[2]))
		count = 3;
	key_build(out, piece, count);
	key_source(out, "header:", src->name);
	return true;
}

/* The last member of an object that was validated, if it is a value that can be a key. */
static bool member_value(struct span object, const char *name, struct key_piece *piece)
{
	struct json_member m;
	bool found = false;
	size_t at = 0;

	while (json_object_next(object, &at, &m)) {
		if (json_member_is(&m, name))
			found = key_value(m.type, m.value, piece);
	}
	return found;
}

static bool from_object(struct span object, const char *name, const char *path,
			struct route_key *out)
{
	struct key_piece piece;

	if (!member_value(object, name, &piece))
		return false;
	key_build(out, &piece, 1);
	key_source(out, "body:", path);
	return true;
}

static bool from_context(struct span object, struct route_key *out)
{
	return from_object(object, "program_id", CONTEXT_PATH ".program_id", out) ||
	       from_object(object, "session_id", CONTEXT_PATH ".session_id", out);
}

/* A string that holds the object. What cannot be read gives no key. */
static bool from_context_text(struct span value, struct route_key *out)
{
	struct json_object o;
	bool found = false;
	struct buf text;

	buf_init(&text, CONTEXT_MAX);
	if (json_string_decode(value, &text) == PD_OK &&
	    json_object_scan(&o, text.data, text.len, NULL) == PD_OK) {
		found = from_context(o.text, out);
		json_object_release(&o);
	}
	buf_release(&text);
	return found;
}

/* The session that Claude Code writes into its user id: {"session_id":"ID",...} as text, or
 * "user_..._session_ID". Any other user id is one. */
static bool from_claude_user(struct span value, struct route_key *out)
{
	struct key_piece piece = {.text = {NULL, 0}};
	struct json_object o;
	bool found = false;
	struct buf text;

	buf_init(&text, CONTEXT_MAX);
	if (json_string_decode(value, &text) == PD_OK && text.len > 0) {
		const char *end = text.data + text.len, *mark = NULL;

		if (json_object_scan(&o, text.data, text.len, NULL) == PD_OK) {
			found = from_object(o.text, "session_id", CLAUDE_USER, out);
			json_object_release(&o);
		}
		for (const char *p = text.data;
		     (p = memmem(p, (size_t)(end - p), CLAUDE_MARK, strlen(CLAUDE_MARK)));)
			mark = p += strlen(CLAUDE_MARK);
		if (!found && mark && text.data[0] != '{')
			piece.text = span_trim((struct span){mark, (size_t)(end - mark)});
		if (piece.text.n > 0) {
			key_build(out, &piece, 1);
			key_source(out, "body:", CLAUDE_USER);
			found = true;
		}
	}
	buf_release(&text);
	return found;
}

static bool from_body(const struct route_source *src, const struct json_object *body,
		      struct route_key *out)
{
	bool context = strcmp(src->name, CONTEXT_PATH) == 0;
	struct key_piece piece;
	enum json_type type;
	struct span value;

	if (!json_object_path(body, src->name, &type, &value))
		return false;
	if (context && type == JSON_OBJECT)
		return from_context(value, out);
	if (context)
		return type == JSON_STRING && from_context_text(value, out);
	if (src->level == ROUTE_KEY_SESSION && strcmp(src->name, CLAUDE_USER) == 0)
		return type == JSON_STRING && from_claude_user(value, out);
	if (type == JSON_OBJECT && strcmp(src->name, "conversation") == 0)
		return from_object(value, "id", "conversation.id", out);
	if (!key_value(type, value, &piece))
		return false;
	key_build(out, &piece, 1);
	key_source(out, "body:", src->name);
	return true;
}

/* The sources that may be there, a bit each: a name with their length is. */
static uint32_t may_be_there(const struct route_keyspec *s, const struct field *headers, size_t n,
			     const struct json_object *body)
{
	uint32_t there = 0;

	for (size_t i = 0; i < n; i++)
		there |= s->of_header[headers[i].name.n % ROUTE_KEY_LENGTHS];
	for (size_t i = 0; body && i < body->n; i++)
		if (body->member[i].key_escaped)
			return UINT32_MAX >> (32 - s->n);
		else
			there |= s->of_member[body->member[i].key.n % ROUTE_KEY_LENGTHS];
	return there;
}

/* The first of these sources, a bit each, that has a value. */
static bool from_first(const struct route_keyspec *s, uint32_t sources, const struct field *headers,
		       size_t nheaders, const struct json_object *body, struct route_key *out)
{
	for (; sources; sources &= sources - 1) {
		const struct route_source *src = &s->source[__builtin_ctz(sources)];

		if (src->header ? from_header(src, headers, nheaders, out)
				: from_body(src, body, out)) {
			out->level = src->level;
			return true;
		}
	}
	return false;
}

void route_key_extract(const struct route_keyspec *s, const struct field *headers, size_t nheaders,
		       const struct json_object *body, struct route_key *out)
{
	uint32_t there;

	key_clear(out);
	if (s->compat == ROUTE_COMPAT_VLLM_ROUTER) {
		key_extract_vllm_router(headers, nheaders, body, s->fields_only, out);
		return;
	}
	there = s->n > 0 ? may_be_there(s, headers, nheaders, body) : 0;
	if (!from_first(s, there & ~s->users, headers, nheaders, body, out))
		(void)from_first(s, there & s->users, headers, nheaders, body, out);
}
