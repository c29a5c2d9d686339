/* The access log, as an observer: one line per request when it has ended, however far it came. */
#ifndef PD_ROUTER_ACCESS_H
#define PD_ROUTER_ACCESS_H

#include "lib/router/watch/request_record.h"

void access_ended(const struct record *r);

#endif
