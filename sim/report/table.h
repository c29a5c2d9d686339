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
void simreport_rows(const struct simreport *r, bool mark, struct table *t);

#endif
