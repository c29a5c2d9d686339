/* The session analysis as text for people and as JSON; both append to `out`. */
#ifndef PD_RESULTS_VERIFY_REPORT_H
#define PD_RESULTS_VERIFY_REPORT_H

#include "lib/results/verify.h"

/* The text for people. */
int verify_text(const struct verify *v, struct buf *out) PD_MUST;
/* One JSON object. */
int verify_json(const struct verify *v, struct buf *out) PD_MUST;

#endif
