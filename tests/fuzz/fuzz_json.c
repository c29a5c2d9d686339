/*
 * Scanner and splice editor: what is accepted is walked, edited and scanned again; the results must
 * agree. The first byte chooses the edits, the rest is the text.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/edit.h"
#include "lib/json/scan.h"
#include "lib/route/key.h"

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

/* Sets `a`, removes `b`, and looks at the result. */
static void check_edit(const struct json_object *o, unsigned choice)
{
	size_t total, had_a = json_object_count(o, "a"), had_b = json_object_count(o, "b");
	struct json_object after;
	struct json_edit e;
	struct buf text;
	int err = 0;

	buf_init(&text, o->doc.n + 1024);
	expect(json_edit_init(&e, o) == PD_OK, "no edit");
	if (choice & 1)
		err = json_edit_set(&e, "a", SPAN("{\"set\":[]}"));
	if (!err && choice & 2)
		err = json_edit_remove(&e, "b");
	expect(!err || err == PD_ETOOBIG, "an edit is refused");
	if (!err)
		err = json_edit_finish(&e, &total);
	if (!err) {
		expect(json_edit_copy(&e, &text) == PD_OK && text.len == total, "a wrong total");
		expect(json_object_scan(&after, text.data, text.len, NULL) == PD_OK,
		       "the result is not valid");
		expect(json_object_count(&after, "a") == (choice & 1 && !had_a ? 1 : had_a),
		       "wrong count of a");
		expect(json_object_count(&after, "b") == (choice & 2 ? 0 : had_b),
		       "wrong count of b");
		expect(!(choice & 1) ||
			       span_eq(json_object_get(&after, "a")->value, SPAN("{\"set\":[]}")),
		       "a is not what was set");
		expect(choice & 3 || span_eq(o->doc, buf_span(&text)), "no edit changed something");
		json_object_release(&after);
	}
	json_edit_release(&e);
	buf_release(&text);
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
	const char *text = (const char *)data + 1;
	struct json_object o;
	struct pd_msg msg;
	int err;

	if (n < 1)
		return 0;
	n--;
	err = json_object_scan(&o, text, n, &msg);
	if (err == PD_OK)
		expect(json_validate(text, n, NULL) == PD_OK, "an object that is not valid");
	else
		expect(err < 0 && msg.text[0], "a refusal without words");
	if (err)
		return 0;
	check_members(&o);
	check_edit(&o, data[0]);
	check_keys(&o);
	json_object_release(&o);
	return 0;
}
