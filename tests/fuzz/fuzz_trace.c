/*
 * The check of a trace context against the grammar written down once more as a mask; a context of
 * ours passes it, also when one of its bytes is replaced by the input's.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/router/watch/traceparent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char mask[] = "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";

static bool all_zero(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != '0')
			return false;
	return true;
}

static bool expected(const char *p, size_t n)
{
	if (n < TRACEPARENT_LEN)
		return false;
	for (size_t i = 0; i < TRACEPARENT_LEN; i++)
		if (mask[i] == '-' ? p[i] != '-' : !p[i] || !strchr("0123456789abcdef", p[i]))
			return false;
	if (p[0] == 'f' && p[1] == 'f')
		return false;
	if (n > TRACEPARENT_LEN && (all_zero(p, 2) || p[TRACEPARENT_LEN] != '-'))
		return false;
	return !all_zero(p + 3, 32) && !all_zero(p + 36, 16);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span value = {(const char *)data, n};
	struct trace_context t;
	struct rng rng;

	if (trace_valid(value) != expected(value.p, n)) {
		fprintf(stderr, "fuzz_trace: the verdict is wrong\n");
		abort();
	}
	rng_seed(&rng, n);
	trace_make(&t, &rng);
	if (n > 1)
		t.text[data[0] % TRACEPARENT_LEN] = (char)data[1];
	value = (struct span){t.text, TRACEPARENT_LEN};
	if (trace_valid(value) != expected(value.p, value.n)) {
		fprintf(stderr, "fuzz_trace: the verdict on ours is wrong\n");
		abort();
	}
	return 0;
}
