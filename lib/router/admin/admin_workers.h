/* Workers that are added, removed, drained and resumed while requests run. */
#ifndef PD_ROUTER_ADMIN_WORKERS_H
#define PD_ROUTER_ADMIN_WORKERS_H

#include "lib/router/admin/admin.h"

void admin_workers(struct admin_call *a);	/* /workers */
void admin_one_worker(struct admin_call *a);	/* /workers/ID... */
void admin_add_worker(struct admin_call *a);	/* /add_worker?url= */
void admin_remove_worker(struct admin_call *a); /* /remove_worker?url= */

#endif
