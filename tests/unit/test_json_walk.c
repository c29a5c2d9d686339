/* Walking validated text, and text to values and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/rng.h"
#include "lib/json/scan.h"

static struct json_object scan_result;

static const struct json_object *scan(const char *text)
{
	assert_int_equal(json_object_scan(&scan_result, text, strlen(text), NULL), PD_OK);
	return &scan_result;
}

static void expect_path(const char *text, const char *path, const char *want,
			enum json_type want_type)
{
	enum json_type type = JSON_NONE;
	struct span value = {NULL, 0};
	bool found = json_object_path(scan(text), path, &type, &value);

	if (found != (want != NULL) ||
	    (want && (!span_eq(value, span_of(want)) || type != want_type)))
		fail_msg("%s in %s: found %d '%.*s'", path, text, found, (int)value.n,
			 value.p ? value.p : "");
	json_object_release(&scan_result);
}

static void test_path(void **state)
{
	const char *deep = "{\"a\":{\"b\":{\"c\":[1]}},\"a.b\":2,\"\":{\"\":3}}";

	(void)state;
	expect_path(deep, "a", "{\"b\":{\"c\":[1]}}", JSON_OBJECT);
	expect_path(deep, "a.b", "{\"c\":[1]}", JSON_OBJECT);
	expect_path(deep, "a.b.c", "[1]", JSON_ARRAY);
	expect_path(deep, "a.b.c.d", NULL, JSON_NONE);
	expect_path(deep, "a.c", NULL, JSON_NONE);
	expect_path(deep, "b", NULL, JSON_NONE);
	expect_path(deep, "", "{\"\":3}", JSON_OBJECT);
	expect_path(deep, ".", "3", JSON_NUMBER);
	/* the last of doubled members at each step */
	expect_path("{\"a\":{\"b\":1},\"a\":{\"b\":2,\"b\":3}}", "a.b", "3", JSON_NUMBER);
	expect_path("{\"a\":{\"b\":1},\"a\":0}", "a.b", NULL, JSON_NONE);
	/* white space, escapes, brackets and quotes inside strings, values before the one that is
	 * asked for */
	expect_path(
		"{ \"a\" : { \"x\" : \"}]\\\"{\\\\\" , \"y\":[{},[\"]\"]] ,\"\\u0062\" : \"v\" } }",
		"a.b", "\"v\"", JSON_STRING);
	expect_path("{\"a\":{\"x\":-1.5e+3 ,\"y\":true,\"z\":null\n,\"b\":false}}", "a.b", "false",
		    JSON_FALSE);
	expect_path("{\"a\":{\"b\":null }}", "a.b", "null", JSON_NULL);
}

static void test_array(void **state)
{
	const char *text = "[ 1 ,\"a,]\\\"\",[2,[3]] , {\"x\":[4]},true ,null,-0.5e1]";
	static const char *const want[] = {"1",	   "\"a,]\\\"\"", "[2,[3]]", "{\"x\":[4]}",
					   "true", "null",	  "-0.5e1"};
	static const enum json_type types[] = {JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT,
					       JSON_TRUE,   JSON_NULL,	 JSON_NUMBER};
	struct span value, array = span_of(text);
	enum json_type type;
	size_t at = 0;

	(void)state;
	for (size_t i = 0; i < 7; i++) {
		assert_true(json_array_next(array, &at, &value, &type));
		assert_true(span_eq(value, span_of(want[i])));
		assert_int_equal(type, types[i]);
	}
	assert_false(json_array_next(array, &at, &value, &type));
	assert_false(json_array_next(array, &at, &value, &type));
	at = 0;
	assert_false(json_array_next(SPAN("[ ]"), &at, &value, &type));
	at = 0;
	assert_false(json_array_next(SPAN("[]"), &at, &value, &type));
}

static void test_object(void **state)
{
	struct span object = SPAN("{ \"a\\\"\" : 1 , \"\":{\"n\":[]}, \"c\":\"\"}");
	struct json_member m;
	size_t at = 0;

	(void)state;
	assert_true(json_object_next(object, &at, &m));
	assert_true(span_eq(m.key, SPAN("a\\\"")) && m.key_escaped && span_eq(m.value, SPAN("1")));
	assert_true(json_member_is(&m, "a\""));
	assert_true(json_object_next(object, &at, &m));
	assert_true(m.key.n == 0 && !m.key_escaped && m.type == JSON_OBJECT);
	assert_true(json_object_next(object, &at, &m));
	assert_true(span_eq(m.value, SPAN("\"\"")) && m.type == JSON_STRING);
	assert_false(json_object_next(object, &at, &m));
	at = 0;
	assert_false(json_object_next(SPAN("{}"), &at, &m));
}

/* Walking garbage must end and stay inside. The sanitizers watch; so does the counter. */
static void test_walk_garbage(void **state)
{
	static const char alphabet[] = "{}[]\",:\\ 1a";
	struct rng r;

	(void)state;
	rng_seed(&r, 3);
	for (int round = 0; round < 20000; round++) {
		size_t n = rng_below(&r, 40), at = 0, steps = 0;
		char *text = malloc(n ? n : 1);
		struct json_member m;
		enum json_type type;
		struct span value;

		assert_non_null(text);
		for (size_t i = 0; i < n; i++)
			text[i] = alphabet[rng_below(&r, sizeof(alphabet) - 1)];
		while (json_array_next((struct span){text, n}, &at, &value, &type)) {
			assert_true(value.p >= text && value.p + value.n <= text + n);
			assert_true(++steps <= n);
		}
		at = 0;
		steps = 0;
		while (json_object_next((struct span){text, n}, &at, &m)) {
			assert_true(m.value.p + m.value.n <= text + n);
			assert_true(++steps <= n);
		}
		free(text);
	}
}

static void expect_decoded(const char *value, const char *want, size_t n)
{
	struct buf out;

	buf_init(&out, 100);
	assert_int_equal(json_string_decode(span_of(value), &out), PD_OK);
	assert_int_equal(out.len, n);
	assert_memory_equal(out.data, want, n + 1);
	buf_release(&out);
}

#define EXPECT(value, lit) expect_decoded(value, lit, sizeof(lit) - 1)

static void test_decode(void **state)
{
	struct buf out;

	(void)state;
	EXPECT("\"\"", "");
	EXPECT("\"plain\"", "plain");
	EXPECT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t");
	EXPECT("\"a\\u0000b\"", "a\0b");
	EXPECT("\"\\u0041\\u00e9\\u20AC\\ud83d\\ude00!\"",
	       "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80!");
	EXPECT("\"\\ud83d\"", "\xef\xbf\xbd");
	EXPECT("\"\\ud83dx\\ude00\"", "\xef\xbf\xbdx\xef\xbf\xbd");
	EXPECT("\"\\ud83d\\ud83d\\ude00\"", "\xef\xbf\xbd\xf0\x9f\x98\x80");
	EXPECT("\"\\ude00\\ud83d\\n\"", "\xef\xbf\xbd\xef\xbf\xbd\n");
	EXPECT("\"\\ud83d\\u0041\"", "\xef\xbf\xbd"
				     "A");
	buf_init(&out, 4);
	assert_int_equal(buf_puts(&out, "ab"), PD_OK);
	assert_int_equal(json_string_decode(SPAN("\"xyz\""), &out), PD_ETOOBIG);
	assert_string_equal(out.data, "ab"); /* as it was */
	assert_int_equal(json_string_decode(SPAN("\"\\u0078\\u0079\""), &out), PD_OK);
	assert_string_equal(out.data, "abxy");
	assert_int_equal(json_string_decode(SPAN("12"), &out), PD_EINVAL);
	assert_int_equal(json_string_decode(SPAN("\""), &out), PD_EINVAL);
	buf_release(&out);
}

static size_t random_text(struct rng *r, char *out, size_t cap)
{
	static const char *const piece[] = {"a",
					    "\"",
					    "\\",
					    "/",
					    "\n",
					    "\x01",
					    "\x7f",
					    " ",
					    "\xc3\xa9",
					    "\xe2\x82\xac",
					    "\xf0\x9f\x98\x80",
					    "longer plain text "};
	size_t n = 0, want = rng_below(r, cap - 20);

	while (n < want) {
		size_t i = rng_below(r, sizeof(piece) / sizeof(piece[0]) + 1);

		if (i == sizeof(piece) / sizeof(piece[0])) {
			out[n++] = '\0';
			continue;
		}
		memcpy(out + n, piece[i], strlen(piece[i]));
		n += strlen(piece[i]);
	}
	return n;
}

/* What was quoted is valid and is decoded to the same bytes, whole and in pieces of any size. */
static void test_quote_and_decode(void **state)
{
	struct buf quoted, plain;
	struct rng r;

	(void)state;
	rng_seed(&r, 11);
	buf_init(&quoted, 100000);
	buf_init(&plain, 100000);
	for (int round = 0; round < 3000; round++) {
		char text[3000], piece[64];
		size_t n = random_text(&r, text, round % 10 ? 100 : sizeof(text)),
		       cap = 4 + rng_below(&r, 60);
		const char *at, *end;

		buf_clear(&quoted);
		buf_clear(&plain);
		assert_int_equal(json_quote(&quoted, text, n), PD_OK);
		assert_int_equal(json_validate(quoted.data, quoted.len, NULL), PD_OK);
		assert_int_equal(json_string_decode(buf_span(&quoted), &plain), PD_OK);
		assert_int_equal(plain.len, n);
		assert_memory_equal(plain.data, text, n);
		buf_clear(&plain);
		at = quoted.data + 1;
		end = quoted.data + quoted.len - 1;
		while (at < end) {
			size_t got = json_unescape(&at, end, piece, cap);

			assert_in_range(got, 1, cap);
			assert_true(((unsigned char)piece[0] & 0xC0) !=
				    0x80); /* never inside a character */
			assert_int_equal(buf_append(&plain, piece, got), PD_OK);
		}
		assert_int_equal(plain.len, n);
		assert_memory_equal(plain.data, text, n);
	}
	buf_release(&quoted);
	buf_release(&plain);
}

static void test_quote(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 200);
	assert_int_equal(json_quote(&out, "a\"\\/\b\f\n\r\t\x01\x1f\x7f\xc3\xa9", 14), PD_OK);
	assert_string_equal(out.data, "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xc3\xa9\"");
	buf_clear(&out);
	assert_int_equal(json_quote(&out, "x\xff\xc3(\xed\xa0\x80\xe2\x82", 9), PD_OK);
	assert_string_equal(out.data,
			    "\"x\xef\xbf\xbd\xef\xbf\xbd("
			    "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
	assert_int_equal(json_validate(out.data, out.len, NULL), PD_OK);
	buf_release(&out);
	buf_init(&out, 5);
	assert_int_equal(json_quote(&out, "abcd", 4), PD_ETOOBIG);
	assert_int_equal(out.len, 0);
	assert_int_equal(json_quote(&out, "abc", 3), PD_OK);
	assert_string_equal(out.data, "\"abc\"");
	buf_release(&out);
}

static void test_int(void **state)
{
	static const struct {
		const char *text;
		int64_t want;
	} good[] = {
		{"0", 0},
		{"-0", 0},
		{"7", 7},
		{"-7", -7},
		{"9223372036854775807", INT64_MAX},
		{"-9223372036854775808", INT64_MIN},
		{"9007199254740993", 9007199254740993},
	};
	static const char *const bad[] = {"",
					  "-",
					  "1.0",
					  "1e2",
					  "9223372036854775808",
					  "-9223372036854775809",
					  "1 ",
					  "x",
					  "\"1\"",
					  "01",
					  "-01",
					  "99999999999999999999999",
					  "null",
					  "+1"};
	int64_t got = 99;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(json_int(span_of(good[i].text), &got), PD_OK);
		assert_true(got == good[i].want);
	}
	got = 99;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (json_int(span_of(bad[i]), &got) != PD_EINVAL)
			fail_msg("accepted '%s'", bad[i]);
	}
	assert_true(got == 99);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_path),   cmocka_unit_test(test_array),
		cmocka_unit_test(test_object), cmocka_unit_test(test_walk_garbage),
		cmocka_unit_test(test_decode), cmocka_unit_test(test_quote_and_decode),
		cmocka_unit_test(test_quote),  cmocka_unit_test(test_int),
	};

	return cmocka_run_group_tests_name("json_walk", tests, NULL, NULL);
}
