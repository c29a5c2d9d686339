/*
 * Members of a record by tables of rules: name, what it sets, which JSON types it may have. Adding
 * the spelling of another tool is one line. The scanner has validated the record, so the readers
 * below only look at types and ranges. Hash ids are the bulk of a trace and have a digit loop of
 * their own.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/workload/format.h"

/* Spellings that mean the same in every format that has them. */
static const struct field_rule common[] = {
	{"timestamp", FIELD_TIME, TO_ARRIVAL, 0, WORKLOAD_UNIT_MS},
	{"input_length", FIELD_COUNT, TO_INPUT, 0, 0},
	{"output_length", FIELD_COUNT, TO_OUTPUT, 0, 0},
	{"hash_ids", FIELD_IDS, TO_IDS, 0, 0},
	{"prompt", FIELD_PROMPT, TO_PROMPT, 0, 0},
	{"messages", FIELD_MESSAGES, TO_MESSAGES, 0, 0},
	{"prompt_cache_key", FIELD_NAME, TO_KEY, 0, 0},
	{"session_id", FIELD_NAME, TO_SESSION, 0, 0},
	{"conversation_id", FIELD_NAME, TO_SESSION, 1, 0},
	{"chat_id", FIELD_NAME, TO_SESSION, 2, 0},
	{"turn", FIELD_COUNT, TO_TURN, 0, 0},
	{"message_index", FIELD_COUNT, TO_TURN, 1, 0},
	{"prefix_group", FIELD_COUNT, TO_GROUP, 0, 0},
	{"delay", FIELD_PAUSE, TO_DELAY, 0, WORKLOAD_UNIT_MS},
	{"delay_ms", FIELD_PAUSE, TO_DELAY, 0, WORKLOAD_UNIT_MS},
	{"block_tokens", FIELD_COUNT, TO_BLOCK, 0, 0},
	{"output_tokens", FIELD_COUNT, TO_OUTPUT, 1, 0},
	{"output_len", FIELD_COUNT, TO_OUTPUT, 2, 0},
	{"max_completion_tokens", FIELD_COUNT, TO_OUTPUT, 3, 0},
	{"max_tokens", FIELD_COUNT, TO_OUTPUT, 4, 0},
	{"max_output_tokens", FIELD_COUNT, TO_OUTPUT, 5, 0},
	{"input_toks", FIELD_COUNT, TO_INPUT, 1, 0},
	{"output_toks", FIELD_COUNT, TO_OUTPUT, 2, 0},
	{"arrival_time_ns", FIELD_TIME, TO_ARRIVAL, 1, WORKLOAD_UNIT_NS},
	{"prompt_tokens_approx", FIELD_COUNT, TO_INPUT, 2, 0},
	{"prompt_chars", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{"prompt_token_ids", FIELD_LIST, TO_PROMPT, 1, 0},
	{"input_ids", FIELD_LIST, TO_PROMPT, 1, 0},
	{"input_tok_ids", FIELD_LIST, TO_PROMPT, 1, 0},
	{"picked", FIELD_LIST, TO_PICKED, 0, 0},
	{"draws", FIELD_LIST, TO_DRAWS, 0, 0},
	{"key_hashed", FIELD_FLAG, TO_HASHED, 0, 0},
	{"id", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{"request_id", FIELD_KNOWN, TO_NOTHING, 0, 0},
	{NULL, 0, 0, 0, 0}};

/* Members of request bodies that servers and providers know: they are sent as they are. */
static const char *const body_members[] = {"temperature",
					   "top_p",
					   "top_k",
					   "min_p",
					   "n",
					   "stop",
					   "seed",
					   "presence_penalty",
					   "frequency_penalty",
					   "repetition_penalty",
					   "length_penalty",
					   "logprobs",
					   "top_logprobs",
					   "prompt_logprobs",
					   "logit_bias",
					   "tools",
					   "tool_choice",
					   "parallel_tool_calls",
					   "functions",
					   "function_call",
					   "response_format",
					   "text_format",
					   "user",
					   "metadata",
					   "store",
					   "reasoning",
					   "reasoning_effort",
					   "thinking",
					   "verbosity",
					   "service_tier",
					   "system",
					   "system_instruction",
					   "instructions",
					   "chat_template",
					   "chat_template_kwargs",
					   "add_generation_prompt",
					   "continue_final_message",
					   "add_special_tokens",
					   "documents",
					   "guided_json",
					   "guided_regex",
					   "guided_choice",
					   "guided_grammar",
					   "structured_outputs",
					   "ignore_eos",
					   "min_tokens",
					   "stop_token_ids",
					   "stop_sequences",
					   "skip_special_tokens",
					   "spaces_between_special_tokens",
					   "include_stop_str_in_output",
					   "echo",
					   "best_of",
					   "suffix",
					   "use_beam_search",
					   "bad_words",
					   "allowed_token_ids",
					   "truncate_prompt_tokens",
					   "priority",
					   "vllm_xargs",
					   "kv_transfer_params",
					   "mm_processor_kwargs",
					   "lora_path",
					   "sampling_params",
					   "session_params",
					   "modalities",
					   "audio",
					   "prediction",
					   "web_search_options",
					   "dimensions",
					   "encoding_format",
					   "return_token_ids",
					   "previous_response_id",
					   "conversation",
					   "include",
					   "truncation",
					   "extra_body",
					   NULL};

/* What the options of a run decide; a record's own is named once and not sent. */
static const char *const managed[] = {"model", "stream", "stream_options", NULL};

#define RANK_NONE UINT32_MAX

struct record {
	struct format_reader *rd;
	struct workload_request *r;
	const struct field_rule *rules;
	bool open_body;
	unsigned rank[TO_COUNT];
};

static const char *type_name(enum json_type t)
{
	static const char *const names[] = {"nothing",	"an object", "an array", "a string",
					    "a number", "true",	     "false",	 "null"};

	return names[t];
}

static int wrong(struct record *rec, const struct json_member *m, const char *expected)
{
	size_t shown = m->value.n < 40 ? m->value.n : 40;

	return format_wrong(rec->rd, m->value.p, "member \"%.*s\" is %s (%.*s%s), expected %s",
			    m->key.n < 100 ? (int)m->key.n : 100, m->key.p, type_name(m->type),
			    (int)shown, m->value.p, shown < m->value.n ? "..." : "", expected);
}

static int64_t *number_target(struct workload_request *r, enum field_target to)
{
	switch (to) {
	case TO_INPUT:
		return &r->input_tokens;
	case TO_OUTPUT:
		return &r->output_tokens;
	case TO_ARRIVAL:
		return &r->arrival_ns;
	case TO_DELAY:
		return &r->delay_ns;
	case TO_TURN:
		return &r->turn;
	default:
		return &r->group;
	}
}

static int set_count(struct record *rec, const struct json_member *m, enum field_target to)
{
	int64_t v;

	if (m->type != JSON_NUMBER || format_count(m->value, &v) != PD_OK)
		return wrong(rec, m, "a whole number, 0 or more");
	if (to == TO_BLOCK) {
		if (v == 0 || v > UINT32_MAX)
			return wrong(rec, m, "a whole number from 1 to 4294967295");
		rec->r->block_tokens = (uint32_t)v;
		return PD_OK;
	}
	*number_target(rec->r, to) = v;
	return PD_OK;
}

static int set_time(struct record *rec, const struct json_member *m, const struct field_rule *f)
{
	static const char *const expected[] = {"a time, 0 or more", "a time in seconds, 0 or more",
					       "a time in milliseconds, 0 or more",
					       "a time in microseconds, 0 or more",
					       "a time in nanoseconds, 0 or more"};
	int64_t *to = number_target(rec->r, f->to);
	enum workload_unit unit = f->unit;
	int err = PD_EINVAL;

	if (m->type == JSON_NUMBER && f->kind == FIELD_PAUSE)
		err = format_pause(m->value, unit, to);
	else if (m->type == JSON_NUMBER)
		err = format_time(rec->rd, m->value, unit, to);
	return err == PD_EINVAL ? wrong(rec, m, expected[unit]) : err;
}

static int set_name(struct record *rec, const struct json_member *m, enum field_target to)
{
	struct span *out = to == TO_KEY ? &rec->r->key : &rec->r->session, raw;
	int64_t v;
	int err;

	if (m->type != JSON_STRING) {
		if (m->type != JSON_NUMBER || json_int(m->value, &v) != PD_OK)
			return wrong(rec, m, "a string or a whole number");
		*out = m->value;
		return PD_OK;
	}
	raw = (struct span){m->value.p + 1, m->value.n - 2};
	*out = raw;
	if (!memchr(raw.p, '\\', raw.n))
		return PD_OK;
	buf_clear(&rec->rd->scratch);
	err = json_string_decode(m->value, &rec->rd->scratch);
	return err ? err : format_keep(rec->rd, buf_span(&rec->rd->scratch), out);
}

/* One id at *at; false when it is not a whole number of 64 bits. Negative ids keep their two's
 * complement. */
static bool id_next(const char **at, uint64_t *out)
{
	const char *p = *at;
	bool negative = *p == '-';
	uint64_t v = 0;

	p += negative;
	if (*p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
			return false;
	if (*p == '.' || *p == 'e' || *p == 'E')
		return false;
	*at = p;
	*out = negative ? 0 - v : v;
	return true;
}

int format_add_id(struct format_reader *rd, struct workload_request *r, uint64_t id)
{
	size_t cap = rd->ids_cap ? rd->ids_cap * 2 : 4096;
	uint64_t *p;

	if (r->nhash == UINT32_MAX)
		return PD_ETOOBIG;
	if (rd->w->nids == rd->ids_cap) {
		p = reallocarray(rd->w->ids, cap, sizeof(*p));
		if (!p)
			return PD_ENOMEM;
		rd->w->ids = p;
		rd->ids_cap = cap;
	}
	rd->w->ids[rd->w->nids++] = id;
	r->nhash++;
	return PD_OK;
}

static int set_ids(struct record *rec, const struct json_member *m)
{
	const char *p = m->value.p + 1, *end = m->value.p + m->value.n - 1;
	uint64_t id;
	int err = PD_OK;

	/* a repeated member replaces the ids of the first */
	rec->rd->w->nids -= rec->r->nhash;
	rec->r->nhash = 0;
	if (m->type != JSON_ARRAY)
		return wrong(rec, m, "an array of whole numbers");
	while (!err) {
		while (p < end &&
		       (*p == ' ' || *p == ',' || *p == '\t' || *p == '\r' || *p == '\n'))
			p++;
		if (p >= end)
			break;
		if (!id_next(&p, &id))
			return wrong(rec, m, "an array of whole numbers of at most 64 bits");
		err = format_add_id(rec->rd, rec->r, id);
	}
	return err;
}

/* Adds a member to those of the body. */
static int add_extra(struct record *rec, struct span key, struct span value)
{
	struct buf *text = &rec->rd->scratch;
	struct span before = rec->r->extra;
	int err;

	buf_clear(text);
	err = before.n > 0 ? buf_append(text, before.p, before.n - 1) : buf_putc(text, '{');
	if (!err)
		err = buf_puts(text, before.n > 0 ? ",\"" : "\"");
	if (!err)
		err = buf_append(text, key.p, key.n);
	if (!err)
		err = buf_puts(text, "\":");
	if (!err)
		err = buf_append(text, value.p, value.n);
	if (!err)
		err = buf_putc(text, '}');
	return err ? err : format_keep(rec->rd, buf_span(text), &rec->r->extra);
}

static int merge(struct record *rec, const struct json_member *m)
{
	struct json_member inner;
	size_t at = 0;
	int err = PD_OK;

	if (m->type != JSON_OBJECT)
		return wrong(rec, m, "an object");
	while (!err && json_object_next(m->value, &at, &inner))
		err = add_extra(rec, inner.key, inner.value);
	return err;
}

static int set_value(struct record *rec, const struct json_member *m, const struct field_rule *f)
{
	struct workload_request *r = rec->r;

	switch (f->kind) {
	case FIELD_PROMPT:
		if (m->type != JSON_STRING && m->type != JSON_ARRAY)
			return wrong(rec, m, "a string or an array");
		r->prompt = m->value;
		return PD_OK;
	case FIELD_TEXT:
		if (m->type != JSON_STRING)
			return wrong(rec, m, "a string");
		r->prompt = m->value;
		return PD_OK;
	case FIELD_MESSAGES:
		if (m->type != JSON_ARRAY)
			return wrong(rec, m, "an array of messages");
		r->messages = m->value;
		return PD_OK;
	case FIELD_LIST:
		if (m->type != JSON_ARRAY)
			return wrong(rec, m,
				     f->to == TO_PROMPT ? "an array of token ids"
							: "an array of texts");
		*(f->to == TO_PICKED  ? &r->picked
		  : f->to == TO_DRAWS ? &r->draws
				      : &r->prompt) = m->value;
		return PD_OK;
	default:
		if (m->type != JSON_TRUE && m->type != JSON_FALSE)
			return wrong(rec, m, "true or false");
		r->key_hashed = m->type == JSON_TRUE;
		return PD_OK;
	}
}

static int set_field(struct record *rec, const struct json_member *m, const struct field_rule *f)
{
	switch (f->kind) {
	case FIELD_COUNT:
		return set_count(rec, m, f->to);
	case FIELD_TIME:
	case FIELD_PAUSE:
		return set_time(rec, m, f);
	case FIELD_NAME:
		return set_name(rec, m, f->to);
	case FIELD_IDS:
		return set_ids(rec, m);
	case FIELD_BODY:
		return add_extra(rec, m->key, m->value);
	case FIELD_MERGE:
		return merge(rec, m);
	case FIELD_KNOWN:
		return PD_OK;
	default:
		return set_value(rec, m, f);
	}
}

static const struct field_rule *rule_in(const struct field_rule *rules, struct span key)
{
	for (; rules && rules->name; rules++)
		if (strlen(rules->name) == key.n && memcmp(rules->name, key.p, key.n) == 0)
			return rules;
	return NULL;
}

static bool listed(const char *const *names, struct span key)
{
	for (; *names; names++)
		if (strlen(*names) == key.n && memcmp(*names, key.p, key.n) == 0)
			return true;
	return false;
}

/* A member that no rule knows: a member of a request body, or not used. */
static int other_member(struct record *rec, const struct json_member *m)
{
	if (listed(managed, m->key)) {
		format_unused_member(rec->rd, m->key);
		return PD_OK;
	}
	if (rec->open_body || listed(body_members, m->key))
		return add_extra(rec, m->key, m->value);
	format_unused_member(rec->rd, m->key);
	return PD_OK;
}

static int set_fields(struct record *rec, const struct json_object *o)
{
	for (size_t i = 0; i < o->n; i++) {
		const struct json_member *m = &o->member[i];
		const struct field_rule *f = rule_in(rec->rules, m->key);
		int err;

		/* null means "not stated", as most writers use it */
		if (m->type == JSON_NULL)
			continue;
		if (!f)
			f = rule_in(common, m->key);
		if (!f) {
			err = other_member(rec, m);
		} else if (f->to != TO_NOTHING && f->rank > rec->rank[f->to]) {
			continue;
		} else {
			err = set_field(rec, m, f);
			rec->rank[f->to] = f->rank;
		}
		if (err)
			return err;
	}
	return PD_OK;
}

static void begin(struct record *rec)
{
	for (size_t i = 0; i < TO_COUNT; i++)
		rec->rank[i] = RANK_NONE;
}

int format_fields(struct format_reader *rd, const struct json_object *o, struct workload_request *r)
{
	struct record rec = {
		.rd = rd, .r = r, .rules = rd->format->rules, .open_body = rd->format->open_body};

	begin(&rec);
	return set_fields(&rec, o);
}

int format_fields_of(struct format_reader *rd, const struct field_rule *rules, bool open_body,
		     struct span object, struct workload_request *r)
{
	struct record rec = {.rd = rd, .r = r, .rules = rules, .open_body = open_body};
	struct json_object o;
	int err;

	if (object.n == 0 || object.p[0] != '{')
		return format_wrong(rd, object.p ? object.p : rd->record.p, "expected an object");
	err = json_object_scan(&o, object.p, object.n, NULL);
	if (err)
		return err == PD_ENOMEM ? err : format_wrong(rd, object.p, "%s", pd_err_text(err));
	begin(&rec);
	err = set_fields(&rec, &o);
	json_object_release(&o);
	return err;
}
