/*
 * The scanner: what is accepted, what is refused and where, at every length of every text. Each
 * text is copied into memory of its exact size, so that reading one byte too far is found by the
 * address sanitizer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/rng.h"
#include "lib/json/scan.h"

static int validate(const char *text, size_t n, struct pd_msg *msg)
{
	char *copy = malloc(n ? n : 1);
	int err;

	assert_non_null(copy);
	if (n)
		memcpy(copy, text, n);
	err = json_validate(copy, n, msg);
	free(copy);
	return err;
}

/* Literals with NUL bytes inside keep their length. */
#define T(lit)                                                                                     \
	{                                                                                          \
		lit, sizeof(lit) - 1                                                               \
	}

static const struct span valid[] = {
	T("0"),
	T("-0"),
	T("1"),
	T("-1"),
	T("10"),
	T("1234567890"),
	T("0.5"),
	T("-0.0"),
	T("1e5"),
	T("1E+5"),
	T("1e-05"),
	T("123.456e78"),
	T("1E400"),
	T("18446744073709551616"),
	T("true"),
	T("false"),
	T("null"),
	T("\"\""),
	T("\"a\""),
	T("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
	T("\"\\u0000\""),
	T("\"\\u00e9\\uABCD\\uabcd\""),
	T("\"\\ud83d\\ude00\""),
	T("\"\\ud800\""),
	T("\"\\udc00x\""),
	T("\"\x7f\""),
	T("\"\xc2\x80\""),
	T("\"\xdf\xbf\""),
	T("\"\xe0\xa0\x80\""),
	T("\"\xed\x9f\xbf\""),
	T("\"\xee\x80\x80\""),
	T("\"\xef\xbf\xbf\""),
	T("\"\xf0\x90\x80\x80\""),
	T("\"\xf4\x8f\xbf\xbf\""),
	T("[]"),
	T("{}"),
	T("[ ]"),
	T("{ }"),
	T("[[]]"),
	T("[{}]"),
	T("[1]"),
	T("[1,2]"),
	T("[0,0,0]"),
	T("[ 1 , 2 ]"),
	T("[1,\"a\",null,true,{}]"),
	T("{\"a\":1}"),
	T("{\"\":1}"),
	T("{\"a\":1,\"a\":2}"),
	T("{ \"a\" : [ 1 , { \"b\" : \"c\" } ] }"),
	T("\t\n\r [1] \t\n\r"),
	T("[1,\n2,\r\n3,\t4]"),
	T("[1,22,333,4444,55555,666666,7777777,88888888,999999999,0,10,0]"),
	T("[1, 22, 333, 4444, 55555, 666666, 7777777, 88888888, 0, 10, 0, 1.5, -3]"),
	T("[12345678901234567890123456789012345678901234567890,1]"),
	T("[100000,200000,300000,[400000,500000],{\"a\":600000},\"700000\"]"),
	T("{\"prompt\":\"a text that is longer than sixteen bytes, \\n and than thirty-two of "
	  "them\"}"),
	T("\"\xe4\xbd\xa0\xe5\xa5\xbd, \xe4\xb8\x96\xe7\x95\x8c and some ASCII, "
	  "\xf0\x9f\x98\x80\xf0\x9f\x98\x80\""),
};

static const struct span invalid[] = {
	T(""),
	T(" "),
	T("tru"),
	T("nul"),
	T("True"),
	T("nan"),
	T("NaN"),
	T("Infinity"),
	T("-Infinity"),
	T("+1"),
	T("-"),
	T("01"),
	T("-01"),
	T("00"),
	T("1."),
	T(".5"),
	T("1.e5"),
	T("1e"),
	T("1e+"),
	T("1E-"),
	T("0x10"),
	T("1a"),
	T("1 2"),
	T("--1"),
	T("1,"),
	T("0e"),
	T("1_000"),
	T("\""),
	T("\"a"),
	T("'a'"),
	T("\"\\\""),
	T("\"\\x41\""),
	T("\"\\a\""),
	T("\"\\'\""),
	T("\"\\u\""),
	T("\"\\u12\""),
	T("\"\\u12g4\""),
	T("\"\\u 123\""),
	T("\"\\U0041\""),
	T("\"\t\""),
	T("\"\n\""),
	T("\"\x1f\""),
	T("\"\0\""),
	T("\"a\0b\""),
	T("\0"),
	T("1\0"),
	T("[1]\0"),
	T("\"\x80\""),
	T("\"\xbf\""),
	T("\"\xc0\x80\""),
	T("\"\xc1\xbf\""),
	T("\"\xc2\""),
	T("\"\xc2x\""),
	T("\"\xe0\x80\x80\""),
	T("\"\xe0\x9f\xbf\""),
	T("\"\xe1\x80\""),
	T("\"\xed\xa0\x80\""),
	T("\"\xed\xbf\xbf\""),
	T("\"\xf0\x80\x80\x80\""),
	T("\"\xf0\x8f\xbf\xbf\""),
	T("\"\xf0\x90\x80\""),
	T("\"\xf4\x90\x80\x80\""),
	T("\"\xf5\x80\x80\x80\""),
	T("\"\xfe\""),
	T("\"\xff\""),
	T("\"\xff\xff\xff\xff\""),
	T("\xef\xbb\xbf{}"),
	T("["),
	T("]"),
	T("{"),
	T("}"),
	T("[1"),
	T("[1,"),
	T("[1,]"),
	T("[,1]"),
	T("[,]"),
	T("[1,,2]"),
	T("[1 2]"),
	T("[1}"),
	T("{1}"),
	T("{\"a\"}"),
	T("{\"a\":}"),
	T("{\"a\":1,}"),
	T("{,}"),
	T("{\"a\" 1}"),
	T("{\"a\":1 \"b\":2}"),
	T("{\"a\":1]"),
	T("{a:1}"),
	T("{'a':1}"),
	T("{1:1}"),
	T("{null:1}"),
	T("{\"a\"::1}"),
	T("{\"a\":1,,\"b\":2}"),
	T("[]]"),
	T("{}}"),
	T("[] []"),
	T("{} x"),
	T("[1]//c"),
	T("/**/1"),
	T("[1]\f"),
	T("\xa0[1]"),
	T("[\v1]"),
	T("[1,2,3,4,5,6,7,8,9,01,2,3,4,5,6]"),
	T("[10,20,30,40,50,00,60,70,80]"),
	T("[10,20,30,40,50,0 0,60,70,80]"),
	T("[1,2,3,4,5,6,7,8,9 ,,1,2,3,4,5,6]"),
	T("[1,2,3,4,5,6,7,8,9,10,11,12,13,]"),
	T("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ]"),
	T("[1,2,3,4,5,6,7,8,9,10,11,12,13"),
	T("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,"),
	T("[1, 2, 3, 4, 5 6, 7, 8, 9, 10, 11, 12, 13, 14]"),
	T("[1,2,3,4,5,6,7,8,9,10,11,12}"),
	T("{\"a\":1,2,3,4,5,6,7,8,9,10,11,12,13}"),
	T("[-]"),
	T("[1,2,-]"),
	T("[1.]"),
	T("[1234567890123456,0123456789012345,1]"),
	T("[123456789012345,00,1,1,1,1,1,1,1,1]"),
	T("[12345678901234,00,1,1,1,1,1,1,1,1]"),
	T("[1234567890123,00,1,1,1,1,1,1,1,1]"),
};

static void test_valid(void **state)
{
	struct pd_msg msg;

	(void)state;
	for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) {
		if (validate(valid[i].p, valid[i].n, &msg) != 0)
			fail_msg("refused '%s': %s", valid[i].p, msg.text);
	}
}

static void test_invalid(void **state)
{
	struct pd_msg msg;

	(void)state;
	for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) {
		if (validate(invalid[i].p, invalid[i].n, &msg) != PD_EINVAL)
			fail_msg("accepted '%s'", invalid[i].p);
		assert_non_null(strstr(msg.text, "expected"));
	}
}

/* The text of a case inside an array, so that every proper beginning is incomplete, numbers too. */
static void test_truncated(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) {
		char text[256];
		int n = snprintf(text, sizeof(text), "{\"k\":[%s]}", valid[i].p);

		assert_true(n > 0 && (size_t)n < sizeof(text));
		assert_int_equal(validate(text, (size_t)n, NULL), PD_OK);
		for (size_t cut = 0; cut < (size_t)n; cut++) {
			if (validate(text, cut, NULL) == PD_OK)
				fail_msg("accepted the first %zu bytes of '%s'", cut, text);
		}
	}
}

/* The same case at every place of the windows of 16 bytes: more text goes in behind the first quote
 * or bracket. */
static size_t shifted(char *text, struct span c, size_t shift)
{
	static const char padding[] = "0123456789abcdef0123456789ABCDEF0123456789";
	size_t n = 0;

	if (c.n > 0 && (*c.p == '"' || *c.p == '['))
		text[n++] = *c.p;
	for (size_t i = 0; i < shift; i++)
		text[n + i] = n == 0 ? ' ' : *c.p == '"' ? padding[i] : i % 2 ? ',' : '7';
	memcpy(text + n + shift, c.p + n, c.n - n);
	return shift + c.n;
}

static void test_shifted(void **state)
{
	char text[256] = "";

	(void)state;
	for (size_t shift = 0; shift < 40; shift += 2) {
		for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) {
			bool empty = valid[i].p[0] == '[' && strchr(" ]", valid[i].p[1]) != NULL;
			size_t n = shifted(text, valid[i], shift);

			if (!(empty && shift) && validate(text, n, NULL) != PD_OK)
				fail_msg("refused '%.*s'", (int)n, text);
		}
		for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) {
			size_t n = shifted(text, invalid[i], shift);

			if (validate(text, n, NULL) == PD_OK)
				fail_msg("accepted '%.*s'", (int)n, text);
		}
	}
}

/* The integer short cut against a plain reading of the same text, over random texts of its
 * alphabet. */
static bool integers_ok(const char *p)
{
	if (p[strspn(p, " ")] == '\0')
		return true;
	for (;;) {
		p += strspn(p, " ");
		if (*p < '0' || *p > '9' || (*p == '0' && p[1] >= '0' && p[1] <= '9'))
			return false;
		p += strspn(p, "0123456789");
		p += strspn(p, " ");
		if (*p == '\0')
			return true;
		if (*p++ != ',')
			return false;
	}
}

static void test_integer_arrays(void **state)
{
	static const char alphabet[] = "0123456789,,,,0 ";
	unsigned accepted = 0;
	struct rng r;

	(void)state;
	rng_seed(&r, 1);
	for (int round = 0; round < 200000; round++) {
		char inner[80], text[96];
		size_t n = 1 + rng_below(&r, 70), at = 0;
		bool ok;

		while (at < n) { /* mostly well-formed, so that long runs get far */
			if (rng_below(&r, 12) == 0)
				inner[at++] = alphabet[rng_below(&r, sizeof(alphabet) - 1)];
			else
				inner[at++] = (char)('1' + rng_below(&r, 9));
			if (at < n && rng_below(&r, 4) == 0)
				inner[at++] = ',';
			if (at < n && inner[at - 1] == ',' && rng_below(&r, 2) == 0)
				inner[at++] = ' ';
		}
		inner[n] = '\0';
		ok = integers_ok(inner);
		accepted += ok;
		n = (size_t)snprintf(text, sizeof(text), "[%s]", inner);
		if ((validate(text, n, NULL) == PD_OK) != ok)
			fail_msg("%s: '%s'", ok ? "refused" : "accepted", text);
	}
	assert_in_range(accepted, 5000, 195000);
}

static void test_depth(void **state)
{
	char text[2 * JSON_DEPTH_MAX + 4];
	struct pd_msg msg;

	(void)state;
	memset(text, '[', JSON_DEPTH_MAX);
	memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
	assert_int_equal(validate(text, 2 * JSON_DEPTH_MAX, NULL), PD_OK);
	memset(text, '[', JSON_DEPTH_MAX + 1);
	memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
	assert_int_equal(validate(text, 2 * JSON_DEPTH_MAX + 2, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "128 levels"));
}

static void test_message(void **state)
{
	struct pd_msg msg;
	struct json_object o;
	const char *text = "{\n  \"\xc3\xa4\": 1,\n  \"b\": x\n}";

	(void)state;
	assert_int_equal(validate(text, strlen(text), &msg), PD_EINVAL);
	assert_string_equal(
		msg.text,
		"invalid JSON at byte 20 (line 3, column 8): found 'x', expected a value");
	assert_int_equal(validate("[1,\x01", 4, &msg), PD_EINVAL);
	assert_string_equal(
		msg.text,
		"invalid JSON at byte 3 (line 1, column 4): found byte 0x01, expected a value");
	assert_int_equal(json_object_scan(&o, "[1]", 3, &msg), PD_EINVAL);
	assert_string_equal(
		msg.text,
		"invalid JSON at byte 0 (line 1, column 1): found '[', expected an object");
	assert_int_equal(json_object_scan(&o, NULL, 0, &msg), PD_EINVAL);
	assert_string_equal(
		msg.text,
		"invalid JSON at byte 0 (line 1, column 1): found the end, expected an object");
	json_object_release(&o);
}

static void check_member(const struct json_member *m, const char *key, const char *value,
			 enum json_type type)
{
	assert_int_equal(m->type, type);
	assert_int_equal(m->key.n, strlen(key));
	assert_memory_equal(m->key.p, key, m->key.n);
	assert_int_equal(m->value.n, strlen(value));
	assert_memory_equal(m->value.p, value, m->value.n);
}

static void test_members(void **state)
{
	const char *text =
		" { \"a\" : 1 , \"b\\u0062\":\"x\\\"y\", \"c\":[1,{\"a\":9}], \"d\":{\"a\":{}} ,"
		"\"e\":true,\"f\":false,\"g\":null,\"h\":{},\"i\":[],\"j\":-1.5e3\t} \n";
	struct json_object o;

	(void)state;
	assert_int_equal(json_object_scan(&o, text, strlen(text), NULL), PD_OK);
	assert_int_equal(o.n, 10);
	check_member(&o.member[0], "a", "1", JSON_NUMBER);
	check_member(&o.member[1], "b\\u0062", "\"x\\\"y\"", JSON_STRING);
	assert_true(o.member[1].key_escaped);
	assert_false(o.member[0].key_escaped);
	check_member(&o.member[2], "c", "[1,{\"a\":9}]", JSON_ARRAY);
	check_member(&o.member[3], "d", "{\"a\":{}}", JSON_OBJECT);
	check_member(&o.member[4], "e", "true", JSON_TRUE);
	check_member(&o.member[5], "f", "false", JSON_FALSE);
	check_member(&o.member[6], "g", "null", JSON_NULL);
	check_member(&o.member[7], "h", "{}", JSON_OBJECT);
	check_member(&o.member[8], "i", "[]", JSON_ARRAY);
	check_member(&o.member[9], "j", "-1.5e3", JSON_NUMBER);
	assert_int_equal(o.text.n, strlen(text) - 3);
	assert_ptr_equal(o.text.p, text + 1);
	assert_int_equal(o.doc.n, strlen(text));
	json_object_release(&o);
	assert_int_equal(json_object_scan(&o, "{}", 2, NULL), PD_OK);
	assert_int_equal(o.n, 0);
	json_object_release(&o);
}

static void test_get(void **state)
{
	const char *text = "{\"max\\u005ftokens\":1,\"model\":\"x\",\"max_tokens\":2,\"Model\":3,"
			   "\"m\\u006fdel\":4,"
			   "\"a\\nb\":5,\"\":6,\"n\\u0000\":7,\"\\ud83d\\ude00\":8}";
	struct json_object o;

	(void)state;
	assert_int_equal(json_object_scan(&o, text, strlen(text), NULL), PD_OK);
	check_member(json_object_get(&o, "max_tokens"), "max_tokens", "2", JSON_NUMBER);
	assert_int_equal(json_object_count(&o, "max_tokens"), 2);
	check_member(json_object_get(&o, "model"), "m\\u006fdel", "4", JSON_NUMBER);
	assert_int_equal(json_object_count(&o, "model"), 2);
	check_member(json_object_get(&o, "a\nb"), "a\\nb", "5", JSON_NUMBER);
	check_member(json_object_get(&o, ""), "", "6", JSON_NUMBER);
	check_member(json_object_get(&o, "\xf0\x9f\x98\x80"), "\\ud83d\\ude00", "8", JSON_NUMBER);
	assert_null(json_object_get(&o, "mode"));
	assert_null(json_object_get(&o, "models"));
	assert_null(json_object_get(&o, "n")); /* the key has a NUL byte behind the n */
	json_object_release(&o);
}

static void test_many_members(void **state)
{
	size_t cap = (JSON_MEMBERS_MAX + 1) * 12 + 2, n = 1;
	char *text = malloc(cap);
	struct json_object o;
	struct pd_msg msg;

	(void)state;
	assert_non_null(text);
	text[0] = '{';
	for (unsigned i = 0; i < JSON_MEMBERS_MAX; i++)
		n += (size_t)snprintf(text + n, cap - n, "\"k%u\":%u,", i, i % 10);
	text[n - 1] = '}';
	assert_int_equal(json_object_scan(&o, text, n, NULL), PD_OK);
	assert_int_equal(o.n, JSON_MEMBERS_MAX);
	for (unsigned i = 0; i < JSON_MEMBERS_MAX; i += 97) {
		char key[16], value[2] = {(char)('0' + i % 10), '\0'};

		(void)snprintf(key, sizeof(key), "k%u", i);
		check_member(json_object_get(&o, key), key, value, JSON_NUMBER);
	}
	json_object_release(&o);
	text[n - 1] = ',';
	n += (size_t)snprintf(text + n, cap - n, "\"x\":1}");
	assert_int_equal(json_object_scan(&o, text, n, &msg), PD_ETOOBIG);
	assert_int_equal(json_validate(text, n, NULL), PD_OK);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_valid),
		cmocka_unit_test(test_invalid),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_shifted),
		cmocka_unit_test(test_integer_arrays),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_message),
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_many_members),
	};

	return cmocka_run_group_tests_name("json_scan", tests, NULL, NULL);
}
