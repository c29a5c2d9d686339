/*
 * One experiment from its description to its results: load or make the workload, build the arms,
 * replay, check. A scenario file and the command line both end here.
 */
#ifndef PD_SIM_SCENARIO_EXPERIMENT_H
#define PD_SIM_SCENARIO_EXPERIMENT_H

#include "lib/workload/generate.h"
#include "sim/figures/expect.h"
#include "sim/trace/shape.h"
#include "sim/report/report.h"
#include "sim/scenario/plan.h"

/* Everything borrowed from the owner of the description. */
struct experiment_spec {
	struct plan plan;
	const char *workload;	    /* file, or NULL: `shape` */
	const char *workload_place; /* "FILE:LINE:COLUMN" that names it; NULL: an option */
	struct simload_options load;
	const struct generate_options
		*gen; /* file of `pdctl gen`, made in memory; its seed is the plan\'s */
	const struct shape *shape; /* used when workload and gen are NULL */
	struct expect *expect;	   /* parsed; `used` is written */
	size_t nexpect;
};

struct experiment {
	struct simtrace trace;
	struct arms arms;
	struct expect_results expected;
	struct simload_facts facts; /* of the workload */
	struct plan plan;	    /* spec->plan with `key` filled in */
};

/* PD_EINVAL: the description is wrong. On failure nothing has to be released. */
int experiment_run(const struct experiment_spec *spec, struct experiment *out,
		   struct pd_msg *msg) PD_MUST;
void experiment_release(struct experiment *e);

/* A view for simreport; valid as long as e. */
struct simreport experiment_report(const struct experiment *e);

#endif
