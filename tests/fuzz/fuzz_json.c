/*
 * Scanner and splice editor. The first bytes are edits, up to a zero byte; the rest is the text.
 *
 * (1) What is accepted is walked, and the walk finds what the scan noted; cJSON accepts it too and
 * finds the same members. (2) After any edits the text is valid, the members that were edited are
 * what they were set to, and all others are there, in order and byte for byte; no edit changes
 * nothing. (3) The edited text is the one that a slow editor makes, member by member. (4) Strings
 * survive decoding and quoting.
 */
#include <cjson/cJSON.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/edit.h"
#include "lib/json/scan.h"
#include "lib/route/key/key_extract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_json: %s\n", what);
		abort();
	}
}

/* Each value that the walk finds is valid by itself; strings survive decoding and quoting. */
static void check_value(struct span value, enum json_type type)
{
	struct buf plain, quoted, again;

	expect(json_validate(value.p, value.n, NULL) == PD_OK, "a member is not valid alone");
	if (type != JSON_STRING)
		return;
	buf_init(&plain, value.n);
	buf_init(&quoted, 6 * value.n + 2);
	buf_init(&again, value.n);
	expect(json_string_decode(value, &plain) == PD_OK, "a string is not decoded");
	expect(json_quote(&quoted, plain.data, plain.len) == PD_OK, "a string is not quoted");
	expect(json_string_decode(buf_span(&quoted), &again) == PD_OK,
	       "a quoted string is not decoded");
	expect(span_eq(buf_span(&plain), buf_span(&again)), "a string changed");
	buf_release(&plain);
	buf_release(&quoted);
	buf_release(&again);
}

/* The members that the scan noted are the ones that a walk finds. */
static void check_members(const struct json_object *o)
{
	struct json_member m;
	size_t at = 0;

	for (size_t i = 0; i < o->n; i++) {
		expect(json_object_next(o->text, &at, &m), "the walk ends early");
		expect(span_eq(m.key, o->member[i].key) && span_eq(m.value, o->member[i].value) &&
			       m.type == o->member[i].type &&
			       m.key_escaped == o->member[i].key_escaped,
		       "the walk and the scan differ");
		check_value(m.value, m.type);
		if (m.type == JSON_ARRAY) {
			enum json_type type;
			struct span value;
			size_t in = 0;

			while (json_array_next(m.value, &in, &value, &type))
				check_value(value, type);
		}
	}
	expect(!json_object_next(o->text, &at, &m), "the walk goes on");
}

/* -- edits -- */

#define EDITS_MAX 8

/* What the edits mean for each member, worked out without the editor. */
struct plan {
	struct span set[JSON_MEMBERS_MAX]; /* p NULL: as it is */
	bool gone[JSON_MEMBERS_MAX];
	const char *added[EDITS_MAX]; /* names of new members, in order */
	struct span added_value[EDITS_MAX];
	size_t nadded;
};

static const char *const names[] = {"a", "b", "c", "new", "\xc3\xa9", "q\"uote", "", "n\nl"};
static const struct span values[] = {{"1", 1},
				     {"{\"set\":[]}", 10},
				     {"null", 4},
				     {"\"te,xt\"", 7},
				     {"[1,{\"a\":2}]", 11},
				     {"-1.5e+3", 7},
				     {"{}", 2},
				     {"\"\"", 2}};

static void plan_set(struct plan *p, const struct json_object *o, const char *name,
		     struct span value)
{
	bool found = false;

	for (size_t i = 0; i < o->n; i++) {
		if (!json_member_is(&o->member[i], name))
			continue;
		found = true;
		p->set[i] = value;
	}
	if (found)
		return;
	for (size_t i = 0; i < p->nadded; i++)
		if (strcmp(p->added[i], name) == 0) {
			p->added_value[i] = value;
			return;
		}
	p->added[p->nadded] = name;
	p->added_value[p->nadded++] = value;
}

/* Setting a value and removing its member contradict each other; the editor says so at the end. */
static bool contradicts(const struct plan *p, const struct json_object *o)
{
	for (size_t i = 0; i < o->n; i++)
		if (p->gone[i] && p->set[i].p)
			return true;
	return false;
}

static void put(struct buf *out, const char *from, const char *to)
{
	expect(buf_append(out, from, (size_t)(to - from)) == PD_OK, "memory");
}

/* Member by member. White space beside a comma goes or stays with the comma; which of the two is
 * the editor's business, so blanks outside of values are left out here and there. */
static void slow_edit(const struct plan *p, const struct json_object *o, struct buf *out)
{
	bool first = true;

	buf_clear(out);
	expect(buf_putc(out, '{') == PD_OK, "memory");
	for (size_t i = 0; i < o->n; i++) {
		const struct json_member *m = &o->member[i];
		struct span v = p->set[i].p ? p->set[i] : m->value;

		if (p->gone[i])
			continue;
		expect(buf_printf(out, first ? "\"" : ",\"") == PD_OK, "memory");
		put(out, m->key.p, m->key.p + m->key.n);
		expect(buf_puts(out, "\":") == PD_OK, "memory");
		put(out, v.p, v.p + v.n);
		first = false;
	}
	for (size_t i = 0; i < p->nadded; i++) {
		expect(first || buf_putc(out, ',') == PD_OK, "memory");
		expect(json_quote(out, p->added[i], strlen(p->added[i])) == PD_OK &&
			       buf_putc(out, ':') == PD_OK,
		       "memory");
		put(out, p->added_value[i].p, p->added_value[i].p + p->added_value[i].n);
		first = false;
	}
	expect(buf_putc(out, '}') == PD_OK, "memory");
}

/* The members of a text one after the other, without white space between them. */
static void packed(const struct json_object *o, struct buf *out)
{
	static const struct plan none;

	slow_edit(&none, o, out);
}

/* What is before the object, behind it, and between two members that stay, is not touched. */
static void same_blanks(const struct json_object *o, const struct buf *text)
{
	size_t before = (size_t)(o->text.p - o->doc.p), after = o->doc.n - before - o->text.n;

	expect(text->len >= before + after && memcmp(text->data, o->doc.p, before) == 0 &&
		       memcmp(text->data + text->len - after, o->text.p + o->text.n, after) == 0,
	       "white space around the object changed");
}

static void check_result(const struct json_object *o, const struct plan *p, const struct buf *text,
			 bool edited)
{
	static struct buf want, got;
	struct json_object after;

	if (want.max == 0) {
		buf_init(&want, 1u << 24);
		buf_init(&got, 1u << 24);
	}
	expect(json_object_scan(&after, text->data, text->len, NULL) == PD_OK,
	       "the result is not valid");
	slow_edit(p, o, &want);
	packed(&after, &got);
	if (!span_eq(buf_span(&want), buf_span(&got)))
		fprintf(stderr, "want %s\ngot  %s\n", want.data, got.data);
	expect(span_eq(buf_span(&want), buf_span(&got)), "the result is not the slow editor's");
	expect(edited || span_eq(o->doc, buf_span(text)), "no edit changed something");
	same_blanks(o, text);
	json_object_release(&after);
}

static int apply(struct json_edit *e, struct plan *p, const struct json_object *o, unsigned code)
{
	const char *name = names[code & 7];
	int err;

	if (code & 8) {
		err = json_edit_remove(e, name);
		for (size_t i = 0; !err && i < o->n; i++)
			p->gone[i] |= json_member_is(&o->member[i], name);
		return err;
	}
	err = json_edit_set(e, name, values[code >> 4 & 7]);
	if (!err)
		plan_set(p, o, name, values[code >> 4 & 7]);
	return err;
}

static void check_edit(const struct json_object *o, const uint8_t *code, size_t n)
{
	static struct plan p;
	static struct buf text;
	struct json_edit e;
	size_t total;
	int err = 0;

	if (text.max == 0)
		buf_init(&text, 1u << 24);
	buf_clear(&text);
	memset(p.set, 0, o->n * sizeof(p.set[0]));
	memset(p.gone, 0, o->n * sizeof(p.gone[0]));
	p.nadded = 0;
	expect(json_edit_init(&e, o) == PD_OK, "no edit");
	for (size_t i = 0; i < n && !err; i++)
		err = apply(&e, &p, o, code[i]);
	expect(!err || err == PD_ETOOBIG, "an edit is refused");
	if (!err) {
		err = json_edit_finish(&e, &total);
		expect(!err || err == PD_ETOOBIG || (err == PD_EINVAL && contradicts(&p, o)),
		       "the edits are refused");
		expect(err || !contradicts(&p, o), "edits that contradict each other");
	}
	if (!err) {
		expect(json_edit_copy(&e, &text) == PD_OK && text.len == total, "a wrong total");
		check_result(o, &p, &text, n > 0);
	}
	json_edit_release(&e);
}

/* The same document for another parser. Names with a NUL end early for it, and it refuses
 * surrogates that stand alone. */
static void second_opinion(const struct json_object *o)
{
	cJSON *tree, *item;
	struct buf name;
	size_t i = 0;

	if (memmem(o->doc.p, o->doc.n, "\\u", 2))
		return;
	tree = cJSON_ParseWithLength(o->doc.p, o->doc.n);
	expect(cJSON_IsObject(tree), "cJSON refuses it");
	buf_init(&name, o->doc.n);
	cJSON_ArrayForEach(item, tree)
	{
		expect(i < o->n && json_member_is(&o->member[i], item->string),
		       "cJSON has another name");
		expect(cJSON_IsString(item) == (o->member[i].type == JSON_STRING) &&
			       cJSON_IsObject(item) == (o->member[i].type == JSON_OBJECT) &&
			       cJSON_IsArray(item) == (o->member[i].type == JSON_ARRAY) &&
			       cJSON_IsNumber(item) == (o->member[i].type == JSON_NUMBER) &&
			       cJSON_IsNull(item) == (o->member[i].type == JSON_NULL),
		       "cJSON has another type");
		if (cJSON_IsString(item)) {
			buf_clear(&name);
			expect(json_string_decode(o->member[i].value, &name) == PD_OK &&
				       span_eq(buf_span(&name), span_of(item->valuestring)),
			       "cJSON has another text");
		}
		i++;
	}
	expect(i == o->n, "cJSON has fewer members");
	buf_release(&name);
	cJSON_Delete(tree);
}

static void check_keys(const struct json_object *o)
{
	struct route_keyspec s;
	struct route_key key;

	route_keyspec_default(&s);
	route_key_extract(&s, NULL, 0, o, &key);
	expect(key.len <= ROUTE_KEY_MAX && (key.level == ROUTE_KEY_NONE) == (key.len == 0),
	       "a strange key");
	s.compat = ROUTE_COMPAT_VLLM_ROUTER;
	route_key_extract(&s, NULL, 0, o, &key);
	expect(key.len > 0 && key.len <= ROUTE_KEY_MAX, "no compatible key");
	route_key_prefix(o, &key);
	expect(key.len <= ROUTE_KEY_MAX, "a long prefix key");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const char *text = (const char *)data;
	size_t edits = 0;
	struct json_object o;
	struct pd_msg msg;
	int err;

	while (edits < n && edits < EDITS_MAX && data[edits] != 0)
		edits++;
	if (edits == n || n > 1u << 20)
		return 0;
	text += edits + 1;
	n -= edits + 1;
	err = json_object_scan(&o, text, n, &msg);
	if (err == PD_OK)
		expect(json_validate(text, n, NULL) == PD_OK, "an object that is not valid");
	else
		expect(err < 0 && msg.text[0], "a refusal without words");
	if (err)
		return 0;
	check_members(&o);
	second_opinion(&o);
	check_edit(&o, data, edits);
	check_keys(&o);
	json_object_release(&o);
	return 0;
}
