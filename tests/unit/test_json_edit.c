/*
 * Splices: every case by hand, then random objects with random edits against a model that knows the
 * members as a list.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/rng.h"
#include "lib/json/edit.h"

/* Edits by a small script: "+name=value" sets, "-name" removes; separated by '|'. */
static int apply(const char *text, const char *script, struct buf *out)
{
	struct json_object o;
	struct json_edit e;
	size_t total;
	int err;

	assert_int_equal(json_object_scan(&o, text, strlen(text), NULL), PD_OK);
	assert_int_equal(json_edit_init(&e, &o), PD_OK);
	while (*script) {
		size_t n = strcspn(script, "|"), name = strcspn(script, "=|");
		char what[40];

		(void)snprintf(what, sizeof(what), "%.*s", (int)name - 1, script + 1);
		if (*script == '-')
			err = json_edit_remove(&e, what);
		else
			err = json_edit_set(&e, what,
					    (struct span){script + name + 1, n - name - 1});
		assert_int_equal(err, PD_OK);
		script += n + (script[n] == '|');
	}
	err = json_edit_finish(&e, &total);
	if (!err)
		err = json_edit_copy(&e, out);
	if (!err)
		assert_int_equal(out->len, total);
	json_edit_release(&e);
	json_object_release(&o);
	return err;
}

static const struct {
	const char *text, *script, *want;
} cases[] = {
	{"{\"a\":1}", "", "{\"a\":1}"},
	{" \n{ } ", "", " \n{ } "},
	/* set: replaced in place, or appended */
	{"{\"a\":1,\"b\":2}", "+a=[9]", "{\"a\":[9],\"b\":2}"},
	{"{\"a\" : 1 }", "+b=2", "{\"a\" : 1 ,\"b\":2}"},
	{"{}", "+a=1", "{\"a\":1}"},
	{" { }\n", "+a=1|+b=2", " { \"a\":1,\"b\":2}\n"},
	{"{\"a\":1}", "+b=2|+c=3|+b=4", "{\"a\":1,\"b\":4,\"c\":3}"},
	{"{\"a\":1}", "+a=2|+a=3", "{\"a\":3}"},
	{"{\"a\":1,\"x\":0,\"\\u0061\":2}", "+a=7", "{\"a\":7,\"x\":0,\"\\u0061\":7}"},
	{"{}", "+q\"\n=1", "{\"q\\\"\\n\":1}"},
	/* remove: with one comma, whichever stays correct */
	{"{\"a\":1,\"b\":2,\"c\":3}", "-a", "{\"b\":2,\"c\":3}"},
	{"{\"a\":1,\"b\":2,\"c\":3}", "-b", "{\"a\":1,\"c\":3}"},
	{"{\"a\":1,\"b\":2,\"c\":3}", "-c", "{\"a\":1,\"b\":2}"},
	{"{\"a\":1,\"b\":2,\"c\":3}", "-a|-b", "{\"c\":3}"},
	{"{\"a\":1,\"b\":2,\"c\":3}", "-b|-a", "{\"c\":3}"},
	{"{\"a\":1,\"b\":2,\"c\":3}", "-a|-c", "{\"b\":2}"},
	{"{\"a\":1,\"b\":2,\"c\":3}", "-c|-b", "{\"a\":1}"},
	{"{\"a\":1,\"b\":2,\"c\":3}", "-c|-b|-a|-a", "{}"},
	{"{ \"a\" : 1 , \"b\" : 2 }", "-a", "{ \"b\" : 2 }"},
	{"{ \"a\" : 1 , \"b\" : 2 }", "-b", "{ \"a\" : 1 }"},
	{"{ \"a\" : 1 , \"b\" : 2 }", "-b|-a", "{  }"},
	{"{\"a\":1}", "-b", "{\"a\":1}"},
	{"{\"a\":1,\"b\":2,\"a\":3}", "-a", "{\"b\":2}"},
	{"{\"a\":1,\"\\u0061\":3}", "-a", "{}"},
	/* together */
	{"{\"a\":1}", "-a|+b=2", "{\"b\":2}"},
	{"{\"a\":1,\"b\":2}", "-a|-b|+c=3|+d=4", "{\"c\":3,\"d\":4}"},
	{"{\"a\":1,\"b\":2,\"c\":3}", "-b|+a=5|+d=6|+c=7", "{\"a\":5,\"c\":7,\"d\":6}"},
	{"{\"id\":9007199254740993,\"s\":\"\\u0000\",\"f\":1e400,\"stream\":true}", "+stream=false",
	 "{\"id\":9007199254740993,\"s\":\"\\u0000\",\"f\":1e400,\"stream\":false}"},
};

static void test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf out;

		buf_init(&out, 1000);
		assert_int_equal(apply(cases[i].text, cases[i].script, &out), PD_OK);
		if (strcmp(out.data, cases[i].want) != 0)
			fail_msg("%s with %s: %s, expected %s", cases[i].text, cases[i].script,
				 out.data, cases[i].want);
		buf_release(&out);
	}
}

static void test_refused(void **state)
{
	char text[40 * JSON_EDITS_MAX] = "{\"a\":0";
	struct json_object o;
	struct json_edit e;
	struct buf out;
	size_t total, n = 6;

	(void)state;
	buf_init(&out, 1000);
	assert_int_equal(apply("{\"a\":1}", "+a=2|-a", &out), PD_EINVAL);
	assert_int_equal(apply("{\"b\":0,\"a\":1}", "-a|+a=2", &out), PD_EINVAL);
	buf_release(&out);
	buf_init(&out, 6);
	assert_int_equal(apply("{\"a\":1}", "", &out), PD_ETOOBIG);
	assert_int_equal(out.len, 0);
	buf_release(&out);
	for (int i = 0; i < JSON_EDITS_MAX; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, ",\"a\":1");
	(void)snprintf(text + n, sizeof(text) - n, "}");
	assert_int_equal(json_object_scan(&o, text, n + 1, NULL), PD_OK);
	assert_int_equal(json_edit_init(&e, &o), PD_OK);
	assert_int_equal(json_edit_set(&e, "a", SPAN("2")), PD_ETOOBIG);
	json_edit_release(&e);
	assert_int_equal(json_edit_init(&e, &o), PD_OK);
	assert_int_equal(json_edit_remove(&e, "a"), PD_ETOOBIG);
	json_edit_release(&e);
	assert_int_equal(json_edit_init(&e, &o), PD_OK);
	for (int i = 0; i < JSON_EDITS_MAX / 2; i++) {
		const char name[2] = {(char)('A' + i), '\0'};

		assert_int_equal(json_edit_set(&e, name, SPAN("2")), PD_OK);
	}
	assert_int_equal(json_edit_set(&e, "x", SPAN("2")), PD_ETOOBIG);
	assert_int_equal(json_edit_replace(&e, SPAN("elsewhere"), SPAN("2")), PD_EINVAL);
	assert_int_equal(json_edit_finish(&e, &total), PD_OK);
	json_edit_release(&e);
	json_object_release(&o);
}

static void test_replace_nested(void **state)
{
	const char *text = "{\"o\":{\"n\":[1,2]},\"z\":1}";
	struct json_object o;
	struct json_edit e;
	struct span value, piece[3];
	enum json_type type;
	struct buf out;
	size_t total;

	(void)state;
	buf_init(&out, 100);
	assert_int_equal(json_object_scan(&o, text, strlen(text), NULL), PD_OK);
	assert_true(json_object_path(&o, "o.n", &type, &value));
	assert_int_equal(json_edit_init(&e, &o), PD_OK);
	assert_int_equal(json_edit_replace(&e, value, SPAN("null")), PD_OK);
	assert_int_equal(json_edit_set(&e, "z", SPAN("2")), PD_OK);
	assert_int_equal(json_edit_finish(&e, &total), PD_OK);
	assert_int_equal(json_edit_copy(&e, &out), PD_OK);
	assert_string_equal(out.data, "{\"o\":{\"n\":null},\"z\":2}");
	assert_int_equal(json_edit_spans(&e, piece, 3), 3); /* never more than there is room for */
	assert_ptr_equal(piece[0].p, text);		    /* and no copies of what stays */
	assert_ptr_equal(piece[2].p, value.p + value.n);
	json_edit_release(&e);
	assert_int_equal(json_edit_init(&e, &o), PD_OK);
	assert_int_equal(json_edit_replace(&e, value, SPAN("null")), PD_OK);
	assert_int_equal(json_edit_remove(&e, "o"), PD_OK);
	assert_int_equal(json_edit_finish(&e, &total), PD_EINVAL);
	json_edit_release(&e);
	json_object_release(&o);
	buf_release(&out);
}

/* The model: members as a list; what an edited text must look like follows from the list alone. */
#define MEMBERS 8

struct model {
	char name[MEMBERS + 8];
	char value[MEMBERS + 8][24];
	size_t n;
};

static const char *random_value(struct rng *r)
{
	static const char *const values[] = {
		"0",	"-1.50e+10", "\"x,\\\"}\"", "[1, 2]", "{\"a\":{\"b\":[]}}",  "null",
		"true", "[]",	     "{ }",	    "\"\"",   "12345678901234567890"};

	return values[rng_below(r, sizeof(values) / sizeof(values[0]))];
}

static void space(struct rng *r, struct buf *b)
{
	static const char *const spaces[] = {"", "", "", " ", "\n\t", "  "};

	assert_int_equal(buf_puts(b, spaces[rng_below(r, 6)]), PD_OK);
}

static void random_object(struct rng *r, struct model *m, struct buf *b)
{
	m->n = rng_below(r, MEMBERS);
	space(r, b);
	assert_int_equal(buf_putc(b, '{'), PD_OK);
	for (size_t i = 0; i < m->n; i++) {
		m->name[i] = (char)('a' + rng_below(r, 5));
		(void)snprintf(m->value[i], sizeof(m->value[i]), "%s", random_value(r));
		space(r, b);
		if (rng_below(r, 4) == 0)
			assert_int_equal(buf_printf(b, "\"\\u%04x\"", (unsigned)m->name[i]), PD_OK);
		else
			assert_int_equal(buf_printf(b, "\"%c\"", m->name[i]), PD_OK);
		space(r, b);
		assert_int_equal(buf_putc(b, ':'), PD_OK);
		space(r, b);
		assert_int_equal(buf_puts(b, m->value[i]), PD_OK);
		space(r, b);
		if (i + 1 < m->n)
			assert_int_equal(buf_putc(b, ','), PD_OK);
	}
	space(r, b);
	assert_int_equal(buf_putc(b, '}'), PD_OK);
	space(r, b);
}

static void model_set(struct model *m, char name, const char *value)
{
	bool found = false;

	for (size_t i = 0; i < m->n; i++) {
		if (m->name[i] != name)
			continue;
		(void)snprintf(m->value[i], sizeof(m->value[i]), "%s", value);
		found = true;
	}
	if (found)
		return;
	m->name[m->n] = name;
	(void)snprintf(m->value[m->n++], sizeof(m->value[0]), "%s", value);
}

static void model_remove(struct model *m, char name)
{
	size_t kept = 0;

	for (size_t i = 0; i < m->n; i++) {
		if (m->name[i] == name)
			continue;
		m->name[kept] = m->name[i];
		memmove(m->value[kept++], m->value[i], sizeof(m->value[0]));
	}
	m->n = kept;
}

/* Each name is either set or removed, in any order; a name of the text or a new one. */
static void random_edits(struct rng *r, struct json_edit *e, struct model *m)
{
	char names[] = "abcdexy";

	for (size_t i = 0; i < 7; i++) { /* shuffle */
		size_t k = i + rng_below(r, 7 - i);
		char c = names[i];

		names[i] = names[k];
		names[k] = c;
	}
	for (size_t i = rng_below(r, 8); i > 0; i--) {
		const char name[2] = {names[i - 1], '\0'};
		const char *value = random_value(r);

		if (rng_below(r, 2)) {
			assert_int_equal(json_edit_remove(e, name), PD_OK);
			model_remove(m, *name);
		} else {
			assert_int_equal(json_edit_set(e, name, span_of(value)), PD_OK);
			model_set(m, *name, value);
		}
	}
}

static void check_model(const struct buf *text, const struct model *m)
{
	struct json_object o;

	if (json_object_scan(&o, text->data, text->len, NULL) != PD_OK)
		fail_msg("not valid: %s", text->data);
	assert_int_equal(o.n, m->n);
	for (size_t i = 0; i < m->n; i++) {
		const char name[2] = {m->name[i], '\0'};

		assert_true(json_member_is(&o.member[i], name));
		assert_true(span_eq(o.member[i].value, span_of(m->value[i])));
	}
	json_object_release(&o);
}

/* What the edit borrows from the text is, in order, a subsequence of it: nothing that stays was
 * touched or moved. */
static void check_spans(const struct json_edit *e, const struct buf *before, size_t total)
{
	struct span piece[2 * JSON_EDITS_MAX + 1];
	size_t n = json_edit_spans(e, piece, 2 * JSON_EDITS_MAX + 1), sum = 0;
	const char *at = before->data;

	for (size_t i = 0; i < n; i++) {
		sum += piece[i].n;
		if (piece[i].p < before->data || piece[i].p >= before->data + before->len)
			continue;
		assert_true(piece[i].p >= at);
		at = piece[i].p + piece[i].n;
	}
	assert_int_equal(sum, total);
}

static void test_random(void **state)
{
	struct rng r;

	(void)state;
	rng_seed(&r, 5);
	for (int round = 0; round < 20000; round++) {
		struct model m = {.n = 0};
		struct buf before, after;
		struct json_object o;
		struct json_edit e;
		size_t total;

		buf_init(&before, 4000);
		buf_init(&after, 4000);
		random_object(&r, &m, &before);
		assert_int_equal(json_object_scan(&o, before.data, before.len, NULL), PD_OK);
		assert_int_equal(json_edit_init(&e, &o), PD_OK);
		random_edits(&r, &e, &m);
		assert_int_equal(json_edit_finish(&e, &total), PD_OK);
		assert_int_equal(json_edit_copy(&e, &after), PD_OK);
		assert_int_equal(after.len, total);
		check_model(&after, &m);
		check_spans(&e, &before, total);
		json_edit_release(&e);
		json_object_release(&o);
		buf_release(&before);
		buf_release(&after);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_replace_nested),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests_name("json_edit", tests, NULL, NULL);
}
