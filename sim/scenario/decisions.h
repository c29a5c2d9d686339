/* What a run decided, as JSON lines. */
#ifndef PD_SIM_SCENARIO_DECISIONS_H
#define PD_SIM_SCENARIO_DECISIONS_H

#include "sim/scenario/experiment.h"

#define DECISIONS_MAX ((size_t)4 << 30) /* bytes of all lines */

/*
 * Appends one line per decision of every arm, in the order in which the requests were routed:
 * {"scenario","policy","workers","request","key","pick":[{"worker","reason"}]}, and one per event,
 * {"scenario","policy","workers","event","worker","before_request"}, where it happened; events that
 * happened to no run of the arm have "before_request": null. "scenario" only for scenario files.
 * The replay is repeated to record the choices, which are the same each time.
 */
int decisions_append(const struct experiment *e, struct buf *out, struct pd_msg *msg) PD_MUST;

#endif
