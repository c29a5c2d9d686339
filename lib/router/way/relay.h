/* The worker's answer on its way to the client. Owner thread: the connection's. */
#ifndef PD_ROUTER_RELAY_H
#define PD_ROUTER_RELAY_H

#include "lib/pd/usage.h"
#include "lib/router/way/leg.h"

enum relay_end { RELAY_DONE, RELAY_RETRY, RELAY_CUT, RELAY_CLIENT_LEFT };

/* Passes the answer on. RELAY_RETRY: the worker failed before a byte went to the client, x->failure
 * says how. `merge` may be NULL. */
enum relay_end relay_answer(struct exchange *x, struct leg *l,
			    const struct pd_prefill_usage *merge);

#endif
