/* The records of the requests are summed up and freed before the next repetition runs: with many
 * arms the memory would add up. */
#include "sim/figures/metrics.h"

#include <stdlib.h>

bool arm_is_dead(const struct arm *a)
{
	return a->cfg.nevents > 0 && a->result.requests > 0 && a->result.completed == 0;
}

int arm_reps_new(struct arm *a, size_t n)
{
	a->rep = calloc(n, sizeof(*a->rep));
	a->nreps = a->rep ? n : 0;
	return a->rep ? PD_OK : PD_ENOMEM;
}

int arm_run(struct arm *a, size_t rep, const struct simtrace *t, struct pd_msg *msg)
{
	struct arm other, *x = a;
	int err;

	if (rep > 0) {
		other = *a;
		x = &other;
		x->result = (struct replay_result){0};
		x->figures = (struct figures){0};
		x->cfg.seed = a->seed + rep;
	}
	err = replay_run(t, &x->cfg, &x->result, msg);
	if (!err && rep == 0 && a->regret_of > 0)
		err = regret_make(&a->regret, t, &x->cfg, &x->result, a->regret_of, msg);
	if (!err)
		err = replay_figures(&x->figures, t, &x->cfg, &x->goals, &x->result, msg);
	if (!err)
		simmetrics_take(x, &a->rep[rep]);
	if (rep > 0) {
		replay_result_release(&x->result);
		figures_release(&x->figures);
	}
	return err;
}

int arms_run(struct arms *a, const struct simtrace *t, struct pd_msg *msg)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < a->n; i++) {
		err = a->arm[i].rep ? PD_OK : arm_reps_new(&a->arm[i], 1);
		if (!err)
			err = arm_run(&a->arm[i], 0, t, msg);
		a->arm[i].done = !err;
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
			for (size_t k = 0; x->nodes[p] && k < x->cfg.pool[p].n; k++)
				route_labels_release(&x->nodes[p][k].labels);
			free(x->nodes[p]);
			free(x->names[p]);
			free(x->absent[p]);
		}
		free(x->events);
		free(x->rep);
		figures_release(&x->figures);
		regret_release(&x->regret);
		replay_result_release(&x->result);
	}
	free(a->arm);
	*a = (struct arms){0};
}
