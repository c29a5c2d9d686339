/*
 * Four APIs say the same four things (text, usage, finish, error) in different members. Each walk
 * below visits the members once; unknown ones are passed over. Text is kept as it was escaped: the
 * pieces of a stream are joined as JSON, so a surrogate pair that two events share stays one
 * character, and a NUL is no end.
 */
#include "lib/load/answer_read.h"

static bool is(const struct json_member *m, const char *name)
{
	return span_eq(m->key, span_of(name));
}

static void set_int(int64_t *out, const struct json_member *m)
{
	int64_t v;

	if (m->type == JSON_NUMBER && json_int(m->value, &v) == PD_OK && v >= 0)
		*out = v;
}

/* True when the completion tokens are stated. OpenAI's names, and those of responses and messages.
 */
static bool read_usage(struct answer *a, struct span usage)
{
	struct json_member m, d;
	size_t at = 0, k;
	bool stated = false;

	while (json_object_next(usage, &at, &m)) {
		if (is(&m, "prompt_tokens") || is(&m, "input_tokens")) {
			set_int(&a->prompt_tokens, &m);
		} else if (is(&m, "completion_tokens") || is(&m, "output_tokens")) {
			set_int(&a->completion_tokens, &m);
			stated = m.type == JSON_NUMBER;
		} else if (is(&m, "cache_read_input_tokens")) {
			set_int(&a->cached_tokens, &m);
		} else if ((is(&m, "prompt_tokens_details") || is(&m, "input_tokens_details")) &&
			   m.type == JSON_OBJECT) {
			for (k = 0; json_object_next(m.value, &k, &d);)
				if (is(&d, "cached_tokens"))
					set_int(&a->cached_tokens, &d);
		}
	}
	return stated;
}

static bool take_text(struct answer *a, const struct json_member *m)
{
	if (m->type != JSON_STRING || m->value.n <= 2)
		return false;
	if (a->keep_text && buf_append(&a->text, m->value.p + 1, m->value.n - 2))
		answer_fail(a, "too_big", "generated text longer than %zu bytes", a->text.max);
	a->brought = m->value;
	a->texts++;
	return true;
}

bool answer_read_same(struct answer *a, struct span event)
{
	size_t head = a->mould_at, tail = a->mould.len - a->mould_at - a->mould_n;
	struct json_member text = {.type = JSON_STRING};

	if (a->mould.len == 0 || event.n < head + tail + 3 ||
	    memcmp(event.p, a->mould.data, head) != 0 ||
	    memcmp(event.p + event.n - tail, a->mould.data + a->mould.len - tail, tail) != 0)
		return false;
	text.value = (struct span){event.p + head, event.n - head - tail};
	return json_is_string(text.value) && take_text(a, &text);
}

void answer_note_error(struct answer *a, const char *label, struct span value, enum json_type type)
{
	struct json_member m;
	size_t at = 0;

	if (type == JSON_OBJECT)
		while (json_object_next(value, &at, &m))
			if (is(&m, "message")) {
				value = m.value;
				break;
			}
	answer_fail(a, label, "%.*s", (int)(value.n < 250 ? value.n : 250), value.p);
}

/* ---- chat and completions ---- */

/* delta of an event or message of an answer: does it carry text? */
static bool read_delta(struct answer *a, struct span delta)
{
	struct json_member m;
	size_t at = 0;
	bool any = false;

	while (json_object_next(delta, &at, &m)) {
		if (is(&m, "content") || is(&m, "reasoning_content") || is(&m, "reasoning") ||
		    is(&m, "refusal"))
			any |= take_text(a, &m);
		else if (is(&m, "tool_calls"))
			any |= m.type == JSON_ARRAY && m.value.n > 2;
		else if (is(&m, "function_call"))
			any |= m.type == JSON_OBJECT && m.value.n > 2;
	}
	return any;
}

static bool read_choice(struct answer *a, struct span choice)
{
	struct json_member m;
	int64_t index = 0;
	size_t at = 0;
	bool any = false, finish = false;
	uint64_t bit;

	while (json_object_next(choice, &at, &m)) {
		if (is(&m, "index"))
			set_int(&index, &m);
		else if (is(&m, "text"))
			any |= take_text(a, &m);
		else if ((is(&m, "delta") || is(&m, "message")) && m.type == JSON_OBJECT)
			any |= read_delta(a, m.value);
		else if (is(&m, "finish_reason"))
			finish = m.type == JSON_STRING;
	}
	bit = UINT64_C(1) << (index % ANSWER_CHOICES_MAX);
	a->begun |= bit;
	a->finished |= finish ? bit : 0;
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

/* ---- responses and messages ---- */

static bool text_is(const struct json_member *m, const char *text)
{
	return m->type == JSON_STRING && m->value.n >= 2 &&
	       span_eq((struct span){m->value.p + 1, m->value.n - 2}, span_of(text));
}

static bool text_ends(const struct json_member *m, const char *end)
{
	size_t n = strlen(end);

	return m->type == JSON_STRING && m->value.n >= n + 2 &&
	       memcmp(m->value.p + m->value.n - 1 - n, end, n) == 0;
}

static void finish_all(struct answer *a)
{
	a->begun |= 1;
	a->finished = a->begun;
}

/* "response" of response.completed, and a whole answer of that API. */
static bool read_response(struct answer *a, struct span response)
{
	struct json_member m;
	size_t at = 0;
	bool usage = false;

	while (json_object_next(response, &at, &m)) {
		if (is(&m, "usage") && m.type == JSON_OBJECT)
			usage = read_usage(a, m.value);
		else if (is(&m, "error") && m.type != JSON_NULL)
			answer_note_error(a, a->streamed ? "stream_error" : "error_answer", m.value,
					  m.type);
	}
	return usage;
}

static struct answer_news response_event(struct answer *a, const struct json_object *o,
					 const struct json_member *type)
{
	const struct json_member *delta = json_object_get(o, "delta"),
				 *whole = json_object_get(o, "response");
	struct answer_news news = {0};

	a->begun |= 1;
	if (delta && text_ends(type, ".delta"))
		news.text = take_text(a, delta);
	if (whole && whole->type == JSON_OBJECT)
		news.usage = read_response(a, whole->value);
	if (text_is(type, "response.completed") || text_is(type, "response.incomplete"))
		finish_all(a);
	else if (text_is(type, "response.failed"))
		answer_fail(a, "stream_error", "response.failed");
	return news;
}

static struct answer_news message_event(struct answer *a, const struct json_object *o,
					const struct json_member *type)
{
	const struct json_member *delta = json_object_get(o, "delta"),
				 *usage = json_object_get(o, "usage"),
				 *message = json_object_get(o, "message");
	struct answer_news news = {0};
	struct json_member m;
	size_t at = 0;

	a->begun |= 1;
	if (delta && delta->type == JSON_OBJECT && text_is(type, "content_block_delta"))
		while (json_object_next(delta->value, &at, &m))
			if (is(&m, "text") || is(&m, "thinking") || is(&m, "partial_json"))
				news.text |= take_text(a, &m);
	if (usage && usage->type == JSON_OBJECT)
		news.usage = read_usage(a, usage->value);
	/* message_start states the input, and an output that is only begun */
	if (message && message->type == JSON_OBJECT)
		for (at = 0; json_object_next(message->value, &at, &m);)
			if (is(&m, "usage") && m.type == JSON_OBJECT) {
				(void)read_usage(a, m.value);
				a->completion_tokens = -1;
			}
	if (text_is(type, "message_stop"))
		finish_all(a);
	return news;
}

/* ---- errors ---- */

/* An error object that nothing wraps: {"object": "error", "message": …}, {"detail": …}, and those
 * that have a message with a code or type but nothing that an answer has. */
static const struct json_member *bare_error(const struct json_object *o)
{
	const struct json_member *object = json_object_get(o, "object"),
				 *message = json_object_get(o, "message"),
				 *type = json_object_get(o, "type");

	if (object && text_is(object, "error"))
		return message ? message : object;
	if (type && text_is(type, "error"))
		return message ? message : type;
	if (object || json_object_get(o, "choices") || json_object_get(o, "id"))
		return NULL;
	if (message && message->type == JSON_STRING &&
	    (type || json_object_get(o, "code") || json_object_get(o, "status")))
		return message;
	return json_object_get(o, "detail");
}

static bool read_error(struct answer *a, const struct json_object *o, struct span event,
		       const char *label)
{
	const struct json_member *e = json_object_get(o, "error");

	e = e && e->type != JSON_NULL ? e : bare_error(o);
	if (e)
		answer_note_error(a, label, e->value, e->type);
	else if (span_eq(event, SPAN("error")))
		answer_note_error(a, label, o->text, JSON_OBJECT);
	return e != NULL;
}

struct answer_news answer_read_event(struct answer *a, const struct json_object *o,
				     struct span name)
{
	const struct json_member *m;
	struct answer_news news = {0};

	(void)read_error(a, o, name, "stream_error");
	if (a->api == ANSWER_RESPONSES || a->api == ANSWER_MESSAGES) {
		m = json_object_get(o, "type");
		if (m)
			return a->api == ANSWER_RESPONSES ? response_event(a, o, m)
							  : message_event(a, o, m);
	}
	m = json_object_get(o, "usage");
	if (m && m->type == JSON_OBJECT)
		news.usage = read_usage(a, m->value);
	m = json_object_get(o, "choices");
	if (m && m->type == JSON_ARRAY)
		news.text = read_choices(a, m->value);
	return news;
}

/* Text of "output" (responses) and "content" (messages): blocks with "text", the former's inside
 * items with "content". */
static bool read_blocks(struct answer *a, struct span list, int depth)
{
	enum json_type type;
	struct json_member m;
	struct span v;
	size_t at = 0, k;
	bool any = false;

	while (json_array_next(list, &at, &v, &type))
		for (k = 0; type == JSON_OBJECT && json_object_next(v, &k, &m);) {
			if (is(&m, "text") || is(&m, "arguments") || is(&m, "thinking"))
				any |= take_text(a, &m);
			else if (is(&m, "input"))
				any |= m.type == JSON_OBJECT;
			else if (is(&m, "content") && m.type == JSON_ARRAY && depth == 0)
				any |= read_blocks(a, m.value, 1);
		}
	return any;
}

struct answer_news answer_read_whole(struct answer *a, const struct json_object *o)
{
	static const char *const lists[] = {[ANSWER_CHOICES] = "choices",
					    [ANSWER_EMBEDDINGS] = "data",
					    [ANSWER_RESPONSES] = "output",
					    [ANSWER_MESSAGES] = "content"};
	const struct json_member *list = json_object_get(o, lists[a->api]),
				 *usage = json_object_get(o, "usage");
	struct answer_news news = {0};

	if (read_error(a, o, SPAN(""), "error_answer"))
		return news;
	if (usage && usage->type == JSON_OBJECT)
		news.usage = read_usage(a, usage->value);
	if (!list || list->type != JSON_ARRAY || list->value.n <= 2)
		answer_fail(a, "bad_answer", "answer without \"%s\"", lists[a->api]);
	else if (a->api == ANSWER_CHOICES)
		news.text = read_choices(a, list->value);
	else if (a->api == ANSWER_EMBEDDINGS)
		news.text = true;
	else
		news.text = read_blocks(a, list->value, 0);
	return news;
}
