/* docs/metrics.md, printed from the rows of metrics_table.h. */
#ifndef PD_ROUTER_METRICSDOC_H
#define PD_ROUTER_METRICSDOC_H

#include "lib/base/buf.h"

int metrics_markdown(struct buf *out) PD_MUST;

#endif
