/*
 * What a connector knows of a prefill worker: what it answered to the connector's inquiry, or what
 * an answer taught. It is forgotten when the worker fails, as another process may answer next.
 * Thread-safe.
 */
#ifndef PD_ROUTER_KNOWN_H
#define PD_ROUTER_KNOWN_H

#include "lib/base/buf.h"
#include "lib/router/fleet/worker.h"

/* What the connector has learnt of it, at most KNOWN_MAX bytes; n 0: forgets. True the first
 * time. */
#define KNOWN_MAX 16384
bool known_learn(struct worker *w, struct span text, int64_t now);
/* A copy into `out`, which is empty when nothing is known. PD_ENOMEM. */
int known_get(struct worker *w, struct buf *out) PD_MUST;
/* True when the inquiry of the connector should be made now: it is available, and nothing is known
 * or it is old. */
bool known_due(struct worker *w, const struct router_config *c, int64_t now);
/* With the worker's lock: nothing is known any more. */
void known_forget(struct worker *w);

#endif
