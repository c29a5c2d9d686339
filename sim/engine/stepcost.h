/*
 * How long a step takes: a + b*P + e*A + c*D + d*C microseconds.
 *
 *     D  requests that decode (all of their prompt is computed, one token)
 *     C  sum over these of the tokens that they attend to (start + 1)
 *     P  all other tokens of the step
 *     A  attention of these: sum of n * (start + n / 2), so that chunking does not change the sum
 *
 * Pure functions, the same on every machine.
 */
#ifndef PD_SIM_ENGINE_STEPCOST_H
#define PD_SIM_ENGINE_STEPCOST_H

#include "sim/engine/sched.h"

struct stepcost {
	double a, b, c, d, e; /* microseconds */
	bool whole_us;	      /* each step is rounded to whole microseconds, half to even */
};

/* PD_EINVAL when a coefficient is not finite, negative or above 1e9, or a step takes no time. */
int stepcost_check(const struct stepcost *c, struct pd_msg *msg) PD_MUST;

struct stepload {
	double prefill, attention;
	uint64_t decodes, context;
};

struct stepload stepcost_load(const struct sched_step *step);
/* Nanoseconds. */
int64_t stepcost_ns(const struct stepcost *c, const struct stepload *load);

#endif
