/* One pool of workers: pick, send, pass the answer on. */
#ifndef PD_ROUTER_REGULAR_H
#define PD_ROUTER_REGULAR_H

#include "lib/router/way/attempt.h"

/* By a worker of the pool of x->role. */
enum outcome regular_attempt(struct exchange *x);

#endif
