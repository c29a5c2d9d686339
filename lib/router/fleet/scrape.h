/*
 * What workers say about their load: their /metrics pages, read all in parallel on one thread, into
 * the signals that scorers read (lib/route/route_slot.h). Only of pools whose policy looks at them.
 *
 * A worker whose page cannot be read keeps its last figures for --metrics-staleness-secs; after
 * that the requests that this router has in flight there stand for its batch, its queue counts as
 * empty, and that is logged once.
 */
#ifndef PD_ROUTER_SCRAPE_H
#define PD_ROUTER_SCRAPE_H

#include "lib/router/fleet/fleet.h"

struct scrape;

/* Everything is borrowed until scrape_stop. *out is NULL when nothing can come to need it. */
int scrape_start(struct scrape **out, struct fleet_holder *fleet, const struct router_config *c,
		 struct pd_msg *msg) PD_MUST;
void scrape_stop(struct scrape *s); /* NULL is accepted */

#endif
