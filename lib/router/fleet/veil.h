/*
 * Clients do not learn where workers are: their addresses in what the router says itself give way
 * to names, unless --expose-workers. Logs keep the addresses.
 */
#ifndef PD_ROUTER_VEIL_H
#define PD_ROUTER_VEIL_H

#include "lib/router/fleet/fleet.h"

#define VEIL_MAX  1024 /* of a text for a client */
#define VEIL_NAME 160  /* of a worker's name for a client */

/* `text` as the client may read it: itself (`exposed`, or no fleet), or made in out. A worker's
 * URL, authority or host becomes its name; without one of its own the role that stands before it
 * must do.
 */
const char *veil(const struct fleet *f, bool exposed, const char *text, char out[VEIL_MAX]);
/* What a client may call the worker at place i of its pool: its name, or "decode 2" for one that
 * has only its URL. */
const char *veil_name(const struct worker *w, size_t i, char out[VEIL_NAME]);
/* A reference ("http://a:1/p", "//a:1/p") to a worker of the fleet: the worker, and in *rest what
 * follows the authority. NULL: it leads elsewhere. */
const struct worker *veil_reference(const struct fleet *f, struct span reference,
				    struct span *rest);

#endif
