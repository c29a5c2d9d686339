/* What an operator should know at the start of pdctl serve: who may change the fleet, and too few
 * descriptors for what the flags ask for. */
#ifndef PD_CMD_SERVE_WARN_H
#define PD_CMD_SERVE_WARN_H

#include "lib/router/config/config.h"

/* After the servers have started. `concurrent`: --max-concurrent-requests was given. */
void serve_warn(const struct router_config *c, bool concurrent);

#endif
