/*
 * An answer is judged while it arrives, with the time of each event, and not from a copy
 * afterwards: a benchmark of long streams must not measure its own memory. A stream counts as
 * complete only when it said so; an end of the connection is not an end of the answer.
 */
#include "lib/load/answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/scan.h"

static void reset_figures(struct answer *a)
{
	a->streamed = a->finished = a->done = false;
	a->status = 0;
	a->ngaps = 0;
	a->pieces = 0;
	a->first_token_ns = a->last_token_ns = a->first_tokens = a->said = -1;
	a->prompt_tokens = a->completion_tokens = a->cached_tokens = -1;
	a->failure = NULL;
	a->error[0] = '\0';
}

void answer_init(struct answer *a, bool keep_text)
{
	*a = (struct answer){.keep_text = keep_text};
	sse_reader_init(&a->sse, ANSWER_EVENT_MAX);
	buf_init(&a->body, ANSWER_BODY_MAX);
	buf_init(&a->text, ANSWER_BODY_MAX);
	reset_figures(a);
}

void answer_release(struct answer *a)
{
	sse_reader_release(&a->sse);
	buf_release(&a->body);
	buf_release(&a->text);
	free(a->gap);
	a->gap = NULL;
	a->ngaps = a->gaps_cap = 0;
}

void answer_clear(struct answer *a)
{
	/* a truncated stream may end with half an event */
	if (sse_reader_pending(&a->sse) > 0 || a->failure) {
		sse_reader_release(&a->sse);
		sse_reader_init(&a->sse, ANSWER_EVENT_MAX);
	}
	buf_clear(&a->body);
	buf_clear(&a->text);
	reset_figures(a);
}

static void fail(struct answer *a, const char *label, const char *fmt, ...) PD_PRINTF(3, 4);

static void fail(struct answer *a, const char *label, const char *fmt, ...)
{
	va_list ap;

	if (a->failure)
		return;
	a->failure = label;
	va_start(ap, fmt);
	(void)vsnprintf(a->error, sizeof(a->error), fmt, ap);
	va_end(ap);
}

static bool member_is(const struct json_member *m, const char *name)
{
	return span_eq(m->key, span_of(name));
}

static void set_int(int64_t *out, const struct json_member *m)
{
	int64_t v;

	if (m->type == JSON_NUMBER && json_int(m->value, &v) == PD_OK && v >= 0)
		*out = v;
}

static void read_usage(struct answer *a, struct span usage)
{
	struct json_member m;
	size_t at = 0;

	while (json_object_next(usage, &at, &m)) {
		if (member_is(&m, "prompt_tokens"))
			set_int(&a->prompt_tokens, &m);
		else if (member_is(&m, "completion_tokens"))
			set_int(&a->completion_tokens, &m);
		else if (member_is(&m, "prompt_tokens_details") && m.type == JSON_OBJECT) {
			struct json_member d;
			size_t k = 0;

			while (json_object_next(m.value, &k, &d))
				if (member_is(&d, "cached_tokens"))
					set_int(&a->cached_tokens, &d);
		}
	}
}

static bool take_text(struct answer *a, const struct json_member *m)
{
	if (m->type != JSON_STRING || m->value.n <= 2)
		return false;
	if (a->keep_text && json_string_decode(m->value, &a->text) != PD_OK)
		fail(a, "too_big", "generated text longer than %zu bytes", a->text.max);
	return true;
}

/* delta of a chunk or message of an answer: does it carry text? */
static bool read_delta(struct answer *a, struct span delta)
{
	struct json_member m;
	size_t at = 0;
	bool any = false;

	while (json_object_next(delta, &at, &m)) {
		if (member_is(&m, "content") || member_is(&m, "reasoning_content") ||
		    member_is(&m, "reasoning") || member_is(&m, "refusal"))
			any |= take_text(a, &m);
		else if (member_is(&m, "tool_calls"))
			any |= m.type == JSON_ARRAY && m.value.n > 2;
	}
	return any;
}

static bool read_choice(struct answer *a, struct span choice)
{
	struct json_member m;
	size_t at = 0;
	bool any = false;

	while (json_object_next(choice, &at, &m)) {
		if (member_is(&m, "text"))
			any |= take_text(a, &m);
		else if ((member_is(&m, "delta") || member_is(&m, "message")) &&
			 m.type == JSON_OBJECT)
			any |= read_delta(a, m.value);
		else if (member_is(&m, "finish_reason") && m.type == JSON_STRING)
			a->finished = true;
	}
	return any;
}

static bool read_choices(struct answer *a, struct span choices)
{
	enum json_type type;
	struct span v;
	size_t at = 0;
	bool any = false;

	while (json_array_next(choices, &at, &v, &type))
		if (type == JSON_OBJECT)
			any |= read_choice(a, v);
	return any;
}

/* "message" of an error object, or the value itself. */
static void note_server_error(struct answer *a, const char *label, const struct json_member *e)
{
	struct span text = e->value;
	struct json_member m;
	size_t at = 0;

	if (e->type == JSON_OBJECT)
		while (json_object_next(e->value, &at, &m))
			if (member_is(&m, "message"))
				text = m.value;
	fail(a, label, "%.*s", (int)(text.n < 250 ? text.n : 250), text.p);
}

static int add_gap(struct answer *a, int64_t ns, int64_t tokens)
{
	size_t cap = a->gaps_cap ? a->gaps_cap * 2 : 64;
	struct result_gap *p;

	if (a->ngaps == ANSWER_GAPS_MAX)
		return PD_ETOOBIG;
	if (a->ngaps == a->gaps_cap) {
		p = realloc(a->gap, cap * sizeof(*p));
		if (!p)
			return PD_ENOMEM;
		a->gap = p;
		a->gaps_cap = cap;
	}
	a->gap[a->ngaps++] = (struct result_gap){ns, tokens};
	return PD_OK;
}

/* A piece of text came. Its tokens are what the stated total grew by since the last piece, when
 * this event stated it. */
static void note_piece(struct answer *a, int64_t now_ns, bool usage_here)
{
	int64_t tokens = -1;

	if (usage_here && a->completion_tokens >= 0) {
		tokens = a->completion_tokens - (a->said > 0 ? a->said : 0);
		tokens = tokens < 0 ? 0 : tokens;
		a->said = a->completion_tokens;
	}
	if (a->pieces++ == 0) {
		a->first_token_ns = now_ns;
		a->first_tokens = tokens;
	} else if (add_gap(a, now_ns - a->last_token_ns, tokens)) {
		fail(a, "too_big", "stream of more than %zu pieces", ANSWER_GAPS_MAX);
	}
	a->last_token_ns = now_ns;
}

static void read_event(struct answer *a, const struct sse_event *e, int64_t now_ns)
{
	const struct json_member *choices, *usage, *error;
	struct json_object o;
	struct pd_msg msg = {""};
	bool stated;

	if (span_eq(e->data, SPAN("[DONE]"))) {
		a->done = true;
		return;
	}
	if (json_object_scan(&o, e->data.p, e->data.n, &msg) != PD_OK) {
		fail(a, "bad_event", "event %lld is not a JSON object: %s", (long long)a->pieces,
		     msg.text);
		json_object_release(&o);
		return;
	}
	error = json_object_get(&o, "error");
	choices = json_object_get(&o, "choices");
	usage = json_object_get(&o, "usage");
	stated = usage && usage->type == JSON_OBJECT;
	if (error && error->type != JSON_NULL)
		note_server_error(a, "stream_error", error);
	else if (span_eq(e->event, SPAN("error")))
		fail(a, "stream_error", "%.*s", (int)(e->data.n < 250 ? e->data.n : 250),
		     e->data.p);
	if (stated)
		read_usage(a, usage->value);
	if (choices && choices->type == JSON_ARRAY && read_choices(a, choices->value))
		note_piece(a, now_ns, stated);
	json_object_release(&o);
}

void answer_feed(struct answer *a, const char *p, size_t n, int64_t now_ns)
{
	struct sse_event e;

	/* of a long error page only the beginning is kept */
	if (!a->streamed || a->status != 200) {
		if (a->status != 200 && a->body.len + n > 65536)
			return;
		if (buf_append(&a->body, p, n))
			fail(a, "too_big", "answer of more than %zu bytes", a->body.max);
		return;
	}
	if (a->failure && strcmp(a->failure, "too_big") == 0)
		return;
	if (sse_reader_feed(&a->sse, p, n)) {
		fail(a, "too_big", "event of more than %zu bytes", ANSWER_EVENT_MAX);
		return;
	}
	while (sse_reader_next(&a->sse, &e))
		read_event(a, &e, now_ns);
}

static void end_error(struct answer *a)
{
	const struct json_member *e = NULL;
	struct json_object o;
	size_t shown = a->body.len < 250 ? a->body.len : 250;
	bool parsed =
		json_object_scan(&o, a->body.data ? a->body.data : "", a->body.len, NULL) == PD_OK;

	if (parsed) {
		e = json_object_get(&o, "error");
		e = e ? e : json_object_get(&o, "detail");
		e = e ? e : json_object_get(&o, "message");
	}
	if (e)
		note_server_error(a, "http", e);
	else
		fail(a, "http", "%.*s", (int)shown, a->body.data ? a->body.data : "");
	json_object_release(&o);
}

static void end_plain(struct answer *a, int64_t now_ns, bool embeddings)
{
	const struct json_member *list, *usage;
	struct json_object o;
	struct pd_msg msg = {""};

	if (json_object_scan(&o, a->body.data ? a->body.data : "", a->body.len, &msg) != PD_OK) {
		fail(a, "bad_answer", "%s", msg.text);
		json_object_release(&o);
		return;
	}
	list = json_object_get(&o, embeddings ? "data" : "choices");
	usage = json_object_get(&o, "usage");
	if (usage && usage->type == JSON_OBJECT)
		read_usage(a, usage->value);
	if (!list || list->type != JSON_ARRAY || list->value.n <= 2)
		fail(a, "bad_answer", "answer without \"%s\"", embeddings ? "data" : "choices");
	else if (!embeddings)
		(void)read_choices(a, list->value);
	a->last_token_ns = now_ns;
	json_object_release(&o);
}

static void end_stream(struct answer *a, int64_t now_ns)
{
	if (!a->done && !a->finished)
		fail(a, "truncated",
		     "the stream ended after %lld pieces without finish_reason and [DONE]",
		     (long long)a->pieces);
	else if (!a->done && sse_reader_pending(&a->sse) > 0)
		fail(a, "truncated", "the stream ended inside an event");
	if (a->last_token_ns < 0)
		a->last_token_ns = now_ns;
}

void answer_end(struct answer *a, int64_t now_ns, bool whole, bool embeddings)
{
	if (a->status != 200) {
		end_error(a);
		return;
	}
	if (!whole)
		fail(a, "truncated", "the connection was lost after %lld pieces",
		     (long long)a->pieces);
	else if (a->streamed)
		end_stream(a, now_ns);
	else
		end_plain(a, now_ns, embeddings);
}

struct result_gap *answer_take_gaps(struct answer *a, size_t *n)
{
	struct result_gap *p = a->gap;

	*n = a->ngaps;
	a->gap = NULL;
	a->ngaps = a->gaps_cap = 0;
	return p;
}
