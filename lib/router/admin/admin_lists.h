/* What the router says about its workers: lists and loads. */
#ifndef PD_ROUTER_ADMIN_LISTS_H
#define PD_ROUTER_ADMIN_LISTS_H

#include "lib/router/admin/admin.h"

/* One worker as a JSON object. */
int admin_put_worker(const struct admin_call *a, const struct fleet *f, struct worker *w,
		     struct buf *b) PD_MUST;
/* ,"degraded":...,"panic":[...]: what is true of whole pools. */
int admin_put_pools(struct fleet_holder *h, bool pd, struct buf *b) PD_MUST;
void admin_list_workers(struct admin_call *a); /* GET /list_workers */
void admin_get_loads(struct admin_call *a);    /* GET /get_loads */
void admin_workers_list(struct admin_call *a); /* GET /workers */

#endif
