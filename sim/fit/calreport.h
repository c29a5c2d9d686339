/* A calibration as text for a person and as a document. */
#ifndef PD_SIM_FIT_CALREPORT_H
#define PD_SIM_FIT_CALREPORT_H

#include <cjson/cJSON.h>

#include "sim/fit/calibrate.h"

int calibrate_text(const struct calibration *c, struct buf *out) PD_MUST;
/* BLIS's keys at top, ours under pdctl.calibration. NULL when out of memory. */
cJSON *calibrate_json(const struct calibration *c);

#endif
