/* What `pdctl results` prints: lists, one run, histories, tables for vLLM's scripts. All append to
 * `out`. */
#ifndef PD_CMD_RESULTS_PRINT_H
#define PD_CMD_RESULTS_PRINT_H

#include "lib/base/buf.h"
#include "lib/results/store_query.h"

/* A table of at most 100 columns, or JSON Lines. */
int results_print_list(struct store *s, const struct store_filter *f, bool json, struct buf *out,
		       struct pd_msg *msg) PD_MUST;
/* The head of a run and its figures. */
int results_print_run(struct store *s, int64_t id, struct buf *out, struct pd_msg *msg) PD_MUST;
/* The history of a metric: a line of marks, then a line per run. PD_EINVAL: no run has it. */
int results_print_trend(struct store *s, const char *metric, const struct store_filter *f,
			bool json, struct buf *out, struct pd_msg *msg) PD_MUST;
/* One record with the column names of vLLM's converted tables. */
int results_print_vllm(struct store *s, int64_t id, bool comma, struct buf *out,
		       struct pd_msg *msg) PD_MUST;

#endif
