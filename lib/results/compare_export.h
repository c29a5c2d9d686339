/* A finished comparison for programs. All functions append to `out` and return 0, PD_ETOOBIG or
 * PD_ENOMEM. Numbers are written independent of the locale. */
#ifndef PD_RESULTS_COMPARE_EXPORT_H
#define PD_RESULTS_COMPARE_EXPORT_H

#include "lib/base/buf.h"
#include "lib/results/compare_report.h"

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
