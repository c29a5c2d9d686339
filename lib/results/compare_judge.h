/*
 * Judging gates. A relative gate asks: do these runs contradict "the change is not beyond the
 * limit"? The answer is a one-sided p, from
 *
 *   enough runs          Welch's t on the logs of the runs' values; with pairs Student's t on the
 *                        logs of their ratios; with rules.bootstrap and details the hierarchical
 *                        bootstrap; Mann-Whitney where a value is not above 0
 *   too few, details     the bootstrap (lib/stats/bootstrap.h) with rules.run_spread between runs,
 *                        at a fifth of the level: few requests make a bootstrap optimistic
 *   simulated runs only  the plain change: the same input gives the same bytes, there is no noise
 *   too few, none        nothing: inconclusive, unless rules.single lets the plain change decide
 *
 * Several relative gates of a kind are one family, whatever side or setting they judge: Holm (1979)
 * keeps the chance that any of them fails without cause at rules.level.
 */
#ifndef PD_RESULTS_COMPARE_JUDGE_H
#define PD_RESULTS_COMPARE_JUDGE_H

#include "lib/results/compare_gate.h"

#define JUDGE_POWER 0.9 /* of the changes that a gate is said to find */

enum gate_verdict { GATE_PASS, GATE_WARN, GATE_FAIL, GATE_INCONCLUSIVE };
enum gate_method {
	JUDGE_ABSOLUTE,
	JUDGE_WELCH,
	JUDGE_PAIRS,
	JUDGE_RANKS,
	JUDGE_BOOTSTRAP,
	JUDGE_SIMULATED,
	JUDGE_PLAIN,
	JUDGE_NONE
};

struct gate_result {
	const struct gate *gate;
	const struct compare *compare; /* the setting it was judged in */
	size_t side, row;	       /* row: its number in the comparison */
	enum gate_verdict verdict;
	enum gate_method method;
	bool indicative;    /* fewer runs than a claim needs */
	double change;	    /* ratio; absolute gates: the worst run's value */
	double p;	    /* one-sided, against the limit; NaN without a test */
	double level;	    /* that p had to reach, after Holm */
	double bound;	    /* the change is at least (at most) this, at `level`; ratio, or NaN */
	double detectable;  /* the smallest change that would be found, ratio; NaN: unknown */
	double asked;	    /* the change that it should find, ratio */
	size_t runs_needed; /* per side, to find it; 0: unknown, or more than 1,000 */
	size_t holds, runs; /* absolute gates: how many runs hold, of how many */
};

const char *gate_verdict_text(enum gate_verdict v);
/* "Welch's t on logs", ... */
const char *gate_method_text(enum gate_method m);

/*
 * Judges one side of one comparison; adds the metric's row when the table does not have it. The
 * gate must have passed gate_check. Relative gates have no verdict before gate_decide.
 */
int gate_judge(struct compare *c, const struct gate *g, size_t side,
	       struct gate_result *out) PD_MUST;
/* Gives all results of one command their verdicts. */
void gate_decide(struct gate_result *result, size_t n);
/* The figures behind a verdict, one or two sentences; `more` is what such runs can find. */
void gate_why(const struct gate_result *r, char *why, size_t cap, char *more, size_t more_cap);

#endif
