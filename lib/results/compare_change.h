/* The statistics of one row, and why a metric cannot be compared. Internal to lib/results. */
#ifndef PD_RESULTS_COMPARE_CHANGE_H
#define PD_RESULTS_COMPARE_CHANGE_H

#include "lib/results/compare_data.h"

/* Fills medians, spreads and changes of a row whose cells hold their values. PD_ENOMEM or
 * PD_EINVAL. */
int compare_change_row(const struct compare *c, struct compare_row *row) PD_MUST;

/* Explains which run lacks the metric or what it has instead; always returns PD_ENOENT. `what`
 * names the flag. */
int compare_why_unusable(const struct compare *c, const char *what, const char *name,
			 struct pd_msg *msg);

enum compare_mark { MARK_NONE, MARK_SAME, MARK_BETTER, MARK_WORSE, MARK_DIFFERS };

/* What a change means in the metric's direction. MARK_SAME: not significant, or nothing that two
 * decimals of a per cent show. */
enum compare_mark compare_mark(const struct compare_row *row, size_t side);

#endif
