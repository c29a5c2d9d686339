/* The log's lines about requests, as an observer: who was chosen and why, and how it ended. */
#ifndef PD_ROUTER_EXPLAIN_H
#define PD_ROUTER_EXPLAIN_H

#include "lib/router/watch/request_record.h"

void explain_decided(const struct record *r);
void explain_ended(const struct record *r);

#endif
