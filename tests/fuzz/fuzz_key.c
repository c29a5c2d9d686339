/*
 * Session keys. The first byte chooses, then come lines "Name: value" up to an empty line, then the
 * body; with bit 0 the first line is a list of sources (--session-key).
 *
 * (1) A second implementation over another JSON parser (cJSON) finds the same source and text, in
 * default and in vllm-router's order. (2) Text inside strings and inside other members is never a
 * key: the whole body, quoted or nested, gives none. (3) null, empty and blank values do not count:
 * a source that is overwritten with one is not the source any more. (4) A member that nobody asks
 * for changes nothing. (5) An id in a header is the same session as in the body. (6) Keys are
 * bounded, and a list of sources printed and read again is the same list.
 */
#include <cjson/cJSON.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/edit.h"
#include "lib/route/key/key_extract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define BODY_MAX    65536
#define HEADERS_MAX 16

struct request {
	struct field header[HEADERS_MAX];
	size_t nheaders;
	struct json_object *body; /* NULL: none */
	cJSON *tree;		  /* the same, or NULL */
};

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_key: %s\n", what);
		abort();
	}
}

static void clear(struct buf *b)
{
	if (b->max == 0)
		buf_init(b, 16 * BODY_MAX);
	buf_clear(b);
}

static void put(struct buf *b, struct span s)
{
	expect(buf_append(b, s.p, s.n) == PD_OK, "memory");
}

static void same_key(const struct route_key *a, const struct route_key *b, const char *what)
{
	expect(a->level == b->level && a->len == b->len && memcmp(a->text, b->text, a->len) == 0 &&
		       strcmp(a->source, b->source) == 0,
	       what);
}

static void extract(const struct route_keyspec *s, const struct request *r, struct route_key *key)
{
	struct route_key again;

	route_key_extract(s, r->header, r->nheaders, r->body, key);
	expect(key->len <= ROUTE_KEY_MAX && key->text[key->len] == '\0', "a long key");
	expect((key->level == ROUTE_KEY_NONE) == (key->len == 0) &&
		       (key->len == 0) == (key->source[0] == '\0'),
	       "a key without level or source, or the reverse");
	route_key_extract(s, r->header, r->nheaders, r->body, &again);
	same_key(key, &again, "another key the second time");
}

/* -- (1) the second implementation -- */

struct found {
	const char *source;
	char text[ROUTE_KEY_MAX + 64];
	size_t len;
	bool exact; /* text is known; else only the source */
};

static bool from_header(const struct request *r, const char *name, struct found *f)
{
	for (size_t i = 0; i < r->nheaders; i++) {
		struct span v = span_trim(r->header[i].value);

		if (!span_eq_case(r->header[i].name, span_of(name)) || v.n == 0)
			continue;
		f->source = name;
		f->exact = v.n <= 200;
		f->len = f->exact ? v.n : 0;
		memcpy(f->text, v.p, f->len);
		return true;
	}
	return false;
}

static const cJSON *last_member(const cJSON *object, const char *name)
{
	const cJSON *item, *found = NULL;

	if (!cJSON_IsObject(object))
		return NULL;
	cJSON_ArrayForEach(item, object)
	{
		if (strcmp(item->string, name) == 0)
			found = item;
	}
	return found;
}

/* A string that is not blank, or a number. */
static bool from_value(const cJSON *v, const char *source, struct found *f)
{
	struct span s;

	if (!cJSON_IsString(v) && !cJSON_IsNumber(v))
		return false;
	f->exact = cJSON_IsString(v);
	if (f->exact) {
		s = span_trim(span_of(v->valuestring));
		if (s.n == 0)
			return false;
		f->exact = s.n <= 200;
		f->len = f->exact ? s.n : 0;
		memcpy(f->text, s.p, f->len);
	}
	f->source = source;
	return true;
}

static bool from_path(const cJSON *body, const char *a, const char *b, const char *source,
		      struct found *f)
{
	const cJSON *v = last_member(body, a);

	return from_value(b ? last_member(v, b) : v, source, f);
}

static bool from_context(const cJSON *body, struct found *f)
{
	const cJSON *v = last_member(last_member(body, "vllm_xargs"), "agentic_context");
	cJSON *inner = NULL;
	struct json_object o;
	bool found;

	if (cJSON_IsString(v)) {
		if (json_object_scan(&o, v->valuestring, strlen(v->valuestring), NULL))
			return false;
		json_object_release(&o);
		v = inner = cJSON_Parse(v->valuestring);
	}
	found = from_value(last_member(v, "program_id"),
			   "body:vllm_xargs.agentic_context.program_id", f) ||
		from_value(last_member(v, "session_id"),
			   "body:vllm_xargs.agentic_context.session_id", f);
	cJSON_Delete(inner);
	return found;
}

static bool from_conversation(const cJSON *body, struct found *f)
{
	const cJSON *v = last_member(body, "conversation");

	return from_value(v, "body:conversation", f) ||
	       from_value(last_member(v, "id"), "body:conversation.id", f);
}

static bool from_claude(const struct request *r, struct found *f)
{
	struct found agent;

	if (!from_header(r, "x-claude-code-session-id", f))
		return false;
	if (!from_header(r, "x-claude-code-agent-id", &agent))
		return true;
	f->exact &= agent.exact;
	if (f->exact) {
		f->text[f->len++] = ':';
		memcpy(f->text + f->len, agent.text, agent.len);
		f->len += agent.len;
	}
	return true;
}

static bool from_claude_user(const cJSON *body, struct found *f)
{
	const cJSON *v = last_member(last_member(body, "metadata"), "user_id");
	const char *mark = NULL, *p;
	struct json_object o;
	bool found = false;
	cJSON *inner;

	if (!cJSON_IsString(v))
		return false;
	p = v->valuestring;
	if (json_object_scan(&o, p, strlen(p), NULL) == PD_OK) {
		json_object_release(&o);
		inner = cJSON_Parse(p);
		found = from_value(last_member(inner, "session_id"), "body:metadata.user_id", f);
		cJSON_Delete(inner);
	}
	if (found || *p == '{')
		return found;
	while ((p = strstr(p, "_session_")))
		mark = p += 9;
	if (!mark || span_trim(span_of(mark)).n == 0)
		return false;
	f->source = "body:metadata.user_id";
	f->exact = strlen(mark) <= 200;
	f->len = f->exact ? span_trim(span_of(mark)).n : 0;
	memcpy(f->text, span_trim(span_of(mark)).p, f->len);
	return true;
}

static bool find_default(const struct request *r, struct found *f)
{
	static const char *const more[] = {"session_id",	  "x-session-affinity",
					   "x-opencode-session",  "x-amp-thread-id",
					   "x-kilocode-taskid",	  "x-hermes-session-id",
					   "x-grok-conv-id",	  "x-litellm-session-id",
					   "x-dynamo-session-id", "x-openwebui-chat-id"};
	const cJSON *b = r->tree;

	if (from_header(r, "x-session-id", f) || from_claude(r, f) ||
	    from_header(r, "session-id", f))
		return true;
	for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++)
		if (from_header(r, more[i], f))
			return true;

	return from_path(b, "session_params", "session_id", "body:session_params.session_id", f) ||
	       from_path(b, "session_id", NULL, "body:session_id", f) ||
	       from_path(b, "prompt_cache_key", NULL, "body:prompt_cache_key", f) ||
	       from_conversation(b, f) || from_context(b, f) || from_claude_user(b, f) ||
	       from_header(r, "x-user-id", f) || from_header(r, "x-openwebui-user-id", f) ||
	       from_path(b, "user", NULL, "body:user", f) ||
	       from_path(b, "user_id", NULL, "body:user_id", f) ||
	       from_path(b, "safety_identifier", NULL, "body:safety_identifier", f) ||
	       from_path(b, "metadata", "user_id", "body:metadata.user_id", f);
}

static bool find_compat(const struct request *r, struct found *f, const char **prefix)
{
	static const char *const headers[] = {"x-session-id",	  "x-user-id",	  "x-tenant-id",
					      "x-correlation-id", "x-request-id", "x-trace-id"};
	const cJSON *b = r->tree;

	*prefix = "";
	for (size_t i = 0; i < 6; i++)
		if (from_header(r, headers[i], f))
			return true;
	*prefix = "session:";
	if (from_path(b, "session_params", "session_id", "body:session_params.session_id", f))
		return true;
	*prefix = "user:";
	if (from_path(b, "user", NULL, "body:user", f))
		return true;
	*prefix = "session:";
	if (from_path(b, "session_id", NULL, "body:session_id", f))
		return true;
	*prefix = "user:";
	return from_path(b, "user_id", NULL, "body:user_id", f);
}

static struct span without(const char *text, const char *prefix)
{
	size_t n = strlen(prefix);

	return span_of(strncmp(text, prefix, n) == 0 ? text + n : text);
}

static void same_source(const struct route_key *key, const char *source)
{
	bool same = span_eq(without(key->source, "header:"), span_of(source));

	if (!same)
		fprintf(stderr, "found %s, expected %s\n", key->source, source);
	expect(same, "another source than the second implementation");
}

static void second_opinion(const struct request *r, const struct route_key *key,
			   const struct route_key *compat)
{
	struct found f = {.source = ""};
	const char *prefix;
	char text[sizeof(f.text) + 64];
	bool found = find_default(r, &f);
	int n;

	if (found) {
		same_source(key, f.source);
		expect(!f.exact || (key->len == f.len && memcmp(key->text, f.text, f.len) == 0),
		       "another text than the second implementation");
	} else {
		same_source(key, "");
	}
	found = find_compat(r, &f, &prefix);
	if (!found) {
		same_source(compat, "request");
		expect(strncmp(compat->text, "request:", 8) == 0 ||
			       strncmp(compat->text, "request_hash:", 13) == 0,
		       "a fallback without prefix");
		return;
	}
	same_source(compat, f.source);
	n = *prefix ? snprintf(text, sizeof(text), "%s", prefix)
		    : snprintf(text, sizeof(text), "header:%s:", f.source);
	if (!f.exact)
		return;
	memcpy(text + n, f.text, f.len);
	expect(compat->len == (size_t)n + f.len && memcmp(compat->text, text, compat->len) == 0,
	       "another compatible text than the second implementation");
}

/* -- the other properties -- */

/* The key of this text as a body, without headers. */
static void key_of(const struct route_keyspec *s, const struct buf *text, struct route_key *key)
{
	struct request r = {.nheaders = 0};
	struct json_object o;

	expect(json_object_scan(&o, text->data, text->len, NULL) == PD_OK, "no body");
	r.body = &o;
	extract(s, &r, key);
	json_object_release(&o);
}

/* (2) */
static void never_inside(const struct route_keyspec *s, const struct json_object *body)
{
	static struct buf text;
	struct route_key key;

	clear(&text);
	put(&text, SPAN("{\"prompt\":"));
	expect(json_quote(&text, body->doc.p, body->doc.n) == PD_OK, "memory");
	put(&text, SPAN(",\"messages\":[{\"role\":\"user\",\"content\":"));
	expect(json_quote(&text, body->text.p, body->text.n) == PD_OK, "memory");
	put(&text, SPAN("}]}"));
	key_of(s, &text, &key);
	expect(key.level == ROUTE_KEY_NONE, "a key from inside a string");
	clear(&text);
	put(&text, SPAN("{\"extra\":"));
	if (body->n > 0 && json_validate(body->text.p, body->text.n, NULL) == PD_OK)
		put(&text, body->text);
	else
		put(&text, SPAN("{}"));
	put(&text, SPAN("}"));
	if (json_validate(text.data, text.len, NULL)) /* one level too deep */
		return;
	key_of(s, &text, &key);
	expect(key.level == ROUTE_KEY_NONE, "a key from inside another member");
}

static bool edited(const struct json_object *body, const char *name, struct span value,
		   struct buf *out)
{
	struct json_edit e;
	size_t total;
	bool done;

	clear(out);
	expect(json_edit_init(&e, body) == PD_OK, "no edit");
	done = json_edit_set(&e, name, value) == PD_OK && json_edit_finish(&e, &total) == PD_OK &&
	       json_edit_copy(&e, out) == PD_OK;
	json_edit_release(&e);
	return done && json_validate(out->data, out->len, NULL) == PD_OK;
}

/* (3) `key` came from the body alone. */
static void empty_does_not_count(const struct route_keyspec *s, const struct json_object *body,
				 const struct route_key *key)
{
	static const struct span nothing[] = {{"null", 4}, {"\"\"", 2}, {"\"  \"", 4},
					      {"true", 4}, {"[]", 2},	{"{}", 2}};
	static struct buf text;
	struct route_key other;
	char top[80] = "";
	size_t n = strcspn(key->source + 5, ".");

	memcpy(top, key->source + 5, n);
	for (size_t i = 0; i < sizeof(nothing) / sizeof(nothing[0]); i++) {
		if (!edited(body, top, nothing[i], &text))
			return;
		key_of(s, &text, &other);
		expect(other.level == ROUTE_KEY_NONE || strncmp(other.source + 5, top, n) != 0 ||
			       (other.source[5 + n] != '\0' && other.source[5 + n] != '.'),
		       "a value that is none counts");
	}
}

/* (4) */
static void others_do_not_count(const struct route_keyspec *s, const struct json_object *body,
				const struct route_key *key)
{
	static struct buf text;
	struct route_key other;

	if (!edited(body, "nobody asks", SPAN("{\"session_id\":\"x\",\"user\":\"y\"}"), &text))
		return;
	key_of(s, &text, &other);
	same_key(key, &other, "a member that nobody asks for changed the key");
}

/* (5) */
static void header_or_body(const struct route_keyspec *s, const struct route_key *key)
{
	struct request r = {.nheaders = 1};
	struct span text = {key->text, key->len};
	struct route_key other;

	expect(span_trim(text).n == text.n && text.n > 0, "white space around a key");
	if (span_starts(text, SPAN("xxh3:")))
		return;
	route_key_of_text(text, &other);
	expect(other.level == ROUTE_KEY_SESSION && other.len == key->len &&
		       memcmp(other.text, key->text, key->len) == 0,
	       "an id as a text is another session than in the body");
	r.header[0] = (struct field){SPAN("X-SESSION-ID"), text, 0};
	extract(s, &r, &other);
	expect(other.len == key->len && memcmp(other.text, key->text, key->len) == 0,
	       "an id in a header is another session than in the body");
}

/* (6) */
static void check_list(struct route_keyspec *s, struct span line)
{
	static struct buf text;
	struct route_keyspec again = *s;
	size_t before = s->n;
	struct pd_msg msg = {""};
	char copy[1024];

	if (line.n >= sizeof(copy) || memchr(line.p, '\0', line.n))
		return;
	memcpy(copy, line.p, line.n);
	copy[line.n] = '\0';
	if (route_keyspec_parse(s, copy, &msg)) {
		expect(msg.text[0] && s->n == before,
		       "a refused list left something behind, or no message");
		return;
	}
	clear(&text);
	for (size_t i = 0; i < s->n; i++)
		expect(buf_printf(&text, "%s%s:%s", i ? "," : "",
				  s->source[i].header ? "header" : "body",
				  s->source[i].name) == PD_OK,
		       "memory");
	expect(route_keyspec_parse(&again, text.data, NULL) == PD_OK && again.n == s->n,
	       "a list printed and refused");
	for (size_t i = 0; i < s->n; i++)
		expect(again.source[i].header == s->source[i].header &&
			       again.source[i].level == s->source[i].level &&
			       strcmp(again.source[i].name, s->source[i].name) == 0,
		       "a list printed and changed");
}

static struct span take_line(struct span *rest)
{
	const char *lf = rest->n ? memchr(rest->p, '\n', rest->n) : NULL;
	struct span line = {rest->p, lf ? (size_t)(lf - rest->p) : rest->n};

	rest->p += line.n + (lf != NULL);
	rest->n -= line.n + (lf != NULL);
	return line;
}

static void read_headers(struct request *r, struct span *rest)
{
	struct span line;

	while (rest->n > 0 && (line = take_line(rest)).n > 0) {
		const char *colon = memchr(line.p, ':', line.n);

		if (!colon || r->nheaders == HEADERS_MAX)
			continue;
		r->header[r->nheaders++] =
			(struct field){{line.p, (size_t)(colon - line.p)},
				       {colon + 1, line.n - (size_t)(colon - line.p) - 1},
				       0};
	}
}

static void check_body_alone(const struct route_keyspec *s, struct json_object *body)
{
	struct request r = {.body = body};
	struct route_key key;

	extract(s, &r, &key);
	never_inside(s, body);
	others_do_not_count(s, body, &key);
	if (key.level != ROUTE_KEY_NONE) {
		empty_does_not_count(s, body, &key);
		header_or_body(s, &key);
	}
	route_key_prefix(body, &key);
	expect(key.len <= ROUTE_KEY_MAX &&
		       (key.level == ROUTE_KEY_PREFIX || key.level == ROUTE_KEY_NONE),
	       "a prefix key");
}

static void check(struct request *r, const struct route_keyspec *custom)
{
	struct route_keyspec s;
	struct route_key key, compat;
	const struct span *doc = r->body ? &r->body->doc : NULL;

	route_keyspec_default(&s);
	extract(custom, r, &key);
	extract(&s, r, &key);
	if (r->body)
		check_body_alone(&s, r->body);
	s.compat = ROUTE_COMPAT_VLLM_ROUTER;
	extract(&s, r, &compat);
	expect(compat.len > 0, "no compatible key");
	/* names and texts with a NUL end early for cJSON */
	if (!doc || (r->tree && !memmem(doc->p, doc->n, "\\u0000", 6)))
		second_opinion(r, &key, &compat);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span rest = {(const char *)data + 1, n - 1};
	struct request r = {.nheaders = 0};
	struct route_keyspec custom;
	struct json_object body;

	if (n < 1 || n > BODY_MAX)
		return 0;
	route_keyspec_default(&custom);
	if (data[0] & 1)
		check_list(&custom, take_line(&rest));
	read_headers(&r, &rest);
	if (rest.n > 0 && json_object_scan(&body, rest.p, rest.n, NULL) == PD_OK) {
		r.body = &body;
		r.tree = cJSON_ParseWithLength(rest.p, rest.n);
	}
	check(&r, &custom);
	cJSON_Delete(r.tree);
	if (r.body)
		json_object_release(&body);
	return 0;
}
