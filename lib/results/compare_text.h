/* A finished comparison as tables for people. All functions append to `out` and return 0,
 * PD_ETOOBIG or PD_ENOMEM. */
#ifndef PD_RESULTS_COMPARE_TEXT_H
#define PD_RESULTS_COMPARE_TEXT_H

#include "lib/base/buf.h"
#include "lib/results/compare_report.h"

int compare_report_text(const struct compare_report *r, bool colour, struct buf *out) PD_MUST;
int compare_report_markdown(const struct compare_report *r, struct buf *out) PD_MUST;

#endif
