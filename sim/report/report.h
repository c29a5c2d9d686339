/* What a simulation says: a table for people and a JSON document for programs. Text only; cmd/
 * prints. */
#ifndef PD_SIM_REPORT_REPORT_H
#define PD_SIM_REPORT_REPORT_H

#include "lib/base/table.h"
#include "sim/figures/expect.h"

struct cJSON;

/* One scenario (or one --workload) with its results. Everything borrowed. */
struct simreport {
	const struct plan *plan;
	const struct simtrace *trace;
	const struct arms *arms;
	const struct expect_results *expected; /* NULL: none */
};

/* Character put before the best value of a column when `mark` is set; cmd/ turns it into colour.
 * One column wide. */
#define SIMREPORT_MARK "\xee\x80\x80"

/* Adds the columns, then one row per arm. */
void simreport_columns(struct table *t);
void simreport_rows(const struct simreport *r, bool mark, struct table *t);

/*
 * The document of one arm: the keys of `vllm bench serve` as far as they make sense, and the object
 * "pdctl" with everything. NULL when out of memory. The caller frees it with cJSON_Delete.
 */
struct cJSON *simreport_arm(const struct simreport *r, size_t arm);

/* Appends one line per arm and pool about the agreement with a capture; nothing without one. */
int simreport_agreement(const struct simreport *r, struct buf *out) PD_MUST;

/* Appends one line per missed expectation. */
int simreport_missed(const struct simreport *r, struct buf *out) PD_MUST;

#endif
