/*
 * Fields are a table: name, what it sets, which JSON types it may have. Adding the spelling of
 * another tool is one line. The scanner has validated the line, so the readers below only look at
 * types and ranges. Hash ids are the bulk of a trace and have a digit loop of their own.
 */
#include "lib/workload/record.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/json/scan.h"

enum field_kind {
	FIELD_COUNT,
	FIELD_MS,
	FIELD_NS,
	FIELD_NAME,
	FIELD_PROMPT,
	FIELD_MESSAGES,
	FIELD_PICKED,
	FIELD_DRAWS,
	FIELD_HASHED,
	FIELD_IDS
};

/* Where a field goes. Several names may set the same target; the lower rank wins (a session_id is
 * more specific than a prompt_cache_key), and of equal rank the last in the line. */
enum target {
	TO_INPUT,
	TO_OUTPUT,
	TO_ARRIVAL,
	TO_DELAY,
	TO_TURN,
	TO_GROUP,
	TO_BLOCK,
	TO_KEY,
	TO_SESSION,
	TO_PROMPT,
	TO_MESSAGES,
	TO_PICKED,
	TO_DRAWS,
	TO_HASHED,
	TO_IDS,
	TO_COUNT
};

struct field_rule {
	const char *name;
	enum field_kind kind;
	enum target to;
	unsigned rank;
};

static const struct field_rule rules[] = {
	{"timestamp", FIELD_MS, TO_ARRIVAL, 0},
	{"input_length", FIELD_COUNT, TO_INPUT, 0},
	{"output_length", FIELD_COUNT, TO_OUTPUT, 0},
	{"hash_ids", FIELD_IDS, TO_IDS, 0},
	{"prompt", FIELD_PROMPT, TO_PROMPT, 0},
	{"messages", FIELD_MESSAGES, TO_MESSAGES, 0},
	{"prompt_cache_key", FIELD_NAME, TO_KEY, 0},
	{"session_id", FIELD_NAME, TO_SESSION, 0},
	{"conversation_id", FIELD_NAME, TO_SESSION, 1},
	{"chat_id", FIELD_NAME, TO_SESSION, 2},
	{"turn", FIELD_COUNT, TO_TURN, 0},
	{"message_index", FIELD_COUNT, TO_TURN, 1},
	{"prefix_group", FIELD_COUNT, TO_GROUP, 0},
	{"delay", FIELD_MS, TO_DELAY, 0},
	{"delay_ms", FIELD_MS, TO_DELAY, 0},
	{"block_tokens", FIELD_COUNT, TO_BLOCK, 0},
	{"output_tokens", FIELD_COUNT, TO_OUTPUT, 1},
	{"input_toks", FIELD_COUNT, TO_INPUT, 1},
	{"output_toks", FIELD_COUNT, TO_OUTPUT, 2},
	{"arrival_time_ns", FIELD_NS, TO_ARRIVAL, 1},
	{"prompt_tokens_approx", FIELD_COUNT, TO_INPUT, 2},
	{"picked", FIELD_PICKED, TO_PICKED, 0},
	{"draws", FIELD_DRAWS, TO_DRAWS, 0},
	{"key_hashed", FIELD_HASHED, TO_HASHED, 0},
};

#define RANK_NONE UINT32_MAX

struct record {
	struct workload_request *r;
	struct record_ids *ids;
	const char *line;
	unsigned rank[TO_COUNT];
	struct record_error *e;
};

static const char *type_name(enum json_type t)
{
	static const char *const names[] = {"nothing",	"an object", "an array", "a string",
					    "a number", "true",	     "false",	 "null"};

	return names[t];
}

/* Characters before p in the line, plus one: what an editor calls the column. */
static size_t column_of(const char *line, const char *p)
{
	size_t column = 1;

	for (; line < p; line++)
		column += ((unsigned char)*line & 0xc0) != 0x80;
	return column;
}

/*
 * The scanner says "invalid JSON at byte 9 (line 1, column 10): found ...", and its line is always
 * 1 here. Moves the column into e, where the caller combines it with the true line, and drops the
 * place from the text.
 */
static void move_column(struct record_error *e)
{
	char *at = strstr(e->text.text, " at byte "), *column = at ? strstr(at, "column ") : NULL;
	char *end = NULL;

	if (!column)
		return;
	e->column = (size_t)strtoull(column + strlen("column "), &end, 10);
	if (end[0] == ')')
		memmove(at, end + 1, strlen(end + 1) + 1);
}

static int wrong(struct record *rec, const struct json_member *m, const char *expected)
{
	size_t shown = m->value.n < 40 ? m->value.n : 40;

	rec->e->column = column_of(rec->line, m->value.p);
	return pd_fail(&rec->e->text, PD_EINVAL, "member \"%.*s\" is %s (%.*s%s), expected %s",
		       (int)m->key.n, m->key.p, type_name(m->type), (int)shown, m->value.p,
		       shown < m->value.n ? "..." : "", expected);
}

/* A time in ns. Whole numbers stay exact; a fraction goes through a double. */
static int time_value(struct span v, int64_t unit, int64_t *out)
{
	char text[64];
	int64_t whole;
	double t;

	if (json_int(v, &whole) == PD_OK)
		return whole < 0 || __builtin_mul_overflow(whole, unit, out) ? PD_EINVAL : PD_OK;
	if (v.n >= sizeof(text))
		return PD_EINVAL;
	memcpy(text, v.p, v.n);
	text[v.n] = '\0';
	t = strtod(text, NULL) * (double)unit;
	if (!(t >= 0 && t < 4e18))
		return PD_EINVAL;
	*out = llround(t);
	return PD_OK;
}

static int64_t *number_target(struct workload_request *r, enum target to)
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

static int set_count(struct record *rec, const struct json_member *m, enum target to)
{
	int64_t v;

	if (m->type != JSON_NUMBER || json_int(m->value, &v) != PD_OK || v < 0)
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

static int set_time(struct record *rec, const struct json_member *m, enum target to, int64_t unit)
{
	if (m->type != JSON_NUMBER ||
	    time_value(m->value, unit, number_target(rec->r, to)) != PD_OK)
		return wrong(rec, m,
			     unit == NS_PER_MS ? "a time in milliseconds, 0 or more"
					       : "a time in nanoseconds, 0 or more");
	return PD_OK;
}

/* Text of a string value without its quotes. Decoded text is never longer than its escapes, so it
 * replaces them in place. */
static int name_text(char *value, size_t n, struct span *out)
{
	struct buf text;
	int err;

	*out = (struct span){value + 1, n - 2};
	if (!memchr(out->p, '\\', out->n))
		return PD_OK;
	buf_init(&text, n);
	err = json_string_decode((struct span){value, n}, &text);
	if (!err) {
		memcpy(value + 1, text.data ? text.data : "", text.len);
		out->n = text.len;
	}
	buf_release(&text);
	return err;
}

static int set_name(struct record *rec, const struct json_member *m, enum target to)
{
	struct span *out = to == TO_KEY ? &rec->r->key : &rec->r->session;
	size_t off = (size_t)(m->value.p - rec->line);
	int64_t v;

	if (m->type == JSON_STRING)
		return name_text((char *)(uintptr_t)rec->line + off, m->value.n, out);
	if (m->type != JSON_NUMBER || json_int(m->value, &v) != PD_OK)
		return wrong(rec, m, "a string or a whole number");
	*out = m->value;
	return PD_OK;
}

static int ids_reserve(struct record_ids *ids)
{
	size_t cap = ids->cap ? ids->cap * 2 : 4096;
	uint64_t *p;

	if (ids->n < ids->cap)
		return PD_OK;
	p = realloc(ids->id, cap * sizeof(*p));
	if (!p)
		return PD_ENOMEM;
	ids->id = p;
	ids->cap = cap;
	return PD_OK;
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

static int set_ids(struct record *rec, const struct json_member *m)
{
	const char *p = m->value.p + 1, *end = m->value.p + m->value.n - 1;
	size_t first = rec->ids->n;

	if (m->type != JSON_ARRAY)
		return wrong(rec, m, "an array of whole numbers");
	for (;;) {
		while (p < end && (*p == ' ' || *p == ',' || *p == '\t' || *p == '\r'))
			p++;
		if (p >= end)
			break;
		if (ids_reserve(rec->ids))
			return PD_ENOMEM;
		if (!id_next(&p, &rec->ids->id[rec->ids->n]))
			return wrong(rec, m, "an array of whole numbers of at most 64 bits");
		rec->ids->n++;
	}
	if (rec->ids->n - first > UINT32_MAX)
		return PD_ETOOBIG;
	rec->r->nhash = (uint32_t)(rec->ids->n - first);
	return PD_OK;
}

static int set_field(struct record *rec, const struct json_member *m, const struct field_rule *f)
{
	switch (f->kind) {
	case FIELD_COUNT:
		return set_count(rec, m, f->to);
	case FIELD_MS:
		return set_time(rec, m, f->to, NS_PER_MS);
	case FIELD_NS:
		return set_time(rec, m, f->to, 1);
	case FIELD_NAME:
		return set_name(rec, m, f->to);
	case FIELD_IDS:
		/* a repeated member replaces the ids of the first */
		rec->ids->n -= rec->r->nhash;
		return set_ids(rec, m);
	case FIELD_PROMPT:
		if (m->type != JSON_STRING && m->type != JSON_ARRAY)
			return wrong(rec, m, "a string or an array");
		rec->r->prompt = m->value;
		return PD_OK;
	case FIELD_MESSAGES:
		if (m->type != JSON_ARRAY)
			return wrong(rec, m, "an array of messages");
		rec->r->messages = m->value;
		return PD_OK;
	case FIELD_PICKED:
	case FIELD_DRAWS:
		if (m->type != JSON_ARRAY)
			return wrong(rec, m, "an array of texts");
		*(f->kind == FIELD_PICKED ? &rec->r->picked : &rec->r->draws) = m->value;
		return PD_OK;
	case FIELD_HASHED:
		if (m->type != JSON_TRUE && m->type != JSON_FALSE)
			return wrong(rec, m, "true or false");
		rec->r->key_hashed = m->type == JSON_TRUE;
		return PD_OK;
	}
	return PD_EINVAL;
}

static const struct field_rule *rule_of(struct span key)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (strlen(rules[i].name) == key.n && memcmp(rules[i].name, key.p, key.n) == 0)
			return &rules[i];
	return NULL;
}

static int set_fields(struct record *rec, const struct json_object *o)
{
	for (size_t i = 0; i < o->n; i++) {
		const struct field_rule *f = rule_of(o->member[i].key);
		int err;

		if (!f || f->rank > rec->rank[f->to])
			continue;
		/* null means "not stated", as most writers use it */
		if (o->member[i].type == JSON_NULL)
			continue;
		err = set_field(rec, &o->member[i], f);
		if (err)
			return err;
		rec->rank[f->to] = f->rank;
	}
	return PD_OK;
}

static int check(struct record *rec)
{
	struct workload_request *r = rec->r;
	uint64_t most;

	rec->e->column = 1;
	if (r->prompt.n == 0 && r->messages.n == 0 && r->input_tokens < 0)
		return pd_fail(&rec->e->text, PD_EINVAL,
			       "record without a request: expected \"prompt\", \"messages\", or "
			       "\"input_length\" with \"hash_ids\"");
	if (r->nhash == 0 || r->input_tokens < 0)
		return PD_OK;
	most = ((uint64_t)r->input_tokens + r->block_tokens - 1) / r->block_tokens;
	if (r->nhash > most)
		return pd_fail(&rec->e->text, PD_EINVAL,
			       "%u hash_ids for an input_length of %lld: expected at most %llu "
			       "blocks of %u tokens (another block size?)",
			       r->nhash, (long long)r->input_tokens, (unsigned long long)most,
			       r->block_tokens);
	return PD_OK;
}

int record_parse(char *line, size_t n, const struct workload_options *opt,
		 struct workload_request *r, struct record_ids *ids, struct record_error *e)
{
	struct record rec = {.r = r, .ids = ids, .line = line, .e = e};
	struct json_object o;
	int err;

	*r = (struct workload_request){.arrival_ns = -1,
				       .delay_ns = -1,
				       .input_tokens = -1,
				       .output_tokens = -1,
				       .turn = -1,
				       .group = -1,
				       .session_no = WORKLOAD_NO_SESSION,
				       .block_tokens = opt->block_tokens ? opt->block_tokens
									 : WORKLOAD_BLOCK_TOKENS};
	for (size_t i = 0; i < TO_COUNT; i++)
		rec.rank[i] = RANK_NONE;
	e->column = 0;
	e->text.text[0] = '\0';
	err = json_object_scan(&o, line, n, &e->text);
	if (err)
		move_column(e);
	else
		err = set_fields(&rec, &o);
	json_object_release(&o);
	if (!err)
		err = check(&rec);
	if (err)
		return err;
	r->ordered = r->session.n > 0;
	if (!r->ordered)
		r->session = r->key;
	if (r->key.n == 0)
		r->key = r->session;
	return PD_OK;
}
