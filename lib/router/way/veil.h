/*
 * Clients do not learn where workers are: their addresses in what the router says itself give way
 * to names, unless --expose-workers. Logs keep the addresses.
 */
#ifndef PD_ROUTER_VEIL_H
#define PD_ROUTER_VEIL_H

#include "lib/base/span.h"

struct exchange;
struct worker;

#define VEIL_MAX 1024 /* of a text for a client */

/* `text` as the client may read it: itself, or made in out. A worker's URL, authority or host
 * becomes its name; without one of its own the role that stands before it must do. */
const char *veil(const struct exchange *x, const char *text, char out[VEIL_MAX]);
/* A reference ("http://a:1/p", "//a:1/p") to a worker of the request's fleet: the worker, and in
 * *rest what follows the authority. NULL: it leads elsewhere. */
const struct worker *veil_reference(const struct exchange *x, struct span reference,
				    struct span *rest);

#endif
