/* Small charts in text, a line per arm: requests per worker as bars, requests in flight and TTFT
 * over time as sparklines. */
#ifndef PD_SIM_REPORT_CHARTS_H
#define PD_SIM_REPORT_CHARTS_H

#include "sim/report/report.h"

#define CHARTS_ROWS_MAX 16 /* arms of a report; more are not drawn */

/* Appends the lines, at most 100 characters each, eight heights per character; `ascii`: other marks
 * than block elements. Nothing without a run of its own. */
int simreport_charts(const struct simreport *r, bool ascii, struct buf *out) PD_MUST;

#endif
