/* The request counters and histograms, as an observer. What must move at once (received, in flight,
 * events, failures of legs) is counted where it happens. */
#ifndef PD_ROUTER_METRICS_RECORD_H
#define PD_ROUTER_METRICS_RECORD_H

#include "lib/router/watch/request_record.h"

void metrics_decided(const struct record *r);
void metrics_answered(const struct record *r);
void metrics_ended(const struct record *r);

#endif
