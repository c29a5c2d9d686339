/* The router's state, and where a key goes, as JSON. */
#ifndef PD_ROUTER_PAGE_STATE_H
#define PD_ROUTER_PAGE_STATE_H

#include "lib/router/page/page.h"

/* Appends the state of now, at most half a second old. Thread-safe. */
int page_state(struct page *p, struct buf *out) PD_MUST;
/* For each pool: the workers in the key's order of preference, those first that are asked first;
 * null where the policy does not go by key. */
int page_state_where(struct page *p, struct span key, struct buf *out) PD_MUST;

#endif
