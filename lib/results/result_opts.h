/* The option texts that choose what a result document contains, and how its numbers are spelt. */
#ifndef PD_RESULTS_RESULT_OPTS_H
#define PD_RESULTS_RESULT_OPTS_H

#include "lib/results/result.h"

/* "ttft", "tpot", ... ; NULL when out of range. */
const char *result_metric_name(enum result_metric m);
/* A comma-separated list of metric names. PD_EINVAL names the wrong one. */
int result_metrics_parse(struct result_run *run, const char *list, struct pd_msg *msg) PD_MUST;
/* A comma-separated list of numbers from 0 to 100. */
int result_percentiles_parse(struct result_run *run, const char *list, struct pd_msg *msg) PD_MUST;
/* One goal "ttft:200" in ms. */
int result_goal_parse(struct result_run *run, const char *text, struct pd_msg *msg) PD_MUST;

/* Appends a number as Python writes a float: the shortest form that reads back equal, "12.0" for
 * whole ones; null when not finite. */
int result_put_number(struct buf *out, double v) PD_MUST;
/* The same for a whole one. */
int result_put_int(struct buf *out, int64_t v) PD_MUST;

#endif
