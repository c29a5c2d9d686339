/* The result of a run for people, within 100 columns. */
#ifndef PD_LOAD_REPORT_H
#define PD_LOAD_REPORT_H

#include "lib/load/figures.h"
#include "lib/load/load_pulse.h"

/* What was done, then one row per metric, then what makes the figures doubtful. */
int report_text(const struct result_run *run, const struct figures *f, const struct pulse *pulse,
		const struct pulse_verdict *v, struct buf *out) PD_MUST;

#endif
