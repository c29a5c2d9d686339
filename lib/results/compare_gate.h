/*
 * Gates: the conditions that decide the exit code. How they are judged: compare_judge.h.
 *
 *   relative   METRIC:+5%   fails when the metric rises by more than 5 % against the base
 *              METRIC:-3%   fails when it falls by more than 3 %
 *              METRIC:5%    fails when it gets worse by more than 5 %, whichever way that is for
 * this metric absolute   METRIC<=500  must hold in every run of every new side (<= >= < >)
 *
 * A sign that would fail on an improvement is refused: it would let every regression pass. Pure, no
 * I/O.
 */
#ifndef PD_RESULTS_COMPARE_GATE_H
#define PD_RESULTS_COMPARE_GATE_H

#include "lib/results/compare_data.h"

#define GATES_MAX 64

enum gate_kind { GATE_FAIL_ON, GATE_WARN_ON, GATE_REQUIRE };
enum gate_op { GATE_RISE, GATE_FALL, GATE_LE, GATE_LT, GATE_GE, GATE_GT };
struct gate {
	enum gate_kind kind;
	enum gate_op op;
	const char *text; /* borrowed: as written */
	char metric[128];
	double limit; /* a ratio for GATE_RISE and GATE_FALL (0.05 = 5 %), otherwise the metric's
			 unit */
};

/* "--fail-on", "--warn-on" or "--require". */
const char *gate_flag(enum gate_kind kind);

/* "5%" or "2.5%" as a ratio; false for anything else. */
bool gate_percent(const char *text, double *ratio);

/* PD_EINVAL with a message that names the flag, what was found and what was expected. */
int gate_parse(struct gate *g, enum gate_kind kind, const char *text, struct pd_msg *msg) PD_MUST;

/*
 * PD_EINVAL: no run knows the metric (the message has the nearest name); PD_ENOENT: a run lacks it,
 * or it is not a finite number there. Never passes a gate whose metric cannot be judged.
 */
int gate_check(const struct compare *c, const struct gate *g, struct pd_msg *msg) PD_MUST;

#endif
