/*
 * The arms of an experiment: replays that differ in policy, number of workers, cache size or a
 * swept field, each with its results. An arm may be replayed several times with other seeds; its
 * values are then the mean, and the values of each repetition are there for intervals.
 */
#ifndef PD_SIM_FIGURES_ARMS_H
#define PD_SIM_FIGURES_ARMS_H

#include "sim/figures/figures.h"
#include "sim/figures/regret.h"

#define ARM_LABEL_MAX  520 /* two policies with their parameters, a hash */
#define ARM_POINT_MAX  400 /* "PATH=VALUE PATH=VALUE" */
#define ARM_REPS_MAX   64
#define SIMMETRICS_MAX 80

/* The workload of an arm, for reports. Texts are borrowed from the experiment. */
struct arm_load {
	const char *source; /* file of the scenario or of the workload */
	const char *key;    /* key that was used; NULL: session */
	const char *format, *arrivals;
	bool invented;
	const char *const *note;
	size_t nnotes;
	size_t requests, keys, picks;
	uint64_t named;
	uint32_t block_tokens;
};

/* By the place of a metric in simmetrics. */
struct arm_values {
	double v[SIMMETRICS_MAX][REPLAY_POOLS];
};

/* One arm: the input of one replay, and its results. */
struct arm {
	char policy[ARM_LABEL_MAX]; /* as the user wrote it */
	char point[ARM_POINT_MAX];  /* what a sweep set, or empty */
	uint32_t workers;	    /* of the plain pool; P/D: prefill + decode */
	uint64_t cache;
	uint64_t seed;			 /* of the first repetition; the others follow it */
	size_t load;			 /* of the experiment */
	const struct arm_load *workload; /* borrowed from it */
	struct replay_config cfg;
	struct figures_goals goals;
	size_t regret_of;	     /* decisions; 0: not wanted */
	struct regret regret;	     /* of the first repetition */
	struct replay_result result; /* of the first repetition, as are the figures */
	struct figures figures;
	struct arm_values *rep; /* owned; one per repetition */
	size_t nreps;
	bool done;   /* it was run here; else another shard does */
	bool pareto; /* no other arm is better in one of the front's metrics and as good in
			the others */
	char **names[REPLAY_POOLS];		 /* owned */
	bool *absent[REPLAY_POOLS];		 /* owned */
	struct replay_event *events;		 /* owned */
	struct replay_node *nodes[REPLAY_POOLS]; /* owned, with their labels; NULL: all are alike */
};

struct arms {
	struct arm *arm; /* owned */
	size_t n;
};

/* Workers failed, and no request completed. */
bool arm_is_dead(const struct arm *a);
/* Makes room for so many repetitions. PD_ENOMEM. */
int arm_reps_new(struct arm *a, size_t n) PD_MUST;
/* One repetition over its trace. The first one keeps its result and figures. Different repetitions
 * may run at the same time. */
int arm_run(struct arm *a, size_t rep, const struct simtrace *t, struct pd_msg *msg) PD_MUST;
/* All arms over one trace, one repetition, one after the other. */
int arms_run(struct arms *a, const struct simtrace *t, struct pd_msg *msg) PD_MUST;
void arms_release(struct arms *a);

#endif
