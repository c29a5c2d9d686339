/* Any text as a session pattern, evaluated for ordinary and extreme variables: errors have a
 * column, evaluation repeats itself. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/workload/pattern.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct pattern_vars cases[] = {
	{0},
	{.i = 119, .session = 5, .turn = 19, .prefix = 3},
	{.i = -1, .session = -7, .turn = -2, .prefix = -3},
	{.i = INT64_MAX, .session = INT64_MIN, .turn = INT64_MAX, .prefix = INT64_MIN},
};

static void evaluate(const struct pattern *p)
{
	struct buf a, b;
	struct pd_msg msg;

	buf_init(&a, 1 << 20);
	buf_init(&b, 1 << 20);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int first = pattern_eval(p, &cases[i], &a, &msg),
		    second = pattern_eval(p, &cases[i], &b, &msg);

		if (first != second || !span_eq(buf_span(&a), buf_span(&b)))
			abort();
		if (first == PD_EINVAL && strncmp(msg.text, "column ", 7) != 0)
			abort();
	}
	buf_release(&a);
	buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct pattern *p = NULL;
	struct pd_msg msg = {""};
	char *text = malloc(n + 1);

	if (!text)
		return 0;
	if (n)
		memcpy(text, data, n);
	text[n] = '\0';
	if (pattern_new(&p, text, &msg) == PD_OK)
		evaluate(p);
	else if (!msg.text[0] || p)
		abort();
	pattern_free(p);
	free(text);
	return 0;
}
