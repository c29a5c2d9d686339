/* Routes that pass a question on to workers. */
#ifndef PD_ROUTER_ADMIN_FANOUT_H
#define PD_ROUTER_ADMIN_FANOUT_H

#include "lib/router/admin/admin.h"

void admin_flush_cache(struct admin_call *a);	 /* POST /flush_cache */
void admin_server_info(struct admin_call *a);	 /* GET /get_server_info */
void admin_model_info(struct admin_call *a);	 /* GET /get_model_info */
void admin_finish_session(struct admin_call *a); /* POST /finish_session */

#endif
