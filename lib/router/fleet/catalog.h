/*
 * Keeps what workers say about their models up to date: each server that may be picked is asked for
 * /v1/models when it is new or back, and then at an interval, on one thread (the questions run on
 * that of asks.h). A server that does not answer delays nobody: those that were silent the last
 * time are asked apart from the others.
 *
 * What is learnt stands in the workers (served.h) and, as a table for the fleet of now, here.
 * Functions are thread-safe.
 */
#ifndef PD_ROUTER_CATALOG_H
#define PD_ROUTER_CATALOG_H

#include "lib/router/fleet/asks.h"
#include "lib/router/fleet/served.h"

#define CATALOG_LOOKS 256 /* requests that wait for a fresh look; more are not made to wait */

struct catalog;

/* Everything is borrowed until catalog_stop. *out is NULL with cfg->models_interval 0: nothing is
 * asked, and any worker takes any model. PD_ENOMEM. */
int catalog_start(struct catalog **out, struct fleet_holder *fleet, struct asks *asks,
		  const struct router_config *c, struct pd_msg *msg) PD_MUST;
/* After the last handler has ended, before asks_stop. Accepts NULL. */
void catalog_stop(struct catalog *c);

/* The table for this fleet, with a reference; NULL: out of memory. No lock and no waiting while the
 * fleet is the current one. */
struct served_table *catalog_table(struct catalog *c, struct fleet *f);
/* Asks all servers that can be expected to answer, unless that was done within the last second, and
 * sleeps meanwhile. PD_EBUSY: too many wait; PD_ETIMEOUT; PD_ECANCELED: the client left. */
int catalog_look(struct catalog *c, struct http_conn *conn) PD_MUST;

#endif
