/* From the name of a metric to the per-request values behind it, and their bootstrap. Internal to
 * lib/results. */
#ifndef PD_RESULTS_COMPARE_SERIES_H
#define PD_RESULTS_COMPARE_SERIES_H

#include "lib/results/compare_data.h"
#include "lib/stats/bootstrap.h"

/*
 * Draws the change of a row's metric from side 0 to `side` into row->draws, once. PD_ENOENT: no
 * metric of single requests, or a run without details for it. Otherwise the errors of
 * bootstrap_change. The same runs give the same draws.
 */
int compare_series_draw(const struct compare *c, struct compare_row *row, size_t side) PD_MUST;

#endif
