/* Prefill, then decode. */
#ifndef PD_ROUTER_PDFLOW_H
#define PD_ROUTER_PDFLOW_H

#include "lib/router/way/attempt.h"

enum outcome pdflow_attempt(struct exchange *x);

#endif
