/*
 * Probes the workers of a fleet at their intervals, on a thread of its own, and does what else time
 * brings: breakers become half-open, idle connections end. Thread-safe.
 */
#ifndef PD_ROUTER_HEALTH_H
#define PD_ROUTER_HEALTH_H

#include "lib/router/fleet/fleet.h"

struct health;

/* The first fleet is loaded. `fleet` and `c` are borrowed until health_stop. PD_ENOMEM. */
int health_start(struct health **out, struct fleet_holder *fleet, const struct router_config *c,
		 struct pd_msg *msg) PD_MUST;
/* The fleet has changed: look at it now. */
void health_nudge(struct health *h);
/* Ends the thread and the probes that run. Accepts NULL. */
void health_stop(struct health *h);

#endif
