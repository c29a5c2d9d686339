/* The workers file: which workers there are, and by which policies they are picked. */
#ifndef PD_ROUTER_WORKERSFILE_H
#define PD_ROUTER_WORKERSFILE_H

#include "lib/router/config/config.h"

/*
 * Reads workers and policies from a YAML file (see docs/serve.md): policy, prefill_policy,
 * decode_policy, workers, prefill, decode. Policies that the file does not name are those of
 * `base`. On failure nothing is kept and msg names the file.
 */
int fleet_config_read(const char *path, const struct router_config *base, struct fleet_config *out,
		      struct pd_msg *msg) PD_MUST;
/* The same for a text; `path` is its name in messages. */
int fleet_config_parse(const char *text, size_t n, const char *path,
		       const struct router_config *base, struct fleet_config *out,
		       struct pd_msg *msg) PD_MUST;

#endif
