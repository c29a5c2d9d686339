/* Session patterns: Python's arithmetic, every syntax error with its column, overflow. And arrival
 * schedules. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/workload/arrivals.h"
#include "lib/workload/pattern.h"

static const struct {
	const char *pattern, *text;
	struct pattern_vars v;
} good[] = {
	{"key_<i%4>", "key_3", {.i = 7}},
	{"bench_key_{request_id // 10}", "bench_key_2", {.i = 29}},
	{"bench_key_{request_id/10}", "bench_key_2", {.i = 29}},
	{"", "", {0}},
	{"plain", "plain", {0}},
	{"<session>-<turn>-{prefix}", "5-6-7", {.session = 5, .turn = 6, .prefix = 7}},
	{"<2+3*4>", "14", {0}},
	{"<(2+3)*4>", "20", {0}},
	{"<10-3-2>", "5", {0}},
	{"<100//7//2>", "7", {0}},
	{"<-7//2>", "-4", {0}},
	{"<7//-2>", "-4", {0}},
	{"<-7%3>", "2", {0}},
	{"<7%-3>", "-2", {0}},
	{"<-7%-3>", "-1", {0}},
	{"<--3>", "3", {0}},
	{"<+3>", "3", {0}},
	{"<2*-3>", "-6", {0}},
	{"<-i>", "9223372036854775807", {.i = -INT64_MAX}},
	{"<9223372036854775807>", "9223372036854775807", {0}},
	{"< ( i + 1 )\t* 2 >", "8", {.i = 3}},
	{"a<<b>>{{c}}", "a<b>{c}", {0}},
	{"<<<i>>>", "<3>", {.i = 3}},
	{"<i>{i}<i>", "111", {.i = 1}},
	{"<i*i*i>", "1000", {.i = 10}},
	{"\xc3\xa9{i}",
	 "\xc3\xa9"
	 "1",
	 {.i = 1}},
};

static void python_arithmetic(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct pattern *p;
		struct pd_msg msg = {""};
		struct buf out;

		buf_init(&out, 1000);
		if (pattern_new(&p, good[i].pattern, &msg) ||
		    pattern_eval(p, &good[i].v, &out, &msg))
			fail_msg("\"%s\": %s", good[i].pattern, msg.text);
		assert_string_equal(out.data ? out.data : "", good[i].text);
		pattern_free(p);
		buf_release(&out);
	}
}

static const struct {
	const char *pattern, *says;
} bad[] = {
	{"<i", "column 3: expected an operator or '>'"},
	{"x<i}", "column 4: expected an operator or '>' to close the '<' of column 2"},
	{"i>", "column 2: unmatched closing bracket"},
	{"i}", "column 2: unmatched closing bracket"},
	{"<>", "column 2: expected a number"},
	{"{}", "column 2: expected a number"},
	{"<(i>", "column 4: expected ')'"},
	{"<i)>", "column 3: expected an operator"},
	{"<i+>", "column 4: expected a number"},
	{"<i 4>", "column 4: expected an operator"},
	{"<user>", "column 2: unknown variable 'user'"},
	{"<i**2>", "column 4: expected a number"},
	{"<1.5>", "column 3: expected an operator"},
	{"<9223372036854775808>", "column 2: number does not fit"},
	{"<4i>", "column 3: expected an operator"},
};

static void syntax_errors(void **state)
{
	char deep[200];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct pattern *p = NULL;
		struct pd_msg msg = {""};

		assert_int_equal(pattern_new(&p, bad[i].pattern, &msg), PD_EINVAL);
		assert_null(p);
		if (strncmp(msg.text, bad[i].says, strlen(bad[i].says)) != 0)
			fail_msg("\"%s\": \"%s\", expected \"%s\"", bad[i].pattern, msg.text,
				 bad[i].says);
	}
	for (size_t n = 20; n < 100; n += 20) {
		struct pattern *p = NULL;
		struct pd_msg msg = {""};

		memset(deep, '(', n);
		deep[0] = '<';
		memset(deep + n, '1', 1);
		memset(deep + n + 1, ')', n - 1);
		memcpy(deep + 2 * n, ">", 2);
		assert_int_equal(pattern_new(&p, deep, &msg), n == 20 ? PD_OK : PD_EINVAL);
		pattern_free(p);
	}
}

static const struct {
	const char *pattern, *says;
	int64_t i;
} runtime[] = {
	{"<1//i>", "column 3: division by zero", 0},
	{"<1%(i-3)>", "column 3: division by zero", 3},
	{"<i+1>", "column 3: result does not fit", INT64_MAX},
	{"<i-1>", "column 3: result does not fit", INT64_MIN},
	{"<i*2>", "column 3: result does not fit", INT64_MAX},
	{"<-i>", "column 2: result does not fit", INT64_MIN},
	{"<i//-1>", "column 3: result does not fit", INT64_MIN},
};

static void evaluation_errors(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 1000);
	assert_int_equal(buf_puts(&out, "keep"), PD_OK);
	for (size_t k = 0; k < sizeof(runtime) / sizeof(runtime[0]); k++) {
		struct pattern *p = NULL;
		struct pd_msg msg = {""};

		assert_int_equal(pattern_new(&p, runtime[k].pattern, &msg), PD_OK);
		assert_int_equal(
			pattern_eval(p, &(struct pattern_vars){.i = runtime[k].i}, &out, &msg),
			PD_EINVAL);
		if (strncmp(msg.text, runtime[k].says, strlen(runtime[k].says)) != 0)
			fail_msg("\"%s\": \"%s\"", runtime[k].pattern, msg.text);
		assert_int_equal(out.len, 4);
		pattern_free(p);
	}
	buf_release(&out);
}

/* The deepest stack the grammar allows: every level has a sum and a product pending. */
static void deepest_stack(void **state)
{
	struct pattern *p = NULL;
	struct pd_msg msg = {""};
	struct buf text, out;

	(void)state;
	buf_init(&text, PATTERN_TEXT_MAX);
	buf_init(&out, 100);
	assert_int_equal(buf_puts(&text, "<"), PD_OK);
	for (int i = 0; i < PATTERN_DEPTH_MAX - 1; i++)
		assert_int_equal(buf_puts(&text, "1+1*("), PD_OK);
	assert_int_equal(buf_puts(&text, "1+1*1"), PD_OK);
	for (int i = 0; i < PATTERN_DEPTH_MAX - 1; i++)
		assert_int_equal(buf_puts(&text, ")"), PD_OK);
	assert_int_equal(buf_puts(&text, ">"), PD_OK);
	assert_int_equal(pattern_new(&p, text.data, &msg), PD_OK);
	assert_int_equal(pattern_eval(p, &(struct pattern_vars){0}, &out, &msg), PD_OK);
	assert_string_equal(out.data, "33");
	pattern_free(p);
	buf_release(&text);
	buf_release(&out);
}

#define N 20000

static void moments(const int64_t *at, double *mean_s, double *cv)
{
	double sum = 0, square = 0;

	for (size_t i = 1; i < N; i++) {
		double gap = (double)(at[i] - at[i - 1]) / 1e9;

		assert_true(at[i] >= at[i - 1]);
		sum += gap;
		square += gap * gap;
	}
	*mean_s = sum / (N - 1);
	*cv = sqrt(square / (N - 1) - *mean_s * *mean_s) / *mean_s;
}

static void arrival_statistics(void **state)
{
	static int64_t at[N], again[N];
	const double burstiness[] = {1, 0.25, 16};
	double mean, cv;

	(void)state;
	for (size_t k = 0; k < 3; k++) {
		assert_int_equal(arrivals_fill(at, N, 50, burstiness[k], 7), PD_OK);
		moments(at, &mean, &cv);
		assert_int_equal(at[0], 0);
		/* five standard errors of the mean; the coefficient of variation of a gamma is
		 * shape^-1/2 */
		assert_true(fabs(mean - 0.02) < 5 * 0.02 / sqrt(burstiness[k] * N));
		assert_true(fabs(cv * sqrt(burstiness[k]) - 1) < 0.1);
		assert_int_equal(arrivals_fill(again, N, 50, burstiness[k], 7), PD_OK);
		assert_memory_equal(at, again, sizeof(at));
		assert_int_equal(arrivals_fill(again, N, 50, burstiness[k], 8), PD_OK);
		assert_memory_not_equal(at, again, sizeof(at));
		/* not rescaled to N / rate */
		assert_int_not_equal(at[N - 1], (int64_t)(N / 50.0 * 1e9));
	}
}

static void arrival_edges(void **state)
{
	int64_t at[4];

	(void)state;
	assert_int_equal(arrivals_fill(at, 4, INFINITY, 1, 1), PD_OK);
	assert_int_equal(at[3], 0);
	assert_int_equal(arrivals_fill(at, 4, 3, INFINITY, 1), PD_OK);
	assert_int_equal(at[1], 333333333);
	assert_int_equal(at[3], NS_PER_S);
	assert_int_equal(arrivals_fill(at, 4, 0, 1, 1), PD_EINVAL);
	assert_int_equal(arrivals_fill(at, 4, -1, 1, 1), PD_EINVAL);
	assert_int_equal(arrivals_fill(at, 4, NAN, 1, 1), PD_EINVAL);
	assert_int_equal(arrivals_fill(at, 4, 1, 0, 1), PD_EINVAL);
	assert_int_equal(arrivals_fill(at, 4, 1e-10, 1, 1), PD_ETOOBIG);
	assert_int_equal(arrivals_fill(NULL, 0, 1, 1, 1), PD_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(python_arithmetic),  cmocka_unit_test(syntax_errors),
		cmocka_unit_test(evaluation_errors),  cmocka_unit_test(deepest_stack),
		cmocka_unit_test(arrival_statistics), cmocka_unit_test(arrival_edges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
