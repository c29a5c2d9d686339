/* The runs of pdctl bench: workload, plan, warm-ups, load; one outcome after another. */
#ifndef PD_CMD_BENCH_RUN_H
#define PD_CMD_BENCH_RUN_H

#include "cmd/bench_opts.h"
#include "lib/load/asserts.h"
#include "lib/load/sweep.h"

struct bench {
	struct bench_setup setup;
	struct asserts asserts;
	struct workload work;
	struct load_plan plan;
	char *model;		  /* owned, when it was asked for */
	char hash[17];		  /* of the data set */
	struct buf described;	  /* what its reader said, for the document */
	double median_ttft_ms;	  /* of the warm-ups; 0: none */
	double token_scale;	  /* as calibrated; 0: not */
	struct sweep_watch watch; /* of a sweep's step */
	bool watching;
	double step_rate;
	bool splits; /* some of these prefix groups have several keys */
	size_t groups, split;
	bool terminal; /* standard error is one: show the progress */
};

extern volatile sig_atomic_t bench_interrupts;

/* The workload and the plan. Errors are the user's (exit 2) but PD_ENOMEM. */
int bench_prepare(struct bench *b, struct pd_msg *msg) PD_MUST;
void bench_release(struct bench *b);
/* Signals, the model's name, calibration. */
int bench_connect(struct bench *b, struct pd_msg *msg) PD_MUST;
int bench_warm_up(struct bench *b, struct pd_msg *msg) PD_MUST;
/* One run of the plan, to options.ab's servers in turns. */
int bench_once(struct bench *b, struct load_outcome *out, struct pd_msg *msg) PD_MUST;
/* After the last run: the prompts, which a large run has no memory for beside its document. */
void bench_forget(struct bench *b);
/* The plan again, with this rate and another salt: a step of a sweep, or a repetition. */
int bench_plan_step(struct bench *b, double rate, double seconds, struct pd_msg *msg) PD_MUST;

#endif
