/*
 * Expectations of a scenario: one line of text each, checked on every arm that it selects.
 *
 *   expectation  [selector ':'] [pool '.'] metric op right
 *   selector     words: a policy as it is listed, workers=N, cache=N, and PATH=VALUE of a sweep;
 * all of them must fit op           >=  <=  >  <  == right        number | [number '*'] [pool '.']
 * metric ['of' selector]
 *
 * In P/D a metric of the pools without a pool in front is checked in both. On the right side, what
 * the selector leaves out (policy, workers, cache, swept fields) is that of the left side. An
 * expectation is not met when a value is not defined for the arm. With several repetitions a value
 * is their mean.
 */
#ifndef PD_SIM_FIGURES_EXPECT_H
#define PD_SIM_FIGURES_EXPECT_H

#include "sim/figures/metrics.h"

#define EXPECT_TEXT_MAX 400

enum expect_op { EXPECT_GE, EXPECT_LE, EXPECT_GT, EXPECT_LT, EXPECT_EQ };

struct expect_selector {
	char policy[ARM_LABEL_MAX]; /* empty: any */
	int64_t workers, cache;	    /* -1: any */
	char point[ARM_POINT_MAX];  /* "PATH=VALUE ..."; empty: any */
};

struct expect_side {
	const struct simmetric *metric; /* NULL on the right side: a plain number */
	int pool;			/* -1: not stated */
	struct expect_selector select;
	double factor; /* the number itself when there is no metric */
};

struct expect {
	char text[EXPECT_TEXT_MAX + 1];
	struct expect_side left, right;
	enum expect_op op;
	const char *place; /* borrowed: "FILE:LINE:COLUMN" of the text, or the option; NULL: none */
	size_t used;	   /* arms it was checked on */
};

/* PD_EINVAL: the message says what was expected; *column (1-based) is the place in the text. */
int expect_parse(struct expect *e, const char *text, size_t *column, struct pd_msg *msg) PD_MUST;

struct expect_result {
	const struct expect *expect; /* borrowed */
	size_t arm;
	size_t pool;
	double value, bound; /* NAN: not defined */
	bool ok;
};

struct expect_results {
	struct expect_result *item; /* owned */
	size_t n, cap;
	size_t missed;
};

/*
 * Checks all expectations on all arms. PD_EINVAL when an expectation selects no arm, or its right
 * side selects none or several: such a line would never fail.
 */
int expect_evaluate(struct expect *e, size_t n, const struct arms *arms, struct expect_results *out,
		    struct pd_msg *msg) PD_MUST;
void expect_results_release(struct expect_results *r);

#endif
