/* What an operator should know at the start of pdctl serve: who may change the fleet, too few
 * descriptors for what the flags ask for, where it listens. */
#ifndef PD_CMD_SERVE_WARN_H
#define PD_CMD_SERVE_WARN_H

#include "lib/router/router.h"

/* After the servers have started. `concurrent`: --max-concurrent-requests was given. */
void serve_warn(const struct router_config *c, bool concurrent);
/* Where it listens, and what it is. */
void serve_tell(const struct router_config *c, const struct router *rt);

#endif
