/*
 * What an experiment wants: a metric, or a weighted sum of metrics that are better in the same
 * direction.
 *
 *   objective  term {'+' term}
 *   term       [number '*'] [pool '.'] metric
 *   "goodput" is short for goodput_share
 */
#ifndef PD_SIM_FIGURES_OBJECTIVE_H
#define PD_SIM_FIGURES_OBJECTIVE_H

#include "sim/figures/metrics.h"

#define OBJECTIVE_TERMS_MAX 8
#define OBJECTIVE_TEXT_MAX  200

struct objective_term {
	const struct simmetric *metric;
	int pool; /* 0 when not stated */
	double weight;
};

struct objective {
	char text[OBJECTIVE_TEXT_MAX];
	struct objective_term term[OBJECTIVE_TERMS_MAX];
	size_t n;    /* 0: none was given */
	bool higher; /* is better */
};

/* PD_EINVAL: the message says what was expected; *column (from 1) is the place in the text. */
int objective_parse(struct objective *o, const char *text, size_t *column,
		    struct pd_msg *msg) PD_MUST;

/* Of one repetition, or the mean with SIZE_MAX; NAN when a term is not defined. */
double objective_value(const struct objective *o, const struct arm *a, size_t rep);
/* Of a window of the first repetition; NAN when a term has no windows. */
double objective_window(const struct objective *o, const struct arm *a, size_t window);

/*
 * How much larger `a` is than `b`, as a ratio of their values, with a paired interval: over the
 * repetitions if they differ, which have the same requests on both sides; else over windows of
 * consecutive requests of the one run (batch means). The interval is that of a ratio estimator
 * with Student's t (Cochran, Sampling Techniques, section 6.4).
 */
struct contrast {
	double log_ratio; /* of a over b; NAN: not defined */
	double se, df;	  /* of it; NAN: nothing to make an interval of */
	size_t n;	  /* repetitions or windows; 0: none */
	bool windows;
	bool equal; /* the same value in each of them */
};
struct contrast contrast_of(const struct objective *o, const struct arm *a, const struct arm *b);

#endif
