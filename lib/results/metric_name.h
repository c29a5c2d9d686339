/* What the name of a result key tells: which direction is better, the unit, whether it is a figure
 * worth a row. Pure. */
#ifndef PD_RESULTS_METRIC_NAME_H
#define PD_RESULTS_METRIC_NAME_H

#include <stdbool.h>

enum metric_direction { METRIC_NEUTRAL, METRIC_LOWER, METRIC_HIGHER };

/* By key: *_ms, failed, *_errors: lower is better; *throughput, *goodput, completed, *hit_rate ...:
 * higher. */
enum metric_direction metric_direction(const char *name);
/* "ms", "req/s", "tok/s", "s" or "". */
const char *metric_unit(const char *name);
/* In the default table: figures with a direction, without spreads (std_*), p50 twins of the median
 * and counts of chunks. */
bool metric_default(const char *name);
/* A figure of a nested object ("pdctl.x"); the point of "p99.9_ttft_ms" is none. */
bool metric_nested(const char *name);
/* *_itl_ms: per SSE chunk in files of vllm bench, per token in files of pdctl. */
bool metric_is_itl(const char *name);

/*
 * Splits "p99.9_ttft_ms" into the base ("ttft") and the statistic: quantile in [0, 1], or -1 for
 * the mean. False for other names and other statistics. base is borrowed from name, *n long.
 */
bool metric_split(const char *name, const char **base, unsigned *n, double *quantile);

/* The nine metrics of the InfiniLM comparison in its order; NULL-terminated. */
extern const char *const metric_infinilm[];

#endif
