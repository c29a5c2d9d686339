/*
 * Which policy to serve with: the family of policies that a recommendation tries, each with a few
 * values of the parameter that matters most, and the flags of serve that a winner means.
 */
#ifndef PD_SIM_SCENARIO_RECOMMEND_H
#define PD_SIM_SCENARIO_RECOMMEND_H

#include "lib/base/buf.h"
#include "sim/figures/verdict.h"

/* Policies as --policy takes them; ends with NULL. */
extern const char *const recommend_plain[];
extern const char *const recommend_pd[];

/* Appends "--policy NAME --PARAMETER VALUE ..." for a policy as people write it; P/D: with
 * --prefill-policy and --decode-policy when the two differ. PD_ETOOBIG, PD_ENOMEM. */
int recommend_flags(const char *policy, bool pd, struct buf *out) PD_MUST;

/* Appends the answer to "what should I serve with?": the flags and what they promise, or that the
 * base stays. Nothing without a verdict. */
int recommend_lines(const struct verdict *v, const struct arms *arms, struct buf *out) PD_MUST;

#endif
