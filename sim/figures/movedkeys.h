/*
 * How many keys change their worker when one worker leaves or one joins, against the ideal.
 * Measured, not derived: pools with and without the worker are built and route_decide() is asked
 * for every key in both.
 */
#ifndef PD_SIM_FIGURES_MOVEDKEYS_H
#define PD_SIM_FIGURES_MOVEDKEYS_H

#include "sim/replay/replay.h"

/* Shares of the keys, 0..1. */
struct moved_share {
	double moved;	    /* changed their worker */
	double ideal;	    /* had to: the keys of the worker that left; for a join 1 / (n + 1) */
	double unnecessary; /* moved between two workers that were there before and after */
};

struct movedkeys {
	bool known;	 /* false: no keys, a policy without homes, or (leave) one worker only */
	size_t keys;	 /* keys asked for */
	size_t removals; /* workers that were removed, one at a time; the leave figures are their
			    mean */
	struct moved_share leave, join; /* join: mean over eight names of a newcomer */
	double leave_worst;		/* largest share moved by one removal */
};

/* At most `MOVEDKEYS_ASKED` questions: with many keys and workers a stride through both is taken.
 */
#define MOVEDKEYS_ASKED 200000u

int movedkeys_measure(const struct simtrace *t, const struct vrouter_config *cfg,
		      struct movedkeys *out, struct pd_msg *msg) PD_MUST;

#endif
