/* A comparison as bars for a terminal: each metric's change, and its runs. Pure. */
#ifndef PD_RESULTS_COMPARE_BARS_H
#define PD_RESULTS_COMPARE_BARS_H

#include "lib/base/buf.h"
#include "lib/results/compare_report.h"

/* A line per metric and new side: a bar to the left for less and to the right for more, scaled by
 * the largest change (100 % at most), and a column per run of each side where there are several. */
int compare_bars_text(const struct compare_report *r, bool ascii, struct buf *out) PD_MUST;

#endif
