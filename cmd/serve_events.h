/* Options of `pdctl serve` about the KV events of workers. */
#ifndef PD_CMD_SERVE_EVENTS_H
#define PD_CMD_SERVE_EVENTS_H

#include "lib/base/opt.h"
#include "lib/router/config/config.h"

extern const struct opt serve_events_rows[];

/* Before parsing. */
void serve_events_defaults(void);
/* Into c, which borrows them. PD_EINVAL with a sentence. */
int serve_events_read(struct router_config *c, struct pd_msg *msg) PD_MUST;
void serve_events_release(void);

#endif
