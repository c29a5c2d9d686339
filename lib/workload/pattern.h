/*
 * Session patterns: text with integer expressions, for example "key_<i%4>" or
 * "bench_key_{request_id // 10}".
 *
 * Grammar: <expr> or {expr}; numbers, the variables i and request_id (the same number), session,
 * turn, prefix; + - * / // %, unary minus and plus, parentheses. All values are 64-bit integers. As
 * in Python // and % round towards minus infinity; a single / is the same as //. A literal bracket
 * is written twice: "<<", ">>", "{{", "}}". Compiled once, evaluated for every request; evaluation
 * does not allocate except in the output buffer. A compiled pattern is immutable and may be shared
 * by threads.
 */
#ifndef PD_WORKLOAD_PATTERN_H
#define PD_WORKLOAD_PATTERN_H

#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define PATTERN_TEXT_MAX  4096 /* bytes of a pattern */
#define PATTERN_DEPTH_MAX 32   /* nested parentheses and signs */

struct pattern_vars {
	int64_t i; /* number of the request, from 0 */
	int64_t session;
	int64_t turn;
	int64_t prefix;
};

struct pattern; /* opaque */

/* Compiles. PD_EINVAL with the column (1-based) of what is wrong, PD_ETOOBIG, PD_ENOMEM. *out is
 * NULL on failure. */
int pattern_new(struct pattern **out, const char *text, struct pd_msg *msg) PD_MUST;
void pattern_free(struct pattern *p);

/* Appends the text for these variables. PD_EINVAL for a division by zero or a result outside 64
 * bits, with the column. */
int pattern_eval(const struct pattern *p, const struct pattern_vars *v, struct buf *out,
		 struct pd_msg *msg) PD_MUST;

#endif
