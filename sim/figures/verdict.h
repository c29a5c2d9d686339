/*
 * The answer of an experiment: which policy is best for its objective, by how much, how sure that
 * is, and where it loses.
 *
 * Arms that differ in policy, or in a swept field that belongs to the policy (policies, parameters,
 * ring, epp_config, decider), are candidates; arms that differ in anything else (workers, cache,
 * workload,
 * ...) are settings. Candidates are ranked by the mean over the settings of the log of their
 * objective beside the best one. Intervals have 95 % confidence, divided by the number of
 * comparisons with the best (Bonferroni), so that the best of many is not found by luck.
 */
#ifndef PD_SIM_FIGURES_VERDICT_H
#define PD_SIM_FIGURES_VERDICT_H

#include "lib/base/buf.h"
#include "sim/figures/objective.h"

#define VERDICT_FRONT_MAX 4
#define VERDICT_LEAST	  0.01 /* a difference of less is none */

struct verdict_rules {
	struct objective objective;		   /* n 0: chosen by what the arms have */
	struct objective front[VERDICT_FRONT_MAX]; /* of the Pareto front, one term each */
	size_t nfront;	  /* 0: the objective and the workers, or the balance */
	const char *base; /* policy that the best one is compared with; NULL: the next best */
	double share; /* of the requests that a setting has to serve within the goals; 0: 0.95 */
};

/* Two candidates over all settings. */
struct verdict_pair {
	double change;	  /* of the objective, best over other - 1; NAN: not defined */
	double low, high; /* its interval; NAN: none */
	size_t n;	  /* repetitions or windows of each setting; 0: no interval */
	bool windows;
	bool different;
};

struct verdict_candidate {
	char *name;		  /* owned: policy and its swept fields */
	double score;		  /* 0 is the best of every setting; NAN: undefined somewhere */
	size_t arm;		  /* in the first setting */
	struct verdict_pair pair; /* of the best with it; of the best itself: with nothing */
};

struct verdict {
	bool known; /* there is something to say */
	struct objective objective;
	struct verdict_candidate *rank; /* owned, best first */
	size_t n, settings;
	size_t other;	 /* place in rank of the one that the best is compared with; 0: none */
	size_t similar;	 /* that many of the first do not differ from the best, itself included */
	bool none;	 /* nothing differs */
	bool base_best;	 /* the base is the best one */
	struct buf text; /* owned: the lines */
};

/* Marks the Pareto front of the arms, too. PD_EINVAL: the base is not among the candidates;
 * PD_ENOMEM. Release also after a failure. */
int verdict_make(struct verdict *v, struct arms *arms, const struct verdict_rules *rules,
		 struct pd_msg *msg) PD_MUST;
void verdict_release(struct verdict *v);

#endif
