/*
 * Request bodies are built as text around the spans of the data set, which go out as they came in:
 * parsing and printing them again would change numbers and escapes, and with them the tokens that
 * the server counts.
 */
#include "lib/load/body.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/rng.h"
#include "lib/workload/synth.h"

struct body {
	const struct body_options *o;
	const struct body_turn *turn;
	struct span own; /* the record's members */
	struct buf *out;
	int err;
};

static void put(struct body *b, const char *text)
{
	if (!b->err)
		b->err = buf_puts(b->out, text);
}

static void put_span(struct body *b, struct span s)
{
	if (!b->err)
		b->err = buf_append(b->out, s.p, s.n);
}

static bool has_own(const struct body *b, const char *name)
{
	struct json_member m;
	size_t at = 0;

	while (b->own.n > 0 && json_object_next(b->own, &at, &m))
		if (json_member_is(&m, name))
			return true;
	return false;
}

/* Begins a member unless the extra members, or the record, bring their own. */
static bool member(struct body *b, const char *name)
{
	if ((b->o->extra.n > 0 && json_object_get(&b->o->extra, name)) || has_own(b, name))
		return false;
	if (!b->err && b->out->data[b->out->len - 1] != '{')
		put(b, ", ");
	if (!b->err)
		b->err = buf_printf(b->out, "\"%s\": ", name);
	return true;
}

static bool is_text(const struct workload_request *r)
{
	return r->prompt.n > 0 && r->prompt.p[0] == '"';
}

static bool takes_messages(const struct body_options *o)
{
	return o->endpoint != BODY_COMPLETIONS && o->endpoint != BODY_EMBEDDINGS;
}

int body_check(const struct body_options *o, const struct workload_request *r, struct pd_msg *msg)
{
	if (takes_messages(o) && r->messages.n == 0 && r->prompt.n > 0 && !is_text(r))
		return pd_fail(msg, PD_EINVAL,
			       "line %u: a prompt that is a list cannot be sent as chat, expected "
			       "a text or messages",
			       r->line);
	if ((o->endpoint == BODY_COMPLETIONS || o->endpoint == BODY_EMBEDDINGS) &&
	    r->prompt.n == 0 && r->messages.n > 0)
		return pd_fail(msg, PD_EINVAL,
			       "line %u: messages without a prompt, which only "
			       "/v1/chat/completions, /v1/responses and /v1/messages take",
			       r->line);
	return PD_OK;
}

int64_t body_output_tokens(const struct body_options *o, const struct workload_request *r)
{
	double scaled;

	if (o->output_tokens > 0)
		return o->output_tokens;
	if (r->output_tokens < 0)
		return o->default_output;
	if (r->prompt.n > 0 || r->messages.n > 0)
		return r->output_tokens > 0 ? r->output_tokens : 1;
	scaled = (double)r->output_tokens * o->scale;
	return scaled < 1 ? 1 : (int64_t)(scaled + 0.5);
}

/* A JSON string of the data set, with the salt before its text. */
static void put_salted(struct body *b, struct span text)
{
	struct span salt = b->turn->salt;

	if (salt.n == 0) {
		put_span(b, text);
		return;
	}
	if (!b->err)
		b->err = json_quote(b->out, salt.p, salt.n);
	if (b->err)
		return;
	b->out->data[b->out->len - 1] = ' '; /* instead of the closing quote */
	put_span(b, (struct span){text.p + 1, text.n - 1});
}

/* Token ids: the salt is some ids of its own, from 100 to 1123, which every vocabulary has. */
static void put_salted_ids(struct body *b, struct span list)
{
	struct span salt = b->turn->salt;
	uint64_t x = b->o->seed;

	if (salt.n == 0) {
		put_span(b, list);
		return;
	}
	for (size_t i = 0; i < salt.n; i++)
		x = (x ^ (unsigned char)salt.p[i]) * UINT64_C(1099511628211);
	put(b, "[");
	for (int i = 0; i < 8 && !b->err; i++)
		b->err = buf_printf(b->out, "%u%s", (unsigned)(100 + (rng_splitmix(&x) & 1023)),
				    i < 7 || list.n > 2 ? ", " : "");
	put_span(b, (struct span){list.p + 1, list.n - 1});
}

/* Exact lengths need no words: the scale is the user's alone. */
static void put_made_ids(struct body *b, const struct workload_request *r)
{
	struct buf ids;

	buf_init(&ids, BODY_MAX);
	if (!b->err)
		b->err = synth_ids(&ids, r, b->o->scale, b->o->seed);
	if (!b->err)
		put_salted_ids(b, buf_span(&ids));
	buf_release(&ids);
}

/* The prompt as a JSON value: the record's own, or synthesised (letters and spaces, nothing to
 * escape). */
static void put_prompt(struct body *b, const struct workload_request *r)
{
	double scale = b->o->token_scale > 0 ? b->o->scale * b->o->token_scale : b->o->scale;

	if (is_text(r)) {
		put_salted(b, r->prompt);
	} else if (r->prompt.n > 1 && r->prompt.p[1] != '"') {
		put_salted_ids(b, r->prompt);
	} else if (r->prompt.n > 0) {
		put_span(b, r->prompt);
	} else if (b->o->token_ids) {
		put_made_ids(b, r);
	} else {
		put_salted(b, SPAN("\"\""));
		if (b->err)
			return;
		b->out->len--; /* the closing quote comes behind the text */
		b->err = synth_prompt(b->out, r, scale, b->o->seed);
		put(b, "\"");
	}
}

/* ---- messages ---- */

static bool role_is(struct span message, const char *role)
{
	struct json_member m;
	size_t at = 0;

	while (json_object_next(message, &at, &m))
		if (span_eq(m.key, SPAN("role")))
			return m.type == JSON_STRING && m.value.n == strlen(role) + 2 &&
			       memcmp(m.value.p + 1, role, m.value.n - 2) == 0;
	return false;
}

/* The first text of a message: its content, or the text of its first part that has one. n == 0:
 * none. */
static struct span first_text(struct span message)
{
	struct json_member m, d;
	struct span part;
	enum json_type type;
	size_t at = 0, i = 0, k;

	while (json_object_next(message, &at, &m)) {
		if (!span_eq(m.key, SPAN("content")))
			continue;
		if (m.type == JSON_STRING)
			return m.value;
		while (m.type == JSON_ARRAY && json_array_next(m.value, &i, &part, &type))
			for (k = 0; type == JSON_OBJECT && json_object_next(part, &k, &d);)
				if (span_eq(d.key, SPAN("text")) && d.type == JSON_STRING)
					return d.value;
	}
	return (struct span){0};
}

static void put_message(struct body *b, struct span message, bool salted)
{
	struct span text = salted ? first_text(message) : (struct span){0};

	if (text.n == 0) {
		put_span(b, message);
		return;
	}
	put_span(b, (struct span){message.p, (size_t)(text.p - message.p)});
	put_salted(b, text);
	put_span(b, (struct span){text.p + text.n,
				  (size_t)(message.p + message.n - (text.p + text.n))});
}

/* As they are, unless there is a salt for the first text or a real answer for an invented one. */
static void put_messages(struct body *b, struct span list)
{
	const struct body_turn *t = b->turn;
	enum json_type type;
	struct span message;
	size_t at = 0, answers = 0, n = 0;
	bool salt = t->salt.n > 0;

	if (!salt && t->nanswers == 0) {
		put_span(b, list);
		return;
	}
	put(b, "[");
	while (json_array_next(list, &at, &message, &type)) {
		put(b, n++ > 0 ? ", " : "");
		if (answers < t->nanswers && role_is(message, "assistant")) {
			put(b, "{\"role\": \"assistant\", \"content\": \"");
			put(b, t->answer[answers++]);
			put(b, "\"}");
		} else {
			put_message(b, message, salt);
			salt = salt && first_text(message).n == 0;
		}
	}
	put(b, "]");
}

static void put_input(struct body *b, const struct workload_request *r)
{
	static const char *const names[] = {[BODY_CHAT] = "messages",
					    [BODY_COMPLETIONS] = "prompt",
					    [BODY_EMBEDDINGS] = "input",
					    [BODY_RESPONSES] = "input",
					    [BODY_MESSAGES] = "messages"};

	if (!member(b, names[b->o->endpoint]))
		return;
	if (!takes_messages(b->o)) {
		put_prompt(b, r);
	} else if (r->messages.n > 0) {
		put_messages(b, r->messages);
	} else {
		put(b, "[{\"role\": \"user\", \"content\": ");
		put_prompt(b, r);
		put(b, "}]");
	}
}

static void put_generation(struct body *b, const struct workload_request *r)
{
	const struct body_options *o = b->o;
	bool openai = o->endpoint == BODY_CHAT || o->endpoint == BODY_COMPLETIONS;

	if (member(b, o->endpoint == BODY_RESPONSES ? "max_output_tokens" : "max_tokens") &&
	    !b->err)
		b->err = buf_printf(b->out, "%" PRId64, body_output_tokens(o, r));
	if (!isnan(o->temperature) && member(b, "temperature") && !b->err)
		b->err = buf_printf(b->out, o->temperature == 0 ? "0.0" : "%.9g", o->temperature);
	if (o->ignore_eos && member(b, "ignore_eos"))
		put(b, "true");
	if (member(b, "stream"))
		put(b, o->stream ? "true" : "false");
	if (openai && o->stream && member(b, "stream_options"))
		put(b, o->continuous_usage
			       ? "{\"include_usage\": true, \"continuous_usage_stats\": true}"
			       : "{\"include_usage\": true}");
}

/* "session_params.session_id": an object in an object. */
static void put_key(struct body *b, const char *path)
{
	const char *dot = strchr(path, '.');
	char name[256];
	size_t depth = 0, n = dot ? (size_t)(dot - path) : strlen(path);

	(void)snprintf(name, sizeof(name), "%.*s", (int)n, path);
	if (!member(b, name))
		return;
	for (; dot; depth++) {
		path = dot + 1;
		dot = strchr(path, '.');
		n = dot ? (size_t)(dot - path) : strlen(path);
		put(b, "{");
		if (!b->err)
			b->err = json_quote(b->out, path, n);
		put(b, ": ");
	}
	if (!b->err)
		b->err = json_quote(b->out, b->turn->key.p, b->turn->key.n);
	for (; depth > 0; depth--)
		put(b, "}");
}

/* The members of the record go out as they came in, but for those that the options override. */
static void put_own(struct body *b)
{
	struct json_member m;
	char name[256];
	size_t at = 0;

	while (!b->err && b->own.n > 0 && json_object_next(b->own, &at, &m)) {
		if (m.key.n < sizeof(name) && !m.key_escaped) {
			memcpy(name, m.key.p, m.key.n);
			name[m.key.n] = '\0';
			if (b->o->extra.n > 0 && json_object_get(&b->o->extra, name))
				continue;
		}
		put(b, ", \"");
		put_span(b, m.key);
		put(b, "\": ");
		put_span(b, m.value);
	}
}

static void put_extra(struct body *b)
{
	struct span inside = b->o->extra.text;

	if (b->o->extra.n == 0)
		return;
	put(b, ", ");
	put_span(b, (struct span){inside.p + 1, inside.n - 2});
}

int body_build(const struct body_options *o, const struct workload_request *r,
	       const struct body_turn *turn, struct buf *out)
{
	struct body b = {.o = o, .turn = turn, .own = r->extra, .out = out};

	put(&b, "{");
	if (!b.err && member(&b, "model"))
		b.err = json_quote(out, o->model, strlen(o->model));
	for (size_t i = 0; turn->key.n > 0 && i < o->nkey_paths; i++)
		put_key(&b, o->key_path[i]);
	if (o->endpoint != BODY_EMBEDDINGS)
		put_generation(&b, r);
	if (!b.err)
		put_input(&b, r);
	if (b.err)
		return b.err;
	put_own(&b);
	put_extra(&b);
	put(&b, "}");
	return b.err;
}
