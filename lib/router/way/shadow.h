/*
 * --shadow-policy: a second policy decides the first attempt of each request, before the policy
 * that is followed and from the same state of the workers. Nothing of it is counted in flight and
 * nothing is sent; it learns from its own picks as if they had been followed. What it costs it
 * costs only where it is on.
 */
#ifndef PD_ROUTER_SHADOW_H
#define PD_ROUTER_SHADOW_H

#include "lib/router/way/pick.h"

/* Once for a request, however often it waits for a worker; `pair`: prefill and decode. `walk` is
 * memory of a ranking. */
void shadow_decide(struct exchange *x, bool pair, enum worker_role role, void *walk);
/* The pick that is followed stands: agreement, and who had fewer requests in flight. */
void shadow_compare(struct exchange *x, enum worker_role role);
/* x->fleet is another one now: a pick that is not in it is forgotten. */
void shadow_renew(struct exchange *x);
/* The request left the role: the policy hears of it. */
void shadow_end(struct exchange *x, enum worker_role role);

#endif
