/*
 * A finished comparison as text. All functions append to `out` and return 0, PD_ETOOBIG or
 * PD_ENOMEM; none prints. Numbers are written independent of the locale.
 */
#ifndef PD_RESULTS_COMPARE_REPORT_H
#define PD_RESULTS_COMPARE_REPORT_H

#include "lib/base/buf.h"
#include "lib/results/compare_gate.h"

#define COMPARE_RESULTS_MAX (GATES_MAX * COMPARE_SIDES_MAX)

struct compare_report {
	const struct compare *compare;
	const struct gate_result *result;
	size_t nresults;
	bool strict;
	int exit_code;	   /* what the command will return; written into the JSON form */
	const char *title; /* "InfiniLM" and the like, or NULL */
};

enum compare_mark { MARK_NONE, MARK_SAME, MARK_BETTER, MARK_WORSE, MARK_DIFFERS };

/* What a change means in the metric's direction. MARK_SAME: not significant, or no change at all.
 */
enum compare_mark compare_mark(const struct compare_row *row, size_t side);

int compare_report_text(const struct compare_report *r, bool colour, struct buf *out) PD_MUST;
int compare_report_markdown(const struct compare_report *r, struct buf *out) PD_MUST;
/* One object, "pdctl_compare": 1 is the version. Not-a-number and infinite values are null. */
int compare_report_json(const struct compare_report *r, struct buf *out) PD_MUST;
/* One test case per gate and side. */
int compare_report_junit(const struct compare_report *r, struct buf *out) PD_MUST;
/* Array for github-action-benchmark: the last side's figures that are better when lower, or when
 * higher. */
int compare_report_gha_bench(const struct compare_report *r, bool bigger, struct buf *out) PD_MUST;
/* Workflow commands ::error, ::warning and ::notice, one per gate that did not pass, or one notice.
 */
int compare_report_annotations(const struct compare_report *r, struct buf *out) PD_MUST;

#endif
