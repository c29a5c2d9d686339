/* Prefill, then decode; or decode alone, for what one prefill cannot stand for (lib/pd/legs.h). */
#ifndef PD_ROUTER_PDFLOW_H
#define PD_ROUTER_PDFLOW_H

#include "lib/router/way/attempt.h"

/* Does a request of a P/D router go this way? Else it is for a decode worker as it is: no body, or
 * none that is read here, on a path of its own. */
bool pdflow_takes(const struct exchange *x);
enum outcome pdflow_attempt(struct exchange *x);

#endif
