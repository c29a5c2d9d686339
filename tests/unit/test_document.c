/* The tolerant reader of results: what it accepts, what it refuses and where it says the fault is;
 * and gate syntax. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/results/compare_gate.h"
#include "lib/results/document.h"

static int parse(struct result_set *s, const char *text, struct pd_msg *msg)
{
	result_set_init(s);
	return result_parse(s, "f.json", span_of(text), msg);
}

static void one_object_with_everything(void **state)
{
	static const char text[] = "\xef\xbb\xbf{\"a_ms\": 1.5e1, "
				   "\"rate\":\"inf\",\"run\":\"7\",\"none\":null,\"nan\":NaN,\n"
				   "\"up\":Infinity,\"down\":-Infinity,\"yes\":true,\"no\":false,"
				   "\"list\":[1,{\"x\":[2]},\"]\"],"
				   "\"pdctl\":{\"simulated\":true,\"deep\":{\"er\":-0}},"
				   "\"\\u0061b\":\"q\\\"\",\"a_ms\":16}";
	struct result_set s;
	struct pd_msg msg;

	(void)state;
	assert_int_equal(parse(&s, text, &msg), 0);
	assert_int_equal(s.n, 1);
	assert_true(result_number(&s.doc[0], "a_ms") == 16); /* the last one counts */
	assert_true(isinf(result_number(&s.doc[0], "rate")));
	assert_true(isnan(result_number(&s.doc[0], "run"))); /* text is no number */
	assert_true(isnan(result_number(&s.doc[0], "nan")));
	assert_int_equal(result_get(&s.doc[0], "nan")->type, RESULT_NUMBER);
	assert_true(result_number(&s.doc[0], "down") < 0 &&
		    isinf(result_number(&s.doc[0], "down")));
	assert_int_equal(result_get(&s.doc[0], "none")->type, RESULT_NULL);
	assert_int_equal(result_get(&s.doc[0], "pdctl.simulated")->type, RESULT_BOOL);
	assert_non_null(result_get(&s.doc[0], "pdctl.deep.er"));
	assert_string_equal(result_text(&s.doc[0], "ab"), "q\"");
	assert_null(result_get(&s.doc[0], "x"));
	assert_null(result_get(&s.doc[0], "list"));
	result_set_release(&s);
}

static void several_objects_in_one_file(void **state)
{
	struct result_set s;
	struct pd_msg msg;

	(void)state;
	assert_int_equal(parse(&s, "{\"a\":1}{\"a\":2}\n\n{\"a\":3}\r\n", &msg), 0);
	assert_int_equal(s.n, 3);
	assert_string_equal(s.doc[0].source, "f.json");
	assert_string_equal(s.doc[2].source, "f.json#3");
	assert_true(result_number(&s.doc[1], "a") == 2);
	/* A later fault takes back only what this call added. */
	assert_int_equal(result_parse(&s, "g.json", SPAN("{\"a\":4} {\"a\":"), &msg), PD_EINVAL);
	assert_int_equal(s.n, 3);
	result_set_release(&s);
}

static void series_from_details(void **state)
{
	static const char text[] =
		"{\"ttfts\":[0.03,0,0.05,0.01],\"itls\":[[0.01,0.01],[],[0.02],[9]],"
		"\"output_lens\":[3,0,1,2],\"errors\":[\"\",\"refused\",\"\",\"cut\"]}";
	struct result_set s;
	struct pd_msg msg;

	(void)state;
	assert_int_equal(parse(&s, text, &msg), 0);
	assert_int_equal(s.doc[0].series[SERIES_TTFT].n, 2); /* failed requests are left out */
	assert_true(fabs(s.doc[0].series[SERIES_TTFT].v[1] - 50) < 1e-9);
	assert_int_equal(s.doc[0].series[SERIES_E2EL].n, 2);
	assert_true(fabs(s.doc[0].series[SERIES_E2EL].v[0] - 50) <
		    1e-9);				     /* no latencies: sum of gaps */
	assert_int_equal(s.doc[0].series[SERIES_TPOT].n, 1); /* only with two tokens or more */
	assert_true(fabs(s.doc[0].series[SERIES_TPOT].v[0] - 10) < 1e-9);
	result_set_release(&s);
}

/* Files without error texts: a failed request has a TTFT of 0; a detail of another length says
 * nothing. */
static void series_without_errors(void **state)
{
	struct result_set s;
	struct pd_msg msg;

	(void)state;
	assert_int_equal(
		parse(&s, "{\"ttfts\":[0,0.02,null,NaN],\"latencies\":[1],\"itls\":[]}", &msg), 0);
	assert_int_equal(s.doc[0].series[SERIES_TTFT].n, 1);
	assert_int_equal(s.doc[0].series[SERIES_E2EL].n, 0);
	assert_int_equal(s.doc[0].series[SERIES_TPOT].n, 0);
	result_set_release(&s);
}

struct fault {
	const char *text, *where;
};

static const struct fault faults[] = {
	{"", "f.json:1:1: found the end of the file"},
	{"[]", "f.json:1:1: found '[', expected a JSON object"},
	{"7", "f.json:1:1: found '7'"},
	{"{\"a\":1,\n \"b\" 2}", "f.json:2:6: found '2', expected ':'"},
	{"{\"a\":1,}", "f.json:1:8: found '}', expected a key"},
	{"{\"a\":01}", "f.json:1:7: found '1'"},
	{"{\"a\":1.}", "f.json:1:8: found '}', expected a digit after"},
	{"{\"a\":-}", "f.json:1:7: found '}'"},
	{"{\"a\":1e}", "f.json:1:8"},
	{"{\"a\":nan}", "f.json:1:6: found 'n', expected a JSON value"},
	{"{\"a\":[1 2]}", "f.json:1:9: found '2', expected ',' or ']'"},
	{"{\"a\":1", "f.json:1:7: found the end of the file, expected ',' or '}'"},
	{"{\"a\":\"x", "f.json:1:8: found the end of the file"},
	{"{\"a\":\"\\x\"}", "f.json:1:6"},
	{"{\"\xc3\xa4\":x}", "f.json:1:6: found 'x'"},
	{"{\"a\":1}\n{\"b\":}", "f.json:2:6: found '}', expected a JSON value"},
	{"{\"a\":1}\nrubbish", "f.json:2:1: found 'r', expected a JSON object"},
	{"{\"a\":\"\n\"}", "f.json:1:7: found byte 0x0a"},
};

static void faults_have_line_and_column(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		struct result_set s;
		struct pd_msg msg;

		assert_int_equal(parse(&s, faults[i].text, &msg), PD_EINVAL);
		if (strncmp(msg.text, faults[i].where, strlen(faults[i].where)) != 0)
			fail_msg("%s: found \"%s\", expected \"%s...\"", faults[i].text, msg.text,
				 faults[i].where);
		assert_int_equal(s.n, 0);
		result_set_release(&s);
	}
}

static void nesting_and_size_are_bounded(void **state)
{
	struct result_set s;
	struct pd_msg msg;
	struct buf text;

	(void)state;
	buf_init(&text, 1 << 20);
	assert_int_equal(buf_puts(&text, "{\"a\":"), 0);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(buf_putc(&text, '['), 0);
	assert_int_equal(parse(&s, text.data, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "64 levels"));
	result_set_release(&s);
	buf_clear(&text);
	for (int i = 0; i <= RESULT_DOCS_MAX; i++)
		assert_int_equal(buf_puts(&text, "{}\n"), 0);
	assert_int_equal(parse(&s, text.data, &msg), PD_ETOOBIG);
	assert_true(msg.text[0]);
	buf_release(&text);
	result_set_release(&s);
}

static void gates_parse(void **state)
{
	struct pd_msg msg;
	struct gate g;

	(void)state;
	assert_int_equal(gate_parse(&g, GATE_FAIL_ON, "p99_ttft_ms:+5%", &msg), 0);
	assert_int_equal(g.op, GATE_RISE);
	assert_true(fabs(g.limit - 0.05) < 1e-15);
	assert_string_equal(g.metric, "p99_ttft_ms");
	assert_int_equal(gate_parse(&g, GATE_WARN_ON, "request_throughput:-2.5%", &msg), 0);
	assert_int_equal(g.op, GATE_FALL);
	assert_int_equal(gate_parse(&g, GATE_FAIL_ON, "output_throughput:3%", &msg), 0);
	assert_int_equal(g.op, GATE_FALL);
	assert_int_equal(gate_parse(&g, GATE_REQUIRE, "p99_ttft_ms <= 500", &msg), 0);
	assert_int_equal(g.op, GATE_LE);
	assert_int_equal(gate_parse(&g, GATE_REQUIRE, "x>-1.5", &msg), 0);
	assert_int_equal(g.op, GATE_GT);
	assert_true(g.limit < -1.4);
}

static void gates_that_could_pass_silently_are_refused(void **state)
{
	static const char *const relative[] = {
		"",
		"p99_ttft_ms",
		":+5%",
		"p99_ttft_ms:",
		"p99_ttft_ms:+5",
		"p99_ttft_ms:+nan%",
		"p99_ttft_ms:+inf%",
		"p99_ttft_ms:+0x5%",
		"p99_ttft_ms:-5%",
		"request_throughput:+3%",
		"duration:5%",
		"p99_ttft_ms:+5%%",
		"p99_ttft_ms:--5%",
		"p99_ttft_ms:+5 %",
	};
	static const char *const absolute[] = {
		"",	    "failed",	 "failed=0", "failed==0",   "<=5",
		"failed<=", "failed<=x", "a<=5ms",   "failed<=nan", "failed=<0",
	};
	struct pd_msg msg;
	struct gate g;

	(void)state;
	for (size_t i = 0; i < sizeof(relative) / sizeof(relative[0]); i++)
		if (gate_parse(&g, GATE_FAIL_ON, relative[i], &msg) != PD_EINVAL ||
		    strncmp(msg.text, "--fail-on: ", 11) != 0)
			fail_msg("'%s' was taken", relative[i]);
	for (size_t i = 0; i < sizeof(absolute) / sizeof(absolute[0]); i++)
		if (gate_parse(&g, GATE_REQUIRE, absolute[i], &msg) != PD_EINVAL)
			fail_msg("'%s' was taken", absolute[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_object_with_everything),
		cmocka_unit_test(several_objects_in_one_file),
		cmocka_unit_test(series_from_details),
		cmocka_unit_test(series_without_errors),
		cmocka_unit_test(faults_have_line_and_column),
		cmocka_unit_test(nesting_and_size_are_bounded),
		cmocka_unit_test(gates_parse),
		cmocka_unit_test(gates_that_could_pass_silently_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
