/* Flags of prefill/decode: the connector and what follows from it. */
#ifndef PD_CMD_SERVE_CONNECTOR_H
#define PD_CMD_SERVE_CONNECTOR_H

#include "lib/base/opt.h"
#include "lib/router/config/config.h"

extern const struct opt serve_connector_rows[];

/* `name` and `fallback` (--kv-connector, --pd-fallback) may be NULL: not given. PD_EINVAL names the
 * flag. Nothing in a plain pool. */
int serve_connector(struct router_config *c, const char *name, const char *fallback,
		    struct pd_msg *msg) PD_MUST;
/* Can the connector do what the decider may ask for? `given`: it is --pd-decider's. */
int serve_decider_check(const struct router_config *c, bool given, struct pd_msg *msg) PD_MUST;

#endif
