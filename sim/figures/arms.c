/* One after the other: an arm's latencies are summed up and freed before the next arm runs. */
#include "sim/figures/arms.h"

#include <stdlib.h>

bool arm_is_dead(const struct arm *a)
{
	return a->cfg.nevents > 0 && a->result.requests > 0 && a->result.completed == 0;
}

int arms_run(struct arms *a, const struct simtrace *t, struct pd_msg *msg)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < a->n; i++) {
		struct arm *x = &a->arm[i];

		err = replay_run(t, &x->cfg, &x->result, msg);
		if (!err)
			err = replay_figures(&x->figures, t, &x->cfg, &x->result, msg);
	}
	return err;
}

void arms_release(struct arms *a)
{
	for (size_t i = 0; i < a->n; i++) {
		struct arm *x = &a->arm[i];

		for (size_t p = 0; p < REPLAY_POOLS; p++) {
			for (size_t k = 0; x->names[p] && x->names[p][k]; k++)
				free(x->names[p][k]);
			free(x->names[p]);
			free(x->absent[p]);
		}
		free(x->events);
		replay_result_release(&x->result);
	}
	free(a->arm);
	*a = (struct arms){0};
}
