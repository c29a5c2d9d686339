/* The table of `pdctl simulate`: one row per arm. */
#ifndef PD_SIM_REPORT_TABLE_H
#define PD_SIM_REPORT_TABLE_H

#include "lib/base/table.h"
#include "sim/report/report.h"

/* Character put before the best value of a column when `mark` is set; cmd/ turns it into colour.
 * One column wide. */
#define SIMREPORT_MARK "\xee\x80\x80"

/* Adds the columns, then one row per arm. */
void simreport_columns(struct table *t);
/*
 * Leaves out what does not fit `width` characters (0: no limit): columns without a value, then the
 * less important ones, which a line in left_out names; at last long names are cut. The number of
 * failed requests is there only when there are some. Call once, before the table is printed.
 */
void simreport_fit(struct table *t, size_t width, struct buf *left_out);
void simreport_rows(const struct simreport *r, bool mark, struct table *t);

#endif
