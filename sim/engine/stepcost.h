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

#define STEPCOST_FRACTION 20 /* bits of a nanosecond */

__extension__ typedef __int128 stepcost_time; /* in units of 2^-20 nanoseconds */

struct stepcost {
	double a, b, c, d, e; /* microseconds */
	bool whole_us;	      /* each step is rounded to whole microseconds, half to even */
};

/* PD_EINVAL when a coefficient is not finite, negative or above 1e9. A step may take no time. */
int stepcost_check(const struct stepcost *c, struct pd_msg *msg) PD_MUST;

struct stepload {
	double prefill, attention;
	uint64_t decodes, context;
};

struct stepload stepcost_load(const struct sched_step *step);

/*
 * The duration, exact in its unit: context is counted in whole units per token, everything else is
 * rounded once. So n steps whose context grows by stepcost_growth() each take a sum that has a
 * closed form, equal to the last bit to adding them one by one. (With whole_us they do not.)
 */
stepcost_time stepcost_step(const struct stepcost *c, const struct stepload *load);
/* How much longer each of a row of steps of the same decodes is than the one before. */
stepcost_time stepcost_growth(const struct stepcost *c, uint64_t decodes);

#endif
