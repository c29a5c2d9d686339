/*
 * One experiment from its description to its results: load or make the workloads, build the arms,
 * replay, check. A scenario file and the command line both end here.
 *
 * A description is one or several specifications (the points of a sweep). Their arms form one list,
 * in the order of the points; each arm is replayed once per repetition, with the seeds seed,
 * seed + 1, ... Replays run on several threads; what comes out depends on neither their number nor
 * their order.
 */
#ifndef PD_SIM_SCENARIO_EXPERIMENT_H
#define PD_SIM_SCENARIO_EXPERIMENT_H

#include "lib/workload/generate.h"
#include "sim/figures/expect.h"
#include "sim/figures/verdict.h"
#include "sim/trace/shape.h"
#include "sim/report/report.h"
#include "sim/scenario/plan.h"

#define EXPERIMENT_ARMS_MAX    8192
#define EXPERIMENT_THREADS_MAX 64

/* Everything borrowed from the owner of the description. */
struct experiment_spec {
	struct plan plan;
	const char *workload;	    /* file, or NULL: `shape` */
	const char *workload_place; /* "FILE:LINE:COLUMN" that names it; NULL: an option */
	struct simload_options load;
	const struct generate_options
		*gen; /* file of `pdctl gen`, made in memory; its seed is the plan\'s */
	const struct shape *shape; /* used when workload and gen are NULL */
	const char *same; /* points with equal text here have the same workload; NULL: all have */
	struct expect *expect; /* parsed; `used` is written */
	size_t nexpect;
	size_t repetitions; /* 0: one */
	const char *note;   /* for the reader; NULL: none */
	struct verdict_rules rules;
};

struct experiment_options {
	size_t threads;	      /* 0: one */
	size_t shard, shards; /* this one, from 0, of so many; shards 0: all */
	bool keep_traces;     /* for decisions_append */
	bool detailed;	      /* arms keep their requests and tokens, and traces stay */
	void (*progress)(void *ctx, size_t done, size_t total); /* NULL: none; one at a time */
	void *progress_ctx;
};

/* A workload of one repetition. */
struct experiment_load {
	struct simtrace trace; /* empty again when its arms are done, unless traces are kept */
	struct simload_facts facts;
	struct arm_load summary;
	int64_t first_ns;		    /* arrival */
	const struct experiment_spec *spec; /* borrowed */
	uint64_t seed;
};

struct experiment {
	struct experiment_load *load; /* owned; repetitions of a workload stand side by side */
	size_t nloads;
	struct arms arms;
	struct expect_results expected;	    /* empty in a shard */
	struct verdict verdict;		    /* empty in a shard */
	const char *name;		    /* of the scenario; NULL from the command line */
	const struct experiment_spec *spec; /* borrowed: the first one */
	size_t repetitions, shard, shards;
};

/* spec[0] says expectations, repetitions and rules for all. opt NULL: one thread, all arms.
 * PD_EINVAL: the description is wrong. On failure nothing has to be released. */
int experiment_run(const struct experiment_spec *spec, size_t nspecs,
		   const struct experiment_options *opt, struct experiment *out,
		   struct pd_msg *msg) PD_MUST;
void experiment_release(struct experiment *e);

/* A view for simreport; valid as long as e. */
struct simreport experiment_report(const struct experiment *e);

#endif
