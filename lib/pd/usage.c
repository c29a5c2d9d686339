/*
 * Decode prefills nothing, so what it says about the prompt is about the transfer: the prompt's
 * side of usage comes from the prefill response. The edits are splices on decode's own text; a
 * value that is right already is left alone, so that most documents pass without a copy.
 */
#include "lib/pd/usage.h"

#define USAGE_MAX 2048	/* bytes of a usage object that are looked at */
#define LOOK_BACK 65536 /* bytes at the end of a piece that are searched */

#define INSERTED_MAX 256 /* bytes of inserted members besides prefill's details */

/* The two dialects: chat and completions, and the responses API. */
static const struct names {
	const char *prompt, *details, *output;
} dialects[] = {
	{"prompt_tokens", "prompt_tokens_details", "completion_tokens"},
	{"input_tokens", "input_tokens_details", "output_tokens"},
};

/* Counts of the Anthropic form, which stand beside input_tokens. */
static const char *const cache_names[] = {"cache_read_input_tokens", "cache_creation_input_tokens"};
#define CACHE_NAMES (sizeof(cache_names) / sizeof(cache_names[0]))

struct merge {
	struct json_edit edit;
	struct json_object usage; /* decode's usage object */
	const struct names *names;
	const struct pd_prefill_usage *prefill;
	struct span details;		/* prefill's details object; n == 0 when it has none */
	struct span cache[CACHE_NAMES]; /* prefill's values; n == 0: none */
	char number[3][24];		/* texts of the new numbers; the editor borrows them */
	unsigned numbers;
	struct buf inserted; /* members that decode lacks, and the closing brace */
};

static int replace(struct merge *m, struct span value, struct span with)
{
	return span_eq(value, with) ? PD_OK : json_edit_replace(&m->edit, value, with);
}

static struct span number_text(struct merge *m, int64_t n)
{
	char *text = m->number[m->numbers++], *p = text + sizeof(m->number[0]);
	uint64_t left = (uint64_t)n;

	do {
		*--p = (char)('0' + left % 10);
		left /= 10;
	} while (left > 0);
	return (struct span){p, (size_t)(text + sizeof(m->number[0]) - p)};
}

static bool count_of(const struct json_object *o, const char *name, int64_t *n)
{
	const struct json_member *x = json_object_get(o, name);

	return x && x->type == JSON_NUMBER && json_int(x->value, n) == PD_OK && *n >= 0;
}

/* A member to be put before the closing brace of an object that has n members already. */
static int insert(struct merge *m, const struct json_object *o, const char *name, struct span value)
{
	size_t before = m->inserted.len;
	int err = PD_OK;

	if (o->n > 0)
		err = buf_putc(&m->inserted, ',');
	if (!err)
		err = json_quote(&m->inserted, name, strlen(name));
	if (!err)
		err = buf_putc(&m->inserted, ':');
	if (!err)
		err = buf_append(&m->inserted, value.p, value.n);
	if (!err)
		err = buf_putc(&m->inserted, '}');
	if (err)
		return err;
	return json_edit_replace(
		&m->edit, (struct span){o->text.p + o->text.n - 1, 1},
		(struct span){m->inserted.data + before, m->inserted.len - before});
}

/* Removes all members with this name from a nested object, each with one comma. */
static int remove_members(struct merge *m, const struct json_object *o, const char *name)
{
	size_t kept = 0;
	int err = PD_OK;

	for (size_t i = 0; i < o->n && !err; i++) {
		const struct json_member *x = &o->member[i];
		const char *from = x->key.p - 1, *to = x->value.p + x->value.n;

		if (!json_member_is(x, name)) {
			kept++;
			continue;
		}
		/* up to the next member when nothing is kept before it, else from the end of the
		 * one before */
		if (kept == 0 && i + 1 < o->n)
			to = o->member[i + 1].key.p - 1;
		else if (kept > 0)
			from = o->member[i - 1].value.p + o->member[i - 1].value.n;
		err = json_edit_replace(&m->edit, (struct span){from, (size_t)(to - from)},
					(struct span){"", 0});
	}
	return err;
}

/* Prefill has no details object: decode's stays, but its cached tokens are prefill's number or
 * nothing. */
static int merge_cached(struct merge *m, const struct json_member *details)
{
	const struct json_member *x;
	struct json_object o;
	struct span text;
	int err;

	err = json_object_scan(&o, details->value.p, details->value.n, NULL);
	if (err)
		return err;
	x = json_object_get(&o, "cached_tokens");
	if (m->prefill->cached_tokens < 0) {
		err = remove_members(m, &o, "cached_tokens");
	} else {
		text = number_text(m, m->prefill->cached_tokens);
		err = x ? replace(m, x->value, text) : insert(m, &o, "cached_tokens", text);
	}
	json_object_release(&o);
	return err;
}

static int merge_details(struct merge *m)
{
	const struct json_member *ours = json_object_get(&m->usage, m->names->details);
	char built[64];
	struct span text;

	if (m->details.n > 0)
		return ours ? replace(m, ours->value, m->details)
			    : insert(m, &m->usage, m->names->details, m->details);
	if (ours && ours->type == JSON_OBJECT)
		return merge_cached(m, ours);
	if (m->prefill->cached_tokens < 0)
		return PD_OK;
	text = number_text(m, m->prefill->cached_tokens);
	memcpy(built, "{\"cached_tokens\":", 17);
	memcpy(built + 17, text.p, text.n);
	built[17 + text.n] = '}';
	text = (struct span){built, 18 + text.n};
	/* the editor borrows, so the text must lie in `inserted` */
	if (!ours)
		return insert(m, &m->usage, m->names->details, text);
	if (buf_append(&m->inserted, text.p, text.n))
		return PD_ENOMEM;
	return json_edit_replace(
		&m->edit, ours->value,
		(struct span){m->inserted.data + m->inserted.len - text.n, text.n});
}

static int merge_counts(struct merge *m)
{
	const struct json_member *prompt = json_object_get(&m->usage, m->names->prompt);
	const struct json_member *total = json_object_get(&m->usage, "total_tokens");
	int64_t in = m->prefill->prompt_tokens, out = 0, sum;
	int err = PD_OK;

	if (in >= 0 && prompt)
		err = replace(m, prompt->value, number_text(m, in));
	else if (!count_of(&m->usage, m->names->prompt, &in))
		return PD_OK;
	for (size_t i = 0; !err && i < CACHE_NAMES; i++) {
		const struct json_member *ours = json_object_get(&m->usage, cache_names[i]);

		if (ours && m->cache[i].n > 0)
			err = replace(m, ours->value, m->cache[i]);
	}
	(void)count_of(&m->usage, m->names->output, &out); /* 0 when absent */
	if (!err && total && total->type == JSON_NUMBER && !__builtin_add_overflow(in, out, &sum))
		err = replace(m, total->value, number_text(m, sum));
	return err;
}

/* Prefill's details under decode's name for them. */
static int find_details(struct merge *m)
{
	const struct json_member *x;
	struct json_object o;
	int err;

	if (m->prefill->usage.n == 0)
		return PD_OK;
	err = json_object_scan(&o, m->prefill->usage.p, m->prefill->usage.n, NULL);
	if (err)
		return err == PD_EINVAL ? PD_OK : err;
	x = json_object_get(&o, m->names->details);
	if (x && x->type == JSON_OBJECT)
		m->details = x->value;
	for (size_t i = 0; i < CACHE_NAMES; i++) {
		x = json_object_get(&o, cache_names[i]);
		if (x && (x->type == JSON_NUMBER || x->type == JSON_NULL))
			m->cache[i] = x->value;
	}
	json_object_release(&o);
	return PD_OK;
}

static int merge_usage(struct merge *m, struct buf *out, bool *changed)
{
	size_t total;
	int err;

	m->names = json_object_get(&m->usage, dialects[1].prompt) ? &dialects[1] : &dialects[0];
	err = find_details(m);
	if (!err)
		err = merge_counts(m);
	if (!err)
		err = merge_details(m);
	if (err || m->edit.n == 0)
		return err;
	err = json_edit_finish(&m->edit, &total);
	if (!err)
		err = json_edit_copy(&m->edit, out);
	*changed = err == PD_OK;
	return err;
}

/* `usage` is a validated object inside the scanned document. */
static int merge_into(const struct json_object *doc, struct span usage,
		      const struct pd_prefill_usage *prefill, struct buf *out, bool *changed)
{
	struct merge m = {.prefill = prefill};
	int err;

	err = json_object_scan(&m.usage, usage.p, usage.n, NULL);
	if (err)
		return err;
	buf_init(&m.inserted, prefill->usage.n + INSERTED_MAX);
	/* all of it at once: spans point into it, so it must not move */
	err = buf_reserve(&m.inserted, prefill->usage.n + INSERTED_MAX);
	if (!err)
		err = json_edit_init(&m.edit, doc);
	if (!err) {
		err = merge_usage(&m, out, changed);
		json_edit_release(&m.edit);
	}
	buf_release(&m.inserted);
	json_object_release(&m.usage);
	return err;
}

/* The usage object of a document: at the top, or inside "response" (events of the responses API)
 * or "message" (the first event of the Anthropic form). */
static bool find_usage(const struct json_object *o, struct span *usage)
{
	enum json_type type;

	return (json_object_path(o, "usage", &type, usage) && type == JSON_OBJECT) ||
	       (json_object_path(o, "response.usage", &type, usage) && type == JSON_OBJECT) ||
	       (json_object_path(o, "message.usage", &type, usage) && type == JSON_OBJECT);
}

int pd_usage_merge(const char *doc, size_t n, const struct pd_prefill_usage *prefill,
		   struct buf *out, bool *changed)
{
	struct json_object o;
	struct span usage;
	int err;

	*changed = false;
	err = json_object_scan(&o, doc, n, NULL);
	if (err)
		return err == PD_ENOMEM ? err : PD_OK;
	if (find_usage(&o, &usage))
		err = merge_into(&o, usage, prefill, out, changed);
	json_object_release(&o);
	return err;
}

bool pd_usage_maybe(const char *p, size_t n)
{
	static const char name[] = "\"usage\"";
	const char *end = p + n, *at = p;

	while (at && (at = n ? memmem(at, (size_t)(end - at), name, 7) : NULL) != NULL) {
		for (at += 7; at < end && strchr(" \t\r\n:", *at) && *at; at++)
			;
		if (at < end && *at == '{')
			return true;
	}
	return false;
}

/* -- tokens -- */

static bool is_one_of(struct span key, struct span a, struct span b)
{
	return span_eq(key, a) || span_eq(key, b);
}

static void read_count(enum json_type type, struct span value, int64_t *out)
{
	int64_t n;

	if (type == JSON_NUMBER && json_int(value, &n) == PD_OK && n >= 0)
		*out = n;
}

/* Cached tokens out of the details of the prompt's. */
static void read_details(struct span details, struct pd_tokens *t)
{
	struct json_member m;
	size_t at = 0;

	while (json_object_next(details, &at, &m))
		if (span_eq(m.key, SPAN("cached_tokens")))
			read_count(m.type, m.value, &t->cached);
}

/* The object begins the text. It was not validated: what is no number is passed over, and so is a
 * value that the end of the text has cut. */
static void read_usage(struct span text, struct pd_tokens *t)
{
	const char *end = text.p + text.n;
	struct json_member m;
	size_t at = 0;

	while (json_object_next(text, &at, &m) && m.value.p + m.value.n < end) {
		if (is_one_of(m.key, SPAN("prompt_tokens"), SPAN("input_tokens")))
			read_count(m.type, m.value, &t->prompt);
		else if (is_one_of(m.key, SPAN("completion_tokens"), SPAN("output_tokens")))
			read_count(m.type, m.value, &t->completion);
		else if (m.type == JSON_OBJECT && is_one_of(m.key, SPAN("prompt_tokens_details"),
							    SPAN("input_tokens_details")))
			read_details(m.value, t);
	}
}

/* Is the brace at `at` the value of a member "usage"? */
static bool opens_usage(const char *p, const char *at)
{
	static const char name[] = "\"usage\"";

	while (at > p && (at[-1] == ':' || at[-1] == ' ' || at[-1] == '\t' || at[-1] == '\r' ||
			  at[-1] == '\n'))
		at--;
	return (size_t)(at - p) >= sizeof(name) - 1 &&
	       memcmp(at - (sizeof(name) - 1), name, sizeof(name) - 1) == 0;
}

/* What is not known yet. */
static void complete(struct pd_tokens *t, const struct pd_tokens *before)
{
	t->prompt = t->prompt < 0 ? before->prompt : t->prompt;
	t->completion = t->completion < 0 ? before->completion : t->completion;
	t->cached = t->cached < 0 ? before->cached : t->cached;
}

/* usage comes last, so the search goes backwards from brace to brace. */
void pd_usage_tokens(struct pd_tokens *u, const char *p, size_t n)
{
	struct pd_tokens found = PD_TOKENS_UNKNOWN;
	const char *end = p + n, *at = end;

	p = n > LOOK_BACK ? end - LOOK_BACK : p;
	while ((found.prompt < 0 || found.completion < 0) && at > p &&
	       (at = memrchr(p, '{', (size_t)(at - p))) != NULL) {
		size_t left = (size_t)(end - at);
		struct pd_tokens here = PD_TOKENS_UNKNOWN;

		if (!opens_usage(p, at))
			continue;
		read_usage((struct span){at, left < USAGE_MAX ? left : USAGE_MAX}, &here);
		complete(&found, &here);
	}
	complete(&found, u);
	*u = found;
}

/* -- of a prefill answer -- */

/* An integer below the object; -1 when it is missing, negative or no integer. */
static int64_t integer_at(const struct json_object *o, const char *path)
{
	enum json_type type;
	struct span value;
	int64_t n;

	if (!json_object_path(o, path, &type, &value) || type != JSON_NUMBER ||
	    json_int(value, &n) || n < 0)
		return -1;
	return n;
}

/* The value of a top-level member that is an object with members; an empty span otherwise. */
struct span pd_object_at(const struct json_object *o, const char *name)
{
	const struct json_member *m = json_object_get(o, name);
	struct json_member inner;
	size_t at = 0;

	if (!m || m->type != JSON_OBJECT || !json_object_next(m->value, &at, &inner))
		return (struct span){NULL, 0};
	return m->value;
}

void pd_usage_of_prefill(struct pd_prefill_usage *u, const struct json_object *answer)
{
	*u = PD_PREFILL_UNKNOWN;
	u->usage = pd_object_at(answer, "usage");
	u->prompt_tokens = integer_at(answer, "usage.prompt_tokens");
	if (u->prompt_tokens < 0)
		u->prompt_tokens = integer_at(answer, "usage.input_tokens");
	u->cached_tokens = integer_at(answer, "usage.prompt_tokens_details.cached_tokens");
	if (u->cached_tokens < 0)
		u->cached_tokens = integer_at(answer, "usage.input_tokens_details.cached_tokens");
}
