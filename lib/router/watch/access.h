/* The access log, as an observer: one line per request when it has ended, however far it came. */
#ifndef PD_ROUTER_ACCESS_H
#define PD_ROUTER_ACCESS_H

#include "lib/router/watch/request_record.h"

void access_ended(const struct record *r);
/* The same facts without the time and the client, as members of a JSON object behind a comma, with
 * a NUL at the end. */
int access_members(const struct record *r, struct buf *out) PD_MUST;

#endif
