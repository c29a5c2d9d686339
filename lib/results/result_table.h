/* A result as a table for people. */
#ifndef PD_RESULTS_RESULT_TABLE_H
#define PD_RESULTS_RESULT_TABLE_H

#include "lib/results/result.h"

/* Appends the figures as text for people. Metrics and percentiles must be chosen (result_defaults).
 */
int result_table(const struct result_run *run, struct buf *out) PD_MUST;

#endif
