/* The results of a simulation as a JSON document and as lines of text; the table is in table.h.
 * Text only; cmd/ prints. */
#ifndef PD_SIM_REPORT_REPORT_H
#define PD_SIM_REPORT_REPORT_H

#include "lib/base/buf.h"
#include "sim/figures/expect.h"
#include "sim/figures/verdict.h"

struct cJSON;

/* One scenario (or one --workload) with its results. Everything borrowed. */
struct simreport {
	const char *name;   /* of the scenario; NULL from the command line */
	const char *source; /* file name of the scenario or of the workload */
	const struct arms *arms;
	const struct verdict_rules *rules;
	const struct expect *expect;
	size_t nexpect;
	const struct expect_results *expected; /* NULL: none */
	const struct verdict *verdict;	       /* NULL: none */
	size_t number;			       /* of the experiment among those of the document */
	size_t shard, shards;		       /* shards 0: everything is here */
};

/*
 * The document of one arm: the keys of `vllm bench serve` as far as they make sense, and the object
 * "pdctl" with everything. NULL when out of memory. The caller frees it with cJSON_Delete.
 */
struct cJSON *simreport_arm(const struct simreport *r, size_t arm);
/* Appends to this document what needs the other arms: whether it is on the Pareto front, and the
 * expectations. Nothing in a shard. */
void simreport_arm_judged(const struct simreport *r, size_t arm, struct cJSON *doc);
/* Appends one line per arm and pool about the agreement with a capture, nothing without one; and
 * one per arm whose requests did not all complete. */
int simreport_remarks(const struct simreport *r, struct buf *out) PD_MUST;

/* Appends one line per expectation that was not met, and per arm that arm_is_dead(). */
int simreport_missed(const struct simreport *r, struct buf *out) PD_MUST;

#endif
